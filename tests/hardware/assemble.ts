/**
 * Random encodings of an instruction form, and the registers and displacements by which a memory operand comes to lie
 * at a given linear address. What comes out is decoded again, so that prefixes mean what the decoder makes of them.
 */
import type { Random } from '../../lib/base/random.js';
import { decode } from '../../lib/isa/decoder.js';
import type { Form } from '../../lib/isa/forms.js';
import type { Insn } from '../../lib/isa/rows.js';
import { SEG } from '../../lib/isa/state.js';
import { AT, DATA, DATA_BYTES, DATA_END, READ_ONLY } from './layout.js';

export interface Encoded {
  readonly bytes: number[];
  readonly insn: Insn;
  /** Place of a 32-bit displacement in `bytes`, or -1. */
  readonly dispAt: number;
}

/** Registers that memory operands of a sequence may be based on; undefined: any. */
export type Bases = readonly number[] | undefined;

const PP: Readonly<Record<string, number>> = { np: 0, '66': 1, f3: 2, f2: 3 };
const SEGMENT_PREFIX = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];

const immediate = (r: Random, bytes: number): number[] => {
  const edge = r.below(3) === 0 ? [0, 1, 0x7f, 0x80, 0xff][r.below(5)] : -1;
  if (edge >= 0) {
    const fill = edge === 0xff || (edge === 0x80 && r.below(2) === 0) ? 0xff : 0;
    return Array.from({ length: bytes }, (_, i) => (i === 0 ? edge : fill));
  }
  return Array.from({ length: bytes }, () => r.below(256));
};

/** One try; it may come out as another form. */
const attempt = (r: Random, form: Form, mode: 64 | 32, bases: Bases): { bytes: number[]; dispAt: number } => {
  const long = mode === 64;
  const prefixes: number[] = [];
  const needs66 = form.prefix === '66' && !form.vex;
  const size = !needs66 && form.prefix !== 'np' && !form.vex && r.below(form.sized ? 4 : 16) === 0;
  if (size || (needs66 && !form.vex)) prefixes.push(0x66);
  if (!form.vex && (form.prefix === 'f2' || form.prefix === 'f3'))
    prefixes.push(Number.parseInt(form.prefix, 16));
  const memory =
    form.modrm &&
    form.exact < 0 &&
    !form.modIgnored &&
    form.mod !== 'reg' &&
    (form.mod === 'mem' || r.below(2) === 0);
  const touches = memory || form.row.string !== undefined || form.codes.some((c) => c.from === 'moffs');
  if (touches && r.below(bases === undefined ? 10 : 40) === 0) prefixes.push(0x67);
  if (touches && r.below(8) === 0) prefixes.push(SEGMENT_PREFIX[r.below(6)]);
  if (form.row.string !== undefined && r.below(2) === 0) prefixes.push(0xf2 + r.below(2));
  if (form.row.lock === true && memory && r.below(4) === 0) prefixes.push(0xf0);
  else if (!form.vex && r.below(200) === 0) prefixes.push(0xf0);
  for (let i = prefixes.length - 1; i > 0; i--) {
    const j = r.below(i + 1);
    [prefixes[i], prefixes[j]] = [prefixes[j], prefixes[i]];
  }
  const w = form.rexW === 'any' ? (r.below(3) === 0 ? 1 : 0) : form.rexW;
  let rex = long && r.below(2) === 0 ? r.below(8) : 0;
  let modrm = (form.digit >= 0 ? form.digit : r.below(8)) << 3;
  const tail: number[] = [];
  let disp = 0;
  if (memory) {
    const rm = bases === undefined ? r.below(8) : bases[r.below(bases.length)];
    const shape = r.below(12);
    if (bases !== undefined) rex &= 4;
    if (shape === 0 && mode === 64) {
      // [RIP + disp32]
      modrm |= 5;
      disp = 4;
    } else if (shape === 1) {
      // [disp32]
      if (long) {
        modrm |= 4;
        tail.push(0x25);
      } else modrm |= 5;
      disp = 4;
    } else if (shape < 6 && bases === undefined) {
      // base, index and scale
      const sib = r.below(256);
      const mod = r.below(3);
      modrm |= (mod << 6) | 4;
      tail.push(sib);
      disp = mod === 1 ? 1 : mod === 2 || (sib & 7) === 5 ? 4 : 0;
      if (long) rex |= r.below(4);
    } else {
      const mod = bases !== undefined || r.below(3) === 0 ? 2 : (rm & 7) === 5 || r.below(2) === 0 ? 1 : 0;
      modrm |= (mod << 6) | (rm & 7);
      if ((rm & 7) === 4) tail.push(0x24);
      if (long && bases === undefined) rex = (rex & 6) | r.below(2);
      else rex = (rex & 6) | (rm >> 3);
      disp = mod === 2 ? 4 : mod;
    }
  } else if (form.exact >= 0) modrm = form.exact;
  else modrm |= 0xc0 | r.below(8);
  rex |= w << 3;
  if (!long) rex = 0;

  const bytes = prefixes;
  if (form.vex) {
    const vvvv = form.codes.some((c) => c.from === 'vvvv') ? r.below(long ? 16 : 8) : 15;
    if (!long) rex = w << 3;
    bytes.push(0xc4, ((~rex & 7) << 5) | form.map, ((rex & 8) << 4) | (vvvv << 3) | PP[form.prefix]);
  } else {
    if (rex !== 0 || (long && r.below(4) === 0)) bytes.push(0x40 | rex);
    if (form.map > 0) bytes.push(0x0f);
    if (form.map > 1) bytes.push(form.map === 2 ? 0x38 : 0x3a);
  }
  bytes.push(form.opcode + r.below(form.plus === 'none' ? 1 : form.plus === 'r' ? 8 : 16));
  if (form.modrm) bytes.push(modrm, ...tail);
  const dispAt = disp === 4 ? bytes.length : -1;
  for (let i = 0; i < disp; i++) bytes.push(disp === 1 ? r.below(256) & 0xf8 : r.below(i < 3 ? 256 : 2));
  return { bytes, dispAt };
};

/** A random instruction of a form, or undefined when it has none in the mode (or none was found). */
export const assemble = (r: Random, form: Form, mode: 64 | 32, bases?: Bases): Encoded | undefined => {
  for (let n = 0; n < 20; n++) {
    const { bytes, dispAt } = attempt(r, form, mode, bases);
    const head = bytes.length;
    // immediates: as many bytes as the decoder asks for
    const padded = Uint8Array.from([...bytes, ...new Array<number>(16).fill(0)]);
    let insn = decode(padded, 0, padded.length, mode);
    if (typeof insn === 'string' || insn.length < head || insn.form !== form.number) continue;
    bytes.push(...immediate(r, insn.length - head));
    const final = Uint8Array.from(bytes);
    insn = decode(final, 0, final.length, mode);
    if (typeof insn === 'string' || insn.form !== form.number || insn.length !== final.length) continue;
    return { bytes, insn, dispAt };
  }
  return undefined;
};

/** A linear address for an operand of `size` bytes: mostly inside the windows, sometimes where it faults. */
export const chooseAddress = (r: Random, size: number, tame: boolean): bigint => {
  const grain = size >= 512 ? 64 : 16;
  const inside = (): number =>
    r.below(2) === 0 && size <= 256
      ? DATA + 0xf00 + grain * r.below((512 - size) / grain + 1)
      : DATA_END - 768 + grain * r.below(Math.max(1, (768 - size) / grain));
  const kind = r.below(tame ? 10 : 16);
  switch (kind) {
    case 8:
    case 9:
      return BigInt(inside() + r.below(16));
    case 10:
      return BigInt(DATA + 0x1000 - (size > 1 ? 1 + r.below(size - 1) : 1));
    case 11:
      return BigInt(DATA_END - size);
    case 12:
      return BigInt(DATA_END - (size > 1 ? r.below(size) : 0));
    case 13:
      return BigInt(READ_ONLY + grain * r.below(32));
    case 14:
      return r.below(4) === 0 ? BigInt(DATA - 1 - r.below(16)) : BigInt(DATA_END + r.below(4096));
    case 15:
      return (BigInt(r.u32()) << 32n) | BigInt(r.u32());
    default:
      return BigInt(inside());
  }
};

const signed32 = (v: bigint): boolean => BigInt.asIntN(32, v) === v;

/**
 * Makes the memory operand lie at a linear address by setting its base register (or, when `fixed`, its displacement).
 * @param at place of the instruction in the code @returns the address it got, or undefined when that is not possible
 */
export const point = (
  view: DataView,
  code: Encoded,
  at: number,
  target: bigint,
  fixed: boolean,
): bigint | undefined => {
  const { insn, bytes, dispAt } = code;
  const { mem } = insn;
  if (mem === undefined) return undefined;
  const long = insn.mode === 64;
  const segBase =
    long && mem.seg === SEG.fs
      ? view.getBigUint64(AT.fsBase, true)
      : long && mem.seg === SEG.gs
        ? view.getBigUint64(AT.gsBase, true)
        : 0n;
  const gpr = (i: number): bigint => BigInt.asUintN(insn.aw, view.getBigUint64(AT.gpr + 8 * i, true));
  const linear = (ea: bigint): bigint =>
    BigInt.asUintN(long ? 64 : 32, BigInt.asUintN(insn.aw, ea) + segBase);
  const offset = target - segBase;
  const set = (i: number, v: bigint): void =>
    view.setBigUint64(AT.gpr + 8 * i, BigInt.asUintN(long ? 64 : 32, v), true);
  const patch = (v: bigint): void => {
    for (let i = 0; i < 4; i++) bytes[dispAt + i] = Number((BigInt.asUintN(32, v) >> BigInt(8 * i)) & 0xffn);
  };
  if (mem.moffs !== undefined) {
    const size = insn.aw / 8;
    const v = BigInt.asUintN(insn.aw, offset);
    for (let i = 0; i < size; i++) bytes[bytes.length - size + i] = Number((v >> BigInt(8 * i)) & 0xffn);
    return linear(v);
  }
  const scaled = mem.index < 0 ? 0n : gpr(mem.index) << BigInt(mem.scale);
  const disp = BigInt(mem.disp);
  if (mem.base === -2) {
    const next = BigInt(view.getUint32(AT.rip, true) + at + insn.length);
    if (!signed32(offset - next)) return linear(disp + next);
    patch(offset - next);
    return linear(offset);
  }
  if (mem.base >= 0 && !fixed && mem.base !== mem.index) {
    set(mem.base, offset - disp - scaled);
    return linear(gpr(mem.base) + scaled + disp);
  }
  const rest = (mem.base < 0 ? 0n : gpr(mem.base)) + scaled;
  if (dispAt >= 0 && (signed32(offset - rest) || insn.aw === 32)) {
    patch(offset - rest);
    return linear(offset);
  }
  return linear(rest + disp);
};

/** A stack pointer: mostly inside window A. */
export const chooseStack = (r: Random): number => {
  const kind = r.below(32);
  if (kind === 0) return DATA + DATA_BYTES + 8 * r.below(16);
  if (kind === 1) return DATA_END - 8 * r.below(8);
  if (kind < 4) return DATA + 0xff0 + r.below(32);
  return DATA + 0xfc0 + 8 * r.below(16);
};
