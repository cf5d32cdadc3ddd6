import { describe, expect, test } from 'vitest';
import { goalLines, phaseFigures, phaseTable, profileTable, ratioTable, unequalRounds } from './report.js';
import type { Mark, Sample } from './sample.js';

const MIB = 2 ** 20;
const mark = (wall: number, cpu: number, peak: number, instructions: number, exits: number): Mark => ({
  wall,
  cpu,
  peak: peak * MIB,
  instructions,
  exits,
});
/** A run that takes `factor` times as long as the first. */
const ours = (factor: number, exits = 40_000): Sample => ({
  marks: {
    loaded: mark(0.1, 0.1, 50, 0, 0),
    start: mark(0.5, 0.6, 200, 0, 0),
    init: mark(0.5 + 4 * factor, 0.6 + 4 * factor, 300, 400e6, exits),
    end: mark(0.5 + 8 * factor, 0.6 + 8 * factor, 320, 720e6, 3 * exits),
  },
});
const theirs: Sample = {
  marks: { init: { wall: 1.5, cpu: 1.4, peak: 150 * MIB }, end: { wall: 3, cpu: 2.9, peak: 160 * MIB } },
};
const cells = (text: string): string[][] => text.split('\n').map((l) => l.trim().split(/ {2,}/));

describe('phases', () => {
  test('are differences of marks, medians over the runs', () => {
    const f = phaseFigures([ours(1), ours(3), ours(1.5)], 'end', 'init');
    expect(f).toMatchObject({ wall: 6, cpu: 6, instructions: 320e6, exits: 80_000, peak: 320 * MIB });
    expect(f?.spread).toBeCloseTo(8 / 6);
  });
  test('of a run that failed before are left out', () => {
    const failed: Sample = { marks: { start: mark(9, 9, 9, 0, 0) }, problem: 'triple-fault' };
    expect(phaseFigures([failed, ours(1)], 'init', 'start')?.wall).toBe(4);
    expect(phaseFigures([failed], 'init', 'start')).toBeUndefined();
  });
  test('have no rate where instructions are not known', () => {
    expect(phaseFigures([theirs], 'init')).not.toHaveProperty('instructions');
  });
});

test('the table names each configuration once and gives the rates of both times', () => {
  const rows = cells(phaseTable({ ept: [ours(1)], qemu: [theirs] }));
  expect(rows).toContainEqual(['vmxlab EPT', 'loading the program', '0.10', '0 %', '0.10', '50']);
  expect(rows).toContainEqual(['set-up of the machine', '0.40', '0 %', '0.50', '200']);
  expect(rows).toContainEqual([
    'first instruction to INIT',
    ...['400.0', '4.00', '0 %', '4.00', '100.0', '100.0', '40,000', '300'],
  ]);
  expect(rows).toContainEqual(['QEMU TCG', 'workload (INIT to its end)', '1.50', '0 %', '1.50', '160']);
  expect(rows.filter(([name]) => name === 'vmxlab EPT')).toHaveLength(1);
});

test('ratios compare whole processes, only with what was measured', () => {
  const rows = cells(ratioTable({ ept: [ours(1)], qemu: [theirs] }) ?? '');
  expect(rows.slice(2)).toEqual([
    ['vmxlab EPT / QEMU TCG', 'to INIT', '3.00×', '3.29×'],
    ['vmxlab EPT / QEMU TCG', 'to the end', '2.83×', '2.97×'],
  ]);
  expect(ratioTable({ ept: [ours(1)] })).toBeUndefined();
});

test('the profile is sorted by time and adds up', () => {
  const rows = cells(
    profileTable({
      guest: 7,
      switches: 1,
      reasons: {
        0: { exits: 1000, seconds: 0.5, median: 40e-6 },
        28: { exits: 500, seconds: 1.5, median: 2e-3 },
      },
    }),
  );
  expect(rows.slice(2)).toEqual([
    ['28', 'CR_ACCESS', '500', '1.500', '3,000.00', '2,000.00', '15 %'],
    ['0', 'EXCEPTION_NMI', '1,000', '0.500', '500.00', '40.00', '5 %'],
    ['all in the hypervisor', '1,500', '2.000', '1,333.33', '20 %'],
    ['VM entries and VM exits', '1,500', '1.000', '666.67', '10 %'],
    ['executing the guest', '7.000', '70 %'],
  ]);
});

test('goals are judged on medians', () => {
  const lines = goalLines({ ept: [ours(1)], shadow: [ours(2)] }, 256 * MIB);
  expect(lines).toContain('met     EPT to INIT, by wall time: 88.9 M/s (goal: at least 85)');
  expect(lines).toContain('missed  shadow / EPT speed to INIT, by wall time: 0.53 (goal: at least 0.6)');
  expect(lines).toContain('met     vmxlab EPT set-up: 0.40 s (goal: under 0.5)');
  expect(lines).toContain('met     vmxlab shadow peak memory: 320 MiB (goal: under 656)');
  expect(lines).toContain('met     EPT instructions to INIT: 400 M (goal: under 500)');
  expect(goalLines({}, 256 * MIB)).toEqual([]);
});

test('shadow paging with page-table isolation is judged against EPT, and exits by their average', () => {
  const reasons = {
    0: { exits: 3000, seconds: 0.012, median: 2e-6 },
    28: { exits: 1000, seconds: 0.002, median: 1e-6 },
  };
  const lines = goalLines({ ept: [ours(1)], 'shadow-pti': [ours(1.25)] }, 256 * MIB, {
    'shadow-pti': { guest: 1, switches: 1, reasons },
  });
  expect(lines).toContain('met     shadow with PTI / EPT to the end, by CPU time: 1.23 (goal: at most 1.5)');
  expect(lines).toContain(
    'missed  vmxlab shadow, PTI, handling of an exit: 3.50 µs on average (by the medians of the reasons 1.75 µs) (goal: under 3.00 µs)',
  );
});

test('rounds that do not repeat are named', () => {
  expect(unequalRounds({ ept: [ours(1), ours(2)], shadow: [ours(1), ours(1, 40_001)] })).toEqual(['shadow']);
});
