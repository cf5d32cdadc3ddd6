/**
 * Emulated stores to shadowed tables (KVM-3.4, KVM-7.1.9, measured B5 to B7; KVM's kvm_mmu_pte_write): the entries
 * written are cleared, and a table that is written again and again without being used is no table any more.
 */
import type { ShadowContext } from './context.js';
import type { ShadowPage } from './pages.js';
import { flushOrZap, prepareZap, zapEntry } from './zap.js';

/** The third emulated write without use in between zaps an upper table. */
const FLOOD_LIMIT = 3;

/** detect_write_misaligned: not a whole entry. A single aligned byte is a status bit being changed. */
const misaligned = (offset: number, bytes: number): boolean => {
  if (bytes === 1 && offset % 8 === 0) return false;
  return bytes < 4 || offset >>> 3 !== (offset + bytes - 1) >>> 3;
};
const flooded = (sp: ShadowPage): boolean => sp.level > 1 && ++sp.floods >= FLOOD_LIMIT;

export const pteWrite = (m: ShadowContext, address: number, value: bigint, size: number): void => {
  if (m.pages.indirect === 0) return;
  m.stats.mmu_pte_write++;
  const gfn = Math.floor(address / 4096);
  let offset = address % 4096;
  let bytes = size;
  let nonZero = value !== 0n && (size === 8 || size === 4);
  // one half of an entry: looked at as the whole
  if (bytes === 4) {
    bytes = 8;
    offset &= ~7;
    const frame = m.slots.backed(gfn);
    nonZero = frame !== undefined && (m.lo(frame + offset) | m.hi(frame + offset)) !== 0;
  }
  const list: ShadowPage[] = [];
  let flush = false;
  for (
    let sp = m.pages.ofGfn(m.pages.chain(gfn), gfn), next: ShadowPage | undefined;
    sp !== undefined;
    sp = next
  ) {
    next = m.pages.ofGfn(sp.next, gfn);
    if (sp.direct || sp.invalid) continue;
    if (misaligned(offset, bytes) || flooded(sp)) {
      prepareZap(m, sp, list);
      m.stats.mmu_flooded++;
      continue;
    }
    if (zapEntry(m, sp, sp.hpa + (offset & ~7))) flush = true;
    if (nonZero && sp.level > 1) m.stats.mmu_pde_zapped++;
  }
  flushOrZap(m, list, flush);
};
