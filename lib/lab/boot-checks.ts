/** Options of `boot` that have no type of their own at run time: a notebook cell or a script may pass anything. */
import { LabError } from '../base/error.js';
import type { BootOptions } from './machine.js';

const CHOICES = {
  timeModel: ['cycles', 'instructions'],
  backing: ['4K', '2M'],
  cpu: ['host', 'reference'],
} as const;

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
