/**
 * The processor as its parts see it: state views, pending events, and the hooks through which VMX takes part.
 *
 * Events are values. A helper or the MMU that cannot complete an instruction records the event with `fault` or `exit`
 * and returns `false` (or `LEFT`); the engine then leaves with the state of the instruction's start, and the run loop
 * (`cpu/run.ts`) delivers the fault through the IDT or hands the VM exit to the VMX unit.
 *
 * What counts as an instruction: every retired instruction 1, every iteration of a REP instruction 1, faulting
 * attempts, instructions that exit and injected events 0. `retired()` is exact whenever TypeScript runs.
 */
import type { CpuModel } from '../isa/cpuid.js';
import { LEAVE, S } from '../isa/state.js';
import { LAYOUT, type Ram } from '../memory/ram.js';

/** Access kinds for `Cpu.access` are in `memory/access.ts`. */
export interface MemoryUnit {
  /** Set by an engine while an access through SS is looked up: a non-canonical address is then #SS(0) and not #GP(0). */
  stackAccess?: boolean;
  /** Is told of every explicit data access; `contextChanged` must follow a change. */
  watch?: ((lo: number, hi: number, size: number, kind: number) => void) | undefined;
  /** Linear-memory address of the bytes, the bounce buffer for a page-crossing access, or LEFT with an event recorded. */
  access(
    lo: number,
    hi: number,
    size: number,
    kind: number,
    privilege?: 'current' | 'supervisor' | 'user',
  ): number;
  /** Writes the bounce buffer back after a crossing store through it. */
  commit(): void;
  /** Host-physical address of the instruction byte at a linear address and (through `S.tlbExec`) its code table, or LEFT. */
  fetch(lo: number, hi: number): number;
  /** Host-physical address of a guest-physical one, or LEFT with an EPT violation or misconfiguration recorded. */
  physical(gpa: number): number;
  /** CPL, AC, CR0, CR3, CR4, EFER or the VMX context changed: select the TLB sets anew. */
  contextChanged(): void;
  /** MOV to CR3 of a checked value: switches context; flushes as the SDM says unless `keep` (bit 63 with CR4.PCIDE). */
  loadCr3(keep: boolean): void;
  invlpg(lo: number, hi: number): void;
  /** INVPCID types 0..3 with a checked descriptor. */
  invpcid(type: number, pcid: number, lo: number, hi: number): void;
  /** Everything of the current VPID, global translations included (CR0.PG, CR4.PGE … changes). */
  flushAll(): void;
}

/**
 * VMX non-root operation, as the processor's instructions see it; `Cpu.guest` is undefined outside.
 * Each method that returns true has recorded a VM exit, and the caller returns false at once.
 */
export interface NonRoot {
  /** Instructions that exit by a control or always (CPUID, HLT, INVLPG, RDTSC, PAUSE, WBINVD, XSETBV, VMX instructions …): reason number, qualification, and instruction information. */
  instruction(reason: number, qualification?: bigint, info?: number): boolean;
  /** MOV to CR0/CR3/CR4/CR8 from general register `gpr`. */
  movToCr(cr: number, gpr: number, value: bigint): boolean;
  movFromCr(cr: number, gpr: number): boolean;
  clts(): boolean;
  /** @param memory LMSW with a memory operand at `linear` */
  lmsw(source: number, memory: boolean, linear: bigint): boolean;
  movDr(dr: number, gpr: number, write: boolean): boolean;
  io(access: IoAccess): boolean;
  rdmsr(msr: number): boolean;
  wrmsr(msr: number): boolean;
  /** RDMSR that did not exit: the value of a virtualized register (x2APIC TPR), or undefined for the register itself. */
  virtualRdmsr?(msr: number): bigint | undefined;
  /** WRMSR that did not exit: `register` to write the register itself; `done`, or `left` with a fault or exit recorded. */
  virtualWrmsr?(msr: number, value: bigint): 'register' | 'done' | 'left';
  descriptorTable(reason: 46 | 47, qualification: bigint, info: number): boolean;
  taskSwitch(selector: number, source: 0 | 1 | 2 | 3): boolean;
  /** Called for every fault, trap and software interrupt about to be delivered (not for injected events). */
  exception(event: PendingEvent): boolean;
  tripleFault(): boolean;
  /** Values that the guest reads: host-owned bits from the read shadow. */
  readCr0(real: bigint): bigint;
  readCr4(real: bigint): bigint;
  /** The value that a permitted MOV to CR0/CR4 puts into the register: host-owned bits keep theirs. */
  writeCr0(value: bigint): bigint;
  writeCr4(value: bigint): bigint;
  /** Added to the TSC that RDTSC, RDTSCP and RDMSR deliver. */
  readonly tscOffset: bigint;
  /**
   * Called at an instruction boundary (before the first instruction, at `deadline`, and after each block-ending
   * instruction while `watching`): takes the highest-priority exit that is due (monitor trap, preemption timer, NMI and
   * interrupt windows, external interrupt). True when a VM exit was recorded.
   */
  boundary(): boolean;
  /** The physical TSC at which `boundary` must be asked again; Infinity when nothing is timed. */
  deadline(): number;
  /** RDPID is there only with the control that enables RDTSCP; absent: it is there. */
  allowsRdpid?(): boolean;
  /** True while a window exit or a pending debug exception makes every boundary of interest; the run loop keeps `S.attention` equal to it. */
  watching(): boolean;
}

export interface IoAccess {
  readonly port: number;
  readonly size: 1 | 2 | 4;
  readonly input: boolean;
  readonly string: boolean;
  readonly rep: boolean;
  readonly immediate: boolean;
  /** Linear address of the string operand, and its segment and address size. */
  readonly linear: bigint;
  readonly segment: number;
  readonly addressSize: 16 | 32 | 64;
}

/** An event on its way through the IDT. `type` as in the VMCS: 0 external, 2 NMI, 3 hardware exception, 4 software interrupt, 5 privileged software exception (INT1), 6 software exception (INT3, INTO). */
export interface PendingEvent {
  vector: number;
  type: 0 | 2 | 3 | 4 | 5 | 6;
  /** Error code, or -1. */
  code: number;
  /** Linear address of a page fault; DR6 bits of a debug exception. */
  address: bigint;
  /** Bytes to skip for software events, else 0. */
  length: number;
  /** Injected by VM entry: not subject to the exception bitmap. */
  injected: boolean;
}

/** A recorded VM exit: what the VMX unit stores into the exit-information fields. */
export interface ExitInfo {
  reason: number;
  qualification: bigint;
  /** Guest linear and physical address, where the exit has them. */
  linear: bigint;
  physical: number;
  interruptionInfo: number;
  interruptionCode: number;
  instructionLength: number;
  instructionInfo: number;
}

/** Ports of the bare machine, for a processor that runs without a hypervisor. */
export interface PortBus {
  read(port: number, size: 1 | 2 | 4): number;
  write(port: number, size: 1 | 2 | 4, value: number): void;
}

/** What a processor is made with. */
export interface CpuOptions {
  /** What CPUID advertises (`CPU_MODELS`); 'lab' unless given. Every engine executes every row whatever the model. */
  readonly model?: CpuModel;
  /** Seed of RDRAND and RDSEED. */
  readonly seed?: number;
}

export class Cpu {
  readonly ram: Ram;
  readonly model: CpuModel;
  readonly seed: number;
  /** Linear-memory address of the state. */
  readonly at: number = LAYOUT.state;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
  mmu!: MemoryUnit;
  guest: NonRoot | undefined;
  ports: PortBus | undefined;
  readonly exitInfo: ExitInfo = {
    reason: 0,
    qualification: 0n,
    linear: 0n,
    physical: 0,
    interruptionInfo: 0,
    interruptionCode: 0,
    instructionLength: 0,
    instructionInfo: 0,
  };
  /** The event being delivered when a fault or exit happens in the middle of delivery (IDT vectoring). */
  delivering: PendingEvent | undefined;
  /** Conditions of a debug trap that is due before the next instruction, as bits of DR6. */
  debugTraps = 0;
  /** The instruction under way takes no single-step trap: it has cleared TF on its way into a handler. */
  noStepTrap = false;
  /** The instruction under way loaded RFLAGS with RF set, which stays for the next one. */
  resumeFlagLoaded = false;
  /** Instructions retired up to the start of the current slice. */
  retiredBefore = 0;
  /** Budget with which the current slice began. */
  sliceBudget = 0;
  /** Instructions of the current block that are charged but not yet retired; kept by the engine for `retired`. */
  charged = 0;
  /** TSC cycles beyond retired instructions: charged exits, walks, idle time. */
  extraCycles = 0;
  /** IA32_TSC_ADJUST-like offset of the physical TSC. */
  tscBase = 0;
  /** MSRs that no instruction uses (MTRRs, machine checks, microcode); rows with `plain` in `isa/msrs.ts`. */
  readonly plainMsrs = new Map<number, bigint>();

  constructor(ram: Ram, options: CpuOptions = {}) {
    this.ram = ram;
    this.model = options.model ?? 'lab';
    this.seed = options.seed ?? 0;

    this.i32 = ram.i32;
    this.u32 = ram.u32;
    this.u64 = ram.u64;
  }

  // ---- state access by offset (`S`)
  get32(offset: number): number {
    return this.u32[(this.at + offset) >>> 2];
  }
  set32(offset: number, v: number): void {
    this.u32[(this.at + offset) >>> 2] = v;
  }
  get64(offset: number): bigint {
    return this.u64[(this.at + offset) >>> 3];
  }
  set64(offset: number, v: bigint): void {
    this.u64[(this.at + offset) >>> 3] = v;
  }
  /** A 64-bit field as a number: for values below 2^53. */
  getNumber(offset: number): number {
    const i = (this.at + offset) >>> 2;
    return this.u32[i + 1] * 0x1_0000_0000 + this.u32[i];
  }
  gpr(i: number): bigint {
    return this.u64[(this.at >>> 3) + i];
  }
  setGpr(i: number, v: bigint): void {
    this.u64[(this.at >>> 3) + i] = v;
  }

  // ---- helper arguments and results
  arg32(i: number): number {
    return this.u32[(this.at + S.arg + 8 * i) >>> 2];
  }
  arg64(i: number): bigint {
    return this.u64[(this.at + S.arg + 8 * i) >>> 3];
  }
  result32(i: number, v: number): void {
    const at = (this.at + S.result + 8 * i) >>> 2;
    this.u32[at] = v;
    this.u32[at + 1] = 0;
  }
  result64(i: number, v: bigint): void {
    this.u64[(this.at + S.result + 8 * i) >>> 3] = v;
  }

  /** RIP of the current instruction. */
  get rip(): bigint {
    return this.u64[(this.at + S.rip) >>> 3];
  }
  get nextRip(): bigint {
    return this.u64[(this.at + S.nextRip) >>> 3];
  }
  /** Continues at `rip` after an `ends` instruction. */
  set nextRip(rip: bigint) {
    this.u64[(this.at + S.nextRip) >>> 3] = rip;
  }
  get instructionLength(): number {
    return Number(BigInt.asUintN(8, this.nextRip - this.rip));
  }

  /** Records a fault of the current instruction. Returns false, for `return cpu.fault(…)`. @param code error code, or -1 */
  fault(vector: number, code = -1, address = 0n): false {
    this.set32(S.leave, LEAVE.fault);
    this.set32(S.faultVector, vector);
    this.set32(S.faultCode, code);
    this.set64(S.faultAddress, address);
    return false;
  }
  /** #GP(code). */
  gp(code = 0): false {
    return this.fault(13, code);
  }
  ud(): false {
    return this.fault(6);
  }
  /** Marks a VM exit as pending; the caller has filled `exitInfo`. */
  leaveForExit(): void {
    this.set32(S.leave, LEAVE.exit);
  }

  /** Retired instructions, exact inside helpers and between slices. */
  retired(): number {
    return this.retiredBefore + (this.sliceBudget - this.i32[(this.at + S.budget) >>> 2]) - this.charged;
  }
  /** The physical time-stamp counter: retired instructions and charged cycles. */
  tsc(): number {
    return this.tscBase + this.retired() + this.extraCycles;
  }
}
