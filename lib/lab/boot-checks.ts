/** Options of `boot` that have no type of their own at run time: a notebook cell or a script may pass anything. */
import { LabError } from '../base/error.js';
import { HIDEABLE } from '../hypervisor/cpuid.js';
import { DEFAULT_TSC_HZ } from '../hypervisor/vm.js';
import {
  type BootOptions,
  GUEST_CPUS,
  GUEST_FEATURES,
  type GuestFeature,
  NUMBERS,
  PARAVIRTUAL,
} from './run-types.js';

const CHOICES = {
  timeModel: ['cycles', 'instructions'],
  backing: ['4K', '2M'],
  cpu: GUEST_CPUS,
} as const;
const SWITCHES = ['acpi', 'emptyDsdt', 'meltdown', 'pti', 'shell', 'debugConsole', 'fwCfg'] as const;

/** Cycles between host timer interrupts that leave a guest time to run. */
const LEAST_TICK = 20_000;

/** Every option; the record does not compile when one is missing. */
const NAMES: Readonly<Record<keyof BootOptions, true>> = {
  guest: true,
  tiny: true,
  kernel: true,
  initrd: true,
  cmdline: true,
  append: true,
  memory: true,
  workload: true,
  shell: true,
  until: true,
  maxInstructions: true,
  timeModel: true,
  leaves: true,
  engine: true,
  backing: true,
  acpi: true,
  emptyDsdt: true,
  cpu: true,
  tscHz: true,
  seed: true,
  hideCpuid: true,
  features: true,
  hostTickHz: true,
  pti: true,
  costs: true,
  phaseLines: true,
  onMarker: true,
  meltdown: true,
  modules: true,
  debugExit: true,
  debugConsole: true,
  fwCfg: true,
  gdb: true,
  onGdb: true,
  onConsole: true,
  onProgress: true,
  signal: true,
  input: true,
  trace: true,
  onMachine: true,
  onPhase: true,
  on: true,
};

const impossible = (name: string, value: unknown, hint: string): LabError =>
  new LabError('machine.option', `${name} '${String(value)}' is not possible`, hint);

const checkFeatures = (options: BootOptions): void => {
  const { features, timeModel } = options;
  for (const [name, on] of Object.entries(features ?? {})) {
    if (!Object.hasOwn(GUEST_FEATURES, name))
      throw new LabError(
        'machine.option',
        `there is no feature '${name}'`,
        Object.keys(GUEST_FEATURES).join(', '),
      );
    if (typeof on !== 'boolean') throw impossible(`feature ${name}`, on, 'true or false');
    if (on && timeModel === 'instructions' && PARAVIRTUAL.includes(name as GuestFeature))
      throw new LabError(
        'machine.option',
        `feature ${name} and timeModel 'instructions' exclude each other`,
        'what it does depends on when exits happen',
      );
  }
  for (const name of options.hideCpuid ?? [])
    if (!Object.hasOwn(HIDEABLE, name))
      throw new LabError(
        'cpuid.hide',
        `'${String(name)}' is no CPUID feature that can be hidden`,
        Object.keys(HIDEABLE).join(', '),
      );
};

const checkNumbers = (options: BootOptions): void => {
  for (const [name, [least, most]] of Object.entries(NUMBERS)) {
    const value: unknown = options[name as keyof typeof NUMBERS];
    if (value === undefined || (Number.isInteger(value) && Number(value) >= least && Number(value) <= most))
      continue;
    throw impossible(name, value, `a whole number from ${least} to ${most}`);
  }
  const { hostTickHz = 0, tscHz = DEFAULT_TSC_HZ } = options;
  if (hostTickHz > 0 && tscHz / hostTickHz < LEAST_TICK)
    throw impossible(
      'hostTickHz',
      hostTickHz,
      `at ${tscHz} cycles a second at most ${Math.floor(tscHz / LEAST_TICK)}: the guest would have no time left`,
    );
};

/** @throws LabError naming the option, its value and what is possible */
export const checkBootOptions = (options: BootOptions, memory: number): void => {
  for (const name of Object.keys(options)) {
    if (!Object.hasOwn(NAMES, name)) {
      const hint =
        name === 'paging'
          ? "the loaded module decides: loadModule('kvm-intel', { ept: false })"
          : Object.keys(NAMES).join(', ');
      throw new LabError('machine.option', `boot has no option '${name}'`, hint);
    }
  }
  for (const [name, values] of Object.entries(CHOICES)) {
    const value: unknown = options[name as keyof typeof CHOICES];
    if (value === undefined || (values as readonly unknown[]).includes(value)) continue;
    throw new LabError('machine.option', `${name} '${String(value)}' is not possible`, values.join(', '));
  }
  for (const name of SWITCHES) {
    const value: unknown = options[name];
    if (value !== undefined && typeof value !== 'boolean') throw impossible(name, value, 'true or false');
  }
  if (options.pti !== undefined && options.meltdown !== undefined && options.pti !== options.meltdown)
    throw impossible('meltdown', options.meltdown, `pti: ${options.pti} says the opposite`);
  checkNumbers(options);
  checkFeatures(options);
  const max = options.maxInstructions;
  if (max !== undefined && max !== Number.POSITIVE_INFINITY && !(Number.isInteger(max) && max >= 0)) {
    throw new LabError(
      'machine.limit',
      `maxInstructions of ${String(max)} is not possible`,
      'give a whole number from 0 up',
    );
  }
  if (!Number.isInteger(memory) || memory < 64 * 2 ** 20 || memory > 2 ** 31 || memory % 0x20_0000 !== 0) {
    throw new LabError(
      'machine.memory',
      `guest memory of ${memory} bytes is not possible`,
      'give a multiple of 2 MiB from 64M to 2G',
    );
  }
};
