/**
 * Asynchronous page faults, as far as they go without host paging: memory is always there, so no fault ever becomes
 * asynchronous, but enabling the feature queues one "wake up all" event, as KVM's kvm_async_pf_wakeup_all does.
 *
 * The event is delivered as an interrupt once the local APIC is enabled and the guest's token slot is free. Until then
 * the queue is not empty, and a vCPU with a non-empty queue never blocks in HLT (KVM-5.5; measured E): a guest that
 * finds no local APIC spins through HLT exits.
 */
import type { Vcpu } from './vcpu.js';

export const ASYNC_PF_MSR = { enable: 0x4b564d02, interrupt: 0x4b564d06 } as const;
const ENABLED = 1n;
const AS_INTERRUPT = 8n;
const RESERVED = 0x30n;
/** Of the 64 bytes that guest and host share: the token of a page that is ready. */
const TOKEN_OFFSET = 4;
const EVERY_TASK = 0xffff_ffff;

const enabled = (value: bigint): boolean => (value & (ENABLED | AS_INTERRUPT)) === (ENABLED | AS_INTERRUPT);

/** WRMSR to KVM_ASYNC_PF_EN (kvm_pv_enable_async_pf); false for #GP. */
export const enableAsyncPf = (vcpu: Vcpu, value: bigint): boolean => {
  if ((value & RESERVED) !== 0n) return false;
  vcpu.storedMsrs.set(ASYNC_PF_MSR.enable, value);
  vcpu.asyncPfDone = enabled(value);
  return true;
};

/** Before an entry (kvm_check_async_pf_completion): hands the event over, if the guest can take it. */
export const deliverAsyncPf = (vcpu: Vcpu): void => {
  const { vm } = vcpu;
  const area = Number((vcpu.storedMsrs.get(ASYNC_PF_MSR.enable) ?? 0n) & ~0x3fn);
  for (let i = 0; i < 4; i++) if (vm.readGuest8(area + TOKEN_OFFSET + i) !== 0) return;
  const vector = Number((vcpu.storedMsrs.get(ASYNC_PF_MSR.interrupt) ?? 0n) & 0xffn);
  if (!vm.board.lapic.accept(vector, false)) return;
  vm.writeGuest(area + TOKEN_OFFSET, new Uint8Array(new Uint32Array([EVERY_TASK]).buffer));
  vcpu.asyncPfDone = false;
  vcpu.eventRequested = true;
};
