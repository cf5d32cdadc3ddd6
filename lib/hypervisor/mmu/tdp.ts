/**
 * The two-dimensional MMU (ept=1): EPT entries made one leaf a violation (KVM-4, KVM-7.1.17 and 18, measured C).
 *
 * Leaves are 2 MiB where the slots allow it, else 4 KiB; write-back memory, "ignore PAT", all rights. With tdp_mmu=N the
 * aligned group of 8 is filled ahead as KVM's older direct MMU does. An MMIO page gets a misconfigured entry at its first
 * access. Nothing is ever write-protected: guest tables are not shadowed. Not modelled: dirty logging (PML).
 */
import { PF } from '../../isa/state.js';
import type { PhysicalMemory } from '../../vmx/port.js';
import type { FrameAllocator, MemorySlots } from '../memslots.js';
import type { KvmStats } from '../stats.js';
import { Tracer } from '../tracer.js';
import { APIC_GFN } from './context.js';
import type { GuestPageFault, KvmMmu, MmuDeps, MmuOptions, MmuVcpu, PageFaultResult } from './mmu.js';
import { pagingMode } from './roles.js';
import {
  ACC,
  AD_DISABLED,
  addressHigh,
  addressOf,
  EPT,
  EPT_WRITABLE,
  eptMmioHi,
  eptMmioLo,
  GENERATION_MASK,
  indexAt,
  isEptMmio,
  MMU_PRESENT,
  mmioGeneration,
  PAGES_AT,
} from './spte.js';
import { entryOf, eptPageFields } from './trace.js';
import { GuestWalker } from './walker.js';

const GROUP = 8;
/** A guest that looks for devices all over its address space gets no more tables than this; then MMIO is not cached. */
const MMIO_TABLES = 256;
/** EPTP: write-back, walk length 4, accessed and dirty flags. */
const EPTP = { wbLength4: 6 | (3 << 3), ad: 0x40 } as const;

export class TdpMmu implements KvmMmu {
  readonly #memory: PhysicalMemory;
  readonly #frames: FrameAllocator;
  readonly #slots: MemorySlots;
  readonly #vcpu: MmuVcpu;
  readonly #stats: KvmStats;
  readonly #options: MmuOptions;
  readonly #trace: Tracer;
  readonly #walker: GuestWalker;
  readonly #tables: number[] = [];
  #root = -1;
  #loaded = false;
  #generation = 0;
  /** Tables made for MMIO entries. */
  #mmioTables = 0;
  #p4k = 0;
  #p2m = 0;

  constructor(deps: MmuDeps) {
    this.#memory = deps.memory;
    this.#frames = deps.frames;
    this.#slots = deps.slots;
    this.#vcpu = deps.vcpu;
    this.#stats = deps.stats;
    this.#options = deps.options;
    this.#trace = deps.trace ?? new Tracer();
    this.#walker = new GuestWalker(
      deps.vcpu,
      deps.slots,
      deps.memory,
      deps.options.maxPhyAddr ?? 40,
      deps.options.gbPages ?? true,
      this.#trace,
    );
  }

  reload(): boolean {
    if (this.#loaded) return true;
    if (this.#root < 0) {
      this.#root = this.#newTable(0, 4);
      this.#vcpu.requestTlbFlush();
    }
    this.#loaded = true;
    this.#vcpu.setRoot(this.#root + (EPTP.wbLength4 | (this.#options.eptad ? EPTP.ad : 0)));
    return true;
  }

  // ---- entries
  #lo(at: number): number {
    return this.#memory.u32[(at + this.#memory.base) >>> 2];
  }
  #hi(at: number): number {
    return this.#memory.u32[((at + this.#memory.base) >>> 2) + 1];
  }
  /** @param gfn of the address that the entry is on the way to; @param level of the entry */
  #put(at: number, lo: number, hi: number, gfn: number, level: number): void {
    const i = (at + this.#memory.base) >>> 2;
    const { kvm_tdp_mmu_spte_changed } = this.#trace.sinks;
    if (kvm_tdp_mmu_spte_changed !== undefined && this.#options.tdpMmu)
      kvm_tdp_mmu_spte_changed({
        gfn: gfn - (gfn % PAGES_AT[level]),
        old_spte: entryOf(this.#lo(at), this.#hi(at)),
        new_spte: entryOf(lo, hi),
        level,
        as_id: 0,
      });
    this.#memory.u32[i] = lo;
    this.#memory.u32[i + 1] = hi;
  }
  #newTable(gfn: number, level: number): number {
    // the older MMU keeps its tables like shadow pages, and counts them
    if (!this.#options.tdpMmu) this.#stats.mmu_cache_miss++;
    const hpa = this.#frames.page();
    this.#tables.push(hpa);
    this.#trace.sinks.kvm_mmu_get_page?.({
      ...eptPageFields(gfn - (gfn % (PAGES_AT[level] * 512)), level, this.#options.eptad),
      created: true,
    });
    return hpa;
  }
  #linkTable(at: number, gfn: number, level: number): number {
    const table = this.#newTable(gfn, level - 1);
    const { eptad } = this.#options;
    this.#put(
      at,
      (table | EPT.rwx | MMU_PRESENT | (eptad ? EPT.a : 0)) >>> 0,
      addressHigh(table) | (eptad ? 0 : AD_DISABLED),
      gfn,
      level,
    );
    return table;
  }
  /** @param ahead filled before anyone asked: not accessed */
  #putLeaf(at: number, level: 1 | 2, gfn: number, hpa: number, executable: boolean, ahead: boolean): void {
    const { eptad } = this.#options;
    const rights = executable ? EPT.rwx : EPT.rwx & ~EPT.x;
    const flags = eptad ? EPT.d | (ahead ? 0 : EPT.a) : 0;
    const lo = (hpa | rights | EPT.wbIpat | flags | MMU_PRESENT | (level === 2 ? EPT.ps : 0)) >>> 0;
    const hi = (addressHigh(hpa) | EPT_WRITABLE | (eptad ? 0 : AD_DISABLED)) >>> 0;
    this.#put(at, lo, hi, gfn, level);
    this.#trace.sinks.kvm_mmu_set_spte?.({
      gfn: gfn - (gfn % PAGES_AT[level]),
      spte: entryOf(lo, hi),
      sptep: at,
      level,
      r: true,
      x: executable,
      u: undefined,
    });
    this.#count(level, 1);
  }
  #count(level: 1 | 2, by: number): void {
    if (level === 1) this.#stats.pages_4k = this.#p4k += by;
    else this.#stats.pages_2m = this.#p2m += by;
  }

  pageFault(address: number | bigint, code: number): PageFaultResult {
    const gpa = Number(address);
    const gfn = Math.floor(gpa / 4096);
    const frame = this.#slots.frame(gfn);
    if (frame === undefined && gfn === APIC_GFN && (this.#options.apicAccessPage ?? true)) return 'emulate';
    this.reload();
    const { nxHugePages, tdpMmu, eptad } = this.#options;
    const fetch = (code & PF.i) !== 0;
    const goal = frame !== undefined && this.#slots.canMap2M(gfn) && !(nxHugePages && fetch) ? 2 : 1;
    this.#trace.sinks.kvm_mmu_spte_requested?.({
      gfn,
      pfn: Math.floor((frame ?? 0) / 4096),
      level: goal,
    });
    const lo = gpa % 0x1_0000_0000;
    const hi = addressHigh(gpa);
    let table = this.#root;
    let level = 4;
    for (; ; level--) {
      const at = table + indexAt(lo, hi, level) * 8;
      const elo = this.#lo(at);
      const present = (elo & MMU_PRESENT) !== 0;
      const leaf = present && (level === 1 || (elo & EPT.ps) !== 0);
      if (leaf) {
        if (!fetch || (elo & EPT.x) !== 0) return 'spurious';
        table = this.#dropLarge(at, gfn);
        continue;
      }
      if (frame === undefined && this.#options.mmioCaching === false) return 'emulate';
      if (level === 1 && frame === undefined) {
        const gen = this.#generation;
        this.#put(at, eptMmioLo(gfn, gen), eptMmioHi(gfn, gen), gfn, 1);
        this.#trace.sinks.mark_mmio_spte?.({ sptep: at, gfn, access: ACC.w | ACC.x, gen });
        this.#stats.pf_mmio_spte_created++;
        return 'emulate';
      }
      if (frame !== undefined && (level === 1 || (level === goal && !present))) {
        if (level === 2) this.#putLeaf(at, 2, gfn, frame - (gfn % 512) * 4096, !nxHugePages, false);
        else this.#putLeaf(at, 1, gfn, frame, true, false);
        if (!tdpMmu && eptad && level === 1) this.#ahead(at, gfn);
        return 'fixed';
      }
      if (present) table = addressOf(elo, this.#hi(at));
      else if (frame === undefined && this.#mmioTables >= MMIO_TABLES) return 'emulate';
      else {
        if (frame === undefined) this.#mmioTables++;
        table = this.#linkTable(at, gfn, level);
        if (level === 2 && nxHugePages && fetch && this.#slots.canMap2M(gfn)) this.#stats.nx_lpage_splits++;
      }
    }
  }

  /** The NX workaround: a 2 MiB leaf gives way to an empty table, whose entries come back one violation at a time. */
  #dropLarge(at: number, gfn: number): number {
    this.#count(2, -1);
    this.#put(at, 0, 0, gfn, 2);
    const table = this.#linkTable(at, gfn, 2);
    this.#stats.nx_lpage_splits++;
    this.#stats.remote_tlb_flush_requests++;
    this.#vcpu.requestTlbFlush();
    return table;
  }

  /**
   * tdp_mmu=N: the runs of absent neighbours, each as far as the host has frames (__direct_pte_prefetch). Without
   * accessed bits nothing is filled ahead: nobody could tell what has been used.
   */
  #ahead(at: number, gfn: number): void {
    const start = at - (gfn % GROUP) * 8;
    let inRun = false;
    let ended = false;
    for (let i = 0; i < GROUP; i++) {
      const entry = start + i * 8;
      if ((this.#lo(entry) & MMU_PRESENT) !== 0) {
        inRun = false;
        ended = false;
        continue;
      }
      if (ended) continue;
      const near = gfn - (gfn % GROUP) + i;
      const hpa = this.#slots.backed(near);
      if (hpa === undefined) {
        if (!inRun) return;
        ended = true;
        continue;
      }
      inRun = true;
      this.#putLeaf(entry, 1, near, hpa, true, true);
    }
  }

  mmioAddress(address: number | bigint): number | undefined {
    const gpa = Number(address);
    const lo = gpa % 0x1_0000_0000;
    const hi = addressHigh(gpa);
    let table = this.#root;
    if (table < 0) return undefined;
    for (let level = 4; ; level--) {
      const at = table + indexAt(lo, hi, level) * 8;
      const elo = this.#lo(at);
      const ehi = this.#hi(at);
      if (level === 1) {
        if (!isEptMmio(elo)) return undefined;
        const spteGen = mmioGeneration(elo, ehi);
        const { sinks } = this.#trace;
        const gfn = Math.floor(gpa / 4096);
        sinks.check_mmio_spte?.({
          kvm_gen: this.#generation,
          spte_gen: spteGen,
          spte: entryOf(elo, ehi),
        });
        if (spteGen !== this.#generation) return undefined;
        sinks.handle_mmio_page_fault?.({ addr: BigInt(gpa), gfn, access: ACC.w | ACC.x });
        return gpa;
      }
      if ((elo & MMU_PRESENT) === 0 || (elo & EPT.ps) !== 0) return undefined;
      table = addressOf(elo, ehi);
    }
  }

  // ---- the guest's own translations belong to the processor
  newCr3(): void {}
  pdptesLoaded(): void {}
  invlpg(): void {}
  invpcid(): void {}
  contextReset(): void {}
  unload(): void {}
  pteWrite(): void {}
  faultDuringDelivery(): void {}
  unprotectAndRetry(): boolean {
    return false;
  }
  flushGuestTlb(): void {
    this.#vcpu.requestTlbFlush();
  }

  gvaToGpa(gva: bigint, access: number): number | GuestPageFault {
    const mode = pagingMode(this.#vcpu);
    if (mode.levels === 0) return Number(gva & 0xffff_ffffn);
    const lo = Number(gva & 0xffff_ffffn);
    const w = this.#walker;
    if (w.walk(mode, lo, Number((gva >> 32n) & 0xffff_ffffn), access & (PF.w | PF.u | PF.i)))
      return w.gfn * 4096 + (lo & 0xfff);
    return { code: w.code, address: gva };
  }

  zapAll(): void {
    for (const table of this.#tables) this.#frames.freePage(table);
    this.#tables.length = 0;
    this.#root = -1;
    this.#loaded = false;
    this.#mmioTables = 0;
    this.#count(1, -this.#p4k);
    this.#count(2, -this.#p2m);
    this.#stats.nx_lpage_splits = 0;
    this.#generation = (this.#generation + 1) & GENERATION_MASK;
    this.#vcpu.requestTlbFlush();
  }

  get pages(): KvmMmu['pages'] {
    return { shadow: this.#tables.length, unsync: 0, p4k: this.#p4k, p2m: this.#p2m, p1g: 0 };
  }
}

export const createTdpMmu = (deps: MmuDeps): TdpMmu => new TdpMmu(deps);
