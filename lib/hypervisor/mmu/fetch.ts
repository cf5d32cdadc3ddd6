/**
 * The shadow page fault (KVM-3.3): the guest walk decides whose fault it is, then the shadow tables are built down to
 * the leaf, and neighbours are filled ahead (KVM-7.1.8, KVM-7.1.12). KVM's FNAME(page_fault), FNAME(fetch). Without
 * guest paging there is no guest walk and every table is a direct one (nonpaging_page_fault, __direct_map).
 */
import { PF } from '../../isa/state.js';
import { APIC_GFN, type ShadowContext } from './context.js';
import { injectWalkFault } from './invalidate.js';
import { firstFrame, SET, setLeaf, WHY } from './leaf.js';
import type { PageFaultResult } from './mmu.js';
import type { ShadowPage } from './pages.js';
import { childRole } from './roles.js';
import { ACC, addressHigh, indexAt, MMU_PRESENT, PAGES_AT, TABLE_LO } from './spte.js';
import { prefetchEntry, syncChildren, syncOrZap } from './sync.js';
import { shadowPageFields } from './trace.js';
import { markEntryUnsync } from './unsync.js';
import { commitZap, dropLink, makePagesAvailable, prepareZap } from './zap.js';

/** Entries of an aligned group that is filled at once. */
const GROUP = 8;

/** One pass over the guest's and the shadow tables. */
export const shadowFault = (m: ShadowContext, gva: bigint, code: number): PageFaultResult => {
  const lo = Number(gva & 0xffff_ffffn);
  const hi = Number((gva >> 32n) & 0xffff_ffffn);
  if (m.mode.levels === 0) return directFault(m, gva, code);
  const w = m.walker;
  const write = (code & PF.w) !== 0;
  const user = (code & PF.u) !== 0;
  if (!w.walk(m.mode, lo, hi, code & (PF.w | PF.u | PF.i))) {
    injectWalkFault(m, gva, w.code);
    return 'guest';
  }
  const gfn = w.gfn;
  // a write to a tracked frame cannot be fixed; the tables on the way are in use (measured B5)
  if ((code & (PF.p | PF.w | PF.rsvd)) === (PF.p | PF.w) && m.frames.tracked(gfn)) {
    clearFloods(m, lo, hi);
    return 'emulate';
  }
  const most = mapsItsOwnTables(m, user) ? 1 : w.level;
  const hpa = m.slots.frame(gfn);
  if (hpa === undefined) {
    if (gfn === APIC_GFN && m.apicPage) return 'emulate';
    m.cacheMmio(gva, gfn);
    if (m.options.mmioCaching === false) return 'emulate';
  } else if (write && (w.access & ACC.w) === 0 && !m.mode.wp && !user) {
    // CR0.WP = 0: the kernel writes to a read-only page through a mapping that users cannot use
    w.access = (w.access | ACC.w) & ~ACC.u;
    if (m.mode.smep) w.access &= ~ACC.x;
  }
  makePagesAvailable(m);
  return outcome(fetch(m, lo, hi, gfn, hpa, most, code));
};

const outcome = (result: number): PageFaultResult =>
  result === SET.fixed ? 'fixed' : result === SET.spurious ? 'spurious' : 'emulate';

/** direct_page_fault of a guest without paging: linear addresses are guest-physical. */
const directFault = (m: ShadowContext, gva: bigint, code: number): PageFaultResult => {
  const lo = Number(gva & 0xffff_ffffn);
  const gfn = lo >>> 12;
  if ((code & (PF.p | PF.w | PF.rsvd)) === (PF.p | PF.w) && m.frames.tracked(gfn)) return 'emulate';
  const hpa = m.slots.frame(gfn);
  if (hpa === undefined) {
    if (gfn === APIC_GFN && m.apicPage) return 'emulate';
    m.cacheMmio(gva, gfn);
  }
  makePagesAvailable(m);
  const sp = m.top(lo) as ShadowPage;
  return outcome(fetchDirect(m, sp, sp.level, lo, 0, gfn, hpa, 2, ACC.all, code));
};

/** shadow_page_table_clear_flood: every table on the shadow walk of the address. */
const clearFloods = (m: ShadowContext, lo: number, hi: number): void => {
  let sp = m.top(lo);
  while (sp !== undefined) {
    sp.floods = 0;
    sp = m.child(sp.hpa + indexAt(lo, hi, sp.level) * 8, sp.level);
  }
};

/** is_self_change_mapping: the page, writable, covers a table of its own walk, so it must not be large. */
const mapsItsOwnTables = (m: ShadowContext, user: boolean): boolean => {
  const w = m.walker;
  if ((w.access & ACC.w) === 0 && (m.mode.wp || user)) return false;
  const first = firstFrame(w.gfn, w.level);
  for (let level = w.level; level <= w.top; level++) {
    const table = w.tableGfn[level];
    if (table >= first && table < first + PAGES_AT[w.level]) return true;
  }
  return false;
};

const fetch = (
  m: ShadowContext,
  lo: number,
  hi: number,
  gfn: number,
  hpa: number | undefined,
  most: number,
  code: number,
): number => {
  const w = m.walker;
  let sp = m.top(lo) as ShadowPage;
  let { level } = sp;
  let at = sp.hpa + indexAt(lo, hi, level) * 8;
  // the guest's own tables
  for (; ; at = sp.hpa + indexAt(lo, hi, level) * 8) {
    sp.floods = 0;
    if (level === w.level) break;
    const table = w.tableGfn[level - 1];
    const role = childRole(sp.role, at, w.pathAccess[level - 1], false);
    let child = m.child(at, level);
    if (child === undefined || child.gfn !== table || child.role !== role) {
      child = shadowPageFor(m, table, role);
      if (child.unsyncChildren > 0) syncChildren(m, child);
      link(m, sp, at, child);
    }
    sp = child;
    level--;
  }
  return fetchDirect(m, sp, level, lo, hi, gfn, hpa, most, w.access, code);
};

/**
 * From the entry at `level` of `top` down to the leaf: pieces of a large guest page, as large as the shadowed tables
 * allow.
 * @param most level of the largest possible page
 * @param direct access rights of the guest's page
 */
const fetchDirect = (
  m: ShadowContext,
  top: ShadowPage,
  topLevel: number,
  lo: number,
  hi: number,
  gfn: number,
  hpa: number | undefined,
  most: number,
  direct: number,
  code: number,
): number => {
  let sp = top;
  let level = topLevel;
  let at = sp.hpa + indexAt(lo, hi, level) * 8;
  const split = m.options.nxHugePages && (code & PF.i) !== 0;
  const allowed = most > 1 && hpa !== undefined ? m.frames.largestLevel(gfn, most) : 1;
  let goal = split ? 1 : allowed;
  m.trace.sinks.kvm_mmu_spte_requested?.({
    gfn,
    pfn: Math.floor((hpa ?? 0) / 4096),
    level: goal,
  });
  for (; ; at = sp.hpa + indexAt(lo, hi, level) * 8) {
    sp.floods = 0;
    if (m.options.nxHugePages && goal > 1 && level === goal && m.child(at, level) !== undefined) goal = 1;
    if (level === goal) break;
    let child = m.child(at, level);
    if (child !== undefined && child.access !== direct) {
      // the guest's page turned from clean to dirty, or back: the pieces have other rights (measured B12)
      dropLink(m, child, at);
      m.flushRemote();
      child = undefined;
    }
    const first = firstFrame(gfn, level);
    const role = childRole(sp.role, at, direct, true);
    if (child === undefined || child.gfn !== first || child.role !== role) {
      child = shadowPageFor(m, first, role);
      link(m, sp, at, child);
      if (split && allowed >= level && !child.splitForNx) {
        child.splitForNx = true;
        m.stats.nx_lpage_splits++;
      }
    }
    sp = child;
    level--;
  }
  const first = firstFrame(gfn, goal);
  const frame = goal === 1 || hpa === undefined ? hpa : hpa - (gfn - first) * 4096;
  const result = setLeaf(m, sp, at, direct, first, frame, (code & PF.w) !== 0, WHY.fault);
  if (result !== SET.spurious && sp.level === 1) {
    if (sp.direct) prefetchDirect(m, sp, at);
    else prefetch(m, sp, at);
  }
  return result;
};

/** kvm_mmu_get_shadow_page: from the hash, synced in passing if unsync, or new. */
export const shadowPageFor = (m: ShadowContext, gfn: number, role: number): ShadowPage => {
  const list: ShadowPage[] = [];
  const upper = (role & 15) > 1;
  let collisions = 0;
  let found: ShadowPage | undefined;
  for (let sp = m.pages.chain(gfn), next = sp?.next; sp !== undefined; sp = next, next = sp?.next) {
    if (sp.gfn !== gfn) {
      collisions++;
      continue;
    }
    if (sp.role !== role) {
      // the frame becomes an upper table, and those are write-protected: what was written since is old (measured B13)
      if (upper && sp.unsync) prepareZap(m, sp, list);
      continue;
    }
    if (sp.unsync) {
      // synced for this use only: it stays writable and unsync
      const result = syncOrZap(m, sp, list);
      if (result < 0) break;
      if (result > 0) m.flushRemote();
    }
    if (!sp.direct) sp.floods = 0;
    found = sp;
    break;
  }
  if (found === undefined) m.stats.mmu_cache_miss++;
  commitZap(m, list);
  m.pages.noteCollisions(collisions);
  const sp = found ?? create(m, gfn, role);
  m.trace.sinks.kvm_mmu_get_page?.({ ...shadowPageFields(sp), created: found === undefined });
  return sp;
};

/** kvm_mmu_alloc_shadow_page: a shadowed frame is write-protected in every mapping and forbids large pages around it. */
const create = (m: ShadowContext, gfn: number, role: number): ShadowPage => {
  const sp = m.pages.create(gfn, role);
  if (!sp.direct) {
    m.frames.account(gfn, sp.level, 1);
    if (m.writeProtect(gfn)) m.flushRemote();
  }
  return sp;
};

/** link_shadow_page: what was there goes; marks go up when the child is unsync. */
const link = (m: ShadowContext, parent: ShadowPage, at: number, child: ShadowPage): void => {
  if ((m.lo(at) & MMU_PRESENT) !== 0) {
    const old = m.child(at, parent.level);
    if (old !== undefined) dropLink(m, old, at);
    else m.dropLeaf(parent, at);
    m.flushRemote();
  }
  m.put(at, (TABLE_LO | child.hpa) >>> 0, addressHigh(child.hpa));
  child.parents.push(at);
  if (child.unsyncChildren > 0 || child.unsync) markEntryUnsync(m, at);
};

/** FNAME(pte_prefetch): the aligned group from its start, up to the first guest entry that is not present and accessed. */
const prefetch = (m: ShadowContext, sp: ShadowPage, at: number): void => {
  const table = m.slots.frame(sp.gfn);
  if (table === undefined) return;
  const offset = at & 0xff8 & ~(GROUP * 8 - 1);
  const guest = sp.narrow ? table + sp.quadrant * 2048 + (offset >>> 1) : table + offset;
  for (let i = 0; i < GROUP; i++) {
    const entry = sp.hpa + offset + i * 8;
    if (entry === at || (m.lo(entry) & MMU_PRESENT) !== 0) continue;
    if (!prefetchEntry(m, sp, entry, guest + i * (sp.narrow ? 4 : 8))) return;
  }
};

/**
 * __direct_pte_prefetch: the runs of absent entries in the group, each as far as the host has frames; a run that begins
 * with a frame it has not ends the prefetch.
 */
const prefetchDirect = (m: ShadowContext, sp: ShadowPage, at: number): void => {
  const start = sp.hpa + (at & 0xff8 & ~(GROUP * 8 - 1));
  let inRun = false;
  let ended = false;
  for (let i = 0; i < GROUP; i++) {
    const entry = start + i * 8;
    if (entry === at || (m.lo(entry) & MMU_PRESENT) !== 0) {
      inRun = false;
      ended = false;
      continue;
    }
    if (ended) continue;
    const gfn = sp.gfnAt((entry & 0xfff) >>> 3);
    const hpa = m.slots.backed(gfn);
    if (hpa === undefined) {
      if (!inRun) return;
      ended = true;
      continue;
    }
    inRun = true;
    setLeaf(m, sp, entry, sp.access, gfn, hpa, false, WHY.prefetch);
  }
};

/** The spte that maps an address under a table, or the last one found; for INVLPG and MMIO lookups. */
export const leafOf = (m: ShadowContext, root: ShadowPage, lo: number, hi: number): number => {
  let sp = root;
  for (;;) {
    const at = sp.hpa + indexAt(lo, hi, sp.level) * 8;
    const child = m.child(at, sp.level);
    if (child === undefined) return at;
    sp = child;
  }
};
