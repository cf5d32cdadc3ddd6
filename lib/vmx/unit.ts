/**
 * The VMX unit: VMX instructions of root operation, and the way into and out of the guest.
 *
 * SDM volume 3, chapters "Introduction to Virtual Machine Extensions" and "VMX Instruction Reference". It implements the
 * seam `VmxPort` for the hypervisor. Host interrupts that become due in root operation stay pending until the next
 * entry; taking them earlier is the hypervisor's business (`hostTimer(undefined, …)`).
 */
import { InvariantError, invariant, LabError } from '../base/error.js';
import type { Cpu } from '../cpu/core.js';
import { hardwareCpuid } from '../cpu/system/cpuid.js';
import { readMsr, writeMsr } from '../cpu/system/msrs.js';
import { MSR } from '../isa/msrs.js';
import { EPT_VPID, REVISION_ID, VMX_MSRS } from './capabilities.js';
import { CHECKS } from './check-rows.js';
import { CheckRunner, CheckView } from './checks.js';
import { describe } from './describe.js';
import { VmEntry, type VmxMemory } from './entry.js';
import { ExecutionControls } from './execution.js';
import { finishExit } from './exit.js';
import { type FieldEncoding, ROW } from './fields.js';
import { NonRootOperation } from './nonroot.js';
import type {
  EntryOutcome,
  PhysicalMemory,
  StubRegisters,
  VmxPort,
  VmxResult,
  WalkCounters,
} from './port.js';
import { stubRegisters } from './registers.js';
import { RootState } from './root.js';
import { Timers } from './timer.js';
import { CurrentVmcs, isWritable, rowOf, Vmcs } from './vmcs.js';

/** The run loop as the unit uses it; `cpu/processor.ts` has it. */
export interface ProcessorRun {
  /** Runs until `limit` instructions have retired in total, or until it must stop. */
  run(limit: number): 'exit' | 'limit' | 'shutdown' | 'halt';
}

/** The memory unit as the VMX unit uses it; `memory/mmu.ts` has it. */
export interface VmxMmu extends VmxMemory, WalkCounters {
  eptExecuteOnly: boolean;
  invvpid(type: 0 | 1 | 2 | 3, vpid: number, lo?: number, hi?: number): void;
  invept(type: 1 | 2, root?: number): void;
}

// VM-instruction error numbers
const ERROR = {
  vmclearAddress: 2,
  vmclearVmxon: 3,
  launchNotClear: 4,
  resumeNotLaunched: 5,
  vmptrldAddress: 9,
  vmptrldVmxon: 10,
  vmptrldRevision: 11,
  vmxonInRoot: 15,
  operand: 28,
} as const;

export class VmxUnit implements VmxPort {
  readonly memory: PhysicalMemory;
  readonly registers: StubRegisters;
  readonly walks: WalkCounters;
  exitTsc = 0;
  /** The guest's side: what instructions ask in VMX non-root operation. */
  readonly nonRoot: NonRootOperation;

  private readonly cpu: Cpu;
  private readonly mmu: VmxMmu;
  private readonly processor: ProcessorRun;
  private readonly fields: CurrentVmcs;
  private readonly controls = new ExecutionControls();
  private readonly timers = new Timers();
  private readonly root = new RootState();
  private readonly entry: VmEntry;
  private readonly vmcss = new Map<number, Vmcs>();
  /** VMXON region; undefined outside VMX operation. */
  private region: number | undefined;
  /** The guest was stopped by the limit of a run and goes on without a new VM entry. */
  private running = false;

  constructor(cpu: Cpu, mmu: VmxMmu, processor: ProcessorRun) {
    this.cpu = cpu;
    this.mmu = mmu;
    this.processor = processor;
    this.memory = cpu.ram;
    this.walks = mmu;
    this.registers = stubRegisters(cpu);
    mmu.eptExecuteOnly = 'executeOnly' in EPT_VPID;
    const { controls, timers, root } = this;
    const fields = new CurrentVmcs(cpu);
    this.fields = fields;
    this.nonRoot = new NonRootOperation(cpu, fields, controls, timers);
    this.entry = new VmEntry({
      cpu,
      memory: mmu,
      fields,
      checks: new CheckRunner(new CheckView(fields, cpu.ram), CHECKS),
      controls,
      timers,
      events: this.nonRoot.events,
      root,
    });
  }

  // ---- VMX instructions
  vmxon(region: number): VmxResult {
    if (this.region !== undefined) return this.failValid(ERROR.vmxonInRoot);
    if (!this.isRegion(region) || this.cpu.ram.read32(region) !== REVISION_ID) return 'fail-invalid';
    this.region = region;
    this.fields.select(undefined);
    return 'succeed';
  }

  vmxoff(): VmxResult {
    this.inVmxOperation('VMXOFF');
    this.fields.select(undefined);
    this.region = undefined;
    this.running = false;
    this.mmu.ept = undefined;
    this.mmu.vpid = 0;
    return 'succeed';
  }

  vmclear(hpa: number): VmxResult {
    this.inVmxOperation('VMCLEAR');
    if (!this.isRegion(hpa)) return this.failValid(ERROR.vmclearAddress);
    if (hpa === this.region) return this.failValid(ERROR.vmclearVmxon);
    const vmcs = this.vmcs(hpa);
    if (this.fields.current === vmcs) {
      this.fields.select(undefined);
      this.running = false;
    }
    vmcs.launched = false;
    return 'succeed';
  }

  vmptrld(hpa: number): VmxResult {
    this.inVmxOperation('VMPTRLD');
    if (!this.isRegion(hpa)) return this.failValid(ERROR.vmptrldAddress);
    if (hpa === this.region) return this.failValid(ERROR.vmptrldVmxon);
    if (this.cpu.ram.read32(hpa) !== REVISION_ID) return this.failValid(ERROR.vmptrldRevision);
    const vmcs = this.vmcs(hpa);
    if (this.fields.current !== vmcs) {
      this.fields.select(vmcs);
      this.running = false;
    }
    return 'succeed';
  }

  vmread(field: FieldEncoding): bigint {
    return this.fields.big(rowOf(field));
  }
  vmread32(field: FieldEncoding): number {
    return this.fields.lo32(rowOf(field));
  }
  vmreadNumber(field: FieldEncoding): number {
    return this.fields.number(rowOf(field));
  }
  vmwrite(field: FieldEncoding, value: bigint): void {
    this.write(field, Number(value & 0xffff_ffffn), Number((value >> 32n) & 0xffff_ffffn));
  }
  vmwrite32(field: FieldEncoding, value: number): void {
    this.write(field, value, 0);
  }
  vmwriteNumber(field: FieldEncoding, value: number): void {
    this.write(field, value % 0x1_0000_0000, Math.floor(value / 0x1_0000_0000));
  }
  private write(field: FieldEncoding, lo: number, hi: number): void {
    const row = rowOf(field);
    invariant(this.fields.current !== undefined, () => 'VMWRITE without a current VMCS');
    invariant(isWritable(row), () => `VMWRITE to the read-only field 0x${field.toString(16)}`);
    this.fields.write(row, lo, hi);
  }

  invept(type: 1 | 2, eptp: bigint): VmxResult {
    this.inVmxOperation('INVEPT');
    if (type === 1 && (eptp & 0x3fn) !== 0x1en) return this.failValid(ERROR.operand);
    this.mmu.invept(type, Number(eptp & 0xf_ffff_ffff_f000n));
    return 'succeed';
  }

  invvpid(type: 0 | 1 | 2 | 3, vpid: number, linear: bigint): VmxResult {
    this.inVmxOperation('INVVPID');
    if (type !== 2 && vpid === 0) return this.failValid(ERROR.operand);
    if (type === 0 && BigInt.asUintN(64, BigInt.asIntN(48, linear)) !== BigInt.asUintN(64, linear)) {
      return this.failValid(ERROR.operand);
    }
    this.mmu.invvpid(type, vpid, Number(BigInt.asIntN(32, linear)), Number(BigInt.asIntN(32, linear >> 32n)));
    return 'succeed';
  }

  // ---- into the guest and back
  enter(instruction: 'vmlaunch' | 'vmresume', maxInstructions: number): EntryOutcome {
    // paused by its limit the guest just goes on, unless the hypervisor has changed the VMCS: then it is entered anew
    if (!this.running || this.fields.stale !== 0 || this.fields.dirtyTopics !== 0) {
      const refused = this.begin(this.running ? 'vmresume' : instruction);
      if (refused !== undefined) return refused;
    }
    const end = this.processor.run(maxInstructions);
    this.running = end === 'limit';
    if (end === 'limit') {
      this.fields.put(ROW.entryInterruptionInfo, this.fields.lo32(ROW.entryInterruptionInfo) & 0x7fff_ffff);
      return { limit: true };
    }
    if (end === 'exit') return { exit: this.leave() };
    throw new LabError(
      'vmx.stopped',
      `the guest stopped for good (${end}): nothing can wake it`,
      'arm a timer or set HLT exiting',
    );
  }

  /** VM entry up to the first instruction; an outcome when that is as far as it gets. */
  private begin(instruction: 'vmlaunch' | 'vmresume'): EntryOutcome | undefined {
    this.inVmxOperation(instruction);
    const vmcs = this.fields.current;
    if (vmcs === undefined) return { fail: 'fail-invalid' };
    if (instruction === 'vmlaunch' && vmcs.launched) return { fail: this.failValid(ERROR.launchNotClear) };
    if (instruction === 'vmresume' && !vmcs.launched)
      return { fail: this.failValid(ERROR.resumeNotLaunched) };
    const result = this.entry.enter(this.nowGuest);
    if (result === 'entered') {
      vmcs.launched = true;
      return undefined;
    }
    if (result === 'exited') {
      vmcs.launched = true;
      return { exit: this.leave() };
    }
    this.exitTsc = this.cpu.tsc();
    if ('failValid' in result) return { fail: this.failValid(result.failValid) };
    return { exit: result.failedExit };
  }

  private readonly nowGuest = (): void => {
    this.cpu.guest = this.nonRoot;
    this.nonRoot.entered();
  };

  private leave(): number {
    this.exitTsc = this.cpu.tsc();
    return finishExit(this.cpu, this.fields, this.controls, this.timers, this.root);
  }

  // ---- the rest of the machine
  rdmsr(msr: number): bigint {
    if (msr === MSR.tsc) return BigInt(Math.floor(this.cpu.tsc()));
    const value = this.root.read(msr, this.fields) ?? VMX_MSRS.get(msr) ?? readMsr(this.cpu, msr);
    if (value === undefined) throw new InvariantError(`RDMSR of 0x${msr.toString(16)}, which does not exist`);
    return value;
  }
  wrmsr(msr: number, value: bigint): void {
    if (this.root.write(msr, value)) return;
    const done = !VMX_MSRS.has(msr) && writeMsr(this.cpu, msr, value);
    invariant(done, () => `WRMSR of 0x${value.toString(16)} to 0x${msr.toString(16)} faults`);
  }
  cpuid(leaf: number, subleaf: number): { eax: number; ebx: number; ecx: number; edx: number } {
    return hardwareCpuid(this.cpu, leaf, subleaf);
  }
  rdtsc(): number {
    return this.cpu.tsc();
  }
  retired(): number {
    return this.cpu.retired();
  }
  retire(n: number): void {
    this.cpu.retiredBefore += n;
  }
  charge(cycles: number): void {
    this.cpu.extraCycles += cycles;
  }
  hostTimer(deadline: number | undefined, vector: number): void {
    this.timers.interrupt = deadline ?? Number.POSITIVE_INFINITY;
    this.timers.vector = vector;
  }
  describeVmcs(): string {
    return describe(this.fields, this.entry.broken);
  }

  // ---- parts
  private isRegion(hpa: number): boolean {
    return hpa % 4096 === 0 && this.cpu.ram.has(hpa, 4096);
  }
  private vmcs(hpa: number): Vmcs {
    let vmcs = this.vmcss.get(hpa);
    if (vmcs === undefined) {
      vmcs = new Vmcs(hpa);
      this.vmcss.set(hpa, vmcs);
    }
    return vmcs;
  }
  /** VMfailValid, which needs a current VMCS to hold the error number. */
  private failValid(number: number): VmxResult {
    if (this.fields.current === undefined) return 'fail-invalid';
    this.fields.put(ROW.vmInstructionError, number);
    return { failValid: number };
  }
  private inVmxOperation(instruction: string): void {
    invariant(this.region !== undefined, () => `${instruction.toUpperCase()} outside VMX operation`);
  }
}

export const createVmx = (cpu: Cpu, mmu: VmxMmu, processor: ProcessorRun): VmxUnit =>
  new VmxUnit(cpu, mmu, processor);
