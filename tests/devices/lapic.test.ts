import { describe, expect, it } from 'vitest';
import { APIC, createLapic, LAPIC_BASE } from '../../lib/devices/lapic.js';
import { testClock } from './clock.js';

const setup = (rate = 1_000_000_000, tscOffset = 0) => {
  const clock = testClock(rate);
  const eois: [number, boolean][] = [];
  const nmis: number[] = [];
  const lapic = createLapic({
    clock,
    tscOffset,
    onEoi: (v, level) => eois.push([v, level]),
    onNmi: () => nmis.push(clock.now()),
  });
  const w = (reg: number, v: number) => lapic.write(LAPIC_BASE + reg, 4, v);
  const r = (reg: number) => lapic.read(LAPIC_BASE + reg, 4);
  w(APIC.svr, 0x1ff);
  const x2apic = () => expect(lapic.setApicBase(0xfee0_0d00n)).toBe(true);
  return { clock, lapic, eois, nmis, w, r, x2apic };
};

describe('local APIC', () => {
  it('is in the state after reset that KVM gives the first processor', () => {
    const lapic = createLapic({ clock: testClock() });
    const r = (reg: number) => lapic.read(LAPIC_BASE + reg, 4);
    expect([r(APIC.id), r(APIC.version), r(APIC.svr), r(APIC.dfr)]).toEqual([0, 0x50014, 0xff, 0xffff_ffff]);
    expect([r(APIC.lvt0), r(APIC.lvt1), r(APIC.lvtTimer)]).toEqual([0x700, 0x10000, 0x10000]);
    expect(lapic.apicBase()).toBe(0xfee0_0900);
    expect(lapic.acceptsExtInt()).toBe(true);
    expect(lapic.accept(0x40, false)).toBe(false);
  });

  it('delivers by priority class and ends in order', () => {
    const { lapic, eois, w, r } = setup();
    lapic.accept(0x35, false);
    lapic.accept(0x81, true);
    lapic.accept(0x82, false);
    expect(lapic.hasInterrupt()).toBe(0x82);
    lapic.acknowledge(0x82);
    expect(lapic.hasInterrupt()).toBe(-1);
    expect(r(APIC.ppr)).toBe(0x80);
    expect([r(APIC.irr + 0x40), r(APIC.isr + 0x40), r(APIC.tmr + 0x40)]).toEqual([2, 4, 2]);
    w(APIC.eoi, 0);
    lapic.acknowledge(lapic.hasInterrupt());
    w(APIC.eoi, 0);
    expect(eois).toEqual([
      [0x82, false],
      [0x81, true],
    ]);
    lapic.setCr8(3);
    expect(r(APIC.tpr)).toBe(0x30);
    expect(lapic.hasInterrupt()).toBe(-1);
    lapic.setCr8(2);
    expect(lapic.hasInterrupt()).toBe(0x35);
    w(APIC.eoi, 0);
    expect(eois.length).toBe(2);
  });

  it.each([
    // [ICR low, ICR high, delivered]
    [0x0004_0050, 0, true],
    [0x0008_0050, 0, true],
    [0x000c_0050, 0, false],
    [0x0000_0050, 0, true],
    [0x0000_0050, 0x0100_0000, false],
    [0x0000_0050, 0xff00_0000, true],
    [0x0000_0850, 0x0100_0000, true],
    [0x0000_0850, 0x0200_0000, false],
  ])('sends ICR %x to %x', (low, high, delivered) => {
    const { lapic, w } = setup();
    w(APIC.ldr, 0x0100_0000);
    w(APIC.icrHigh, high);
    w(APIC.icrLow, low);
    expect(lapic.hasInterrupt()).toBe(delivered ? 0x50 : -1);
  });

  it('masks LVTs while disabled by software', () => {
    const { w, r } = setup();
    w(APIC.lvtTimer, 0x31);
    w(APIC.svr, 0xff);
    expect(r(APIC.lvtTimer)).toBe(0x1_0031);
    w(APIC.lvtTimer, 0x32);
    expect(r(APIC.lvtTimer)).toBe(0x1_0032);
  });

  it('takes NMIs from LINT1 and ICR, ExtINT by LVT0', () => {
    const { lapic, nmis, w } = setup();
    lapic.lint1();
    w(APIC.lvt1, 0x400);
    lapic.lint1();
    w(APIC.icrLow, 0x4_0400);
    expect(nmis.length).toBe(2);
    w(APIC.lvt0, 0x1_0700);
    expect(lapic.acceptsExtInt()).toBe(false);
    expect(lapic.setApicBase(0xfee0_0100n)).toBe(true);
    expect(lapic.acceptsExtInt()).toBe(true);
    expect(lapic.read(LAPIC_BASE + APIC.id, 4)).toBe(0xffff_ffff);
  });

  it('moves between modes as the SDM allows', () => {
    const { lapic, x2apic, r } = setup();
    expect(lapic.readMsr(0x802)).toBeUndefined();
    expect(lapic.setApicBase(0xfee0_0500n)).toBe(false);
    expect(lapic.setApicBase(0xfee0_0901n)).toBe(false);
    x2apic();
    expect(lapic.mode()).toBe('x2apic');
    expect(r(APIC.version)).toBe(0xffff_ffff);
    expect(lapic.setApicBase(0xfee0_0900n)).toBe(false);
    expect(lapic.setApicBase(0xfee0_0100n)).toBe(true);
    expect(lapic.setApicBase(0xfee0_0d00n)).toBe(false);
    expect(lapic.setApicBase(0xfee0_0900n)).toBe(true);
    expect(lapic.mode()).toBe('xapic');
  });

  it('offers x2APIC MSRs', () => {
    const { lapic, x2apic } = setup();
    x2apic();
    expect([lapic.readMsr(0x802), lapic.readMsr(0x803), lapic.readMsr(0x80d)]).toEqual([0n, 0x50014n, 1n]);
    for (const msr of [0x80e, 0x831, 0x83f, 0x801, 0x8ff]) expect(lapic.readMsr(msr)).toBeUndefined();
    for (const [msr, value] of [
      [0x802, 0n],
      [0x80d, 0n],
      [0x828, 1n],
      [0x810, 0n],
      [0x808, 1n << 32n],
    ] as const) {
      expect(lapic.writeMsr(msr, value)).toBe(false);
    }
    expect(lapic.writeMsr(0x83f, 0x61n)).toBe(true);
    expect(lapic.hasInterrupt()).toBe(0x61);
    expect(lapic.writeMsr(0x830, 0x72n)).toBe(true);
    expect(lapic.hasInterrupt()).toBe(0x72);
    expect(lapic.readMsr(0x830)).toBe(0x72n);
    lapic.acknowledge(0x72);
    expect(lapic.writeMsr(0x80b, 0n)).toBe(true);
    expect(lapic.highestIsr()).toBe(-1);
  });

  it('fires TSC deadlines at the exact cycle of the guest TSC', () => {
    const { clock, lapic, w } = setup(400_000_000, 1000);
    lapic.setTscDeadline(5000n);
    expect(lapic.tscDeadline()).toBe(0n);
    w(APIC.lvtTimer, 0x4_00ec);
    lapic.setTscDeadline(5000n);
    expect([lapic.tscDeadline(), lapic.timerDeadline()]).toEqual([5000n, 4000]);
    clock.runTo(3999);
    expect(lapic.hasInterrupt()).toBe(-1);
    clock.runTo(4000);
    expect(lapic.hasInterrupt()).toBe(0xec);
    expect([lapic.tscDeadline(), lapic.timerDeadline()]).toEqual([0n, undefined]);
    lapic.setTscDeadline(10n);
    expect(lapic.timerDeadline()).toBe(4000);
    lapic.setTscDeadline(0n);
    expect(clock.next()).toBeUndefined();
    lapic.setTscDeadline(9000n);
    lapic.setTscOffset(2000);
    expect(lapic.timerDeadline()).toBe(7000);
    w(APIC.lvtTimer, 0xec);
    expect(lapic.timerDeadline()).toBeUndefined();
  });

  it('counts once, with the divider, and reads the count', () => {
    const { clock, lapic, w, r } = setup(400_000_000);
    w(APIC.lvtTimer, 0x31);
    w(APIC.timerDivide, 0x3);
    w(APIC.timerInitial, 1000);
    // 16 000 ns at 400 MHz
    expect(lapic.timerDeadline()).toBe(6400);
    clock.runTo(1600);
    expect(r(APIC.timerCurrent)).toBe(750);
    clock.runTo(6399);
    expect(r(APIC.timerCurrent)).toBe(1);
    clock.runTo(6400);
    expect([r(APIC.timerCurrent), lapic.hasInterrupt()]).toEqual([0, 0x31]);
    expect(lapic.timerDeadline()).toBeUndefined();
  });

  it('counts periodically, changes speed on the way, and survives save and load', () => {
    const { clock, lapic, w } = setup();
    w(APIC.lvtTimer, 0x2_0031);
    w(APIC.timerDivide, 0xb);
    w(APIC.timerInitial, 1_000_000);
    clock.runTo(1_000_000);
    expect(lapic.timerDeadline()).toBe(2_000_000);
    clock.runTo(1_500_000);
    w(APIC.timerDivide, 0x0);
    expect(lapic.timerDeadline()).toBe(2_500_000);
    const other = setup();
    other.lapic.load(lapic.save());
    other.clock.runTo(2_500_000);
    expect(other.lapic.hasInterrupt()).toBe(0x31);
    expect(other.lapic.timerDeadline()).toBe(4_500_000);
  });
});
