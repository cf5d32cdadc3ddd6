/**
 * The VMX capability MSRs 0x480 to 0x491, derived from the control tables.
 *
 * SDM volume 3, appendix "VMX Capability Reporting Facility". The processor offers true controls, unrestricted guest,
 * EPT with 4 levels, write-back, 2 MiB and 1 GiB pages, accessed and dirty flags, INVEPT single-context and global,
 * INVVPID of all four types, and an MSR list limit of 512. Not offered: VM functions, SMM entry, IA32_SMM_MONITOR_CTL.
 */
import { CR4_DEFINED } from '../cpu/system/control-registers.js';
import { CR0, CR4 } from '../isa/state.js';
import { allowed, CONTROL_WORDS, type WordName } from './controls.js';
import { FIELDS } from './fields.js';

/** VMCS revision identifier: "VMX" in ASCII. */
export const REVISION_ID = 0x0056_4d58;
/** The preemption timer counts down by 1 whenever TSC >> this changes. */
export const PREEMPTION_TIMER_SHIFT = 5;
/** CR3-target values supported. */
export const CR3_TARGETS = 4;
/** Recommended (here: enforced) limit of MSR lists, in entries. */
export const MSR_LIST_LIMIT = 512;
/** IA32_FEATURE_CONTROL: locked, VMXON allowed outside SMX. */
export const FEATURE_CONTROL = 5n;

/** Bits of CR0 and CR4 that must be 1 in VMX operation, and that may be 1. */
export const CR0_FIXED0 = (CR0.pe | CR0.ne | CR0.pg) >>> 0;
export const CR0_FIXED1 = 0xffff_ffff;
export const CR4_FIXED0 = CR4.vmxe;
export const CR4_FIXED1 = CR4_DEFINED;

/** Bits of IA32_VMX_EPT_VPID_CAP. */
export const EPT_VPID = {
  walkLength4: 6,
  writeBack: 14,
  page2M: 16,
  page1G: 17,
  invept: 20,
  accessedDirty: 21,
  inveptSingle: 25,
  inveptAll: 26,
  invvpid: 32,
  invvpidAddress: 40,
  invvpidSingle: 41,
  invvpidAll: 42,
  invvpidSingleKeepGlobals: 43,
} as const;

const basic = (): bigint =>
  BigInt(REVISION_ID) |
  (4096n << 32n) | // bytes of a VMCS region
  (6n << 50n) | // the VMCS is accessed write-back
  (1n << 54n) | // INS and OUTS report instruction information
  (1n << 55n); // true controls

const misc = (): bigint =>
  BigInt(PREEMPTION_TIMER_SHIFT) |
  (1n << 5n) | // exits store EFER.LMA in the IA-32e mode guest control
  (7n << 6n) | // activity states HLT, shutdown, wait-for-SIPI
  (BigInt(CR3_TARGETS) << 16n);
// bits 27:25 = 0: MSR lists of up to 512 entries

const vmcsEnum = (): bigint => BigInt(Math.max(...FIELDS.map((f) => f.encoding & 0x3fe)));

const pair = (word: WordName, strict: boolean): bigint => {
  const { mustBe1, mayBe1 } = allowed(word, strict);
  return BigInt(mustBe1) | (BigInt(mayBe1) << 32n);
};

const eptVpid = (): bigint => Object.values(EPT_VPID).reduce((v, bit) => v | (1n << BigInt(bit)), 0n);

/** Every VMX capability MSR with its value. */
export const VMX_MSRS: ReadonlyMap<number, bigint> = new Map<number, bigint>([
  [0x480, basic()],
  ...Object.entries(CONTROL_WORDS).flatMap(([word, { msr, trueMsr }]): [number, bigint][] => [
    [msr, pair(word as WordName, true)],
    [trueMsr, pair(word as WordName, false)],
  ]),
  [0x485, misc()],
  [0x486, BigInt(CR0_FIXED0)],
  [0x487, BigInt(CR0_FIXED1)],
  [0x488, BigInt(CR4_FIXED0)],
  [0x489, BigInt(CR4_FIXED1)],
  [0x48a, vmcsEnum()],
  [0x48c, eptVpid()],
]);
