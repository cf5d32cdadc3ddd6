/** Exits at instruction boundaries: timers, windows, interrupts, and their priorities. */
import { describe, expect, test } from 'vitest';
import type { FieldName } from '../../lib/vmx/fields.js';
import { PIN, PROC } from '../../lib/vmx/port.js';
import { type Machine, machine, VALID } from './machine.js';

const proc = (mask: number): bigint => (VALID.procBasedControls ?? 0n) | BigInt(mask);
const without = (name: FieldName, mask: number): bigint => (VALID[name] ?? 0n) & ~BigInt(mask);
type Fields = Partial<Record<FieldName, bigint>>;

describe('boundaries', () => {
  const timer = (value: bigint): Fields => ({ vmxPreemptionTimerValue: value });
  const windows = (mask: number): Fields => ({ procBasedControls: proc(mask) });
  const ROWS: readonly {
    says: string;
    controls: Fields;
    setup?: (m: Machine) => void;
    exit?: number;
    fields?: Fields;
  }[] = [
    { says: 'nothing is due', controls: {} },
    { says: 'preemption timer of 0', controls: timer(0n), exit: 52 },
    { says: 'preemption timer of 1', controls: timer(1n) },
    { says: 'monitor trap flag, first instruction still to come', controls: windows(PROC.monitorTrapFlag) },
    {
      says: 'monitor trap flag after injection',
      controls: { ...windows(PROC.monitorTrapFlag), ...timer(0n), entryInterruptionInfo: 0x8000_0020n },
      exit: 37,
    },
    { says: 'pending MTF injected', controls: { entryInterruptionInfo: 0x8000_0700n }, exit: 37 },
    { says: 'interrupt window', controls: windows(PROC.interruptWindowExiting), exit: 7 },
    {
      says: 'interrupt window closed by IF',
      controls: { ...windows(PROC.interruptWindowExiting), guestRflags: 2n },
    },
    {
      says: 'interrupt window closed by STI',
      controls: { ...windows(PROC.interruptWindowExiting), guestInterruptibilityState: 1n },
    },
    { says: 'NMI window', controls: windows(PROC.nmiWindowExiting), exit: 8 },
    {
      says: 'NMI window closed by NMI blocking',
      controls: { ...windows(PROC.nmiWindowExiting), guestInterruptibilityState: 8n },
    },
    {
      says: 'preemption timer before the windows',
      controls: { ...windows(PROC.nmiWindowExiting | PROC.interruptWindowExiting), ...timer(0n) },
      exit: 52,
    },
    {
      says: 'interrupt window before an external interrupt',
      controls: windows(PROC.interruptWindowExiting),
      setup: (m) => m.vmx.hostTimer(0, 0xec),
      exit: 7,
    },
    {
      says: 'external interrupt, whatever IF',
      controls: { guestRflags: 2n },
      setup: (m) => m.vmx.hostTimer(0, 0xec),
      exit: 1,
      fields: { exitInterruptionInfo: 0x8000_00ecn },
    },
    { says: 'external interrupt of the future', controls: {}, setup: (m) => m.vmx.hostTimer(1e9, 0xec) },
    {
      says: 'pending single step in the bitmap',
      controls: { exceptionBitmap: 2n, guestPendingDebugExceptions: 0x4000n },
      exit: 0,
      fields: { exitQualification: 0x4000n, guestPendingDebugExceptions: 0n },
    },
  ];
  test.each(ROWS.map((r) => [r.says, r] as const))('%s', (_, row) => {
    const m = machine();
    row.setup?.(m);
    m.set(row.controls);
    const outcome = m.run(() => m.guest.boundary() || 'limit');
    expect(outcome).toEqual(row.exit === undefined ? { limit: true } : { exit: row.exit });
    for (const [name, v] of Object.entries(row.fields ?? {}))
      expect([name, m.read(name as FieldName)]).toEqual([name, v]);
  });

  test('deadlines are TSC values', () => {
    const m = machine();
    m.cpu.extraCycles = 1000;
    m.set(timer(3n));
    m.vmx.hostTimer(5000, 0x20);
    m.run(() => {
      expect(m.guest.deadline()).toBe((Math.floor(1000 / 32) + 3) * 32);
      expect(m.guest.watching()).toBe(false);
      m.cpu.extraCycles = m.guest.deadline();
      return m.guest.boundary();
    });
    expect(m.vmx.exitTsc).toBe(1088);
    m.set({
      ...timer(0xffff_ffffn),
      ...windows(PROC.interruptWindowExiting),
      guestInterruptibilityState: 1n,
    });
    m.run(() => {
      expect(m.guest.watching()).toBe(true);
      expect(m.guest.deadline()).toBe(1089); // the shadow of STI ends after one instruction
      return 'limit';
    });
  });

  test('without external-interrupt exiting the interrupt goes to the guest', () => {
    const m = machine();
    m.set({ pinBasedControls: without('pinBasedControls', PIN.externalInterruptExiting) });
    m.vmx.hostTimer(0, 0x40);
    m.run(() => {
      expect(m.guest.boundary()).toBe(false);
      expect(m.cpu.rip).toBe(0xd000n);
      return 'limit';
    });
  });
});
