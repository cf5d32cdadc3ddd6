/**
 * Multiplication and division.
 *
 * SDM volume 1, section "Multiply Instructions" and "Divide Instructions". Of the undefined flags, multiplication clears
 * SF, ZF, AF and PF, and division leaves all as they are.
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Operand, Ops, Width } from '../verbs.js';

const overflow = <V>(o: Ops<V>, c: V): void => o.flags.setAll(o.select(c, o.imm(0x801, 32), o.imm(0, 32)));

/** AX from its halves. */
const pairAx = <V>(o: Ops<V>, lowByte: V, highByte: V): V =>
  o.or(o.zext(lowByte, 16), o.shl(o.zext(highByte, 16), o.imm(8, 32)));
const signOf = <V>(o: Ops<V>, v: V, w: number): V => o.sar(v, o.imm(w - 1, 32));

const wide =
  (signed: boolean): Sem =>
  (o, s) => {
    const w = s.w as Width;
    const [lo, hi] = o.mulWide(o.reg(0, w), s.read(), signed);
    if (w === 8) o.setReg(0, pairAx(o, lo, hi));
    else {
      o.setReg(0, lo);
      o.setReg(2, hi);
    }
    overflow(o, signed ? o.ne(hi, signOf(o, lo, w)) : o.nez(hi));
  };

const divide =
  (signed: boolean): Sem =>
  (o, s) => {
    const w = s.w as Width;
    const d = s.read();
    if (w === 8) {
      const ax = o.reg(0, 16);
      const [q, r] = o.divide(o.trunc(o.shr(ax, o.imm(8, 32)), 8), o.trunc(ax, 8), d, signed);
      o.setReg(0, pairAx(o, q, r));
      return;
    }
    const [q, r] = o.divide(o.reg(2, w), o.reg(0, w), d, signed);
    o.setReg(0, q);
    o.setReg(2, r);
  };

const truncated = <V>(o: Ops<V>, d: Operand<V>, a: V, b: V): void => {
  const [lo, hi] = o.mulWide(a, b, true);
  d.write(lo);
  overflow(o, o.ne(hi, signOf(o, lo, d.w)));
};

const MULTIPLIED = { w: 'oc', u: 'szap' } as const;
const DIVIDED = { u: 'oszapc' } as const;

export const MULTIPLY_ROWS: readonly InsnRow[] = [
  {
    name: 'mul',
    forms: ['f6 /4 Eb', 'f7 /4 Ev'],
    sdm: 'MUL—Unsigned Multiply',
    flags: MULTIPLIED,
    sem: wide(false),
  },
  {
    name: 'imul',
    forms: ['f6 /5 Eb', 'f7 /5 Ev'],
    sdm: 'IMUL—Signed Multiply',
    flags: MULTIPLIED,
    sem: wide(true),
  },
  {
    name: 'imul',
    forms: ['0f af /r Gv,Ev'],
    sdm: 'IMUL—Signed Multiply',
    flags: MULTIPLIED,
    sem: (o, d, s) => truncated(o, d, d.read(), s.read()),
  },
  {
    name: 'imul',
    forms: ['69 /r iz Gv,Ev,Iz', '6b /r ib Gv,Ev,Ibs'],
    sdm: 'IMUL—Signed Multiply',
    flags: MULTIPLIED,
    sem: (o, d, s, i) => truncated(o, d, s.read(), i.read()),
  },
  {
    name: 'div',
    forms: ['f6 /6 Eb', 'f7 /6 Ev'],
    sdm: 'DIV—Unsigned Divide',
    flags: DIVIDED,
    sem: divide(false),
  },
  {
    name: 'idiv',
    forms: ['f6 /7 Eb', 'f7 /7 Ev'],
    sdm: 'IDIV—Signed Divide',
    flags: DIVIDED,
    sem: divide(true),
  },
];
