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
import { APIC_GFN } from './context.js';
import type { GuestPageFault, KvmMmu, MmuDeps, MmuOptions, MmuVcpu, PageFaultResult } from './mmu.js';
import { pagingMode } from './roles.js';
import {
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
} from './spte.js';
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
    this.#walker = new GuestWalker(
      deps.vcpu,
      deps.slots,
      deps.memory,
      deps.options.maxPhyAddr ?? 40,
      deps.options.gbPages ?? true,
    );
  }

  reload(): boolean {
    if (this.#loaded) return true;
    if (this.#root < 0) {
      this.#root = this.#newTable();
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
  #put(at: number, lo: number, hi: number): void {
    const i = (at + this.#memory.base) >>> 2;
    this.#memory.u32[i] = lo;
    this.#memory.u32[i + 1] = hi;
  }
  #newTable(): number {
    // the older MMU keeps its tables like shadow pages, and counts them
    if (!this.#options.tdpMmu) this.#stats.mmu_cache_miss++;
    const hpa = this.#frames.page();
    this.#tables.push(hpa);
    return hpa;
  }
  #linkTable(at: number): number {
    const table = this.#newTable();
    const { eptad } = this.#options;
    this.#put(
      at,
      (table | EPT.rwx | MMU_PRESENT | (eptad ? EPT.a : 0)) >>> 0,
      addressHigh(table) | (eptad ? 0 : AD_DISABLED),
    );
    return table;
  }
  /** @param ahead filled before anyone asked: not accessed */
  #putLeaf(at: number, level: 1 | 2, hpa: number, executable: boolean, ahead: boolean): void {
    const { eptad } = this.#options;
    const rights = executable ? EPT.rwx : EPT.rwx & ~EPT.x;
    const flags = eptad ? EPT.d | (ahead ? 0 : EPT.a) : 0;
    this.#put(
      at,
      (hpa | rights | EPT.wbIpat | flags | MMU_PRESENT | (level === 2 ? EPT.ps : 0)) >>> 0,
      (addressHigh(hpa) | EPT_WRITABLE | (eptad ? 0 : AD_DISABLED)) >>> 0,
    );
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
        table = this.#dropLarge(at);
        continue;
      }
      if (frame === undefined && this.#options.mmioCaching === false) return 'emulate';
      if (level === 1 && frame === undefined) {
        this.#put(at, eptMmioLo(gfn, this.#generation), eptMmioHi(gfn, this.#generation));
        this.#stats.pf_mmio_spte_created++;
        return 'emulate';
      }
      if (frame !== undefined && (level === 1 || (level === goal && !present))) {
        if (level === 2) this.#putLeaf(at, 2, frame - (gfn % 512) * 4096, !nxHugePages, false);
        else this.#putLeaf(at, 1, frame, true, false);
        if (!tdpMmu && eptad && level === 1) this.#ahead(at, gfn);
        return 'fixed';
      }
      if (present) table = addressOf(elo, this.#hi(at));
      else if (frame === undefined && this.#mmioTables >= MMIO_TABLES) return 'emulate';
      else {
        if (frame === undefined) this.#mmioTables++;
        table = this.#linkTable(at);
        if (level === 2 && nxHugePages && fetch && this.#slots.canMap2M(gfn)) this.#stats.nx_lpage_splits++;
      }
    }
  }

  /** The NX workaround: a 2 MiB leaf gives way to an empty table, whose entries come back one violation at a time. */
  #dropLarge(at: number): number {
    this.#count(2, -1);
    this.#put(at, 0, 0);
    const table = this.#linkTable(at);
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
      const hpa = this.#slots.backed(gfn - (gfn % GROUP) + i);
      if (hpa === undefined) {
        if (!inRun) return;
        ended = true;
        continue;
      }
      inRun = true;
      this.#putLeaf(entry, 1, hpa, true, true);
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
      if (level === 1)
        return isEptMmio(elo) && mmioGeneration(elo, ehi) === this.#generation ? gpa : undefined;
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
