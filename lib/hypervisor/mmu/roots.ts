/**
 * Roots: the current one and three before it, loads of CR3, and the requests that are handled before entry
 * (KVM-3.2, KVM-3.6, measured B3; KVM's fast_pgd_switch, kvm_invalidate_pcid, kvm_mmu_load, kvm_mmu_sync_roots).
 *
 * A root that is dropped stays in the hash: loading the same CR3 later finds its tables again. Guests that do not use
 * 4-level paging get a PAE root of four page directories, built anew at each load (KVM's mmu_alloc_shadow_roots,
 * mmu_alloc_direct_roots).
 */
import { CR4 } from '../../isa/state.js';
import type { Root, ShadowContext } from './context.js';
import { shadowPageFor } from './fetch.js';
import type { ShadowPage } from './pages.js';
import { directoryRole } from './roles.js';
import { addressHigh, PT } from './spte.js';
import { syncChildren } from './sync.js';
import { commitZap, makePagesAvailable, prepareZap } from './zap.js';

const pcidEnabled = (m: ShadowContext): boolean => (m.vcpu.cr4 & CR4.pcide) !== 0;
/** kvm_get_active_pcid. */
export const activePcid = (m: ShadowContext): number => (pcidEnabled(m) ? m.vcpu.cr3 % 4096 : 0);

const swap = (a: Root, b: Root): void => {
  const { sp, pgd } = a;
  a.sp = b.sp;
  a.pgd = b.pgd;
  b.sp = sp;
  b.pgd = pgd;
};
const usable = (m: ShadowContext, root: Root, pgd: number): boolean =>
  root.sp !== undefined && root.pgd === pgd && !root.sp.invalid && root.sp.role === m.role;

/** mmu_free_root_page, without the flush. */
const release = (m: ShadowContext, root: Root, list: ShadowPage[]): void => {
  const { sp } = root;
  if (sp === undefined) return;
  root.sp = undefined;
  root.pgd = 0;
  if (--sp.rootCount === 0 && sp.invalid) prepareZap(m, sp, list);
};
const releasePae = (m: ShadowContext, list: ShadowPage[]): void => {
  const { pae } = m;
  if (!pae.loaded) return;
  pae.loaded = false;
  for (let i = 0; i < 4; i++) {
    const sp = pae.directories[i];
    pae.directories[i] = undefined;
    if (sp !== undefined && --sp.rootCount === 0 && sp.invalid) prepareZap(m, sp, list);
  }
};
const freeRoots = (m: ShadowContext, which: (root: Root) => boolean): void => {
  const list: ShadowPage[] = [];
  for (const root of m.previous) if (which(root)) release(m, root, list);
  if (which(m.root)) {
    release(m, m.root, list);
    releasePae(m, list);
  }
  commitZap(m, list);
};
export const freeCurrentRoot = (m: ShadowContext): void => freeRoots(m, (root) => root === m.root);
/** kvm_mmu_unload. */
export const freeAllRoots = (m: ShadowContext): void => freeRoots(m, () => true);

/** fast_pgd_switch: true when a root for `pgd` is current now. */
const fastSwitch = (m: ShadowContext, pgd: number): boolean => {
  const { root, previous } = m;
  // a PAE root is not kept: its PDPTEs may have changed
  if (m.pae.loaded) freeCurrentRoot(m);
  if (root.sp !== undefined) {
    if (usable(m, root, pgd)) return true;
    for (const other of previous) {
      swap(root, other);
      if (usable(m, root, pgd)) return true;
    }
    freeRoots(m, (r) => r === root);
    return false;
  }
  for (let i = 0; i < previous.length; i++) {
    if (!usable(m, previous[i], pgd)) continue;
    swap(root, previous[i]);
    for (; i < previous.length - 1; i++) swap(previous[i], previous[i + 1]);
    return true;
  }
  return false;
};

/** kvm_set_cr3 once CR3 has its new value. */
export const newCr3 = (m: ShadowContext, old: number, flush: boolean): void => {
  const pgd = m.vcpu.cr3;
  if (pgd !== old && fastSwitch(m, pgd)) {
    m.requests.load = true;
    m.clearMmio();
    (m.root.sp as ShadowPage).floods = 0;
  }
  if (flush) invalidatePcid(m, pcidEnabled(m) ? pgd % 4096 : 0);
};

/** kvm_invalidate_pcid: the active one is synced before entry; other cached roots of the PCID are dropped. */
export const invalidatePcid = (m: ShadowContext, pcid: number): void => {
  if (activePcid(m) === pcid) {
    m.requests.sync = true;
    m.vcpu.requestTlbFlush();
  }
  if (!pcidEnabled(m)) return;
  freeRoots(m, (root) => root !== m.root && root.sp !== undefined && root.pgd % 4096 === pcid);
};

const stale = (sp: ShadowPage | undefined): boolean =>
  sp !== undefined && (sp.unsync || sp.unsyncChildren > 0);

/** kvm_mmu_sync_roots. */
const syncRoot = (m: ShadowContext): void => {
  if (m.mode.levels === 0 || !m.rooted) return;
  m.clearMmio();
  const { sp } = m.root;
  if (sp !== undefined && stale(sp)) syncChildren(m, sp);
  if (m.pae.loaded) for (const d of m.pae.directories) if (d !== undefined) syncChildren(m, d);
};

/** kvm_mmu_load_pgd: the hardware's CR3 has the shadow root and the guest's PCID. */
const loadPgd = (m: ShadowContext): void => {
  const { sp } = m.root;
  if (sp !== undefined) m.vcpu.setRoot(sp.hpa + activePcid(m));
  else if (m.pae.loaded) m.vcpu.setRoot(m.pae.table);
};

/** Guest frame of each of the four page directories; -1 where there is none. Undefined when one is not in guest memory. */
const directoryFrames = (m: ShadowContext): number[] | undefined => {
  const gfn = Math.floor(m.vcpu.cr3 / 4096);
  const { levels } = m.mode;
  if (levels === 0) return [0, 1, 2, 3].map((i) => i * 0x4_0000);
  if (m.slots.frame(gfn) === undefined) return undefined;
  const frames = [0, 1, 2, 3].map((i) => {
    if (levels === 2) return gfn;
    const pdpte = m.vcpu.pdpte(i);
    return (pdpte & 1n) === 0n ? -1 : Number((pdpte >> 12n) & 0xff_ffff_ffffn);
  });
  return frames.every((f) => f < 0 || m.slots.frame(f) !== undefined) ? frames : undefined;
};

/** A PAE root: without paging each directory maps a gigabyte directly; of 4-byte tables each shadows a quarter. */
const loadPaeRoot = (m: ShadowContext): boolean => {
  const { pae, role } = m;
  const frames = directoryFrames(m);
  if (frames === undefined) return false;
  if (pae.table < 0) pae.table = m.pages.extraPage();
  makePagesAvailable(m);
  for (const [i, gfn] of frames.entries()) {
    const at = pae.table + 8 * i;
    if (gfn < 0) {
      m.put(at, 0, 0);
      continue;
    }
    const sp = shadowPageFor(m, gfn, directoryRole(role, m.mode.levels === 2 ? i : 0));
    sp.rootCount++;
    pae.directories[i] = sp;
    m.put(at, (sp.hpa | PT.p) >>> 0, addressHigh(sp.hpa));
  }
  pae.loaded = true;
  m.root.pgd = m.vcpu.cr3;
  return true;
};

/** kvm_mmu_load. False when CR3 points outside guest memory. */
const loadRoot = (m: ShadowContext): boolean => {
  if (m.mode.levels !== 4) {
    if (!loadPaeRoot(m)) return false;
  } else {
    const pgd = m.vcpu.cr3;
    const gfn = Math.floor(pgd / 4096);
    const { role } = m;
    if (m.slots.frame(gfn) === undefined) return false;
    makePagesAvailable(m);
    const sp = shadowPageFor(m, gfn, role);
    sp.rootCount++;
    m.root.sp = sp;
    m.root.pgd = pgd;
  }
  syncRoot(m);
  loadPgd(m);
  m.vcpu.flushVpid();
  return true;
};

/** The requests, in vcpu_enter_guest's order, then kvm_mmu_reload. */
export const reload = (m: ShadowContext): boolean => {
  const { requests } = m;
  if (requests.freeObsolete) {
    requests.freeObsolete = false;
    freeRoots(m, (root) => root.sp?.invalid === true || (root === m.root && m.pae.loaded));
  }
  if (requests.sync) {
    requests.sync = false;
    syncRoot(m);
  }
  if (requests.load) {
    requests.load = false;
    loadPgd(m);
  }
  if (requests.flushGuest) {
    requests.flushGuest = false;
    syncRoot(m);
    // the previous ones are synced by being dropped
    freeRoots(m, (root) => root !== m.root && stale(root.sp));
  }
  return m.rooted || loadRoot(m);
};
