// `npm test`: sets up what the tests need (npm packages, build, Debian guest, notebook exporter), runs them, and ends
// with one line `N passed, N failed`. Arguments go to vitest.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const tests = dirname(fileURLToPath(import.meta.url));
const root = dirname(tests);
const node = (args, env = {}) =>
  spawnSync(process.execPath, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  }).status ?? 1;

/** @returns the exit status */
const finish = (passed, failed, status) => {
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 && status === 0 ? 1 : status;
};

const setUp = node([join(root, 'lib', 'bootstrap.mjs'), 'setup']);
if (setUp !== 0) {
  finish(0, 1, setUp);
} else {
  const folder = mkdtempSync(join(tmpdir(), 'vmxlab-test-'));
  const counts = join(folder, 'counts.json');
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
  const reporters = ['--reporter=default', `--reporter=${join(tests, 'counts-reporter.ts')}`];
  const status = node([vitest, 'run', ...reporters, ...process.argv.slice(2)], { VMXLAB_COUNTS: counts });
  let result = { passed: 0, failed: 1 };
  try {
    result = JSON.parse(readFileSync(counts, 'utf8'));
  } catch {
    // vitest did not get to its end: that is one failure
  }
  rmSync(folder, { recursive: true, force: true });
  finish(result.passed, result.failed, status);
}
