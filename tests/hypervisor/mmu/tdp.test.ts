/** EPT: violations and what they install (KVM-4, KVM-7.1.17, measured C). */
import { describe, expect, it } from 'vitest';
import { PF } from '../../../lib/isa/state.js';
import { EPTE } from '../../../lib/memory/paging.js';
import { EptGuest } from './ept-guest.js';

const MIB = 0x10_0000;

describe('EPT violations', () => {
  it.each([
    ['4K', true, 1024],
    ['2M', true, 2],
  ] as const)('touching 4 MiB, %s backing', (backing, tdpMmu, violations) => {
    const g = new EptGuest(backing, { tdpMmu });
    for (let at = 4 * MIB; at < 8 * MIB; at += 4096)
      expect(g.access(at + 8, EPTE.w)).toBe(g.slots.hpa(at + 8));
    expect(g.exits).toEqual({ violations, misconfigurations: 0 });
    for (let at = 4 * MIB; at < 8 * MIB; at += 4096) g.access(at, EPTE.x);
    expect(g.exits.violations).toBe(violations);
    expect(g.mmu.pages).toMatchObject(backing === '2M' ? { p4k: 0, p2m: 2 } : { p4k: 1024, p2m: 0 });
  });
  it('a slot that is no whole 2 MiB gets small pages', () => {
    const g = new EptGuest('2M');
    g.access(24 * MIB, EPTE.r);
    g.access(24 * MIB + 4096, EPTE.r);
    expect(g.exits.violations).toBe(2);
    expect(g.mmu.pages).toMatchObject({ p4k: 2, p2m: 0 });
  });
  it('the older direct MMU fills what the host already has, by eights', () => {
    const g = new EptGuest('4K', { tdpMmu: false });
    for (let at = 0; at < MIB; at += 4096) g.slots.hpa(at);
    for (let at = 0; at < MIB; at += 4096) g.access(at, EPTE.w);
    expect(g.exits.violations).toBe(32);
  });
  it('with the NX workaround the first execution splits the large page', () => {
    const g = new EptGuest('2M', { nxHugePages: true });
    g.access(0, EPTE.w);
    g.access(0, EPTE.x);
    g.access(0x5000, EPTE.x);
    // the large page is gone: each small one comes back by itself, and may be executed
    expect(g.exits.violations).toBe(3);
    expect(g.mmu.pages).toMatchObject({ p4k: 2, p2m: 0 });
    expect(g.stats.nx_lpage_splits).toBe(1);
  });
  it('the pointer has memory type, walk length and A/D', () => {
    for (const eptad of [true, false]) {
      const g = new EptGuest('4K', { eptad });
      g.access(0, EPTE.w);
      expect(g.vcpu.root % 4096).toBe(eptad ? 0x5e : 0x1e);
    }
  });
});

describe('MMIO', () => {
  it('one violation, then misconfigurations, until the slots change (measured C3)', () => {
    const g = new EptGuest('2M');
    for (let i = 0; i < 10; i++) expect(g.access(0xfec0_0000 + 4 * i, EPTE.r)).toBe('mmio');
    expect(g.exits).toEqual({ violations: 1, misconfigurations: 9 });
    expect(g.stats.pf_mmio_spte_created).toBe(1);
    g.mmu.zapAll();
    g.access(0xfec0_0000, EPTE.w);
    expect(g.exits.violations).toBe(2);
  });
  it('the local APIC page is a violation each time (measured C2)', () => {
    const g = new EptGuest('2M');
    for (let i = 0; i < 10; i++) g.access(0xfee0_0030, EPTE.r);
    expect(g.exits).toEqual({ violations: 10, misconfigurations: 0 });
    expect(g.mmu.mmioAddress(0xfee0_0030)).toBeUndefined();
  });
});

describe('the emulator', () => {
  it('translates through the guest tables, or not at all without paging', () => {
    const g = new EptGuest('4K');
    g.vcpu.cr3 = 0x1000;
    expect(g.mmu.gvaToGpa(0x4321n, PF.w)).toEqual({ code: PF.w, address: 0x4321n });
    g.vcpu.cr0 = 1;
    expect(g.mmu.gvaToGpa(0x4321n, PF.w)).toBe(0x4321);
  });
});
