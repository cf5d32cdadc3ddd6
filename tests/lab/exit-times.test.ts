import { expect, test } from 'vitest';
import { bootUnder } from '../../lib/lab/both.js';
import { ExitTimes, timeExits, timesText } from '../../lib/lab/exit-times.js';
import { statRows, statText } from '../../lib/lab/live-stat.js';

const SMALL = { guest: 'tiny', tiny: { processes: 2, switches: 4, touchPages: 8, forks: 1 } } as const;

test('minimum, maximum, mean and its standard error', () => {
  const times = new ExitTimes();
  times.end(5);
  let at = 0;
  for (const n of [1000, 3000, 2000]) {
    times.begin('CPUID', at);
    at += n;
    times.end(at);
  }
  // a second beginning takes the place of the first
  times.begin('HLT', at);
  times.begin('PAUSE', at + 10);
  times.end(at + 410);
  times.begin('HLT', at);
  const rows = times.rows();
  expect(rows.map((r) => [r.name, r.samples, r.cycles, r.min, r.max])).toEqual([
    ['CPUID', 3, 6000, 1000, 3000],
    ['PAUSE', 1, 400, 400, 400],
  ]);
  // 100 × (1000 / √3) / 2000
  expect(rows[0]?.deviation).toBeCloseTo(28.87, 2);
  expect(rows[1]?.deviation).toBe(0);
});

test("the table has perf's columns", () => {
  const times = new ExitTimes();
  times.begin('CR_ACCESS', 0);
  times.end(1600);
  times.begin('CR_ACCESS', 2000);
  times.end(4400);
  expect(timesText(times.rows(), 400e6).split('\n')).toEqual([
    '',
    'Analyze events for all VMs, all VCPUs:',
    '',
    '             VM-EXIT    Samples  Samples%     Time%    Min Time    Max Time         Avg time',
    '',
    '           CR_ACCESS          2   100.00%   100.00%      4.00us      6.00us      5.00us ( +-  20.00% )',
    '',
    'Total Samples:2, Total events handled time:10.00us.',
    '',
    '',
  ]);
  expect(timesText([], 400e6)).toContain('Total Samples:0, Total events handled time:0.00us.');
});

test.each(['ept', 'shadow'] as const)(
  'samples are the exits of the run and their cycles: %s',
  async (paging) => {
    let times: ExitTimes | undefined;
    const run = await bootUnder(paging, {
      ...SMALL,
      onMachine: (m) => {
        times = timeExits(m);
      },
    });
    const rows = times?.rows() ?? [];
    const sum = (ns: readonly number[]): number => ns.reduce((s, n) => s + n, 0);
    // the last exit, which powered off, has no entry after it
    expect(sum(rows.map((r) => r.samples))).toBe(sum(Object.values(run.exits)) - 1);
    expect(sum(rows.map((r) => r.cycles))).toBe(sum(Object.values(run.exitCycles)));
    expect(rows.find((r) => r.name === 'CPUID')).toMatchObject({
      samples: run.exits[10],
      cycles: run.exitCycles[10],
    });
  },
);

test('ports, MMIO and MSRs are timed by where they were', async () => {
  const all: Record<string, string[]> = {};
  for (const what of ['ioport', 'mmio', 'msr'] as const) {
    let times: ExitTimes | undefined;
    await bootUnder('ept', {
      guest: 'tiny',
      tiny: { mmioReads: 3 },
      onMachine: (m) => {
        times = timeExits(m, what);
      },
    });
    all[what] = times?.rows().map((r) => r.name) ?? [];
  }
  expect(all['ioport']).toEqual(expect.arrayContaining(['0x3f8:POUT', '0x21:POUT']));
  expect(all['mmio']).toContain('0xfec00000:R');
  expect(all['msr']).toEqual(expect.arrayContaining(['0xc0000080:R', '0xc0000080:W']));
});

test('kvm_stat: reasons under kvm_exit, rates of virtual time, busiest first', () => {
  const counters = (exits: number, cpuid: number, taken: number, cycles: number) => ({
    instructions: 1,
    cycles,
    exits: { 10: cpuid, 28: exits - cpuid },
    kvmStats: { exits, pf_taken: taken, pf_fixed: 0 },
  });
  const rows = statRows(counters(300, 250, 100, 800), counters(100, 60, 90, 400), 400);
  expect(rows.map((r) => [r.name, r.total, Math.round(r.share), r.rate])).toEqual([
    ['kvm_exit', 300, 75, 200],
    ['kvm_exit(CPUID)', 250, 83, 190],
    ['kvm_exit(CR_ACCESS)', 50, 17, 10],
    ['pf_taken', 100, 25, 10],
  ]);
  const text = statText(rows);
  expect(text).toMatch(
    /^kvm statistics - summary\n\n Event +Total +%Total +CurAvg\/s\n kvm_exit +300 +75\.0 +200\n {3}kvm_exit\(CPUID\)/,
  );
  expect(text).toMatch(/\n Total +400 +210\n$/);
  expect(statText(rows, 6).split('\n')).toHaveLength(6);
  expect(statRows(counters(0, 0, 0, 0), undefined, 400)).toEqual([]);
});
