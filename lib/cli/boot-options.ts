/** The options that `boot` and `compare` share, from the command line to `BootOptions`. */
import { type Command, Option } from 'commander';
import { LabError } from '../base/error.js';
import { ENGINES, type EngineName } from '../cpu/engine.js';
import { LAB_LAYOUTS, type LabLayout } from '../hypervisor/lab-leaves.js';
import { type ModuleParams, readModuleParams } from '../lab/module-params.js';
import { type BootOptions, DEFAULT_MEMORY, GUESTS, type GuestName, type Paging } from '../lab/run-types.js';
import { checkInput, checkOutput, readText } from './files.js';
import { addGuestOptions, type GuestFlags, guestOptions } from './guest-options.js';
import { addMachineOptions, type MachineFlags, machineOptions } from './machine-options.js';
import { count, given, oneOf, range, size } from './values.js';

export const TIME_MODELS = ['cycles', 'instructions'] as const;
const LAYOUTS = Object.keys(LAB_LAYOUTS) as LabLayout[];

/** Values as commander leaves them. */
export interface BootFlags extends MachineFlags, GuestFlags {
  readonly guest?: GuestName;
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
  addMachineOptions(addGuestOptions(addBasicOptions(command)));

const addBasicOptions = (command: Command): Command =>
  command
    .option(
      '--guest <NAME>',
      `what to boot: ${GUESTS.join(', ')} (default: debian)`,
      oneOf('--guest', GUESTS),
    )
    .option(
      '--kernel <FILE>',
      "a kernel in place of the guest's: bzImage, ELF, Multiboot or ROM image",
      (v: string) => checkInput(v, '--kernel'),
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
  if (f.tiny !== undefined && f.guest !== undefined && f.guest !== 'tiny')
    throw new LabError('cli.conflict', '--tiny belongs to the built-in guest', 'leave out --guest');
  const guest = f.tiny === undefined ? f.guest : 'tiny';
  const { kernel, initrd, cmdline, append, memory, until, maxInstructions, timeModel, leaves, engine } = f;
  return given({
    ...machineOptions(f),
    ...guestOptions(f),
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

const PAGINGS = ['ept', 'shadow'] as const satisfies readonly Paging[];

/** `addBootOptions` for a command that makes one run: with `--paging`. */
export const addOneBootOptions = (command: Command): Command =>
  addBootOptions(command).option(
    '--paging <KIND>',
    `nested or shadow paging: ${PAGINGS.join(', ')} (default: ept)`,
    oneOf('--paging', PAGINGS),
  );

/**
 * The kind of paging and the module parameters of one run: `--paging`, or the parameter `ept`, which is the same thing.
 * @throws LabError when they disagree
 */
export const pagingAndParams = (
  paging: Paging | undefined,
  param: readonly string[] | undefined,
): { readonly paging: Paging; readonly params: ModuleParams } => {
  const params = readModuleParams(param ?? []);
  const ept = params['kvm-intel']['ept'];
  if (ept === undefined) return { paging: paging ?? 'ept', params };
  const asked = ept === true ? 'ept' : 'shadow';
  if (paging !== undefined && paging !== asked)
    throw new LabError(
      'cli.conflict',
      `--paging ${paging} and --param ept=${ept === true ? 'Y' : 'N'} exclude each other`,
      'leave out one of them',
    );
  return { paging: asked, params };
};

/** The module parameters of a comparison. @throws LabError for `ept`, which it sets itself */
export const paramsOfBoth = (param: readonly string[] | undefined): ModuleParams => {
  const params = readModuleParams(param ?? []);
  if (params['kvm-intel']['ept'] !== undefined)
    throw new LabError('cli.conflict', '--param ept has no place here', 'both kinds of paging are compared');
  return params;
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
