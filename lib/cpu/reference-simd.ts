/**
 * 128-bit vector verbs for the reference engine, lane by lane over bigints.
 *
 * The operators are WebAssembly's (fixed-width SIMD), because the verbs are named after them; what they mean for x86
 * is the business of the instruction rows. Lane 0 is the least significant.
 */
import { InvariantError } from '../base/error.js';
import type { SimdOp, SimdShift } from '../isa/verbs.js';

const BITS: Readonly<Record<string, number>> = { i8x16: 8, i16x8: 16, i32x4: 32, i64x2: 64 };

const lanes = (v: bigint, bits: number, signed: boolean): bigint[] => {
  const list: bigint[] = [];
  for (let at = 0; at < 128; at += bits) {
    const lane = BigInt.asUintN(bits, v >> BigInt(at));
    list.push(signed ? BigInt.asIntN(bits, lane) : lane);
  }
  return list;
};
const join = (list: readonly bigint[], bits: number): bigint => {
  let v = 0n;
  for (let i = list.length - 1; i >= 0; i--) v = (v << BigInt(bits)) | BigInt.asUintN(bits, list[i]);
  return v;
};
const clamp = (v: bigint, min: bigint, max: bigint): bigint => (v < min ? min : v > max ? max : v);
const saturate = (v: bigint, bits: number, signed: boolean): bigint => {
  const span = 1n << BigInt(bits);
  return signed ? clamp(v, -span / 2n, span / 2n - 1n) : clamp(v, 0n, span - 1n);
};
const allOnes = (c: boolean): bigint => (c ? -1n : 0n);

type LaneOp = readonly [signed: boolean, f: (a: bigint, b: bigint, bits: number) => bigint];
/** Lane by lane, named by the operator without its shape. */
const BINARY: Readonly<Record<string, LaneOp>> = {
  add: [false, (a, b) => a + b],
  sub: [false, (a, b) => a - b],
  mul: [false, (a, b) => a * b],
  eq: [false, (a, b) => allOnes(a === b)],
  gt_s: [true, (a, b) => allOnes(a > b)],
  min_s: [true, (a, b) => (a < b ? a : b)],
  min_u: [false, (a, b) => (a < b ? a : b)],
  max_s: [true, (a, b) => (a > b ? a : b)],
  max_u: [false, (a, b) => (a > b ? a : b)],
  avgr_u: [false, (a, b) => (a + b + 1n) >> 1n],
  add_sat_s: [true, (a, b, bits) => saturate(a + b, bits, true)],
  add_sat_u: [false, (a, b, bits) => saturate(a + b, bits, false)],
  sub_sat_s: [true, (a, b, bits) => saturate(a - b, bits, true)],
  sub_sat_u: [false, (a, b, bits) => saturate(a - b, bits, false)],
  q15mulr_sat_s: [true, (a, b, bits) => saturate((a * b + 0x4000n) >> 15n, bits, true)],
};

const FULL = (1n << 128n) - 1n;

/** Evaluates a vector operator. `bitmask` gives a 32-bit integer, every other operator a vector. */
export const simdOp = (op: SimdOp, a: bigint, b: bigint): bigint => {
  const [shape, name] = op.split('.') as [string, string];
  if (shape === 'v128') {
    if (name === 'and') return a & b;
    if (name === 'or') return a | b;
    if (name === 'xor') return a ^ b;
    return name === 'not' ? a ^ FULL : a & (b ^ FULL);
  }
  const bits = BITS[shape];
  const binary = BINARY[name];
  if (binary !== undefined) {
    const [signed, f] = binary;
    const y = lanes(b, bits, signed);
    return join(
      lanes(a, bits, signed).map((x, i) => f(x, y[i], bits)),
      bits,
    );
  }
  switch (name) {
    case 'abs':
      return join(
        lanes(a, bits, true).map((x) => (x < 0n ? -x : x)),
        bits,
      );
    case 'neg':
      return join(
        lanes(a, bits, true).map((x) => -x),
        bits,
      );
    case 'bitmask':
      return join(
        lanes(a, bits, true).map((x) => (x < 0n ? 1n : 0n)),
        1,
      );
    case 'swizzle': {
      const from = lanes(a, 8, false);
      return join(
        lanes(b, 8, false).map((i) => (i < 16n ? from[Number(i)] : 0n)),
        8,
      );
    }
    case 'dot_i16x8_s': {
      const x = lanes(a, 16, true);
      const y = lanes(b, 16, true);
      return join(
        [0, 2, 4, 6].map((i) => x[i] * y[i] + x[i + 1] * y[i + 1]),
        32,
      );
    }
    default: {
      const signed = name.endsWith('_s');
      if (name.startsWith('narrow_')) {
        const wide = [...lanes(a, 2 * bits, true), ...lanes(b, 2 * bits, true)];
        return join(
          wide.map((x) => saturate(x, bits, signed)),
          bits,
        );
      }
      if (name.startsWith('extend_low_')) return join(lanes(a, bits / 2, signed).slice(0, 128 / bits), bits);
      if (name.startsWith('extmul_')) {
        const half = 64 / bits;
        const skip = name.startsWith('extmul_high') ? 2 * half : 0;
        const x = lanes(a, bits / 2, signed);
        const y = lanes(b, bits / 2, signed);
        return join(
          Array.from({ length: 2 * half }, (_, i) => x[i + skip] * y[i + skip]),
          bits,
        );
      }
      throw new InvariantError(`vector operator ${op} is unknown`);
    }
  }
};

/** Shifts every lane by `count`, taken modulo the lane width. */
export const simdShift = (op: SimdShift, a: bigint, count: bigint): bigint => {
  const [shape, name] = op.split('.') as [string, string];
  const bits = BITS[shape];
  const n = count % BigInt(bits);
  return join(
    lanes(a, bits, name === 'shr_s').map((x) => (name === 'shl' ? x << n : x >> n)),
    bits,
  );
};

/** Chooses 16 bytes out of the 32 of `a` (0..15) and `b` (16..31). */
export const simdShuffle = (a: bigint, b: bigint, numbers: readonly number[]): bigint => {
  const from = [...lanes(a, 8, false), ...lanes(b, 8, false)];
  return join(
    numbers.map((i) => from[i]),
    8,
  );
};
