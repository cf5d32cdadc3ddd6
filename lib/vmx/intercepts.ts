/**
 * Which instructions exit by a control alone, keyed by exit reason; and the layouts of exit qualifications.
 *
 * SDM volume 3, "Instructions That Cause VM Exits" and "Basic VM-Exit Information". Instructions with more involved
 * rules (MOV CR, MOV DR, I/O, MSRs, PAUSE, XSAVES) are in `nonroot.ts`.
 */
import type { IoAccess } from '../cpu/core.js';
import { PROC, SECONDARY } from './controls.js';
import { EXIT } from './exit-reasons.js';

export interface Intercept {
  readonly reason: number;
  /** Exits when this bit of the primary or secondary controls is 1; without both, always. */
  readonly proc?: number;
  readonly secondary?: number;
  /** Without this secondary control the instruction raises #UD in VMX non-root operation. */
  readonly enabledBy?: number;
  /** Never exits; only `enabledBy` matters. */
  readonly never?: true;
}

/** Not offered controls leave an instruction undefined: no bit of this kind can ever be set. */
const NEVER_ENABLED = 0;

export const INTERCEPTS: readonly Intercept[] = [
  { reason: EXIT.cpuid },
  { reason: EXIT.getsec },
  { reason: EXIT.invd },
  { reason: EXIT.xsetbv },
  { reason: EXIT.vmcall },
  { reason: EXIT.vmclear },
  { reason: EXIT.vmlaunch },
  { reason: EXIT.vmptrld },
  { reason: EXIT.vmptrst },
  { reason: EXIT.vmread },
  { reason: EXIT.vmresume },
  { reason: EXIT.vmwrite },
  { reason: EXIT.vmxoff },
  { reason: EXIT.vmxon },
  { reason: EXIT.invept },
  { reason: EXIT.invvpid },
  { reason: EXIT.hlt, proc: PROC.hltExiting },
  { reason: EXIT.invlpg, proc: PROC.invlpgExiting },
  { reason: EXIT.rdpmc, proc: PROC.rdpmcExiting },
  { reason: EXIT.rdtsc, proc: PROC.rdtscExiting },
  { reason: EXIT.rdtscp, proc: PROC.rdtscExiting, enabledBy: SECONDARY.enableRdtscp },
  { reason: EXIT.mwait, proc: PROC.mwaitExiting },
  { reason: EXIT.monitor, proc: PROC.monitorExiting },
  { reason: EXIT.wbinvd, secondary: SECONDARY.wbinvdExiting },
  { reason: EXIT.invpcid, proc: PROC.invlpgExiting, enabledBy: SECONDARY.enableInvpcid },
  { reason: EXIT.rdrand, secondary: SECONDARY.rdrandExiting },
  { reason: EXIT.rdseed, secondary: SECONDARY.rdseedExiting },
  { reason: EXIT.vmfunc, enabledBy: NEVER_ENABLED },
  { reason: EXIT.umwait, enabledBy: NEVER_ENABLED },
  { reason: EXIT.tpause, enabledBy: NEVER_ENABLED },
  { reason: EXIT.pconfig, enabledBy: NEVER_ENABLED },
];

/** By exit reason; undefined: the reason has rules of its own or is not an instruction's. */
export const INTERCEPT_OF: readonly (Intercept | undefined)[] = Array.from({ length: 80 }, (_, reason) =>
  INTERCEPTS.find((i) => i.reason === reason),
);

/** Access types of control-register exits. */
export const CR_ACCESS = { movTo: 0, movFrom: 1, clts: 2, lmsw: 3 } as const;

/** Qualification of a control-register exit. */
export const crQualification = (cr: number, access: number, gpr = 0): bigint =>
  BigInt(cr | (access << 4) | (gpr << 8));

export const lmswQualification = (source: number, memory: boolean): bigint =>
  BigInt((CR_ACCESS.lmsw << 4) | (memory ? 0x40 : 0)) | (BigInt(source & 0xffff) << 16n);

export const drQualification = (dr: number, gpr: number, write: boolean): bigint =>
  BigInt(dr | (write ? 0 : 0x10) | (gpr << 8));

export const ioQualification = (a: IoAccess): bigint =>
  BigInt(
    (a.size - 1) | (a.input ? 8 : 0) | (a.string ? 0x10 : 0) | (a.rep ? 0x20 : 0) | (a.immediate ? 0x40 : 0),
  ) |
  (BigInt(a.port) << 16n);

/** Instruction information of INS and OUTS: address size in 9:7, segment in 17:15 (OUTS). */
export const ioInformation = (a: IoAccess): number => {
  const size = a.addressSize === 16 ? 0 : a.addressSize === 32 ? 1 : 2;
  return (size << 7) | ((a.input ? 0 : a.segment) << 15);
};

/** An event as the interruption-information fields have it. @param code error code, or -1 */
export const interruptionInfo = (vector: number, type: number, code: number): number =>
  (0x8000_0000 | vector | (type << 8) | (code >= 0 ? 0x800 : 0)) >>> 0;

/** Qualification of a task switch: selector, and source 0 CALL, 1 IRET, 2 JMP, 3 gate. */
export const taskSwitchQualification = (selector: number, source: number): bigint =>
  BigInt(selector) | (BigInt(source) << 30n);

/** Access types of APIC-access exits. */
export const APIC_ACCESS = { read: 0, write: 1, fetch: 2, eventDelivery: 3 } as const;
