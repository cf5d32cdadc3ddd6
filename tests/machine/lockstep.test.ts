/**
 * The strongest check: in `timeModel: 'instructions'` Debian runs in lock step under EPT and under shadow paging. After
 * the same number of instructions all registers, all guest memory and all devices are equal, from the first instruction
 * to power-off. Nothing is masked.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createEngine } from '../../lib/vmx/hardware.js';
import {
  debianWith,
  devicesOf,
  differences,
  machineDifferences,
  machineWith,
  memoryHash,
  registersOf,
  type TestMachine,
} from './compare.js';

const WORKLOAD = `echo "[vmxlab] init"
export PATH=/bin:/usr/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
i=0; while [ $i -lt 12 ]; do /bin/busybox true; i=$((i+1)); done
cpuid -1 -l 0x4ffffffe -s 10
cpuid -1 -l 0
( i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done ) &
dd if=/dev/zero bs=64k count=4 2>/dev/null | gzip -c | md5sum
wait
awk 'BEGIN { x = 1; for (i = 0; i < 500; i++) x = x * 1.01 + sqrt(i); printf "%.6f\\n", x }'
find / -xdev | wc -l
cat /proc/self/maps | wc -l
sleep 1
echo "[vmxlab] done"
poweroff -f
`;
const M = 1_000_000;
/** The boot: early code closely, then every 25 million, off the round numbers. */
const BOOT = [
  1,
  2,
  1000,
  54_321,
  1_234_567,
  7 * M + 7,
  ...Array.from({ length: 15 }, (_, i) => (i + 1) * 25 * M + i * 4099),
];
const LAST = 2000 * M;

let ept: TestMachine;
let shadow: TestMachine;
/** Why the comparison ended early: what follows would only repeat it. */
let broken = false;

const retired = (m: TestMachine): number => m.hardware.port.retired();

/** Runs both machines to `n` instructions; what differs then. */
const at = (n: number, memory = true): string[] => {
  const outcomes = [ept, shadow].map((m) => m.vm.run({ limit: n }).kind);
  if (outcomes[0] !== outcomes[1] || retired(ept) !== retired(shadow))
    return [`outcomes ${outcomes.join(' and ')} after ${retired(ept)} and ${retired(shadow)} instructions`];
  if (outcomes[0] !== 'limit') return [`ended with ${outcomes[0]} after ${retired(ept)} instructions`];
  return memory
    ? [...machineDifferences(ept, shadow), ...differences(devicesOf(ept), devicesOf(shadow))]
    : differences(registersOf(ept), registersOf(shadow));
};
const equal = (found: readonly string[]): void => {
  if (found.length > 0) broken = true;
  expect(found).toEqual([]);
};
const notBroken = (): void => expect(broken, 'the machines differ since an earlier test').toBe(false);

beforeAll(async () => {
  const guest = await debianWith(WORKLOAD);
  ept = machineWith(guest, true, { timeModel: 'instructions' });
  shadow = machineWith(guest, false, { timeModel: 'instructions' });
});
afterAll(() => {
  ept?.vm.destroy();
  shadow?.vm.destroy();
});

test('both machines start equal', () => {
  equal([...machineDifferences(ept, shadow), ...differences(devicesOf(ept), devicesOf(shadow))]);
});

test('the comparison sees one bit of memory and one bit of a register', () => {
  const { vm, hardware } = shadow;
  const gpa = 0x345_6788;
  const hpa = vm.slots.hpa(gpa)!;
  const flip = (): void => hardware.ram.write8(hpa, hardware.ram.read8(hpa) ^ 4);
  flip();
  vm.port.registers.setGpr(9, vm.port.registers.gpr(9) ^ (1n << 63n));
  expect(machineDifferences(ept, shadow)).toEqual([
    'r9: 0x0 and 0x8000000000000000',
    expect.stringMatching(/^gpa 0x3456788 \(gva 0xffff888003456788\): 0x[0-9a-f]+ and 0x[0-9a-f]+$/),
  ]);
  flip();
  vm.port.registers.setGpr(9, 0n);
  equal(machineDifferences(ept, shadow));
});

test.each(BOOT)('after %i instructions registers, memory and devices are equal', (n) => {
  notBroken();
  equal(at(n));
});

test('each of 3000 instructions of the boot leaves equal registers', () => {
  notBroken();
  const from = retired(ept);
  for (let n = from + 1; n <= from + 3000; n++) {
    const found = at(n, false);
    if (found.length > 0) equal([`after ${n} instructions`, ...found]);
  }
});

test('up to user space, in steps of 5 million', () => {
  notBroken();
  while (!ept.console().includes('[vmxlab] init')) {
    expect(retired(ept)).toBeLessThan(500 * M);
    equal(at(retired(ept) + 5 * M + 13));
  }
  expect(shadow.console()).toBe(ept.console());
});

test('each of 3000 instructions of user space leaves equal registers', () => {
  notBroken();
  const from = retired(ept);
  for (let n = from + 1; n <= from + 3000; n++) {
    const found = at(n, false);
    if (found.length > 0) equal([`after ${n} instructions`, ...found]);
  }
});

test('the workload under shadow paging on the reference engine, under EPT on the interpreter', () => {
  notBroken();
  const { processor, cpu, mmu } = shadow.hardware;
  const { engine } = processor;
  processor.engine = createEngine('reference', cpu, mmu);
  equal(at(retired(ept) + 300_000));
  processor.engine = engine;
});

test('the workload in steps of 4 million, to power-off at the same instruction', () => {
  notBroken();
  let kinds: string[] = [];
  for (let n = retired(ept) + 4 * M + 1; n < LAST; n += 4 * M + 1) {
    kinds = [ept, shadow].map((m) => m.vm.run({ limit: n }).kind);
    if (kinds.some((k) => k !== 'limit')) break;
    equal([...machineDifferences(ept, shadow), ...differences(devicesOf(ept), devicesOf(shadow))]);
  }
  expect(kinds).toEqual(['poweroff', 'poweroff']);
  expect(retired(shadow)).toBe(retired(ept));
  expect(memoryHash(shadow)).toBe(memoryHash(ept));
  expect(shadow.console()).toBe(ept.console());
});

test('the console: the workload did its work, and the leaves read 0', () => {
  const text = ept.console();
  expect(text).toMatch(/\[vmxlab\] init[\s\S]*\[vmxlab\] done[\s\S]*reboot: Power down/);
  expect(text).toContain('0x4ffffffe 0x0a: eax=0x00000000 ebx=0x00000000 ecx=0x00000000 edx=0x00000000');
  expect(text).not.toMatch(/BUG|Oops|WARNING|Call Trace|segfault|not found/);
});

test('the exits were not equal: the machines really paged in different ways', () => {
  const [a, b] = [ept, shadow].map((m) => m.hypervisor.counts.snapshot());
  expect([a![14], a![58], b![48], b![49]]).toEqual([undefined, undefined, undefined, undefined]);
  expect(a![48]).toBeGreaterThan(10);
  expect(b![0]).toBeGreaterThan(1000);
  expect(b![28]).toBeGreaterThan(100);
});
