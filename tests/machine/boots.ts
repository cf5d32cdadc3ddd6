/**
 * Boots of Debian with a witness: every exit is counted a second time by an observer of its own, each query of a lab
 * leaf is noted with these counts, and the state is hashed at fixed instruction counts.
 */
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { type BootOptions, boot, type Machine, type RunResult } from '../../lib/lab/machine.js';
import { differences, hostHash, MEMORY, memoryHash, registersOf } from './compare.js';

/** A query of a leaf of the lab, as the processor saw it. */
export interface Query {
  readonly leaf: number;
  readonly subleaf: number;
  /** Exits by reason so far, this one included, by the witness. */
  readonly exits: readonly number[];
  /** Handling cycles by reason of all exits before this one, by the hypervisor. */
  readonly cycles: readonly number[];
}

/** State in the middle of a run. */
export interface Snapshot {
  readonly instructions: number;
  readonly cycles: number;
  readonly registers: Readonly<Record<string, string>>;
  readonly guestMemory: string;
  readonly hostMemory: string;
  readonly exits: unknown;
  readonly walks: unknown;
  readonly stats: Readonly<Record<string, number>>;
  readonly console: string;
}

export interface Boot {
  readonly result: RunResult;
  readonly queries: readonly Query[];
  /** Exits by reason of the whole run, by the witness. */
  readonly witnessed: Readonly<Record<number, number>>;
  readonly totals: { readonly exits: number; readonly cycles: number };
  readonly walks: Readonly<Record<'walks1d' | 'references1d' | 'walks2d' | 'references2d', number>>;
  readonly snapshots: readonly Snapshot[];
  /** Guest memory when the run had ended. */
  readonly finalMemory: string;
}

const CPUID = 10;
const REASONS = 80;

/** @param at instruction counts, multiples of 25 million, at which the state is taken */
export const witnessedBoot = async (
  ept: boolean,
  options: BootOptions = {},
  at: readonly number[] = [],
): Promise<Boot> => {
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', { ept });
  const queries: Query[] = [];
  const snapshots: Snapshot[] = [];
  const exits = new Array<number>(REASONS).fill(0);
  let text = '';
  let machine: Machine | undefined;
  const result = await boot(hypervisor, {
    ...options,
    onConsole: (bytes) => (text += Buffer.from(bytes).toString('latin1')),
    onMachine: (m) => {
      machine = m;
      const { vm } = m;
      vm.onExit = (reason) => {
        exits[reason]!++;
        if (reason !== CPUID) return;
        const leaf = vm.vcpu.gpr32(0);
        if (leaf < 0x4fff_fff0 || leaf > 0x4fff_ffff) return;
        const cycles = [...hypervisor.counts.cycles];
        queries.push({ leaf, subleaf: vm.vcpu.gpr32(1), exits: [...exits], cycles });
      };
    },
    onProgress: (instructions) => {
      if (!at.includes(instructions) || machine === undefined) return;
      const { vm, hardware } = machine;
      const { walks1d, references1d, walks2d, references2d } = hardware.port.walks;
      snapshots.push({
        instructions,
        cycles: vm.clock.now(),
        registers: registersOf(machine),
        guestMemory: memoryHash(machine, options.memory ?? MEMORY),
        hostMemory: hostHash(machine),
        exits: hypervisor.counts.lines(),
        walks: { walks1d, references1d, walks2d, references2d },
        stats: { ...vm.stats },
        console: text,
      });
    },
  });
  hypervisor.unloadModule('kvm-intel');
  const { walks1d, references1d, walks2d, references2d } = machine!.hardware.port.walks;
  return {
    result,
    queries,
    witnessed: Object.fromEntries(exits.flatMap((n, reason) => (n > 0 ? [[reason, n]] : []))),
    totals: { exits: hypervisor.counts.totalExits, cycles: hypervisor.counts.totalCycles },
    walks: { walks1d, references1d, walks2d, references2d },
    snapshots,
    finalMemory: memoryHash(machine!, options.memory ?? MEMORY),
  };
};

/** Where two snapshots differ, in words. */
export const snapshotDifferences = (a: Snapshot, b: Snapshot): string[] => {
  const flat = (s: Snapshot): Record<string, string> => ({
    ...s.registers,
    ...Object.fromEntries(
      Object.entries(s)
        .filter(([name]) => name !== 'registers')
        .map(([name, value]) => [name, JSON.stringify(value)]),
    ),
  });
  return differences(flat(a), flat(b));
};
