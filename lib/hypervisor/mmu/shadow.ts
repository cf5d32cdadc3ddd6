/**
 * The shadow MMU (ept=0): what the exit handlers call, put together from its parts (KVM-3, KVM-7.1.6 to 7.1.16).
 *
 * The processor walks tables made here; the guest's own tables are read, write-protected or left to drift, and brought
 * back in line when the guest flushes. Guests without paging, and with 32-bit, PAE and 4-level paging. Not modelled:
 * 5-level paging, nested guests, dirty logging.
 */
import { PF } from '../../isa/state.js';
import { ShadowContext } from './context.js';
import { leafOf, shadowFault } from './fetch.js';
import { invalidateAddress, invalidateAddressOf } from './invalidate.js';
import type { GuestPageFault, KvmMmu, MmuDeps, PageFaultResult } from './mmu.js';
import type { ShadowPage } from './pages.js';
import { activePcid, freeAllRoots, freeCurrentRoot, invalidatePcid, newCr3, reload } from './roots.js';
import { ACC, isMmio, mmioGeneration, mmioGfn } from './spte.js';
import { entryOf } from './trace.js';
import { pteWrite } from './writes.js';
import { commitZap, prepareZap, unprotectFrame } from './zap.js';

export class ShadowMmu implements KvmMmu {
  /** The parts' common state; tests look into it. */
  readonly context: ShadowContext;
  /** CR3 as of the last load. */
  #cr3 = -1;

  constructor(deps: MmuDeps) {
    this.context = new ShadowContext(deps);
  }

  reload(): boolean {
    if (!reload(this.context)) return false;
    this.#cr3 = this.context.vcpu.cr3;
    return true;
  }

  pageFault(address: number | bigint, code: number): PageFaultResult {
    const m = this.context;
    const result = shadowFault(m, BigInt(address), code);
    if (result === 'emulate') m.emulations++;
    return result;
  }

  mmioAddress(address: number | bigint): number | undefined {
    const m = this.context;
    const gva = BigInt(address);
    const offset = Number(gva & 0xfffn);
    if (!m.mmioCached(gva)) {
      const low = Number(gva & 0xffff_ffffn);
      const top = m.top(low);
      if (top === undefined) return undefined;
      const at = leafOf(m, top, low, Number((gva >> 32n) & 0xffff_ffffn));
      const lo = m.lo(at);
      const hi = m.hi(at);
      if (!isMmio(lo, hi)) return undefined;
      const spteGen = mmioGeneration(lo, hi);
      const { sinks } = m.trace;
      sinks.check_mmio_spte?.({ kvm_gen: m.generation, spte_gen: spteGen, spte: entryOf(lo, hi) });
      if (spteGen !== m.generation) return undefined;
      const gfn = mmioGfn(lo, hi);
      sinks.handle_mmio_page_fault?.({ addr: gva, gfn, access: lo & (ACC.w | ACC.u) });
      m.cacheMmio(gva, mmioGfn(lo, hi));
    }
    m.emulations++;
    return m.mmio.gfn * 4096 + offset;
  }

  newCr3(flush: boolean): void {
    const m = this.context;
    newCr3(m, this.#cr3, flush);
    this.#cr3 = m.vcpu.cr3;
  }
  pdptesLoaded(changed: boolean): void {
    if (changed) freeCurrentRoot(this.context);
    this.context.requests.load = true;
  }
  invlpg(gva: bigint): void {
    invalidateAddress(this.context, gva);
  }
  invpcid(type: 0 | 1 | 2 | 3, pcid: number, gva: bigint): void {
    const m = this.context;
    if (type === 0) invalidateAddressOf(m, pcid, activePcid(m), gva);
    else if (type === 1) invalidatePcid(m, pcid);
    else this.flushGuestTlb();
  }
  contextReset(): void {
    freeAllRoots(this.context);
    this.context.forgetRole();
  }
  flushGuestTlb(): void {
    this.context.requests.flushGuest = true;
    this.context.vcpu.requestTlbFlush();
  }
  unload(): void {
    freeAllRoots(this.context);
  }

  pteWrite(gpa: number, value: bigint, bytes: number): void {
    pteWrite(this.context, gpa, value, bytes);
  }

  /** retry_instruction. Asked once for each result `emulate` of a write; the guard is what ends a loop of retries. */
  unprotectAndRetry(gva: bigint, rip: bigint): boolean {
    const m = this.context;
    const { retry } = m;
    const again = retry.rip === rip && retry.gva === gva && m.emulations === retry.emulations + 1;
    if (again || m.mmioCached(gva)) {
      retry.emulations = -2;
      return false;
    }
    retry.rip = rip;
    retry.gva = gva;
    retry.emulations = m.emulations;
    const gpa = this.gvaToGpa(gva, PF.w | (m.vcpu.cpl === 3 ? PF.u : 0));
    if (typeof gpa === 'number') unprotectFrame(m, Math.floor(gpa / 4096));
    return true;
  }
  faultDuringDelivery(gva: bigint): void {
    const gpa = this.gvaToGpa(gva, this.context.vcpu.cpl === 3 ? PF.u : 0);
    if (typeof gpa === 'number') unprotectFrame(this.context, Math.floor(gpa / 4096));
  }

  gvaToGpa(gva: bigint, access: number): number | GuestPageFault {
    const m = this.context;
    const { mode, walker } = m;
    if (mode.levels === 0) return Number(gva & 0xffff_ffffn);
    const lo = Number(gva & 0xffff_ffffn);
    if (walker.walk(mode, lo, Number((gva >> 32n) & 0xffff_ffffn), access & (PF.w | PF.u | PF.i)))
      return walker.gfn * 4096 + (lo & 0xfff);
    return { code: walker.code, address: gva };
  }

  zapAll(): void {
    const m = this.context;
    freeAllRoots(m);
    m.nextGeneration();
    const list: ShadowPage[] = [];
    for (const sp of [...m.pages.active]) if (!sp.invalid) prepareZap(m, sp, list);
    commitZap(m, list);
  }

  get pages(): KvmMmu['pages'] {
    const m = this.context;
    return { shadow: m.pages.used, unsync: m.unsyncPages, p4k: m.p4k, p2m: m.p2m, p1g: 0 };
  }
}

export const createShadowMmu = (deps: MmuDeps): ShadowMmu => new ShadowMmu(deps);
