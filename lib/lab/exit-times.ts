/**
 * How long the hypervisor took, by cause, as `perf kvm stat report` counts it: from an event to the next VM entry, in
 * virtual time. Causes are exit reasons, or the ports, MMIO pages or MSRs that were accessed.
 */

import { reasonName } from '../hypervisor/reasons.js';
import type { TraceEvent } from '../hypervisor/trace-events.js';
import type { ObservedMachine } from './observe.js';

export const TIMED = ['vmexit', 'ioport', 'mmio', 'msr'] as const;
export type Timed = (typeof TIMED)[number];

/** Column title by kind, as perf has it. */
export const TIMED_TITLE: Readonly<Record<Timed, string>> = {
  vmexit: 'VM-EXIT',
  ioport: 'IO Port Access',
  mmio: 'MMIO Access',
  msr: 'MSR Access',
};

/** Times of one cause, in cycles. */
export interface TimeRow {
  readonly name: string;
  readonly samples: number;
  readonly cycles: number;
  readonly min: number;
  readonly max: number;
  /** Standard error of the mean, in percent of the mean. */
  readonly deviation: number;
}

interface Sums {
  samples: number;
  cycles: number;
  min: number;
  max: number;
  mean: number;
  /** Sum of squared differences from the mean (Welford). */
  m2: number;
}

export class ExitTimes {
  readonly #sums = new Map<string, Sums>();
  #open: string | undefined;
  #since = 0;

  /** Something began. An earlier one that has not ended is dropped, as perf does. */
  begin(name: string, cycles: number): void {
    this.#open = name;
    this.#since = cycles;
  }
  end(cycles: number): void {
    if (this.#open === undefined) return;
    const time = cycles - this.#since;
    let s = this.#sums.get(this.#open);
    if (s === undefined) {
      s = { samples: 0, cycles: 0, min: time, max: time, mean: 0, m2: 0 };
      this.#sums.set(this.#open, s);
    }
    s.samples++;
    s.cycles += time;
    s.min = Math.min(s.min, time);
    s.max = Math.max(s.max, time);
    const delta = time - s.mean;
    s.mean += delta / s.samples;
    s.m2 += delta * (time - s.mean);
    this.#open = undefined;
  }
  /** Most frequent first. */
  rows(): TimeRow[] {
    return [...this.#sums]
      .map(([name, s]) => ({
        name,
        samples: s.samples,
        cycles: s.cycles,
        min: s.min,
        max: s.max,
        deviation:
          s.samples < 2 || s.mean === 0 ? 0 : (100 * Math.sqrt(s.m2 / (s.samples - 1) / s.samples)) / s.mean,
      }))
      .sort((a, b) => b.samples - a.samples || b.cycles - a.cycles || (a.name < b.name ? -1 : 1));
  }
}

const hex = (v: number): string => `0x${v.toString(16)}`;
const KVM_MMIO = { read: 1, write: 2 } as const;

/** Times what happens on a machine from now on. */
export const timeExits = (machine: ObservedMachine, what: Timed = 'vmexit'): ExitTimes => {
  const times = new ExitTimes();
  machine.on('kvm_entry', (e) => times.end(e.cycles));
  switch (what) {
    case 'vmexit':
      machine.on('kvm_exit', (e) => times.begin(reasonName(e.exit_reason & 0xffff), e.cycles));
      break;
    case 'ioport':
      machine.on('kvm_pio', (e) => times.begin(`${hex(e.port)}:${e.rw === 1 ? 'POUT' : 'PIN'}`, e.cycles));
      break;
    case 'msr':
      machine.on('kvm_msr', (e) => times.begin(`${hex(e.ecx)}:${e.write === 1 ? 'W' : 'R'}`, e.cycles));
      break;
    case 'mmio': {
      // a read ends when its value is there; it began with the exit
      let exited = 0;
      machine.on('kvm_exit', (e) => {
        exited = e.cycles;
      });
      machine.on('kvm_mmio', (e: TraceEvent<'kvm_mmio'>) => {
        if (e.type === KVM_MMIO.write) times.begin(`${hex(e.gpa)}:W`, e.cycles);
        else if (e.type === KVM_MMIO.read) {
          times.begin(`${hex(e.gpa)}:R`, exited);
          times.end(e.cycles);
        }
      });
    }
  }
  return times;
};

const NAME_WIDTH = 20;

/** The table that `perf kvm stat report` prints. @param hz cycles a second */
export const timesText = (rows: readonly TimeRow[], hz: number, what: Timed = 'vmexit'): string => {
  const us = (cycles: number): number => (cycles / hz) * 1e6;
  const samples = rows.reduce((s, r) => s + r.samples, 0);
  const cycles = rows.reduce((s, r) => s + r.cycles, 0);
  const share = (part: number, whole: number): string =>
    `${(whole === 0 ? 0 : (100 * part) / whole).toFixed(2).padStart(8)}%`;
  const lines = rows.map((r) =>
    [
      r.name.padStart(NAME_WIDTH),
      String(r.samples).padStart(10),
      share(r.samples, samples),
      share(r.cycles, cycles),
      `${us(r.min).toFixed(2).padStart(9)}us`,
      `${us(r.max).toFixed(2).padStart(9)}us`,
      `${us(r.cycles / r.samples)
        .toFixed(2)
        .padStart(9)}us ( +-${r.deviation.toFixed(2).padStart(7)}% )`,
    ].join(' '),
  );
  const head = [
    TIMED_TITLE[what].padStart(NAME_WIDTH),
    'Samples'.padStart(10),
    'Samples%'.padStart(9),
    'Time%'.padStart(9),
    'Min Time'.padStart(11),
    'Max Time'.padStart(11),
    'Avg time'.padStart(16),
  ].join(' ');
  return `
Analyze events for all VMs, all VCPUs:

${head}

${lines.map((l) => `${l}\n`).join('')}
Total Samples:${samples}, Total events handled time:${us(cycles).toFixed(2)}us.

`;
};
