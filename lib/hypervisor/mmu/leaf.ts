/**
 * Leaf entries: what they permit, how they are installed, and when a frame may be writable (KVM-3.3 item 8, KVM-3.4;
 * KVM's make_spte, mmu_set_spte, mmu_try_to_unsync_pages).
 *
 * Accessed and dirty bits of sptes are kept exactly as KVM keeps them: they decide which rewrites are "spurious" and
 * which ask for a flush (measured B11, B18).
 */
import type { ShadowContext } from './context.js';
import type { ShadowPage } from './pages.js';
import {
  ACC,
  addressHigh,
  addressOf,
  HOST_WRITABLE,
  isMmio,
  MMU_PRESENT,
  MMU_WRITABLE,
  mmioGfn,
  mmioHi,
  mmioLo,
  PAGES_AT,
  PT,
  PT_NX,
} from './spte.js';
import { traceSpte } from './trace.js';
import { markUnsync } from './unsync.js';
import { dropLink } from './zap.js';

/** Results of `setLeaf`. */
export const SET = { fixed: 0, spurious: 1, emulate: 2 } as const;

/** How an entry comes to be: by a fault on it, by prefetch, or by a sync of its table. */
export const WHY = { fault: 0, prefetch: 1, sync: 2 } as const;

/** mmu_try_to_unsync_pages: true when the frame must stay write-protected. Otherwise its tables are unsync now. */
const mustProtect = (m: ShadowContext, gfn: number, why: number): boolean => {
  if (m.frames.tracked(gfn)) return true;
  for (let sp = m.pages.ofGfn(m.pages.chain(gfn), gfn); sp !== undefined; sp = m.pages.ofGfn(sp.next, gfn)) {
    if (sp.direct) continue;
    if (why === WHY.sync) return true;
    if (sp.unsync) continue;
    if (why === WHY.prefetch) return true;
    markUnsync(m, sp);
  }
  return false;
};

/** make_spte; the result is in `m.made`. @param oldLo the entry's present low half: what is writable already need not be looked up */
export const makeLeaf = (
  m: ShadowContext,
  sp: ShadowPage,
  access: number,
  gfn: number,
  hpa: number,
  oldLo: number,
  why: number,
): void => {
  const { made } = m;
  let lo =
    ((hpa | PT.p | MMU_PRESENT | HOST_WRITABLE | (access & ACC.u)) >>> 0) | (why === WHY.fault ? PT.a : 0);
  let executable = (access & ACC.x) !== 0;
  if (sp.level > 1) {
    lo |= PT.ps;
    if (m.options.nxHugePages) executable = false;
  }
  made.protected = false;
  if ((access & ACC.w) !== 0) {
    if ((oldLo & PT.w) !== 0) {
      lo |= PT.w | MMU_WRITABLE;
    } else if (mustProtect(m, gfn, why)) {
      made.protected = true;
    } else {
      lo |= PT.w | MMU_WRITABLE | PT.d;
    }
  }
  made.lo = lo >>> 0;
  made.hi = (addressHigh(hpa) | (executable ? 0 : PT_NX)) >>> 0;
};

/** mmu_spte_update: whether replacing a present entry takes a right, or an accessed or dirty bit, away. */
export const needsFlush = (oldLo: number, newLo: number): boolean =>
  (oldLo & MMU_PRESENT) !== 0 && (oldLo & ~newLo & (PT.w | PT.a | PT.d)) !== 0;

/** mark_mmio_spte. */
export const setMmio = (m: ShadowContext, at: number, gfn: number, access: number): void => {
  m.trace.sinks.mark_mmio_spte?.({ sptep: at, gfn, access, gen: m.generation });
  m.put(at, mmioLo(gfn, access, m.generation), mmioHi(gfn, m.generation));
};
/** sync_mmio_spte: true when the entry was one for MMIO, now up to date or gone. */
export const syncMmio = (m: ShadowContext, at: number, gfn: number, access: number): boolean => {
  const lo = m.lo(at);
  const hi = m.hi(at);
  if (!isMmio(lo, hi)) return false;
  if (mmioGfn(lo, hi) !== gfn) m.put(at, 0, 0);
  else setMmio(m, at, gfn, access);
  return true;
};

/**
 * mmu_set_spte. @param hpa host-physical address of the page, undefined for MMIO
 * @param write the access that faulted is a write
 */
export const setLeaf = (
  m: ShadowContext,
  sp: ShadowPage,
  at: number,
  access: number,
  gfn: number,
  hpa: number | undefined,
  write: boolean,
  why: number,
): number => {
  if (hpa === undefined) {
    if ((m.lo(at) & MMU_PRESENT) !== 0) {
      m.dropLeaf(sp, at);
      m.flushRemote();
    }
    m.stats.pf_mmio_spte_created++;
    setMmio(m, at, gfn, access);
    return SET.emulate;
  }
  let flush = false;
  let mapped = false;
  let oldLo = m.lo(at);
  if ((oldLo & MMU_PRESENT) !== 0) {
    const child = m.child(at, sp.level);
    if (child !== undefined) {
      dropLink(m, child, at);
      flush = true;
      oldLo = 0;
    } else if (addressOf(oldLo, m.hi(at)) !== hpa || sp.gfnAt((at & 0xfff) >>> 3) !== gfn) {
      m.dropLeaf(sp, at);
      flush = true;
      oldLo = 0;
    } else {
      mapped = true;
    }
  } else {
    oldLo = 0;
  }
  makeLeaf(m, sp, access, gfn, hpa, oldLo, why);
  let result: number = SET.fixed;
  const { lo, hi } = m.made;
  if (mapped && oldLo === lo && m.hi(at) === hi) {
    result = SET.spurious;
  } else {
    if (needsFlush(oldLo, lo)) flush = true;
    m.put(at, lo, hi);
    traceSpte(m.trace, at, sp.level, gfn, lo, hi);
  }
  if (m.made.protected && write) result = SET.emulate;
  if (flush) m.flushRemote();
  if (!mapped) m.addRmap(sp, at, gfn);
  return result;
};

/** kvm_mmu_page_get_gfn's base for an entry at a level: the first frame of the page that it maps. */
export const firstFrame = (gfn: number, level: number): number => gfn - (gfn % PAGES_AT[level]);
