/**
 * Events on their way into the guest: exceptions, NMIs and interrupts that are queued, injected, or cut short in the
 * middle of their delivery (KVM-5.2; KVM's kvm_multiple_exception, inject_pending_event, vmx_complete_interrupts).
 *
 * An event is `pending` until it is written into the VM-entry interruption-information field, then `injected` until
 * the next VM exit shows that its delivery has completed. A fault during delivery puts it back (IDT-vectoring).
 * SDM "VM-Entry Controls for Event Injection", "Information for VM Exits That Occur During Event Delivery".
 */
import { CR0, FLAG, VECTOR } from '../isa/state.js';
import { PROC, VMCS, type VmxPort } from '../vmx/port.js';
import type { Controls } from './controls.js';
import type { KvmStats } from './stats.js';
import type { Sinks } from './tracer.js';

/** What the injection asks of the interrupt controllers. */
export interface InterruptSource {
  /** An interrupt could be taken: 8259 through ExtINT, or the local APIC above the processor priority. */
  hasInterrupt(): boolean;
  /** Its vector; it moves from requested to in service. -1 when it vanished. */
  acknowledge(): number;
}

/** Tracepoints of the injection. */
export type InjectionTrace = Pick<Sinks, 'kvm_inj_virq' | 'kvm_inj_exception'>;
const UNTRACED: InjectionTrace = { kvm_inj_virq: undefined, kvm_inj_exception: undefined };

const TYPE = {
  interrupt: 0,
  nmi: 2,
  hardException: 3,
  softInterrupt: 4,
  privSoftException: 5,
  softException: 6,
} as const;
const VALID = 0x8000_0000;
const HAS_CODE = 0x800;
const STI_OR_MOV_SS = 3;
const NMI_BLOCKING = 8;

type Class = 'benign' | 'contributory' | 'page-fault';
const classOf = (vector: number): Class =>
  vector === VECTOR.pf
    ? 'page-fault'
    : vector === VECTOR.de || (vector >= VECTOR.ts && vector <= VECTOR.gp)
      ? 'contributory'
      : 'benign';

export class EventState {
  exceptionPending = false;
  exceptionInjected = false;
  vector = 0;
  /** Error code, or -1. */
  code = -1;
  interruptInjected = false;
  interruptVector = 0;
  interruptSoft = false;
  nmiPending = false;
  nmiInjected = false;
  /** Length of the instruction behind a software event being re-injected. */
  length = 0;
  tripleFault = false;
  /** Something waits until the event being delivered is done: leave the guest as soon as it is (-EBUSY in KVM). */
  immediateExit = false;

  /** Queues an exception; one that is under way already makes #DF or a triple fault of it. */
  queue(vector: number, code = -1): void {
    if (!this.exceptionPending && !this.exceptionInjected) {
      this.#set(vector, code);
      return;
    }
    const first = classOf(this.vector);
    const second = classOf(vector);
    if (this.vector === VECTOR.df && second !== 'benign') {
      this.tripleFault = true;
    } else if (
      (first === 'contributory' && second === 'contributory') ||
      (first === 'page-fault' && second !== 'benign')
    ) {
      this.#set(VECTOR.df, 0);
    } else {
      this.#set(vector, code);
    }
  }
  #set(vector: number, code: number): void {
    this.exceptionPending = true;
    this.exceptionInjected = false;
    this.vector = vector;
    this.code = code;
  }

  /** An event is being delivered or about to be, so no further one can be injected. */
  get reinjecting(): boolean {
    return this.exceptionInjected || this.interruptInjected || this.nmiInjected;
  }

  /** After a VM exit: what was injected is done, unless the exit hit its delivery. True when an event was put back. */
  complete(port: VmxPort, idtVectoring: number): boolean {
    this.exceptionInjected = false;
    this.exceptionPending = false;
    this.interruptInjected = false;
    this.nmiInjected = false;
    if ((idtVectoring & VALID) === 0) return false;
    const vector = idtVectoring & 0xff;
    this.length = 0;
    switch ((idtVectoring >> 8) & 7) {
      case TYPE.nmi:
        this.nmiInjected = true;
        // its delivery begins anew, so NMIs are not blocked yet
        port.vmwrite32(
          VMCS.guestInterruptibilityState,
          port.vmread32(VMCS.guestInterruptibilityState) & ~NMI_BLOCKING,
        );
        break;
      case TYPE.softException:
      case TYPE.privSoftException:
        this.length = port.vmread32(VMCS.exitInstructionLength);
        this.#reinjectException(port, vector, idtVectoring);
        break;
      case TYPE.hardException:
        this.#reinjectException(port, vector, idtVectoring);
        break;
      case TYPE.softInterrupt:
        this.length = port.vmread32(VMCS.exitInstructionLength);
        this.#reinjectInterrupt(vector, true);
        break;
      default:
        this.#reinjectInterrupt(vector, false);
    }
    return true;
  }
  #reinjectException(port: VmxPort, vector: number, info: number): void {
    this.exceptionInjected = true;
    this.vector = vector;
    this.code = (info & HAS_CODE) !== 0 ? port.vmread32(VMCS.idtVectoringErrorCode) : -1;
  }
  #reinjectInterrupt(vector: number, soft: boolean): void {
    this.interruptInjected = true;
    this.interruptVector = vector;
    this.interruptSoft = soft;
  }

  /**
   * Before a VM entry: writes at most one event. What has to wait for the guest gets a window; what has to wait for
   * that event gets an exit right after its delivery.
   */
  inject(
    port: VmxPort,
    controls: Controls,
    source: InterruptSource,
    stats: KvmStats,
    trace: InjectionTrace = UNTRACED,
  ): void {
    let canInject = true;
    this.immediateExit = false;
    if (this.exceptionInjected) {
      this.#writeException(port, trace, true);
      canInject = false;
    } else if (!this.exceptionPending) {
      if (this.nmiInjected) {
        stats.nmi_injections++;
        this.#write(port, VECTOR.nmi | (TYPE.nmi << 8));
        canInject = false;
      } else if (this.interruptInjected) {
        this.#writeInterrupt(port, stats, trace, true);
        canInject = false;
      }
    }
    if (this.exceptionPending) {
      // a fault saves RFLAGS with RF set, so that a code breakpoint does not trigger again
      if (
        this.vector !== VECTOR.db &&
        this.vector !== VECTOR.bp &&
        this.vector !== VECTOR.of &&
        this.vector !== VECTOR.df
      ) {
        port.vmwrite32(VMCS.guestRflags, port.vmread32(VMCS.guestRflags) | FLAG.rf);
      }
      this.length = 1;
      this.exceptionPending = false;
      this.exceptionInjected = true;
      this.#writeException(port, trace, false);
      canInject = false;
    }
    if (this.nmiPending) {
      if (!canInject) {
        this.immediateExit = true;
        return;
      }
      if ((port.vmread32(VMCS.guestInterruptibilityState) & (NMI_BLOCKING | STI_OR_MOV_SS)) === 0) {
        this.nmiPending = false;
        this.nmiInjected = true;
        stats.nmi_injections++;
        this.#write(port, VECTOR.nmi | (TYPE.nmi << 8));
        canInject = false;
      } else {
        controls.setProc(PROC.nmiWindowExiting, true);
      }
    }
    if (!source.hasInterrupt()) return;
    if (!canInject) {
      this.immediateExit = true;
      return;
    }
    if (interruptAllowed(port)) {
      const vector = source.acknowledge();
      if (vector >= 0) {
        this.interruptVector = vector;
        this.interruptSoft = false;
        this.interruptInjected = true;
        this.#writeInterrupt(port, stats, trace, false);
      }
      if (!source.hasInterrupt()) return;
    }
    controls.setProc(PROC.interruptWindowExiting, true);
  }

  #writeException(port: VmxPort, trace: InjectionTrace, reinjected: boolean): void {
    trace.kvm_inj_exception?.({
      exception: this.vector,
      has_error: this.code >= 0,
      error_code: Math.max(0, this.code),
      reinjected,
    });
    const soft = this.vector === VECTOR.bp || this.vector === VECTOR.of;
    let info = this.vector | ((soft ? TYPE.softException : TYPE.hardException) << 8);
    if (soft) port.vmwrite32(VMCS.entryInstructionLength, this.length);
    // real mode has no error codes
    if (this.code >= 0 && (port.vmread32(VMCS.cr0ReadShadow) & CR0.pe) !== 0) {
      port.vmwrite32(VMCS.entryExceptionErrorCode, this.code);
      info |= HAS_CODE;
    }
    this.#write(port, info);
  }
  #writeInterrupt(port: VmxPort, stats: KvmStats, trace: InjectionTrace, reinjected: boolean): void {
    trace.kvm_inj_virq?.({ vector: this.interruptVector, soft: this.interruptSoft, reinjected });
    stats.irq_injections++;
    if (this.interruptSoft) {
      port.vmwrite32(VMCS.entryInstructionLength, this.length);
      this.#write(port, this.interruptVector | (TYPE.softInterrupt << 8));
    } else {
      this.#write(port, this.interruptVector);
    }
  }
  #write(port: VmxPort, info: number): void {
    port.vmwrite32(VMCS.entryInterruptionInfo, (info | VALID) >>> 0);
  }
}

/** IF = 1 and no blocking by STI or MOV SS. */
export const interruptAllowed = (port: VmxPort): boolean =>
  (port.vmread32(VMCS.guestRflags) & FLAG.if) !== 0 &&
  (port.vmread32(VMCS.guestInterruptibilityState) & STI_OR_MOV_SS) === 0;
