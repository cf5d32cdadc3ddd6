import { expect, test } from 'vitest';
import { machine, type TestMachine } from './machine.js';

const state = { cr4: 0, xcr0: 1, apicEnabled: true };
const q = (m: TestMachine, leaf: number, sub = 0): string[] => {
  const r = m.vm.cpuid.query(leaf, sub, state);
  return [r.eax, r.ebx, r.ecx, r.edx].map((v) => v.toString(16));
};

test.each([
  // what KVM leaves of a processor with every bit of leaf 1 set
  [1, 0, ['306d4', '10800', 'f7fa3203', 'f8bfbff']],
  [7, 0, ['0', '1c25ab', '4', '20000000']],
  [6, 0, ['4', '0', '0', '0']],
  [0x40000000, 0, ['40000001', '4b4d564b', '564b4d56', '4d']],
  [0x40000001, 0, ['100004b', '0', '0', '0']],
  [0x80000008, 0, ['3027', '0', '0', '0']],
])('leaf 0x%s', (leaf, sub, expected) => {
  expect(q(machine(), leaf, sub)).toEqual(expected);
});

test.each([0x40000002, 0x4fffff00, 0x0e, 0x80000009, 0x4ffffffd])(
  'unknown leaf 0x%s is the highest basic leaf',
  (leaf) => {
    const m = machine();
    expect(q(m, leaf)).toEqual(q(m, 0xd));
  },
);

test('dynamic bits follow CR4.OSXSAVE and the local APIC', () => {
  const { cpuid } = machine().vm;
  expect(cpuid.query(1, 0, { ...state, cr4: 0x40000 }).ecx & (1 << 27)).not.toBe(0);
  expect(cpuid.query(1, 0, { ...state, apicEnabled: false }).edx & (1 << 9)).toBe(0);
  expect(cpuid.query(0xd, 0, { ...state, xcr0: 7 }).ebx).toBe(0x340);
});

test('both modes show the same, but 1 GiB pages with ept=0 (KVM-7.1.3)', () => {
  const edx = (ept: boolean, timeModel: 'cycles' | 'instructions'): number =>
    machine({ ept }, { timeModel }).vm.cpuid.query(0x80000001, 0, state).edx & (1 << 26);
  expect([edx(true, 'cycles'), edx(false, 'cycles')]).toEqual([0, 1 << 26]);
  expect(edx(false, 'instructions')).toBe(edx(true, 'instructions'));
  const all = (ept: boolean): string[][] =>
    [0, 1, 2, 4, 6, 7, 0xd, 0x40000001, 0x80000007, 0x80000008].map((l) => q(machine({ ept }), l));
  expect(all(true)).toEqual(all(false));
});

test('paravirtual features are options, and none depends on the mode of time', () => {
  const eax = (options: Parameters<typeof machine>[1]): number =>
    machine({}, options ?? {}).vm.cpuid.query(0x40000001, 0, state).eax;
  expect(eax({ pvEoi: false }) & 0x40).toBe(0);
  expect(eax({ stealTime: true }) & 0x20).toBe(0x20);
  expect(eax({ stealTime: true, asyncPf: true, timeModel: 'instructions' }) & 0x4070).toBe(0);
});

test('features can be hidden by name, and the control goes with INVPCID', () => {
  const m = machine({}, { hideCpuid: ['pcid', 'invpcid'] });
  expect([m.vm.cpuid.has('pcid'), m.vm.cpuid.has('invpcid'), m.vm.cpuid.has('smep')]).toEqual([
    false,
    false,
    true,
  ]);
  expect(m.vm.controls.secondary & (1 << 12)).toBe(0);
  expect(() => machine({}, { hideCpuid: ['pcidd'] })).toThrow(/'pcidd'/);
});
