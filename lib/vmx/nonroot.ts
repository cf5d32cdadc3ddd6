/**
 * VMX non-root operation: what the instructions and events of the guest do instead of, or before, their usual work.
 *
 * SDM volume 3, chapter "VMX Non-Root Operation". Each method answers true when it has recorded a VM exit (or, where
 * the SDM says so, a fault) and the instruction must be left. Not modelled: SMM, enclaves, APIC-register
 * virtualization, NMIs from outside (there is no source of NMIs but injection), unblocking of NMIs by a faulting IRET.
 */
import type { Cpu, IoAccess, NonRoot, PendingEvent } from '../cpu/core.js';
import { CR0, S, VECTOR } from '../isa/state.js';
import { PIN, PROC, SECONDARY } from './controls.js';
import { Events } from './events.js';
import type { ExecutionControls } from './execution.js';
import { EXIT } from './exit-reasons.js';
import {
  CR_ACCESS,
  crQualification,
  drQualification,
  INTERCEPT_OF,
  interruptionInfo,
  ioInformation,
  ioQualification,
  lmswQualification,
  taskSwitchQualification,
} from './intercepts.js';
import { recordExit } from './record.js';
import type { Timers } from './timer.js';
import type { CurrentVmcs } from './vmcs.js';

const TPR_MSR = 0x808;

export class NonRootOperation implements NonRoot {
  private readonly cpu: Cpu;
  private readonly controls: ExecutionControls;
  private readonly fields: CurrentVmcs;
  /** Events at instruction boundaries; the unit injects through it. */
  readonly events: Events;
  /** TSC of the last PAUSE at CPL 0, and of the first of the loop it belongs to; -1 after VM entry. */
  private lastPause = -1;
  private firstPause = 0;

  constructor(cpu: Cpu, fields: CurrentVmcs, controls: ExecutionControls, timers: Timers) {
    this.cpu = cpu;
    this.fields = fields;
    this.controls = controls;
    this.events = new Events(cpu, controls, timers);
  }

  /** A VM entry has happened. */
  entered(): void {
    this.lastPause = -1;
  }

  // ---- instructions
  instruction(reason: number, qualification = 0n, info = 0): boolean {
    const { controls, cpu } = this;
    if (reason === EXIT.pause) return this.pause();
    if (reason === EXIT.xsaves || reason === EXIT.xrstors) return this.xsaves(reason, info);
    const rule = INTERCEPT_OF[reason];
    if (rule === undefined) return false;
    if (rule.enabledBy !== undefined && !controls.has2(rule.enabledBy)) return !cpu.ud();
    if (rule.proc !== undefined && !controls.has(rule.proc)) return false;
    if (rule.secondary !== undefined && !controls.has2(rule.secondary)) return false;
    return recordExit(cpu, reason, qualification, info);
  }

  /** PAUSE exiting, and PAUSE-loop exiting: a loop of PAUSEs at CPL 0, gaps of at most PLE_Gap, longer than PLE_Window. */
  private pause(): boolean {
    const { controls, cpu } = this;
    if (controls.has(PROC.pauseExiting)) return recordExit(cpu, EXIT.pause);
    if (!controls.has2(SECONDARY.pauseLoopExiting) || cpu.get32(S.cpl) !== 0) return false;
    const now = cpu.tsc();
    const first = this.lastPause < 0 || now - this.lastPause > controls.pleGap;
    this.lastPause = now;
    if (first) {
      this.firstPause = now;
      return false;
    }
    return now - this.firstPause > controls.pleWindow && recordExit(cpu, EXIT.pause);
  }

  allowsRdpid(): boolean {
    return this.controls.has2(SECONDARY.enableRdtscp);
  }

  private xsaves(reason: number, info: number): boolean {
    const { controls, cpu } = this;
    if (!controls.has2(SECONDARY.enableXsaves)) return !cpu.ud();
    const asked = (BigInt.asUintN(32, cpu.gpr(2)) << 32n) | BigInt.asUintN(32, cpu.gpr(0));
    return (asked & cpu.get64(S.xss) & controls.xssBitmap) !== 0n && recordExit(cpu, reason, 0n, info);
  }

  movToCr(cr: number, gpr: number, value: bigint): boolean {
    const { controls, cpu } = this;
    let exits = false;
    if (cr === 0) exits = ((value ^ controls.cr0Shadow) & controls.cr0Mask) !== 0n;
    else if (cr === 4) exits = ((value ^ controls.cr4Shadow) & controls.cr4Mask) !== 0n;
    else if (cr === 3) exits = controls.has(PROC.cr3LoadExiting) && !controls.cr3Targets.includes(value);
    else if (cr === 8) {
      exits = controls.has(PROC.cr8LoadExiting);
      if (!exits && controls.has(PROC.useTprShadow) && value < 16n) return this.writeTpr(Number(value) << 4);
    }
    return exits && recordExit(cpu, EXIT.crAccess, crQualification(cr, CR_ACCESS.movTo, gpr));
  }

  movFromCr(cr: number, gpr: number): boolean {
    const { controls } = this;
    const exits =
      (cr === 3 && controls.has(PROC.cr3StoreExiting)) || (cr === 8 && controls.has(PROC.cr8StoreExiting));
    return exits && recordExit(this.cpu, EXIT.crAccess, crQualification(cr, CR_ACCESS.movFrom, gpr));
  }

  clts(): boolean {
    const { cr0Mask, cr0Shadow } = this.controls;
    const exits = (cr0Mask & cr0Shadow & BigInt(CR0.ts)) !== 0n;
    return exits && recordExit(this.cpu, EXIT.crAccess, crQualification(0, CR_ACCESS.clts));
  }

  lmsw(source: number, memory: boolean, linear: bigint): boolean {
    const mask = Number(this.controls.cr0Mask & 15n);
    const shadow = Number(this.controls.cr0Shadow & 15n);
    // PE can only be set by LMSW; MP, EM and TS also cleared
    const exits = ((source ^ shadow) & mask & 14) !== 0 || (source & mask & ~shadow & 1) !== 0;
    if (!exits) return false;
    recordExit(this.cpu, EXIT.crAccess, lmswQualification(source, memory));
    if (memory) this.cpu.exitInfo.linear = linear;
    return true;
  }

  movDr(dr: number, gpr: number, write: boolean): boolean {
    return (
      this.controls.has(PROC.movDrExiting) &&
      recordExit(this.cpu, EXIT.movDr, drQualification(dr, gpr, write))
    );
  }

  io(access: IoAccess): boolean {
    const { controls, cpu } = this;
    const exits = controls.has(PROC.useIoBitmaps)
      ? this.ioBitmap(access.port, access.size)
      : controls.has(PROC.unconditionalIoExiting);
    if (!exits) return false;
    recordExit(cpu, EXIT.ioInstruction, ioQualification(access), access.string ? ioInformation(access) : 0);
    if (access.string) cpu.exitInfo.linear = access.linear;
    return true;
  }

  /** An access that wraps around port FFFFH exits, as does one to any port whose bit is set. */
  private ioBitmap(port: number, size: number): boolean {
    if (port + size > 0x1_0000) return true;
    const { controls, cpu } = this;
    for (let p = port; p < port + size; p++) {
      const page = p < 0x8000 ? controls.ioBitmapA : controls.ioBitmapB;
      if (((cpu.ram.read8(page + ((p & 0x7fff) >> 3)) >> (p & 7)) & 1) !== 0) return true;
    }
    return false;
  }

  rdmsr(msr: number): boolean {
    return this.msrExits(msr, 0) && recordExit(this.cpu, EXIT.rdmsr);
  }

  wrmsr(msr: number): boolean {
    return this.msrExits(msr, 2048) && recordExit(this.cpu, EXIT.wrmsr);
  }

  private msrExits(msr: number, bitmapOffset: number): boolean {
    const { controls, cpu } = this;
    if (!controls.has(PROC.useMsrBitmaps)) return true;
    const n = msr >>> 0;
    const high = n >= 0xc000_0000;
    const index = high ? n - 0xc000_0000 : n;
    if (index > 0x1fff) return true;
    const at = controls.msrBitmap + bitmapOffset + (high ? 1024 : 0) + (index >> 3);
    return ((cpu.ram.read8(at) >> (index & 7)) & 1) !== 0;
  }

  /** RDMSR of the x2APIC TPR reads the virtual-APIC page when x2APIC mode is virtualized. */
  virtualRdmsr(msr: number): bigint | undefined {
    const { controls, cpu } = this;
    if (msr !== TPR_MSR || !controls.has2(SECONDARY.virtualizeX2apicMode)) return undefined;
    return BigInt(controls.virtualTpr(cpu.ram));
  }

  virtualWrmsr(msr: number, value: bigint): 'register' | 'done' | 'left' {
    const { controls, cpu } = this;
    if (msr !== TPR_MSR || !controls.has2(SECONDARY.virtualizeX2apicMode)) return 'register';
    if (value > 0xffn) {
      cpu.gp();
      return 'left';
    }
    return this.writeTpr(Number(value)) ? 'left' : 'done';
  }

  /** TPR virtualization: true when the TPR fell below the threshold, a trap-like exit after the instruction. */
  private writeTpr(tpr: number): boolean {
    const { controls, cpu } = this;
    cpu.ram.write8(controls.virtualApic + 0x80, tpr);
    cpu.set64(S.cr8, BigInt(tpr >> 4));
    if (controls.has2(SECONDARY.virtualizeApicAccesses) || tpr >> 4 >= (controls.tprThreshold & 15))
      return false;
    recordExit(cpu, EXIT.tprBelowThreshold);
    cpu.set64(S.rip, cpu.nextRip);
    return true;
  }

  descriptorTable(reason: 46 | 47, qualification: bigint, info: number): boolean {
    return (
      this.controls.has2(SECONDARY.descriptorTableExiting) &&
      recordExit(this.cpu, reason, qualification, info)
    );
  }

  taskSwitch(selector: number, source: 0 | 1 | 2 | 3): boolean {
    return recordExit(this.cpu, EXIT.taskSwitch, taskSwitchQualification(selector, source));
  }

  // ---- events
  exception(event: PendingEvent): boolean {
    const { controls, cpu } = this;
    const { vector, type, code } = event;
    if (type === 0 || type === 4) return false;
    if (type === 2) {
      if ((controls.pin & PIN.nmiExiting) === 0) return false;
    } else {
      let exits = ((controls.exceptionBitmap >>> vector) & 1) !== 0;
      if (vector === VECTOR.pf)
        exits = exits === ((code & controls.pageFaultMask) === controls.pageFaultMatch);
      if (!exits) return false;
    }
    // qualification: address of a page fault, DR6 bits of a debug exception; CR2 and DR6 stay as they are
    recordExit(cpu, EXIT.exceptionOrNmi, vector === VECTOR.pf || vector === VECTOR.db ? event.address : 0n);
    const e = cpu.exitInfo;
    e.interruptionInfo = interruptionInfo(vector, type, code);
    e.interruptionCode = code >= 0 ? code : 0;
    e.instructionLength = event.length;
    // RF in the saved RFLAGS is what the stack frame of the fault would have had; a fault in a delivery leaves it alone
    if (type === 3 && vector !== VECTOR.db && cpu.delivering === undefined) this.fields.resumeFlag = true;
    return true;
  }

  tripleFault(): boolean {
    return recordExit(this.cpu, EXIT.tripleFault);
  }

  /**
   * An access to the APIC-access page, for the memory unit to ask when the page of a translation is
   * `apicAccessPage`. The TPR is not read from the virtual-APIC page: every access exits.
   * @param access `APIC_ACCESS`
   */
  apicAccess(offset: number, access: number, linear: bigint): boolean {
    recordExit(this.cpu, EXIT.apicAccess, BigInt((offset & 0xfff) | (access << 12)));
    this.cpu.exitInfo.linear = linear;
    return true;
  }
  get apicAccessPage(): number {
    return this.controls.apicAccessPage;
  }

  // ---- control registers as the guest sees them
  readCr0(real: bigint): bigint {
    const { cr0Mask, cr0Shadow } = this.controls;
    return (real & ~cr0Mask) | (cr0Shadow & cr0Mask);
  }
  readCr4(real: bigint): bigint {
    const { cr4Mask, cr4Shadow } = this.controls;
    return (real & ~cr4Mask) | (cr4Shadow & cr4Mask);
  }
  writeCr0(value: bigint): bigint {
    const { cr0Mask } = this.controls;
    return (value & ~cr0Mask) | (this.cpu.get64(S.cr0) & cr0Mask);
  }
  writeCr4(value: bigint): bigint {
    const { cr4Mask } = this.controls;
    return (value & ~cr4Mask) | (this.cpu.get64(S.cr4) & cr4Mask);
  }
  get tscOffset(): bigint {
    return this.controls.tscOffset;
  }

  // ---- instruction boundaries
  boundary(): boolean {
    return this.events.boundary();
  }
  deadline(): number {
    return this.events.deadline();
  }
  watching(): boolean {
    return this.events.watching();
  }
}
