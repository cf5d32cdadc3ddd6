/**
 * Helpers of the x87 remainders, FSCALE, FXTRACT and transcendental functions.
 *
 * SDM volume 1, "Transcendental Instructions". Results are correctly rounded to 64 bits (processors promise one unit in
 * the last place). FSIN, FCOS, FSINCOS and FPTAN reduce their argument by π rounded to 66 bits, as the manual describes
 * ("Pi"). Arguments for which the manual leaves the result undefined give the mathematical value, or are invalid.
 */
import type { Cpu } from '../core.js';
import type { Helper } from '../helpers.js';
import { invalid, order, propagate } from './arith.js';
import {
  bitLength,
  DEFAULT_NAN,
  F80,
  FE,
  type Float,
  finite,
  infinity,
  isNan,
  isZero,
  KIND,
  pack80,
  roundFloat,
  roundTo,
  type Status,
  zero,
} from './softfloat.js';
import { atanFixed, expMinus1, ln2Fixed, logRatio, piFixed, sinCosFixed } from './transcendental.js';
import {
  FSW,
  isEmpty,
  noteInstruction,
  pop,
  pushRaw,
  raise,
  readSt,
  room,
  setConditions,
  underflow,
  writeSt,
  x87Status,
} from './x87-state.js';

const ONE = finite(0, 1n, 0);
/** Exponent of the leading bit. */
const exponentOf = (a: Float): number => a.exp + bitLength(a.sig) - 1;
const noteDenormal = (s: Status, a: Float, b: Float = a): void => {
  if (a.denormal || b.denormal) s.flags |= FE.denormal;
};

/** Rounds v × 2^-f, an inexact value of either sign. */
const fromFixed = (s: Status, v: bigint, f: number): Float =>
  v < 0n ? roundTo(s, F80, 1, -v, -f, true) : roundTo(s, F80, 0, v, -f, true);
/** Rounds a value whose magnitude is a little below or above that of `a`. */
const beside = (s: Status, a: Float, above: boolean): Float => {
  const sig = a.sig << 128n;
  return roundTo(s, F80, a.sign, above ? sig : sig - 1n, a.exp - 128, true);
};
/** a × 2^f as an integer, truncated. */
const toFixed = (a: Float, f: number): bigint => {
  const shift = a.exp + f;
  const v = shift >= 0 ? a.sig << BigInt(shift) : a.sig >> BigInt(-shift);
  return a.sign === 1 ? -v : v;
};
/** Arguments below 2^-TINY are treated to first order. */
const TINY = 90;
/** Fraction bits that keep 200 significant bits of a value near 2^e. */
const fractionFor = (e: number): number => 230 + Math.max(0, -e);

// ---- two operands, the result in ST(1), one pop: FYL2X, FYL2XP1, FPATAN

const binaryPop =
  (f: (s: Status, x: Float, y: Float) => Float): Helper =>
  (cpu) => {
    noteInstruction(cpu);
    if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) {
      if (underflow(cpu)) {
        writeSt(cpu, 1, DEFAULT_NAN);
        pop(cpu);
      }
      return true;
    }
    const s = x87Status(cpu);
    const x = readSt(cpu, 0);
    const y = readSt(cpu, 1);
    const r = isNan(x) || isNan(y) ? propagate(s, 'x87', x, y) : f(s, x, y);
    if (raise(cpu, s)) {
      writeSt(cpu, 1, r);
      pop(cpu);
    }
    return true;
  };

/** y × v × 2^-f for the logarithms; v has the sign. */
const timesFixed = (s: Status, y: Float, v: bigint, f: number, exact: boolean): Float => {
  const sign = y.sign ^ (v < 0n ? 1 : 0);
  const r = roundTo(s, F80, sign, y.sig * (v < 0n ? -v : v), y.exp - f, !exact);
  // processors report every result as inexact
  s.flags |= FE.inexact | (r.denormal ? FE.underflow : 0);
  return r;
};

const yl2x = (s: Status, x: Float, y: Float): Float => {
  if (isZero(x)) {
    if (isZero(y)) return invalid(s);
    if (y.kind === KIND.infinity) return infinity(y.sign ^ 1);
    s.flags |= FE.zero;
    return infinity(y.sign ^ 1);
  }
  if (x.sign === 1) return invalid(s);
  const side = order(x, ONE);
  if (x.kind === KIND.infinity) {
    if (isZero(y)) return invalid(s);
    noteDenormal(s, y);
    return infinity(y.sign);
  }
  if (y.kind === KIND.infinity) {
    if (side === 0) return invalid(s);
    noteDenormal(s, x);
    return infinity(y.sign ^ (side < 0 ? 1 : 0));
  }
  noteDenormal(s, x, y);
  if (side === 0) return zero(y.sign);
  if (isZero(y)) return zero(y.sign ^ (side < 0 ? 1 : 0));
  // x = m × 2^k with m near 1
  const bits = bitLength(x.sig);
  let k = x.exp + bits - 1;
  let one = 1n << BigInt(bits - 1);
  if (x.sig * x.sig > 2n * one * one) {
    k++;
    one <<= 1n;
  }
  if (x.sig === one) return timesFixed(s, y, BigInt(k), 0, true);
  const f = 330;
  const log = (logRatio(x.sig, one, BigInt(f)) << BigInt(f)) / ln2Fixed(BigInt(f)) + (BigInt(k) << BigInt(f));
  return timesFixed(s, y, log, f, false);
};

const yl2xp1 = (s: Status, x: Float, y: Float): Float => {
  if (isZero(x)) {
    if (y.kind === KIND.infinity) return invalid(s);
    noteDenormal(s, y);
    return zero(x.sign ^ y.sign);
  }
  if (x.kind === KIND.infinity) {
    if (x.sign === 1 || isZero(y)) return invalid(s);
    noteDenormal(s, y);
    return infinity(y.sign);
  }
  noteDenormal(s, x, y);
  if (x.sign === 1 && order(x, { ...ONE, sign: 1 }) <= 0) {
    s.flags |= FE.inexact;
    return x;
  }
  if (y.kind === KIND.infinity) return infinity(x.sign ^ y.sign);
  if (isZero(y)) return zero(x.sign ^ y.sign);
  const e = exponentOf(x);
  if (e < -TINY) {
    // log2(1 + x) = x / ln 2 to first order
    const f = 256;
    const v = (1n << BigInt(2 * f)) / ln2Fixed(BigInt(f));
    return roundTo(s, F80, x.sign ^ y.sign, x.sig * y.sig * v, x.exp + y.exp - f, true);
  }
  const f = fractionFor(e) + 100;
  const one = 1n << BigInt(f);
  const v = one + toFixed(x, f);
  let k = 0;
  let d = one;
  while (v > 2n * d) {
    d <<= 1n;
    k++;
  }
  const log = (logRatio(v, d, BigInt(f)) << BigInt(f)) / ln2Fixed(BigInt(f)) + (BigInt(k) << BigInt(f));
  return timesFixed(s, y, log, f, false);
};

const patan = (s: Status, x: Float, y: Float): Float => {
  const f = 330;
  const pi = piFixed(BigInt(f));
  const signed = (v: bigint): Float => fromFixed(s, y.sign === 1 ? -v : v, f);
  if (y.kind === KIND.infinity) {
    noteDenormal(s, x);
    if (x.kind !== KIND.infinity) return signed(pi / 2n);
    return signed(x.sign === 1 ? (3n * pi) / 4n : pi / 4n);
  }
  noteDenormal(s, x, y);
  if (isZero(y) || x.kind === KIND.infinity) return x.sign === 1 ? signed(pi) : zero(y.sign);
  if (isZero(x)) return signed(pi / 2n);
  const e = exponentOf(y) - exponentOf(x);
  if (e < -TINY && x.sign === 0) {
    const n = y.sig << 200n;
    const q = n / x.sig;
    if (q * x.sig !== n) return roundTo(s, F80, y.sign, q, y.exp - x.exp - 200, true);
    return beside(s, finite(y.sign, q, y.exp - x.exp - 200), false);
  }
  // atan of the smaller over the larger
  const swap = order({ ...y, sign: 0 }, { ...x, sign: 0 }) > 0;
  const [n, d] = swap ? [x, y] : [y, x];
  const bits = fractionFor(Math.max(-400, exponentOf(n) - exponentOf(d)));
  const shift = n.exp - d.exp + bits;
  const t = shift >= 0 ? (n.sig << BigInt(shift)) / d.sig : (n.sig >> BigInt(Math.min(-shift, 1000))) / d.sig;
  let angle = atanFixed(t, BigInt(bits));
  if (bits > f) angle >>= x.sign === 0 && !swap ? 0n : BigInt(bits - f);
  const at = bits > f && (x.sign === 1 || swap) ? f : bits;
  const p = at > 500 ? 0n : piFixed(BigInt(at));
  if (swap) angle = x.sign === 1 ? p / 2n + angle : p / 2n - angle;
  else if (x.sign === 1) angle = p - angle;
  return fromFixed(s, y.sign === 1 ? -angle : angle, at);
};

// ---- trigonometric

/** π to 66 bits, in units of 2^-64. */
const PI66 = 0x3_243f_6a88_85a3_08d3n;
const TRIG_BITS = 400;
interface Reduced {
  readonly sin: bigint;
  readonly cos: bigint;
  readonly bits: number;
}
/** Sine and cosine of a number of magnitude from 2^-TINY to 2^63. */
const reduced = (x: Float): Reduced => {
  const bits = TRIG_BITS;
  const f = BigInt(bits);
  const v = toFixed({ ...x, sign: 0 }, bits);
  const half = PI66 << (f - 65n);
  let quadrant = v / half;
  let r = v - quadrant * half;
  let negative = false;
  if (2n * r > half) {
    r = half - r;
    quadrant++;
    negative = true;
  }
  const [sinR, cos] = sinCosFixed(r, f);
  const sin = negative ? -sinR : sinR;
  const [a, b] = [
    [sin, cos],
    [cos, -sin],
    [-sin, -cos],
    [-cos, sin],
  ][Number(quadrant & 3n)];
  return { sin: x.sign === 1 ? -a : a, cos: b, bits };
};

type Trig = (s: Status, x: Float) => readonly Float[];
const sine = (s: Status, x: Float): Float => {
  if (isZero(x)) return x;
  if (exponentOf(x) < -TINY) return beside(s, x, false);
  const r = reduced(x);
  return fromFixed(s, r.sin, r.bits);
};
const cosine = (s: Status, x: Float): Float => {
  if (isZero(x)) return ONE;
  if (exponentOf(x) < -TINY) return beside(s, ONE, false);
  const r = reduced(x);
  return fromFixed(s, r.cos, r.bits);
};
const tangent = (s: Status, x: Float): Float => {
  if (isZero(x)) return x;
  if (exponentOf(x) < -TINY) return beside(s, x, true);
  const r = reduced(x);
  return fromFixed(s, (r.sin << BigInt(r.bits)) / r.cos, r.bits);
};

/** Results are written to ST(0) and, the later ones, pushed. */
const trig =
  (f: Trig, results: 1 | 2): Helper =>
  (cpu) => {
    noteInstruction(cpu);
    setConditions(cpu, 0, FSW.c1 | FSW.c2);
    if (isEmpty(cpu, 0)) {
      if (underflow(cpu)) {
        writeSt(cpu, 0, DEFAULT_NAN);
        if (results === 2) pushRaw(cpu, pack80(DEFAULT_NAN));
      }
      return true;
    }
    if (results === 2 && !room(cpu)) {
      // where the overflow is masked, both become the default NaN
      if (pushedNan(cpu)) writeSt(cpu, 1, DEFAULT_NAN);
      return true;
    }
    const x = readSt(cpu, 0);
    if (x.kind === KIND.finite && x.sig !== 0n && exponentOf(x) >= 63) {
      setConditions(cpu, FSW.c2, FSW.c2);
      return true;
    }
    const s = x87Status(cpu);
    let out: readonly Float[];
    if (isNan(x) || x.kind === KIND.infinity) {
      const r = isNan(x) ? propagate(s, 'x87', x, x) : invalid(s);
      out = [r, r];
    } else {
      noteDenormal(s, x);
      out = f(s, x);
    }
    if (!raise(cpu, s)) return true;
    writeSt(cpu, 0, out[0]);
    if (results === 2) pushRaw(cpu, pack80(out[1]));
    return true;
  };
/** Whether a stack overflow was answered by pushing the default NaN. */
const pushedNan = (cpu: Cpu): boolean => (x87Status(cpu).masks & FE.invalid) !== 0;

// ---- one operand

const f2xm1: Helper = (cpu) => {
  noteInstruction(cpu);
  if (isEmpty(cpu, 0)) {
    if (underflow(cpu)) writeSt(cpu, 0, DEFAULT_NAN);
    return true;
  }
  const s = x87Status(cpu);
  const x = readSt(cpu, 0);
  const r = power(s, x);
  if (raise(cpu, s)) writeSt(cpu, 0, r);
  return true;
};
const power = (s: Status, x: Float): Float => {
  if (isNan(x)) return propagate(s, 'x87', x, x);
  if (x.kind === KIND.infinity) return x.sign === 1 ? { ...ONE, sign: 1 } : x;
  if (isZero(x)) return x;
  noteDenormal(s, x);
  const e = exponentOf(x);
  if (e >= 0) s.flags |= FE.inexact;
  if (order({ ...x, sign: 0 }, ONE) === 0) return x.sign === 1 ? finite(1, 1n, -1) : ONE;
  if (e >= 0) return x;
  if (e < -TINY) return roundTo(s, F80, x.sign, x.sig * ln2Fixed(256n), x.exp - 256, true);
  const f = fractionFor(e);
  const y = (toFixed(x, f) * ln2Fixed(BigInt(f))) >> BigInt(f);
  return fromFixed(s, expMinus1(y, BigInt(f)), f);
};

/** FPREM (argument 0) truncates the quotient, FPREM1 (1) rounds it to nearest. */
const fprem: Helper = (cpu) => {
  noteInstruction(cpu);
  setConditions(cpu, 0, FSW.c1 | FSW.c2);
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) {
    if (underflow(cpu)) writeSt(cpu, 0, DEFAULT_NAN);
    return true;
  }
  const nearest = cpu.arg32(0) !== 0;
  const s = x87Status(cpu);
  const a = readSt(cpu, 0);
  const b = readSt(cpu, 1);
  let r: Float;
  let conditions = -1;
  if (isNan(a) || isNan(b)) r = propagate(s, 'x87', a, b);
  else if (a.kind === KIND.infinity || isZero(b)) r = invalid(s);
  else {
    noteDenormal(s, a, b);
    if (isZero(a) || b.kind === KIND.infinity) {
      r = roundFloat(s, F80, a);
      conditions = 0;
    } else [r, conditions] = remainder(s, a, b, nearest);
  }
  if (raise(cpu, s)) {
    if (conditions >= 0) setConditions(cpu, conditions);
    writeSt(cpu, 0, r);
  }
  return true;
};
const remainder = (s: Status, a: Float, b: Float, nearest: boolean): readonly [Float, number] => {
  const distance = exponentOf(a) - exponentOf(b);
  if (distance < -1) return [roundFloat(s, F80, a), 0];
  const low = Math.min(a.exp, b.exp);
  const n = a.sig << BigInt(a.exp - low);
  let d = b.sig << BigInt(b.exp - low);
  const partial = distance >= 64;
  // a partial reduction takes 32 to 63 bits off the exponent difference
  if (partial) d <<= BigInt(distance - ((distance & 31) | 32));
  let q = n / d;
  let rest = n - q * d;
  let sign = a.sign;
  if (nearest && !partial && (2n * rest > d || (2n * rest === d && (q & 1n) !== 0n))) {
    q++;
    rest = d - rest;
    sign ^= 1;
  }
  const bits = Number(q & 7n);
  const conditions = partial
    ? FSW.c2
    : ((bits & 4) !== 0 ? FSW.c0 : 0) | ((bits & 2) !== 0 ? FSW.c3 : 0) | ((bits & 1) !== 0 ? FSW.c1 : 0);
  return [rest === 0n ? zero(a.sign) : roundTo(s, F80, sign, rest, low), conditions];
};

const fscale: Helper = (cpu) => {
  noteInstruction(cpu);
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) {
    if (underflow(cpu)) writeSt(cpu, 0, DEFAULT_NAN);
    return true;
  }
  const s = x87Status(cpu);
  const r = scale(s, readSt(cpu, 0), readSt(cpu, 1));
  if (raise(cpu, s)) writeSt(cpu, 0, r);
  return true;
};
const scale = (s: Status, a: Float, b: Float): Float => {
  if (isNan(a) || isNan(b)) return propagate(s, 'x87', a, b);
  if (b.kind === KIND.infinity) {
    if (b.sign === 0 ? isZero(a) : a.kind === KIND.infinity) return invalid(s);
    noteDenormal(s, a);
    return b.sign === 0 ? infinity(a.sign) : zero(a.sign);
  }
  noteDenormal(s, a, b);
  if (a.kind === KIND.infinity || isZero(a)) return a;
  // beyond 2^17 every result overflows or underflows
  const by = isZero(b) ? 0 : exponentOf(b) > 17 ? 0x4_0000 : Number(toFixed({ ...b, sign: 0 }, 0));
  return roundTo(s, F80, a.sign, a.sig, a.exp + (b.sign === 1 ? -by : by));
};

const fxtract: Helper = (cpu) => {
  noteInstruction(cpu);
  if (isEmpty(cpu, 0)) {
    if (underflow(cpu)) {
      writeSt(cpu, 0, DEFAULT_NAN);
      pushRaw(cpu, pack80(DEFAULT_NAN));
    }
    return true;
  }
  if (!room(cpu)) {
    if (pushedNan(cpu)) writeSt(cpu, 1, DEFAULT_NAN);
    return true;
  }
  const s = x87Status(cpu);
  const x = readSt(cpu, 0);
  let exponent: Float;
  let significand = x;
  if (isNan(x)) {
    exponent = propagate(s, 'x87', x, x);
    significand = exponent;
  } else if (x.kind === KIND.infinity) exponent = infinity(0);
  else if (isZero(x)) {
    s.flags |= FE.zero;
    exponent = infinity(1);
  } else {
    noteDenormal(s, x);
    const e = exponentOf(x);
    exponent = e === 0 ? zero(0) : finite(e < 0 ? 1 : 0, BigInt(Math.abs(e)), 0);
    significand = finite(x.sign, x.sig, 1 - bitLength(x.sig));
  }
  if (!raise(cpu, s)) return true;
  writeSt(cpu, 0, exponent);
  pushRaw(cpu, pack80(significand));
  return true;
};

export const X87_FUNCTIONS: Readonly<Record<string, Helper>> = {
  f2xm1,
  fyl2x: binaryPop(yl2x),
  fyl2xp1: binaryPop(yl2xp1),
  fpatan: binaryPop(patan),
  fsin: trig((s, x) => [sine(s, x)], 1),
  fcos: trig((s, x) => [cosine(s, x)], 1),
  fsincos: trig((s, x) => [sine(s, x), cosine(s, x)], 2),
  fptan: trig((s, x) => [tangent(s, x), ONE], 2),
  fprem,
  fscale,
  fxtract,
};
