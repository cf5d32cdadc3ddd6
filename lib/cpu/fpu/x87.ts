/**
 * Helpers of x87 arithmetic, comparison, loads and register moves.
 *
 * SDM volume 1, "Programming with the x87 FPU"; one helper a kind of operand, the operation is argument 0 where there
 * are several. Stores to memory are in `x87-store.ts`, remainders and transcendental functions in `x87-functions.ts`.
 */
import { S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper } from '../helpers.js';
import {
  add,
  compare,
  div,
  fromInteger,
  mul,
  propagate,
  roundToIntegral,
  sqrt,
  sub,
  UNORDERED,
} from './arith.js';
import {
  DEFAULT_NAN,
  FE,
  type Float,
  isNan,
  isZero,
  KIND,
  pack80,
  quiet,
  type Status,
  unpack32,
  unpack64,
  X87_FORMATS,
} from './softfloat.js';
import { relationFlags } from './sse-arith.js';
import {
  FSW,
  free,
  isEmpty,
  moveTop,
  noteInstruction,
  pop,
  push,
  pushRaw,
  raise,
  rawSt,
  readSt,
  room,
  setConditions,
  setRawSt,
  underflow,
  writeSt,
  x87Status,
} from './x87-state.js';

/** The operation field of D8, DA, DC and DE. */
export const X87_OP = { add: 0, mul: 1, com: 2, comp: 3, sub: 4, subr: 5, div: 6, divr: 7 } as const;

const compute = (cpu: Cpu, s: Status, op: number, a: Float, b: Float): Float => {
  const f = X87_FORMATS[(cpu.get32(S.fcw) >>> 8) & 3];
  switch (op) {
    case X87_OP.add:
      return add(s, f, 'x87', a, b);
    case X87_OP.mul:
      return mul(s, f, 'x87', a, b);
    case X87_OP.sub:
      return sub(s, f, 'x87', a, b);
    case X87_OP.subr:
      return sub(s, f, 'x87', b, a);
    case X87_OP.div:
      return div(s, f, 'x87', a, b);
    default:
      return div(s, f, 'x87', b, a);
  }
};
const pops = (cpu: Cpu, n: number): void => {
  for (let i = 0; i < n; i++) pop(cpu);
};

/** ST(dst) = ST(dst) op other, with `count` pops. */
const arithmetic = (cpu: Cpu, op: number, dst: number, other: Float, s: Status, count: number): true => {
  const r = compute(cpu, s, op, readSt(cpu, dst), other);
  if (raise(cpu, s)) {
    writeSt(cpu, dst, r);
    pops(cpu, count);
  }
  return true;
};
/** Arguments: operation, destination, source, pops. */
const fArithReg: Helper = (cpu) => {
  noteInstruction(cpu);
  const dst = cpu.arg32(1);
  const src = cpu.arg32(2);
  if (isEmpty(cpu, dst) || isEmpty(cpu, src)) {
    if (underflow(cpu)) {
      writeSt(cpu, dst, DEFAULT_NAN);
      pops(cpu, cpu.arg32(3));
    }
    return true;
  }
  return arithmetic(cpu, cpu.arg32(0), dst, readSt(cpu, src), x87Status(cpu), cpu.arg32(3));
};

/** A comparison's condition codes. */
const conditions = (relation: number): number =>
  relation === UNORDERED ? FSW.c3 | FSW.c2 | FSW.c0 : relation === 0 ? FSW.c3 : relation === -1 ? FSW.c0 : 0;
const compareWith = (cpu: Cpu, other: Float, signaling: boolean, count: number): true => {
  const s = x87Status(cpu);
  const relation = compare(s, readSt(cpu, 0), other, signaling);
  if (raise(cpu, s)) {
    setConditions(cpu, conditions(relation), FSW.c3 | FSW.c2 | FSW.c0);
    pops(cpu, count);
  }
  return true;
};
const compareEmpty = (cpu: Cpu, count: number): true => {
  if (underflow(cpu)) {
    setConditions(cpu, FSW.c3 | FSW.c2 | FSW.c0, FSW.c3 | FSW.c2 | FSW.c0);
    pops(cpu, count);
  }
  return true;
};

/** Memory operands of D8, DA, DC, DE. Arguments: operation, value, offset of the operand. */
const arithMemory =
  (load: (cpu: Cpu) => Float): Helper =>
  (cpu) => {
    noteInstruction(cpu);
    cpu.set64(S.fdp, cpu.arg64(2));
    const op = cpu.arg32(0);
    const compares = op === X87_OP.com || op === X87_OP.comp;
    const count = op === X87_OP.comp ? 1 : 0;
    if (isEmpty(cpu, 0)) {
      if (compares) return compareEmpty(cpu, count);
      if (underflow(cpu)) writeSt(cpu, 0, DEFAULT_NAN);
      return true;
    }
    return compares
      ? compareWith(cpu, load(cpu), true, count)
      : arithmetic(cpu, op, 0, load(cpu), x87Status(cpu), 0);
  };
const integerOf =
  (arg: number, width: number) =>
  (cpu: Cpu): Float =>
    fromInteger(BigInt.asIntN(width, cpu.arg64(arg)));

/** FCOM and FUCOM. Arguments: register, signaling, pops. */
const fcomReg: Helper = (cpu) => {
  noteInstruction(cpu);
  const i = cpu.arg32(0);
  const count = cpu.arg32(2);
  if (isEmpty(cpu, 0) || isEmpty(cpu, i)) return compareEmpty(cpu, count);
  return compareWith(cpu, readSt(cpu, i), cpu.arg32(1) !== 0, count);
};
const ftst: Helper = (cpu) => {
  noteInstruction(cpu);
  return isEmpty(cpu, 0) ? compareEmpty(cpu, 0) : compareWith(cpu, fromInteger(0n), true, 0);
};
/** FCOMI and FUCOMI. Arguments: register, signaling, pops, the flags before. Result: the flags after. */
const fcomi: Helper = (cpu) => {
  noteInstruction(cpu);
  const i = cpu.arg32(0);
  cpu.result32(0, cpu.arg32(3));
  let relation: number = UNORDERED;
  if (isEmpty(cpu, 0) || isEmpty(cpu, i)) {
    if (!underflow(cpu)) return true;
  } else {
    const s = x87Status(cpu);
    relation = compare(s, readSt(cpu, 0), readSt(cpu, i), cpu.arg32(1) !== 0);
    if (!raise(cpu, s)) return true;
  }
  cpu.result32(0, relationFlags(relation));
  pops(cpu, cpu.arg32(2));
  return true;
};

/** FLD of a format that may signal. Arguments: value, offset of the operand. */
const loadBinary =
  (unpack: (bits: bigint) => Float): Helper =>
  (cpu) => {
    noteInstruction(cpu);
    cpu.set64(S.fdp, cpu.arg64(1));
    if (!room(cpu)) return true;
    const s = x87Status(cpu);
    const a = unpack(cpu.arg64(0));
    if (a.kind === KIND.snan) s.flags |= FE.invalid;
    if (a.denormal) s.flags |= FE.denormal;
    // a denormal is loaded although its exception is unmasked
    if (raise(cpu, s) || (s.flags & ~s.masks & FE.invalid) === 0) push(cpu, quiet(a));
    return true;
  };
const loadExactly =
  (raw: (cpu: Cpu) => readonly [bigint, number], offset: number): Helper =>
  (cpu) => {
    noteInstruction(cpu);
    cpu.set64(S.fdp, cpu.arg64(offset));
    if (!room(cpu)) return true;
    setConditions(cpu, 0, FSW.c1);
    pushRaw(cpu, raw(cpu));
    return true;
  };
/** FBLD: 18 packed decimal digits and a sign byte. Arguments: low 64 bits, high 16, offset. */
const decimal = (cpu: Cpu): readonly [bigint, number] => {
  let v = 0n;
  let digits = (BigInt(cpu.arg32(1) & 0xff) << 64n) | cpu.arg64(0);
  for (let unit = 1n; digits !== 0n; digits >>= 4n) {
    v += (digits & 15n) * unit;
    unit *= 10n;
  }
  return pack80({ ...fromInteger(v), sign: (cpu.arg32(1) >>> 15) & 1 });
};

/** FLD ST(i). */
const fldReg: Helper = (cpu) => {
  noteInstruction(cpu);
  const i = cpu.arg32(0);
  if (isEmpty(cpu, i)) {
    if (underflow(cpu)) push(cpu, DEFAULT_NAN);
    return true;
  }
  if (!room(cpu)) return true;
  setConditions(cpu, 0, FSW.c1);
  pushRaw(cpu, rawSt(cpu, i));
  return true;
};

/** FLD1 FLDL2T FLDL2E FLDPI FLDLG2 FLDLN2 FLDZ: significands truncated, and what rounding to nearest or up adds. */
const CONSTANTS: readonly {
  readonly sig: bigint;
  readonly se: number;
  readonly nearest: 0n | 1n;
  readonly exact?: true;
}[] = [
  { sig: 0x8000_0000_0000_0000n, se: 0x3fff, nearest: 0n, exact: true },
  { sig: 0xd49a_784b_cd1b_8afen, se: 0x4000, nearest: 0n },
  { sig: 0xb8aa_3b29_5c17_f0bbn, se: 0x3fff, nearest: 1n },
  { sig: 0xc90f_daa2_2168_c234n, se: 0x4000, nearest: 1n },
  { sig: 0x9a20_9a84_fbcf_f798n, se: 0x3ffd, nearest: 1n },
  { sig: 0xb172_17f7_d1cf_79abn, se: 0x3ffe, nearest: 1n },
  { sig: 0n, se: 0, nearest: 0n, exact: true },
];
const fldConst: Helper = (cpu) => {
  noteInstruction(cpu);
  if (!room(cpu)) return true;
  const c = CONSTANTS[cpu.arg32(0)];
  const { rounding } = x87Status(cpu);
  const more = c.exact ? 0n : rounding === 0 ? c.nearest : rounding === 2 ? 1n : 0n;
  setConditions(cpu, 0, FSW.c1);
  pushRaw(cpu, [c.sig + more, c.se]);
  return true;
};

/** FST ST(i) and FSTP ST(i). Arguments: register, pops. */
const fstReg: Helper = (cpu) => {
  noteInstruction(cpu);
  if (isEmpty(cpu, 0)) {
    if (!underflow(cpu)) return true;
    writeSt(cpu, cpu.arg32(0), DEFAULT_NAN);
  } else {
    setConditions(cpu, 0, FSW.c1);
    setRawSt(cpu, cpu.arg32(0), rawSt(cpu, 0));
  }
  pops(cpu, cpu.arg32(1));
  return true;
};
const fxch: Helper = (cpu) => {
  noteInstruction(cpu);
  const i = cpu.arg32(0);
  if (isEmpty(cpu, 0) || isEmpty(cpu, i)) {
    if (!underflow(cpu)) return true;
    if (isEmpty(cpu, 0)) writeSt(cpu, 0, DEFAULT_NAN);
    if (isEmpty(cpu, i)) writeSt(cpu, i, DEFAULT_NAN);
  } else setConditions(cpu, 0, FSW.c1);
  const a = rawSt(cpu, 0);
  setRawSt(cpu, 0, rawSt(cpu, i));
  setRawSt(cpu, i, a);
  return true;
};
/** FCMOVcc. Arguments: register, condition. */
const fcmov: Helper = (cpu) => {
  noteInstruction(cpu);
  const i = cpu.arg32(0);
  if (isEmpty(cpu, 0) || isEmpty(cpu, i)) {
    if (underflow(cpu)) writeSt(cpu, 0, DEFAULT_NAN);
    return true;
  }
  if (cpu.arg32(1) !== 0) setRawSt(cpu, 0, rawSt(cpu, i));
  return true;
};

/** A change of the sign bit: FABS (0) and FCHS (1). */
const sign: Helper = (cpu) => {
  noteInstruction(cpu);
  if (isEmpty(cpu, 0)) {
    if (underflow(cpu)) writeSt(cpu, 0, DEFAULT_NAN);
    return true;
  }
  setConditions(cpu, 0, FSW.c1);
  const [sig, se] = rawSt(cpu, 0);
  setRawSt(cpu, 0, [sig, cpu.arg32(0) === 0 ? se & 0x7fff : se ^ 0x8000]);
  return true;
};

const fxam: Helper = (cpu) => {
  noteInstruction(cpu);
  const a = readSt(cpu, 0);
  let c = a.sign === 1 ? FSW.c1 : 0;
  if (isEmpty(cpu, 0)) c |= FSW.c3 | FSW.c0;
  else if (a.kind === KIND.infinity) c |= FSW.c2 | FSW.c0;
  else if (a.kind === KIND.qnan || a.kind === KIND.snan) c |= FSW.c0;
  else if (isZero(a)) c |= FSW.c3;
  else if (a.denormal) c |= FSW.c3 | FSW.c2;
  else if (a.kind === KIND.finite) c |= FSW.c2;
  setConditions(cpu, c);
  return true;
};

/** An operation on ST(0) alone. */
const unary =
  (f: (cpu: Cpu, s: Status, a: Float) => Float): Helper =>
  (cpu) => {
    noteInstruction(cpu);
    if (isEmpty(cpu, 0)) {
      if (underflow(cpu)) writeSt(cpu, 0, DEFAULT_NAN);
      return true;
    }
    const s = x87Status(cpu);
    const r = f(cpu, s, readSt(cpu, 0));
    if (raise(cpu, s)) writeSt(cpu, 0, r);
    return true;
  };
const frndint = unary((_cpu, s, a) => {
  if (isNan(a)) return propagate(s, 'x87', a, a);
  if (a.denormal) s.flags |= FE.denormal;
  return roundToIntegral(s, a);
});
const fsqrt = unary((cpu, s, a) => sqrt(s, X87_FORMATS[(cpu.get32(S.fcw) >>> 8) & 3], 'x87', a));

export const X87_HELPERS: Readonly<Record<string, Helper>> = {
  fArithReg,
  fArithF32: arithMemory((cpu) => unpack32(cpu.arg64(1))),
  fArithF64: arithMemory((cpu) => unpack64(cpu.arg64(1))),
  fArithI16: arithMemory(integerOf(1, 16)),
  fArithI32: arithMemory(integerOf(1, 32)),
  fcomReg,
  ftst,
  fcomi,
  fldF32: loadBinary(unpack32),
  fldF64: loadBinary(unpack64),
  fldF80: loadExactly((cpu) => [cpu.arg64(0), cpu.arg32(1) & 0xffff], 2),
  fildI16: loadExactly((cpu) => pack80(integerOf(0, 16)(cpu)), 1),
  fildI32: loadExactly((cpu) => pack80(integerOf(0, 32)(cpu)), 1),
  fildI64: loadExactly((cpu) => pack80(integerOf(0, 64)(cpu)), 1),
  fbld: loadExactly(decimal, 2),
  fldReg,
  fldConst,
  fstReg,
  fxch,
  fcmov,
  fSign: sign,
  fxam,
  fsqrt,
  frndint,
  ffree: (cpu) => {
    noteInstruction(cpu);
    setConditions(cpu, 0, FSW.c1);
    free(cpu, cpu.arg32(0));
    return true;
  },
  /** FINCSTP (1) and FDECSTP (7). */
  fMoveTop: (cpu) => {
    noteInstruction(cpu);
    setConditions(cpu, 0, FSW.c1);
    moveTop(cpu, cpu.arg32(0));
    return true;
  },
  fnop: (cpu) => {
    noteInstruction(cpu);
    return true;
  },
};
