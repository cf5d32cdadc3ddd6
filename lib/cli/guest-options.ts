/** The options of `boot` and `compare` for guests that are not Debian: the built-in one, and kernels of the user's own. */
import type { Command } from 'commander';
import { LabError } from '../base/error.js';
import type { ModuleFile } from '../guests/freestanding.js';
import { checkWorkload, type TinyWorkload, WORKLOAD, WORKLOAD_NAMES } from '../guests/tiny/workload.js';
import type { BootOptions } from '../lab/run-types.js';
import { checkInput } from './files.js';
import { count, given, pair, port } from './values.js';

type Workload = Record<string, number>;

export interface GuestFlags {
  readonly tiny?: Workload;
  readonly module?: readonly ModuleFile[];
  readonly debugExit?: number;
  readonly debugConsole?: boolean;
  readonly fwCfg?: boolean;
}

/** `forks=3,touchPages=100`, added to what was said before. */
const workload = (value: string, before: Workload = {}): Workload => {
  const out = { ...before };
  for (const text of value.split(',')) {
    const [name, units] = pair('--tiny', text, 'NAME=COUNT[,NAME=COUNT…]');
    if (!Object.hasOwn(WORKLOAD, name))
      throw new LabError(
        'cli.value',
        `--tiny: unknown name '${name}'`,
        `one of ${WORKLOAD_NAMES.join(', ')}`,
      );
    out[name] = count('--tiny', 0)(units);
  }
  return out;
};

const module = (value: string, before: readonly ModuleFile[] = []): readonly ModuleFile[] => {
  const at = value.indexOf(',');
  const file = checkInput(at < 0 ? value : value.slice(0, at), '--module');
  return [...before, at < 0 ? { file } : { file, args: value.slice(at + 1) }];
};

/** Adds the options to a command. */
export const addGuestOptions = (command: Command): Command =>
  command
    .option(
      '--tiny <NAME=COUNT,...>',
      'what the built-in guest does, and that it is booted; may be repeated',
      workload,
    )
    .option('--module <FILE[,ARGS]>', 'a module of a Multiboot kernel; may be repeated', module)
    .option('--debug-exit <PORT>', 'debug-exit device at a port, like 0xf4', port('--debug-exit'))
    .option('--debug-console', 'debug console at port 0xE9 (default for Multiboot and ROM images)')
    .option('--fw-cfg', "QEMU's fw_cfg at ports 0x510 and 0x511");

/** The guest's part of the options of `boot`. @throws LabError for an impossible workload */
export const guestOptions = (f: GuestFlags): Partial<BootOptions> => {
  if (f.tiny !== undefined) checkWorkload(f.tiny as Partial<TinyWorkload>);
  return given({
    tiny: f.tiny as Partial<TinyWorkload> | undefined,
    modules: f.module,
    debugExit: f.debugExit,
    debugConsole: f.debugConsole,
    fwCfg: f.fwCfg,
  });
};

/** For the help: the parameters of the built-in guest's workload. */
export const TINY_HELP = `
--tiny takes these, 0 when left out; without it, --guest tiny does some of everything:
${WORKLOAD_NAMES.map((n) => `  ${n.padEnd(13)} ${WORKLOAD[n]}`).join('\n')}`;
