/**
 * Helpers of x87 stores to memory: FST(P), FIST(P), FISTTP, FSTP m80, FBSTP.
 *
 * Arguments: linear address, pops, offset of the operand. The address is translated for writing first; an unmasked
 * exception leaves memory and stack alone (SDM volume 1, "x87 FPU Floating-Point Exception Handling").
 */
import { S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper } from '../helpers.js';
import { propagate, roundToIntegral, toInteger } from './arith.js';
import { openImage, storeImage } from './image.js';
import {
  bitLength,
  DEFAULT_NAN,
  F32,
  F64,
  FE,
  type Float,
  type Format,
  isNan,
  KIND,
  pack32,
  pack64,
  pack80,
  ROUND,
  roundFloat,
  type Status,
} from './softfloat.js';
import {
  FSW,
  isEmpty,
  noteInstruction,
  pop,
  raise,
  rawSt,
  readSt,
  setConditions,
  underflow,
  x87Status,
} from './x87-state.js';

const bytesOf = (v: bigint, size: number): Uint8Array => {
  const image = new Uint8Array(size);
  for (let i = 0; i < size; i++) image[i] = Number((v >> BigInt(8 * i)) & 0xffn);
  return image;
};

/** @param empty what a masked stack underflow stores */
const store =
  (size: number, convert: (s: Status, a: Float, cpu: Cpu) => bigint, empty: bigint): Helper =>
  (cpu) => {
    const target = openImage(cpu, cpu.arg64(0), size);
    if (target === false) return false;
    noteInstruction(cpu);
    cpu.set64(S.fdp, cpu.arg64(2));
    let v = empty;
    if (isEmpty(cpu, 0)) {
      if (!underflow(cpu)) return true;
    } else {
      const s = x87Status(cpu);
      v = convert(s, readSt(cpu, 0), cpu);
      const stores = raise(cpu, s) && (s.flags & ~s.masks & (FE.overflow | FE.underflow)) === 0;
      if (!stores) return true;
    }
    storeImage(cpu, target, bytesOf(v, size));
    if (cpu.arg32(1) !== 0) pop(cpu);
    return true;
  };

const binary =
  (f: Format, pack: (a: Float) => bigint) =>
  (s: Status, a: Float): bigint => {
    // a result that does not fit is not stored, so no exponent is moved
    s.wrap = false;
    if (isNan(a)) return pack(propagate(s, 'x87', a, a));
    const v = pack(roundFloat(s, f, a));
    // unmasked overflow and underflow hide inexactness
    if ((s.flags & ~s.masks & (FE.overflow | FE.underflow)) !== 0) {
      s.flags &= ~FE.inexact;
      s.up = false;
    }
    return v;
  };
const integer =
  (width: number) =>
  (s: Status, a: Float): bigint =>
    toInteger(s, a, width);

/** FISTTP: whatever the rounding control says. */
const truncated =
  (width: number) =>
  (s: Status, a: Float): bigint => {
    s.rounding = ROUND.truncate;
    return toInteger(s, a, width);
  };

const BCD_INDEFINITE = 0xffff_c000_0000_0000_0000n;
const BCD_LIMIT = 10n ** 18n;
const decimal = (s: Status, a: Float): bigint => {
  const tooBig = a.kind !== KIND.finite || (a.sig !== 0n && a.exp + bitLength(a.sig) > 64);
  const trial: Status = { ...s };
  const r = tooBig ? a : roundToIntegral(trial, a);
  const magnitude = tooBig ? BCD_LIMIT : r.sig << BigInt(r.exp);
  if (magnitude >= BCD_LIMIT) {
    s.flags |= FE.invalid;
    return BCD_INDEFINITE;
  }
  s.flags = trial.flags;
  s.up = trial.up;
  return BigInt(`0x${magnitude.toString(10)}`) | (a.sign === 1 ? 0x80n << 72n : 0n);
};

const fstpF80 = store(
  10,
  (_s, _a, cpu) => {
    const [sig, se] = rawSt(cpu, 0);
    setConditions(cpu, 0, FSW.c1);
    return sig | (BigInt(se) << 64n);
  },
  (() => {
    const [sig, se] = pack80(DEFAULT_NAN);
    return sig | (BigInt(se) << 64n);
  })(),
);

export const X87_STORES: Readonly<Record<string, Helper>> = {
  fstF32: store(4, binary(F32, pack32), 0xffc0_0000n),
  fstF64: store(8, binary(F64, pack64), 0xfff8_0000_0000_0000n),
  fstpF80,
  fistI16: store(2, integer(16), 0x8000n),
  fistI32: store(4, integer(32), 0x8000_0000n),
  fistI64: store(8, integer(64), 0x8000_0000_0000_0000n),
  fisttI16: store(2, truncated(16), 0x8000n),
  fisttI32: store(4, truncated(32), 0x8000_0000n),
  fisttI64: store(8, truncated(64), 0x8000_0000_0000_0000n),
  fbstp: store(10, decimal, BCD_INDEFINITE),
};
