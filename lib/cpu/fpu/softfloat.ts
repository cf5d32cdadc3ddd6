/**
 * Software floating point: the unpacked number, rounding to a format, and packing.
 *
 * A finite number is sign × sig × 2^exp with an integer significand of any size; 32, 64 and 80-bit formats differ only
 * in `Format`. Follows SDM volume 1, "Overview of Floating-Point Exceptions": tininess is detected after rounding,
 * flags have the bit positions that MXCSR and the x87 status word share. Arithmetic is in `arith.ts`.
 */

/** Exception flags at their MXCSR and FSW positions. */
export const FE = { invalid: 1, denormal: 2, zero: 4, overflow: 8, underflow: 0x10, inexact: 0x20 } as const;
/** Rounding control values of MXCSR and FCW. */
export const ROUND = { nearest: 0, down: 1, up: 2, truncate: 3 } as const;

export const KIND = {
  finite: 0,
  infinity: 1,
  qnan: 2,
  snan: 3,
  /** f80 encodings that no longer exist */ unsupported: 4,
} as const;

export interface Float {
  readonly kind: number;
  /** 0 or 1. */
  readonly sign: number;
  /** Finite: any integer, 0 for zero. NaN: the 64-bit significand of the 80-bit format. */
  readonly sig: bigint;
  readonly exp: number;
  /** Was denormal in the format it came from. */
  readonly denormal: boolean;
}

/** Precision in bits and the exponents of the smallest and largest normal number. */
export interface Format {
  readonly p: number;
  readonly emin: number;
  readonly emax: number;
}
export const F32: Format = { p: 24, emin: -126, emax: 127 };
export const F64: Format = { p: 53, emin: -1022, emax: 1023 };
export const F80: Format = { p: 64, emin: -16382, emax: 16383 };
/** What the x87 rounds to, by the precision control field. The reserved value 1 acts as 64 bits. */
export const X87_FORMATS: readonly Format[] = [{ ...F80, p: 24 }, F80, { ...F80, p: 53 }, F80];

/** The environment of one operation and what it reports. */
export interface Status {
  rounding: number;
  /** Exceptions that are masked. */
  masks: number;
  daz: boolean;
  ftz: boolean;
  /** x87: unmasked overflow and underflow deliver a result with the exponent moved by 24576. */
  wrap: boolean;
  flags: number;
  /** The magnitude was rounded up (C1). */
  up: boolean;
}

export const finite = (sign: number, sig: bigint, exp: number, denormal = false): Float => ({
  kind: KIND.finite,
  sign,
  sig,
  exp,
  denormal,
});
export const zero = (sign: number): Float => ({ kind: KIND.finite, sign, sig: 0n, exp: 0, denormal: false });
export const infinity = (sign: number): Float => ({
  kind: KIND.infinity,
  sign,
  sig: 0n,
  exp: 0,
  denormal: false,
});
/** The QNaN floating-point indefinite. */
export const DEFAULT_NAN: Float = {
  kind: KIND.qnan,
  sign: 1,
  sig: 0xc000_0000_0000_0000n,
  exp: 0,
  denormal: false,
};
export const isNan = (a: Float): boolean => a.kind >= KIND.qnan;
export const isZero = (a: Float): boolean => a.kind === KIND.finite && a.sig === 0n;

const scratch = new DataView(new ArrayBuffer(8));
/** Number of significant bits of n > 0. */
export const bitLength = (n: bigint): number => {
  const d = Number(n);
  if (d === Number.POSITIVE_INFINITY) return n.toString(2).length;
  scratch.setFloat64(0, d);
  const bits = ((scratch.getUint32(0) >>> 20) & 0x7ff) - 1022;
  // the conversion may have rounded up to a power of two
  return n >> BigInt(bits - 1) === 0n ? bits - 1 : bits;
};

/** Whether a discarded part is added to the magnitude. @param half -1, 0, 1: the part against half a unit; only when inexact */
const roundsUp = (rounding: number, sign: number, odd: boolean, half: number): boolean => {
  switch (rounding) {
    case ROUND.nearest:
      return half > 0 || (half === 0 && odd);
    case ROUND.down:
      return sign === 1;
    case ROUND.up:
      return sign === 0;
    default:
      return false;
  }
};

export interface Rounded {
  readonly sig: bigint;
  readonly inexact: boolean;
  readonly up: boolean;
}
/** sig / 2^drop as an integer. `sticky`: the true value is a little above `sig`. */
export const roundShift = (
  rounding: number,
  sign: number,
  sig: bigint,
  drop: number,
  sticky = false,
): Rounded => {
  if (drop <= 0) {
    const exact = sig << BigInt(-drop);
    if (!sticky) return { sig: exact, inexact: false, up: false };
    const up = roundsUp(rounding, sign, false, -1);
    return { sig: up ? exact + 1n : exact, inexact: true, up };
  }
  const kept = sig >> BigInt(drop);
  const rest = sig - (kept << BigInt(drop));
  if (rest === 0n && !sticky) return { sig: kept, inexact: false, up: false };
  const middle = 1n << BigInt(drop - 1);
  const half = rest < middle ? -1 : rest > middle || sticky ? 1 : 0;
  const up = roundsUp(rounding, sign, (kept & 1n) !== 0n, half);
  return { sig: up ? kept + 1n : kept, inexact: true, up };
};

/** Exponent by which the x87 moves results of unmasked overflow and underflow. */
const WRAP = 24576;

/**
 * Rounds sign × sig × 2^exp (sig > 0) to a format and reports overflow, underflow and inexactness. A finite result has
 * exactly `f.p` significant bits, or fewer and the exponent of the denormals.
 */
export const roundTo = (
  s: Status,
  f: Format,
  sign: number,
  sig: bigint,
  exp: number,
  sticky = false,
): Float => {
  const bits = bitLength(sig);
  let e = exp + bits - 1;
  let at = exp;
  let tiny = false;
  if (e < f.emin) {
    tiny = e < f.emin - 1 || bitLength(roundShift(s.rounding, sign, sig, bits - f.p, sticky).sig) === f.p;
    if (tiny && (s.masks & FE.underflow) === 0) {
      s.flags |= FE.underflow;
      if (s.wrap) {
        at += WRAP;
        e += WRAP;
        if (e < f.emin) {
          s.flags |= FE.inexact;
          return zero(sign);
        }
      } else {
        // no result is delivered; inexactness is that of unlimited exponents
        if (roundShift(s.rounding, sign, sig, bits - f.p, sticky).inexact) s.flags |= FE.inexact;
        return zero(sign);
      }
    } else if (tiny && s.ftz) {
      s.flags |= FE.underflow | FE.inexact;
      return zero(sign);
    }
  }
  let quantum = Math.max(e, f.emin) - (f.p - 1);
  const r = roundShift(s.rounding, sign, sig, quantum - at, sticky);
  let m = r.sig;
  if (m >> BigInt(f.p) !== 0n) {
    m >>= 1n;
    quantum++;
  }
  if (r.inexact) {
    s.flags |= FE.inexact;
    s.up = r.up;
    if (tiny) s.flags |= FE.underflow;
  }
  if (quantum + f.p - 1 > f.emax) {
    s.flags |= FE.overflow;
    if (s.wrap && (s.masks & FE.overflow) === 0) {
      if (quantum + f.p - 1 - WRAP <= f.emax) return finite(sign, m, quantum - WRAP);
      s.flags |= FE.inexact;
      s.up = true;
      return infinity(sign);
    }
    if ((s.masks & FE.overflow) !== 0) s.flags |= FE.inexact;
    s.up = s.rounding === ROUND.nearest || s.rounding === (sign === 1 ? ROUND.down : ROUND.up);
    return s.up ? infinity(sign) : finite(sign, (1n << BigInt(f.p)) - 1n, f.emax - (f.p - 1));
  }
  return finite(sign, m, quantum, tiny);
};

/** A number of a narrower or equal format, from another: NaNs are kept (quieted), zeros and infinities pass. */
export const roundFloat = (s: Status, f: Format, a: Float): Float => {
  if (a.kind !== KIND.finite || a.sig === 0n) return a;
  return roundTo(s, f, a.sign, a.sig, a.exp);
};

const INTEGER_BIT = 1n << 63n;
const QUIET_BIT = 1n << 62n;
export const quiet = (a: Float): Float =>
  a.kind === KIND.snan ? { ...a, kind: KIND.qnan, sig: a.sig | QUIET_BIT } : a;
const nan = (sign: number, sig: bigint): Float => ({
  kind: (sig & QUIET_BIT) !== 0n ? KIND.qnan : KIND.snan,
  sign,
  sig: sig | INTEGER_BIT,
  exp: 0,
  denormal: false,
});

const unpackBinary = (bits: bigint, fraction: number, top: number, daz: boolean): Float => {
  const sig = BigInt.asUintN(fraction, bits);
  const rest = Number(bits >> BigInt(fraction));
  const e = rest & top;
  const sign = rest > top ? 1 : 0;
  const bias = top >> 1;
  if (e === 0) {
    if (sig === 0n || daz) return zero(sign);
    return finite(sign, sig, 1 - bias - fraction, true);
  }
  if (e === top) return sig === 0n ? infinity(sign) : nan(sign, sig << BigInt(63 - fraction));
  return finite(sign, sig | (1n << BigInt(fraction)), e - bias - fraction);
};
export const unpack32 = (bits: bigint, daz = false): Float => unpackBinary(bits, 23, 0xff, daz);
export const unpack64 = (bits: bigint, daz = false): Float => unpackBinary(bits, 52, 0x7ff, daz);

/** @param se sign and exponent, 16 bits */
export const unpack80 = (sig: bigint, se: number): Float => {
  const sign = se >>> 15;
  const e = se & 0x7fff;
  if (e === 0) return sig === 0n ? zero(sign) : finite(sign, sig, -16445, true);
  if ((sig & INTEGER_BIT) === 0n) return { kind: KIND.unsupported, sign, sig, exp: 0, denormal: false };
  if (e === 0x7fff) return sig === INTEGER_BIT ? infinity(sign) : nan(sign, sig);
  return finite(sign, sig, e - 16383 - 63);
};

const packBinary = (a: Float, fraction: number, top: number): bigint => {
  const place = BigInt(fraction);
  const sign = a.sign === 1 ? BigInt(top + 1) << place : 0n;
  const special = sign | (BigInt(top) << place);
  if (a.kind === KIND.infinity) return special;
  if (a.kind !== KIND.finite) return special | BigInt.asUintN(fraction, a.sig >> BigInt(63 - fraction));
  if (a.sig === 0n) return sign;
  if (a.sig >> place === 0n) return sign | a.sig;
  return sign | (BigInt(a.exp + (top >> 1) + fraction) << place) | BigInt.asUintN(fraction, a.sig);
};
/** Packs a number that has been rounded to F32. */
export const pack32 = (a: Float): bigint => packBinary(a, 23, 0xff);
/** Packs a number that has been rounded to F64. */
export const pack64 = (a: Float): bigint => packBinary(a, 52, 0x7ff);

/** Packs a number of at most 64 significant bits within the range of F80: significand, then sign and exponent. */
export const pack80 = (a: Float): readonly [bigint, number] => {
  const sign = a.sign << 15;
  if (a.kind === KIND.infinity) return [INTEGER_BIT, sign | 0x7fff];
  if (a.kind !== KIND.finite) return [a.sig, sign | 0x7fff];
  if (a.sig === 0n) return [0n, sign];
  const up = Math.min(64 - bitLength(a.sig), a.exp + 16445);
  const sig = a.sig << BigInt(up);
  const e = a.exp - up + 16383 + 63;
  return (sig & INTEGER_BIT) === 0n ? [sig, sign] : [sig, sign | e];
};
