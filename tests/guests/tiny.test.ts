import fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { predict, TIME_DRIVEN } from '../../lib/guests/tiny/predict.js';
import { tinyGuest } from '../../lib/guests/tiny/tiny.js';
import type { TinyWorkload } from '../../lib/guests/tiny/workload.js';
import { createMmu } from '../../lib/hypervisor/mmu/create.js';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { createVm, type TimeModel } from '../../lib/hypervisor/vm.js';
import { boot } from '../../lib/lab/machine.js';
import { countsOf, readings } from '../../lib/lab/readings.js';
import { createHardware } from '../../lib/vmx/hardware.js';

vi.setConfig({ testTimeout: 120_000 });

const LEAVES = { total: 0x4fffffff, byReason: 0x4ffffffe };
const MEMORY = 64 << 20;
const MODES = ['ept', 'shadow'] as const;
type Mode = (typeof MODES)[number];
type Backing = '4K' | '2M';
type Work = Readonly<Partial<TinyWorkload>>;

interface Options {
  readonly backing?: Backing;
  readonly timeModel?: TimeModel;
  /** Bytes of memory to keep, from the frames of processes. */
  readonly keep?: number;
}

const run = (mode: Mode, workload: Work, options: Options = {}) => {
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', { ept: mode === 'ept' });
  const guest = tinyGuest({ memory: MEMORY, leaves: LEAVES, workload });
  const hardware = createHardware(MEMORY + (32 << 20), 'interpreter');
  let console = '';
  const vm = createVm(hypervisor, hardware.port, {
    memory: MEMORY,
    createMmu,
    hostTickHz: 0,
    backing: options.backing ?? '2M',
    timeModel: options.timeModel ?? 'cycles',
    board: { onConsole: (b) => (console += String.fromCharCode(b)) },
  });
  for (const s of guest.segments) vm.load(s.gpa, s.bytes);
  vm.loadEntry(guest.entry);
  const outcome = vm.run({ limit: 40_000_000 });
  const result = {
    outcome: outcome.kind,
    console,
    exits: hypervisor.counts.snapshot(),
    stats: { ...vm.stats },
    instructions: hardware.port.retired(),
    frames: vm.slots.bytes(0x80_0000, options.keep ?? 0),
  };
  vm.destroy();
  return result;
};

const bases = new Map<string, Readonly<Record<number, number>>>();
const base = (mode: Mode, backing: Backing): Readonly<Record<number, number>> => {
  const key = `${mode} ${backing}`;
  const known = bases.get(key) ?? run(mode, {}, { backing }).exits;
  bases.set(key, known);
  return known;
};

/** What a workload adds to an empty one, reasons that time drives left out. */
const added = (mode: Mode, workload: Work, backing: Backing): Record<number, number> => {
  const { outcome, exits, console } = run(mode, workload, { backing });
  expect(outcome, console.slice(-300)).toBe('poweroff');
  const before = base(mode, backing);
  const out: Record<number, number> = {};
  for (const reason of Object.keys({ ...exits, ...before }).map(Number)) {
    const more = (exits[reason] ?? 0) - (before[reason] ?? 0);
    if (more !== 0 && !TIME_DRIVEN.includes(reason)) out[reason] = more;
  }
  return out;
};

const MIXED: Work = {
  syscalls: 10,
  cpuids: 2,
  ioWrites: 3,
  msrReads: 1,
  msrWrites: 1,
  mmioReads: 4,
  cr3Loads: 2,
  invlpgs: 3,
  touchPages: 1500,
  protects: 2,
  unmaps: 300,
  passes: 2,
  kernelPasses: 1,
  forks: 4,
  forkWrites: 700,
  parentWrites: 64,
  processes: 5,
  workerPages: 20,
  switches: 33,
  ticks: 3,
  idles: 2,
};

describe.each(MODES)('%s: exits are exactly as predicted', (mode) => {
  const rows: [work: Work, backing?: Backing][] = [
    [
      {
        syscalls: 500,
        cpuids: 7,
        ioWrites: 11,
        msrReads: 3,
        msrWrites: 5,
        cr3Loads: 13,
        invlpgs: 17,
        mmioReads: 9,
      },
    ],
    [{ mmioReads: 1, touchPages: 1 }],
    [{ touchPages: 2, ticks: 4 }],
    [{ touchPages: 513, idles: 6 }],
    [{ touchPages: 1200 }, '4K'],
    [{ touchPages: 600, protects: 5 }],
    [{ touchPages: 1025, unmaps: 600 }],
    [{ touchPages: 40, forks: 3, forkWrites: 1 }],
    [{ touchPages: 600, forks: 3, forkWrites: 513 }],
    [{ touchPages: 600, forks: 3, forkWrites: 20, parentWrites: 530 }],
    [{ processes: 1, forks: 2 }],
    [{ processes: 7, switches: 100 }],
    [{ processes: 4 }, '4K'],
    [{ processes: 5, switches: 2, workerPages: 40 }, '4K'],
    [{ processes: 3, switches: 30, workerPages: 511 }],
    [{ touchPages: 700, unmaps: 100, passes: 5, kernelPasses: 3 }],
    [{ touchPages: 300, kernelPasses: 2 }, '4K'],
    [MIXED],
    [MIXED, '4K'],
  ];
  test.each(rows)('%j %s', (work: Work, backing: Backing = '2M') => {
    expect(added(mode, work, backing)).toEqual(predict(work, mode, { backing }).exits);
  });
});

/** Any workload that the guest can do, within 64 MiB and a fraction of a second. */
const anyWork = fc
  .record({
    small: fc.array(fc.nat(20), { minLength: 9, maxLength: 9 }),
    touchPages: fc.nat(1600),
    unmaps: fc.nat(1600),
    protects: fc.nat(3),
    forks: fc.nat(4),
    forkWrites: fc.nat(1200),
    parentWrites: fc.nat(1200),
    passes: fc.nat(3),
    kernelPasses: fc.nat(2),
    processes: fc.nat(9),
    workerPages: fc.nat(60),
    switches: fc.nat(40),
  })
  .map(({ small, ...w }): Work => {
    const [syscalls, cpuids, ioWrites, msrReads, mmioReads, cr3Loads, invlpgs, ticks, idles] = small;
    const unmaps = Math.min(w.unmaps, w.touchPages);
    const left = w.touchPages - unmaps;
    return {
      ...{ syscalls, cpuids, ioWrites, msrReads, mmioReads, cr3Loads, invlpgs, ticks, idles },
      ...w,
      unmaps,
      forkWrites: Math.min(w.forkWrites, left),
      parentWrites: Math.min(w.parentWrites, left),
      switches: w.processes < 2 ? 0 : w.switches,
    } as Work;
  });

test.each(MODES)('%s: any workload is predicted exactly', (mode) => {
  fc.assert(
    fc.property(anyWork, fc.constantFrom<Backing>('2M', '4K'), (work, backing) => {
      expect(added(mode, work, backing)).toEqual(predict(work, mode, { backing }).exits);
    }),
    { seed: 3, numRuns: 4, endOnFailure: true },
  );
});

test.each(MODES)('%s: markers, leaves and counters as the Debian guest has them', (mode) => {
  const { console, exits, outcome } = run(mode, { ioWrites: 100, cr3Loads: 10 });
  expect(outcome).toBe('poweroff');
  expect(console.split('\r\n').filter((line) => line.startsWith('['))).toEqual([
    '[vmxlab] init',
    '[vmxlab] leaves boot',
    '[vmxlab] leaves end',
    '[vmxlab] workload',
    '[vmxlab] workload done',
    '[vmxlab] leaves workload',
    '[vmxlab] leaves end',
  ]);
  const [boot, workload] = readings(console);
  expect(boot?.queries).toHaveLength(71);
  expect(boot?.queries[71 - 1]).toMatchObject({ leaf: LEAVES.byReason, subleaf: 69 });
  const before = countsOf(boot!, LEAVES.byReason);
  const after = countsOf(workload!, LEAVES.byReason);
  expect((after[28] ?? 0) - (before[28] ?? 0)).toBeGreaterThanOrEqual(mode === 'shadow' ? 10 : 0);
  expect((after[30] ?? 0) - (before[30] ?? 0)).toBeGreaterThanOrEqual(100);
  expect(after[28]).toBe(exits[28] ?? 0);
  expect(after[49]).toBe(0);
});

test('the lab boots it', async () => {
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', { ept: false });
  const result = await boot(hypervisor, {
    guest: 'tiny',
    memory: MEMORY,
    tiny: { forks: 3, touchPages: 100 },
  });
  expect(result.outcome).toBe('poweroff');
  expect(result.phases.map((p) => p.name)).toEqual(['boot', 'workload']);
  await expect(boot(hypervisor, { guest: 'tiny', workload: 'ls' })).rejects.toMatchObject({
    id: 'guest.option',
  });
});

test('both modes leave the same memory after the same instructions', () => {
  const options = { timeModel: 'instructions', keep: 8 << 20 } as const;
  const work = {
    touchPages: 600,
    protects: 1,
    unmaps: 30,
    forks: 3,
    forkWrites: 200,
    parentWrites: 50,
    processes: 4,
    switches: 9,
    ticks: 2,
    idles: 2,
  };
  const [nested, shadow] = MODES.map((mode) => run(mode, work, options));
  expect(nested?.outcome).toBe('poweroff');
  expect(shadow?.instructions).toBe(nested?.instructions);
  expect(Buffer.compare(nested!.frames, shadow!.frames)).toBe(0);
  expect(nested!.frames.some((b) => b !== 0)).toBe(true);
});

test("copy on write keeps the parent's pages as they were", () => {
  // frames are taken in order, so the first pages touched are the first frames; the page's value is pages - index
  const { frames } = run('shadow', { touchPages: 8, forks: 1, forkWrites: 3 }, { keep: 8 * 4096 });
  const view = new DataView(frames.buffer);
  expect(Array.from({ length: 8 }, (_, i) => Number(view.getBigUint64(i * 4096, true)))).toEqual([
    8, 7, 6, 5, 4, 3, 2, 1,
  ]);
});

test('a prediction explains itself', () => {
  const { exits, terms } = predict({ touchPages: 256 }, 'shadow');
  expect(exits).toEqual({ 0: 256 * 2 + 1 + 1 + 1 });
  expect(terms.every((t) => t.count > 0 && t.because.length > 10)).toBe(true);
  expect(predict({ touchPages: 256, forks: 2, cr3Loads: 9 }, 'ept').exits).toEqual({ 48: 1 });
});

test.each<[Record<string, number>, string]>([
  [{ pages: 1 }, 'tiny.workload'],
  [{ syscalls: -1 }, 'tiny.workload'],
  [{ ticks: 0.5 }, 'tiny.workload'],
  [{ unmaps: 1 }, 'tiny.workload'],
  [{ switches: 3, processes: 1 }, 'tiny.workload'],
  [{ touchPages: 20_000 }, 'tiny.memory'],
])('refuses %j', (workload, id) => {
  expect(() => tinyGuest({ memory: MEMORY, leaves: LEAVES, workload })).toThrow(
    expect.objectContaining({ id }),
  );
});
