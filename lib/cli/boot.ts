/** `vmxlab boot`: one guest under one kind of paging, its console on stdout. */
import type { Command } from 'commander';
import { LabError } from '../base/error.js';
import { bootUnder } from '../lab/both.js';
import type { BootOptions, Paging } from '../lab/machine.js';
import { addBootOptions, type BootFlags, bootOptions, traceOption } from './boot-options.js';
import { WholeFile, writeWhole } from './files.js';
import { json, progressText, resultData, statusOf, summary } from './result.js';
import { ConsoleStream, interruptible, ProgressLine, withKeyboard } from './terminal.js';
import { oneOf } from './values.js';

export const PAGINGS = ['ept', 'shadow'] as const satisfies readonly Paging[];

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

interface Flags extends BootFlags {
  readonly paging: Paging;
  readonly shell?: boolean;
}

const run = async (flags: Flags): Promise<number> => {
  const options = bootOptions(flags);
  const shell = flags.shell === true;
  if (shell && options.workload !== undefined)
    throw new LabError('cli.conflict', '--shell runs no workload', 'leave out --workload and -e');
  if (shell && options.initrd !== undefined)
    throw new LabError('cli.conflict', '--shell has no effect with --initrd');
  const keyboard = process.stdin.isTTY === true;
  if (shell && !keyboard)
    throw new LabError('cli.terminal', '--shell needs a terminal on stdin', 'for a script, use -e SCRIPT');
  const trace = traceOption(flags.trace);
  const line = new ProgressLine();
  const stream = new ConsoleStream(line);
  const started = performance.now();
  if (shell) process.stderr.write('Ctrl-] ends vmxlab; Ctrl-C goes to the guest.\n');
  const result = await interruptible((controller) =>
    withTrace(trace, (more) => {
      const all: BootOptions = {
        ...options,
        ...more,
        ...(shell ? { shell } : {}),
        signal: controller.signal,
        onConsole: (bytes) => stream.write(bytes),
        ...(shell
          ? {}
          : { onProgress: (n: number) => stream.progress(progressText(flags.paging, n, started)) }),
      };
      if (!keyboard) return bootUnder(flags.paging, all);
      return withKeyboard(controller, shell, (input) => bootUnder(flags.paging, { ...all, input }));
    }).finally(() => line.clear()),
  );
  if (flags.json !== undefined) writeWhole(flags.json, json(resultData(result)));
  process.stderr.write(`${summary(result)}\n`);
  if (result.detail !== undefined) process.stderr.write(`${result.detail}\n`);
  return statusOf(result, flags.until);
};

const HELP = `
The guest's console goes to stdout; where stdin is a terminal, it is the guest's serial line.
Ctrl-C stops the run (with --shell it goes to the guest), Ctrl-] always does.

Exit status: 0 the guest ended as asked (powered off, or reached --until), 2 a mistake in what was
asked or an error of vmxlab, 4 a limit or the guest ended the run otherwise.

Examples:
  vmxlab boot --paging shadow
  vmxlab boot -e 'for i in 1 2 3; do date; done' --json run.json
  vmxlab boot --shell --memory 512M`;

export const addBoot = (program: Command, done: (status: number) => void): Command => {
  const command = program.command('boot').description('boot a guest and show its console');
  addBootOptions(command)
    .option(
      '--paging <KIND>',
      `nested or shadow paging: ${PAGINGS.join(', ')}`,
      oneOf('--paging', PAGINGS),
      'ept',
    )
    .option('--shell', 'an interactive busybox shell on the serial console')
    .addHelpText('after', HELP)
    .action(async (flags: Flags) => done(await run(flags)));
  return command;
};
