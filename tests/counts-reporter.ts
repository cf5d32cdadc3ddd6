/** Writes how many tests passed and failed to the file that VMXLAB_COUNTS names; `tests/run.mjs` prints it last. */
import { writeFileSync } from 'node:fs';
import type { Reporter, TestModule } from 'vitest/node';

export class CountsReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly unknown[]): void {
    let passed = 0;
    // what is no test's failure is a failure all the same
    let failed = unhandled.length;
    for (const m of modules) {
      const tests = [...m.children.allTests()];
      for (const t of tests) {
        const { state } = t.result();
        if (state === 'passed') passed++;
        else if (state !== 'skipped') failed++;
      }
      if (m.state() === 'failed' && !tests.some((t) => t.result().state === 'failed')) failed++;
    }
    const file = process.env['VMXLAB_COUNTS'];
    if (file !== undefined) writeFileSync(file, JSON.stringify({ passed, failed }));
  }
}

// vitest loads a reporter by its default export
export { CountsReporter as default };
