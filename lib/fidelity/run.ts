/**
 * Boots one configuration of the recorded runs on this machine and takes the counters where the recording took them: in
 * the exit that sends the newline of the marker lines, and at the brackets of the micro tests.
 */
import { bootUnder } from '../lab/both.js';
import type { BootOptions, Counters, RunResult } from '../lab/machine.js';
import type { ReferenceRun } from '../lab/reference.js';
import type { Place } from './bands.js';
import { type Breakdown, watchExits } from './breakdown.js';
import type { FidelityGuest } from './guest.js';
import type { Stop } from './names.js';
import { REFERENCE_COSTS, REFERENCE_TSC_HZ } from './rate.js';
import type { OurCounters } from './table.js';

const PHASE_LINES = [
  ['init', 'INIT-REACHED'],
  ['workload', 'WORK-DONE'],
] as const;
const LAST_LINE: Readonly<Record<Stop, string>> = {
  init: 'INIT-REACHED',
  workload: 'WORK-DONE',
  micro: 'MARK micro',
};

/** One bracket of a micro test: what happened in it, its closing marker taken off. */
export interface MicroBracket {
  readonly test: number;
  readonly round: number;
  readonly exits: Readonly<Record<number, number>>;
  readonly kvmStats: Readonly<Record<string, number>>;
}

export interface OurRun {
  readonly result: RunResult;
  readonly at: Readonly<Partial<Record<Place, OurCounters & { readonly detail: Breakdown } & Counters>>>;
  readonly micro: readonly MicroBracket[];
}

const minus = <K extends string | number>(
  end: Readonly<Record<K, number>>,
  start: Readonly<Record<K, number>>,
): Record<K, number> => {
  const out = {} as Record<K, number>;
  for (const key of Object.keys(end) as K[]) {
    const n = end[key] - (start[key] ?? 0);
    if (n !== 0) out[key] = n;
  }
  return out;
};

const IO = 30;

/** @param run the recorded run whose machine and command line are used */
export const runConfiguration = async (
  run: ReferenceRun,
  guest: FidelityGuest,
  until: Stop,
  more: Partial<BootOptions> = {},
): Promise<OurRun> => {
  // where there is nothing to compare with, or nothing to run, the micro tests are left out
  const micros = guest.micro && run.micro !== undefined;
  const last = until === 'micro' && !micros ? 'workload' : until;
  const at: Partial<Record<Place, OurCounters & { detail: Breakdown } & Counters>> = {};
  const micro: MicroBracket[] = [];
  let opened: Counters | undefined;
  let detail: Breakdown | undefined;
  const result = await bootUnder(run.mode, {
    initrd: guest.initrd,
    cmdline: run.guestCmdline,
    memory: run.memoryMiB * 2 ** 20,
    acpi: run.acpiTables,
    emptyDsdt: true,
    meltdown: run.pti === 'on',
    cpu: 'reference',
    tscHz: REFERENCE_TSC_HZ,
    costs: REFERENCE_COSTS,
    phaseLines: PHASE_LINES,
    until: LAST_LINE[last],
    onMachine: ({ vm }) => {
      detail = watchExits(vm);
    },
    onPhase: (phase) => {
      const now = structuredClone(detail as Breakdown);
      at[phase.name as Place] = { ...phase, msr: now.msr, detail: now };
    },
    onMarker: (value, counters) => {
      if (value % 2 === 0 || opened === undefined) {
        opened = counters;
        return;
      }
      const exits = minus(counters.exits, opened.exits);
      exits[IO] = (exits[IO] ?? 0) - 1;
      if (exits[IO] === 0) delete exits[IO];
      micro.push({
        test: Math.floor(value / 100),
        round: (value % 100) >> 1,
        exits,
        kvmStats: minus(counters.kvmStats, opened.kvmStats),
      });
      opened = undefined;
    },
    ...more,
  });
  return { result, at, micro };
};
