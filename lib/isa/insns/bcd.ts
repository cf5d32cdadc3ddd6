/**
 * Decimal adjustment of the accumulator; none of these exist in 64-bit mode.
 *
 * SDM volume 2, DAA, DAS, AAA, AAS, AAM, AAD. Flags that the manual leaves undefined are cleared.
 */
import type { InsnRow, Sem } from '../rows.js';
import { FLAG } from '../state.js';
import type { Ops } from '../verbs.js';

const ah = <V>(o: Ops<V>): V => o.trunc(o.shr(o.reg(0, 16), o.imm(8, 32)), 8);
const setAx = <V>(o: Ops<V>, low: V, high: V): void =>
  o.setReg(0, o.or(o.zext(low, 16), o.shl(o.zext(high, 16), o.imm(8, 32))));
const auxiliary = <V>(o: Ops<V>): V => o.bit(o.flags.all(), 4);
const lowDigitTooBig = <V>(o: Ops<V>, al: V): V => o.ltu(o.imm(9, 8), o.and(al, o.imm(15, 8)));

/** SF, ZF and PF from `al`; CF and AF as given. */
const adjusted = <V>(o: Ops<V>, al: V, cf: V, af: V): void => {
  o.flags.logic(al);
  o.flags.set({ cf, af });
};

const decimal =
  (subtract: boolean): Sem =>
  (o) => {
    const al = o.reg(0, 8);
    const low = o.or(lowDigitTooBig(o, al), auxiliary(o));
    const high = o.or(o.ltu(o.imm(0x99, 8), al), o.flags.cf());
    const amount = o.add(
      o.select(low, o.imm(6, 8), o.imm(0, 8)),
      o.select(high, o.imm(0x60, 8), o.imm(0, 8)),
    );
    const r = subtract ? o.sub(al, amount) : o.add(al, amount);
    const cf = subtract ? o.or(high, o.and(low, o.ltu(al, o.imm(6, 8)))) : high;
    o.setReg(0, r);
    adjusted(o, r, cf, low);
  };

const ascii =
  (subtract: boolean): Sem =>
  (o) => {
    const ax = o.reg(0, 16);
    const adjust = o.or(lowDigitTooBig(o, o.reg(0, 8)), auxiliary(o));
    const amount = o.select(adjust, o.imm(0x106, 16), o.imm(0, 16));
    const r = subtract ? o.sub(ax, amount) : o.add(ax, amount);
    o.setReg(0, o.and(r, o.imm(0xff0f, 16)));
    o.flags.setAll(o.select(adjust, o.imm(FLAG.cf | FLAG.af, 32), o.imm(0, 32)));
  };

const common = { modes: 'no64' } as const;

export const BCD_ROWS: readonly InsnRow[] = [
  {
    ...common,
    name: 'daa',
    forms: ['27'],
    sdm: 'DAA—Decimal Adjust AL After Addition',
    flags: { w: 'szapc', u: 'o' },
    sem: decimal(false),
  },
  {
    ...common,
    name: 'das',
    forms: ['2f'],
    sdm: 'DAS—Decimal Adjust AL After Subtraction',
    flags: { w: 'szapc', u: 'o' },
    sem: decimal(true),
  },
  {
    ...common,
    name: 'aaa',
    forms: ['37'],
    sdm: 'AAA—ASCII Adjust After Addition',
    flags: { w: 'ac', u: 'oszp' },
    sem: ascii(false),
  },
  {
    ...common,
    name: 'aas',
    forms: ['3f'],
    sdm: 'AAS—ASCII Adjust AL After Subtraction',
    flags: { w: 'ac', u: 'oszp' },
    sem: ascii(true),
  },
  {
    ...common,
    name: 'aam',
    forms: ['d4 ib Ib'],
    sdm: 'AAM—ASCII Adjust AX After Multiply',
    flags: { w: 'szp', u: 'oac' },
    sem: (o, base) => {
      const [q, r] = o.divide(o.imm(0, 8), o.reg(0, 8), base.read(), false);
      setAx(o, r, q);
      o.flags.logic(r);
    },
  },
  {
    ...common,
    name: 'aad',
    forms: ['d5 ib Ib'],
    sdm: 'AAD—ASCII Adjust AX Before Division',
    flags: { w: 'szp', u: 'oac' },
    sem: (o, base) => {
      const al = o.add(o.reg(0, 8), o.mul(ah(o), base.read()));
      setAx(o, al, o.imm(0, 8));
      o.flags.logic(al);
    },
  },
];
