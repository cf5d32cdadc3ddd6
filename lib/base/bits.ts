/** Bits and words. Addresses are plain numbers below 2^52 (exact), linear addresses are lo/hi pairs or bigints. */

export const PAGE_SIZE = 4096;
export const MASK64 = 0xffff_ffff_ffff_ffffn;

/** The number of a pair of 32-bit halves; exact below 2^53. */
export const fromHalves = (lo: number, hi: number): number => (hi >>> 0) * 0x1_0000_0000 + (lo >>> 0);
export const lowHalf = (n: number): number => (n % 0x1_0000_0000) | 0;
export const highHalf = (n: number): number => Math.floor(n / 0x1_0000_0000) | 0;

/** A 64-bit value as a signed or unsigned bigint. */
export const u64 = (v: bigint): bigint => BigInt.asUintN(64, v);
export const s64 = (v: bigint): bigint => BigInt.asIntN(64, v);

/** True when bits 63:47 of a linear address are all equal (48-bit linear addresses). */
export const isCanonical = (_lo: number, hi: number): boolean => {
  const top = hi >> 15;
  return top === 0 || top === -1;
};

export const alignUp = (n: number, to: number): number => Math.ceil(n / to) * to;
export const alignDown = (n: number, to: number): number => Math.floor(n / to) * to;

/** `0x1f` style text, lower case, optionally zero-filled to `digits`. */
export const hex = (v: number | bigint, digits = 0): string => `0x${v.toString(16).padStart(digits, '0')}`;
