/**
 * VM entry: checks, loading of guest state, event injection, start of the timers.
 *
 * SDM volume 3, chapter "VM Entries". What is already in the processor (the live guest state, `vmcs.ts`) is not loaded
 * again; what a VMWRITE has changed since the last entry is brought up to date.
 */
import type { Cpu, MemoryUnit, PendingEvent } from '../cpu/core.js';
import { DR7_ENABLES } from '../cpu/system/breakpoints.js';
import { loadPdptes } from '../cpu/system/control-registers.js';
import { modeChanged } from '../cpu/system/segments.js';
import { CR0, CR4, EFER, FLAG, LEAVE, S } from '../isa/state.js';
import type { CheckRow, CheckRunner } from './checks.js';
import { TOPICS } from './checks.js';
import { ENTRY_CONTROL, PIN, PROC } from './controls.js';
import type { Events } from './events.js';
import type { ExecutionControls } from './execution.js';
import { ENTRY_FAILURE, EXIT } from './exit-reasons.js';
import { ROW } from './fields.js';
import { loadEntryMsrs } from './msr-lists.js';
import type { RootState } from './root.js';
import { type Timers, timerDeadline } from './timer.js';
import { type CurrentVmcs, STALE } from './vmcs.js';

/** What VM entry needs of the memory unit; `memory/mmu.ts` has it. */
export interface VmxMemory extends MemoryUnit {
  ept: { readonly root: number; readonly ad: boolean } | undefined;
  vpid: number;
}

/** The rule that the last failed entry broke. */
export interface BrokenRule {
  readonly id: string;
  readonly says: string;
}

/** `entered`: the guest may run; `exited`: an exit is recorded already (during injection); a number: VMfailValid or, with bit 31, a failed entry's exit reason. */
export type EntryResult =
  | 'entered'
  | 'exited'
  | { readonly failValid: number }
  | { readonly failedExit: number };

const VALID = 0x8000_0000;
const PENDING_MTF = 7;
/** Valid, hardware exception, vector 1. */
const INJECTED_DEBUG = 0x8000_0301;

export class VmEntry {
  /** The rule that made the last entry fail, or undefined after a good one. */
  broken: BrokenRule | undefined;

  private readonly cpu: Cpu;
  private readonly memory: VmxMemory;
  private readonly fields: CurrentVmcs;
  private readonly checks: CheckRunner;
  private readonly controls: ExecutionControls;
  private readonly timers: Timers;
  private readonly events: Events;
  private readonly root: RootState;

  constructor(parts: {
    cpu: Cpu;
    memory: VmxMemory;
    fields: CurrentVmcs;
    checks: CheckRunner;
    controls: ExecutionControls;
    timers: Timers;
    events: Events;
    root: RootState;
  }) {
    this.cpu = parts.cpu;
    this.memory = parts.memory;
    this.fields = parts.fields;
    this.checks = parts.checks;
    this.controls = parts.controls;
    this.timers = parts.timers;
    this.events = parts.events;
    this.root = parts.root;
  }

  /** Enters the current VMCS, whose launch state has been checked. `begin` is called when the guest is about to run. */
  enter(begin: () => void): EntryResult {
    const { cpu, fields } = this;
    const broken = this.checks.run();
    if (broken !== undefined) return this.refuse(broken);
    this.broken = undefined;
    fields.load();
    this.bringUpToDate();
    this.loadMsrFields();
    const failure = fields.lo32(ROW.entryMsrLoadCount) === 0 ? undefined : loadEntryMsrs(cpu, fields);
    if (failure !== undefined) {
      this.broken = failure;
      return this.failedExit(EXIT.msrLoading, failure.entry);
    }
    cpu.set64(S.nextRip, cpu.rip);
    cpu.set32(S.leave, LEAVE.none);
    cpu.delivering = undefined;
    // RF matters where a code breakpoint could ask for it, and in the image of an injected #DB; elsewhere it is not loaded
    const injectsDebug = (fields.lo32(ROW.entryInterruptionInfo) & 0x8000_07ff) >>> 0 === INJECTED_DEBUG;
    if (fields.resumeFlag && (injectsDebug || (cpu.get32(S.dr7) & DR7_ENABLES) !== 0))
      cpu.set32(S.eflags, cpu.get32(S.eflags) | FLAG.rf);
    fields.resumeFlag = false;
    begin();
    this.startTimers();
    return this.inject() ? 'entered' : 'exited';
  }

  private refuse(row: CheckRow): EntryResult {
    this.broken = row;
    const { group } = TOPICS[row.topic];
    if (group === 'controls') return { failValid: 7 };
    if (group === 'host') return { failValid: 8 };
    return this.failedExit(EXIT.invalidGuestState, row.qualification ?? 0);
  }

  private failedExit(reason: number, qualification: number): EntryResult {
    this.fields.put(ROW.exitReason, (ENTRY_FAILURE | reason) >>> 0);
    this.fields.put(ROW.exitQualification, qualification);
    return { failedExit: (ENTRY_FAILURE | reason) >>> 0 };
  }

  /** What the changed fields mean for the intercepts, the memory unit, and the mode of the processor. */
  private bringUpToDate(): void {
    const { controls, cpu, fields, memory } = this;
    const { stale } = fields;
    fields.stale = 0;
    if ((stale & STALE.controls) !== 0) {
      controls.read(fields);
      const { eptp } = controls;
      const root = eptp - (eptp % 4096);
      const ad = (eptp & 0x40) !== 0;
      if (eptp === 0) memory.ept = undefined;
      else if (memory.ept?.root !== root || memory.ept.ad !== ad) memory.ept = { root, ad };
      memory.vpid = controls.vpid;
    }
    const efer = this.efer();
    const changed = efer !== cpu.get32(S.efer);
    if (changed) cpu.set64(S.efer, BigInt(efer));
    if (controls.eptp === 0 && this.usesPdptes()) loadPdptes(cpu, cpu.get32(S.cr3));
    if ((stale & ~STALE.event) !== 0 || changed) modeChanged(cpu);
    if (controls.vpid === 0) memory.flushAll();
  }

  /** EFER of the guest: loaded, or the processor's with LMA and LME as the IA-32e mode guest control says. */
  private efer(): number {
    const { controls, cpu, fields } = this;
    if ((controls.entry & ENTRY_CONTROL.loadEfer) !== 0) return fields.lo32(ROW.guestEfer);
    const long = (controls.entry & ENTRY_CONTROL.ia32eModeGuest) !== 0;
    const { efer } = this.root;
    if (long) return efer | EFER.lma | EFER.lme;
    return efer & ~((cpu.get32(S.cr0) & CR0.pg) !== 0 ? EFER.lma | EFER.lme : EFER.lma);
  }

  private usesPdptes(): boolean {
    const { cpu } = this;
    return (
      (cpu.get32(S.cr0) & CR0.pg) !== 0 &&
      (cpu.get32(S.cr4) & CR4.pae) !== 0 &&
      (cpu.get32(S.efer) & EFER.lma) === 0
    );
  }

  private loadMsrFields(): void {
    const { controls, cpu, fields, root } = this;
    if ((controls.entry & ENTRY_CONTROL.loadDebugControls) !== 0) {
      copy(cpu, S.dr7, fields, ROW.guestDr7);
      copy(cpu, S.debugctl, fields, ROW.guestDebugctl);
    } else {
      cpu.set64(S.dr7, root.dr7);
      cpu.set64(S.debugctl, root.debugctl);
    }
    if ((controls.entry & ENTRY_CONTROL.loadPat) !== 0) copy(cpu, S.pat, fields, ROW.guestPat);
    else cpu.set64(S.pat, root.pat);
    if (controls.has(PROC.useTprShadow)) cpu.set32(S.cr8, controls.virtualTpr(cpu.ram) >> 4);
  }

  private startTimers(): void {
    const { controls, cpu, fields, timers } = this;
    const now = cpu.tsc();
    timers.preemption =
      (controls.pin & PIN.activatePreemptionTimer) !== 0
        ? timerDeadline(now, fields.lo32(ROW.vmxPreemptionTimerValue))
        : Number.POSITIVE_INFINITY;
    timers.monitorTrap = controls.has(PROC.monitorTrapFlag) ? now + 1 : Number.POSITIVE_INFINITY;
  }

  /** Injects the event of the entry-interruption field; false when its delivery ended in a VM exit. */
  private inject(): boolean {
    const { cpu, fields, timers } = this;
    const info = fields.lo32(ROW.entryInterruptionInfo);
    if ((info & VALID) === 0) return true;
    const type = (info >>> 8) & 7;
    if (type === PENDING_MTF) {
      timers.monitorTrap = cpu.tsc();
      return true;
    }
    const vector = info & 0xff;
    const software = type >= 4;
    const event: PendingEvent = {
      vector,
      type: type as PendingEvent['type'],
      code: (info & 0x800) !== 0 ? fields.lo32(ROW.entryExceptionErrorCode) : -1,
      address: 0n, // neither CR2 nor DR6 is written by injection
      length: software ? fields.lo32(ROW.entryInstructionLength) : 0,
      injected: true,
    };
    const blockNmis = type === 2 ? 8 : 0;
    if (!this.events.deliver(event, BigInt.asUintN(64, cpu.rip + BigInt(event.length)))) return false;
    cpu.set32(S.interruptibility, cpu.get32(S.interruptibility) | blockNmis);
    // an active monitor trap flag is pending right after injection
    if (timers.monitorTrap !== Number.POSITIVE_INFINITY) timers.monitorTrap = cpu.tsc();
    return true;
  }
}

const copy = (cpu: Cpu, offset: number, fields: CurrentVmcs, row: number): void => {
  cpu.set32(offset, fields.lo32(row));
  cpu.set32(offset + 4, fields.hi32(row));
};
