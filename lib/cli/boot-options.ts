/** The options that `boot` and `compare` share, from the command line to `BootOptions`. */
import { type Command, Option } from 'commander';
import { LabError } from '../base/error.js';
import { LAB_LAYOUTS, type LabLayout } from '../hypervisor/lab-leaves.js';
import { type BootOptions, DEFAULT_MEMORY, GUESTS, type GuestName } from '../lab/machine.js';
import { ENGINES, type EngineName } from '../vmx/hardware.js';
import { checkInput, checkOutput, readText } from './files.js';
import { count, given, oneOf, range, size } from './values.js';

export const TIME_MODELS = ['cycles', 'instructions'] as const;
const LAYOUTS = Object.keys(LAB_LAYOUTS) as LabLayout[];

/** Values as commander leaves them. */
export interface BootFlags {
  readonly guest: GuestName;
  readonly kernel?: string;
  readonly initrd?: string;
  readonly cmdline?: string;
  readonly append?: string;
  readonly memory: number;
  readonly workload?: string;
  readonly execute?: string;
  readonly until?: string;
  readonly maxInstructions?: number;
  readonly timeModel: (typeof TIME_MODELS)[number];
  readonly leaves: LabLayout;
  readonly engine: EngineName;
  readonly trace?: readonly string[];
  readonly json?: string;
}

/** Adds the options to a command. */
export const addBootOptions = (command: Command): Command =>
  command
    .option('--guest <NAME>', `what to boot: ${GUESTS.join(', ')}`, oneOf('--guest', GUESTS), 'debian')
    .option('--kernel <FILE>', "a bzImage or ELF kernel in place of the guest's", (v: string) =>
      checkInput(v, '--kernel'),
    )
    .option('--initrd <FILE>', "an initramfs in place of the guest's", (v: string) =>
      checkInput(v, '--initrd'),
    )
    .option('--cmdline <TEXT>', "a kernel command line in place of the guest's")
    .option('--append <TEXT>', 'added to the kernel command line')
    .addOption(
      new Option('--memory <SIZE>', 'guest memory, like 256M or 1G')
        .argParser(size('--memory'))
        .default(DEFAULT_MEMORY, '256M'),
    )
    .option('--workload <FILE>', 'the shell script that the guest runs between its two readings')
    .option('-e, --execute <SCRIPT>', 'the same, as text')
    .option('--until <TEXT>', 'stop at the end of the console line that contains TEXT')
    .option('--max-instructions <N>', 'stop after N guest instructions', count('--max-instructions'))
    .option(
      '--time-model <NAME>',
      `what virtual time is made of: ${TIME_MODELS.join(', ')}`,
      oneOf('--time-model', TIME_MODELS),
      'cycles',
    )
    .option(
      '--leaves <LAYOUT>',
      `layout of the lab's CPUID leaves: ${LAYOUTS.join(', ')}`,
      oneOf('--leaves', LAYOUTS),
      'F2020',
    )
    .option(
      '--engine <NAME>',
      `what executes instructions: ${ENGINES.join(', ')}`,
      oneOf('--engine', ENGINES),
      'interpreter',
    )
    .option(
      '--trace <FROM:TO FILE...>',
      "write the state before each instruction of that range, as QEMU's -d cpu does",
    )
    .option('--json <FILE>', 'write the results as JSON', (v: string) => checkOutput(v, '--json'));

/** What the machine is asked to do. @throws LabError for options that do not go together, and files that are not there */
export const bootOptions = (f: BootFlags): BootOptions => {
  if (f.workload !== undefined && f.execute !== undefined)
    throw new LabError('cli.conflict', '--workload and -e exclude each other');
  if (f.initrd !== undefined && (f.workload ?? f.execute) !== undefined) {
    throw new LabError(
      'cli.conflict',
      'a workload has no effect with --initrd',
      "the workload is part of the guest's own initramfs",
    );
  }
  if (f.until === '') throw new LabError('cli.value', '--until: the text is empty');
  const workload = f.execute ?? (f.workload === undefined ? undefined : readText(f.workload, '--workload'));
  const {
    guest,
    kernel,
    initrd,
    cmdline,
    append,
    memory,
    until,
    maxInstructions,
    timeModel,
    leaves,
    engine,
  } = f;
  return given({
    guest,
    kernel,
    initrd,
    cmdline,
    append,
    memory,
    workload,
    until,
    maxInstructions,
    timeModel,
    leaves,
    engine,
  });
};

/** The range and the file of `--trace FROM:TO FILE`. */
export const traceOption = (
  words: readonly string[] | undefined,
): { readonly first: number; readonly last: number; readonly file: string } | undefined => {
  if (words === undefined) return undefined;
  const [text, file, more] = words;
  if (text === undefined || file === undefined || more !== undefined) {
    throw new LabError(
      'cli.value',
      `--trace: ${words.length} value${words.length === 1 ? '' : 's'} given`,
      'it takes two: FROM:TO FILE',
    );
  }
  return { ...range('--trace')(text), file: checkOutput(file, '--trace') };
};
