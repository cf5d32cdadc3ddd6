/**
 * What virtualising memory costs a run, in TSC cycles: exits × their cost + references of page walks × theirs (KVM-6).
 *
 * The costs of exits are those that the machine charged while it ran; they hold in `timeModel: 'cycles'`. Not in the
 * bill: the guest's own instructions, and time that it sleeps.
 */
import { COSTS } from '../hypervisor/costs.js';
import type { RunResult } from './machine.js';
import { sumOf } from './run-tables.js';

/** The parts of a run that make its bill. */
export type Billed = Pick<RunResult, 'exits' | 'exitCycles' | 'walks' | 'instructions'>;

export interface Bill {
  /** VM exits, by number. */
  readonly exits: number;
  /** Page walks, and the entries that they read. */
  readonly walks: number;
  readonly references: number;
  /** Cycles. */
  readonly exitCycles: number;
  readonly walkCycles: number;
  readonly total: number;
  readonly instructions: number;
}

/** @param perReference cycles of one memory reference of a page walk */
export const billOf = (run: Billed, perReference: number = COSTS.walkReference.cycles): Bill => {
  const exitCycles = sumOf(run.exitCycles);
  const walkCycles = run.walks.references * perReference;
  return {
    exits: sumOf(run.exits),
    walks: run.walks.count,
    references: run.walks.references,
    exitCycles,
    walkCycles,
    total: exitCycles + walkCycles,
    instructions: run.instructions,
  };
};

/** What one bill has more than another, line by line. */
export const billDifference = (bill: Bill, base: Bill): Bill => ({
  exits: bill.exits - base.exits,
  walks: bill.walks - base.walks,
  references: bill.references - base.references,
  exitCycles: bill.exitCycles - base.exitCycles,
  walkCycles: bill.walkCycles - base.walkCycles,
  total: bill.total - base.total,
  instructions: bill.instructions - base.instructions,
});

/** The bills of a run's phases, in order: what each added to the ones before. */
export const phaseBills = (
  run: Pick<RunResult, 'phases'>,
): { readonly phase: string; readonly bill: Bill }[] => {
  const bills = run.phases.map((p) => billOf(p));
  return run.phases.map((p, i) => ({
    phase: p.name,
    bill: i === 0 ? bills[0]! : billDifference(bills[i]!, bills[i - 1]!),
  }));
};

/** The price list: one row a kind of cost, in cycles, with its source. */
export const priceList = (): { readonly cycles: number; readonly what: string; readonly source: string }[] =>
  Object.values(COSTS).map(({ cycles, what, source }) => ({ cycles, what, source }));

/** Memory references of a walk that finds a page at once. @param guest, host levels that each dimension reads; host 0 without EPT */
export const walkReferences = (guest: number, host: number): number => (guest + 1) * (host + 1) - 1;

export interface CurvePoint {
  readonly x: number;
  readonly ept: number;
  readonly shadow: number;
}

/**
 * Where the two curves cross, by straight lines between the points. Curves that only touch, or begin as one, do not cross.
 * @param points in the order of x
 * @returns the first such place; undefined when one curve stays below the other
 */
export const crossingOf = (points: readonly CurvePoint[]): number | undefined => {
  let last: CurvePoint | undefined;
  for (const point of points) {
    const after = point.shadow - point.ept;
    if (after === 0) continue;
    const before = last === undefined ? 0 : last.shadow - last.ept;
    if (last !== undefined && before * after < 0)
      return last.x + ((point.x - last.x) * before) / (before - after);
    last = point;
  }
  return undefined;
};
