/**
 * Helpers of SSE and SSE2 conversions (CVT…). Arguments and results are the 64-bit parts of the source and result.
 * SDM volume 2, the CVT sections; an integer that does not fit becomes the integer indefinite with the invalid flag.
 */
import { S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper } from '../helpers.js';
import { fromInteger, toInteger } from './arith.js';
import {
  F32,
  F64,
  FE,
  type Float,
  type Format,
  isNan,
  pack32,
  pack64,
  quiet,
  ROUND,
  roundFloat,
  type Status,
  unpack32,
  unpack64,
} from './softfloat.js';
import { finishSse, sseStatus } from './sse-status.js';

const low = (v: bigint): bigint => BigInt.asUintN(32, v);
const high = (v: bigint): bigint => v >> 32n;
const join = (lo: bigint, hi: bigint): bigint => lo | (hi << 32n);

/** Runs a conversion of the source words (arguments) to result words. */
const convert =
  (f: (s: Status, cpu: Cpu) => void, truncate = false): Helper =>
  (cpu) => {
    const s = sseStatus(cpu.get32(S.mxcsr));
    if (truncate) s.rounding = ROUND.truncate;
    f(s, cpu);
    return finishSse(cpu, s);
  };

/** Between floating-point formats. */
const change = (s: Status, f: Format, a: Float): Float => {
  if (isNan(a)) {
    if (a !== quiet(a)) s.flags |= FE.invalid;
    return quiet(a);
  }
  if (a.denormal) s.flags |= FE.denormal;
  return roundFloat(s, f, a);
};
const narrow = (s: Status, bits: bigint): bigint => pack32(change(s, F32, unpack64(bits, s.daz)));
const widen = (s: Status, bits: bigint): bigint => pack64(change(s, F64, unpack32(bits, s.daz)));
const fromInt = (s: Status, f: Format, v: bigint): bigint => {
  const r = roundFloat(s, f, fromInteger(v));
  return f === F32 ? pack32(r) : pack64(r);
};
const single = (s: Status, v: bigint): bigint => fromInt(s, F32, BigInt.asIntN(32, v));
const double = (s: Status, v: bigint): bigint => fromInt(s, F64, BigInt.asIntN(32, v));
const int32 = (s: Status, bits: bigint): bigint => toInteger(s, unpack32(bits, s.daz), 32);
const int64 = (s: Status, bits: bigint): bigint => toInteger(s, unpack64(bits, s.daz), 32);

const LIMIT: Readonly<Record<number, number>> = { 32: 2 ** 31, 64: 2 ** 52 };
/** CVTSD2SI and CVTTSD2SI, with a shortcut for values whose conversion is exact or merely inexact. */
const doubleToInteger = (width: 32 | 64, truncate: boolean): Helper => {
  const exactly = convert(
    (s, cpu) => cpu.result64(0, toInteger(s, unpack64(cpu.arg64(0), s.daz), width)),
    truncate,
  );
  return (cpu) => {
    const v = cpu.ram.f64[(cpu.at + S.arg) >>> 3];
    const t = Math.trunc(v);
    const mxcsr = cpu.get32(S.mxcsr);
    if (
      !(Math.abs(v) < LIMIT[width]) ||
      (t !== v && (!truncate || (mxcsr & 0x1000) === 0 || Math.abs(v) < 1e-300))
    )
      return exactly(cpu);
    if (t !== v) cpu.set32(S.mxcsr, mxcsr | FE.inexact);
    cpu.result64(0, BigInt.asUintN(width, BigInt(t)));
    return true;
  };
};

const pair = (f: (s: Status, v: bigint) => bigint, truncate = false): Helper =>
  convert((s, cpu) => {
    const v = cpu.arg64(0);
    cpu.result64(0, join(f(s, low(v)), f(s, high(v))));
  }, truncate);
const quad = (f: (s: Status, v: bigint) => bigint, truncate = false): Helper =>
  convert((s, cpu) => {
    const a = cpu.arg64(0);
    const b = cpu.arg64(1);
    cpu.result64(0, join(f(s, low(a)), f(s, high(a))));
    cpu.result64(1, join(f(s, low(b)), f(s, high(b))));
  }, truncate);
/** Two 32-bit lanes become two 64-bit lanes. */
const spread = (f: (s: Status, v: bigint) => bigint): Helper =>
  convert((s, cpu) => {
    const v = cpu.arg64(0);
    cpu.result64(0, f(s, low(v)));
    cpu.result64(1, f(s, high(v)));
  });
/** Two 64-bit lanes become two 32-bit lanes. */
const gather = (f: (s: Status, v: bigint) => bigint, truncate = false): Helper =>
  convert((s, cpu) => cpu.result64(0, join(f(s, cpu.arg64(0)), f(s, cpu.arg64(1)))), truncate);
const one = (f: (s: Status, v: bigint) => bigint, truncate = false): Helper =>
  convert((s, cpu) => cpu.result64(0, f(s, cpu.arg64(0))), truncate);

export const SSE_CONVERSIONS: Readonly<Record<string, Helper>> = {
  cvtss2sd: one(widen),
  cvtsd2ss: one(narrow),
  cvtps2pd: spread(widen),
  cvtpd2ps: gather(narrow),
  // integer to floating point; the scalar source is sign-extended to 64 bits
  cvtsi2ss: one((s, v) => fromInt(s, F32, BigInt.asIntN(64, v))),
  cvtsi2sd: one((s, v) => fromInt(s, F64, BigInt.asIntN(64, v))),
  cvtdq2ps: quad(single),
  cvtdq2pd: spread(double),
  cvtpi2ps: pair(single),
  // floating point to integer
  cvtss2si32: one(int32),
  cvttss2si32: one(int32, true),
  cvtss2si64: one((s, v) => toInteger(s, unpack32(v, s.daz), 64)),
  cvttss2si64: one((s, v) => toInteger(s, unpack32(v, s.daz), 64), true),
  cvtsd2si32: doubleToInteger(32, false),
  cvttsd2si32: doubleToInteger(32, true),
  cvtsd2si64: doubleToInteger(64, false),
  cvttsd2si64: doubleToInteger(64, true),
  cvtps2dq: quad(int32),
  cvttps2dq: quad(int32, true),
  cvtpd2dq: gather(int64),
  cvttpd2dq: gather(int64, true),
  cvtps2pi: pair(int32),
  cvttps2pi: pair(int32, true),
};
