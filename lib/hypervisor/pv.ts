/**
 * KVM's paravirtual interfaces: kvmclock (system time and wall clock pages) and the PV end of interrupt (KVM-5, D-6).
 *
 * The clock page is written once, when the guest asks for it: with a stable TSC nothing changes afterwards. An offer of
 * a PV EOI is taken back at any exit that comes before the guest's EOI. Steal time: nothing is ever stolen.
 * Not modelled: asynchronous page faults happening, PV TLB flush, PV IPIs.
 */
import type { Vcpu } from './vcpu.js';

const ENABLED = 1n;
const TSC_STABLE = 1;
const NS = 1_000_000_000;

/** Multiplier and shift with which a guest turns TSC cycles into nanoseconds (kvm_get_time_scale). */
export const tscScale = (hz: number): { readonly mul: number; readonly shift: number } => {
  let shift = 0;
  let base = hz;
  while (base > 2 * NS || base >= 2 ** 32) {
    base = Math.floor(base / 2);
    shift--;
  }
  let scaled = NS;
  while (base <= scaled) {
    if (base >= 2 ** 31) scaled = Math.floor(scaled / 2);
    else base *= 2;
    shift++;
  }
  return { mul: Number((BigInt(scaled) << 32n) / BigInt(base)), shift };
};

/** Nanoseconds of virtual time since the VM was created. */
const systemTime = (vcpu: Vcpu): bigint => {
  const { clock } = vcpu.vm;
  return (BigInt(clock.now()) * BigInt(NS)) / BigInt(clock.rate);
};

/** WRMSR to KVM_SYSTEM_TIME: bit 0 enables, the rest is the page's guest-physical address. */
export const writeSystemTime = (vcpu: Vcpu, value: bigint): void => {
  vcpu.systemTimeMsr = value;
  if ((value & ENABLED) === 0n) return;
  const page = new DataView(new ArrayBuffer(32));
  const { mul, shift } = tscScale(vcpu.vm.clock.rate);
  page.setUint32(0, 2, true); // version, even: not being changed
  page.setBigUint64(8, vcpu.guestTsc(), true);
  page.setBigUint64(16, systemTime(vcpu), true);
  page.setUint32(24, mul, true);
  page.setInt8(28, shift);
  page.setUint8(29, TSC_STABLE);
  vcpu.vm.writeGuest(Number(value & ~ENABLED), new Uint8Array(page.buffer));
};

/** WRMSR to KVM_WALL_CLOCK: the time of day at which system time was 0. */
export const writeWallClock = (vcpu: Vcpu, value: bigint): void => {
  if (value === 0n) return;
  const page = new DataView(new ArrayBuffer(12));
  page.setUint32(0, 2, true);
  page.setUint32(4, vcpu.vm.bootSeconds, true);
  page.setUint32(8, 0, true);
  vcpu.vm.writeGuest(Number(value), new Uint8Array(page.buffer));
};

/** KVM_STEAL_TIME: a record of zeros (version even, no time stolen, not preempted). */
export const writeStealTime = (vcpu: Vcpu, value: bigint): void => {
  if ((value & ENABLED) !== 0n) vcpu.vm.writeGuest(Number(value & ~0x3fn), new Uint8Array(64));
};

/** The four bytes of the guest at the PV EOI address. */
const pvEoiAddress = (vcpu: Vcpu): number => Number(vcpu.pvEoiMsr & ~3n);

/** Before an entry: the guest may skip the EOI write when nothing else is waiting (apic_sync_pv_eoi_to_guest). */
export const offerPvEoi = (vcpu: Vcpu): void => {
  if ((vcpu.pvEoiMsr & ENABLED) === 0n || vcpu.pvEoiPending) return;
  const { lapic, ioapic } = vcpu.vm.board;
  const serving = lapic.highestIsr();
  if (serving < 0 || lapic.highestIrr() >= 0 || ioapic.handlesVector(serving)) return;
  vcpu.vm.writeGuest8(pvEoiAddress(vcpu), 1);
  vcpu.pvEoiPending = true;
};

/** After an exit: the guest has ended its interrupt by clearing the bit, or the offer is withdrawn. */
export const collectPvEoi = (vcpu: Vcpu): void => {
  vcpu.pvEoiPending = false;
  const at = pvEoiAddress(vcpu);
  if ((vcpu.vm.readGuest8(at) & 1) !== 0) vcpu.vm.writeGuest8(at, 0);
  else {
    const { lapic } = vcpu.vm.board;
    const vector = lapic.highestIsr();
    lapic.eoi();
    vcpu.vm.trace.sinks.kvm_pv_eoi?.({ apicid: 0, vector });
  }
};
