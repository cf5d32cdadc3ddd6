/**
 * The processor state at the first guest instruction, as a loader gives it (`loaders/entry-state.ts` has the same shape),
 * and how it gets into the VMCS and the stub registers.
 */

import { LabError } from '../base/error.js';
import { SEG_NAMES } from '../isa/state.js';
import { VMCS } from '../vmx/port.js';
import { loadPdptes, paePaging, SEGMENT_FIELDS } from './cr.js';
import { setMsrFromHost } from './msr.js';
import type { Vcpu } from './vcpu.js';

export interface EntrySegment {
  readonly selector: number;
  readonly base: bigint;
  /** In bytes, granularity applied. */
  readonly limit: number;
  /** VMX access rights. */
  readonly attr: number;
}

export interface EntryState {
  /** 16 general registers in encoding order. */
  readonly gprs: readonly bigint[];
  readonly rip: bigint;
  readonly rflags: number;
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  readonly segments: Readonly<Record<(typeof SEG_NAMES)[number], EntrySegment>>;
  readonly gdtr: { readonly base: bigint; readonly limit: number };
  readonly idtr: { readonly base: bigint; readonly limit: number };
  /** MSRs that the monitor sets before the first entry. */
  readonly msrs: readonly (readonly [index: number, value: bigint])[];
}

/**
 * KVM_SET_REGS, KVM_SET_SREGS and KVM_SET_MSRS.
 * @throws LabError for an MSR that KVM would not take
 */
export const loadEntryState = (vcpu: Vcpu, state: EntryState): void => {
  const { port } = vcpu;
  vcpu.setEfer(Number(state.efer));
  vcpu.setCr0(Number(state.cr0));
  vcpu.setCr3(Number(state.cr3));
  vcpu.setCr4(Number(state.cr4));
  if (paePaging(vcpu.cr0, vcpu.cr4, vcpu.efer) && !loadPdptes(vcpu, vcpu.cr3))
    throw new LabError('vm.pdptes', `the PDPTEs at 0x${vcpu.cr3.toString(16)} have reserved bits set`);
  for (const [i, name] of SEG_NAMES.entries()) {
    const s = state.segments[name];
    const f = SEGMENT_FIELDS[i as 0];
    port.vmwrite32(f.selector, s.selector);
    port.vmwrite(f.base, s.base);
    port.vmwrite32(f.limit, s.limit);
    port.vmwrite32(f.rights, s.attr);
  }
  port.vmwrite(VMCS.guestGdtrBase, state.gdtr.base);
  port.vmwrite32(VMCS.guestGdtrLimit, state.gdtr.limit);
  port.vmwrite(VMCS.guestIdtrBase, state.idtr.base);
  port.vmwrite32(VMCS.guestIdtrLimit, state.idtr.limit);
  port.vmwrite(VMCS.guestRip, state.rip);
  port.vmwrite32(VMCS.guestRflags, state.rflags);
  for (const [i, v] of state.gprs.entries()) vcpu.setGpr(i, v);
  for (const [msr, value] of state.msrs) {
    if (!setMsrFromHost(vcpu, msr, value))
      throw new LabError('vm.msr', `the vCPU does not take ${value} for MSR 0x${msr.toString(16)}`);
  }
  vcpu.updateEmulation();
  vcpu.mmu.contextReset();
};
