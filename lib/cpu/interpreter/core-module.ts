/**
 * The dispatch loop, and the functions that handlers share (`CORE_FUNCTIONS`).
 *
 * Rule of the budget: entering a block takes its instruction count from `S.budget`; if the count is larger than what is
 * left, the block is not entered and the engine leaves with `LEAVE.budget`.
 */
import { FLAGS } from '../../isa/flags.js';
import { FLAG, LEAVE, S, SEG } from '../../isa/state.js';
import { TLB_INDEX_MASK } from '../../memory/access.js';
import { LAYOUT } from '../../memory/ram.js';
import { Body, I32, I64, ModuleBuilder } from '../wasm/encoder.js';
import { R } from './record.js';
import { CORE_FUNCTIONS, importHost, type RuntimeIndex } from './runtime.js';

/** Linear-memory address of a state field. */
export const at = (offset: number): number => LAYOUT.state + offset;

const SIGN = 1n << 63n;

/** Pushes the flag kind (without its width). */
const kind = (b: Body): Body => b.i32(0).mem('i32.load8_u', at(S.flagKind));
const A = (b: Body): Body => b.i32(0).mem('i64.load', at(S.flagA));
const RR = (b: Body): Body => b.i32(0).mem('i64.load', at(S.flagR));

/** (): all six arithmetic flags. */
const flagsBody = (): Body => {
  const b = new Body(0);
  const k = b.local(I32);
  const w = b.local(I32);
  const a = b.local(I64);
  const r = b.local(I64);
  const unit = b.local(I64);
  const other = b.local(I64);
  const f = b.local(I32);
  const low = b.local(I32);
  kind(b).set(k);
  A(b).set(a);
  RR(b).set(r);
  b.get(k).op('i32.eqz').if();
  b.get(a).op('i32.wrap_i64').i32(0x8d5).op('i32.and').op('return');
  b.op('end');
  // w = 64 - width; unit = 1 << w
  b.i32(64)
    .i32(8)
    .i32(0)
    .mem('i32.load8_u', at(S.flagKind) + 1)
    .op('i32.shl')
    .op('i32.sub')
    .set(w);
  b.i64(1n).get(w).op('i64.extend_i32_u').op('i64.shl').set(unit);
  b.get(r).get(w).op('i64.extend_i32_u').op('i64.shr_u').op('i32.wrap_i64').i32(0xff).op('i32.and').set(low);
  // PF: parity of the low byte through a 16-entry constant
  b.i32(0x9669)
    .get(low)
    .get(low)
    .i32(4)
    .op('i32.shr_u')
    .op('i32.xor')
    .i32(15)
    .op('i32.and')
    .op('i32.shr_u')
    .i32(1)
    .op('i32.and')
    .i32(2)
    .op('i32.shl')
    .set(f);
  // ZF, SF
  b.get(f).get(r).op('i64.eqz').i32(6).op('i32.shl').op('i32.or');
  b.get(r).i64(63n).op('i64.shr_u').op('i32.wrap_i64').i32(7).op('i32.shl').op('i32.or').set(f);
  const finish = (): void => {
    b.get(f).op('i32.or').op('return');
  };
  const carryAndOverflow = (): void => {
    // stack: CF (i32), OF as i64 sign
    b.i64(63n).op('i64.shr_u').op('i32.wrap_i64').i32(11).op('i32.shl').op('i32.or');
    b.get(a)
      .get(other)
      .op('i64.xor')
      .get(r)
      .op('i64.xor')
      .get(w)
      .op('i64.extend_i32_u')
      .op('i64.shr_u')
      .op('i32.wrap_i64')
      .i32(0x10)
      .op('i32.and')
      .op('i32.or');
    finish();
  };
  const isKind = (n: number): void => {
    b.get(k).i32(n).op('i32.eq').if();
  };
  isKind(FLAGS.sub);
  b.get(a).get(r).op('i64.sub').set(other);
  b.get(a).get(other).op('i64.lt_u');
  b.get(a).get(other).op('i64.xor').get(a).get(r).op('i64.xor').op('i64.and');
  carryAndOverflow();
  b.op('end');
  isKind(FLAGS.add);
  b.get(r).get(a).op('i64.sub').set(other);
  b.get(r).get(a).op('i64.lt_u');
  b.get(a).get(r).op('i64.xor').get(other).get(r).op('i64.xor').op('i64.and');
  carryAndOverflow();
  b.op('end');
  isKind(FLAGS.logic);
  b.i32(0);
  finish();
  b.op('end');
  isKind(FLAGS.sbb1);
  b.get(a).get(r).op('i64.sub').get(unit).op('i64.sub').set(other);
  b.get(a).get(other).op('i64.le_u');
  b.get(a).get(other).op('i64.xor').get(a).get(r).op('i64.xor').op('i64.and');
  carryAndOverflow();
  b.op('end');
  isKind(FLAGS.adc1);
  b.get(r).get(a).op('i64.sub').get(unit).op('i64.sub').set(other);
  b.get(r).get(a).op('i64.le_u');
  b.get(a).get(r).op('i64.xor').get(other).get(r).op('i64.xor').op('i64.and');
  carryAndOverflow();
  b.op('end');
  isKind(FLAGS.inc);
  b.get(a).op('i32.wrap_i64').i32(1).op('i32.and');
  b.get(r).i64(SIGN).op('i64.eq').i32(11).op('i32.shl').op('i32.or');
  b.get(low).i32(15).op('i32.and').op('i32.eqz').i32(4).op('i32.shl').op('i32.or');
  finish();
  b.op('end');
  isKind(FLAGS.dec);
  b.get(a).op('i32.wrap_i64').i32(1).op('i32.and');
  b.get(r).i64(SIGN).get(unit).op('i64.sub').op('i64.eq').i32(11).op('i32.shl').op('i32.or');
  b.get(low).i32(15).op('i32.and').i32(15).op('i32.eq').i32(4).op('i32.shl').op('i32.or');
  finish();
  b.op('end');
  // shifts: CF in the sign of A
  b.get(a).i64(63n).op('i64.shr_u').op('i32.wrap_i64');
  isKind(FLAGS.shl);
  b.get(f)
    .get(a)
    .get(r)
    .op('i64.xor')
    .i64(63n)
    .op('i64.shr_u')
    .op('i32.wrap_i64')
    .i32(11)
    .op('i32.shl')
    .op('i32.or')
    .set(f);
  b.op('end');
  isKind(FLAGS.shr);
  b.get(f)
    .get(r)
    .i64(62n)
    .op('i64.shr_u')
    .op('i32.wrap_i64')
    .i32(1)
    .op('i32.and')
    .i32(11)
    .op('i32.shl')
    .op('i32.or')
    .set(f);
  b.op('end');
  b.get(f).op('i32.or');
  return b;
};

/** (): CF. The two commonest kinds first. */
const carryBody = (flags: number): Body => {
  const b = new Body(0);
  const k = b.local(I32);
  kind(b).tee(k).i32(FLAGS.sub).op('i32.eq').if();
  A(b);
  A(b);
  RR(b).op('i64.sub').op('i64.lt_u').op('return').op('end');
  b.get(k).i32(FLAGS.add).op('i32.eq').if();
  RR(b);
  A(b).op('i64.lt_u').op('return').op('end');
  b.get(k).i32(FLAGS.inc).op('i32.ge_u').get(k).i32(FLAGS.dec).op('i32.le_u').op('i32.and').if();
  A(b).op('i32.wrap_i64').i32(1).op('i32.and').op('return').op('end');
  b.call(flags).i32(1).op('i32.and');
  return b;
};

/** (condition): any condition from the materialised flags. */
const conditionBody = (flags: number): Body => {
  const b = new Body(1);
  const f = b.local(I32);
  const v = b.local(I32);
  b.call(flags).set(f);
  const bit = (mask: number): Body => b.get(f).i32(mask).op('i32.and').i32(0).op('i32.ne');
  const less = (): Body => {
    bit(FLAG.sf);
    return bit(FLAG.of).op('i32.xor');
  };
  const tests: (() => Body)[] = [
    () => bit(FLAG.of),
    () => bit(FLAG.cf),
    () => bit(FLAG.zf),
    () => bit(FLAG.cf | FLAG.zf),
    () => bit(FLAG.sf),
    () => bit(FLAG.pf),
    less,
    () => {
      less();
      return bit(FLAG.zf).op('i32.or');
    },
  ];
  tests.forEach((test, i) => {
    b.get(0).i32(1).op('i32.shr_u').i32(i).op('i32.eq').if();
    test().set(v);
    b.op('end');
  });
  b.get(v).get(0).i32(1).op('i32.and').op('i32.xor');
  return b;
};

/** (segment, offset, bytes | write << 8): flat data segments inline, the rest in TypeScript. */
const segmentBody = (segmentSlow: number): Body => {
  const b = new Body(3);
  b.get(0).i32(2).op('i32.shl').mem('i32.load', at(S.segLimit)).i32(-1).op('i32.eq');
  b.get(0)
    .i32(2)
    .op('i32.shl')
    .mem('i32.load', at(S.segAttr))
    .i32(0x1001e)
    .op('i32.and')
    .i32(0x12)
    .op('i32.eq');
  b.op('i32.and').if();
  b.get(0)
    .i32(3)
    .op('i32.shl')
    .mem('i32.load', at(S.segBase))
    .get(1)
    .op('i32.add')
    .op('i64.extend_i32_u')
    .op('return');
  b.op('end');
  b.get(0).get(1).get(2).call(segmentSlow).op('i32.eqz').if();
  b.i64(-1n).op('return').op('end');
  b.i32(0).mem('i64.load', at(S.result));
  return b;
};

/** Stores the RIP of local 0 and the reason, and returns 0. */
const leaveAt = (b: Body, why: number): void => {
  b.i32(0).get(0).mem('i64.store', at(S.rip));
  b.i32(0).i32(why).mem('i32.store', at(S.leave));
  b.i32(0).op('return');
};

/**
 * (rip): `dispatch` behind an instruction that may have changed what is asked for at a boundary: attention, TF, halted,
 * the shadow of STI or MOV SS. Nobody watches a shadow, so where it began is noted; at the next boundary it is over.
 */
const boundaryBody = (dispatch: number): Body => {
  const b = new Body(1);
  b.i32(0).mem('i32.load', at(S.attention));
  b.i32(0).mem('i32.load', at(S.eflags)).i32(FLAG.tf).op('i32.and').op('i32.or');
  b.i32(0).mem('i32.load', at(S.activity)).op('i32.or').if();
  b.i32(0).mem('i32.load', at(S.mode)).i32(64).op('i32.ne').if();
  b.get(0).i64(0xffff_ffffn).op('i64.and').set(0);
  b.op('end');
  leaveAt(b, LEAVE.attention);
  b.op('end');
  b.i32(0).mem('i32.load', at(S.interruptibility)).i32(3).op('i32.and').if();
  b.i32(0).mem('i32.load', at(S.shadowed)).if();
  b.i32(0)
    .i32(0)
    .mem('i32.load', at(S.interruptibility))
    .i32(-4)
    .op('i32.and')
    .mem('i32.store', at(S.interruptibility));
  b.i32(0).i32(0).mem('i32.store', at(S.shadowed));
  b.op('else');
  b.i32(0).i32(0).mem('i32.load', at(S.budget)).i32(1).op('i32.add').mem('i32.store', at(S.shadowed));
  b.op('end').op('end');
  b.get(0).call(dispatch);
  return b;
};

/** (rip): looks the target up in the current exec TLB set and enters its block. */
const dispatchBody = (): Body => {
  const b = new Body(1);
  const lin = b.local(I64);
  const entry = b.local(I32);
  const record = b.local(I32);
  const budget = b.local(I32);
  b.i32(0).mem('i32.load', at(S.mode)).i32(64).op('i32.eq').if();
  b.get(0).set(lin);
  b.op('else');
  b.get(0).i64(0xffff_ffffn).op('i64.and').set(0);
  b.get(0)
    .i32(0)
    .mem('i64.load', at(S.segBase) + 8 * SEG.cs)
    .op('i64.add')
    .i64(0xffff_ffffn)
    .op('i64.and')
    .set(lin);
  b.op('end');
  b.i32(0)
    .mem('i32.load', at(S.tlbExec))
    .get(lin)
    .i64(8n)
    .op('i64.shr_u')
    .op('i32.wrap_i64')
    .i32(TLB_INDEX_MASK)
    .op('i32.and')
    .op('i32.add')
    .tee(entry);
  b.mem('i64.load', 0).get(lin).i64(-4096n).op('i64.and').op('i64.eq').if();
  b.get(entry)
    .mem('i32.load', 8)
    .get(lin)
    .op('i32.wrap_i64')
    .i32(4095)
    .op('i32.and')
    .i32(2)
    .op('i32.shl')
    .op('i32.add')
    .mem('i32.load', 0)
    .tee(record)
    .if();
  b.i32(0)
    .mem('i32.load', at(S.budget))
    .get(record)
    .mem('i32.load8_u', R.count)
    .op('i32.sub')
    .tee(budget)
    .i32(0)
    .op('i32.lt_s')
    .if();
  leaveAt(b, LEAVE.budget);
  b.op('end');
  b.i32(0).get(budget).mem('i32.store', at(S.budget));
  b.i32(0).get(0).get(lin).i64(4095n).op('i64.and').op('i64.sub').mem('i64.store', at(S.pageRip));
  b.get(record).op('return');
  b.op('end');
  b.op('end');
  leaveAt(b, LEAVE.lookup);
  b.i32(0);
  return b;
};

/** A handler's body, for the run loop: emits into `b`, leaves the next record on the stack unless it ends itself. */
export interface Arm {
  readonly index: number;
  readonly emit: (b: Body) => void;
}

const runBody = (type: number, arms: readonly Arm[]): Body => {
  const b = new Body(1);
  const first = arms[0]?.index ?? 0;
  b.loop();
  const top = b.depth;
  b.block();
  const check = b.depth;
  const labels: number[] = [];
  b.block();
  const cold = b.depth;
  for (let i = 0; i < arms.length; i++) {
    b.block();
    labels.unshift(b.depth);
  }
  labels.push(cold);
  b.get(0).mem('i32.load', R.handler).i32(first).op('i32.sub').brTable(labels);
  b.onReturn = () => b.set(0).br(check);
  for (const arm of arms) {
    b.op('end');
    b.reuseLocals();
    arm.emit(b);
    b.set(0).br(top);
  }
  b.onReturn = undefined;
  b.op('end');
  b.get(0).get(0).mem('i32.load', R.handler).callIndirect(type).set(0);
  b.op('end');
  b.get(0).brIf(top);
  b.op('end');
  return b;
};

/**
 * Puts the host functions (imported) and the core functions into a module: every module has its own copies, because a
 * call within a module is cheaper, and all their state is in memory. The first functions of a module, in fixed order.
 */
export const addRuntime = (m: ModuleBuilder): RuntimeIndex => {
  const host = importHost(m);
  const flags = m.function(CORE_FUNCTIONS.flags, flagsBody());
  const dispatch = m.function(CORE_FUNCTIONS.dispatch, dispatchBody());
  return {
    ...host,
    flags,
    dispatch,
    boundary: m.function(CORE_FUNCTIONS.boundary, boundaryBody(dispatch)),
    carry: m.function(CORE_FUNCTIONS.carry, carryBody(flags)),
    condition: m.function(CORE_FUNCTIONS.condition, conditionBody(flags)),
    segment: m.function(CORE_FUNCTIONS.segment, segmentBody(host.segmentSlow)),
  };
};

/** Encodes the core module. Imports: memory, the handler table, host functions; exports `run`. */
export const coreModule = (
  memoryPages: number,
  tableEntries: number,
  arms: readonly Arm[],
): Uint8Array<ArrayBuffer> => {
  const m = new ModuleBuilder();
  m.importMemory(memoryPages);
  m.importTable(tableEntries);
  addRuntime(m);
  const handler = { params: [I32], results: [I32] } as const;
  m.function({ params: [I32], results: [] }, runBody(m.type(handler), arms), 'run');
  return m.encode();
};
