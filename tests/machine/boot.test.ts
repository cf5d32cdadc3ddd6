/**
 * Debian's kernel boots to power-off under EPT and under shadow paging, each once; every test looks at the same two runs.
 * What the guest read through the leaves is what was counted, the counts are those of each kind of paging, sums are
 * conserved, and a second run is the same run.
 */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { queriesBesideLog } from '../../lib/lab/leaf-log.js';
import { countsOf, readings } from '../../lib/lab/readings.js';
import { EXIT_REASONS } from '../../lib/vmx/exit-reasons.js';
import { type Boot, snapshotDifferences, witnessedBoot } from './boots.js';
import { MODES } from './compare.js';

const M = 1_000_000;
/** Past INIT, which must come before 500 million instructions. */
const SNAPSHOT = 425 * M;
const BY_REASON = 0x4fff_fffe;
const TOTALS = 0x4fff_ffff;
/** The edition of the lab; checked against the rows below. */
const UNDEFINED = [35, 38, 42, 65];
const NOT_IN_KVM = [3, 4, 5, 6, 11, 16, 17, 33, 34, 51, 63, 64, 66, 67, 68, 69];

const kept = new Map<boolean, Promise<Boot>>();
const boots = (ept: boolean): Promise<Boot> => {
  const known = kept.get(ept) ?? witnessedBoot(ept, {}, [SNAPSHOT]);
  kept.set(ept, known);
  return known;
};
const sum = (counts: Readonly<Record<number, number>>): number =>
  Object.values(counts).reduce((a, b) => a + b, 0);
const count = (counts: Readonly<Record<number, number>>, reason: number): number => counts[reason] ?? 0;
const workloadPart = (console: string): string =>
  /\[vmxlab\] workload\r?\n([\s\S]*?)\[vmxlab\] workload done/.exec(console)?.[1] ?? '';

describe.each(MODES)('%s', (name, ept) => {
  test('Debian powers off, without a complaint of its kernel', async () => {
    const { result } = await boots(ept);
    expect(result).toMatchObject({ paging: name, outcome: 'poweroff' });
    expect(result.detail).toBeUndefined();
    expect(result.console).not.toMatch(
      /BUG:|Oops|WARNING:|Call Trace|Kernel panic|segfault|general protection|soft lockup|rcu_.*stall|not found/,
    );
    expect(result.console).toContain('reboot: Power down');
  });

  test('the console has the marks in order', async () => {
    const { result } = await boots(ept);
    const marks = [
      'Linux version 6.1.',
      'Run /init as init process',
      '[vmxlab] init',
      '[vmxlab] leaves boot',
      '[vmxlab] leaves end',
      '[vmxlab] workload',
      '[vmxlab] workload done',
      '[vmxlab] leaves workload',
      '[vmxlab] leaves end',
      'reboot: Power down',
    ];
    let at = 0;
    for (const mark of marks) {
      const found = result.console.indexOf(mark, at);
      expect(found, mark).toBeGreaterThanOrEqual(at);
      at = found + mark.length;
    }
    expect(/^\[vmxlab\][^\r\n]*/m.exec(result.console)?.[0]).toBe('[vmxlab] init');
  });

  test('the workload computed what it should', async () => {
    const part = workloadPart((await boots(ept)).result.console);
    expect(part).toContain('100 processes');
    expect(part).toContain(
      createHash('md5')
        .update(Buffer.alloc(2 << 20))
        .digest('hex'),
    );
  });

  test('phases: INIT within 500 million instructions, then the workload', async () => {
    const { result } = await boots(ept);
    const [init, workload, more] = result.phases;
    expect([init?.name, workload?.name, more]).toEqual(['boot', 'workload', undefined]);
    expect(init!.instructions).toBeLessThan(500 * M);
    expect(workload!.instructions).toBeGreaterThan(init!.instructions + 200 * M);
    expect(result.instructions).toBeGreaterThan(workload!.instructions);
    for (const [a, b] of [
      [init!.exits, workload!.exits],
      [workload!.exits, result.exits],
    ] as const)
      for (const reason of Object.keys(a))
        expect(b[Number(reason)]).toBeGreaterThanOrEqual(a[Number(reason)]!);
  });

  test('`about` names the kernel package that the console shows', async () => {
    const { result } = await boots(ept);
    const row = result.about.find((line) => line.startsWith('linux-image-'))!;
    const m = /^linux-image-(\S+-cloud-amd64) (\S+) \(sha256 [0-9a-f]{16}/.exec(row)!;
    expect(result.console).toContain(`Linux version ${m[1]!} `);
    expect(result.console).toContain(m[2]!);
    for (const other of ['busybox-static', 'cpuid', 'libc6'])
      expect(result.about.some((line) => line.startsWith(`${other} `))).toBe(true);
  });

  test('two readings, each of the total and of every reason 0..69', async () => {
    const read = readings((await boots(ept)).result.console);
    expect(read.map((r) => r.name)).toEqual(['boot', 'workload']);
    for (const r of read)
      expect(r.queries.map((q) => [q.leaf, q.subleaf])).toEqual([
        [TOTALS, 0],
        ...Array.from({ length: 70 }, (_, i) => [BY_REASON, i]),
      ]);
  });

  test('what the guest read is what the witness counted at that moment, reason by reason', async () => {
    const { result, queries } = await boots(ept);
    const read = readings(result.console).flatMap((r) => r.queries);
    expect(read).toHaveLength(queries.length);
    for (const [i, q] of read.entries()) {
      const { leaf, subleaf, exits, cycles } = queries[i]!;
      const total = cycles.reduce((a, b) => a + b, 0);
      const expected =
        leaf === TOTALS
          ? { eax: sum(exits), ebx: Math.floor(total / 2 ** 32), ecx: total % 2 ** 32, edx: 0 }
          : UNDEFINED.includes(subleaf)
            ? { eax: 0, ebx: 0, ecx: 0, edx: 0xffff_ffff }
            : { eax: NOT_IN_KVM.includes(subleaf) ? 0 : exits[subleaf], ebx: 0, ecx: 0, edx: 0 };
      expect(q).toEqual({ leaf, subleaf: leaf === TOTALS ? q.subleaf : subleaf, ...expected });
    }
  });

  test('and what the log says, line by line', async () => {
    const { result } = await boots(ept);
    const read = readings(result.console).flatMap((r) => r.queries);
    const lines = result.log.filter((line) => line.startsWith('CPUID(0x4FFFFFF'));
    expect(lines).toEqual(
      read.map((q) => {
        if (q.leaf === TOTALS)
          return `CPUID(0x4FFFFFFF), exits=${q.eax}, cycles spent in exit=${q.ebx * 2 ** 32 + q.ecx}`;
        if (q.edx !== 0) return `CPUID(0x4FFFFFFE), exit number ${q.subleaf} is not defined in the SDM`;
        if (NOT_IN_KVM.includes(q.subleaf))
          return `CPUID(0x4FFFFFFE), exit number ${q.subleaf} is not enabled in KVM`;
        return `CPUID(0x4FFFFFFE), exit number ${q.subleaf} exits=${q.eax}`;
      }),
    );
    const beside = queriesBesideLog(result);
    expect(beside).toHaveLength(140);
    expect(beside.filter((q) => q.guest !== q.hypervisor)).toEqual([]);
  });

  test('the parsed counts leave out what is not defined, and never fall', async () => {
    const [first, second] = readings((await boots(ept)).result.console).map((r) => countsOf(r, BY_REASON));
    expect(Object.keys(first!)).toHaveLength(66);
    for (const reason of Object.keys(first!).map(Number))
      expect(second![reason]).toBeGreaterThanOrEqual(first![reason]!);
    // each query is itself one exit of type 10
    expect(second![10]).toBeGreaterThan(first![10]! + 140);
  });

  test('sums are conserved', async () => {
    const { result, witnessed, totals } = await boots(ept);
    expect(result.exits).toEqual(witnessed);
    expect(sum(result.exits)).toBe(result.kvmStats['exits']);
    expect(sum(result.exits)).toBe(totals.exits);
    expect(sum(result.exitCycles)).toBe(totals.cycles);
    expect(Object.keys(result.exitCycles)).toEqual(Object.keys(result.exits));
    expect(result.cycles).toBeGreaterThanOrEqual(totals.cycles);
    expect(result.cycles).toBeGreaterThanOrEqual(result.instructions);
    expect(result.kvmStats).toMatchObject({
      irq_exits: count(result.exits, 1),
      irq_window_exits: count(result.exits, 7),
      halt_exits: count(result.exits, 12),
    });
  });

  test('only reasons that the SDM defines and KVM handles occur', async () => {
    const { result } = await boots(ept);
    for (const reason of Object.keys(result.exits).map(Number)) {
      expect([...UNDEFINED, ...NOT_IN_KVM]).not.toContain(reason);
      expect(reason).toBeLessThan(70);
    }
  });

  test('page walks: at most 24 references in two dimensions, at most 4 in one', async () => {
    const { result, walks } = await boots(ept);
    const [used, unused] = ept
      ? [[walks.walks2d, walks.references2d] as const, [walks.walks1d, walks.references1d] as const]
      : [[walks.walks1d, walks.references1d] as const, [walks.walks2d, walks.references2d] as const];
    expect(unused).toEqual([0, 0]);
    expect(result.walks).toEqual({ count: used[0], references: used[1] });
    expect(used[0]).toBeGreaterThan(10_000);
    expect(used[1] / used[0]).toBeLessThanOrEqual(ept ? 24 : 4);
    expect(used[1] / used[0]).toBeGreaterThan(ept ? 4 : 1);
  });

  test('a second run is the same run: counts, time, console, registers, guest and host memory', async () => {
    const first = await boots(ept);
    // the slice after the snapshot is one instruction
    const second = await witnessedBoot(ept, { maxInstructions: SNAPSHOT + 1 }, [SNAPSHOT]);
    const [a, b] = [first.snapshots[0]!, second.snapshots[0]!];
    expect(a.console).toContain('[vmxlab] init');
    expect(snapshotDifferences(a, b)).toEqual([]);
    expect(second.result.phases[0]).toEqual(first.result.phases[0]);
    expect(first.result.console.startsWith(second.result.console)).toBe(true);
    expect(first.result.log.slice(0, second.result.log.length)).toEqual(second.result.log);
  });
});

describe('EPT beside shadow paging', () => {
  test('with EPT no INVLPG and INVPCID exits, with shadow paging no EPT exits', async () => {
    const [ept, shadow] = [(await boots(true)).result.exits, (await boots(false)).result.exits];
    expect([14, 58].map((r) => count(ept, r))).toEqual([0, 0]);
    expect([48, 49].map((r) => count(shadow, r))).toEqual([0, 0]);
    expect(count(ept, 48)).toBeGreaterThan(0);
    expect(count(ept, 49)).toBeGreaterThan(0);
    expect(count(shadow, 58)).toBeGreaterThan(0);
  });

  test('exits of types 0, 14 and 28 are far above', async () => {
    const [ept, shadow] = [(await boots(true)).result.exits, (await boots(false)).result.exits];
    expect(count(shadow, 0)).toBeGreaterThan(35 * Math.max(1, count(ept, 0)));
    expect(count(shadow, 14)).toBeGreaterThan(1000);
    expect(count(shadow, 28)).toBeGreaterThan(10 * count(ept, 28));
    expect(sum(shadow) / sum(ept)).toBeGreaterThan(2);
  });

  test('types that have nothing to do with paging are nearly equal', async () => {
    const [ept, shadow] = [(await boots(true)).result.exits, (await boots(false)).result.exits];
    const near = (reason: number, part: number): void =>
      expect(Math.abs(count(shadow, reason) / count(ept, reason) - 1), `reason ${reason}`).toBeLessThan(part);
    near(10, 0.08);
    near(30, 0.3);
    near(31, 0.3);
    expect(count(shadow, 55)).toBe(count(ept, 55));
  });

  test('the guest did the same work', async () => {
    const [ept, shadow] = [(await boots(true)).result.console, (await boots(false)).result.console];
    expect(workloadPart(shadow)).toBe(workloadPart(ept));
    const version = /Linux version[^\r\n]*/;
    expect(version.exec(shadow)?.[0]).toBe(version.exec(ept)?.[0]);
  });

  test('the rows of the exit reasons are those of the lab', () => {
    const rows = EXIT_REASONS.slice(0, 70);
    expect(rows.filter((r) => !r.defined).map((r) => r.number)).toEqual(UNDEFINED);
    expect(rows.filter((r) => r.defined && !r.handled).map((r) => r.number)).toEqual(NOT_IN_KVM);
  });
});
