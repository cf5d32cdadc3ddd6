/**
 * The displacement and the VM-exit instruction information of the current instruction, found by decoding it again.
 *
 * SDM volume 3, "Information for VM Exits Due to Instruction Execution". Only exits need it, so no engine has to carry
 * it. An instruction that has no memory operand gives displacement 0.
 */
import { decode } from '../../isa/decoder.js';
import type { Insn } from '../../isa/rows.js';
import { S, SEG } from '../../isa/state.js';
import { LEFT } from '../../memory/access.js';
import type { Cpu } from '../core.js';
import { high, low } from './memory.js';

export interface InstructionInfo {
  /** Displacement, sign-extended to 64 bits; relative to the next instruction's address resolved for RIP-relative operands. */
  readonly displacement: bigint;
  /** Scaling, address size, segment, index and base in the common layout; bit 10 set for a register operand. */
  readonly info: number;
  readonly insn: Insn | undefined;
}

/** The instruction at RIP, or undefined when its bytes cannot be read any more. */
export const currentInstruction = (cpu: Cpu): Insn | undefined => {
  const length = cpu.instructionLength;
  const mode = cpu.get32(S.mode) as 16 | 32 | 64;
  const bytes = new Uint8Array(15);
  for (let i = 0; i < length && i < 15; i++) {
    const offset = cpu.rip + BigInt(i);
    const base = mode === 64 ? 0 : cpu.getNumber(S.segBase + 8 * SEG.cs);
    const lin = BigInt.asUintN(mode === 64 ? 64 : 32, offset + BigInt(base));
    const hpa = cpu.mmu.fetch(low(lin), high(lin));
    if (hpa === LEFT) return undefined;
    bytes[i] = cpu.ram.read8(hpa);
  }
  const insn = decode(bytes, 0, length, mode);
  return typeof insn === 'string' ? undefined : insn;
};

/** @param reg2 bits 31:28, the register operand that goes with a memory operand */
export const instructionInfo = (cpu: Cpu): InstructionInfo => {
  const insn = currentInstruction(cpu);
  if (insn === undefined) return { displacement: 0n, info: 0, insn };
  const size = insn.aw === 16 ? 0 : insn.aw === 32 ? 1 : 2;
  const mem = insn.mem;
  const registers = insn.operands.filter((op) => op.kind === 'reg');
  if (mem === undefined) {
    const first = registers[0]?.index ?? 0;
    const second = registers[1]?.index ?? 0;
    return { displacement: 0n, info: ((first << 3) | (size << 7) | (1 << 10) | (second << 28)) >>> 0, insn };
  }
  // For a RIP-relative operand the field holds the address of the next instruction plus the displacement.
  const relative = mem.base === -2 ? cpu.nextRip : 0n;
  const displacement = BigInt.asUintN(64, relative + (mem.moffs ?? BigInt(mem.disp)));
  const index = mem.index < 0 ? 1 << 22 : mem.index << 18;
  const base = mem.base < 0 ? 1 << 27 : mem.base << 23;
  const register = registers[0]?.index ?? 0;
  return {
    displacement,
    info: (mem.scale | (size << 7) | (mem.seg << 15) | index | base | (register << 28)) >>> 0,
    insn,
  };
};
