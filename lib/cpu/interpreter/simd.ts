/** WebAssembly numbers of the SIMD operators that instruction rows use (behind the 0xfd prefix). */
import type { SimdOp, SimdShift } from '../../isa/verbs.js';

export const SIMD: Readonly<Record<SimdOp | SimdShift, number>> = {
  'v128.not': 77, 'v128.and': 78, 'v128.andnot': 79, 'v128.or': 80, 'v128.xor': 81,
  'i8x16.swizzle': 14, 'i8x16.eq': 35, 'i8x16.gt_s': 39, 'i16x8.eq': 45, 'i16x8.gt_s': 49, 'i32x4.eq': 55, 'i32x4.gt_s': 59,
  'i64x2.eq': 214, 'i64x2.gt_s': 217,
  'i8x16.abs': 96, 'i8x16.neg': 97, 'i8x16.bitmask': 100, 'i8x16.narrow_i16x8_s': 101, 'i8x16.narrow_i16x8_u': 102,
  'i8x16.add': 110, 'i8x16.add_sat_s': 111, 'i8x16.add_sat_u': 112, 'i8x16.sub': 113, 'i8x16.sub_sat_s': 114, 'i8x16.sub_sat_u': 115,
  'i8x16.min_s': 118, 'i8x16.min_u': 119, 'i8x16.max_s': 120, 'i8x16.max_u': 121, 'i8x16.avgr_u': 123,
  'i16x8.abs': 128, 'i16x8.neg': 129, 'i16x8.bitmask': 132, 'i16x8.narrow_i32x4_s': 133, 'i16x8.narrow_i32x4_u': 134,
  'i16x8.shl': 139, 'i16x8.shr_s': 140, 'i16x8.shr_u': 141,
  'i16x8.add': 142, 'i16x8.add_sat_s': 143, 'i16x8.add_sat_u': 144, 'i16x8.sub': 145, 'i16x8.sub_sat_s': 146, 'i16x8.sub_sat_u': 147, 'i16x8.mul': 149,
  'i16x8.min_s': 150, 'i16x8.min_u': 151, 'i16x8.max_s': 152, 'i16x8.max_u': 153, 'i16x8.avgr_u': 155, 'i16x8.extmul_low_i8x16_u': 158,
  'i32x4.abs': 160, 'i32x4.neg': 161, 'i32x4.bitmask': 164,
  'i32x4.shl': 171, 'i32x4.shr_s': 172, 'i32x4.shr_u': 173,
  'i32x4.add': 174, 'i32x4.sub': 177, 'i32x4.mul': 181, 'i32x4.min_s': 182, 'i32x4.min_u': 183, 'i32x4.max_s': 184, 'i32x4.max_u': 185, 'i32x4.dot_i16x8_s': 186,
  'i32x4.extmul_low_i16x8_s': 188, 'i32x4.extmul_high_i16x8_s': 189, 'i32x4.extmul_low_i16x8_u': 190, 'i32x4.extmul_high_i16x8_u': 191,
  'i64x2.abs': 192, 'i64x2.neg': 193, 'i64x2.bitmask': 196, 'i64x2.shl': 203, 'i64x2.shr_s': 204, 'i64x2.shr_u': 205,
  'i64x2.add': 206, 'i64x2.sub': 209, 'i64x2.mul': 213, 'i64x2.extmul_low_i32x4_s': 220, 'i64x2.extmul_low_i32x4_u': 222,
};
/** Operators that take one vector and give an i32. */
export const SIMD_TO_I32: ReadonlySet<string> = new Set(['i8x16.bitmask', 'i16x8.bitmask', 'i32x4.bitmask', 'i64x2.bitmask']);
/** Lane extraction and replacement, by lane width. */
export const LANE = { 8: { get: 22, set: 23 }, 16: { get: 25, set: 26 }, 32: { get: 27, set: 28 }, 64: { get: 29, set: 30 } } as const;
export const SHUFFLE = 13;
/** v128.load32_zero / load64_zero are not used: scalars go through lanes. */
export const SPLAT = { 32: 17, 64: 18 } as const;
export const V128_CONST = 12;
