/**
 * Emulated stores to shadowed tables (KVM-3.4, KVM-7.1.9, measured B5 to B7; KVM's kvm_mmu_pte_write): the entries
 * written are cleared, and a table that is written again and again without being used is no table any more.
 */
import { CR4 } from '../../isa/state.js';
import type { ShadowContext } from './context.js';
import type { ShadowPage } from './pages.js';
import { flushOrZap, prepareZap, zapEntry } from './zap.js';

/** The third emulated write without use in between zaps an upper table. */
const FLOOD_LIMIT = 3;

/** detect_write_misaligned: not a whole entry. A single aligned byte is a status bit being changed. */
const misaligned = (sp: ShadowPage, offset: number, bytes: number): boolean => {
  const shift = sp.narrow ? 2 : 3;
  if (bytes === 1 && offset % (1 << shift) === 0) return false;
  return bytes < 4 || offset >>> shift !== (offset + bytes - 1) >>> shift;
};

/** get_written_sptes: clears the sptes that stand for the written entry; true when one of them mapped something. */
const zapWritten = (m: ShadowContext, sp: ShadowPage, offset: number): boolean => {
  if (!sp.narrow) return zapEntry(m, sp, sp.hpa + (offset & ~7));
  // 4-byte entries: a directory's maps 4 MiB, which takes two sptes
  const wide = sp.level === 2 ? ((offset << 1) & ~7) << 1 : offset << 1;
  if (wide >>> 12 !== sp.quadrant) return false;
  const at = sp.hpa + (wide & 0xff8);
  const first = zapEntry(m, sp, at);
  return sp.level === 2 ? zapEntry(m, sp, at + 8) || first : first;
};
const flooded = (sp: ShadowPage): boolean => sp.level > 1 && ++sp.floods >= FLOOD_LIMIT;

export const pteWrite = (m: ShadowContext, address: number, value: bigint, size: number): void => {
  if (m.pages.indirect === 0) return;
  m.stats.mmu_pte_write++;
  const gfn = Math.floor(address / 4096);
  let offset = address % 4096;
  let bytes = size;
  let nonZero = value !== 0n && (size === 8 || size === 4);
  // one half of an 8-byte entry: looked at as the whole
  if (bytes === 4 && (m.vcpu.cr4 & CR4.pae) !== 0) {
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
    if (misaligned(sp, offset, bytes) || flooded(sp)) {
      prepareZap(m, sp, list);
      m.stats.mmu_flooded++;
      continue;
    }
    if (zapWritten(m, sp, offset)) flush = true;
    if (nonZero && sp.level > 1) m.stats.mmu_pde_zapped++;
  }
  flushOrZap(m, list, flush);
};
