/**
 * The seam between hardware and hypervisor: all that `hypervisor/` may use of the machine it runs on.
 *
 * It offers what a kernel has: physical memory, VMX instructions, MSRs, CPUID, the time-stamp counter, one local timer
 * interrupt, and the registers that a hypervisor's assembly stub saves and restores by hand.
 * Field arguments are encodings from `vmx/fields.ts` (`VMCS.guestRip`).
 */
import type { FieldEncoding } from './fields.js';

// the manual's numbers, which both sides of the seam know
export { ENTRY_CONTROL, EXIT_CONTROL, PIN, PROC, SECONDARY } from './controls.js';
export { ENTRY_FAILURE, EXIT, EXIT_REASONS, type ExitName } from './exit-reasons.js';
export { type FieldEncoding, type FieldName, VMCS } from './fields.js';

/** Outcome of a VMX instruction, as in the SDM: VMsucceed, VMfailInvalid, VMfailValid(error number). */
export type VmxResult = 'succeed' | 'fail-invalid' | { readonly failValid: number };

export interface PhysicalMemory {
  /** Bytes of host RAM. */
  readonly bytes: number;
  has(hpa: number, size?: number): boolean;
  read8(hpa: number): number;
  read16(hpa: number): number;
  read32(hpa: number): number;
  read64(hpa: number): bigint;
  write8(hpa: number, v: number): void;
  write16(hpa: number, v: number): void;
  write32(hpa: number, v: number): void;
  write64(hpa: number, v: bigint): void;
  writeBytes(hpa: number, bytes: Uint8Array): void;
  view(hpa: number, size: number): Uint8Array;
  /** Low and high halves without a bigint: for the MMU's loops. `hpa` is 4-byte aligned. */
  readonly u32: Uint32Array;
  /** `u32[(hpa + base) >>> 2]` is the word at `hpa`; writes through it must call `touched` first. */
  readonly base: number;
  touched(hpa: number, size: number): void;
}

/** Registers that VM entry and exit leave alone: the hypervisor's stub loads and stores them. */
export interface StubRegisters {
  /** General registers 0..15; RSP (4) belongs to the VMCS and is not reached here. */
  gpr(i: number): bigint;
  setGpr(i: number, v: bigint): void;
  /** Number form, low 32 bits. */
  gpr32(i: number): number;
  cr2: bigint;
  xcr0: bigint;
  cr8: number;
  dr(i: 0 | 1 | 2 | 3 | 6): bigint;
  setDr(i: 0 | 1 | 2 | 3 | 6, v: bigint): void;
  /** 16 bytes of an XMM register, for the emulator. A copy. */
  xmm(i: number): Uint8Array;
  setXmm(i: number, bytes: Uint8Array): void;
}

/** How a run in the guest ended: the VM exit's basic reason (bit 31 = failed entry), or a VMfail of the entry itself. */
export type EntryOutcome =
  | { readonly exit: number }
  | { readonly fail: VmxResult }
  | { readonly limit: true };

export interface VmxPort {
  readonly memory: PhysicalMemory;
  readonly registers: StubRegisters;

  vmxon(region: number): VmxResult;
  vmxoff(): VmxResult;
  vmclear(vmcs: number): VmxResult;
  vmptrld(vmcs: number): VmxResult;
  /** VMREAD. Throws an invariant error for a field that does not exist: a bug of the hypervisor. */
  vmread(field: FieldEncoding): bigint;
  /** The low 32 bits, without a bigint. */
  vmread32(field: FieldEncoding): number;
  /** A value below 2^53 (physical addresses). */
  vmreadNumber(field: FieldEncoding): number;
  vmwrite(field: FieldEncoding, value: bigint): void;
  vmwrite32(field: FieldEncoding, value: number): void;
  vmwriteNumber(field: FieldEncoding, value: number): void;
  /**
   * VMLAUNCH or VMRESUME: runs the guest until a VM exit, a failed entry, or until `maxInstructions` have retired in
   * total on this processor (`limit`; the guest state is complete and the next call goes on).
   */
  enter(instruction: 'vmlaunch' | 'vmresume', maxInstructions: number): EntryOutcome;
  /** INVEPT type 1 (single context) or 2 (global). */
  invept(type: 1 | 2, eptp: bigint): VmxResult;
  /** INVVPID type 0 (address), 1 (single context), 2 (all), 3 (single context, globals kept). */
  invvpid(type: 0 | 1 | 2 | 3, vpid: number, linear: bigint): VmxResult;

  rdmsr(msr: number): bigint;
  wrmsr(msr: number, value: bigint): void;
  cpuid(
    leaf: number,
    subleaf: number,
  ): { readonly eax: number; readonly ebx: number; readonly ecx: number; readonly edx: number };
  /** Physical TSC: retired instructions plus charged cycles. */
  rdtsc(): number;
  /** Physical TSC at the last VM exit, for cycle accounting. */
  readonly exitTsc: number;
  /** Instructions retired in total. */
  retired(): number;
  /** Counts an instruction that the hypervisor skipped or emulated as retired. */
  retire(n: number): void;
  /** Lets virtual time pass: the cost of handling an exit, or idle time. */
  charge(cycles: number): void;
  /** The host's local timer: an external interrupt with this vector arrives when the TSC reaches the deadline; undefined disarms. */
  hostTimer(deadline: number | undefined, vector: number): void;

  /** Walk counters of the hardware, by dimension: completed or faulting walks and the paging-entry references they made. */
  readonly walks: WalkCounters;
  /** The VMCS as text, field by field, with the rule that a failed entry broke. */
  describeVmcs(): string;
}

export interface WalkCounters {
  /** Walks of guest paging without EPT (one dimension), and their memory references. */
  walks1d: number;
  references1d: number;
  /** Walks through guest paging and EPT (two dimensions). */
  walks2d: number;
  references2d: number;
}
