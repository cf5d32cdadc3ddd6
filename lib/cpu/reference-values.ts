/**
 * The verbs on values for the reference engine: each computes at once, over bigints of a known width.
 *
 * Nothing here touches the state of the processor. Values are kept zero-extended; shift counts wrap at the container
 * size (32 bits for widths up to 32, else 64), as the interpreter's do, although no row may rely on it.
 */
import { InvariantError } from '../base/error.js';
import type { AnyWidth, SimdOp, SimdShift, Width } from '../isa/verbs.js';
import { simdOp, simdShift, simdShuffle } from './reference-simd.js';

/** A value: `v` is unsigned and below 2^w. */
export interface Value {
  readonly v: bigint;
  readonly w: AnyWidth;
}

export const value = (v: bigint, w: AnyWidth): Value => ({ v: BigInt.asUintN(w, v), w });
const truth = (c: boolean): Value => ({ v: c ? 1n : 0n, w: 1 });
const signed = (a: Value): bigint => BigInt.asIntN(a.w, a.v);

/** The width that two operands share. */
const common = (a: Value, b: Value): AnyWidth => {
  if (a.w !== b.w) throw new InvariantError(`a verb was given values of ${a.w} and ${b.w} bits`);
  return a.w;
};
const countOf = (a: Value, count: Value): bigint => count.v & (a.w <= 32 ? 31n : 63n);

export class ValueVerbs {
  imm(v: number | bigint, w: AnyWidth = 32): Value {
    return value(BigInt(v), w);
  }
  add(a: Value, b: Value): Value {
    return value(a.v + b.v, common(a, b));
  }
  sub(a: Value, b: Value): Value {
    return value(a.v - b.v, common(a, b));
  }
  mul(a: Value, b: Value): Value {
    return value(a.v * b.v, common(a, b));
  }
  and(a: Value, b: Value): Value {
    return value(a.v & b.v, common(a, b));
  }
  or(a: Value, b: Value): Value {
    return value(a.v | b.v, common(a, b));
  }
  xor(a: Value, b: Value): Value {
    return value(a.v ^ b.v, common(a, b));
  }
  not(a: Value): Value {
    return value(~a.v, a.w);
  }
  neg(a: Value): Value {
    return value(-a.v, a.w);
  }
  shl(a: Value, count: Value): Value {
    return value(a.v << countOf(a, count), a.w);
  }
  shr(a: Value, count: Value): Value {
    return value(a.v >> countOf(a, count), a.w);
  }
  sar(a: Value, count: Value): Value {
    return value(signed(a) >> countOf(a, count), a.w);
  }
  rol(a: Value, count: Value): Value {
    const n = count.v % BigInt(a.w);
    return value((a.v << n) | (a.v >> (BigInt(a.w) - n)), a.w);
  }
  ror(a: Value, count: Value): Value {
    const n = count.v % BigInt(a.w);
    return value((a.v >> n) | (a.v << (BigInt(a.w) - n)), a.w);
  }
  eq(a: Value, b: Value): Value {
    common(a, b);
    return truth(a.v === b.v);
  }
  ne(a: Value, b: Value): Value {
    common(a, b);
    return truth(a.v !== b.v);
  }
  ltu(a: Value, b: Value): Value {
    common(a, b);
    return truth(a.v < b.v);
  }
  leu(a: Value, b: Value): Value {
    common(a, b);
    return truth(a.v <= b.v);
  }
  lts(a: Value, b: Value): Value {
    common(a, b);
    return truth(signed(a) < signed(b));
  }
  les(a: Value, b: Value): Value {
    common(a, b);
    return truth(signed(a) <= signed(b));
  }
  eqz(a: Value): Value {
    return truth(a.v === 0n);
  }
  nez(a: Value): Value {
    return truth(a.v !== 0n);
  }
  zext(a: Value, w: AnyWidth): Value {
    return value(a.v, w);
  }
  sext(a: Value, w: AnyWidth): Value {
    return value(signed(a), w);
  }
  trunc(a: Value, w: AnyWidth): Value {
    return value(a.v, w);
  }
  bit(a: Value, position: number): Value {
    return truth(((a.v >> BigInt(position)) & 1n) !== 0n);
  }
  select(c: Value, ifTrue: Value, ifFalse: Value): Value {
    common(ifTrue, ifFalse);
    return c.v !== 0n ? ifTrue : ifFalse;
  }
  /** Leading zeros within the width; the width itself for zero. */
  clz(a: Value): Value {
    return value(BigInt(a.w - (a.v === 0n ? 0 : a.v.toString(2).length)), a.w);
  }
  /** Trailing zeros; the width for zero. */
  ctz(a: Value): Value {
    let n = 0n;
    while (n < BigInt(a.w) && ((a.v >> n) & 1n) === 0n) n++;
    return value(n, a.w);
  }
  popcnt(a: Value): Value {
    let n = 0n;
    for (let rest = a.v; rest !== 0n; rest >>= 1n) n += rest & 1n;
    return value(n, a.w);
  }
  bswap(a: Value): Value {
    let r = 0n;
    for (let at = 0; at < a.w; at += 8) r = (r << 8n) | ((a.v >> BigInt(at)) & 0xffn);
    return value(r, a.w);
  }
  mulWide(a: Value, b: Value, asSigned: boolean): readonly [Value, Value] {
    const w = common(a, b);
    const product = asSigned ? signed(a) * signed(b) : a.v * b.v;
    return [value(product, w), value(product >> BigInt(w), w)];
  }

  simd(op: SimdOp, a: Value, b: Value = { v: 0n, w: 128 }): Value {
    return value(simdOp(op, a.v, b.v), op.endsWith('.bitmask') ? 32 : 128);
  }
  simdShift(op: SimdShift, a: Value, count: Value): Value {
    return value(simdShift(op, a.v, count.v), 128);
  }
  shuffle(a: Value, b: Value, lanes: readonly number[]): Value {
    return value(simdShuffle(a.v, b.v, lanes), 128);
  }
  lane(a: Value, w: Width, index: number): Value {
    return value(a.v >> BigInt(w * index), w);
  }
  withLane(a: Value, w: Width, index: number, v: Value): Value {
    const at = BigInt(w * index);
    const mask = ((1n << BigInt(w)) - 1n) << at;
    return value((a.v & ~mask) | (BigInt.asUintN(w, v.v) << at), 128);
  }
  fromLow(v: Value): Value {
    return value(v.v, 128);
  }
}

/** DIV and IDIV: [quotient, remainder] of hi:lo by d, or undefined for #DE. */
export const divideWide = (
  hi: Value,
  lo: Value,
  d: Value,
  asSigned: boolean,
): readonly [Value, Value] | undefined => {
  const w = common(hi, lo);
  if (common(lo, d) !== w || d.v === 0n) return undefined;
  const whole = (hi.v << BigInt(w)) | lo.v;
  const dividend = asSigned ? BigInt.asIntN(2 * w, whole) : whole;
  const divisor = asSigned ? signed(d) : d.v;
  const quotient = dividend / divisor;
  const fits = asSigned ? BigInt.asIntN(w, quotient) === quotient : quotient >> BigInt(w) === 0n;
  return fits ? [value(quotient, w), value(dividend % divisor, w)] : undefined;
};
