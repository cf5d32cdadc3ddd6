/**
 * Exits for control and debug registers, MSRs and XCR0 (KVM-1.2, KVM-3.6; KVM's handle_cr, handle_dr, handle_rdmsr,
 * handle_wrmsr, kvm_emulate_xsetbv). A false answer of a setter is #GP(0), with RIP at the instruction.
 */
import { CR0, CR4, FLAG, GPR, VECTOR } from '../../isa/state.js';
import { PROC, VMCS } from '../../vmx/port.js';
import { lmsw, setCr0, setCr3, setCr4 } from '../cr.js';
import type { ExitOf } from '../exits.js';
import { readMsr, writeMsr } from '../msr.js';
import { type Next, RESUME } from '../next.js';
import type { Vcpu } from '../vcpu.js';

/** Skips the instruction, or gives the guest #GP(0). */
const complete = (vcpu: Vcpu, ok: boolean): Next => {
  if (ok) vcpu.skip();
  else vcpu.injectGp();
  return RESUME;
};

const traceCr = (vcpu: Vcpu, rw: 0 | 1, cr: number, val: bigint): void =>
  vcpu.vm.trace.sinks.kvm_cr?.({ rw, cr, val });
const traceMsr = (vcpu: Vcpu, write: 0 | 1, ecx: number, data: bigint, exception: boolean): void =>
  vcpu.vm.trace.sinks.kvm_msr?.({ write, ecx, data, exception });

export const crAccess = (vcpu: Vcpu, exit: ExitOf<'crAccess'>): Next => {
  switch (exit.access) {
    case 'to': {
      const value = vcpu.operand(exit.gpr);
      traceCr(vcpu, 1, exit.cr, value);
      switch (exit.cr) {
        case 0:
          return complete(vcpu, setCr0(vcpu, value));
        case 3:
          return complete(vcpu, setCr3(vcpu, value));
        case 4:
          return complete(vcpu, setCr4(vcpu, value));
        case 8:
          if (value > 15n) return complete(vcpu, false);
          vcpu.vm.apic.setCr8(Number(value));
          vcpu.eventRequested = true;
          return complete(vcpu, true);
        default:
          vcpu.injectUd();
          return RESUME;
      }
    }
    case 'from': {
      const value = BigInt(exit.cr === 3 ? vcpu.cr3 : vcpu.vm.board.lapic.cr8());
      vcpu.setGpr(exit.gpr, value);
      traceCr(vcpu, 0, exit.cr, value);
      return complete(vcpu, true);
    }
    case 'clts': {
      const value = BigInt((vcpu.cr0 & ~CR0.ts) >>> 0);
      traceCr(vcpu, 1, 0, value);
      return complete(vcpu, setCr0(vcpu, value));
    }
    case 'lmsw':
      traceCr(vcpu, 1, 0, BigInt(((vcpu.cr0 & ~15) | (exit.source & 15)) >>> 0));
      return complete(vcpu, lmsw(vcpu, exit.source));
  }
};

const DR7_GD = 0x2000n;
const DR6_BD = 0x2000;

/** The first access loads the guest's DRs and stops exiting; the instruction is executed again (KVM-1.2). */
export const movDr = (vcpu: Vcpu, exit: ExitOf<'movDr'>): Next => {
  const { port } = vcpu;
  if ((exit.dr === 4 || exit.dr === 5) && (vcpu.cr4 & CR4.de) !== 0) {
    vcpu.injectUd();
    return RESUME;
  }
  if (vcpu.cpl !== 0) {
    vcpu.injectGp();
    return RESUME;
  }
  const dr7 = port.vmread(VMCS.guestDr7);
  if ((dr7 & DR7_GD) !== 0n) {
    port.vmwrite(VMCS.guestDr7, dr7 & ~DR7_GD);
    // a fault, so the image that is pushed has RF set
    port.vmwrite32(VMCS.guestRflags, port.vmread32(VMCS.guestRflags) | FLAG.rf);
    vcpu.queueDebug(DR6_BD);
    return RESUME;
  }
  vcpu.controls.setProc(PROC.movDrExiting, false);
  vcpu.debugRegistersLoaded = true;
  return RESUME;
};

export const rdmsr = (vcpu: Vcpu): Next => {
  const msr = vcpu.gpr32(GPR.rcx);
  const value = readMsr(vcpu, msr);
  traceMsr(vcpu, 0, msr, BigInt.asUintN(64, value ?? 0n), value === undefined);
  if (value === undefined) return complete(vcpu, false);
  vcpu.setGpr(GPR.rax, BigInt.asUintN(32, value));
  vcpu.setGpr(GPR.rdx, BigInt.asUintN(64, value) >> 32n);
  return complete(vcpu, true);
};

export const wrmsr = (vcpu: Vcpu): Next => {
  const value = (BigInt(vcpu.gpr32(GPR.rdx)) << 32n) | BigInt(vcpu.gpr32(GPR.rax));
  const msr = vcpu.gpr32(GPR.rcx);
  const ok = writeMsr(vcpu, msr, value);
  traceMsr(vcpu, 1, msr, value, !ok);
  return complete(vcpu, ok);
};

const XCR0_X87 = 1;
const XCR0_SSE = 2;
const XCR0_AVX = 4;

export const xsetbv = (vcpu: Vcpu): Next => {
  const value = vcpu.gpr32(GPR.rax);
  const ok =
    vcpu.cpl === 0 &&
    vcpu.gpr32(GPR.rcx) === 0 &&
    vcpu.gpr32(GPR.rdx) === 0 &&
    (value & XCR0_X87) !== 0 &&
    (value & ~vcpu.vm.cpuid.supportedXcr0) === 0 &&
    ((value & XCR0_AVX) === 0 || (value & XCR0_SSE) !== 0);
  if (ok) {
    vcpu.xcr0 = value;
    vcpu.registers.xcr0 = BigInt(value);
  }
  return complete(vcpu, ok);
};

/** Performance counters are not offered: #GP, as for a counter that does not exist. */
export const rdpmc = (vcpu: Vcpu): Next => complete(vcpu, false);

/** Exception that a VMX instruction gets without nested virtualization. */
export const vmxInstruction = (vcpu: Vcpu): Next => {
  vcpu.queueException(VECTOR.ud);
  return RESUME;
};
