/** `vmxlab compare`: the same guest under EPT and under shadow paging, and their exits side by side. */
import { extname } from 'node:path';
import type { Command } from 'commander';
import { compareCounts, compareCsv, compareText } from '../lab/compare.js';
import type { Paging, RunResult } from '../lab/run-types.js';
import { withTrace } from './boot.js';
import { addBootOptions, type BootFlags, bootOptions, paramsOfBoth, traceOption } from './boot-options.js';
import { checkOutput, writeWhole } from './files.js';
import { json, progressText, report, resultData, statusOf, statusOfBoth } from './result.js';
import { interruptible, ProgressLine } from './terminal.js';

interface Flags extends BootFlags {
  readonly csv?: string;
}

/** `run.log` → `run.ept.log`. */
const withMode = (file: string, paging: Paging): string => {
  const ending = extname(file);
  return `${file.slice(0, file.length - ending.length)}.${paging}${ending}`;
};

const run = async (flags: Flags): Promise<number> => {
  const params = paramsOfBoth(flags.param);
  const options = bootOptions(flags);
  const trace = traceOption(flags.trace);
  const { bootUnder } = await import('../lab/both.js');
  const { predictionText, withPrediction } = await import('../lab/prediction.js');
  const line = new ProgressLine();
  const results: RunResult[] = [];
  await interruptible(async (controller) => {
    for (const paging of ['ept', 'shadow'] as const) {
      if (controller.signal.aborted) break;
      const started = performance.now();
      const own = trace === undefined ? undefined : { ...trace, file: withMode(trace.file, paging) };
      const onProgress = (n: number): void => line.show(progressText(paging, n, started));
      const result = await withTrace(own, (more) =>
        bootUnder(paging, { ...options, ...more, signal: controller.signal, onProgress }, params),
      ).finally(() => line.clear());
      report(result);
      results.push(result);
      if (result.outcome === 'interrupted') break;
    }
  });
  const [ept, shadow] = results;
  if (ept === undefined || shadow === undefined) return 4;
  process.stdout.write(`${compareText(ept.exits, shadow.exits)}\n`);
  const predictions =
    options.guest === 'tiny'
      ? await Promise.all(
          results
            .filter((r) => r.outcome === 'poweroff')
            .map(async (r) => [r.paging, await withPrediction(r, options, params)] as const),
        )
      : [];
  for (const [paging, prediction] of predictions)
    process.stdout.write(`\n${paging}:\n${predictionText(prediction)}\n`);
  if (flags.json !== undefined) {
    // JSON has no infinity: a type that only shadow paging has gets null
    const rows = compareCounts(ept.exits, shadow.exits).map((r) => ({
      ...r,
      ratio: Number.isFinite(r.ratio) ? r.ratio : null,
    }));
    const predicted = options.guest === 'tiny' ? { predictions: Object.fromEntries(predictions) } : {};
    writeWhole(flags.json, json({ ept: resultData(ept), shadow: resultData(shadow), rows, ...predicted }));
  }
  if (flags.csv !== undefined) writeWhole(flags.csv, compareCsv(ept.exits, shadow.exits));
  return statusOfBoth(statusOf(ept, flags.until), statusOf(shadow, flags.until));
};

const HELP = `
The table goes to stdout: exit reason number, KVM's and the SDM's name, both counts, and their ratio.
With --trace, the file's name gets .ept and .shadow before its ending.

Example:
  vmxlab compare -e 'find / | wc -l' --csv exits.csv`;

export const addCompare = (program: Command, done: (status: number) => void): Command => {
  const command = program
    .command('compare')
    .description('boot under EPT and under shadow paging, and compare the exits');
  addBootOptions(command)
    .option('--csv <FILE>', 'write the table as CSV', (v: string) => checkOutput(v, '--csv'))
    .addHelpText('after', HELP)
    .action(async (flags: Flags) => done(await run(flags)));
  return command;
};
