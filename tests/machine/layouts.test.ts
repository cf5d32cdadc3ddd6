/**
 * The other two layouts of the lab leaves as a guest sees them, all four leaves of each: what Debian's `cpuid` tool prints is what
 * was counted at that moment, and cycles are where they belong. `boot.test.ts` has every reason of F2020.
 */
import { expect, test } from 'vitest';
import { leafNumbers } from '../../lib/lab/machine.js';
import { readings } from '../../lib/lab/readings.js';
import { type Query, witnessedBoot } from './boots.js';

const UNDEFINED = [35, 38, 42, 65];
const NOT_IN_KVM = [3, 4, 5, 6, 11, 16, 17, 33, 34, 51, 63, 64, 66, 67, 68, 69];
const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);

type Registers = readonly [eax: number, ebx: number, ecx: number, edx: number];
type Cell = (q: Query) => Registers;
const cyclesIn = (n: number): Registers => [0, Math.floor(n / 2 ** 32), n % 2 ** 32, 0];
const byReason = (q: Query, value: () => Registers): Registers =>
  q.subleaf > 69 || UNDEFINED.includes(q.subleaf)
    ? [0, 0, 0, 0xffff_ffff]
    : NOT_IN_KVM.includes(q.subleaf)
      ? [0, 0, 0, 0]
      : value();
const exitsOf: Cell = (q) => byReason(q, () => [q.exits[q.subleaf]!, 0, 0, 0]);
const cyclesOf: Cell = (q) => byReason(q, () => cyclesIn(q.cycles[q.subleaf]!));
const allExits: Cell = (q) => [sum(q.exits), 0, 0, 0];
const allCycles: Cell = (q) => cyclesIn(sum(q.cycles));

const LAYOUTS = [
  [
    'F2021',
    'shadow',
    { 1342177279: allExits, 1342177278: allCycles, 1342177277: exitsOf, 1342177276: cyclesOf },
  ],
  [
    'F2022',
    'ept',
    { 1342177279: cyclesOf, 1342177278: exitsOf, 1342177277: allCycles, 1342177276: allExits },
  ],
] as const satisfies readonly (readonly [string, string, Readonly<Record<number, Cell>>])[];

/** Occurring, not occurring, not in KVM, undefined, beyond the last, and the largest that there is. */
const SUBLEAVES = [0, 1, 10, 14, 28, 30, 48, 49, 58, 3, 69, 35, 65, 70, 4294967295];

const script = (leaves: readonly string[]): string => `#!/bin/sh
echo "[vmxlab] leaves all"
for l in ${leaves.join(' ')}; do
  for n in ${SUBLEAVES.join(' ')}; do /usr/bin/cpuid -1 -l $l -s $n; done
done
echo "[vmxlab] leaves end"
/bin/busybox poweroff -f`;

test.each(LAYOUTS)('%s, %s: every register of every leaf', async (leaves, paging, table) => {
  const cells: Readonly<Record<number, Cell>> = table;
  const numbers = Object.keys(cells).map((n) => `0x${Number(n).toString(16)}`);
  const { result, queries } = await witnessedBoot(paging === 'ept', {
    leaves,
    append: 'rdinit=/workload',
    workload: script(numbers),
  });
  expect(result).toMatchObject({ paging, outcome: 'poweroff' });
  const [read, more] = readings(result.console);
  expect([read?.name, more]).toEqual(['all', undefined]);
  expect(read!.queries).toHaveLength(SUBLEAVES.length * numbers.length);
  expect(queries).toHaveLength(read!.queries.length);
  for (const [i, q] of read!.queries.entries()) {
    const seen = queries[i]!;
    const what = `leaf 0x${seen.leaf.toString(16)}, exit type ${seen.subleaf}`;
    expect(q.leaf, what).toBe(seen.leaf);
    expect([q.eax, q.ebx, q.ecx, q.edx], what).toEqual(cells[q.leaf]!(seen));
  }
});

test.each([
  ['F2020', 0x4fffffff, 0x4ffffffe],
  ['F2021', 0x4fffffff, 0x4ffffffd],
  ['F2022', 0x4ffffffc, 0x4ffffffe],
] as const)('%s: the leaves that /init asks for the total and for each type', (layout, total, byType) => {
  expect(leafNumbers(layout)).toEqual({ total, byReason: byType });
});
