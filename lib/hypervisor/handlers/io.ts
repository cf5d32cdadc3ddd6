/**
 * Port input and output (KVM's handle_io, kvm_fast_pio, emulator_pio_in/out). Every access exits; PIC, PIT, port B and
 * ELCR are handled in the kernel, all others by user space, which costs more; `io_exits` counts both.
 * String forms run up to 1024 iterations an exit. Not modelled: I/O permission bitmaps (the processor checks them).
 */
import { FLAG, GPR, PF, SEG } from '../../isa/state.js';
import { VMCS } from '../../vmx/port.js';
import { SEGMENT_FIELDS } from '../cr.js';
import type { ExitOf } from '../exits.js';
import { type Next, RESUME, USER_EXIT } from '../next.js';
import type { Vcpu } from '../vcpu.js';

const MASK = { 1: 0xffn, 2: 0xffffn, 4: 0xffff_ffffn } as const;

const outValue = (vcpu: Vcpu, size: 1 | 2 | 4): number =>
  Number(BigInt.asUintN(32, vcpu.registers.gpr(GPR.rax)) & MASK[size]);
/** One value at a time, those of string forms too. */
const tracePio = (vcpu: Vcpu, exit: ExitOf<'ioInstruction'>, val: number): void =>
  vcpu.vm.trace.sinks.kvm_pio?.({
    rw: exit.input ? 0 : 1,
    port: exit.port,
    size: exit.size,
    count: 1,
    val,
  });

export const ioInstruction = (vcpu: Vcpu, exit: ExitOf<'ioInstruction'>): Next => {
  const { vm } = vcpu;
  vm.stats.io_exits++;
  const { port, size } = exit;
  if (!exit.string && !exit.input) tracePio(vcpu, exit, outValue(vcpu, size));
  if (!vm.board.kernelPort(port)) vm.toUserSpace(USER_EXIT.io);
  if (exit.string) return stringIo(vcpu, exit);
  // skipped first, as KVM does: a device that stops the machine leaves RIP behind the instruction
  vcpu.skip();
  if (exit.input) {
    const value = BigInt(vm.board.readPort(port, size) >>> 0);
    tracePio(vcpu, exit, Number(value & MASK[size]));
    if (size === 4) vcpu.registers.setGpr(GPR.rax, value);
    else vcpu.registers.setGpr(GPR.rax, (vcpu.registers.gpr(GPR.rax) & ~MASK[size]) | (value & MASK[size]));
  } else {
    vm.board.writePort(port, size, outValue(vcpu, size));
  }
  return RESUME;
};

/** INS and OUTS, with REP: iteration by iteration, each one translated anew. */
const stringIo = (vcpu: Vcpu, exit: ExitOf<'ioInstruction'>): Next => {
  const { vm, port: vmx, registers } = vcpu;
  vm.stats.insn_emulation++;
  const info = vmx.vmread32(VMCS.exitInstructionInfo);
  const width = [16, 32, 64, 64][(info >>> 7) & 3] as number;
  const mask = BigInt.asUintN(width, -1n);
  const index = exit.input ? GPR.rdi : GPR.rsi;
  const segment = exit.input ? SEG.es : (info >>> 15) & 7;
  const flat = vcpu.longCode && segment !== SEG.fs && segment !== SEG.gs;
  const base = flat ? 0n : vmx.vmread(SEGMENT_FIELDS[segment as 0].base);
  const step = (vcpu.rflags & FLAG.df) !== 0 ? -BigInt(exit.size) : BigInt(exit.size);
  const part = (old: bigint, v: bigint): bigint =>
    width === 64 ? v & mask : width === 32 ? v & mask : (old & ~mask) | (v & mask);
  let count = exit.rep ? registers.gpr(GPR.rcx) & mask : 1n;
  let done = 0;
  while (count > 0n) {
    const linear = BigInt.asUintN(vcpu.longCode ? 64 : 32, base + (registers.gpr(index) & mask));
    const gpa = vcpu.mmu.gvaToGpa(linear, (exit.input ? PF.w : 0) | (vcpu.cpl === 3 ? PF.u : 0));
    if (typeof gpa !== 'number') {
      if (done > 0) vmx.retire(done);
      vcpu.injectPageFault(gpa);
      return RESUME;
    }
    if (exit.input) {
      const value = vm.board.readPort(exit.port, exit.size) >>> 0;
      tracePio(vcpu, exit, value);
      vm.writePhysical(gpa, exit.size, BigInt(value));
    } else {
      const value = Number(vm.readPhysical(gpa, exit.size));
      tracePio(vcpu, exit, value);
      vm.board.writePort(exit.port, exit.size, value);
    }
    registers.setGpr(index, part(registers.gpr(index), registers.gpr(index) + step));
    count--;
    done++;
    if (exit.rep) registers.setGpr(GPR.rcx, part(registers.gpr(GPR.rcx), count));
    if (count > 0n && (count & 0x3ffn) === 0n) {
      // the guest is entered again in between, RIP unchanged
      vmx.retire(done);
      return RESUME;
    }
  }
  if (done > 1) vmx.retire(done - 1);
  vcpu.skip();
  return RESUME;
};
