/** EPT: violations and what they install (KVM-4, KVM-7.1.17, measured C). */
import { describe, expect, it } from 'vitest';
import { type Backing, FrameAllocator, MemorySlots } from '../../../lib/hypervisor/memslots.js';
import type { MmuOptions } from '../../../lib/hypervisor/mmu/mmu.js';
import { createTdpMmu } from '../../../lib/hypervisor/mmu/tdp.js';
import { newStats } from '../../../lib/hypervisor/stats.js';
import { PF } from '../../../lib/isa/state.js';
import { EptWalk } from '../../../lib/memory/ept.js';
import { EPTE, PendingBits, WALK } from '../../../lib/memory/paging.js';
import { Ram } from '../../../lib/memory/ram.js';
import { defaults, FakeVcpu } from './fixture.js';

const MIB = 0x10_0000;

class EptGuest {
  readonly ram = new Ram(64 * MIB);
  readonly frames = new FrameAllocator(this.ram);
  readonly slots: MemorySlots;
  readonly vcpu = new FakeVcpu();
  readonly stats = newStats();
  readonly mmu: ReturnType<typeof createTdpMmu>;
  readonly walk = new EptWalk(this.ram);
  exits = { violations: 0, misconfigurations: 0 };

  constructor(backing: Backing, options: Partial<MmuOptions> = {}) {
    this.slots = new MemorySlots(
      this.ram,
      this.frames,
      [
        { gpa: 0, bytes: 16 * MIB },
        { gpa: 24 * MIB, bytes: MIB },
      ],
      backing,
    );
    this.mmu = createTdpMmu({
      memory: this.ram,
      frames: this.frames,
      slots: this.slots,
      vcpu: this.vcpu,
      stats: this.stats,
      options: { ...defaults, ...options },
    });
  }
  /** Host-physical address, or 'mmio'. */
  access(gpa: number, need: number): number | 'mmio' {
    for (let tries = 0; tries < 5; tries++) {
      this.mmu.reload();
      const root = this.vcpu.root;
      const end = this.walk.walk(
        root - (root % 4096),
        (root & 0x40) !== 0,
        gpa,
        need,
        new PendingBits(),
        false,
      );
      if (end === WALK.done) return this.walk.hpa;
      if (end === WALK.misconfiguration) {
        this.exits.misconfigurations++;
        const at = this.mmu.mmioAddress(gpa);
        expect(at).toBe(gpa);
        return 'mmio';
      }
      this.exits.violations++;
      const code =
        (need & EPTE.w ? PF.w : 0) | (need & EPTE.x ? PF.i : 0) | (this.walk.rights !== 0 ? PF.p : 0);
      if (this.mmu.pageFault(gpa, code) === 'emulate') return 'mmio';
    }
    throw new Error('no progress');
  }
}

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
