/** Runs the built command line as a user does. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { vi } from 'vitest';
import { main } from '../../lib/cli/main.js';
import { ROOT } from '../../lib/lab/paths.js';

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export const BOOTSTRAP = join(ROOT, 'lib', 'bootstrap.mjs');

/** Node's arguments for a command line of the built program, past the bootstrap's look at sources and packages. */
export const program = (...args: readonly string[]): string[] => {
  const main = JSON.stringify(join(ROOT, 'dist', 'cli', 'main.js'));
  return [
    '--input-type=module',
    '-e',
    `import { main } from ${main}; await main(process.argv.slice(1));`,
    '--',
    ...args,
  ];
};

export const vmxlab = (...args: readonly string[]): Ended => {
  const { status, stdout, stderr } = spawnSync(process.execPath, program(...args), {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return { status, stdout, stderr };
};

/** The same in this process: quick, for command lines that start no machine. */
export const vmxlabHere = async (...args: readonly string[]): Promise<Ended> => {
  const written = { stdout: '', stderr: '' };
  const catchIn = (stream: 'stdout' | 'stderr') =>
    vi.spyOn(process[stream], 'write').mockImplementation((text) => {
      written[stream] += String(text);
      return true;
    });
  const spies = [catchIn('stdout'), catchIn('stderr')];
  const before = process.exitCode;
  process.exitCode = 0;
  try {
    await main(args);
    return { status: Number(process.exitCode), ...written };
  } finally {
    process.exitCode = before;
    for (const spy of spies) spy.mockRestore();
  }
};

/** A folder for one test. */
export const withFolder = <T>(work: (folder: string) => T): T => {
  const folder = mkdtempSync(join(tmpdir(), 'vmxlab-test-'));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
