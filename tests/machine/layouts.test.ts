/** The other two layouts of the lab leaves: what the guest reads is what was counted, and cycles are where they belong. */
import { expect, test } from 'vitest';
import { leafNumbers } from '../../lib/lab/machine.js';
import { readings } from '../../lib/lab/readings.js';
import { type Query, witnessedBoot } from './boots.js';

const UNDEFINED = [35, 38, 42, 65];
const NOT_IN_KVM = [3, 4, 5, 6, 11, 16, 17, 33, 34, 51, 63, 64, 66, 67, 68, 69];
const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);

type Registers = readonly [eax: number, ebx: number, ecx: number, edx: number];
const cyclesIn = (n: number): Registers => [0, Math.floor(n / 2 ** 32), n % 2 ** 32, 0];
const byReason = (q: Query, value: () => Registers): Registers =>
  q.subleaf > 69 || UNDEFINED.includes(q.subleaf)
    ? [0, 0, 0, 0xffff_ffff]
    : NOT_IN_KVM.includes(q.subleaf)
      ? [0, 0, 0, 0]
      : value();
const exitsOf = (q: Query): Registers => byReason(q, () => [q.exits[q.subleaf]!, 0, 0, 0]);
const cyclesOf = (q: Query): Registers => byReason(q, () => cyclesIn(q.cycles[q.subleaf]!));
const allExits = (q: Query): Registers => [sum(q.exits), 0, 0, 0];
const allCycles = (q: Query): Registers => cyclesIn(sum(q.cycles));

/** The leaves that /init does not ask are asked by the workload; reasons beyond 69 and 32 bits too. */
const ask = (...leaves: readonly string[]): string =>
  `echo "[vmxlab] leaves more"\n${leaves.map((l) => `cpuid -1 -l ${l}`).join('\n')}\necho "[vmxlab] leaves end"`;

// biome-ignore format: one row per line
const LAYOUTS = [
  ['F2021', 'shadow', ['0x4ffffffe', '0x4ffffffc -s 0', '0x4ffffffc -s 28', '0x4ffffffc -s 35', '0x4ffffffd -s 70', '0x4ffffffd -s 4294967295'],
    { 0x4fffffff: allExits, 0x4ffffffe: allCycles, 0x4ffffffd: exitsOf, 0x4ffffffc: cyclesOf }],
  ['F2022', 'ept', ['0x4ffffffd', '0x4fffffff -s 48', '0x4fffffff -s 10', '0x4fffffff -s 42', '0x4fffffff -s 3', '0x4ffffffe -s 255'],
    { 0x4fffffff: cyclesOf, 0x4ffffffe: exitsOf, 0x4ffffffd: allCycles, 0x4ffffffc: allExits }],
] as const satisfies readonly (readonly [string, string, readonly string[], Readonly<Record<number, (q: Query) => Registers>>])[];

test.each(LAYOUTS)('%s, %s: every register of every leaf', async (leaves, paging, more, cells) => {
  const { result, queries } = await witnessedBoot(paging === 'ept', { leaves, workload: ask(...more) });
  expect(result.outcome).toBe('poweroff');
  const read = readings(result.console);
  expect(read.map((r) => r.name)).toEqual(['boot', 'more', 'workload']);
  const { total, byReason: counter } = leafNumbers(leaves);
  for (const r of [read[0]!, read[2]!])
    expect(r.queries.map((q) => q.leaf)).toEqual([total, ...new Array<number>(70).fill(counter)]);
  const registers = read.flatMap((r) => r.queries);
  expect(registers).toHaveLength(142 + more.length);
  expect(queries).toHaveLength(registers.length);
  for (const [i, q] of registers.entries()) {
    const seen = queries[i]!;
    expect(q.leaf).toBe(seen.leaf);
    const cell = (cells as Readonly<Record<number, (q: Query) => Registers>>)[q.leaf]!;
    expect([q.eax, q.ebx, q.ecx, q.edx], `leaf 0x${q.leaf.toString(16)} reason ${seen.subleaf}`).toEqual(
      cell(seen),
    );
  }
});
