import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { kernelFile } from '../../lib/guests/debian/initramfs.js';
import { DEBIAN } from '../../lib/lab/paths.js';
import { program, vmxlab, withFolder } from './vmxlab.js';

test('--until stops at the end of the line: status 0, whole JSON', () =>
  withFolder((folder) => {
    const file = join(folder, 'run.json');
    const { status, stdout, stderr } = vmxlab('boot', '--until', 'Linux version', '--json', file);
    expect(status).toBe(0);
    expect(stdout).toMatch(/Linux version 6\.1\.[^\n]*\n$/);
    expect(stderr).toMatch(/^ept: until after /);
    const run = JSON.parse(readFileSync(file, 'utf8'));
    expect(run).toMatchObject({
      paging: 'ept',
      outcome: 'until',
      instructions: expect.any(Number),
      cycles: expect.any(Number),
      wallSeconds: expect.any(Number),
    });
    expect(run.console).toBe(stdout);
    expect(run.walks.references).toBeGreaterThan(run.walks.count);
    expect(Object.keys(run.exitCycles)).toEqual(Object.keys(run.exits));
    expect(readdirSync(folder)).toEqual(['run.json']);
  }));

test('a limit stops the run at the exact instruction: status 4', () =>
  withFolder((folder) => {
    const file = join(folder, 'run.json');
    const { status } = vmxlab(
      'boot',
      '--max-instructions',
      '1_234_567',
      '--json',
      file,
      '--paging',
      'shadow',
    );
    expect(status).toBe(4);
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({
      paging: 'shadow',
      outcome: 'limit',
      instructions: 1234567,
    });
  }));

test('compare: a table of both modes, CSV and JSON', () =>
  withFolder((folder) => {
    const csv = join(folder, 'x.csv');
    const json = join(folder, 'x.json');
    const { status, stdout } = vmxlab(
      'compare',
      '--max-instructions',
      '3000000',
      '--csv',
      csv,
      '--json',
      json,
    );
    expect(status).toBe(4);
    expect(stdout).toMatch(/^ *# +KVM +SDM +EPT +shadow +ratio$/m);
    expect(stdout).toMatch(/^ *10 +CPUID +CPUID +\d+ +\d+/m);
    expect(readFileSync(csv, 'utf8')).toMatch(/^reason,kvm,sdm,ept,shadow\n/);
    const { ept, shadow, rows } = JSON.parse(readFileSync(json, 'utf8'));
    expect(ept.exits[14] ?? 0).toBe(0);
    expect(shadow.exits[48] ?? 0).toBe(0);
    expect(rows.find((r: { reason: number }) => r.reason === 10).ept).toBe(ept.exits[10]);
  }));

test('--trace writes the state before each instruction of the range', () =>
  withFolder((folder) => {
    const file = join(folder, 'trace.log');
    vmxlab('boot', '--max-instructions', '200', '--trace', '100:105', file);
    const text = readFileSync(file, 'utf8');
    expect(text.match(/^RIP=/gm)).toHaveLength(5);
    expect(text).toMatch(/^RAX=[0-9a-f]{16} RBX=[0-9a-f]{16} RCX=/);
  }));

/** Name, what is done to a copy of Debian's kernel, and the message. */
test.each([
  ['empty', 0, undefined],
  ['truncated', 1 << 20, undefined],
  ['foreign', undefined, 'this is no kernel\n'],
])('%s kernel: one message, status 2, no JSON', (_name, length, text) =>
  withFolder((folder) => {
    const kernel = join(folder, 'kernel');
    const json = join(folder, 'run.json');
    writeFileSync(kernel, text ?? readFileSync(kernelFile(join(DEBIAN, 'root'))));
    if (length !== undefined) truncateSync(kernel, length);
    const { status, stderr } = vmxlab('boot', '--kernel', kernel, '--json', json);
    expect(stderr).toMatch(/^vmxlab: [^\n]+\n$/);
    expect(stderr).not.toContain('error of vmxlab itself');
    expect(status).toBe(2);
    expect(existsSync(json)).toBe(false);
  }),
);

test('a signal ends the run cleanly, with a whole JSON', async () => {
  const { mkdtempSync, rmSync } = await import('node:fs');
  const folder = mkdtempSync('/tmp/vmxlab-test-');
  const file = join(folder, 'run.json');
  const child = spawn(process.execPath, program('boot', '--json', file), {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  // the guest runs when its console speaks
  child.stdout.once('data', () => child.kill('SIGINT'));
  child.stdout.resume();
  expect(await ended).toBe(4);
  expect(JSON.parse(readFileSync(file, 'utf8')).outcome).toBe('interrupted');
  rmSync(folder, { recursive: true });
});
