/**
 * BMI1 and BMI2: the VEX-encoded instructions on general registers.
 *
 * SDM volume 1, "Bit Manipulation Instructions". Operand size is 32 bits, or 64 with VEX.W in 64-bit mode; real and
 * virtual-8086 mode do not know VEX. Undefined flags are cleared. TZCNT and LZCNT are rows of `bits.ts`.
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Ops } from '../verbs.js';

const flag = <V>(o: Ops<V>, c: V, bit: number): V => o.select(c, o.imm(bit, 32), o.imm(0, 32));
/** ZF and SF of a result, CF given, the others clear. */
const setFlags = <V>(o: Ops<V>, r: V, w: number, cf?: V): void => {
  const zs = o.or(flag(o, o.eqz(r), 0x40), flag(o, o.bit(r, w - 1), 0x80));
  o.flags.setAll(cf === undefined ? zs : o.or(zs, flag(o, cf, 1)));
};

const andn: Sem = (o, d, a, b) => {
  const y = b.read();
  const r = o.and(o.not(a.read()), y);
  d.write(r);
  setFlags(o, r, d.w);
};
/** BLSI, BLSMSK, BLSR; CF tells about a zero source. */
const lowestBit =
  (f: <V>(o: Ops<V>, a: V, w: number) => V, carryIfZero: boolean): Sem =>
  (o, d, s) => {
    const a = s.read();
    const r = f(o, a, d.w);
    d.write(r);
    setFlags(o, r, d.w, carryIfZero ? o.eqz(a) : o.nez(a));
  };
const minusOne = <V>(o: Ops<V>, a: V, w: number): V => o.sub(a, o.imm(1, w as 32 | 64));

/** The low `n` bits; n is 32 bits wide, at most 255. */
const lowBits = <V>(o: Ops<V>, v: V, n: V, w: 32 | 64): V => {
  const all = o.leu(o.imm(w, 32), n);
  const mask = o.sub(o.shl(o.imm(1, w), o.and(n, o.imm(w - 1, 32))), o.imm(1, w));
  return o.select(all, v, o.and(v, mask));
};
const byteOf = <V>(o: Ops<V>, v: V, at: number): V =>
  o.and(o.shr(o.trunc(v, 32), o.imm(at, 32)), o.imm(0xff, 32));

/** Start in bits 7:0 and length in bits 15:8 of the second source. */
const bextr: Sem = (o, d, s, control) => {
  const w = d.w as 32 | 64;
  const v = s.read();
  const c = control.read();
  const start = byteOf(o, c, 0);
  const shifted = o.select(o.ltu(start, o.imm(w, 32)), o.shr(v, o.and(start, o.imm(w - 1, 32))), o.imm(0, w));
  const r = lowBits(o, shifted, byteOf(o, c, 8), w);
  d.write(r);
  o.flags.setAll(flag(o, o.eqz(r), 0x40));
};
const bzhi: Sem = (o, d, s, index) => {
  const w = d.w as 32 | 64;
  const v = s.read();
  const n = byteOf(o, index.read(), 0);
  const r = lowBits(o, v, n, w);
  d.write(r);
  setFlags(o, r, w, o.leu(o.imm(w, 32), n));
};
/** The high half is written last: it wins when both destinations are one register. */
const mulx: Sem = (o, high, low, s) => {
  const w = high.w as 32 | 64;
  const [lo, hi] = o.mulWide(o.reg(2, w), s.read(), false);
  low.write(lo);
  high.write(hi);
};
const bitField =
  (helper: 'pdep' | 'pext'): Sem =>
  (o, d, a, mask) => {
    const m = mask.read();
    const r = o.call(helper, [a.read(), m], 1);
    d.write(o.trunc(r[0]!, d.w));
  };
const rotate: Sem = (o, d, s, imm) => {
  const v = s.read();
  d.write(o.ror(v, o.and(o.zext(imm.read(8), 32), o.imm(d.w - 1, 32))));
};
const shift =
  (op: 'sar' | 'shl' | 'shr'): Sem =>
  (o, d, s, count) => {
    const v = s.read();
    const c = count.read();
    d.write(o[op](v, o.and(o.trunc(c, 32), o.imm(d.w - 1, 32))));
  };

const row = (
  name: string,
  feature: 'bmi1' | 'bmi2',
  form: string,
  sdm: string,
  sem: Sem,
  flags?: { readonly w: string; readonly u?: string },
): InsnRow => ({
  name,
  forms: [`vex.lz ${form}`],
  sdm,
  sem,
  feature,
  modes: 'protected',
  ...(flags === undefined ? {} : { flags }),
});
const SHIFT = 'SARX/SHLX/SHRX—Shift Without Affecting Flags';
const SOME = { w: 'oszc', u: 'ap' } as const;

export const BMI_ROWS: readonly InsnRow[] = [
  row('andn', 'bmi1', 'np 0f 38 f2 /r Gy,By,Ey', 'ANDN—Logical AND NOT', andn, SOME),
  row('bextr', 'bmi1', 'np 0f 38 f7 /r Gy,Ey,By', 'BEXTR—Bit Field Extract', bextr, { w: 'ozc', u: 'sap' }),
  row(
    'blsr',
    'bmi1',
    'np 0f 38 f3 /1 By,Ey',
    'BLSR—Reset Lowest Set Bit',
    lowestBit((o, a, w) => o.and(minusOne(o, a, w), a), true),
    SOME,
  ),
  row(
    'blsmsk',
    'bmi1',
    'np 0f 38 f3 /2 By,Ey',
    'BLSMSK—Get Mask Up to Lowest Set Bit',
    lowestBit((o, a, w) => o.xor(minusOne(o, a, w), a), true),
    SOME,
  ),
  row(
    'blsi',
    'bmi1',
    'np 0f 38 f3 /3 By,Ey',
    'BLSI—Extract Lowest Set Isolated Bit',
    lowestBit((o, a) => o.and(o.neg(a), a), false),
    SOME,
  ),
  row(
    'bzhi',
    'bmi2',
    'np 0f 38 f5 /r Gy,Ey,By',
    'BZHI—Zero High Bits Starting with Specified Bit Position',
    bzhi,
    SOME,
  ),
  row('pext', 'bmi2', 'f3 0f 38 f5 /r Gy,By,Ey', 'PEXT—Parallel Bits Extract', bitField('pext')),
  row('pdep', 'bmi2', 'f2 0f 38 f5 /r Gy,By,Ey', 'PDEP—Parallel Bits Deposit', bitField('pdep')),
  row('mulx', 'bmi2', 'f2 0f 38 f6 /r Gy,By,Ey', 'MULX—Unsigned Multiply Without Affecting Flags', mulx),
  row('shlx', 'bmi2', '66 0f 38 f7 /r Gy,Ey,By', SHIFT, shift('shl')),
  row('sarx', 'bmi2', 'f3 0f 38 f7 /r Gy,Ey,By', SHIFT, shift('sar')),
  row('shrx', 'bmi2', 'f2 0f 38 f7 /r Gy,Ey,By', SHIFT, shift('shr')),
  row(
    'rorx',
    'bmi2',
    'f2 0f 3a f0 /r ib Gy,Ey,Ib',
    'RORX—Rotate Right Logical Without Affecting Flags',
    rotate,
  ),
];
