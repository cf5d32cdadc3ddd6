/** What the hooks of VM entry and exit put into their events (KVM's trace_kvm_entry, trace_kvm_exit, vmx_get_exit_info). */
import { ENTRY_FAILURE, VMCS } from '../vmx/port.js';
import { TracedCpu } from './trace-cpu.js';
import type { Sink } from './tracer.js';
import type { Vcpu } from './vcpu.js';

const VALID = 0x8000_0000;
const HAS_CODE = 0x800;

export const traceEntry = (vcpu: Vcpu, sink: Sink<'kvm_entry'>): void =>
  sink({ vcpu_id: 0, rip: vcpu.rip, cpu: new TracedCpu(vcpu.port, vcpu) });

/** @param reason the full exit reason */
export const traceExit = (vcpu: Vcpu, sink: Sink<'kvm_exit'>, reason: number): void => {
  const { port } = vcpu;
  const failed = reason >>> 0 >= ENTRY_FAILURE;
  const intr = failed ? 0 : port.vmread32(VMCS.exitInterruptionInfo) >>> 0;
  const hasCode = (intr & VALID) !== 0 && (intr & HAS_CODE) !== 0;
  sink({
    vcpu_id: 0,
    exit_reason: reason >>> 0,
    guest_rip: vcpu.rip,
    info1: port.vmread(VMCS.exitQualification),
    info2: failed ? 0n : port.vmread(VMCS.idtVectoringInfo),
    intr_info: intr,
    error_code: hasCode ? port.vmread32(VMCS.exitInterruptionErrorCode) >>> 0 : 0,
    cpu: new TracedCpu(port, vcpu),
  });
};
