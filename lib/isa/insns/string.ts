/**
 * String instructions on memory and the accumulator.
 *
 * SDM volume 1, section "String Instructions". The engine repeats the body under REP, REPE and REPNE; every iteration
 * reads before it writes, so a fault leaves whole iterations. INS and OUTS are system rows.
 */
import type { InsnRow, Sem } from '../rows.js';
import { FLAG, S, SEG } from '../state.js';
import type { Ops, Width } from '../verbs.js';

const SI = 6;
const DI = 7;
const DF_BIT = Math.log2(FLAG.df);

const source = <V>(o: Ops<V>): V => o.load(o.linear(o.dataSegment, o.reg(SI, o.aw), o.w / 8, 'read'), o.w);
const destination = <V>(o: Ops<V>): V => o.load(o.linear(SEG.es, o.reg(DI, o.aw), o.w / 8, 'read'), o.w);
const storeDestination = <V>(o: Ops<V>, v: V): void =>
  o.store(o.linear(SEG.es, o.reg(DI, o.aw), o.w / 8, 'write'), v);

const advance = <V>(o: Ops<V>, ...registers: readonly number[]): void => {
  const bytes = o.w / 8;
  const down = o.bit(o.state(S.eflags, 32), DF_BIT);
  const step = o.select(down, o.neg(o.imm(bytes, o.aw)), o.imm(bytes, o.aw));
  for (const r of registers) o.setReg(r, o.add(o.reg(r, o.aw), step));
};

/** The condition on which REPE or REPNE goes on. */
const again = <V>(o: Ops<V>, a: V, b: V): V | undefined => {
  if (o.rep === 'none') return undefined;
  return o.rep === 'rep' ? o.eq(a, b) : o.ne(a, b);
};

const movs: Sem = (o) =>
  o.repeat(() => {
    storeDestination(o, source(o));
    advance(o, SI, DI);
    return undefined;
  }, 'bulkMovs');

const stos: Sem = (o) =>
  o.repeat(() => {
    storeDestination(o, o.reg(0, o.w as Width));
    advance(o, DI);
    return undefined;
  }, 'bulkStos');

const lods: Sem = (o) =>
  o.repeat(() => {
    const v = source(o);
    advance(o, SI);
    o.setReg(0, v);
    return undefined;
  });

const cmps: Sem = (o) =>
  o.repeat(() => {
    const a = source(o);
    const b = destination(o);
    advance(o, SI, DI);
    o.flags.sub(a, o.sub(a, b));
    return again(o, a, b);
  });

const scas: Sem = (o) =>
  o.repeat(() => {
    const a = o.reg(0, o.w);
    const b = destination(o);
    advance(o, DI);
    o.flags.sub(a, o.sub(a, b));
    return again(o, a, b);
  });

const COMPARED = { w: 'oszapc' } as const;

export const STRING_ROWS: readonly InsnRow[] = [
  {
    name: 'movs',
    forms: ['a4 Yb,Xb', 'a5 Yv,Xv'],
    sdm: 'MOVS/MOVSB/MOVSW/MOVSD/MOVSQ—Move Data From String to String',
    string: 'rep',
    sem: movs,
  },
  {
    name: 'cmps',
    forms: ['a6 Xb,Yb', 'a7 Xv,Yv'],
    sdm: 'CMPS/CMPSB/CMPSW/CMPSD/CMPSQ—Compare String Operands',
    string: 'repe',
    flags: COMPARED,
    sem: cmps,
  },
  {
    name: 'stos',
    forms: ['aa Yb', 'ab Yv'],
    sdm: 'STOS/STOSB/STOSW/STOSD/STOSQ—Store String',
    string: 'rep',
    sem: stos,
  },
  {
    name: 'lods',
    forms: ['ac Xb', 'ad Xv'],
    sdm: 'LODS/LODSB/LODSW/LODSD/LODSQ—Load String',
    string: 'rep',
    sem: lods,
  },
  {
    name: 'scas',
    forms: ['ae Yb', 'af Yv'],
    sdm: 'SCAS/SCASB/SCASW/SCASD—Scan String',
    string: 'repe',
    flags: COMPARED,
    sem: scas,
  },
];
