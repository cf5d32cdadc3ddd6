/**
 * x87 floating-point instructions.
 *
 * SDM volume 1, "x87 FPU Instruction Set"; every operation is a helper of `cpu/fpu/`. Rows without a `unit` are the
 * instructions that do not wait for pending exceptions; their helpers check CR0. `wait` precedes none of them: the
 * waiting forms (FINIT, FSTSW …) are WAIT followed by these.
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Operand, Ops } from '../verbs.js';

const OPERATIONS = ['add', 'mul', 'com', 'comp', 'sub', 'subr', 'div', 'divr'] as const;

const row = (name: string, forms: readonly string[], sem: Sem, sdm = name.toUpperCase()): InsnRow => ({
  name,
  forms,
  sdm,
  sem,
  unit: 'x87',
  feature: 'fpu',
});
/** Without the check for pending exceptions. */
const noWait = (name: string, forms: readonly string[], sem: Sem, sdm: string): InsnRow => ({
  name,
  forms,
  sdm,
  sem,
  feature: 'fpu',
});

const n = <V>(o: Ops<V>, v: number): V => o.imm(v, 32);
const titles = (name: string): string => {
  if (/^fi?(com|comp)$/.test(name)) return name[1] === 'i' ? 'FICOM/FICOMP' : 'FCOM/FCOMP/FCOMPP';
  const stem = name.replace(/^f?i?/, '').toUpperCase();
  return `F${stem}/F${stem}P/FI${stem}`;
};

/** Arithmetic and comparison with memory. */
const memory = (esc: string, prefix: string, type: string, helper: string): readonly InsnRow[] =>
  OPERATIONS.map((name, op) =>
    row(
      `${prefix}${name}`,
      [`${esc} /${op}:mem ${type}`],
      (o, m) => {
        o.call(helper, [n(o, op), m.read(), m.ea()]);
      },
      titles(`${prefix}${name}`),
    ),
  );
/** Arithmetic of two stack registers: ST(0) = ST(0) op ST(i). */
const toTop = (op: number): InsnRow =>
  row(
    `f${OPERATIONS[op]}`,
    [`d8 /${op}:reg ST0,STi`],
    (o, _top, i) => {
      o.call('fArithReg', [n(o, op), n(o, 0), i.index(), n(o, 0)]);
    },
    titles(OPERATIONS[op]),
  );
/** ST(i) = ST(i) op ST(0). The encodings of the subtractions and of the divisions are exchanged against D8. */
const toRegister = (digit: number, pops: 0 | 1): InsnRow => {
  const op = digit >= 4 ? digit ^ 1 : digit;
  // FSUB ST(i),ST(0) computes ST(i) - ST(0): /5, which D8 calls "reversed"
  return row(
    `f${OPERATIONS[op]}${pops === 1 ? 'p' : ''}`,
    [`${pops === 1 ? 'de' : 'dc'} /${digit}:reg STi,ST0`],
    (o, i) => {
      o.call('fArithReg', [n(o, op), i.index(), n(o, 0), n(o, pops)]);
    },
    titles(OPERATIONS[op]),
  );
};

const compare = (
  name: string,
  forms: readonly string[],
  signaling: 0 | 1,
  pops: number,
  sdm: string,
): InsnRow =>
  row(
    name,
    forms,
    (o, _top, i) => {
      o.call('fcomReg', [i.index(), n(o, signaling), n(o, pops)]);
    },
    sdm,
  );
const compareFlags = (name: string, form: string, signaling: 0 | 1, pops: 0 | 1): InsnRow => ({
  ...row(
    name,
    [form],
    (o, _top, i) => {
      const r = o.call('fcomi', [i.index(), n(o, signaling), n(o, pops), o.flags.all()], 1);
      o.flags.setAll(o.trunc(r[0], 32));
    },
    'FCOMI/FCOMIP/FUCOMI/FUCOMIP',
  ),
  flags: { w: 'oszapc' },
});
const comparePop2 = (name: string, form: string, signaling: 0 | 1, sdm: string): InsnRow =>
  row(
    name,
    [form],
    (o) => {
      o.call('fcomReg', [n(o, 1), n(o, signaling), n(o, 2)]);
    },
    sdm,
  );

const load = (name: string, form: string, helper: string, sdm: string): InsnRow =>
  row(
    name,
    [form],
    (o, m) => {
      o.call(helper, [m.read(), m.ea()]);
    },
    sdm,
  );
/** Ten bytes. */
const loadLong = (name: string, form: string, helper: string, sdm: string): InsnRow =>
  row(
    name,
    [form],
    (o, m) => {
      const at = m.linear(10, 'read');
      o.call(helper, [o.load(at, 64), o.load(o.add(at, o.imm(8n, 64)), 16), m.ea()]);
    },
    sdm,
  );
const store = (
  name: string,
  form: string,
  helper: string,
  bytes: number,
  pops: 0 | 1,
  sdm: string,
): InsnRow =>
  row(
    name,
    [form],
    (o, m) => {
      o.call(helper, [m.linear(bytes, 'write'), n(o, pops), m.ea()]);
    },
    sdm,
  );
/** An instruction without operands whose helper takes one number. */
const simple = (name: string, modrm: string, helper = name, argument = 0): InsnRow => {
  const esc = modrm.slice(0, 2);
  const byte = modrm.slice(3);
  return row(name, [`${esc} /${(Number.parseInt(byte, 16) >> 3) & 7}:${byte}`], (o) => {
    o.call(helper, [n(o, argument)]);
  });
};
const onRegister = (
  name: string,
  form: string,
  helper: string,
  argument: number,
  sdm = name.toUpperCase(),
): InsnRow =>
  row(
    name,
    [form],
    (o, i) => {
      o.call(helper, [i.index(), n(o, argument)]);
    },
    sdm,
  );
const conditional = (name: string, form: string, condition: 2 | 3 | 4 | 5 | 6 | 7 | 10 | 11): InsnRow =>
  row(
    name,
    [form],
    (o, _top, i) => {
      o.call('fcmov', [i.index(), o.zext(o.flags.cond(condition), 32)]);
    },
    'FCMOVcc',
  );

/** Bytes of the environment, and of environment and registers, by operand size. */
const area = <V>(
  o: Ops<V>,
  m: Operand<V>,
  helper: string,
  registers: boolean,
  access: 'read' | 'write',
): void => {
  const bytes = (o.w === 16 ? 14 : 28) + (registers ? 80 : 0);
  o.call(helper, [m.linear(bytes, access), n(o, o.w)]);
};

const COM = 'FCOM/FCOMP/FCOMPP';
const UCOM = 'FUCOM/FUCOMP/FUCOMPP';
const FST = 'FST/FSTP';
const FIST = 'FIST/FISTP';

export const X87_ROWS: readonly InsnRow[] = [
  ...memory('d8', 'f', 'Md', 'fArithF32'),
  ...memory('dc', 'f', 'Mq', 'fArithF64'),
  ...memory('da', 'fi', 'Md', 'fArithI32'),
  ...memory('de', 'fi', 'Mw', 'fArithI16'),
  ...[0, 1, 4, 5, 6, 7].map(toTop),
  ...[0, 1, 4, 5, 6, 7].flatMap((digit) => [toRegister(digit, 0), toRegister(digit, 1)]),
  compare('fcom', ['d8 /2:reg ST0,STi', 'dc /2:reg ST0,STi'], 1, 0, COM),
  compare('fcomp', ['d8 /3:reg ST0,STi', 'dc /3:reg ST0,STi', 'de /2:reg ST0,STi'], 1, 1, COM),
  comparePop2('fcompp', 'de /3:d9', 1, COM),
  compare('fucom', ['dd /4:reg ST0,STi'], 0, 0, UCOM),
  compare('fucomp', ['dd /5:reg ST0,STi'], 0, 1, UCOM),
  comparePop2('fucompp', 'da /5:e9', 0, UCOM),
  compareFlags('fcomi', 'db /6:reg ST0,STi', 1, 0),
  compareFlags('fucomi', 'db /5:reg ST0,STi', 0, 0),
  compareFlags('fcomip', 'df /6:reg ST0,STi', 1, 1),
  compareFlags('fucomip', 'df /5:reg ST0,STi', 0, 1),
  conditional('fcmovb', 'da /0:reg ST0,STi', 2),
  conditional('fcmove', 'da /1:reg ST0,STi', 4),
  conditional('fcmovbe', 'da /2:reg ST0,STi', 6),
  conditional('fcmovu', 'da /3:reg ST0,STi', 10),
  conditional('fcmovnb', 'db /0:reg ST0,STi', 3),
  conditional('fcmovne', 'db /1:reg ST0,STi', 5),
  conditional('fcmovnbe', 'db /2:reg ST0,STi', 7),
  conditional('fcmovnu', 'db /3:reg ST0,STi', 11),

  load('fld', 'd9 /0:mem Md', 'fldF32', 'FLD'),
  load('fld', 'dd /0:mem Mq', 'fldF64', 'FLD'),
  loadLong('fld', 'db /5:mem Mt', 'fldF80', 'FLD'),
  load('fild', 'df /0:mem Mw', 'fildI16', 'FILD'),
  load('fild', 'db /0:mem Md', 'fildI32', 'FILD'),
  load('fild', 'df /5:mem Mq', 'fildI64', 'FILD'),
  loadLong('fbld', 'df /4:mem Mt', 'fbld', 'FBLD'),
  row('fld', ['d9 /0:reg STi'], (o, i) => {
    o.call('fldReg', [i.index()]);
  }),
  store('fst', 'd9 /2:mem Md', 'fstF32', 4, 0, FST),
  store('fstp', 'd9 /3:mem Md', 'fstF32', 4, 1, FST),
  store('fst', 'dd /2:mem Mq', 'fstF64', 8, 0, FST),
  store('fstp', 'dd /3:mem Mq', 'fstF64', 8, 1, FST),
  store('fstp', 'db /7:mem Mt', 'fstpF80', 10, 1, FST),
  store('fist', 'df /2:mem Mw', 'fistI16', 2, 0, FIST),
  store('fistp', 'df /3:mem Mw', 'fistI16', 2, 1, FIST),
  store('fist', 'db /2:mem Md', 'fistI32', 4, 0, FIST),
  store('fistp', 'db /3:mem Md', 'fistI32', 4, 1, FIST),
  store('fistp', 'df /7:mem Mq', 'fistI64', 8, 1, FIST),
  store('fbstp', 'df /6:mem Mt', 'fbstp', 10, 1, 'FBSTP'),
  onRegister('fst', 'dd /2:reg STi', 'fstReg', 0, FST),
  onRegister('fstp', 'dd /3:reg STi', 'fstReg', 1, FST),
  onRegister('fxch', 'd9 /1:reg STi', 'fxch', 0),
  onRegister('ffree', 'dd /0:reg STi', 'ffree', 0),

  simple('fld1', 'd9 e8', 'fldConst', 0),
  simple('fldl2t', 'd9 e9', 'fldConst', 1),
  simple('fldl2e', 'd9 ea', 'fldConst', 2),
  simple('fldpi', 'd9 eb', 'fldConst', 3),
  simple('fldlg2', 'd9 ec', 'fldConst', 4),
  simple('fldln2', 'd9 ed', 'fldConst', 5),
  simple('fldz', 'd9 ee', 'fldConst', 6),
  simple('fnop', 'd9 d0'),
  simple('fchs', 'd9 e0', 'fSign', 1),
  simple('fabs', 'd9 e1', 'fSign', 0),
  simple('ftst', 'd9 e4'),
  simple('fxam', 'd9 e5'),
  simple('f2xm1', 'd9 f0'),
  simple('fyl2x', 'd9 f1'),
  simple('fptan', 'd9 f2'),
  simple('fpatan', 'd9 f3'),
  simple('fxtract', 'd9 f4'),
  simple('fprem1', 'd9 f5', 'fprem', 1),
  simple('fdecstp', 'd9 f6', 'fMoveTop', 7),
  simple('fincstp', 'd9 f7', 'fMoveTop', 1),
  simple('fprem', 'd9 f8', 'fprem', 0),
  simple('fyl2xp1', 'd9 f9'),
  simple('fsqrt', 'd9 fa'),
  simple('fsincos', 'd9 fb'),
  simple('frndint', 'd9 fc'),
  simple('fscale', 'd9 fd'),
  simple('fsin', 'd9 fe', 'fsin'),
  simple('fcos', 'd9 ff', 'fcos'),

  row('fldcw', ['d9 /5:mem Mw'], (o, m) => {
    o.call('fldcw', [m.read()]);
  }),
  row('fldenv', ['d9 /4:mem M'], (o, m) => area(o, m, 'fldenv', false, 'read')),
  row('frstor', ['dd /4:mem M'], (o, m) => area(o, m, 'frstor', true, 'read')),
  noWait('fnstenv', ['d9 /6:mem M'], (o, m) => area(o, m, 'fnstenv', false, 'write'), 'FSTENV/FNSTENV'),
  noWait('fnsave', ['dd /6:mem M'], (o, m) => area(o, m, 'fnsave', true, 'write'), 'FSAVE/FNSAVE'),
  noWait(
    'fnstcw',
    ['d9 /7:mem Mw'],
    (o, m) => m.write(o.trunc(o.call('fnstcw', [], 1)[0], 16)),
    'FSTCW/FNSTCW',
  ),
  noWait(
    'fnstsw',
    ['dd /7:mem Mw', 'df /4:e0 AX'],
    (o, d) => d.write(o.trunc(o.call('fnstsw', [], 1)[0], 16)),
    'FSTSW/FNSTSW',
  ),
  noWait(
    'fnclex',
    ['db /4:e2'],
    (o) => {
      o.call('fnclex');
    },
    'FCLEX/FNCLEX',
  ),
  noWait(
    'fninit',
    ['db /4:e3'],
    (o) => {
      o.call('fninit');
    },
    'FINIT/FNINIT',
  ),
  // FENI, FDISI and FSETPM of the 8087 and 80287 do nothing
  noWait('fnop', ['db /4:e0', 'db /4:e1', 'db /4:e4'], () => {}, 'FNOP'),
  { name: 'fwait', forms: ['9b'], sdm: 'WAIT/FWAIT', sem: () => {}, unit: 'wait', feature: 'fpu' },
];
