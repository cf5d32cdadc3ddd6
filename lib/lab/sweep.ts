/**
 * Sweeps with the built-in guest: each workload in both modes, less the same run without a workload, so that what is
 * left is the workload's own.
 */
import type { TinyWorkload } from '../guests/tiny/workload.js';
import { type Bill, billDifference, billOf } from './bill.js';
import { bootAll } from './boot-all.js';
import type { BootOptions } from './machine.js';

export type Workload = Readonly<Partial<TinyWorkload>>;

export interface SweepRow {
  readonly workload: Workload;
  readonly ept: Bill;
  readonly shadow: Bill;
}

/** Guest memory of a sweep when nothing is said: enough for workloads of 32 768 pages. */
const SWEEP_MEMORY = 256 << 20;

/**
 * Runs every workload in both modes, without interrupts of the host, which belong to no workload.
 * @param options of all boots, like `backing`
 * @returns one row a workload, in order: what it adds to an empty one
 */
export const sweep = async (
  workloads: readonly Workload[],
  options: BootOptions = {},
): Promise<SweepRow[]> => {
  const jobs = [{}, ...workloads].flatMap((tiny) =>
    (['ept', 'shadow'] as const).map((paging) => ({
      paging,
      options: { memory: SWEEP_MEMORY, hostTickHz: 0, ...options, guest: 'tiny' as const, tiny },
    })),
  );
  const perReference = options.costs?.['walkReference'];
  const bills = (await bootAll(jobs)).map((run) => billOf(run, perReference));
  return workloads.map((workload, i) => ({
    workload,
    ept: billDifference(bills[2 * i + 2]!, bills[0]!),
    shadow: billDifference(bills[2 * i + 3]!, bills[1]!),
  }));
};
