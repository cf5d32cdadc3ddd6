/**
 * Nothing that the guest can see depends on the engine, or on how a run is cut into slices: registers, memory, counters,
 * page walks and virtual time are equal on the reference engine, and after thousands of slices of odd sizes.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { seededRandom } from '../../lib/base/random.js';
import type { GuestImage } from '../../lib/guests/guest.js';
import {
  debianWith,
  devicesOf,
  differences,
  hostHash,
  MODES,
  machineDifferences,
  machineWith,
  type TestMachine,
} from './compare.js';

const M = 1_000_000;
let guest: GuestImage;
beforeAll(async () => {
  guest = await debianWith('poweroff -f');
});

/** What is counted besides what the guest sees. */
const counted = ({ hardware: { port }, hypervisor, vm }: TestMachine) => {
  const { walks1d, references1d, walks2d, references2d } = port.walks;
  return {
    retired: port.retired(),
    tsc: port.rdtsc(),
    walks: { walks1d, references1d, walks2d, references2d },
    exits: hypervisor.counts.lines(),
    stats: { ...vm.stats },
  };
};
const expectEqual = (a: TestMachine, b: TestMachine): void => {
  expect(counted(b)).toEqual(counted(a));
  expect(differences(devicesOf(a), devicesOf(b))).toEqual([]);
  expect(machineDifferences(a, b)).toEqual([]);
  expect(b.console()).toBe(a.console());
};

describe.each(MODES)('%s', (_name, ept) => {
  test('the engines agree on the first 1.5 million instructions', () => {
    const interpreter = machineWith(guest, ept);
    const reference = machineWith(guest, ept, {}, 'reference');
    for (const n of [1, 2, 77, 5000, 100_001, 700_000, 1_500_000]) {
      const outcomes = [interpreter, reference].map((m) => m.vm.run({ limit: n }));
      expect(outcomes).toEqual([{ kind: 'limit' }, { kind: 'limit' }]);
      expectEqual(interpreter, reference);
    }
    // host memory too: the hypervisor did the same
    expect(hostHash(reference)).toBe(hostHash(interpreter));
  });

  test('30 million instructions in slices of odd sizes are those of one run', () => {
    const whole = machineWith(guest, ept);
    const cut = machineWith(guest, ept);
    expect(whole.vm.run({ limit: 30 * M })).toEqual({ kind: 'limit' });
    const random = seededRandom(ept ? 1 : 2);
    let n = 0;
    let slices = 0;
    while (n < 30 * M) {
      // from one instruction to two hundred thousand, every size class equally often
      n = Math.min(30 * M, n + 1 + random.below(2 ** (1 + random.below(18))));
      expect(cut.vm.run({ limit: n })).toEqual({ kind: 'limit' });
      expect(cut.hardware.port.retired()).toBe(n);
      slices++;
    }
    expect(slices).toBeGreaterThan(1000);
    expectEqual(whole, cut);
    expect(hostHash(cut)).toBe(hostHash(whole));
  });

  test('a limit that has passed does nothing', () => {
    const m = machineWith(guest, ept);
    m.vm.run({ limit: 1000 });
    const before = counted(m);
    expect([
      m.vm.run({ limit: 1000 }).kind,
      m.vm.run({ limit: 10 }).kind,
      m.vm.run({ limit: 0 }).kind,
    ]).toEqual(['limit', 'limit', 'limit']);
    expect(counted(m)).toEqual(before);
  });
});
