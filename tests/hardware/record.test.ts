/**
 * Records the hardware vectors anew: RECORD=1 npx vitest run tests/hardware/record.test.ts, on Linux on x86-64 with gcc.
 * Without RECORD nothing runs.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { integerCases } from './cases.js';
import { changes, type MachineState, stateOf } from './state.js';

const here = (name: string): string => join(import.meta.dirname, name);
const hex = (bytes: Iterable<number>): string =>
  [...bytes].map((b) => b.toString(16).padStart(2, '0')).join('');
const bytesOf = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/../g) ?? [], (b) => Number.parseInt(b, 16));

const lineOf = (code: readonly number[], s: MachineState): string =>
  `${hex(code)}|${s.gpr.map((v) => v.toString(16)).join(' ')}|${s.flags.toString(16)}|${hex(s.memory)}`;

test.skipIf(process.env['RECORD'] === undefined)('record', () => {
  const folder = mkdtempSync(join(tmpdir(), 'record-'));
  const program = join(folder, 'record');
  execFileSync('gcc', ['-O1', '-no-pie', '-o', program, here('record.c')]);
  const cases = integerCases();
  const states = cases.map((c) => stateOf(c.seed, c.over));
  const input = cases.map((c, i) => lineOf(c.code, states[i])).join('\n');
  const output = execFileSync(program, { input: `${input}\n`, encoding: 'utf8', maxBuffer: 1 << 26 })
    .trim()
    .split('\n');
  rmSync(folder, { recursive: true });
  expect(output.length).toBe(cases.length);
  const model = /^model name\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? 'unknown';
  const lines = cases.map((c, i) => {
    const [fault, gpr, flags, memory] = output[i].split('|');
    const over = Object.entries(c.over)
      .map(([name, v]) => `${name}=${v.toString(16)}`)
      .join(' ');
    const after = {
      gpr: gpr.split(' ').map((v) => BigInt(`0x${v}`)),
      flags: Number.parseInt(flags, 16),
      memory: bytesOf(memory),
    };
    const result = fault === '-1' ? changes(states[i], after) : `fault=${Number(fault).toString(16)}`;
    return `${hex(c.code)}|${c.seed}|${over}|${result}`;
  });
  writeFileSync(here('integer.txt'), `# recorded with record.c on: ${model}\n${lines.join('\n')}\n`);
});
