/**
 * Shadow page-table entries (sptes): real 8-byte entries in host memory, read and written as two 32-bit words.
 *
 * The bits that the processor defines, the bits that only the hypervisor reads, and the entries that stand for MMIO
 * (KVM-3.1, KVM-7.1.14, KVM-4; SDM volume 3, "4-Level Paging", "EPT Misconfigurations"). Names are those of KVM's spte.h.
 * Frame numbers are below 2^28, so that no entry needs a bigint.
 */
import { InvariantError } from '../../base/error.js';

/** Access rights of a path or of a shadow page: KVM's ACC_EXEC_MASK, ACC_WRITE_MASK, ACC_USER_MASK. W and U lie where an entry has them. */
export const ACC = { x: 1, w: 2, u: 4, all: 7 } as const;

/** Low half of an entry of 4-level paging, as the processor reads it. */
export const PT = { p: 1, w: 2, u: 4, a: 0x20, d: 0x40, ps: 0x80 } as const;
/** High half: execute-disable. */
export const PT_NX = 0x8000_0000;
/** Low half of an EPT entry. Memory type write-back with "ignore PAT" belongs to every leaf (KVM-4). */
export const EPT = { rwx: 7, x: 4, wbIpat: (6 << 3) | 0x40, ps: 0x80, a: 0x100, d: 0x200 } as const;

interface SoftwareBit {
  readonly name: string;
  /** Bit number in the 64-bit entry. */
  readonly bit: number;
  readonly in: 'both' | 'paging' | 'ept';
  readonly says: string;
}

/** What the hypervisor keeps in bits that the processor ignores. */
export const SOFTWARE_BITS: readonly SoftwareBit[] = [
  {
    name: 'mmuPresent',
    bit: 11,
    in: 'both',
    says: 'The entry maps a page or a table. The processor has its own idea of "present" (bit 0, or any of R, W, X), which is also true of an MMIO entry; this bit is not set there, so that one test tells memory from MMIO in both formats.',
  },
  {
    name: 'hostWritable',
    bit: 9,
    in: 'paging',
    says: 'The host lets this frame be written. Always so in this hypervisor, since no slot is read-only; kept because a synced entry takes its right to W from here.',
  },
  {
    name: 'mmuWritable',
    bit: 10,
    in: 'paging',
    says: 'Nothing in the MMU forbids writing: the frame is not a shadowed table. Cleared together with W when the frame becomes one; where only W were clear, a write fault could be fixed without looking further.',
  },
  {
    name: 'adDisabled',
    bit: 52,
    in: 'ept',
    says: 'The tables are walked without accessed and dirty flags (eptad=N): bits 8 and 9 of this entry mean nothing.',
  },
  {
    name: 'eptHostWritable',
    bit: 57,
    in: 'ept',
    says: 'As hostWritable; bits 9 and 10 are taken in an EPT entry.',
  },
  { name: 'eptMmuWritable', bit: 58, in: 'ept', says: 'As mmuWritable.' },
];

/** Bits that the processor reads in the entries this hypervisor makes; physical addresses are in 39:12. */
const HARDWARE_BITS = {
  paging: [0, 1, 2, 3, 4, 5, 6, 7, 8, 63],
  ept: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 63],
} as const;

const checkOverlap = (format: 'paging' | 'ept'): void => {
  const taken = new Map<number, string>(HARDWARE_BITS[format].map((bit) => [bit, 'the processor']));
  for (let bit = 12; bit < 52; bit++) taken.set(bit, 'the address');
  for (const row of SOFTWARE_BITS) {
    if (row.in !== 'both' && row.in !== format) continue;
    const owner = taken.get(row.bit);
    if (owner !== undefined)
      throw new InvariantError(`bit ${row.bit} of ${format} entries belongs to ${owner} and to ${row.name}`);
    taken.set(row.bit, row.name);
  }
};
checkOverlap('paging');
checkOverlap('ept');

const bitOf = (name: string): number => {
  const row = SOFTWARE_BITS.find((r) => r.name === name);
  if (row === undefined) throw new InvariantError(`no software bit ${name}`);
  return row.bit;
};
/** Low half. */
export const MMU_PRESENT = 1 << bitOf('mmuPresent');
export const HOST_WRITABLE = 1 << bitOf('hostWritable');
export const MMU_WRITABLE = 1 << bitOf('mmuWritable');
/** High half. */
export const AD_DISABLED = 1 << (bitOf('adDisabled') - 32);
export const EPT_WRITABLE = (1 << (bitOf('eptHostWritable') - 32)) | (1 << (bitOf('eptMmuWritable') - 32));

/** Physical address (or guest-physical, of an MMIO entry) of bits 39:12. */
export const addressOf = (lo: number, hi: number): number =>
  (hi & 0xff) * 0x1_0000_0000 + ((lo & 0xffff_f000) >>> 0);
export const addressHigh = (address: number): number => Math.floor(address / 0x1_0000_0000);

/** An entry that points to a table: every right, since leaves alone protect (KVM-3.1). */
export const TABLE_LO = PT.p | PT.w | PT.u | PT.a | MMU_PRESENT;

/** Index of the entry of a linear (or guest-physical) address at a level, 1 to 4. */
export const indexAt = (lo: number, hi: number, level: number): number => {
  switch (level) {
    case 1:
      return (lo >>> 12) & 511;
    case 2:
      return (lo >>> 21) & 511;
    case 3:
      return (lo >>> 30) | ((hi & 0x7f) << 2);
    default:
      return (hi >>> 7) & 511;
  }
};
/** 4 KiB pages that an entry at a level covers. */
export const PAGES_AT = [0, 1, 512, 512 * 512, 512 * 512 * 512] as const;

/** Bit 51, reserved because MAXPHYADDR is below 52: makes an access fault with RSVD. High half. */
const MMIO_RESERVED = 1 << 19;
/** EPT: W and X without R is a misconfiguration. */
const MMIO_MISCONFIGURED = 6;
/** The slots' generation, 19 bits: 7:0 in bits 10:3 of the entry, the rest in bits 62:52. */
export const GENERATION_MASK = 0x7_ffff;

const generationLo = (generation: number): number => (generation & 0xff) << 3;
const generationHi = (generation: number): number => (generation >>> 8) << 20;

/** Halves of the MMIO entry for a guest frame. @param access rights of the mapping; only W and U are kept */
export const mmioLo = (gfn: number, access: number, generation: number): number =>
  ((gfn << 12) | PT.p | (access & (ACC.w | ACC.u)) | generationLo(generation)) >>> 0;
export const mmioHi = (gfn: number, generation: number): number =>
  (MMIO_RESERVED | (gfn >>> 20) | generationHi(generation)) >>> 0;
export const isMmio = (lo: number, hi: number): boolean => (lo & PT.p) !== 0 && (hi & MMIO_RESERVED) !== 0;

export const eptMmioLo = (gfn: number, generation: number): number =>
  ((gfn << 12) | MMIO_MISCONFIGURED | generationLo(generation)) >>> 0;
export const eptMmioHi = (gfn: number, generation: number): number =>
  ((gfn >>> 20) | generationHi(generation)) >>> 0;
export const isEptMmio = (lo: number): boolean => (lo & EPT.rwx) === MMIO_MISCONFIGURED;

export const mmioGeneration = (lo: number, hi: number): number =>
  ((lo >>> 3) & 0xff) | (((hi >>> 20) & 0x7ff) << 8);
export const mmioGfn = (lo: number, hi: number): number => (lo >>> 12) | ((hi & 0xff) << 20);
