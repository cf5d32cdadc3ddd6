import { expect, test } from 'vitest';
import { bootUnder } from '../../lib/lab/both.js';
import type { BootOptions, Machine } from '../../lib/lab/machine.js';

const MEMORY = 64 << 20;
const tiny = (options: BootOptions = {}, params: Parameters<typeof bootUnder>[2] = {}) =>
  bootUnder('ept', { guest: 'tiny', tiny: { cr3Loads: 5 }, memory: MEMORY, ...options }, params);

/** The machine that `boot` makes of these options. */
const machineOf = async (options: BootOptions): Promise<Machine> => {
  let made: Machine | undefined;
  const result = await tiny({
    ...options,
    maxInstructions: 1,
    onMachine: (machine) => {
      made = machine;
    },
  });
  expect(result.outcome).toBe('limit');
  return made as Machine;
};
const KVM_FEATURES = 0x40000001;
const featuresOf = ({ vm }: Machine): number =>
  vm.cpuid.query(KVM_FEATURES, 0, { cr4: 0, xcr0: 1, apicEnabled: true }).eax;

/** What KVM offers its guest: bits 0 and 3 kvmclock, 1 no I/O delay, 4 and 14 async page faults, 5 steal time, 6 PV EOI, 24 stable clock. */
test.each<[BootOptions, number]>([
  [{}, 0x0100_004b],
  [{ features: { pvEoi: false } }, 0x0100_000b],
  [{ features: { kvmclock: false } }, 0x0000_0042],
  [{ features: { asyncPf: true, stealTime: true } }, 0x0100_407b],
  [{ timeModel: 'instructions' }, 0x0100_000b],
  [{ cpu: 'reference' }, 0x0100_7efb],
  [{ cpu: 'reference', features: { asyncPf: false } }, 0x0100_3eeb],
  [{ hideCpuid: ['kvmclock'] }, 0x0100_0043],
])('KVM features of %j', async (options, expected) => {
  expect(featuresOf(await machineOf(options)).toString(16)).toBe(expected.toString(16));
});

test.each<[BootOptions, Record<string, boolean>]>([
  [{}, { pcid: true, invpcid: true, x2apic: true, sse4_2: false, aes: false }],
  [{ hideCpuid: ['pcid', 'invpcid'] }, { pcid: false, invpcid: false, smep: true }],
  [{ features: { x2apic: false } }, { x2apic: false }],
  [{ cpu: 'v2' }, { sse4_2: true, popcnt: true, aes: false }],
  [{ cpu: 'full' }, { sse4_2: true, aes: true, bmi2: true, rdrand: true, xsavec: true }],
  [
    { cpu: 'full', hideCpuid: ['aes', 'xsavec'] },
    { aes: false, xsavec: false, xsaves: true },
  ],
])('CPUID of %j', async (options, expected) => {
  const { vm } = await machineOf(options);
  const shown = Object.fromEntries(
    Object.keys(expected).map((name) => [name, vm.cpuid.has(name as Parameters<typeof vm.cpuid.has>[0])]),
  );
  expect(shown).toEqual(expected);
});

test('clock rate, host tick, seed, isolation and costs reach the machine', async () => {
  const { vm, hardware } = await machineOf({
    tscHz: 1_000_000_000,
    hostTickHz: 100,
    seed: 7,
    meltdown: true,
    costs: { base: 1000, CR_ACCESS: 5, 30: 6, EPT_VIOLATION: 7, emulated: 8 },
  });
  expect(vm.clock.rate).toBe(1e9);
  expect(vm.tickCycles).toBe(1e7);
  expect(hardware.cpu.seed).toBe(7);
  expect(vm.options.meltdown).toBe(true);
  const { byReason } = vm.costs;
  expect([byReason[28], byReason[30], byReason[48], byReason[0]]).toEqual([1005, 1006, 1007, 1000]);
  expect(vm.costs.emulated).toBe(8);
});

test('a guest that was not told of x2APIC gets #GP when it turns it on', async () => {
  const { console } = await tiny({ features: { x2apic: false } });
  expect(console).toMatch(/^\[tiny\] exception 0x0000000d code 0x00000000 /);
});

test('no host tick: no external interrupt', async () => {
  const [none, some] = [await tiny({ hostTickHz: 0 }), await tiny({ hostTickHz: 10_000 })];
  expect(none.exits[1] ?? 0).toBe(0);
  expect(some.exits[1]).toBeGreaterThan(0);
  expect(none.console.length).toBe(some.console.length);
});

test('parameters reach the modules, and what they say is in the log', async () => {
  const { log, controls } = await tiny({}, { 'kvm-intel': { eptad: true, vpid: false } });
  expect(controls['secondaryControls']! & 0x20n).toBe(0n);
  expect(log.filter((l) => l.startsWith('kvm_intel'))).toEqual([]);
  const shadow = await bootUnder(
    'shadow',
    { guest: 'tiny', tiny: {}, memory: MEMORY },
    { 'kvm-intel': { eptad: true } },
  );
  expect(shadow.log).toContain('kvm_intel: eptad=Y has no effect with ept=N, set to N');
});

/** A Linux kernel is told what the processor reports, unless the command line is the user's. */
test.each<[BootOptions, boolean, RegExp]>([
  [{ pti: true, append: 'quiet' }, true, / pti=on quiet$/],
  [{ pti: false }, false, / pti=off$/],
  [{ pti: true, cmdline: 'panic=-1' }, true, /^panic=-1$/],
  [{ meltdown: true, append: 'x' }, true, /mitigations=off .* x$/],
])('isolation: %j', async (options, meltdown, cmdline) => {
  let reported: boolean | undefined;
  const result = await bootUnder('ept', {
    ...options,
    maxInstructions: 1,
    onMachine: ({ vm }) => {
      reported = vm.options.meltdown;
    },
  });
  expect(reported).toBe(meltdown);
  expect(result.cmdline).toMatch(cmdline);
});

test.each<[Record<string, unknown>, string]>([
  [{ pti: true, meltdown: false }, "meltdown 'false' is not possible (pti: true says the opposite)"],
  [{ guest: 'tiny', acpi: 'no' }, "acpi 'no' is not possible (true or false)"],
  [{ tscHz: 1 }, "tscHz '1' is not possible"],
  [{ hostTickHz: 0.5 }, "hostTickHz '0.5' is not possible"],
  [{ features: { pv: true } }, "there is no feature 'pv' (x2apic, kvmclock, pvEoi, asyncPf, stealTime)"],
  [{ features: { pvEoi: 1 } }, "feature pvEoi '1' is not possible"],
  [{ hideCpuid: ['x'] }, "'x' is no CPUID feature that can be hidden"],
  [{ guest: 'tiny', costs: { nothing: 1 } }, "unknown cost 'nothing'"],
  [{ guest: 'tiny', costs: { 28: -1 } }, "cost '28' must be a whole number of cycles"],
  [{ tiny: { forks: 1 } }, "the option 'tiny' belongs to the guest 'tiny'"],
  [{ guest: 'tiny', pti: true }, "the guest 'tiny' has no pti"],
])('%j is refused', async (options, message) => {
  await expect(bootUnder('ept', options as BootOptions)).rejects.toThrow(message);
});
