/**
 * One walk of the extended page tables: guest-physical to host-physical address.
 *
 * SDM volume 3, "The Extended Page Table Mechanism (EPT)": "EPT Translation Mechanism", "EPT Misconfigurations", "EPT
 * Violations", "Accessed and Dirty Flags for EPT". Four levels, pages of 4 KiB, 2 MiB and 1 GiB. Memory types are
 * checked but have no effect.
 */
import { EPTE, frameAddress, type PendingBits, RESERVED_HI, WALK } from './paging.js';
import type { Ram } from './ram.js';

export class EptWalk {
  readonly #ram: Ram;
  /** Execute-only translations are allowed, as IA32_VMX_EPT_VPID_CAP bit 0 says. */
  executeOnly = true;
  /** EPT entries read since the counter was cleared. */
  references = 0;
  /** Results of the last walk: address, product of the R, W and X bits, log2 of the page size, and whether the leaf is dirty. */
  hpa = 0;
  rights = 0;
  shift = 12;
  dirty = false;

  constructor(ram: Ram) {
    this.#ram = ram;
  }

  /**
   * Translates `gpa` for an access that needs the rights `need` (`EPTE.r`, `w`, `x`).
   * @param root host-physical address of the top table
   * @param ad accessed and dirty flags are enabled; updates go to `pending`
   * @param probing no rights are needed and nothing is updated
   */
  walk(root: number, ad: boolean, gpa: number, need: number, pending: PendingBits, probing: boolean): number {
    const ram = this.#ram;
    let table = root;
    let rights: number = EPTE.rwx;
    for (let shift = 39; ; shift -= 9) {
      const at = table + (Math.floor(gpa / 2 ** shift) & 511) * 8;
      this.references++;
      let lo = -1;
      let hi = -1;
      if (ram.has(at, 8)) {
        const i = (ram.base + at) >>> 2;
        lo = ram.u32[i];
        hi = ram.u32[i + 1];
      }
      rights &= lo;
      this.rights = rights;
      if ((lo & EPTE.rwx) === 0) return WALK.violation;
      const leaf = shift === 12 || ((lo & EPTE.ps) !== 0 && shift !== 39);
      if (this.#malformed(lo, hi, shift, leaf)) return WALK.misconfiguration;
      if (ad && !probing) {
        const wanted = leaf && (need & EPTE.w) !== 0 ? EPTE.a | EPTE.d : EPTE.a;
        if ((lo & wanted) !== wanted) pending.add(at, wanted);
      }
      if (!leaf) {
        table = frameAddress(lo, hi);
        continue;
      }
      const size = 2 ** shift;
      this.hpa = frameAddress(lo, hi) + (gpa % size);
      this.shift = shift;
      this.dirty = !ad || (lo & EPTE.d) !== 0 || (need & EPTE.w) !== 0;
      return probing || (need & ~rights) === 0 ? WALK.done : WALK.violation;
    }
  }

  #malformed(lo: number, hi: number, shift: number, leaf: boolean): boolean {
    if ((lo & 3) === 2 || (hi & RESERVED_HI) !== 0) return true;
    if (!this.executeOnly && (lo & EPTE.rwx) === EPTE.x) return true;
    if (!leaf) return (lo & (shift === 39 ? 0xf8 : 0x78)) !== 0;
    if (shift === 30 && (lo & 0x3fff_f000) !== 0) return true;
    if (shift === 21 && (lo & 0x001f_f000) !== 0) return true;
    const type = (lo >> 3) & 7;
    return type === 2 || type === 3 || type === 7;
  }
}
