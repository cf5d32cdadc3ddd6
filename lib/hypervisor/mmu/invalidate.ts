/**
 * INVLPG, INVPCID of an address, and the refresh of one address when a fault goes to the guest (KVM-3.4, measured B8,
 * B14; KVM's kvm_mmu_invalidate_gva and FNAME(invlpg)).
 *
 * Only a leaf whose table is unsync can be stale: it is dropped and read again from the guest.
 */
import { PF } from '../../isa/state.js';
import type { ShadowContext } from './context.js';
import type { ShadowPage } from './pages.js';
import { indexAt } from './spte.js';
import { guestEntry, prefetchEntry } from './sync.js';
import { zapEntry } from './zap.js';

const canonical = (gva: bigint): boolean => {
  const top = BigInt.asUintN(64, gva) >> 47n;
  return top === 0n || top === 0x1_ffffn;
};

/** FNAME(invlpg) below one table. */
const invalidateUnder = (m: ShadowContext, root: ShadowPage | undefined, gva: bigint): void => {
  const lo = Number(gva & 0xffff_ffffn);
  const hi = Number((gva >> 32n) & 0xffff_ffffn);
  if (root === undefined) return;
  if (m.mmio.page === gva >> 12n) m.clearMmio();
  let sp = root;
  for (let { level } = sp; ; level--) {
    const at = sp.hpa + indexAt(lo, hi, level) * 8;
    const child = m.child(at, level);
    if (child === undefined) {
      if (!sp.unsync) return;
      if (zapEntry(m, sp, at)) m.flushRemote();
      const guest = guestEntry(m, sp, at);
      if (guest !== undefined) prefetchEntry(m, sp, at, guest);
      return;
    }
    if (sp.unsyncChildren === 0) return;
    sp = child;
  }
};

/** Under the current root. Without paging nothing of the guest's can be stale. */
const invalidateCurrent = (m: ShadowContext, gva: bigint): void => {
  if (m.mode.levels !== 0) invalidateUnder(m, m.top(Number(gva & 0xffff_ffffn)), gva);
};

/** Under the current root (kvm_inject_emulated_page_fault), then the fault goes to the guest. @param code as the guest's own walk has it */
export const injectWalkFault = (m: ShadowContext, gva: bigint, code: number): void => {
  if ((code & (PF.p | PF.rsvd)) === PF.p && canonical(gva)) {
    m.vcpu.flushAddress(gva);
    invalidateCurrent(m, gva);
  }
  m.vcpu.injectPageFault({ code, address: gva });
};

/** kvm_mmu_invlpg: current and previous roots, since global mappings belong to every PCID. */
export const invalidateAddress = (m: ShadowContext, gva: bigint): void => {
  if (!canonical(gva)) return;
  m.vcpu.flushAddress(gva);
  invalidateCurrent(m, gva);
  for (const root of m.previous) invalidateUnder(m, root.sp, gva);
};

/** kvm_mmu_invpcid_gva: the roots of that PCID. */
export const invalidateAddressOf = (m: ShadowContext, pcid: number, active: number, gva: bigint): void => {
  let flush = false;
  if (pcid === active) {
    invalidateCurrent(m, gva);
    flush = true;
  }
  for (const root of m.previous) {
    if (root.sp === undefined || root.pgd % 4096 !== pcid) continue;
    invalidateUnder(m, root.sp, gva);
    flush = true;
  }
  if (flush) m.vcpu.flushAddress(gva);
};
