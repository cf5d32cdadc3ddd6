/**
 * Arithmetic on unpacked floating-point numbers: the operations that SSE and x87 share.
 *
 * Each takes a `Status` (rounding, masks; collects flags) and the format to round to. NaN operands follow SDM volume 1,
 * "Rules for handling NaNs": `'sse'` returns the first NaN operand, `'x87'` the QNaN or the larger significand.
 */
import {
  bitLength,
  DEFAULT_NAN,
  FE,
  type Float,
  type Format,
  finite,
  infinity,
  isNan,
  isZero,
  KIND,
  quiet,
  roundShift,
  roundTo,
  type Status,
  zero,
} from './softfloat.js';

export type NanRule = 'sse' | 'x87';

/** The result when an operand is a NaN. */
export const propagate = (s: Status, rule: NanRule, a: Float, b: Float): Float => {
  if (a.kind === KIND.unsupported || b.kind === KIND.unsupported) return invalid(s);
  if (a.kind === KIND.snan || b.kind === KIND.snan) s.flags |= FE.invalid;
  if (!isNan(b)) return quiet(a);
  if (!isNan(a)) return quiet(b);
  if (rule === 'sse') return quiet(a);
  if (a.kind !== b.kind) return a.kind === KIND.qnan ? a : b;
  if (a.sig !== b.sig) return quiet(a.sig > b.sig ? a : b);
  return quiet(a.sign <= b.sign ? a : b);
};
export const invalid = (s: Status): Float => {
  s.flags |= FE.invalid;
  return DEFAULT_NAN;
};
const noteDenormal = (s: Status, a: Float, b: Float): void => {
  if (a.denormal || b.denormal) s.flags |= FE.denormal;
};

/** Beyond this distance the smaller addend only matters as "a little". */
const FAR = 200;

const addFinite = (s: Status, f: Format, a: Float, b: Float): Float => {
  if (a.sig === 0n && b.sig === 0n) return zero(a.sign === b.sign ? a.sign : s.rounding === 1 ? 1 : 0);
  if (a.sig === 0n) return roundTo(s, f, b.sign, b.sig, b.exp);
  if (b.sig === 0n) return roundTo(s, f, a.sign, a.sig, a.exp);
  let [big, small] = a.exp >= b.exp ? [a, b] : [b, a];
  if (big.exp - small.exp > FAR) {
    const far = big.exp + bitLength(big.sig) - (small.exp + bitLength(small.sig)) > FAR;
    if (far) small = finite(small.sign, 1n, big.exp - FAR);
  }
  const x = big.sig << BigInt(big.exp - small.exp);
  const sum = (big.sign === 1 ? -x : x) + (small.sign === 1 ? -small.sig : small.sig);
  if (sum === 0n) return zero(s.rounding === 1 ? 1 : 0);
  return sum < 0n ? roundTo(s, f, 1, -sum, small.exp) : roundTo(s, f, 0, sum, small.exp);
};

export const add = (s: Status, f: Format, rule: NanRule, a: Float, b: Float): Float => {
  if (isNan(a) || isNan(b)) return propagate(s, rule, a, b);
  if (a.kind === KIND.infinity && b.kind === KIND.infinity) return a.sign === b.sign ? a : invalid(s);
  noteDenormal(s, a, b);
  if (a.kind === KIND.infinity) return a;
  if (b.kind === KIND.infinity) return b;
  return addFinite(s, f, a, b);
};
export const sub = (s: Status, f: Format, rule: NanRule, a: Float, b: Float): Float =>
  isNan(a) || isNan(b) ? propagate(s, rule, a, b) : add(s, f, rule, a, { ...b, sign: b.sign ^ 1 });

export const mul = (s: Status, f: Format, rule: NanRule, a: Float, b: Float): Float => {
  if (isNan(a) || isNan(b)) return propagate(s, rule, a, b);
  const sign = a.sign ^ b.sign;
  if (a.kind === KIND.infinity || b.kind === KIND.infinity) {
    if (isZero(a) || isZero(b)) return invalid(s);
    noteDenormal(s, a, b);
    return infinity(sign);
  }
  noteDenormal(s, a, b);
  if (a.sig === 0n || b.sig === 0n) return zero(sign);
  return roundTo(s, f, sign, a.sig * b.sig, a.exp + b.exp);
};

export const div = (s: Status, f: Format, rule: NanRule, a: Float, b: Float): Float => {
  if (isNan(a) || isNan(b)) return propagate(s, rule, a, b);
  const sign = a.sign ^ b.sign;
  if (a.kind === KIND.infinity) {
    if (b.kind === KIND.infinity) return invalid(s);
    noteDenormal(s, a, b);
    return infinity(sign);
  }
  if (b.kind === KIND.infinity) {
    noteDenormal(s, a, b);
    return zero(sign);
  }
  if (b.sig === 0n) {
    if (a.sig === 0n) return invalid(s);
    s.flags |= FE.zero;
    return infinity(sign);
  }
  noteDenormal(s, a, b);
  if (a.sig === 0n) return zero(sign);
  const n = a.sig << 132n;
  const q = n / b.sig;
  return roundTo(s, f, sign, q, a.exp - b.exp - 132, q * b.sig !== n);
};

/** Largest integer whose square is at most n. */
export const integerSqrt = (n: bigint): bigint => {
  if (n === 0n) return 0n;
  let x = 1n << BigInt((bitLength(n) + 1) >> 1);
  for (;;) {
    const y = (x + n / x) >> 1n;
    if (y >= x) return x;
    x = y;
  }
};

export const sqrt = (s: Status, f: Format, rule: NanRule, a: Float): Float => {
  if (isNan(a)) return propagate(s, rule, a, a);
  if (isZero(a)) return a;
  if (a.sign === 1) return invalid(s);
  noteDenormal(s, a, a);
  if (a.kind === KIND.infinity) return a;
  const shift = 140 + ((a.exp + 140) & 1);
  const n = a.sig << BigInt(shift);
  const root = integerSqrt(n);
  return roundTo(s, f, 0, root, (a.exp - shift) / 2, root * root !== n);
};

/** Compares finite or infinite numbers by magnitude and sign: -1, 0, 1. */
export const order = (a: Float, b: Float): -1 | 0 | 1 => {
  if (isZero(a) && isZero(b)) return 0;
  if (a.sign !== b.sign || isZero(a) || isZero(b)) {
    const x = isZero(a) ? 0 : a.sign === 1 ? -1 : 1;
    const y = isZero(b) ? 0 : b.sign === 1 ? -1 : 1;
    return x < y ? -1 : 1;
  }
  const flip = a.sign === 1 ? -1 : 1;
  const magnitude = (): number => {
    if (a.kind === KIND.infinity || b.kind === KIND.infinity) return a.kind - b.kind;
    const ea = a.exp + bitLength(a.sig);
    const eb = b.exp + bitLength(b.sig);
    if (ea !== eb) return ea - eb;
    const low = Math.min(a.exp, b.exp);
    const x = a.sig << BigInt(a.exp - low);
    const y = b.sig << BigInt(b.exp - low);
    return x < y ? -1 : x > y ? 1 : 0;
  };
  const m = magnitude() * flip;
  return m < 0 ? -1 : m > 0 ? 1 : 0;
};

export const UNORDERED = 2;
/** Compares with flags: -1, 0, 1 or UNORDERED. @param signaling QNaNs are invalid too */
export const compare = (s: Status, a: Float, b: Float, signaling: boolean): -1 | 0 | 1 | 2 => {
  if (isNan(a) || isNan(b)) {
    if (signaling || (a.kind !== KIND.qnan && isNan(a)) || (b.kind !== KIND.qnan && isNan(b)))
      s.flags |= FE.invalid;
    return UNORDERED;
  }
  noteDenormal(s, a, b);
  return order(a, b);
};

/** Rounds to an integral value of unlimited range; inexactness is flagged. */
export const roundToIntegral = (s: Status, a: Float): Float => {
  if (a.kind !== KIND.finite || a.exp >= 0 || a.sig === 0n) return a;
  const r = roundShift(s.rounding, a.sign, a.sig, -a.exp);
  if (r.inexact) {
    s.flags |= FE.inexact;
    s.up = r.up;
  }
  return r.sig === 0n ? zero(a.sign) : finite(a.sign, r.sig, 0);
};

/** Converts to a signed integer of `width` bits; the integer indefinite when it does not fit. Unsigned result. */
export const toInteger = (s: Status, a: Float, width: number): bigint => {
  const indefinite = 1n << BigInt(width - 1);
  if (a.kind !== KIND.finite || (a.sig !== 0n && a.exp + bitLength(a.sig) > width)) {
    s.flags |= FE.invalid;
    return indefinite;
  }
  const before = { flags: s.flags, up: s.up };
  const r = roundToIntegral(s, a);
  const magnitude = r.sig << BigInt(r.exp);
  if (magnitude > (a.sign === 1 ? indefinite : indefinite - 1n)) {
    s.flags = before.flags | FE.invalid;
    s.up = before.up;
    return indefinite;
  }
  return BigInt.asUintN(width, a.sign === 1 ? -magnitude : magnitude);
};

/** A signed integer as a number, exactly. */
export const fromInteger = (v: bigint): Float => (v < 0n ? finite(1, -v, 0) : finite(0, v, 0));
