/**
 * The role of a shadow page: with the guest frame, its identity (KVM-3.1, KVM-7.1.6).
 *
 * Two tables of the same frame with different roles are different shadow pages. Bits: level, direct (maps a piece of a
 * large guest page, not a guest table), the access of the path above, and the paging mode that changes what the same
 * guest entry means. EFER.NX is forced with shadow paging. A table of 4-byte entries (32-bit paging) has two shadow
 * pages at level 1 and four at level 2, told apart by the quadrant. Not modelled: SMM, nested guests.
 */
import { LabError } from '../../base/error.js';
import { CR0, CR4, EFER } from '../../isa/state.js';
import type { MmuVcpu } from './mmu.js';
import { ACC } from './spte.js';

const DIRECT = 1 << 4;
const ACCESS_SHIFT = 5;
const NX = 1 << 8;
const WP = 1 << 9;
const SMEP_AND_NOT_WP = 1 << 10;
const SMAP_AND_NOT_WP = 1 << 11;
/** The guest's entries have 4 bytes (KVM's has_4_byte_gpte). */
const NARROW = 1 << 12;
const QUADRANT_SHIFT = 13;
/** What must agree between a table and the current mode for the table to be synced. */
export const MODE_BITS = NX | WP | SMEP_AND_NOT_WP | SMAP_AND_NOT_WP | NARROW;

export const roleLevel = (role: number): number => role & 15;
export const roleDirect = (role: number): boolean => (role & DIRECT) !== 0;
export const roleAccess = (role: number): number => (role >> ACCESS_SHIFT) & ACC.all;
export const roleNarrow = (role: number): boolean => (role & NARROW) !== 0;
export const roleQuadrant = (role: number): number => (role >> QUADRANT_SHIFT) & 3;
/**
 * kvm_mmu_child_role: as the parent, one level down. Of 4-byte tables the child shadows the half that the parent's
 * entry stands for.
 * @param at address of the parent's entry
 */
export const childRole = (parent: number, at: number, access: number, direct: boolean): number =>
  (parent & MODE_BITS) |
  (roleLevel(parent) - 1) |
  (access << ACCESS_SHIFT) |
  (direct ? DIRECT : 0) |
  ((parent & NARROW) !== 0 ? ((at >>> 3) & 1) << QUADRANT_SHIFT : 0);
/** mmu_alloc_root: the role of one of the four page directories below a PAE root. */
export const directoryRole = (root: number, quadrant: number): number =>
  (root & ~15) | 2 | (quadrant << QUADRANT_SHIFT);

/** The bits of control registers that decide how guest tables are read (KVM's cpu_role). */
export interface PagingMode {
  /** 0 without paging, 2 for 32-bit, 3 for PAE, 4 for 4-level paging. */
  readonly levels: 0 | 2 | 3 | 4;
  readonly wp: boolean;
  /** Execute-disable is in force; never with 32-bit paging. */
  readonly nx: boolean;
  /** 4 MiB pages of 32-bit paging. */
  readonly pse: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
}

/** @throws LabError for 5-level paging */
export const pagingMode = (vcpu: MmuVcpu): PagingMode => {
  const { cr0, cr4, efer } = vcpu;
  const paging = (cr0 & CR0.pg) !== 0;
  const long = (efer & EFER.lma) !== 0;
  const pae = (cr4 & CR4.pae) !== 0;
  if (paging && long && (cr4 & CR4.la57) !== 0) {
    throw new LabError(
      'mmu.guest-paging',
      'the guest uses 5-level paging, which the MMU does not walk',
      'hide LA57 from its CPUID',
    );
  }
  return {
    levels: !paging ? 0 : long ? 4 : pae ? 3 : 2,
    wp: (cr0 & CR0.wp) !== 0,
    nx: pae && (efer & EFER.nxe) !== 0,
    pse: (cr4 & CR4.pse) !== 0,
    smep: (cr4 & CR4.smep) !== 0,
    smap: (cr4 & CR4.smap) !== 0,
  };
};

/** Role of the root. The processor uses PAE paging whenever the guest does not use 4-level paging. */
export const rootRole = (mode: PagingMode): number => {
  if (mode.levels === 0) return 3 | DIRECT | (ACC.all << ACCESS_SHIFT) | NX;
  return (
    Math.max(mode.levels, 3) |
    (ACC.all << ACCESS_SHIFT) |
    NX |
    (mode.levels === 2 ? NARROW : 0) |
    (mode.wp ? WP : 0) |
    (mode.smep && !mode.wp ? SMEP_AND_NOT_WP : 0) |
    (mode.smap && !mode.wp ? SMAP_AND_NOT_WP : 0)
  );
};
