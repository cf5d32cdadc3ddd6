/**
 * Zapping shadow pages: with their unsync children, their links down and up, and their accounting (KVM-3.7; KVM's
 * __kvm_mmu_prepare_zap_page), the recycling of the oldest (KVM-7.1.13), and unshadowing a frame (KVM-7.1.11).
 */
import { InvariantError } from '../../base/error.js';
import type { ShadowContext } from './context.js';
import type { ShadowPage } from './pages.js';
import { MMU_PRESENT, PT } from './spte.js';
import { shadowPageFields } from './trace.js';
import { markSynced, UnsyncRound } from './unsync.js';

/** Recycling starts when fewer are free than this … */
const MIN_FREE = 5;
/** … and stops when this many are. */
const REFILL = 25;

/** Removes a link to a table: its parent pointer and the entry. */
export const dropLink = (m: ShadowContext, child: ShadowPage, at: number): void => {
  const { parents } = child;
  const i = parents.indexOf(at);
  if (i < 0)
    throw new InvariantError(
      `shadow page of frame 0x${child.gfn.toString(16)} does not know the entry that points to it`,
    );
  parents[i] = parents[parents.length - 1];
  parents.pop();
  m.put(at, 0, 0);
};

/** mmu_page_zap_pte: clears one entry, whatever it is. True when it mapped memory or a table. */
export const zapEntry = (m: ShadowContext, sp: ShadowPage, at: number): boolean => {
  const lo = m.lo(at);
  if ((lo & MMU_PRESENT) === 0) {
    if (lo !== 0) m.put(at, 0, 0);
    return false;
  }
  if (sp.level === 1 || (lo & PT.ps) !== 0) m.dropLeaf(sp, at);
  else dropLink(m, m.child(at, sp.level) as ShadowPage, at);
  return true;
};

/** Zaps `sp`; pages that are no longer in use go to `list`, for `commitZap`. Returns how many were zapped beside itself or with it. */
export const prepareZap = (m: ShadowContext, sp: ShadowPage, list: ShadowPage[]): number => {
  m.trace.sinks.kvm_mmu_prepare_zap_page?.(shadowPageFields(sp));
  m.stats.mmu_shadow_zapped++;
  let zapped = sp.level === 1 ? 0 : zapUnsyncChildren(m, sp, list);
  for (let i = 0, at = sp.hpa; i < 512; i++, at += 8) if (m.lo(at) !== 0) zapEntry(m, sp, at);
  while (sp.parents.length > 0) dropLink(m, sp, sp.parents[sp.parents.length - 1]);
  const first = !sp.invalid;
  if (first) {
    if (!sp.direct && sp.gfn < m.frames.end) m.frames.account(sp.gfn, sp.level, -1);
    m.pages.retire(sp);
    if (sp.splitForNx) m.stats.nx_lpage_splits--;
  }
  if (sp.unsync) markSynced(m, sp);
  if (sp.rootCount === 0) {
    zapped++;
    m.pages.used--;
    list.push(sp);
  } else if (first) {
    m.requests.freeObsolete = true;
  }
  return zapped;
};

const zapUnsyncChildren = (m: ShadowContext, sp: ShadowPage, list: ShadowPage[]): number => {
  let zapped = 0;
  const round = new UnsyncRound();
  while (round.collect(m, sp)) {
    for (let i = 0; i < round.count; i++) {
      prepareZap(m, round.leaves[i], list);
      round.clearParents(i);
      zapped++;
    }
  }
  return zapped;
};

/** kvm_mmu_commit_zap_page: one flush, then the frames are free. */
export const commitZap = (m: ShadowContext, list: ShadowPage[]): void => {
  if (list.length === 0) return;
  m.flushRemote();
  for (const sp of list) m.pages.free(sp);
  list.length = 0;
};

/** kvm_mmu_remote_flush_or_zap. */
export const flushOrZap = (m: ShadowContext, list: ShadowPage[], flush: boolean): void => {
  if (list.length > 0) commitZap(m, list);
  else if (flush) m.flushRemote();
};

/** make_mmu_pages_available: before a fault or a root load, the oldest pages that are not roots make room. */
export const makePagesAvailable = (m: ShadowContext): void => {
  const free = m.pages.available;
  if (free >= MIN_FREE) return;
  const list: ShadowPage[] = [];
  let zapped = 0;
  again: while (zapped < REFILL - free) {
    for (const sp of m.pages.active) {
      if (sp.rootCount !== 0) continue;
      zapped += prepareZap(m, sp, list);
      continue again;
    }
    break;
  }
  commitZap(m, list);
  m.stats.mmu_recycled += zapped;
};

/** kvm_mmu_unprotect_page: the frame is a page table no more. */
export const unprotectFrame = (m: ShadowContext, gfn: number): void => {
  const list: ShadowPage[] = [];
  zapTablesOf(m, gfn, list);
  commitZap(m, list);
};

/** Zaps every table that shadows a table in the frame. */
export const zapTablesOf = (m: ShadowContext, gfn: number, list: ShadowPage[]): void => {
  for (;;) {
    let sp = m.pages.ofGfn(m.pages.chain(gfn), gfn);
    while (sp?.direct === true) sp = m.pages.ofGfn(sp.next, gfn);
    if (sp === undefined) return;
    prepareZap(m, sp, list);
  }
};
