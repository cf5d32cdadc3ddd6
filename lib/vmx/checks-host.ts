/**
 * VM-entry checks on the host-state area.
 *
 * SDM volume 3, "Checks on Host Control Registers, MSRs, and SSP" and the two sections after it. Violation:
 * VMfailValid(8). The host of this processor always runs in 64-bit mode, so the address-space size must be 64-bit.
 */
import { EFER } from '../isa/state.js';
import { CR0_FIXED0, CR4_FIXED0, CR4_FIXED1 } from './capabilities.js';
import {
  type CheckRow,
  type CheckView,
  clear,
  NOT_CANONICAL,
  PHYSICAL_HIGH,
  set,
  TOO_WIDE,
  type Topic,
} from './checks.js';
import { EXIT_CONTROL } from './controls.js';
import { type FieldName, ROW } from './fields.js';

export const EFER_DEFINED = EFER.sce | EFER.lme | EFER.lma | EFER.nxe;

/** True when a byte of a PAT value is not a memory type: 0, 1, 4, 5, 6 or 7. */
export const badPat = (lo: number, hi: number): boolean => {
  for (let i = 0; i < 8; i++) {
    const type = ((i < 4 ? lo : hi) >>> (8 * (i & 3))) & 0xff;
    if (type > 7 || type === 2 || type === 3) return true;
  }
  return false;
};

export const canonicalRow = (field: FieldName, topic: Topic): CheckRow => ({
  id: `${field}.canonical`,
  topic,
  says: `${field} must be a canonical address`,
  fails: (
    (row) => (v: CheckView) =>
      !v.canonical(row)
  )(ROW[field]),
  example: { [field]: NOT_CANONICAL },
});

const selectors = ['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Tr'] as const;

export const HOST_CHECKS: readonly CheckRow[] = [
  {
    id: 'hostCr0.fixed',
    topic: 'hostRegisters',
    says: 'host CR0 must have PE, NE and PG set, and bits 63:32 clear',
    fails: (v) => (v.lo(ROW.hostCr0) & CR0_FIXED0) >>> 0 !== CR0_FIXED0 || v.hi(ROW.hostCr0) !== 0,
    example: { hostCr0: clear(0x20) },
  },
  {
    id: 'hostCr4.fixed',
    topic: 'hostRegisters',
    says: 'host CR4 must have VMXE set, and no bit that the processor does not support',
    fails: (v) =>
      (v.lo(ROW.hostCr4) & CR4_FIXED0) === 0 || v.any(ROW.hostCr4, ~CR4_FIXED1) || v.hi(ROW.hostCr4) !== 0,
    example: { hostCr4: clear(CR4_FIXED0) },
  },
  {
    id: 'hostCr3.width',
    topic: 'hostRegisters',
    says: 'host CR3 must not have bits beyond the physical-address width',
    fails: (v) => v.hi(ROW.hostCr3) >= PHYSICAL_HIGH,
    example: { hostCr3: TOO_WIDE },
  },
  canonicalRow('hostSysenterEsp', 'hostRegisters'),
  canonicalRow('hostSysenterEip', 'hostRegisters'),
  {
    id: 'hostPat.types',
    topic: 'hostRegisters',
    says: 'each byte of a host PAT to be loaded must be a memory type',
    when: (v) => v.exit(EXIT_CONTROL.loadHostPat),
    fails: (v) => badPat(v.lo(ROW.hostPat), v.hi(ROW.hostPat)),
    example: { exitControls: set(EXIT_CONTROL.loadHostPat), hostPat: 2n },
  },
  {
    id: 'hostEfer.reserved',
    topic: 'hostRegisters',
    says: 'a host EFER to be loaded must not have reserved bits',
    when: (v) => v.exit(EXIT_CONTROL.loadHostEfer),
    fails: (v) => v.any(ROW.hostEfer, ~EFER_DEFINED) || v.hi(ROW.hostEfer) !== 0,
    example: { exitControls: set(EXIT_CONTROL.loadHostEfer), hostEfer: 0xd03n },
  },
  {
    id: 'hostEfer.size',
    topic: 'hostRegisters',
    says: 'LMA and LME of a host EFER to be loaded must equal the host address-space size',
    when: (v) => v.exit(EXIT_CONTROL.loadHostEfer),
    fails: (v) => {
      const wanted = v.exit(EXIT_CONTROL.hostAddressSpaceSize) ? EFER.lma | EFER.lme : 0;
      return (v.lo(ROW.hostEfer) & (EFER.lma | EFER.lme)) !== wanted;
    },
    example: { exitControls: set(EXIT_CONTROL.loadHostEfer), hostEfer: BigInt(EFER.lme) },
  },
  ...selectors.map(
    (s): CheckRow => ({
      id: `host${s}.selector`,
      topic: 'hostSegments',
      says: `RPL and TI of host ${s.toUpperCase()} must be 0`,
      fails: (
        (row) => (v: CheckView) =>
          v.any(row, 7)
      )(ROW[`host${s}Selector`]),
      example: { [`host${s}Selector`]: set(3) },
    }),
  ),
  {
    id: 'hostCs.null',
    topic: 'hostSegments',
    says: 'host CS must not be null',
    fails: (v) => v.lo(ROW.hostCsSelector) === 0,
    example: { hostCsSelector: 0n },
  },
  {
    id: 'hostTr.null',
    topic: 'hostSegments',
    says: 'host TR must not be null',
    fails: (v) => v.lo(ROW.hostTrSelector) === 0,
    example: { hostTrSelector: 0n },
  },
  canonicalRow('hostFsBase', 'hostSegments'),
  canonicalRow('hostGsBase', 'hostSegments'),
  canonicalRow('hostTrBase', 'hostSegments'),
  canonicalRow('hostGdtrBase', 'hostSegments'),
  canonicalRow('hostIdtrBase', 'hostSegments'),
  {
    id: 'hostSize.64',
    topic: 'hostSize',
    says: 'entered from IA-32e mode, the host address-space size must be 64-bit',
    fails: (v) => !v.exit(EXIT_CONTROL.hostAddressSpaceSize),
    example: { exitControls: clear(EXIT_CONTROL.hostAddressSpaceSize) },
  },
  {
    id: 'hostSize.pae',
    topic: 'hostSize',
    says: 'a 64-bit host must have CR4.PAE set',
    fails: (v) => !v.any(ROW.hostCr4, 0x20),
    example: { hostCr4: clear(0x20) },
  },
  canonicalRow('hostRip', 'hostSize'),
];
