import { expect, test } from 'vitest';
import {
  billDifference,
  billOf,
  type CurvePoint,
  crossingOf,
  phaseBills,
  priceList,
  walkReferences,
} from '../../lib/lab/bill.js';
import { rankCorrelation } from '../../lib/lab/run-tables.js';

const RUN = {
  instructions: 1000,
  exits: { 10: 3, 28: 2 },
  exitCycles: { 10: 4500, 28: 3200 },
  walks: { count: 10, references: 190 },
};

test('a bill is exits by their cycles and references by theirs', () => {
  expect(billOf(RUN)).toEqual({
    exits: 5,
    walks: 10,
    references: 190,
    exitCycles: 7700,
    walkCycles: 190 * 15,
    total: 7700 + 190 * 15,
    instructions: 1000,
  });
  expect(billOf(RUN, 2).walkCycles).toBe(380);
});

test('a difference is taken line by line; phases are what each added', () => {
  const bill = billOf(RUN);
  expect(Object.values(billDifference(bill, bill))).toEqual([0, 0, 0, 0, 0, 0, 0]);
  const phase = (name: string, n: number) => ({
    name,
    instructions: 1000 * n,
    cycles: 0,
    exits: { 10: n },
    exitCycles: { 10: 1500 * n },
    walks: { count: n, references: 4 * n },
    kvmStats: {},
  });
  expect(phaseBills({ phases: [phase('boot', 1), phase('work', 4)] })).toMatchObject([
    { phase: 'boot', bill: { exits: 1, total: 1560 } },
    { phase: 'work', bill: { exits: 3, total: 3 * 1560, instructions: 3000 } },
  ]);
});

/** Levels of guest and host, and references: KVM-6. */
test.each([
  [4, 4, 24],
  [4, 3, 19],
  [3, 4, 19],
  [3, 3, 15],
  [4, 2, 14],
  [5, 5, 35],
  [4, 0, 4],
])('a walk of %i levels through %i makes %i references', (guest, host, references) => {
  expect(walkReferences(guest, host)).toBe(references);
});

const curve = (...rows: [x: number, ept: number, shadow: number][]): CurvePoint[] =>
  rows.map(([x, ept, shadow]) => ({ x, ept, shadow }));
test.each<[string, CurvePoint[], number | undefined]>([
  ['in the middle', curve([0, 0, 10], [10, 20, 10]), 5],
  ['at a point', curve([0, 1, 2], [4, 3, 3], [8, 5, 4]), 4],
  ['not where they only begin together', curve([1, 0, 0], [2, 0, 0], [3, 3, 2]), undefined],
  ['not where they only touch', curve([1, 0, 2], [2, 3, 3], [3, 4, 5]), undefined],
  ['nowhere', curve([0, 1, 2], [9, 1, 2]), undefined],
  ['one point', curve([0, 1, 2]), undefined],
])('curves cross %s', (_name, points, at) => {
  expect(crossingOf(points)).toBe(at);
});

test('the price list has a source for every price', () => {
  expect(priceList().length).toBeGreaterThan(10);
  for (const row of priceList()) {
    expect(row.cycles).toBeGreaterThan(0);
    expect(row.source).toMatch(/KVM-6/);
  }
});

test.each<[Record<number, number>, Record<number, number>, number]>([
  [{ 0: 10, 1: 20, 2: 30 }, { 0: 1, 1: 2, 2: 3 }, 1],
  [{ 0: 10, 1: 20, 2: 30 }, { 0: 3, 1: 2, 2: 1 }, -1],
  // 2 is in the second only; 5 is in neither
  [{ 0: 9, 1: 5, 5: 0 }, { 0: 8, 1: 3, 2: 5, 5: 0 }, 0.5],
  [{ 0: 5, 1: 5, 2: 9 }, { 0: 1, 1: 2, 2: 3 }, 0.866],
])('rank correlation of %j and %j is %d', (a, b, r) => {
  expect(rankCorrelation(a, b)).toBeCloseTo(r, 3);
});
