/**
 * The software walk of the guest's own page tables (KVM-3.3 items 2 and 3; KVM's walk_addr_generic).
 *
 * SDM volume 3, "32-Bit Paging", "PAE Paging", "4-Level Paging", "Access Rights", "Page-Fault Exceptions", "Accessed and
 * Dirty Flags". Permission is checked over the product of the path; accessed and dirty flags are written only when the
 * whole walk succeeds. PDPTEs are those loaded with CR3. Tables outside the slots end the walk as not present.
 */
import { FLAG, PF } from '../../isa/state.js';
import type { PhysicalMemory } from '../../vmx/port.js';
import type { MemorySlots } from '../memslots.js';
import type { Tracer } from '../tracer.js';
import type { MmuVcpu } from './mmu.js';
import type { PagingMode } from './roles.js';
import { ACC, indexAt, PAGES_AT, PT, PT_NX } from './spte.js';
import { entryOf } from './trace.js';

/** Reserved low bits of a large page's entry: between its frame and the PAT bit. */
const LARGE_RESERVED = [0, 0, 0x001f_e000, 0x3fff_e000, 0] as const;

export class GuestWalker {
  readonly #vcpu: MmuVcpu;
  readonly #trace: Tracer;
  readonly #slots: MemorySlots;
  readonly #memory: PhysicalMemory;
  readonly #u32: Uint32Array;
  /** Bits of the high half above MAXPHYADDR. */
  readonly #reservedHi: number;
  readonly #gbPages: boolean;
  /** Reserved low bits of a 4 MiB page: above the 40 address bits of PSE-36, or MAXPHYADDR if that is less. */
  readonly #pseReserved: number;

  // results of the last walk
  /** Level of the leaf: 1, 2 or 3. */
  level = 1;
  /** Level of the first table: 2 or 4. */
  top = 4;
  gfn = 0;
  /** Rights of the whole path; without W when the leaf is clean and the access is not a write (KVM-7.1.7). */
  access = 0;
  /** By level: the frame of the table, and the rights of the path above its entry. */
  readonly tableGfn = new Float64Array(5);
  readonly pathAccess = new Uint8Array(5);
  /** Error code of the fault when the walk failed. */
  code = 0;

  readonly #entryAt = new Float64Array(5);

  constructor(
    vcpu: MmuVcpu,
    slots: MemorySlots,
    memory: PhysicalMemory,
    maxPhyAddr: number,
    gbPages: boolean,
    trace: Tracer,
  ) {
    this.#trace = trace;
    this.#vcpu = vcpu;
    this.#slots = slots;
    this.#memory = memory;
    this.#u32 = memory.u32;
    this.#reservedHi = (0x000f_ffff & ~((1 << (maxPhyAddr - 32)) - 1)) >>> 0;
    this.#gbPages = gbPages;
    this.#pseReserved = 0x003f_ffff & ~((1 << (13 + maxPhyAddr - 32)) - 1);
  }

  /** Walks from the guest's CR3. @param wants error-code bits W, U, I of the access. False: `code` is the guest's fault. */
  walk(mode: PagingMode, lo: number, hi: number, wants: number): boolean {
    const u32 = this.#u32;
    const base = this.#memory.base;
    const narrow = mode.levels === 2;
    const { sinks } = this.#trace;
    sinks.kvm_mmu_pagetable_walk?.({ addr: entryOf(lo, hi), pferr: wants });
    let access: number = ACC.all;
    let table = Math.floor(this.#vcpu.cr3 / 4096);
    let level = mode.levels as number;
    if (level === 3) {
      const pdpte = this.#vcpu.pdpte(lo >>> 30);
      if ((pdpte & 1n) === 0n) return this.#fail(mode, wants, 0);
      table = Number((pdpte >> 12n) & 0xff_ffff_ffffn);
      level = 2;
    }
    this.top = level;
    let elo = 0;
    let ehi = 0;
    for (; ; level--) {
      this.tableGfn[level] = table;
      this.pathAccess[level] = access;
      const frame = this.#slots.frame(table);
      if (frame === undefined) return this.#fail(mode, wants, 0);
      const at = narrow
        ? frame + (level === 2 ? lo >>> 22 : (lo >>> 12) & 1023) * 4
        : frame + indexAt(lo, hi, level) * 8;
      this.#entryAt[level] = at;
      elo = u32[(at + base) >>> 2];
      ehi = narrow ? 0 : u32[((at + base) >>> 2) + 1];
      sinks.kvm_mmu_paging_element?.({ pte: entryOf(elo, ehi), level });
      if ((elo & PT.p) === 0) return this.#fail(mode, wants, 0);
      if (this.reserved(mode, elo, ehi, level)) return this.#fail(mode, wants, PF.p | PF.rsvd);
      access &= (elo & (PT.w | PT.u)) | (ehi >= PT_NX ? 0 : ACC.x);
      table = (ehi & 0xf_ffff) * 0x10_0000 + (elo >>> 12);
      if (level === 1 || ((elo & PT.ps) !== 0 && (!narrow || mode.pse))) break;
    }
    if (!this.#permitted(mode, access, wants)) return this.#fail(mode, wants, PF.p);
    this.level = level;
    if (level === 1) this.gfn = table;
    else if (narrow) {
      // PSE-36: bits 20:13 are address bits 39:32
      this.gfn = ((elo >>> 13) & 0xff) * 0x10_0000 + (elo >>> 22) * 1024 + ((lo >>> 12) & 1023);
    } else {
      const pages = PAGES_AT[level];
      this.gfn = table - (table % pages) + (((hi & 0xffff) * 0x10_0000 + (lo >>> 12)) % pages);
    }
    const write = (wants & PF.w) !== 0;
    if (!write && (elo & PT.d) === 0) access &= ~ACC.w;
    this.access = access;
    const bytes = narrow ? 4 : 8;
    for (let l = this.top; l >= level; l--)
      this.#mark(this.#entryAt[l], l === level && write ? PT.a | PT.d : PT.a, this.tableGfn[l], bytes);
    return true;
  }

  /** Reserved bits of a present entry. */
  reserved(mode: PagingMode, lo: number, hi: number, level: number): boolean {
    if (mode.levels === 2)
      return level === 2 && mode.pse && (lo & PT.ps) !== 0 && (lo & this.#pseReserved) !== 0;
    // bits 62:52 are ignored with 4-level paging only
    if (mode.levels === 3 && (hi & 0x7ff0_0000) !== 0) return true;
    if ((hi & this.#reservedHi) !== 0 || (hi >= PT_NX && !mode.nx)) return true;
    if (level === 1 || (lo & PT.ps) === 0) return false;
    return level === 4 || (level === 3 && !this.#gbPages) || (lo & LARGE_RESERVED[level]) !== 0;
  }

  #mark(at: number, bits: number, table: number, bytes: number): void {
    const i = (at + this.#memory.base) >>> 2;
    const missing = bits & ~this.#u32[i];
    if (missing === 0) return;
    const { kvm_mmu_set_accessed_bit, kvm_mmu_set_dirty_bit } = this.#trace.sinks;
    const gpa = table * 4096 + (at & (4096 - bytes));
    if ((missing & PT.a) !== 0) kvm_mmu_set_accessed_bit?.({ gpa });
    if ((missing & PT.d) !== 0) kvm_mmu_set_dirty_bit?.({ gpa });
    this.#memory.touched(at, 4);
    this.#u32[i] |= bits;
  }

  #permitted(mode: PagingMode, access: number, wants: number): boolean {
    const user = (wants & PF.u) !== 0;
    const fetch = (wants & PF.i) !== 0;
    if (user) {
      if ((access & ACC.u) === 0) return false;
    } else if ((access & ACC.u) !== 0) {
      if (fetch ? mode.smep : mode.smap && (this.#vcpu.rflags & FLAG.ac) === 0) return false;
    }
    if ((wants & PF.w) !== 0 && (access & ACC.w) === 0 && (user || mode.wp)) return false;
    return !fetch || (access & ACC.x) !== 0;
  }

  #fail(mode: PagingMode, wants: number, code: number): false {
    this.code = code | (wants & (PF.w | PF.u)) | (mode.nx || mode.smep ? wants & PF.i : 0);
    this.#trace.sinks.kvm_mmu_walker_error?.({ pferr: this.code });
    return false;
  }
}
