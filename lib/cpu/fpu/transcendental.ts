/**
 * Elementary functions of positive arguments in binary fixed point, far beyond 64 bits of precision.
 *
 * A fixed-point number is a bigint times 2^-f, with `f` chosen by the caller so that the result keeps about 200
 * significant bits. Errors are below 2^(8-f). Rounding to a format and special cases are in `x87-functions.ts`.
 */
import { integerSqrt } from './arith.js';

/** Sum of z^(2i+1) / (2i+1) with alternating (arc tangent) or equal (inverse hyperbolic tangent) signs. */
const oddSeries = (z: bigint, f: bigint, alternate: boolean): bigint => {
  const square = (z * z) >> f;
  let power = z;
  let sum = z;
  for (let n = 3n, negative = alternate; ; n += 2n, negative = alternate && !negative) {
    power = (power * square) >> f;
    const term = power / n;
    if (term === 0n) return sum;
    sum += negative ? -term : term;
  }
};

const CONSTANT_BITS = 512n;
const reciprocal = (n: bigint): bigint => (1n << CONSTANT_BITS) / n;
let pi = 0n;
let ln2 = 0n;
/** Machin's formula. */
export const piFixed = (f: bigint): bigint => {
  if (pi === 0n)
    pi =
      16n * oddSeries(reciprocal(5n), CONSTANT_BITS, true) -
      4n * oddSeries(reciprocal(239n), CONSTANT_BITS, true);
  return pi >> (CONSTANT_BITS - f);
};
export const ln2Fixed = (f: bigint): bigint => {
  if (ln2 === 0n) ln2 = 2n * oddSeries(reciprocal(3n), CONSTANT_BITS, false);
  return ln2 >> (CONSTANT_BITS - f);
};

/** Natural logarithm of (n / d) near 1, as 2 atanh((n - d) / (n + d)); n ≥ d or n < d. */
export const logRatio = (n: bigint, d: bigint, f: bigint): bigint => {
  const z = ((n - d) << f) / (n + d);
  return 2n * (z < 0n ? -oddSeries(-z, f, false) : oddSeries(z, f, false));
};

/** e^y - 1 for |y| < 1. */
export const expMinus1 = (y: bigint, f: bigint): bigint => {
  let term = y;
  let sum = y;
  for (let n = 2n; ; n++) {
    term = (term * y) / (n << f);
    if (term === 0n) return sum;
    sum += term;
  }
};

/** Arc tangent of t, 0 ≤ t ≤ 1. */
export const atanFixed = (t: bigint, f: bigint): bigint => {
  const one = 1n << f;
  let z = t;
  for (let i = 0; i < 2; i++) z = (z << f) / (one + integerSqrt((one << f) + z * z));
  return 4n * oddSeries(z, f, true);
};

/** [sin r, cos r] for 0 ≤ r < 1. */
export const sinCosFixed = (r: bigint, f: bigint): readonly [bigint, bigint] => {
  const square = (r * r) >> f;
  const series = (first: bigint, from: bigint): bigint => {
    let term = first;
    let sum = first;
    for (let n = from; ; n += 2n) {
      term = -((term * square) >> f) / (n * (n + 1n));
      if (term === 0n) return sum;
      sum += term;
    }
  };
  return [series(r, 2n), series(1n << f, 1n)];
};
