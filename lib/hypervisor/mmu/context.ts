/**
 * The shadow MMU's state, shared by its parts, and the primitives on single entries (KVM's mmu_spte_* and rmap helpers).
 *
 * Entries are addressed by the host-physical address of their eight bytes ("at").
 */
import { LabError } from '../../base/error.js';
import type { MemorySlots } from '../memslots.js';
import type { KvmStats } from '../stats.js';
import { Tracer } from '../tracer.js';
import type { MmuDeps, MmuOptions, MmuVcpu } from './mmu.js';
import { type ShadowPage, ShadowPages } from './pages.js';
import { Rmap } from './rmap.js';
import { type PagingMode, pagingMode, rootRole } from './roles.js';
import { addressOf, GENERATION_MASK, MMU_PRESENT, MMU_WRITABLE, PT } from './spte.js';
import { GuestFrames } from './track.js';
import { GuestWalker } from './walker.js';

/** The local APIC's page: not in a slot that the guest sees, never mapped nor cached (measured C2). */
export const APIC_GFN = 0xfee00;
/** Above this many mappings of one frame they are all dropped (KVM's RMAP_RECYCLE_THRESHOLD). */
const RMAP_LIMIT = 1000;

export interface Root {
  sp: ShadowPage | undefined;
  /** Guest CR3 with its low bits. */
  pgd: number;
}

/** The last MMIO access: linear page and guest frame, for one generation of the slots. */
export interface MmioCache {
  page: bigint;
  gfn: number;
  generation: number;
}
const NO_PAGE = -1n;

/**
 * The root of guests that do not use 4-level paging: a page with four PDPTEs, each for a page directory (KVM's
 * pae_root). It is no shadow page, is never kept for later, and is filled anew when CR3 or a PDPTE changes.
 */
export interface PaeRoot {
  /** Host-physical address; -1 until first needed. */
  table: number;
  loaded: boolean;
  readonly directories: (ShadowPage | undefined)[];
}

export class ShadowContext {
  readonly slots: MemorySlots;
  readonly vcpu: MmuVcpu;
  readonly stats: KvmStats;
  readonly trace: Tracer;
  readonly options: MmuOptions;
  readonly frames: GuestFrames;
  readonly pages: ShadowPages;
  readonly walker: GuestWalker;
  readonly u32: Uint32Array;
  readonly base: number;
  readonly #rmaps: readonly [Rmap, Rmap];

  readonly root: Root = { sp: undefined, pgd: 0 };
  readonly previous: readonly Root[] = [
    { sp: undefined, pgd: 0 },
    { sp: undefined, pgd: 0 },
    { sp: undefined, pgd: 0 },
  ];
  readonly pae: PaeRoot = { table: -1, loaded: false, directories: new Array(4).fill(undefined) };
  /** KVM_REQ_MMU_SYNC, _LOAD_MMU_PGD, _TLB_FLUSH_GUEST, _MMU_FREE_OBSOLETE_ROOTS. */
  readonly requests = { sync: false, load: false, flushGuest: false, freeObsolete: false };
  readonly mmio: MmioCache = { page: NO_PAGE, gfn: 0, generation: 0 };
  /** Of the slots. */
  generation = 0;
  /** Instructions handed to the emulator, and the last one that was retried instead (KVM's last_retry_eip). */
  emulations = 0;
  readonly retry = { rip: 0n, gva: 0n, emulations: -2 };
  /** Halves of the entry that `makeLeaf` made last, and whether the guest's right to write was withheld. */
  readonly made = { lo: 0, hi: 0, protected: false };
  #mode: PagingMode | undefined;
  #role = 0;
  unsyncPages = 0;
  p4k = 0;
  p2m = 0;

  constructor(deps: MmuDeps) {
    const { memory, slots, options } = deps;
    const width = options.maxPhyAddr ?? 40;
    if (width < 33 || width > 40)
      throw new LabError(
        'mmu.maxphyaddr',
        `guest-physical addresses of ${width} bits are not possible`,
        'give 33 to 40',
      );
    this.slots = slots;
    this.vcpu = deps.vcpu;
    this.stats = deps.stats;
    this.trace = deps.trace ?? new Tracer();
    this.options = options;
    this.frames = new GuestFrames(slots);
    let pages = 0;
    for (const slot of slots.slots) pages += slot.bytes / 4096;
    this.pages = new ShadowPages(deps.frames, deps.stats, pages);
    this.walker = new GuestWalker(deps.vcpu, slots, memory, width, options.gbPages ?? true, this.trace);
    this.u32 = memory.u32;
    this.base = memory.base;
    this.#rmaps = [new Rmap(this.frames.end), new Rmap((this.frames.end >>> 9) + 1)];
  }

  // ---- role
  get mode(): PagingMode {
    this.#mode ??= pagingMode(this.vcpu);
    return this.#mode;
  }
  get role(): number {
    if (this.#role === 0) this.#role = rootRole(this.mode);
    return this.#role;
  }
  /** The control registers that make the role have changed. */
  forgetRole(): void {
    this.#mode = undefined;
    this.#role = 0;
  }
  /** A root is loaded. */
  get rooted(): boolean {
    return this.root.sp !== undefined || this.pae.loaded;
  }
  /** Where the shadow walk of a linear address begins: the root, or the page directory below a PAE root. */
  top(lo: number): ShadowPage | undefined {
    return this.pae.loaded ? this.pae.directories[lo >>> 30] : this.root.sp;
  }
  get apicPage(): boolean {
    return this.options.apicAccessPage ?? true;
  }

  // ---- entries
  lo(at: number): number {
    return this.u32[(at + this.base) >>> 2];
  }
  hi(at: number): number {
    return this.u32[((at + this.base) >>> 2) + 1];
  }
  put(at: number, lo: number, hi: number): void {
    const i = (at + this.base) >>> 2;
    this.u32[i] = lo;
    this.u32[i + 1] = hi;
  }
  /** The table that an entry points to; undefined when it is a leaf, an MMIO entry or absent. */
  child(at: number, level: number): ShadowPage | undefined {
    const lo = this.lo(at);
    if (level === 1 || (lo & MMU_PRESENT) === 0 || (lo & PT.ps) !== 0) return undefined;
    return this.pages.at(addressOf(lo, this.hi(at)));
  }

  // ---- reverse maps and gauges
  addRmap(sp: ShadowPage, at: number, gfn: number): void {
    if (sp.gfns !== undefined) sp.gfns[(at & 0xfff) >>> 3] = gfn;
    const rmap = this.#rmaps[sp.level - 1];
    const frame = sp.level === 1 ? gfn : gfn >>> 9;
    const before = rmap.add(frame, at);
    this.#count(sp.level, 1);
    if (before > this.stats.max_mmu_rmap_size) this.stats.max_mmu_rmap_size = before;
    if (before > RMAP_LIMIT) {
      for (let spte = rmap.first(frame); spte !== 0; spte = rmap.first(frame))
        this.dropLeaf(this.pages.at(spte), spte);
      this.flushRemote();
    }
  }
  #count(level: number, by: number): void {
    if (level === 1) this.stats.pages_4k = this.p4k += by;
    else this.stats.pages_2m = this.p2m += by;
  }
  /** drop_spte of a present leaf. */
  dropLeaf(sp: ShadowPage, at: number): void {
    const gfn = sp.gfnAt((at & 0xfff) >>> 3);
    this.put(at, 0, 0);
    this.#rmaps[sp.level - 1].remove(sp.level === 1 ? gfn : gfn >>> 9, at);
    this.#count(sp.level, -1);
  }
  /** kvm_mmu_slot_gfn_write_protect: every mapping of the frame at every size. True when one was writable. */
  writeProtect(gfn: number): boolean {
    if (gfn >= this.frames.end) return false;
    const small = this.#protect(this.#rmaps[0], gfn);
    return this.#protect(this.#rmaps[1], gfn >>> 9) || small;
  }
  #protect(rmap: Rmap, frame: number): boolean {
    const first = rmap.first(frame);
    if (first === 0) return false;
    let was = this.#protectEntry(first);
    const more = rmap.more(frame);
    if (more !== undefined) for (const at of more) was = this.#protectEntry(at) || was;
    return was;
  }
  #protectEntry(at: number): boolean {
    const i = (at + this.base) >>> 2;
    if ((this.u32[i] & PT.w) === 0) return false;
    this.u32[i] &= ~(PT.w | MMU_WRITABLE);
    return true;
  }

  /** kvm_flush_remote_tlbs: one vCPU, so the request is its own. */
  flushRemote(): void {
    this.stats.remote_tlb_flush_requests++;
    this.vcpu.requestTlbFlush();
  }

  // ---- MMIO cache
  cacheMmio(gva: bigint, gfn: number): void {
    this.mmio.page = gva >> 12n;
    this.mmio.gfn = gfn;
    this.mmio.generation = this.generation;
  }
  mmioCached(gva: bigint): boolean {
    return this.mmio.page === gva >> 12n && this.mmio.generation === this.generation;
  }
  clearMmio(): void {
    this.mmio.page = NO_PAGE;
  }
  nextGeneration(): void {
    this.generation = (this.generation + 1) & GENERATION_MASK;
    this.clearMmio();
  }
}
