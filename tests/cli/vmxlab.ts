/** Runs the built command line as a user does. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../../lib/lab/paths.js';

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export const BOOTSTRAP = join(ROOT, 'lib', 'bootstrap.mjs');

export const vmxlab = (...args: readonly string[]): Ended => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [BOOTSTRAP, ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return { status, stdout, stderr };
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
