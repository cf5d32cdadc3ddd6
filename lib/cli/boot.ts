/** `vmxlab boot`: one guest under one kind of paging, its console on stdout. */
import type { Command } from 'commander';
import { LabError } from '../base/error.js';
import type { ObservedMachine } from '../lab/observe.js';
import type { BootOptions, Paging } from '../lab/run-types.js';
import {
  addOneBootOptions,
  type BootFlags,
  bootOptions,
  pagingAndParams,
  traceOption,
} from './boot-options.js';
import { WholeFile, writeWhole } from './files.js';
import { TINY_HELP } from './guest-options.js';
import { LiveStat } from './live-stat.js';
import { MACHINE_HELP } from './machine-options.js';
import { json, progressText, report, resultData, statusOf } from './result.js';
import { ConsoleStream, interruptible, ProgressLine, withKeyboard } from './terminal.js';
import { port } from './values.js';

/** Runs `work` with a trace file, which appears when the work is done. */
export const withTrace = async <T>(
  trace: ReturnType<typeof traceOption>,
  work: (more: Pick<BootOptions, 'trace'>) => Promise<T>,
): Promise<T> => {
  if (trace === undefined) return await work({});
  const file = new WholeFile(trace.file);
  let result: T;
  try {
    result = await work({
      trace: { first: trace.first, last: trace.last, write: (text) => file.write(text) },
    });
  } catch (e) {
    file.discard();
    throw e;
  }
  file.finish();
  return result;
};

const sayGdb = (at: number): void => {
  process.stderr.write(`waiting for GDB: target remote localhost:${at}\n`);
};

interface Flags extends BootFlags {
  readonly paging?: Paging;
  readonly shell?: boolean;
  readonly gdb?: number;
  readonly stat?: boolean;
}

const run = async (flags: Flags): Promise<number> => {
  const { paging, params } = pagingAndParams(flags.paging, flags.param);
  const options = bootOptions(flags);
  const shell = flags.shell === true;
  if (shell && options.workload !== undefined)
    throw new LabError('cli.conflict', '--shell runs no workload', 'leave out --workload and -e');
  if (shell && options.initrd !== undefined)
    throw new LabError('cli.conflict', '--shell has no effect with --initrd');
  const stat = flags.stat === true ? new LiveStat() : undefined;
  if (stat !== undefined && shell)
    throw new LabError('cli.conflict', '--stat and --shell exclude each other', 'both want the terminal');
  const keyboard = process.stdin.isTTY === true && stat === undefined;
  if (shell && !keyboard)
    throw new LabError('cli.terminal', '--shell needs a terminal on stdin', 'for a script, use -e SCRIPT');
  const trace = traceOption(flags.trace);
  // the machine is loaded when there is one to make: a mistake and --help do not wait for it
  const { bootUnder } = await import('../lab/both.js');
  const { predictionText, withPrediction } = await import('../lab/prediction.js');
  const line = new ProgressLine();
  const stream = new ConsoleStream(line);
  const started = performance.now();
  if (shell) process.stderr.write('Ctrl-] ends vmxlab; Ctrl-C goes to the guest.\n');
  const progress = (n: number): void => {
    if (stat === undefined) stream.progress(progressText(paging, n, started));
    else stat.update();
  };
  const result = await interruptible((controller) =>
    withTrace(trace, (more) => {
      const all: BootOptions = {
        ...options,
        ...more,
        ...(shell ? { shell } : {}),
        ...(flags.gdb === undefined ? {} : { gdb: flags.gdb, onGdb: sayGdb }),
        signal: controller.signal,
        ...(stat === undefined
          ? { onConsole: (bytes: Uint8Array) => stream.write(bytes) }
          : {
              onConsole: (bytes: Uint8Array) => stat.console(bytes),
              onMachine: (machine: ObservedMachine) => stat.attach(machine),
            }),
        ...(shell ? {} : { onProgress: (n: number) => progress(n) }),
      };
      if (!keyboard) return bootUnder(paging, all, params);
      return withKeyboard(controller, shell, (input) => bootUnder(paging, { ...all, input }, params));
    }).finally(() => {
      line.clear();
      stream.endLine();
      stat?.leave();
    }),
  );
  stat?.finish(result);
  const prediction =
    options.guest === 'tiny' && result.outcome === 'poweroff'
      ? await withPrediction(result, options, params)
      : undefined;
  if (flags.json !== undefined) writeWhole(flags.json, json({ ...resultData(result), prediction }));
  report(result);
  if (prediction !== undefined) process.stderr.write(`${predictionText(prediction)}\n`);
  return statusOf(result, flags.until);
};

const HELP = `
The guest's console goes to stdout; where stdin is a terminal, it is the guest's serial line.
Ctrl-C stops the run (with --shell it goes to the guest), Ctrl-] always does.
--stat shows a table in place of the console, drawn anew while the guest runs (rates are per second of
virtual time); where stdout is no terminal, only the last one is written.

Exit status: 0 the guest ended as asked (powered off, or reached --until), 2 a mistake in what was
asked or an error of vmxlab, 4 a limit or the guest ended the run otherwise; with --debug-exit, the
guest's own, which is odd: (value << 1) | 1.
${MACHINE_HELP}
${TINY_HELP}

Examples:
  vmxlab boot --paging shadow
  vmxlab boot -e 'for i in 1 2 3; do date; done' --json run.json
  vmxlab boot --shell --memory 512M
  vmxlab boot --stat --paging shadow
  vmxlab boot --param vpid=N --backing 4K --hide-cpuid pcid,invpcid --pti on
  vmxlab boot --tiny processes=4,switches=1000 --paging shadow
  vmxlab boot --kernel test.elf --module first.img,some arguments --debug-exit 0xf4`;

export const addBoot = (program: Command, done: (status: number) => void): Command => {
  const command = program.command('boot').description('boot a guest and show its console');
  addOneBootOptions(command)
    .option('--shell', 'an interactive busybox shell on the serial console')
    .option('--stat', 'a live view of the statistics, as of kvm_stat, in place of the console')
    .option(
      '--gdb <PORT>',
      'wait for GDB on a port of the loopback interface, 0 for a free one',
      port('--gdb'),
    )
    .addHelpText('after', HELP)
    .action(async (flags: Flags) => done(await run(flags)));
  return command;
};
