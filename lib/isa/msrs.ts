/**
 * The model-specific registers of the processor, one row each.
 *
 * SDM volume 4, "Model-Specific Registers (MSRs)"; IA32_EFER and the SYSCALL registers in volume 3. A row says where the
 * value lies and which bits software may write; any other MSR number is #GP(0). The VMX capability MSRs belong to the
 * VMX unit. Not modelled: performance monitoring, the local APIC's registers, machine-check banks (there are none).
 */
import { EFER, S } from './state.js';

export interface MsrRow {
  readonly name: string;
  readonly number: number;
  /**
   * Where the value is: `state` at an offset of `S`; `plain` in a table beside the state; `constant`; `special` in code
   * (`cpu/system/msrs.ts`).
   */
  readonly kind: 'state' | 'plain' | 'constant' | 'special';
  readonly offset?: number;
  /** Value after reset, or of a constant. */
  readonly value?: bigint;
  /** Bits that may be written 1; a write of any other bit is #GP(0). Absent: all 64. */
  readonly writable?: bigint;
  /** The value must be a canonical address. */
  readonly canonical?: true;
  /** `no`: a write is #GP(0); `ignored`: it does nothing. */
  readonly write?: 'no' | 'ignored';
}

export const MSR = {
  tsc: 0x10,
  platformId: 0x17,
  apicBase: 0x1b,
  featureControl: 0x3a,
  microcodeUpdate: 0x79,
  microcodeRevision: 0x8b,
  mtrrCap: 0xfe,
  sysenterCs: 0x174,
  sysenterEsp: 0x175,
  sysenterEip: 0x176,
  mcgCap: 0x179,
  mcgStatus: 0x17a,
  miscEnable: 0x1a0,
  debugctl: 0x1d9,
  mtrrPhysBase0: 0x200,
  pat: 0x277,
  mtrrDefType: 0x2ff,
  tscDeadline: 0x6e0,
  xss: 0xda0,
  efer: 0xc000_0080,
  star: 0xc000_0081,
  lstar: 0xc000_0082,
  cstar: 0xc000_0083,
  sfmask: 0xc000_0084,
  fsBase: 0xc000_0100,
  gsBase: 0xc000_0101,
  kernelGsBase: 0xc000_0102,
  tscAux: 0xc000_0103,
} as const;

/** Physical addresses have 40 bits. */
const ADDRESS = 0xff_ffff_f000n;
/** Number of variable-range MTRRs. */
const VARIABLE_MTRRS = 8;
/** Fixed-range MTRRs. */
const FIXED_MTRRS = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];

const mtrrs: readonly MsrRow[] = [
  ...Array.from({ length: VARIABLE_MTRRS }, (_, i): MsrRow[] => [
    {
      name: `IA32_MTRR_PHYSBASE${i}`,
      number: MSR.mtrrPhysBase0 + 2 * i,
      kind: 'plain',
      writable: ADDRESS | 0xffn,
    },
    {
      name: `IA32_MTRR_PHYSMASK${i}`,
      number: MSR.mtrrPhysBase0 + 2 * i + 1,
      kind: 'plain',
      writable: ADDRESS | 0x800n,
    },
  ]).flat(),
  ...FIXED_MTRRS.map(
    (number): MsrRow => ({ name: `IA32_MTRR_FIX_${number.toString(16)}`, number, kind: 'plain' }),
  ),
];

// biome-ignore format: one row per line
export const MSR_ROWS: readonly MsrRow[] = [
  { name: 'IA32_TIME_STAMP_COUNTER', number: MSR.tsc, kind: 'special' },
  { name: 'IA32_PLATFORM_ID', number: MSR.platformId, kind: 'constant', write: 'no' },
  { name: 'IA32_APIC_BASE', number: MSR.apicBase, kind: 'special', offset: S.apicBase, value: 0xfee0_0900n, writable: ADDRESS | 0xd00n },
  { name: 'IA32_FEATURE_CONTROL', number: MSR.featureControl, kind: 'constant', value: 5n, write: 'no' },
  { name: 'IA32_BIOS_UPDT_TRIG', number: MSR.microcodeUpdate, kind: 'constant', write: 'ignored' },
  { name: 'IA32_BIOS_SIGN_ID', number: MSR.microcodeRevision, kind: 'constant', value: 1n << 32n, write: 'ignored' },
  { name: 'IA32_MTRRCAP', number: MSR.mtrrCap, kind: 'constant', value: 0x500n | BigInt(VARIABLE_MTRRS), write: 'no' },
  { name: 'IA32_SYSENTER_CS', number: MSR.sysenterCs, kind: 'state', offset: S.sysenterCs, writable: 0xffff_ffffn },
  { name: 'IA32_SYSENTER_ESP', number: MSR.sysenterEsp, kind: 'state', offset: S.sysenterEsp, canonical: true },
  { name: 'IA32_SYSENTER_EIP', number: MSR.sysenterEip, kind: 'state', offset: S.sysenterEip, canonical: true },
  { name: 'IA32_MCG_CAP', number: MSR.mcgCap, kind: 'constant', write: 'no' },
  { name: 'IA32_MCG_STATUS', number: MSR.mcgStatus, kind: 'plain', writable: 7n },
  { name: 'IA32_MISC_ENABLE', number: MSR.miscEnable, kind: 'state', offset: S.miscEnable, value: 0x1801n, writable: 0x4_00c5_1889n },
  { name: 'IA32_DEBUGCTL', number: MSR.debugctl, kind: 'state', offset: S.debugctl, writable: 3n },
  { name: 'IA32_PAT', number: MSR.pat, kind: 'special', offset: S.pat, value: 0x0007_0406_0007_0406n },
  { name: 'IA32_MTRR_DEF_TYPE', number: MSR.mtrrDefType, kind: 'plain', writable: 0xcffn },
  { name: 'IA32_TSC_DEADLINE', number: MSR.tscDeadline, kind: 'plain' },
  // no supervisor state components
  { name: 'IA32_XSS', number: MSR.xss, kind: 'state', offset: S.xss, writable: 0n },
  { name: 'IA32_EFER', number: MSR.efer, kind: 'special', offset: S.efer, writable: BigInt(EFER.sce | EFER.lme | EFER.lma | EFER.nxe) },
  { name: 'IA32_STAR', number: MSR.star, kind: 'state', offset: S.star },
  { name: 'IA32_LSTAR', number: MSR.lstar, kind: 'state', offset: S.lstar, canonical: true },
  { name: 'IA32_CSTAR', number: MSR.cstar, kind: 'state', offset: S.cstar, canonical: true },
  { name: 'IA32_FMASK', number: MSR.sfmask, kind: 'state', offset: S.sfmask, writable: 0xffff_ffffn },
  { name: 'IA32_FS_BASE', number: MSR.fsBase, kind: 'state', offset: S.segBase + 8 * 4, canonical: true },
  { name: 'IA32_GS_BASE', number: MSR.gsBase, kind: 'state', offset: S.segBase + 8 * 5, canonical: true },
  { name: 'IA32_KERNEL_GS_BASE', number: MSR.kernelGsBase, kind: 'state', offset: S.kernelGsBase, canonical: true },
  { name: 'IA32_TSC_AUX', number: MSR.tscAux, kind: 'state', offset: S.tscAux, writable: 0xffff_ffffn },
  ...mtrrs,
];

export const MSR_BY_NUMBER: ReadonlyMap<number, MsrRow> = new Map(MSR_ROWS.map((row) => [row.number, row]));
