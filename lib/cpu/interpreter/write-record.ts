/** Writes a decoded instruction into its record (`record.ts` has the layout). */
import type { Insn } from '../../isa/rows.js';
import { S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import { at } from './core-module.js';
import { REGISTER_FIELDS } from './operands.js';
import { R } from './record.js';

/** Writes the low 64 bits of a number: most immediates are small, and their halves cheaper than their bigint. */
const write64 = (cpu: Cpu, at: number, value: bigint): void => {
  const n = Number(value);
  if (!Number.isSafeInteger(n)) {
    cpu.ram.u64[at >>> 3] = BigInt.asUintN(64, value);
    return;
  }
  cpu.ram.i32[at >>> 2] = n | 0;
  cpu.ram.i32[(at + 4) >>> 2] = Math.floor(n / 0x1_0000_0000) | 0;
};

export const writeRecord = (
  cpu: Cpu,
  record: number,
  insn: Insn,
  handler: number,
  offset: number,
  done: number,
): void => {
  const { u8, u16, i32, u32 } = cpu.ram;
  const half = record >>> 1;
  u32[record >>> 2] = handler;
  u32[(record + 4) >>> 2] = 0;
  u32[(record + R.taken) >>> 2] = 0;
  u32[(record + R.next) >>> 2] = 0;
  i32[(record + R.disp) >>> 2] = 0;
  u16[half + R.index / 2] = at(S.zero);
  u16[half + R.base / 2] = at(S.zero);
  u8[record + R.scale] = 0;
  const m = insn.mem;
  if (m !== undefined) {
    u8[record + R.segment] = m.seg;
    if (m.moffs !== undefined) write64(cpu, record + R.imm, m.moffs);
    if (m.index >= 0) u16[half + R.index / 2] = at(S.gpr) + 8 * m.index;
    u8[record + R.scale] = m.scale;
    if (m.base >= 0) u16[half + R.base / 2] = at(S.gpr) + 8 * m.base;
    let { disp } = m;
    if (m.base === -2) {
      u16[half + R.base / 2] = at(S.pageRip);
      disp = (disp + offset + insn.length) | 0;
    }
    i32[(record + R.disp) >>> 2] = disp;
  }
  if (m === undefined) u8[record + R.segment] = insn.dataSegment;
  let registers = 0;
  let immediates = 0;
  for (const op of insn.operands) {
    if ('fixed' in op && op.fixed === true) continue;
    switch (op.kind) {
      case 'reg':
        u16[half + REGISTER_FIELDS[registers++] / 2] = at(S.gpr) + 8 * op.index + (op.high === true ? 1 : 0);
        break;
      case 'xmm':
        u16[half + REGISTER_FIELDS[registers++] / 2] = at(S.xmm) + 16 * op.index;
        break;
      case 'mmx':
        u16[half + REGISTER_FIELDS[registers++] / 2] = at(S.x87) + 16 * op.index;
        break;
      case 'seg':
      case 'cr':
      case 'dr':
      case 'st':
        u16[half + REGISTER_FIELDS[registers++] / 2] = op.index;
        break;
      case 'imm':
        if (immediates++ === 0) write64(cpu, record + R.imm, op.value);
        else u32[(record + R.disp) >>> 2] = Number(BigInt.asUintN(32, op.value));
        break;
      case 'rel':
        i32[(record + R.disp) >>> 2] = (offset + insn.length + op.value) | 0;
        break;
      case 'far':
        u32[(record + R.imm) >>> 2] = op.offset >>> 0;
        u32[(record + R.disp) >>> 2] = op.selector;
        break;
      default:
        break;
    }
  }
  u16[half + R.offset / 2] = offset | (insn.length << 12);
  u8[record + R.done] = done;
};
