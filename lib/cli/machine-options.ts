/** The options of `boot` and `compare` that change the machine: module parameters, processor, features, time, costs. */
import { type Command, Option } from 'commander';
import { LabError } from '../base/error.js';
import { COSTS } from '../hypervisor/costs.js';
import { HIDEABLE } from '../hypervisor/cpuid.js';
import { type BootOptions, GUEST_CPUS, type GuestCpu, type GuestFeature, NUMBERS } from '../lab/run-types.js';
import { count, given, names, oneOf, onOff, pair, rate } from './values.js';

/** Names of the features on the command line. */
const FEATURES: Readonly<Record<string, GuestFeature>> = {
  x2apic: 'x2apic',
  kvmclock: 'kvmclock',
  'pv-eoi': 'pvEoi',
  'async-pf': 'asyncPf',
  'steal-time': 'stealTime',
};
const BACKINGS = ['4K', '2M'] as const;

type Features = Partial<Record<GuestFeature, boolean>>;
type Costs = Record<string, number>;

export interface MachineFlags {
  readonly param?: readonly string[];
  readonly backing?: (typeof BACKINGS)[number];
  readonly cpu?: GuestCpu;
  readonly seed?: number;
  readonly hideCpuid?: readonly string[];
  readonly feature?: Features;
  readonly acpi?: boolean;
  readonly pti?: boolean;
  readonly hostTick?: number;
  readonly clockRate?: number;
  readonly cost?: Costs;
}

const FEATURE_FORM = 'NAME[,NAME…]=on or off';

/** `x2apic,pv-eoi=off,async-pf=on`, added to what was said before: a state holds for the names before it. */
const feature = (value: string, before: Features = {}): Features => {
  const out = { ...before };
  let waiting: GuestFeature[] = [];
  for (const word of names('--feature')(value)) {
    const [name, state] = word.includes('=') ? pair('--feature', word, FEATURE_FORM) : [word, undefined];
    const own = Object.hasOwn(FEATURES, name) ? FEATURES[name] : undefined;
    if (own === undefined)
      throw new LabError(
        'cli.value',
        `--feature: unknown name '${name}'`,
        `one of ${Object.keys(FEATURES).join(', ')}`,
      );
    waiting.push(own);
    if (state === undefined) continue;
    const on = onOff('--feature')(state);
    for (const f of waiting) out[f] = on;
    waiting = [];
  }
  if (waiting.length > 0)
    throw new LabError('cli.value', `--feature: '${value}' is not possible`, FEATURE_FORM);
  return out;
};

const cost = (value: string, before: Costs = {}): Costs => {
  const [name, cycles] = pair('--cost', value, 'REASON=CYCLES, like CR_ACCESS=400 or 28=400');
  return { ...before, [name]: count('--cost', 0)(cycles) };
};

const collect = (value: string, before: readonly string[] = []): readonly string[] => [...before, value];

/** Adds the options to a command. */
export const addMachineOptions = (command: Command): Command =>
  command
    .option(
      '--param <NAME=VALUE>',
      'a parameter of kvm-intel or kvm, as for insmod; may be repeated',
      collect,
    )
    .option(
      '--backing <SIZE>',
      `host pages behind guest memory: ${BACKINGS.join(', ')} (default: 2M)`,
      oneOf('--backing', BACKINGS),
    )
    .option(
      '--cpu <NAME>',
      `the guest's processor: ${GUEST_CPUS.join(', ')} (default: lab)`,
      oneOf('--cpu', GUEST_CPUS),
    )
    .option('--seed <N>', 'seed of RDRAND and RDSEED', count('--seed', ...NUMBERS.seed))
    .addOption(
      new Option('--hide-cpuid <NAMES>', 'CPUID features to hide, like pcid,invpcid').argParser(
        names('--hide-cpuid'),
      ),
    )
    .option(
      '--feature <NAMES=on|off>',
      `what KVM offers: ${Object.keys(FEATURES).join(', ')}; may be repeated`,
      feature,
    )
    .option('--acpi <on|off>', 'ACPI tables (default: on)', onOff('--acpi'))
    .option(
      '--pti <on|off>',
      'page-table isolation in Linux (default: off, as the processor needs none)',
      onOff('--pti'),
    )
    .option(
      '--host-tick <HZ>',
      'host timer interrupts a second, 0 for none (default: 250)',
      count('--host-tick', ...NUMBERS.hostTickHz),
    )
    .option(
      '--clock-rate <RATE>',
      'cycles in a second of virtual time (default: 400M)',
      rate('--clock-rate', ...NUMBERS.tscHz),
    )
    .option('--cost <REASON=CYCLES>', 'what an exit costs beyond the base cost; may be repeated', cost);

/** The machine's part of the options of `boot`. */
export const machineOptions = (f: MachineFlags): Partial<BootOptions> =>
  given({
    backing: f.backing,
    cpu: f.cpu,
    seed: f.seed,
    hideCpuid: f.hideCpuid,
    features: f.feature,
    acpi: f.acpi,
    pti: f.pti,
    hostTickHz: f.hostTick,
    tscHz: f.clockRate,
    costs: f.cost,
  });

/** For the help: what names the options take. */
export const MACHINE_HELP = `
--param: the names of /sys/module/kvm_intel/parameters and kvm/parameters; flags are Y or N, as in --param vpid=N.
--hide-cpuid: ${Object.keys(HIDEABLE).join(' ')}.
--cost: REASON is an exit reason, as its number or KVM's name (28, CR_ACCESS), or one of
${Object.keys(COSTS).join(' ')}.
--pti on makes the processor report Meltdown and adds pti=on to the kernel command line (not to one given with --cmdline).`;
