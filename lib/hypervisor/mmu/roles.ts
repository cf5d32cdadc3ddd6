/**
 * The role of a shadow page: with the guest frame, its identity (KVM-3.1, KVM-7.1.6).
 *
 * Two tables of the same frame with different roles are different shadow pages. Bits: level, direct (maps a piece of a
 * large guest page, not a guest table), the access of the path above, and the paging mode that changes what the same
 * guest entry means. EFER.NX is forced with shadow paging. Not modelled: quadrants and 4-byte entries (32-bit guests),
 * SMM, nested guests.
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
/** What must agree between a table and the current mode for the table to be synced. */
export const MODE_BITS = NX | WP | SMEP_AND_NOT_WP | SMAP_AND_NOT_WP;

export const roleLevel = (role: number): number => role & 15;
export const roleDirect = (role: number): boolean => (role & DIRECT) !== 0;
export const roleAccess = (role: number): number => (role >> ACCESS_SHIFT) & ACC.all;
/** kvm_mmu_child_role: as the parent, one level down. */
export const childRole = (parent: number, access: number, direct: boolean): number =>
  (parent & MODE_BITS) | (roleLevel(parent) - 1) | (access << ACCESS_SHIFT) | (direct ? DIRECT : 0);

/** The bits of control registers that decide how guest tables are read (KVM's cpu_role). */
export interface PagingMode {
  /** 0 without paging, 4 for 4-level paging. */
  readonly levels: 0 | 4;
  readonly wp: boolean;
  readonly nx: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
}

/** @throws LabError for PAE and 32-bit paging */
export const pagingMode = (vcpu: MmuVcpu): PagingMode => {
  const { cr0, cr4, efer } = vcpu;
  const paging = (cr0 & CR0.pg) !== 0;
  if (paging && (efer & EFER.lma) === 0) {
    const kind = (cr4 & CR4.pae) !== 0 ? 'PAE' : '32-bit';
    throw new LabError(
      'mmu.guest-paging',
      `the guest uses ${kind} paging, which the MMU does not walk`,
      'boot through the 64-bit entry',
    );
  }
  if (paging && (cr4 & CR4.la57) !== 0) {
    throw new LabError(
      'mmu.guest-paging',
      'the guest uses 5-level paging, which the MMU does not walk',
      'hide LA57 from its CPUID',
    );
  }
  return {
    levels: paging ? 4 : 0,
    wp: (cr0 & CR0.wp) !== 0,
    nx: (efer & EFER.nxe) !== 0,
    smep: (cr4 & CR4.smep) !== 0,
    smap: (cr4 & CR4.smap) !== 0,
  };
};

/** Role of the root. */
export const rootRole = (mode: PagingMode): number => {
  if (mode.levels === 0) {
    throw new LabError(
      'mmu.guest-paging',
      'the guest runs without paging, which the shadow MMU does not have',
      'boot through the 64-bit entry',
    );
  }
  return (
    mode.levels |
    (ACC.all << ACCESS_SHIFT) |
    NX |
    (mode.wp ? WP : 0) |
    (mode.smep && !mode.wp ? SMEP_AND_NOT_WP : 0) |
    (mode.smap && !mode.wp ? SMAP_AND_NOT_WP : 0)
  );
};
