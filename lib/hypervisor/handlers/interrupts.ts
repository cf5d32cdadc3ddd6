/**
 * Exits around interrupts: host interrupts, windows, the preemption timer, TPR threshold and APIC accesses (KVM-5.2).
 */
import { PROC } from '../../vmx/port.js';
import type { ExitOf } from '../exits.js';
import { type Next, RESUME } from '../next.js';
import type { Vcpu } from '../vcpu.js';

/** The host's interrupt handler has run: timers that are due fire before the next entry. */
export const externalInterrupt = (vcpu: Vcpu): Next => {
  vcpu.vm.stats.irq_exits++;
  return RESUME;
};

export const interruptWindow = (vcpu: Vcpu): Next => {
  vcpu.controls.setProc(PROC.interruptWindowExiting, false);
  vcpu.vm.stats.irq_window_exits++;
  vcpu.eventRequested = true;
  return RESUME;
};

export const nmiWindow = (vcpu: Vcpu): Next => {
  vcpu.controls.setProc(PROC.nmiWindowExiting, false);
  vcpu.vm.stats.nmi_window_exits++;
  vcpu.eventRequested = true;
  return RESUME;
};

/** The local APIC timer expires; an exit before its deadline (a count that did not fit) changes nothing. */
export const preemptionTimer = (vcpu: Vcpu): Next => {
  vcpu.vm.expireLapicTimer();
  return RESUME;
};

export const tprBelowThreshold = (vcpu: Vcpu): Next => {
  vcpu.eventRequested = true;
  return RESUME;
};

const APIC_EOI = 0xb0;
const LINEAR_WRITE = 1;

/** An access to the APIC page: an EOI write directly, anything else through the emulator. */
export const apicAccess = (vcpu: Vcpu, exit: ExitOf<'apicAccess'>): Next => {
  vcpu.eventRequested = true;
  if (vcpu.vm.params.fasteoi && exit.access === LINEAR_WRITE && exit.offset === APIC_EOI) {
    vcpu.vm.trace.sinks.kvm_apic?.({ rw: 1, reg: APIC_EOI, val: 0 });
    vcpu.vm.board.lapic.eoi();
    vcpu.skip();
    return RESUME;
  }
  return vcpu.vm.emulator.emulate();
};
