import { expect, test } from 'vitest';
import { microLines, RUN_IDS } from '../../lib/fidelity/fidelity.js';
import type { CpuidRow } from '../../lib/hypervisor/cpuid.js';
import { presentable, recordedCpuid, reference } from '../../lib/lab/reference.js';
import { machine } from '../hypervisor/machine.js';

const state = { cr4: 0, xcr0: 1, apicEnabled: true };
const full = (leaf: number, subleaf: number): CpuidRow => {
  const all = 0xffff_ffff;
  return { leaf, subleaf, eax: all, ebx: all, ecx: all, edx: all };
};
const none = (leaf: number, subleaf: number): CpuidRow => ({ leaf, subleaf, eax: 0, ebx: 0, ecx: 0, edx: 0 });
const text = (rows: readonly CpuidRow[], leaf: number, subleaf = 0): string[] => {
  const r = rows.find((x) => x.leaf === leaf && x.subleaf === subleaf);
  return r === undefined ? [] : [r.eax, r.ebx, r.ecx, r.edx].map((v) => (v >>> 0).toString(16));
};

test('a processor with everything gets the recorded table less VMX and the state of AVX', () => {
  const rows = presentable(recordedCpuid(), full);
  expect(text(rows, 1)).toEqual(['306d4', '10800', 'f7fa3203', 'f8bfbff']);
  expect(text(rows, 0xd)).toEqual(['3', '240', '240', '0']);
  expect(text(rows, 0xd, 2)).toEqual([]);
  expect(text(rows, 0x40000001)).toEqual(['1007efb', '0', '0', '0']);
});

test('one with nothing keeps what KVM emulates', () => {
  const rows = presentable(recordedCpuid(), none);
  // x2APIC, TSC deadline, hypervisor
  expect(text(rows, 1)).toEqual(['306d4', '10800', '81200000', '0']);
  // TSC_ADJUST, FCS/FDS; UMIP; ARCH_CAPABILITIES
  expect(text(rows, 7)).toEqual(['0', '2002', '4', '20000000']);
});

test('the guest sees the table, with the dynamic bits, and the highest leaf beyond it', () => {
  const { cpuid } = machine({}, { cpuidTable: presentable(recordedCpuid(), full) }).vm;
  expect(cpuid.query(0, 0, state)).toMatchObject({ eax: 0x14, ebx: 0x756e6547 });
  expect(cpuid.query(1, 0, { ...state, cr4: 1 << 18 }).ecx >>> 27).toBe(0x1f);
  expect(cpuid.query(1, 0, state).ecx & (1 << 27)).toBe(0);
  expect(cpuid.query(1, 0, { ...state, apicEnabled: false }).edx & (1 << 9)).toBe(0);
  expect(cpuid.query(0x20, 0, state)).toEqual(cpuid.query(0x14, 0, state));
  expect(cpuid.supportedXcr0).toBe(3);
  expect(cpuid.maxPhyAddr).toBe(40);
  expect([cpuid.has('pcid'), cpuid.has('pdpe1gb'), cpuid.has('umip')]).toEqual([true, true, true]);
});

test('the recording has the runs, counters that add up, and micro tests for two of them', () => {
  const { runs } = reference();
  expect(runs.map((r) => r.id)).toEqual(RUN_IDS);
  for (const run of runs)
    for (const m of run.markers) expect(Object.values(m.exits).reduce((a, b) => a + b, 0)).toBe(m.total);
  // every fault that reached the MMU has one result (measured A)
  const b = runs[1]?.markers[0]?.kvmStats ?? {};
  const parts = ['pf_fixed', 'pf_emulate', 'pf_guest', 'pf_spurious'].map((s) => b[s] ?? 0);
  expect(parts.reduce((x, y) => x + y, 0)).toBe(b['pf_taken']);
});

test('brackets are compared without what the timer does', () => {
  const run = reference().runs.find((r) => r.id === 'b');
  if (run === undefined) throw new Error('run b is missing');
  const [line] = microLines(run, {
    at: {},
    micro: [{ test: 4, round: 0, exits: { 0: 2, 1: 3, 28: 2, 30: 60 }, kvmStats: {} }],
  } as never);
  expect(line).toMatchObject({ ours: '0: 2; 28: 2', theirs: '0: 2; 28: 2', same: true });
});
