/** Helpers of the SSE and MMX rows: building vectors and masks out of scalars. Knows no instruction. */
import type { Ops } from '../verbs.js';

/** A vector of two 64-bit halves. */
export const vector = <V>(o: Ops<V>, low: V, high: V): V => o.withLane(o.fromLow(low), 64, 1, high);
export const constant = <V>(o: Ops<V>, low: bigint, high: bigint): V =>
  vector(o, o.imm(low, 64), o.imm(high, 64));
export const zeroVector = <V>(o: Ops<V>): V => o.fromLow(o.imm(0n, 64));

/** Lane numbers of a shuffle: bytes of the lanes `from` (numbered over both operands) of `bytes` bytes each. */
export const lanesOf = (bytes: number, from: readonly number[]): readonly number[] =>
  from.flatMap((lane) => Array.from({ length: bytes }, (_, i) => lane * bytes + i));

/** Interleaves the low or high lanes of two vectors (PUNPCK, UNPCK). */
export const interleave = (bytes: number, high: boolean): readonly number[] => {
  const lanes = 16 / bytes;
  const first = high ? lanes / 2 : 0;
  return lanesOf(
    bytes,
    Array.from({ length: lanes }, (_, i) => first + (i >> 1) + (i & 1) * lanes),
  );
};

/** The number of every byte. */
export const BYTE_NUMBERS = [0x0706_0504_0302_0100n, 0x0f0e_0d0c_0b0a_0908n] as const;
const ALL_ZERO = new Array<number>(16).fill(0);
/** The low byte of an integer in every byte. */
export const splatByte = <V>(o: Ops<V>, v: V): V => {
  const low = o.fromLow(v);
  return o.shuffle(low, low, ALL_ZERO);
};
/** All ones in the bytes whose bit of the immediate is set; `low` and `high` name one bit a byte. */
export const immediateMask = <V>(o: Ops<V>, imm: V, low: bigint, high: bigint): V => {
  const bits = constant(o, low, high);
  return o.simd('i8x16.eq', o.simd('v128.and', splatByte(o, imm), bits), bits);
};
/** `b` where the mask is set, `a` elsewhere. */
export const blend = <V>(o: Ops<V>, a: V, b: V, mask: V): V =>
  o.simd('v128.or', o.simd('v128.and', b, mask), o.simd('v128.andnot', a, mask));

/** Two bits of an immediate at `position`, as a value of 64 bits. */
const field = <V>(o: Ops<V>, imm: V, position: number): V =>
  o.and(o.shr(o.zext(imm, 64), o.imm(position, 32)), o.imm(3n, 64));

/** Byte numbers for two 32-bit lanes chosen by the fields of `imm` at bits `at` and `at + 2`. */
export const chooseDwords = <V>(o: Ops<V>, imm: V, at: number): V => {
  const low = o.mul(field(o, imm, at), o.imm(0x0404_0404n, 64));
  const high = o.mul(field(o, imm, at + 2), o.imm(0x0404_0404_0000_0000n, 64));
  return o.add(o.or(low, high), o.imm(0x0302_0100_0302_0100n, 64));
};
/** Byte numbers for four 16-bit lanes chosen by `imm` within the half that begins at byte `base`. */
export const chooseWords = <V>(o: Ops<V>, imm: V, base: bigint): V => {
  let v = o.imm(0x0100_0100_0100_0100n + base * 0x0101_0101_0101_0101n, 64);
  for (let i = 0; i < 4; i++) v = o.add(v, o.mul(field(o, imm, 2 * i), o.imm(0x0202n << BigInt(16 * i), 64)));
  return v;
};
