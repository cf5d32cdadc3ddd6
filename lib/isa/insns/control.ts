/**
 * Near control transfer, conditional moves and conditional sets.
 *
 * SDM volume 1, section "Control Transfer Instructions". Near branches have 64-bit operands in 64-bit mode, whatever
 * the prefixes say. Far transfers, interrupts and returns from them are system rows.
 */
import { InvariantError } from '../../base/error.js';
import type { InsnRow, Sem } from '../rows.js';
import { VECTOR } from '../state.js';
import type { Condition, Ops } from '../verbs.js';

/** Stands in the `sem` column of `+cc` rows. */
const perCondition: Sem = () => {
  throw new InvariantError('the semantics of a +cc row depend on the condition: use semCc');
};

/** #GP(0) for a target that is not canonical, before anything is written. */
const checkTarget = <V>(o: Ops<V>, target: V): void => {
  if (o.mode !== 64 || o.w !== 64) return;
  const top = o.sar(target, o.imm(47, 32));
  o.when(o.ne(top, o.sar(top, o.imm(63, 32))), () => o.fault(VECTOR.gp, 0));
};

const returnAddress = <V>(o: Ops<V>): V => (o.w === 64 ? o.nextRip() : o.trunc(o.nextRip(), o.w));

/** LOOP, LOOPE, LOOPNE: counts rCX of the address size down. */
const loop =
  (condition?: Condition): Sem =>
  (o, rel) => {
    const n = o.sub(o.reg(1, o.aw), o.imm(1, o.aw));
    const more = o.nez(n);
    const taken = condition === undefined ? more : o.and(more, o.flags.cond(condition));
    o.setReg(1, n);
    o.branch(rel, taken);
  };

export const CONTROL_ROWS: readonly InsnRow[] = [
  {
    name: 'j',
    forms: ['70+cc cb Jb', '0f 80+cc cz Jz'],
    sdm: 'Jcc—Jump if Condition Is Met',
    size: 'f64',
    sem: perCondition,
    semCc: (c) => (o, rel) => o.branch(rel, o.flags.cond(c)),
  },
  {
    name: 'jmp',
    forms: ['eb cb Jb', 'e9 cz Jz'],
    sdm: 'JMP—Jump',
    size: 'f64',
    sem: (o, rel) => o.branch(rel),
  },
  {
    name: 'jmp',
    forms: ['ff /4 Ev'],
    sdm: 'JMP—Jump',
    size: 'f64',
    sem: (o, d) => o.jump(d.read()),
  },
  {
    name: 'call',
    forms: ['e8 cz Jz'],
    sdm: 'CALL—Call Procedure',
    size: 'f64',
    sem: (o, rel) => {
      o.push(returnAddress(o));
      o.branch(rel);
    },
  },
  {
    name: 'call',
    forms: ['ff /2 Ev'],
    sdm: 'CALL—Call Procedure',
    size: 'f64',
    sem: (o, d) => {
      const target = d.read();
      checkTarget(o, target);
      o.push(returnAddress(o));
      o.jump(target);
    },
  },
  {
    name: 'ret',
    forms: ['c3', 'c2 iw Iw'],
    sdm: 'RET—Return From Procedure',
    size: 'f64',
    sem: (o, extra) => {
      const popped = o.pop(o.w);
      checkTarget(o, popped.value);
      // the row has a form without the operand
      const release = extra as typeof extra | undefined;
      if (release === undefined) popped.commit();
      else popped.commit(release.read());
      o.jump(popped.value);
    },
  },
  {
    name: 'loop',
    forms: ['e2 cb Jb'],
    sdm: 'LOOP/LOOPcc—Loop According to ECX Counter',
    size: 'f64',
    sem: loop(),
  },
  {
    name: 'loope',
    forms: ['e1 cb Jb'],
    sdm: 'LOOP/LOOPcc—Loop According to ECX Counter',
    size: 'f64',
    sem: loop(4),
  },
  {
    name: 'loopne',
    forms: ['e0 cb Jb'],
    sdm: 'LOOP/LOOPcc—Loop According to ECX Counter',
    size: 'f64',
    sem: loop(5),
  },
  {
    name: 'jcxz',
    forms: ['e3 cb Jb'],
    sdm: 'Jcc—Jump if Condition Is Met',
    size: 'f64',
    sem: (o, rel) => o.branch(rel, o.eqz(o.reg(1, o.aw))),
  },
  {
    name: 'set',
    forms: ['0f 90+cc /r Eb'],
    sdm: 'SETcc—Set Byte on Condition',
    sem: perCondition,
    semCc: (c) => (o, d) => d.write(o.zext(o.flags.cond(c), 8)),
  },
  {
    name: 'cmov',
    forms: ['0f 40+cc /r Gv,Ev'],
    sdm: 'CMOVcc—Conditional Move',
    feature: 'cmov',
    sem: perCondition,
    // the source is read, and a 32-bit destination zero-extended, even if the condition is false
    semCc: (c) => (o, d, s) => {
      const b = s.read();
      d.write(o.select(o.flags.cond(c), b, d.read()));
    },
  },
];
