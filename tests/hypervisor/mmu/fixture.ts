/**
 * A guest without a processor: page tables built in guest memory, and accesses that walk the shadow (or extended)
 * tables as hardware does, without a TLB. A fault goes to the MMU as an exit would; stores that must be emulated are.
 */

import { type Backing, FrameAllocator, MemorySlots } from '../../../lib/hypervisor/memslots.js';
import type { GuestPageFault, MmuOptions, MmuVcpu } from '../../../lib/hypervisor/mmu/mmu.js';
import { createShadowMmu, type ShadowMmu } from '../../../lib/hypervisor/mmu/shadow.js';
import { newStats } from '../../../lib/hypervisor/stats.js';
import { CR0, CR4, EFER, PF } from '../../../lib/isa/state.js';
import { Ram } from '../../../lib/memory/ram.js';

export const P = 1n;
export const W = 2n;
export const U = 4n;
export const A = 0x20n;
export const D = 0x40n;
export const PS = 0x80n;
export const NX = 1n << 63n;
/** What Linux gives tables, and kernel data pages. */
export const TABLE = P | W | U | A | D;
export const DATA = P | W | A | D;

/** The guest maps all its memory here, as Linux does. */
export const DIRECT = 0xffff_8880_0000_0000n;
export const CODE = 0xffff_ffff_8100_0000n;

export const defaults: MmuOptions = { eptad: true, tdpMmu: true, nxHugePages: false };

export class FakeVcpu implements MmuVcpu {
  cr0 = CR0.pg | CR0.pe | CR0.wp;
  cr3 = 0;
  cr4 = CR4.pae | CR4.pge | CR4.pcide;
  efer = EFER.lme | EFER.lma | EFER.nxe;
  cpl = 0;
  rflags = 2;
  rip = CODE;
  readonly pdptes = [0n, 0n, 0n, 0n];
  pdpte(i: number): bigint {
    return this.pdptes[i]!;
  }
  root = -1;
  flushRequests = 0;
  readonly faults: GuestPageFault[] = [];
  injectPageFault(fault: GuestPageFault): void {
    this.faults.push(fault);
  }
  setRoot(root: number): void {
    this.root = root;
  }
  requestTlbFlush(): void {
    this.flushRequests++;
  }
  flushAddress(): void {}
  flushVpid(): void {}
}

export interface AccessOptions {
  readonly user?: boolean;
  /** The instruction is one that KVM's decoder marks as writing page tables; default true. */
  readonly tableWriting?: boolean;
}
export type Outcome = 'done' | 'fault' | 'mmio' | 'triple';

export class Guest {
  readonly ram: Ram;
  readonly frames: FrameAllocator;
  readonly slots: MemorySlots;
  readonly vcpu = new FakeVcpu();
  readonly stats = newStats();
  readonly mmu: ShadowMmu;
  /** #PF exits by what became of them, and those with RSVD. */
  readonly exits = {
    total: 0,
    fixed: 0,
    emulate: 0,
    guest: 0,
    spurious: 0,
    retry: 0,
    rsvd: 0,
    cr3: 0,
    invlpg: 0,
  };
  #nextTable: number;

  /** @param pages guest memory */
  constructor(pages: number, backing: Backing = '4K', options: Partial<MmuOptions> = {}, hostMiB = 64) {
    this.ram = new Ram(hostMiB << 20);
    this.frames = new FrameAllocator(this.ram);
    this.slots = new MemorySlots(this.ram, this.frames, [{ gpa: 0, bytes: pages * 4096 }], backing);
    this.mmu = createShadowMmu({
      memory: this.ram,
      frames: this.frames,
      slots: this.slots,
      vcpu: this.vcpu,
      stats: this.stats,
      options: { ...defaults, ...options },
    });
    // tables come from the top half, downwards
    this.#nextTable = pages;
  }

  // ---- building, behind the MMU's back, before anything runs
  newTable(): number {
    return --this.#nextTable * 4096;
  }
  read(gpa: number): bigint {
    return this.ram.read64(this.slots.hpa(gpa) as number);
  }
  write(gpa: number, value: bigint): void {
    this.ram.write64(this.slots.hpa(gpa) as number, value);
  }
  /** Address of the entry for `gva` at a level, making tables on the way. */
  entry(root: number, gva: bigint, level = 1, flags = TABLE): number {
    let table = root;
    for (let l = 4; ; l--) {
      const at = table + Number((gva >> BigInt(12 + 9 * (l - 1))) & 511n) * 8;
      if (l === level) return at;
      let e = this.read(at);
      if ((e & P) === 0n) {
        e = BigInt(this.newTable()) | flags;
        this.write(at, e);
      }
      table = Number(e & 0xf_ffff_ffff_f000n);
    }
  }
  map(root: number, gva: bigint, gpa: number, flags: bigint, level = 1): void {
    this.write(this.entry(root, gva, level), BigInt(gpa) | flags);
  }
  /** A root with `pages` frames mapped at DIRECT in pages of 4 KiB, and a code page. */
  space(pages: number, large = false): number {
    const root = this.newTable();
    this.mapKernel(root, pages, large);
    return root;
  }
  mapKernel(root: number, pages: number, large = false): void {
    if (large)
      for (let p = 0; p < pages; p += 512)
        this.map(root, DIRECT + BigInt(p) * 4096n, p * 4096, DATA | PS | NX, 2);
    else for (let p = 0; p < pages; p++) this.map(root, DIRECT + BigInt(p) * 4096n, p * 4096, DATA | NX);
    this.map(root, CODE, 0, P | A);
  }

  // ---- running
  loadCr3(value: number, flush = true): void {
    this.exits.cr3++;
    this.vcpu.cr3 = value;
    this.mmu.newCr3(flush);
    this.enter();
  }
  invlpg(gva: bigint): void {
    this.exits.invlpg++;
    this.mmu.invlpg(gva);
  }
  enter(): boolean {
    const ok = this.mmu.reload();
    if (this.vcpu.flushRequests > 0) this.stats.tlb_flush++;
    this.vcpu.flushRequests = 0;
    return ok;
  }
  /** The hardware's walk of the tables at the loaded root: host-physical address, or an error code as -1 - code. @param marks sets accessed and dirty bits */
  walk(gva: bigint, wants: number, marks = true): number {
    let table = this.vcpu.root - (this.vcpu.root % 4096);
    const updates: number[] = [];
    let rights = 7n;
    let nx = false;
    for (let level = 4; ; level--) {
      const at = table + Number((gva >> BigInt(12 + 9 * (level - 1))) & 511n) * 8;
      const e = this.ram.read64(at);
      if ((e & P) === 0n) return -1 - (wants & ~PF.p);
      if ((e >> 40n) & 0xfffn) return -1 - (wants | PF.p | PF.rsvd);
      rights &= e;
      nx ||= (e & NX) !== 0n;
      updates.push(at);
      if (level > 1 && (e & PS) === 0n) {
        table = Number(e & 0xff_ffff_f000n);
        continue;
      }
      const denied =
        ((wants & PF.w) !== 0 && (rights & W) === 0n) ||
        ((wants & PF.u) !== 0 && (rights & U) === 0n) ||
        ((wants & PF.i) !== 0 && nx);
      if (denied) return -1 - (wants | PF.p);
      if (marks) for (const u of updates) this.ram.write64(u, this.ram.read64(u) | A);
      if (marks && (wants & PF.w) !== 0) this.ram.write64(at, this.ram.read64(at) | D);
      const size = 1n << BigInt(12 + 9 * (level - 1));
      return Number(e & 0xff_ffff_f000n & ~(size - 1n)) + Number(gva & (size - 1n));
    }
  }
  /** One attempt cycle until the access works or ends otherwise. Returns the host address through `hpa`. */
  hpa = -1;
  access(gva: bigint, wants: number, options: AccessOptions = {}, emulate: () => void = () => {}): Outcome {
    const code = wants | (options.user === true ? PF.u : 0);
    this.vcpu.cpl = options.user === true ? 3 : 0;
    for (let tries = 0; ; tries++) {
      if (tries > 20) throw new Error(`access to 0x${gva.toString(16)} makes no progress`);
      if (!this.enter()) return 'triple';
      const found = this.walk(gva, code);
      if (found >= 0) {
        this.hpa = found;
        return 'done';
      }
      const error = -1 - found;
      this.exits.total++;
      if ((error & PF.rsvd) !== 0) {
        this.exits.rsvd++;
        if (this.mmu.mmioAddress(gva) !== undefined) return 'mmio';
      }
      this.stats.pf_taken++;
      const result = this.mmu.pageFault(gva, error);
      this.exits[result]++;
      if (result === 'guest') return 'fault';
      if (result !== 'emulate') continue;
      if (this.mmu.mmioAddress(gva) !== undefined || !this.#inSlot(gva, code)) return 'mmio';
      if (
        options.tableWriting === false &&
        (wants & PF.w) !== 0 &&
        this.mmu.unprotectAndRetry(gva, this.vcpu.rip)
      ) {
        // the instruction is fetched again
        if (this.#runs(this.vcpu.rip)) this.access(this.vcpu.rip, PF.i);
        continue;
      }
      emulate();
      return 'done';
    }
  }
  #inSlot(gva: bigint, code: number): boolean {
    const gpa = this.mmu.gvaToGpa(gva, code);
    return typeof gpa === 'number' && this.slots.frame(Math.floor(gpa / 4096)) !== undefined;
  }
  /** Code at `rip` is mapped by the guest. */
  #runs(rip: bigint): boolean {
    return typeof this.mmu.gvaToGpa(rip, PF.i) === 'number';
  }
  load(gva: bigint, options?: AccessOptions): Outcome {
    return this.access(gva, 0, options);
  }
  fetch(gva: bigint, options?: AccessOptions): Outcome {
    return this.access(gva, PF.i, options);
  }
  /** One store; an emulated one goes through the guest walk and is reported. */
  store(gva: bigint, value: bigint, bytes: 4 | 8 = 8, options: AccessOptions = {}): Outcome {
    let emulated = false;
    const outcome = this.access(gva, PF.w, options, () => {
      this.emulatedStore(gva, value, bytes);
      emulated = true;
    });
    if (outcome !== 'done' || emulated) return outcome;
    if (bytes === 8) this.ram.write64(this.hpa, value);
    else this.ram.write32(this.hpa, Number(value));
    return outcome;
  }
  emulatedStore(gva: bigint, value: bigint, bytes: 4 | 8): void {
    const gpa = this.mmu.gvaToGpa(gva, PF.w) as number;
    const hpa = this.slots.hpa(gpa) as number;
    if (bytes === 8) this.ram.write64(hpa, value);
    else this.ram.write32(hpa, Number(value));
    this.mmu.pteWrite(gpa, value, bytes);
  }
  /** REP STOS of zeros: native by iteration, or all at once when emulated. */
  repStos(gva: bigint, count: number, bytes: 4 | 8): void {
    for (let i = 0; i < count; i++) {
      let emulated = false;
      this.access(gva + BigInt(i * bytes), PF.w, { tableWriting: false }, () => {
        for (let j = i; j < count; j++) this.emulatedStore(gva + BigInt(j * bytes), 0n, bytes);
        emulated = true;
      });
      if (emulated) {
        // the next instruction is fetched
        this.fetch(this.vcpu.rip);
        return;
      }
      if (bytes === 8) this.ram.write64(this.hpa, 0n);
      else this.ram.write32(this.hpa, 0);
    }
  }
  /** Exits of a piece of work. */
  count(work: () => void): number {
    const before = this.exits.total;
    work();
    return this.exits.total - before;
  }
  direct(gpa: number): bigint {
    return DIRECT + BigInt(gpa);
  }
}
