/** Tables about a pair of runs: what they cost, and their exits before and during the workload. */
import type { RunResult } from './machine.js';
import { countsOf, readings } from './readings.js';

type Counts = Readonly<Record<number, number>>;

export const sumOf = (counts: Counts): number => Object.values(counts).reduce((s, n) => s + n, 0);

export interface CostRow {
  readonly what: string;
  readonly ept: number;
  readonly shadow: number;
}

/** The parts of a run that the tables need. */
export type Costs = Pick<RunResult, 'exits' | 'exitCycles' | 'walks' | 'cycles' | 'instructions'>;

/** What the two runs cost, one row a quantity; the unit is in the name. */
export const costRows = (ept: Costs, shadow: Costs): CostRow[] => {
  const row = (what: string, of: (r: Costs) => number): CostRow => ({
    what,
    ept: of(ept),
    shadow: of(shadow),
  });
  return [
    row('VM exits', (r) => sumOf(r.exits)),
    row('cycles spent in VM exits', (r) => sumOf(r.exitCycles)),
    row('page walks', (r) => r.walks.count),
    row('memory references of the walks', (r) => r.walks.references),
    row(
      'references per walk',
      (r) => Math.round((100 * r.walks.references) / Math.max(1, r.walks.count)) / 100,
    ),
    row('guest instructions', (r) => r.instructions),
    row('virtual time, cycles', (r) => r.cycles),
  ];
};

/** Exits by type that the guest read after its boot, and what the workload added until the second reading. */
export interface PhaseCounts {
  readonly boot: Counts;
  readonly workload: Counts;
}

/** @param byReason the leaf that returns the count of a type */
export const phaseCounts = (run: { readonly console: string }, byReason = 0x4fff_fffe): PhaseCounts => {
  const [first, second] = readings(run.console);
  const boot = first === undefined ? {} : countsOf(first, byReason);
  const after = second === undefined ? boot : countsOf(second, byReason);
  const workload = Object.fromEntries(
    Object.entries(after).map(([reason, n]) => [reason, n - (boot[Number(reason)] ?? 0)]),
  );
  return { boot, workload };
};

/** Ranks from 1, the mean rank for equal values. */
const ranks = (values: readonly number[]): number[] => {
  const sorted = [...values].sort((a, b) => a - b);
  return values.map((v) => (sorted.indexOf(v) + sorted.lastIndexOf(v)) / 2 + 1);
};

/**
 * Spearman's rank correlation of the counts of two runs, over the types that either has.
 * @returns −1 to 1; NaN when a run has the same count for all types
 */
export const rankCorrelation = (a: Counts, b: Counts): number => {
  const types = [...new Set([...Object.keys(a), ...Object.keys(b)].map(Number))].filter(
    (t) => (a[t] ?? 0) + (b[t] ?? 0) > 0,
  );
  const [x, y] = [a, b].map((c) => ranks(types.map((t) => c[t] ?? 0)));
  const mean = (types.length + 1) / 2;
  const product = (p: readonly number[], q: readonly number[]): number =>
    p.reduce((sum, v, i) => sum + (v - mean) * (q[i]! - mean), 0);
  return product(x!, y!) / Math.sqrt(product(x!, x!) * product(y!, y!));
};
