/**
 * Bits of paging-structure entries, of the processor's own paging and of EPT, as halves of 32 bits.
 *
 * SDM volume 3, "Paging" (formats of the paging-structure entries) and "Format of EPT Paging-Structure Entries".
 * MAXPHYADDR is 40. Protection keys, 5-level paging, mode-based execute control and sub-page permissions do not exist.
 */
export const MAXPHYADDR = 40;

/** Low half of an entry of 4-level, PAE and 32-bit paging. */
export const PTE = { p: 1, w: 2, u: 4, pwt: 8, pcd: 0x10, a: 0x20, d: 0x40, ps: 0x80, g: 0x100 } as const;
/** Execute-disable, in the high half. */
export const PTE_NX_HI = 0x8000_0000;
/** Bits 51:MAXPHYADDR, in the high half; reserved in every kind of entry. */
export const RESERVED_HI = 0x000f_ff00;
/** Reserved low bits of a large page's entry: 20:13 and 29:13 (bit 12 is PAT). */
export const LARGE_RESERVED = { 21: 0x001f_e000, 30: 0x3fff_e000 } as const;

/** Low half of an EPT entry. */
export const EPTE = { r: 1, w: 2, x: 4, rwx: 7, ps: 0x80, a: 0x100, d: 0x200 } as const;

/** Physical address of bits 39:12 of an entry. */
export const frameAddress = (lo: number, hi: number): number =>
  (hi & 0xff) * 0x1_0000_0000 + ((lo & 0xffff_f000) >>> 0);

/** Kinds of paging (`WalkConfig.paging`). */
export const PAGING = { none: 0, bits32: 1, pae: 2, long: 3 } as const;

/** How a walk ended: translated, #PF, EPT violation, EPT misconfiguration (the last two are exit reasons). */
export const WALK = { done: 0, fault: 14, violation: 48, misconfiguration: 49 } as const;

/**
 * A cached translation: host page number in bits 23:0, and what every privilege may do with it above.
 * `w` is the product of all R/W bits, `d` that a write needs no update of a dirty bit and is allowed by EPT.
 * `part2m` and `part1g`: the guest's page is larger than what is cached, so that INVLPG must look for its other parts.
 */
export const CACHED = {
  g: 1 << 24,
  u: 1 << 25,
  w: 1 << 26,
  d: 1 << 27,
  x: 1 << 28,
  r: 1 << 29,
  part2m: 1 << 30,
  part1g: 1 << 31,
  page: 0xff_ffff,
} as const;

/** Writes of accessed and dirty bits that wait until a whole translation has succeeded. */
export class PendingBits {
  count = 0;
  /** Host-physical addresses of the low halves of entries, and the bits to set there. */
  readonly at = new Float64Array(64);
  readonly bits = new Uint16Array(64);

  add(at: number, bits: number): void {
    this.at[this.count] = at;
    this.bits[this.count++] = bits;
  }
}
