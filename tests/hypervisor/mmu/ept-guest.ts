/**
 * A guest without a processor under EPT: accesses by guest-physical address that walk the extended tables as hardware
 * does, without a TLB. A violation goes to the MMU as an exit would. 16 MiB of memory, a hole, and 1 MiB at 24 MiB.
 */
import { expect } from 'vitest';
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

export class EptGuest {
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
