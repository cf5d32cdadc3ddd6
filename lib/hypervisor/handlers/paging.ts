/**
 * Exits that the MMU answers: page faults and other exceptions, EPT violations and misconfigurations, INVLPG, INVPCID
 * (KVM-3.3, KVM-4; KVM's handle_exception_nmi, kvm_mmu_page_fault, handle_invpcid).
 */
import { CR4, PF, VECTOR } from '../../isa/state.js';
import { VMCS } from '../../vmx/port.js';
import type { ExitOf } from '../exits.js';
import type { GuestPageFault, PageFaultResult } from '../mmu/mmu.js';
import { type Next, RESUME, stop } from '../next.js';
import { memoryOperand } from '../operand.js';
import type { Vcpu } from '../vcpu.js';

const TYPE_NMI = 2;
const TYPE_INT1 = 5;

/** kvm_mmu_page_fault: MMIO entries first, then the MMU, then the emulator. */
const mmuFault = (vcpu: Vcpu, address: number | bigint, code: number): Next => {
  const { vm, mmu } = vcpu;
  if ((code & PF.rsvd) !== 0 && mmu.mmioAddress(address) !== undefined) return vm.emulator.emulate();
  vm.stats.pf_taken++;
  const result = mmu.pageFault(address, code);
  count(vcpu, result);
  if (result !== 'emulate') return RESUME;
  // a store to a page table may be a page freed and reused: unshadow it and retry, unless the instruction writes tables
  const shadowed = !vcpu.ept && (code & PF.w) !== 0 && mmu.mmioAddress(address) === undefined;
  return vm.emulator.emulate(shadowed ? (address as bigint) : undefined);
};

const count = (vcpu: Vcpu, result: PageFaultResult): void => {
  const { stats, costs } = vcpu.vm;
  switch (result) {
    case 'fixed':
      stats.pf_fixed++;
      vcpu.vm.charge(
        vcpu.ept ? (vcpu.vm.slots.backing === '2M' ? costs.eptFixed2M : costs.eptFixed4K) : costs.faultFixed,
      );
      break;
    case 'emulate':
      stats.pf_emulate++;
      break;
    case 'spurious':
      stats.pf_spurious++;
      break;
    case 'guest':
    case 'retry':
      break;
  }
};

const traceFault = (vcpu: Vcpu, address: number | bigint, code: number): void =>
  vcpu.vm.trace.sinks.kvm_page_fault?.({
    vcpu_id: 0,
    guest_rip: vcpu.rip,
    fault_address: BigInt(address),
    error_code: code,
  });

export const exceptionOrNmi = (vcpu: Vcpu, exit: ExitOf<'exceptionOrNmi'>): Next => {
  if (exit.type === TYPE_NMI) return RESUME;
  switch (exit.vector) {
    case VECTOR.pf:
      traceFault(vcpu, exit.qualification, exit.code);
      // a fault while an event was being delivered: the page written to is no page table any more (KVM-7.1.16)
      if (!vcpu.ept && vcpu.events.reinjecting) vcpu.mmu.faultDuringDelivery(exit.qualification);
      return mmuFault(vcpu, exit.qualification, exit.code);
    case VECTOR.ud:
      vcpu.vm.stats.insn_emulation++;
      vcpu.injectUd();
      return RESUME;
    case VECTOR.db: {
      if (exit.type === TYPE_INT1) vcpu.skip();
      vcpu.queueDebug(Number(exit.qualification & 0xe00fn));
      return RESUME;
    }
    case VECTOR.mc:
      return stop('interrupted', 'machine check');
    default:
      vcpu.queueException(exit.vector, exit.code);
      return RESUME;
  }
};

export const eptViolation = (vcpu: Vcpu, exit: ExitOf<'eptViolation'>): Next => {
  const { port } = vcpu;
  // the exit hit an IRET with NMIs blocked: they stay blocked
  if ((port.vmread32(VMCS.exitQualification) & 0x1000) !== 0 && !vcpu.events.reinjecting) {
    port.vmwrite32(VMCS.guestInterruptibilityState, port.vmread32(VMCS.guestInterruptibilityState) | 8);
  }
  // KVM gives the qualification as it is
  traceFault(vcpu, exit.gpa, port.vmread32(VMCS.exitQualification) >>> 0);
  return mmuFault(vcpu, exit.gpa, exit.code);
};

export const eptMisconfiguration = (vcpu: Vcpu, exit: ExitOf<'eptMisconfiguration'>): Next =>
  mmuFault(vcpu, exit.gpa, PF.rsvd);

export const invlpg = (vcpu: Vcpu, exit: ExitOf<'invlpg'>): Next => {
  vcpu.mmu.invlpg(exit.linear);
  vcpu.vm.stats.invlpg++;
  vcpu.skip();
  return RESUME;
};

const canonical = (linear: bigint): boolean => BigInt.asUintN(64, BigInt.asIntN(48, linear)) === linear;

export const invpcid = (vcpu: Vcpu, exit: ExitOf<'invpcid'>): Next => {
  const { vm } = vcpu;
  if (!vm.cpuid.has('invpcid')) {
    vcpu.injectUd();
    return RESUME;
  }
  const type = vcpu.operand(exit.gpr);
  if (type > 3n) {
    vcpu.injectGp();
    return RESUME;
  }
  const at = memoryOperand(vcpu);
  const low = readOperand(vcpu, at);
  const linear = typeof low === 'bigint' ? readOperand(vcpu, at + 8n) : low;
  if (typeof low !== 'bigint' || typeof linear !== 'bigint') {
    vcpu.injectPageFault((typeof low === 'bigint' ? linear : low) as GuestPageFault);
    return RESUME;
  }
  const pcid = Number(low & 0xfffn);
  const bad =
    low >> 12n !== 0n ||
    ((type === 0n || type === 1n) && pcid !== 0 && (vcpu.cr4 & CR4.pcide) === 0) ||
    (type === 0n && !canonical(linear));
  if (bad) {
    vcpu.injectGp();
    return RESUME;
  }
  vcpu.mmu.invpcid(Number(type) as 0 | 1 | 2 | 3, pcid, linear);
  if (type === 0n) vm.stats.invlpg++;
  vcpu.skip();
  return RESUME;
};

/** Eight bytes of an operand, or the fault that reading them raises. */
const readOperand = (vcpu: Vcpu, linear: bigint): bigint | GuestPageFault => {
  let value = 0n;
  const here = Math.min(8, 4096 - Number(linear & 0xfffn));
  const access = vcpu.cpl === 3 ? PF.u : 0;
  const first = vcpu.mmu.gvaToGpa(linear, access);
  if (typeof first !== 'number') return first;
  value = vcpu.vm.readPhysical(first, here);
  if (here === 8) return value;
  const second = vcpu.mmu.gvaToGpa(linear + BigInt(here), access);
  if (typeof second !== 'number') return second;
  return value | (vcpu.vm.readPhysical(second, 8 - here) << BigInt(8 * here));
};
