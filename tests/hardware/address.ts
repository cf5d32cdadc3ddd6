/** Where an instruction's memory operand lies in the state before it, and how long it is. */
import type { Insn } from '../../lib/isa/rows.js';
import { SEG } from '../../lib/isa/state.js';
import { AT } from './layout.js';

/** @param at place of the instruction in the code */
export const memoryAddress = (insn: Insn, state: DataView, at = 0): bigint | undefined => {
  const { mem } = insn;
  if (mem === undefined) return undefined;
  const long = insn.mode === 64;
  let ea = mem.moffs ?? BigInt(mem.disp);
  if (mem.base === -2) ea += BigInt(state.getUint32(AT.rip, true) + at + insn.length);
  else if (mem.base >= 0) ea += state.getBigUint64(AT.gpr + 8 * mem.base, true);
  if (mem.index >= 0) ea += state.getBigUint64(AT.gpr + 8 * mem.index, true) << BigInt(mem.scale);
  ea = BigInt.asUintN(insn.aw, ea);
  if (long && mem.seg === SEG.fs) ea += state.getBigUint64(AT.fsBase, true);
  if (long && mem.seg === SEG.gs) ea += state.getBigUint64(AT.gsBase, true);
  return BigInt.asUintN(long ? 64 : 32, ea);
};

/** Bytes that the memory operand has, for choosing where it may end. */
export const operandBytes = (insn: Insn): number => {
  const { name } = insn.row;
  if (/^fxsave$|^fxrstor$/.test(name)) return 512;
  if (/^xsave|^xrstor/.test(name)) return 576;
  if (name === 'fnsave' || name === 'frstor') return insn.w === 16 ? 94 : 108;
  if (name === 'fnstenv' || name === 'fldenv') return insn.w === 16 ? 14 : 28;
  const op = insn.operands.find((o) => o.kind === 'mem');
  return op === undefined || op.kind !== 'mem' ? insn.w / 8 : (op.bytes ?? op.w / 8);
};
