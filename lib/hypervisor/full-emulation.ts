/**
 * Emulation of whatever an instruction may do: legacy modes, segment loads, far transfers, event delivery, hardware task
 * switches (KVM's emulator with its `x86_emulate_ops`, emulator_task_switch, emulate_int).
 *
 * Works on all of the guest's registers in a software processor (`cpu/software.ts`). What has an exit handler goes to that
 * handler, as KVM's emulator calls the same functions. Not modelled: floating point and SIMD, SYSCALL, SYSENTER, INVPCID.
 */
import type { PendingEvent } from '../cpu/core.js';
import { type Interception, type LinearFault, type LinearMemory, SoftwareCpu } from '../cpu/software.js';
import { arithmeticFlags, FLAGS } from '../isa/flags.js';
import type { Insn } from '../isa/rows.js';
import { ARITHMETIC_FLAGS, CR0, FLAG, GPR, PF, S, SEG, VECTOR } from '../isa/state.js';
import { EXIT, VMCS } from '../vmx/port.js';
import { SEGMENT_FIELDS, setCr0, setCr3 } from './cr.js';
import type { Exit } from './exits.js';
import { handle } from './handlers/index.js';
import { type Next, RESUME, USER_EXIT } from './next.js';
import type { Vcpu } from './vcpu.js';

/** Guest memory by linear address, through the MMU's software walk. */
class GuestMemory implements LinearMemory {
  readonly #vcpu: Vcpu;
  constructor(vcpu: Vcpu) {
    this.#vcpu = vcpu;
  }
  /** The pieces of a range, by page. */
  #pieces(
    linear: bigint,
    bytes: number,
    access: number,
  ): readonly { readonly gpa: number; readonly bytes: number }[] | LinearFault {
    const pieces: { gpa: number; bytes: number }[] = [];
    for (let at = 0; at < bytes; ) {
      const here = BigInt.asUintN(this.#vcpu.longCode ? 64 : 32, linear + BigInt(at));
      const n = Math.min(bytes - at, 4096 - Number(here & 0xfffn));
      const gpa = this.#vcpu.mmu.gvaToGpa(here, access);
      if (typeof gpa !== 'number') return gpa;
      pieces.push({ gpa, bytes: n });
      at += n;
    }
    return pieces;
  }
  read(linear: bigint, bytes: number, user: boolean): bigint | LinearFault {
    const pieces = this.#pieces(linear, bytes, user ? PF.u : 0);
    if ('code' in pieces) return pieces;
    let value = 0n;
    let shift = 0n;
    for (const p of pieces) {
      value |= this.#vcpu.vm.readPhysical(p.gpa, p.bytes) << shift;
      shift += BigInt(8 * p.bytes);
    }
    return value;
  }
  write(linear: bigint, bytes: number, value: bigint, user: boolean): LinearFault | undefined {
    const pieces = this.#pieces(linear, bytes, PF.w | (user ? PF.u : 0));
    if ('code' in pieces) return pieces;
    let rest = value;
    for (const p of pieces) {
      this.#vcpu.vm.writePhysical(p.gpa, p.bytes, BigInt.asUintN(8 * p.bytes, rest));
      rest >>= BigInt(8 * p.bytes);
    }
    return undefined;
  }
  mayWrite(linear: bigint, bytes: number, user: boolean): LinearFault | undefined {
    const pieces = this.#pieces(linear, bytes, PF.w | (user ? PF.u : 0));
    return 'code' in pieces ? pieces : undefined;
  }
  readPhysical(gpa: number): bigint {
    return this.#vcpu.vm.readPhysical(gpa, 8);
  }
}

/** Exits of instructions without data, by reason. */
const PLAIN: Readonly<Record<number, Exit>> = {
  [EXIT.cpuid]: { reason: 'cpuid' },
  [EXIT.hlt]: { reason: 'hlt' },
  [EXIT.invd]: { reason: 'invd' },
  [EXIT.rdpmc]: { reason: 'rdpmc' },
  [EXIT.vmcall]: { reason: 'vmcall' },
  [EXIT.wbinvd]: { reason: 'wbinvd' },
  [EXIT.xsetbv]: { reason: 'xsetbv' },
  [EXIT.mwait]: { reason: 'mwait' },
  [EXIT.monitor]: { reason: 'monitor' },
};

/** The exit that the interception stands for. */
const exitOf = (i: Interception): Exit | undefined => {
  switch (i.kind) {
    case 'rdmsr':
      return { reason: 'rdmsr' };
    case 'wrmsr':
      return { reason: 'wrmsr' };
    case 'clts':
      return { reason: 'crAccess', cr: 0, access: 'clts', gpr: 0, source: 0 };
    case 'lmsw':
      return { reason: 'crAccess', cr: 0, access: 'lmsw', gpr: 0, source: i.source };
    case 'movToCr':
      return { reason: 'crAccess', cr: i.cr, access: 'to', gpr: i.gpr, source: 0 };
    case 'instruction':
      if (i.reason === EXIT.invlpg) return { reason: 'invlpg', linear: i.qualification };
      if (i.reason === EXIT.invpcid) return undefined;
      return PLAIN[i.reason] ?? { reason: 'vmxInstruction', number: i.reason };
    case 'tripleFault':
      return undefined;
  }
};

export class FullEmulator {
  readonly #vcpu: Vcpu;
  #software: SoftwareCpu | undefined;

  constructor(vcpu: Vcpu) {
    this.#vcpu = vcpu;
  }
  get #soft(): SoftwareCpu {
    const vcpu = this.#vcpu;
    const { vm } = vcpu;
    this.#software ??= new SoftwareCpu(
      new GuestMemory(vcpu),
      {
        read: (port, size) => {
          if (!vm.board.kernelPort(port)) vm.toUserSpace(USER_EXIT.io);
          return vm.board.readPort(port, size);
        },
        write: (port, size, value) => {
          if (!vm.board.kernelPort(port)) vm.toUserSpace(USER_EXIT.io);
          vm.board.writePort(port, size, value);
        },
      },
      (cr3) => {
        setCr3(vcpu, BigInt(cr3));
        vcpu.requestTlbFlush();
      },
    );
    return this.#software;
  }

  /** Executes an instruction. Undefined when it is one that is not modelled. @param count iterations of a string instruction */
  execute(insn: Insn, count: number): Next | undefined {
    const vcpu = this.#vcpu;
    const soft = this.#soft;
    this.#load();
    soft.cpu.set32(S.budget, count);
    const outcome = soft.execute(insn);
    const retired = count - (soft.cpu.get32(S.budget) | 0);
    switch (outcome) {
      case 'done':
        this.#store();
        if (retired > 1) vcpu.port.retire(retired - 1);
        this.#retired();
        return RESUME;
      case 'event':
        // iterations before the fault are done
        if (retired > 0) {
          this.#store();
          vcpu.port.retire(retired);
        }
        this.#queueFault();
        return RESUME;
      case 'intercepted':
        return this.#intercepted(insn.length);
      case 'unsupported':
        return undefined;
    }
  }

  /**
   * kvm_task_switch: to the task of a TSS selector. RIP is where the old task goes on; `restart` the address of the
   * instruction, for faults before the switch.
   */
  taskSwitch(selector: number, source: 0 | 1 | 2 | 3, code: number, restart: bigint): Next {
    const vcpu = this.#vcpu;
    const soft = this.#soft;
    this.#load();
    const { cpu } = soft;
    const outcome = soft.switchTask(selector, source, vcpu.rip, code, BigInt(vcpu.rflags & ~FLAG.rf));
    const switched = cpu.get32(S.segSel + 4 * SEG.tr) === selector;
    if (switched) {
      cpu.set64(S.rip, cpu.nextRip);
      this.#store();
      setCr0(vcpu, BigInt((vcpu.cr0 | CR0.ts) >>> 0));
    } else vcpu.port.vmwrite(VMCS.guestRip, restart);
    if (outcome === 'intercepted') vcpu.events.tripleFault = true;
    else if (outcome !== 'done') this.#queueFault();
    vcpu.eventRequested = true;
    return RESUME;
  }

  /** Delivers an event through the guest's interrupt table (emulate_int). */
  deliver(event: PendingEvent): void {
    const vcpu = this.#vcpu;
    const soft = this.#soft;
    this.#load();
    if (soft.deliver(event, vcpu.rip + BigInt(event.length)) === 'done') this.#store();
    else vcpu.events.tripleFault = true;
  }

  /** The exit handler does what the emulator must not. */
  #intercepted(length: number): Next | undefined {
    const vcpu = this.#vcpu;
    const interception = this.#soft.interception as Interception;
    if (interception.kind === 'tripleFault') {
      vcpu.events.tripleFault = true;
      return RESUME;
    }
    const exit = exitOf(interception);
    if (exit === undefined) return undefined;
    vcpu.emulatedLength = length;
    const next = handle(vcpu, exit);
    vcpu.emulatedLength = undefined;
    return next;
  }
  #queueFault(): void {
    const { cpu } = this.#soft;
    const vcpu = this.#vcpu;
    const vector = cpu.get32(S.faultVector);
    const code = cpu.get32(S.faultCode) | 0;
    if (vector === VECTOR.pf) vcpu.injectPageFault({ code, address: cpu.get64(S.faultAddress) });
    else vcpu.queueException(vector, code);
  }
  #retired(): void {
    const { port } = this.#vcpu;
    this.#vcpu.retired();
    // STI and MOV SS cast a shadow of their own
    const shadow = this.#soft.cpu.get32(S.interruptibility) & 3;
    if (shadow !== 0) {
      const blocking = port.vmread32(VMCS.guestInterruptibilityState);
      port.vmwrite32(VMCS.guestInterruptibilityState, blocking | shadow);
    }
  }

  #load(): void {
    const vcpu = this.#vcpu;
    const { port, registers } = vcpu;
    const { cpu } = this.#soft;
    for (let i = 0; i < 16; i++) cpu.setGpr(i, vcpu.gpr(i));
    cpu.set64(S.rip, vcpu.rip);
    const flags = vcpu.rflags;
    cpu.set32(S.flagKind, FLAGS.explicit);
    cpu.set64(S.flagA, BigInt(flags & ARITHMETIC_FLAGS));
    cpu.set64(S.flagR, (flags & FLAG.zf) !== 0 ? 0n : 1n);
    cpu.set32(S.eflags, flags & ~ARITHMETIC_FLAGS);
    for (const [seg, f] of SEGMENT_FIELDS.entries()) {
      cpu.set32(S.segSel + 4 * seg, port.vmread32(f.selector));
      cpu.set64(S.segBase + 8 * seg, port.vmread(f.base));
      cpu.set32(S.segLimit + 4 * seg, port.vmread32(f.limit));
      cpu.set32(S.segAttr + 4 * seg, port.vmread32(f.rights));
    }
    cpu.set64(S.gdtrBase, port.vmread(VMCS.guestGdtrBase));
    cpu.set32(S.gdtrLimit, port.vmread32(VMCS.guestGdtrLimit));
    cpu.set64(S.idtrBase, port.vmread(VMCS.guestIdtrBase));
    cpu.set32(S.idtrLimit, port.vmread32(VMCS.guestIdtrLimit));
    cpu.set64(S.cr0, BigInt(vcpu.cr0));
    cpu.set64(S.cr2, registers.cr2);
    cpu.set64(S.cr3, BigInt(vcpu.cr3));
    cpu.set64(S.cr4, BigInt(vcpu.cr4));
    cpu.set64(S.cr8, BigInt(vcpu.vm.board.lapic.cr8()));
    cpu.set64(S.efer, BigInt(vcpu.efer));
    for (const i of [0, 1, 2, 3] as const) cpu.set64(S.dr + 8 * i, registers.dr(i));
    cpu.set64(S.dr6, registers.dr(6));
    cpu.set64(S.dr7, port.vmread(VMCS.guestDr7));
    cpu.set32(S.interruptibility, port.vmread32(VMCS.guestInterruptibilityState) & ~3);
    cpu.set32(S.activity, 0);
    cpu.tscBase = Number(vcpu.guestTsc());
    this.#soft.modeChanged();
  }

  #store(): void {
    const vcpu = this.#vcpu;
    const { port, registers } = vcpu;
    const { cpu } = this.#soft;
    for (let i = 0; i < 16; i++) if (i !== GPR.rsp) registers.setGpr(i, cpu.gpr(i));
    port.vmwrite(VMCS.guestRsp, cpu.gpr(GPR.rsp));
    port.vmwrite(VMCS.guestRip, cpu.rip);
    const arithmetic = arithmeticFlags(cpu.get32(S.flagKind), cpu.get64(S.flagA), cpu.get64(S.flagR));
    const flags = (cpu.get32(S.eflags) & ~ARITHMETIC_FLAGS & ~FLAG.rf) | arithmetic | 2;
    port.vmwrite32(VMCS.guestRflags, flags >>> 0);
    for (const [seg, f] of SEGMENT_FIELDS.entries()) {
      port.vmwrite32(f.selector, cpu.get32(S.segSel + 4 * seg));
      port.vmwrite(f.base, cpu.get64(S.segBase + 8 * seg));
      port.vmwrite32(f.limit, cpu.get32(S.segLimit + 4 * seg));
      port.vmwrite32(f.rights, cpu.get32(S.segAttr + 4 * seg));
    }
    port.vmwrite(VMCS.guestGdtrBase, cpu.get64(S.gdtrBase));
    port.vmwrite32(VMCS.guestGdtrLimit, cpu.get32(S.gdtrLimit));
    port.vmwrite(VMCS.guestIdtrBase, cpu.get64(S.idtrBase));
    port.vmwrite32(VMCS.guestIdtrLimit, cpu.get32(S.idtrLimit));
    registers.cr2 = cpu.get64(S.cr2);
    for (const i of [0, 1, 2, 3] as const) registers.setDr(i, cpu.get64(S.dr + 8 * i));
    registers.setDr(6, cpu.get64(S.dr6));
    port.vmwrite(VMCS.guestDr7, cpu.get64(S.dr7));
    const blocking = port.vmread32(VMCS.guestInterruptibilityState);
    port.vmwrite32(VMCS.guestInterruptibilityState, (blocking & ~8) | (cpu.get32(S.interruptibility) & 8));
    vcpu.updateEmulation();
  }
}
