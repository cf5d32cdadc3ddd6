/**
 * Helpers of SSE arithmetic and comparison: ADD SUB MUL DIV MIN MAX SQRT ADDSUB CMP (U)COMI, RCP and RSQRT.
 *
 * Arguments are 64-bit parts of the operands: scalars (first, second), packed (first low, first high, second low,
 * second high); unary ones have the source second. RCP and RSQRT are rounded to 12 significant bits: the manual only
 * bounds their relative error by 1.5 × 2^-12, and processors differ.
 */
import { S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper } from '../helpers.js';
import { add, compare, div, mul, order, sqrt, sub, UNORDERED } from './arith.js';
import {
  F32,
  F64,
  FE,
  type Float,
  type Format,
  isNan,
  isZero,
  KIND,
  pack32,
  pack64,
  type Status,
  unpack32,
  unpack64,
} from './softfloat.js';
import { native, native32, native64, OP, type Op } from './sse-native.js';
import { finishSse, sseStatus } from './sse-status.js';

/** MINxx and MAXxx: the second operand when either is a NaN or both are zeros. */
const pick = (s: Status, a: Float, b: Float, wanted: -1 | 1): Float => {
  if (isNan(a) || isNan(b)) {
    s.flags |= FE.invalid;
    return b;
  }
  if (a.denormal || b.denormal) s.flags |= FE.denormal;
  return !(isZero(a) && isZero(b)) && order(a, b) === wanted ? a : b;
};

const operate = (s: Status, f: Format, op: Op, a: Float, b: Float): Float => {
  switch (op) {
    case OP.add:
      return add(s, f, 'sse', a, b);
    case OP.sub:
      return sub(s, f, 'sse', a, b);
    case OP.mul:
      return mul(s, f, 'sse', a, b);
    case OP.div:
      return div(s, f, 'sse', a, b);
    case OP.min:
      return pick(s, a, b, -1);
    case OP.max:
      return pick(s, a, b, 1);
    default:
      return sqrt(s, f, 'sse', b);
  }
};

const PE = FE.inexact;
const f32 = new Float32Array(2);
const u32 = new Uint32Array(f32.buffer);

/** One operation on double lanes (another on odd ones); argument i and i + lanes are the operands, result i the result. */
const doubles =
  (even: Op, lanes: 1 | 2, odd: Op = even): Helper =>
  (cpu) => {
    const mxcsr = cpu.get32(S.mxcsr);
    const s = sseStatus(mxcsr);
    const nearest = s.rounding === 0;
    const f64 = cpu.ram.f64;
    const from = (cpu.at + S.arg) >>> 3;
    const to = (cpu.at + S.result) >>> 3;
    for (let i = 0; i < lanes; i++) {
      const op = (i & 1) === 0 ? even : odd;
      if (nearest) {
        const r = native64(
          op,
          f64[from + i],
          f64[from + lanes + i],
          ((mxcsr | s.flags) & PE) !== 0,
          (s.masks & PE) !== 0,
        );
        if (r !== undefined) {
          if (native.inexact) s.flags |= PE;
          f64[to + i] = r;
          continue;
        }
      }
      const a = unpack64(cpu.u64[from + i], s.daz);
      const b = unpack64(cpu.u64[from + lanes + i], s.daz);
      cpu.u64[to + i] = pack64(operate(s, F64, op, a, b));
    }
    return finishSse(cpu, s);
  };

const singles =
  (even: Op, lanes: 1 | 4, odd: Op = even): Helper =>
  (cpu) => {
    const s = sseStatus(cpu.get32(S.mxcsr));
    const nearest = s.rounding === 0;
    const from = (cpu.at + S.arg) >>> 2;
    const second = lanes === 1 ? 2 : 4;
    const to = (cpu.at + S.result) >>> 2;
    if (lanes === 1) cpu.u32[to + 1] = 0;
    for (let i = 0; i < lanes; i++) {
      const op = (i & 1) === 0 ? even : odd;
      u32[0] = cpu.u32[from + i];
      u32[1] = cpu.u32[from + second + i];
      if (nearest) {
        const r = native32(op, f32[0], f32[1], (s.masks & PE) !== 0);
        if (r !== undefined) {
          if (native.inexact) s.flags |= PE;
          f32[0] = r;
          cpu.u32[to + i] = u32[0];
          continue;
        }
      }
      const a = unpack32(BigInt(u32[0]), s.daz);
      const b = unpack32(BigInt(u32[1]), s.daz);
      cpu.u32[to + i] = Number(pack32(operate(s, F32, op, a, b)));
    }
    return finishSse(cpu, s);
  };

/** CMPccPS …: predicates EQ LT LE UNORD, and their negations; bit set of the orders -1, 0, 1, unordered that are true. */
const holds = (predicate: number, relation: number): boolean => {
  const truth = [relation === 0, relation === -1, relation === -1 || relation === 0, relation === UNORDERED][
    predicate & 3
  ];
  return (predicate & 4) !== 0 ? !truth : truth;
};
const signals = (predicate: number): boolean => (predicate & 3) === 1 || (predicate & 3) === 2;

/** The argument after the operands is the predicate. */
const compareDoubles =
  (lanes: 1 | 2): Helper =>
  (cpu) => {
    const s = sseStatus(cpu.get32(S.mxcsr));
    const predicate = cpu.arg32(2 * lanes) & 7;
    for (let i = 0; i < lanes; i++) {
      const relation = compare(
        s,
        unpack64(cpu.arg64(i), s.daz),
        unpack64(cpu.arg64(i + lanes), s.daz),
        signals(predicate),
      );
      cpu.result64(i, holds(predicate, relation) ? 0xffff_ffff_ffff_ffffn : 0n);
    }
    return finishSse(cpu, s);
  };
const compareSingles =
  (lanes: 1 | 4): Helper =>
  (cpu) => {
    const s = sseStatus(cpu.get32(S.mxcsr));
    const second = lanes === 1 ? 2 : 4;
    const predicate = cpu.arg32(lanes === 1 ? 2 : 4) & 7;
    const from = (cpu.at + S.arg) >>> 2;
    const to = (cpu.at + S.result) >>> 2;
    for (let i = 0; i < lanes; i++) {
      const a = unpack32(BigInt(cpu.u32[from + i]), s.daz);
      const b = unpack32(BigInt(cpu.u32[from + second + i]), s.daz);
      cpu.u32[to + i] = holds(predicate, compare(s, a, b, signals(predicate))) ? 0xffff_ffff : 0;
    }
    if (lanes === 1) cpu.u32[to + 1] = 0;
    return finishSse(cpu, s);
  };

/** ZF, PF, CF of a relation as (U)COMI and FCOMI set them; the other arithmetic flags are cleared. */
export const relationFlags = (relation: number): number =>
  relation === UNORDERED ? 0x45 : relation === 0 ? 0x40 : relation === -1 ? 1 : 0;

const MIN_NORMAL = 2 ** -1022;
const comi =
  (double: boolean, signaling: boolean): Helper =>
  (cpu) => {
    if (double) {
      const from = (cpu.at + S.arg) >>> 3;
      const x = cpu.ram.f64[from];
      const y = cpu.ram.f64[from + 1];
      if ((Math.abs(x) >= MIN_NORMAL || x === 0) && (Math.abs(y) >= MIN_NORMAL || y === 0)) {
        cpu.result32(0, x < y ? 1 : x === y ? 0x40 : 0);
        return true;
      }
    }
    const s = sseStatus(cpu.get32(S.mxcsr));
    const unpack = double ? unpack64 : unpack32;
    cpu.result32(
      0,
      relationFlags(compare(s, unpack(cpu.arg64(0), s.daz), unpack(cpu.arg64(1), s.daz), signaling)),
    );
    return finishSse(cpu, s);
  };

const approximate = (bits: number, root: boolean): number => {
  const a = unpack32(BigInt(bits), true);
  if (isNan(a)) return bits | 0x40_0000;
  const sign = a.sign << 31;
  if (isZero(a)) return (sign | 0x7f80_0000) >>> 0;
  if (root && a.sign === 1) return 0xffc0_0000;
  if (a.kind === KIND.infinity) return sign >>> 0;
  u32[0] = bits;
  f32[1] = root ? 1 / Math.sqrt(f32[0]) : 1 / f32[0];
  // a denormal result is flushed to zero
  if ((u32[1] & 0x7f80_0000) === 0) return sign >>> 0;
  return ((u32[1] + 0x800) & 0xffff_f000) >>> 0;
};
/** RCPPS and RSQRTPS: the source lanes follow the first operand. */
const approximations =
  (root: boolean, lanes: 1 | 4): Helper =>
  (cpu) => {
    const from = (cpu.at + S.arg) >>> 2;
    const second = lanes === 1 ? 2 : 4;
    const to = (cpu.at + S.result) >>> 2;
    if (lanes === 1) cpu.u32[to + 1] = 0;
    for (let i = 0; i < lanes; i++) cpu.u32[to + i] = approximate(cpu.u32[from + second + i], root);
    return true;
  };

const family = (name: string, op: Op): Record<string, Helper> => ({
  [`${name}ps`]: singles(op, 4),
  [`${name}ss`]: singles(op, 1),
  [`${name}pd`]: doubles(op, 2),
  [`${name}sd`]: doubles(op, 1),
});

export const SSE_ARITHMETIC: Readonly<Record<string, (cpu: Cpu) => boolean>> = {
  ...family('add', OP.add),
  ...family('sub', OP.sub),
  ...family('mul', OP.mul),
  ...family('div', OP.div),
  ...family('min', OP.min),
  ...family('max', OP.max),
  ...family('sqrt', OP.sqrt),
  addsubps: singles(OP.sub, 4, OP.add),
  addsubpd: doubles(OP.sub, 2, OP.add),
  cmpps: compareSingles(4),
  cmpss: compareSingles(1),
  cmppd: compareDoubles(2),
  cmpsd: compareDoubles(1),
  comiss: comi(false, true),
  comisd: comi(true, true),
  ucomiss: comi(false, false),
  ucomisd: comi(true, false),
  rcpps: approximations(false, 4),
  rcpss: approximations(false, 1),
  rsqrtps: approximations(true, 4),
  rsqrtss: approximations(true, 1),
};
