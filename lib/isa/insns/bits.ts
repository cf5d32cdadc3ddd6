/**
 * Bit tests, bit scans and bit counts.
 *
 * SDM volume 1, section "Bit and Byte Instructions". With a register as the bit offset, a memory operand is a bit string:
 * the offset is signed and may select memory far from the operand. A scan of zero leaves the destination unchanged.
 * The VEX-encoded instructions of BMI1 and BMI2 are in `bmi.ts`.
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Operand, Ops, Width } from '../verbs.js';

type Change = 'none' | 'set' | 'reset' | 'complement';

const changed = <V>(o: Ops<V>, change: Change, v: V, mask: V): V => {
  if (change === 'set') return o.or(v, mask);
  return change === 'reset' ? o.and(v, o.not(mask)) : o.xor(v, mask);
};

/** The word of a bit string that holds bit `offset`, a signed number of the operand's width. */
const wordOf = <V>(o: Ops<V>, d: Operand<V>, offset: V): Operand<V> => {
  const w = d.w as Width;
  const wordShift = w === 16 ? 4 : w === 32 ? 5 : 6;
  const words = o.sar(offset, o.imm(wordShift, 32));
  const wide = o.aw > w ? o.sext(words, o.aw) : o.trunc(words, o.aw);
  return d.at(o.shl(wide, o.imm(wordShift - 3, 32)));
};

const bitTest =
  (change: Change, immediate: boolean): Sem =>
  (o, d, s) => {
    const w = d.w as Width;
    const offset = s.read();
    const n = o.and(
      immediate ? o.zext(offset, 32) : w < 32 ? o.zext(offset, 32) : o.trunc(offset, 32),
      o.imm(w - 1, 32),
    );
    const word = d.kind === 'mem' && !immediate ? wordOf(o, d, offset) : d;
    const mask = change === 'none' ? undefined : o.shl(o.imm(1, w), n);
    const old = mask === undefined ? word.read() : word.rmw((v) => changed(o, change, v, mask));
    o.flags.set({ cf: o.trunc(o.shr(old, n), 1) });
  };

/** ZF of POPCNT; it clears the other flags. */
const onlyZero = <V>(o: Ops<V>, v: V): void =>
  o.flags.setAll(o.select(o.eqz(v), o.imm(0x40, 32), o.imm(0, 32)));

/** TZCNT, LZCNT: CF for a zero source, ZF for a zero result. */
const count =
  (scan: 'ctz' | 'clz'): Sem =>
  (o, d, s) => {
    const a = s.read();
    const zero = o.eqz(a);
    const r = o.select(zero, o.imm(d.w, d.w), o[scan](a));
    d.write(r);
    const flag = (c: typeof zero, bit: number): typeof zero => o.select(c, o.imm(bit, 32), o.imm(0, 32));
    o.flags.setAll(o.or(flag(zero, 1), flag(o.eqz(r), 0x40)));
  };

const bit = (
  name: string,
  opcode: string,
  digit: number,
  sdm: string,
  change: Change,
): readonly InsnRow[] => {
  const common = {
    name,
    sdm,
    flags: { w: 'c', u: 'osap' },
    ...(change === 'none' ? {} : { lock: true }),
    ...(change === 'set' || change === 'complement' ? { pageTableWriting: true } : {}),
  };
  return [
    { ...common, forms: [`0f ${opcode} /r Ev,Gv`], sem: bitTest(change, false) },
    { ...common, forms: [`0f ba /${digit} ib Ev,Ib`], sem: bitTest(change, true) },
  ];
};

const addCarry =
  (flag: 'cf' | 'of', condition: 0 | 2): Sem =>
  (o, d, s) => {
    const a = d.read();
    const c = o.flags.cond(condition);
    const cin = o.zext(c, d.w);
    const b = s.read();
    const partial = o.add(a, b);
    const r = o.add(partial, cin);
    d.write(r);
    const out = o.or(o.ltu(partial, a), o.ltu(r, cin));
    o.flags.set(flag === 'cf' ? { cf: out } : { of: out });
  };

export const BIT_ROWS: readonly InsnRow[] = [
  ...bit('bt', 'a3', 4, 'BT—Bit Test', 'none'),
  ...bit('bts', 'ab', 5, 'BTS—Bit Test and Set', 'set'),
  ...bit('btr', 'b3', 6, 'BTR—Bit Test and Reset', 'reset'),
  ...bit('btc', 'bb', 7, 'BTC—Bit Test and Complement', 'complement'),
  {
    name: 'bsf',
    forms: ['0f bc /r Gv,Ev'],
    sdm: 'BSF—Bit Scan Forward',
    flags: { w: 'z', u: 'osapc' },
    sem: (o, d, s) => {
      const a = s.read();
      o.when(o.nez(a), () => d.write(o.ctz(a)));
      o.flags.logic(a);
    },
  },
  {
    name: 'bsr',
    forms: ['0f bd /r Gv,Ev'],
    sdm: 'BSR—Bit Scan Reverse',
    flags: { w: 'z', u: 'osapc' },
    sem: (o, d, s) => {
      const a = s.read();
      o.when(o.nez(a), () => d.write(o.sub(o.imm(d.w - 1, d.w), o.clz(a))));
      o.flags.logic(a);
    },
  },
  {
    name: 'tzcnt',
    forms: ['f3 0f bc /r Gv,Ev'],
    sdm: 'TZCNT—Count the Number of Trailing Zero Bits',
    feature: 'bmi1',
    flags: { w: 'zc', u: 'osap' },
    sem: count('ctz'),
  },
  {
    name: 'lzcnt',
    forms: ['f3 0f bd /r Gv,Ev'],
    sdm: 'LZCNT—Count the Number of Leading Zero Bits',
    feature: 'lzcnt',
    flags: { w: 'zc', u: 'osap' },
    sem: count('clz'),
  },
  {
    name: 'popcnt',
    forms: ['f3 0f b8 /r Gv,Ev'],
    sdm: 'POPCNT—Return the Count of Number of Bits Set to 1',
    feature: 'popcnt',
    flags: { w: 'oszapc' },
    sem: (o, d, s) => {
      const a = s.read();
      d.write(o.popcnt(a));
      onlyZero(o, a);
    },
  },
  {
    name: 'adcx',
    forms: ['66 0f 38 f6 /r Gy,Ey'],
    sdm: 'ADCX—Unsigned Integer Addition of Two Operands With Carry Flag',
    feature: 'adx',
    flags: { w: 'c' },
    sem: addCarry('cf', 2),
  },
  {
    name: 'adox',
    forms: ['f3 0f 38 f6 /r Gy,Ey'],
    sdm: 'ADOX—Unsigned Integer Addition of Two Operands With Overflow Flag',
    feature: 'adx',
    flags: { w: 'o' },
    sem: addCarry('of', 0),
  },
];
