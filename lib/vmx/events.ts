/**
 * Events at instruction boundaries of the guest: which VM exit, or which delivery, is due before the next instruction.
 *
 * SDM volume 3, "Other Causes of VM Exits" and the sections on the monitor trap flag, the preemption timer and window
 * exiting; "Priority Among Concurrent Events". Order here: monitor trap, pending debug exceptions, preemption timer,
 * NMI window, interrupt window, external interrupt. (Interrupt-window exits come before external interrupts.)
 */
import type { Cpu, PendingEvent } from '../cpu/core.js';
import { deliverEvent } from '../cpu/system/events.js';
import { FLAG, S } from '../isa/state.js';
import { EXIT_CONTROL, PIN, PROC } from './controls.js';
import type { ExecutionControls } from './execution.js';
import { EXIT } from './exit-reasons.js';
import { interruptionInfo } from './intercepts.js';
import { recordExit } from './record.js';
import type { Timers } from './timer.js';

// bits of the interruptibility state
const STI = 1;
const MOV_SS = 2;
const NMI = 8;

export class Events {
  private readonly cpu: Cpu;
  private readonly controls: ExecutionControls;
  private readonly timers: Timers;

  constructor(cpu: Cpu, controls: ExecutionControls, timers: Timers) {
    this.cpu = cpu;
    this.controls = controls;
    this.timers = timers;
  }

  /** Takes the exit that is due; true when one was recorded. An event that does not exit is delivered. */
  boundary(): boolean {
    const { controls, cpu, timers } = this;
    const now = cpu.tsc();
    const blocking = cpu.get32(S.interruptibility);
    if (timers.monitorTrap <= now) return recordExit(cpu, EXIT.monitorTrapFlag);
    if ((blocking & MOV_SS) === 0 && cpu.get32(S.pendingDebug) !== 0 && this.debugException()) return true;
    if (timers.preemption <= now) return recordExit(cpu, EXIT.preemptionTimer);
    if (controls.has(PROC.nmiWindowExiting) && (blocking & (NMI | MOV_SS | STI)) === 0) {
      return recordExit(cpu, EXIT.nmiWindow);
    }
    const open = (cpu.get32(S.eflags) & FLAG.if) !== 0 && (blocking & (STI | MOV_SS)) === 0;
    if (open && controls.has(PROC.interruptWindowExiting)) return recordExit(cpu, EXIT.interruptWindow);
    if (timers.interrupt <= now) return this.externalInterrupt(open);
    return false;
  }

  /** @param open interrupts are not masked by the guest */
  private externalInterrupt(open: boolean): boolean {
    const { controls, cpu, timers } = this;
    if ((controls.pin & PIN.externalInterruptExiting) === 0) {
      if (!open) return false;
      timers.interrupt = Number.POSITIVE_INFINITY;
      return !this.deliver({
        vector: timers.vector,
        type: 0,
        code: -1,
        address: 0n,
        length: 0,
        injected: false,
      });
    }
    recordExit(cpu, EXIT.externalInterrupt);
    if ((controls.exit & EXIT_CONTROL.acknowledgeInterrupt) !== 0) {
      cpu.exitInfo.interruptionInfo = interruptionInfo(timers.vector, 0, -1);
      timers.interrupt = Number.POSITIVE_INFINITY;
    }
    return true;
  }

  /** Pending debug exceptions that are enabled become #DB. */
  private debugException(): boolean {
    const { cpu } = this;
    const pending = cpu.get64(S.pendingDebug);
    cpu.set64(S.pendingDebug, 0n);
    // bits 3:0 say which breakpoints matched, bit 12 that one of them is enabled, bit 14 single step
    if ((pending & 0x5000n) === 0n) return false;
    return !this.deliver({
      vector: 1,
      type: 3,
      code: -1,
      address: pending & 0x400fn,
      length: 0,
      injected: false,
    });
  }

  /** Delivers through the guest's IDT; false when that led to a VM exit. */
  deliver(event: PendingEvent, returnRip = this.cpu.rip): boolean {
    const { cpu } = this;
    if (!deliverEvent(cpu, event, returnRip)) return false;
    cpu.set64(S.rip, cpu.nextRip);
    cpu.set32(S.interruptibility, cpu.get32(S.interruptibility) & ~(STI | MOV_SS));
    return true;
  }

  /** A timed event, or the end of the shadow of STI or MOV SS while something waits for it. */
  deadline(): number {
    const { cpu, timers } = this;
    let at = Math.min(timers.monitorTrap, timers.preemption);
    if ((this.controls.pin & PIN.externalInterruptExiting) !== 0 || timers.interrupt > cpu.tsc()) {
      at = Math.min(at, timers.interrupt);
    }
    if ((cpu.get32(S.interruptibility) & (STI | MOV_SS)) !== 0 && this.watching())
      at = Math.min(at, cpu.tsc() + 1);
    return at;
  }

  watching(): boolean {
    const { controls, cpu, timers } = this;
    return (
      controls.has(PROC.interruptWindowExiting | PROC.nmiWindowExiting) ||
      cpu.get32(S.pendingDebug) !== 0 ||
      ((controls.pin & PIN.externalInterruptExiting) === 0 && timers.interrupt <= cpu.tsc())
    );
  }
}
