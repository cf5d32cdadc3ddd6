/**
 * Bringing shadow tables up to date with the guest's (KVM-3.4, KVM-7.1.10; KVM's sync_page, mmu_sync_children), and
 * filling single entries from guest entries ahead of use (KVM-3.3 item 9).
 *
 * A sync drops an entry only when the guest's is not present, not accessed, or names another frame; otherwise its
 * rights follow the guest's, up as well as down (measured B2, B4). Absent entries are not added.
 */
import type { ShadowContext } from './context.js';
import { makeLeaf, needsFlush, setLeaf, syncMmio, WHY } from './leaf.js';
import type { ShadowPage } from './pages.js';
import { MODE_BITS } from './roles.js';
import { ACC, addressOf, PT, PT_NX } from './spte.js';
import { markSynced, UnsyncRound } from './unsync.js';
import { flushOrZap, prepareZap, zapEntry } from './zap.js';

const gfnOf = (lo: number, hi: number): number => (hi & 0xf_ffff) * 0x10_0000 + (lo >>> 12);

/** The rights of a guest leaf under a shadow page, with the rule that a clean page is not writable. */
const leafAccess = (sp: ShadowPage, lo: number, hi: number): number =>
  sp.access & ((lo & PT.u) | ((lo & PT.d) !== 0 ? lo & PT.w : 0) | (hi >= PT_NX ? 0 : ACC.x));

/** prefetch_invalid_gpte: not present, not accessed or malformed. */
const unusable = (m: ShadowContext, lo: number, hi: number): boolean =>
  (lo & (PT.p | PT.a)) !== (PT.p | PT.a) || m.walker.reserved(m.mode, lo, hi, 1);

/** FNAME(sync_page). 1: sptes lost something, 0: nothing to flush, -1: the table must be zapped. */
const syncPage = (m: ShadowContext, sp: ShadowPage): number => {
  if (sp.direct || ((sp.role ^ m.role) & MODE_BITS) !== 0) return -1;
  const frame = m.slots.frame(sp.gfn);
  if (frame === undefined) return -1;
  const { u32, made } = m;
  const shadow = (sp.hpa + m.base) >>> 2;
  const guest = (frame + m.base + (sp.narrow ? sp.quadrant * 2048 : 0)) >>> 2;
  let flush = 0;
  for (let i = 0; i < 1024; i += 2) {
    const old = u32[shadow + i];
    if (old === 0) continue;
    const at = sp.hpa + i * 4;
    const lo = u32[guest + (sp.narrow ? i >>> 1 : i)];
    const hi = sp.narrow ? 0 : u32[guest + i + 1];
    if (unusable(m, lo, hi)) {
      zapEntry(m, sp, at);
      flush = 1;
      continue;
    }
    const gfn = gfnOf(lo, hi);
    const access = leafAccess(sp, lo, hi);
    if (syncMmio(m, at, gfn, access)) continue;
    if (gfn !== sp.gfnAt(i >>> 1)) {
      m.dropLeaf(sp, at);
      flush = 1;
      continue;
    }
    makeLeaf(m, sp, access, gfn, addressOf(old, u32[shadow + i + 1]), old, WHY.sync);
    if (needsFlush(old, made.lo)) flush = 1;
    u32[shadow + i] = made.lo;
    u32[shadow + i + 1] = made.hi;
  }
  return flush;
};

/** kvm_sync_page: as `syncPage`; a table that cannot be synced is zapped. */
export const syncOrZap = (m: ShadowContext, sp: ShadowPage, list: ShadowPage[]): number => {
  const result = syncPage(m, sp);
  if (result < 0) prepareZap(m, sp, list);
  return result;
};

/** mmu_sync_children: every unsync table below `parent` is write-protected again and synced. */
export const syncChildren = (m: ShadowContext, parent: ShadowPage): void => {
  const list: ShadowPage[] = [];
  const round = new UnsyncRound();
  let flush = false;
  while (round.collect(m, parent)) {
    let protectedOne = false;
    for (let i = 0; i < round.count; i++) if (m.writeProtect(round.leaves[i].gfn)) protectedOne = true;
    if (protectedOne) {
      flushOrZap(m, list, true);
      flush = false;
    }
    for (let i = 0; i < round.count; i++) {
      const sp = round.leaves[i];
      if (sp.unsync) {
        markSynced(m, sp);
        if (syncOrZap(m, sp, list) > 0) flush = true;
      }
      round.clearParents(i);
    }
  }
  flushOrZap(m, list, flush);
};

/** Address of the guest's entry that an spte of a level-1 table shadows; undefined when the table left memory. */
export const guestEntry = (m: ShadowContext, sp: ShadowPage, at: number): number | undefined => {
  const frame = m.slots.frame(sp.gfn);
  if (frame === undefined) return undefined;
  return sp.narrow ? frame + sp.quadrant * 2048 + ((at & 0xff8) >>> 1) : frame + (at & 0xff8);
};

/**
 * FNAME(prefetch_gpte): fills one spte from the guest's entry; false when that is not worth going on after.
 * @param guest address of the guest's entry
 */
export const prefetchEntry = (m: ShadowContext, sp: ShadowPage, at: number, guest: number): boolean => {
  const lo = m.lo(guest);
  const hi = sp.narrow ? 0 : m.hi(guest);
  if (unusable(m, lo, hi)) {
    zapEntry(m, sp, at);
    return false;
  }
  const gfn = gfnOf(lo, hi);
  const hpa = m.slots.backed(gfn);
  if (hpa === undefined) return false;
  setLeaf(m, sp, at, leafAccess(sp, lo, hi), gfn, hpa, false, WHY.prefetch);
  return true;
};
