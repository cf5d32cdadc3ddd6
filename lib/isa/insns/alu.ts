/**
 * Integer addition, subtraction, comparison and logic.
 *
 * SDM volume 1, section "Binary Arithmetic Instructions" and "Logical Instructions".
 */
import type { InsnRow, Sem } from '../rows.js';

/** The eight forms that the basic two-operand instructions share; `n` is their number, 0 (ADD) to 7 (CMP). */
const eightForms = (n: number): readonly string[] => {
  const op = (low: number): string => (n * 8 + low).toString(16).padStart(2, '0');
  return [
    `${op(0)} /r Eb,Gb`,
    `${op(1)} /r Ev,Gv`,
    `${op(2)} /r Gb,Eb`,
    `${op(3)} /r Gv,Ev`,
    `${op(4)} ib AL,Ib`,
    `${op(5)} iz rAX,Iz`,
    `80 /${n} ib Eb,Ib`,
    `81 /${n} iz Ev,Iz`,
    `83 /${n} ib Ev,Ibs`,
  ];
};
/** `82` is an alias of `80` outside 64-bit mode. */
const alias82 = (name: string, n: number, rest: Omit<InsnRow, 'name' | 'forms' | 'modes'>): InsnRow => ({
  name,
  forms: [`82 /${n} ib Eb,Ib`],
  modes: 'no64',
  ...rest,
});

const add: Sem = (o, d, s) => {
  const b = s.read();
  const a = d.rmw((old) => o.add(old, b));
  o.flags.add(a, o.add(a, b));
};
const adc: Sem = (o, d, s) => {
  const b = s.read();
  const c = o.flags.cf();
  const cin = o.zext(c, d.w);
  const a = d.rmw((old) => o.add(o.add(old, b), cin));
  o.flags.adc(a, o.add(o.add(a, b), cin), c);
};
const sub: Sem = (o, d, s) => {
  const b = s.read();
  const a = d.rmw((old) => o.sub(old, b));
  o.flags.sub(a, o.sub(a, b));
};
const sbb: Sem = (o, d, s) => {
  const b = s.read();
  const c = o.flags.cf();
  const cin = o.zext(c, d.w);
  const a = d.rmw((old) => o.sub(o.sub(old, b), cin));
  o.flags.sbb(a, o.sub(o.sub(a, b), cin), c);
};
const and: Sem = (o, d, s) => {
  const b = s.read();
  const a = d.rmw((old) => o.and(old, b));
  o.flags.logic(o.and(a, b));
};
const or: Sem = (o, d, s) => {
  const b = s.read();
  const a = d.rmw((old) => o.or(old, b));
  o.flags.logic(o.or(a, b));
};
const xor: Sem = (o, d, s) => {
  const b = s.read();
  const a = d.rmw((old) => o.xor(old, b));
  o.flags.logic(o.xor(a, b));
};
const cmp: Sem = (o, d, s) => {
  const a = d.read();
  o.flags.sub(a, o.sub(a, s.read()));
};
const test: Sem = (o, d, s) => o.flags.logic(o.and(d.read(), s.read()));

const ARITHMETIC = { w: 'oszapc' } as const;
const LOGIC = { w: 'oszpc', u: 'a' } as const;

const basic: readonly (readonly [string, number, string, Sem, Partial<InsnRow>])[] = [
  ['add', 0, 'ADD—Add', add, { lock: true, flags: ARITHMETIC }],
  ['or', 1, 'OR—Logical Inclusive OR', or, { lock: true, flags: LOGIC, pageTableWriting: true }],
  ['adc', 2, 'ADC—Add With Carry', adc, { lock: true, flags: ARITHMETIC }],
  ['sbb', 3, 'SBB—Integer Subtraction With Borrow', sbb, { lock: true, flags: ARITHMETIC }],
  ['and', 4, 'AND—Logical AND', and, { lock: true, flags: LOGIC, pageTableWriting: true }],
  ['sub', 5, 'SUB—Subtract', sub, { lock: true, flags: ARITHMETIC }],
  ['xor', 6, 'XOR—Logical Exclusive OR', xor, { lock: true, flags: LOGIC }],
  ['cmp', 7, 'CMP—Compare Two Operands', cmp, { flags: ARITHMETIC }],
];

const inc: Sem = (o, d) => {
  const one = o.imm(1, d.w);
  o.flags.inc(
    o.add(
      d.rmw((v) => o.add(v, one)),
      one,
    ),
  );
};

const dec: Sem = (o, d) => {
  const one = o.imm(1, d.w);
  o.flags.dec(
    o.sub(
      d.rmw((v) => o.sub(v, one)),
      one,
    ),
  );
};

export const ALU_ROWS: readonly InsnRow[] = [
  ...basic.map(([name, n, sdm, sem, rest]): InsnRow => ({ name, forms: eightForms(n), sdm, sem, ...rest })),
  ...basic.map(([name, n, sdm, sem, rest]): InsnRow => alias82(name, n, { sdm, sem, ...rest })),
  {
    name: 'test',
    forms: [
      '84 /r Eb,Gb',
      '85 /r Ev,Gv',
      'a8 ib AL,Ib',
      'a9 iz rAX,Iz',
      'f6 /0 ib Eb,Ib',
      'f6 /1 ib Eb,Ib',
      'f7 /0 iz Ev,Iz',
      'f7 /1 iz Ev,Iz',
    ],
    sdm: 'TEST—Logical Compare',
    flags: LOGIC,
    sem: test,
  },
  {
    name: 'not',
    forms: ['f6 /2 Eb', 'f7 /2 Ev'],
    sdm: "NOT—One's Complement Negation",
    lock: true,
    sem: (o, d) => {
      d.rmw((old) => o.not(old));
    },
  },
  {
    name: 'neg',
    forms: ['f6 /3 Eb', 'f7 /3 Ev'],
    sdm: "NEG—Two's Complement Negation",
    lock: true,
    flags: ARITHMETIC,
    sem: (o, d) => {
      const old = d.rmw((v) => o.neg(v));
      o.flags.sub(o.imm(0, d.w), o.neg(old));
    },
  },
  {
    name: 'inc',
    forms: ['fe /0 Eb', 'ff /0 Ev'],
    sdm: 'INC—Increment by 1',
    lock: true,
    flags: { w: 'oszap' },
    sem: inc,
  },
  {
    name: 'inc',
    forms: ['40+r Zv'],
    modes: 'no64',
    sdm: 'INC—Increment by 1',
    flags: { w: 'oszap' },
    sem: inc,
  },
  {
    name: 'dec',
    forms: ['fe /1 Eb', 'ff /1 Ev'],
    sdm: 'DEC—Decrement by 1',
    lock: true,
    flags: { w: 'oszap' },
    sem: dec,
  },
  {
    name: 'dec',
    forms: ['48+r Zv'],
    modes: 'no64',
    sdm: 'DEC—Decrement by 1',
    flags: { w: 'oszap' },
    sem: dec,
  },
];
