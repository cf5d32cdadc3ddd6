/** `vmxlab stat`: boots a guest and prints what `perf kvm stat report` would: how often it left, and for how long. */
import type { Command } from 'commander';
import { type ExitTimes, TIMED, type Timed, timeExits, timesText } from '../lab/exit-times.js';
import type { Paging } from '../lab/run-types.js';
import { withTrace } from './boot.js';
import {
  addOneBootOptions,
  type BootFlags,
  bootOptions,
  pagingAndParams,
  traceOption,
} from './boot-options.js';
import { writeWhole } from './files.js';
import { json, progressText, report, resultData, statusOf } from './result.js';
import { interruptible, ProgressLine } from './terminal.js';
import { oneOf } from './values.js';

interface Flags extends BootFlags {
  readonly paging?: Paging;
  readonly event: Timed;
}

const run = async (flags: Flags): Promise<number> => {
  const { paging, params } = pagingAndParams(flags.paging, flags.param);
  const options = bootOptions(flags);
  const trace = traceOption(flags.trace);
  const { bootUnder } = await import('../lab/both.js');
  const line = new ProgressLine();
  const started = performance.now();
  let times: ExitTimes | undefined;
  let hz = 1;
  const result = await interruptible((controller) =>
    withTrace(trace, (more) =>
      bootUnder(
        paging,
        {
          ...options,
          ...more,
          signal: controller.signal,
          onMachine: (machine) => {
            hz = machine.vm.clock.rate;
            times = timeExits(machine, flags.event);
          },
          onProgress: (n) => line.show(progressText(paging, n, started)),
        },
        params,
      ),
    ).finally(() => line.clear()),
  );
  const rows = times?.rows() ?? [];
  process.stdout.write(timesText(rows, hz, flags.event));
  if (flags.json !== undefined)
    writeWhole(flags.json, json({ ...resultData(result), stat: { event: flags.event, hz, rows } }));
  report(result);
  return statusOf(result, flags.until);
};

const HELP = `
The table goes to stdout. Times are virtual, from the VM exit (or the access) to the next VM entry; an
exit that ends the run has none and is not in the table. HLT contains the time the guest was idle.

Examples:
  vmxlab stat --paging shadow
  vmxlab stat --event ioport --until 'Run /init'`;

export const addStat = (program: Command, done: (status: number) => void): Command => {
  const command = program
    .command('stat')
    .description('boot a guest and print the table of perf kvm stat report');
  addOneBootOptions(command)
    .option('--event <NAME>', `what is timed: ${TIMED.join(', ')}`, oneOf('--event', TIMED), 'vmexit')
    .addHelpText('after', HELP)
    .action(async (flags: Flags) => done(await run(flags)));
  return command;
};
