/**
 * The verbs of an instruction, executed at once: what the reference engine and the hypervisor's emulator run `sem` on.
 *
 * The state, the memory and the helpers are given as an `Environment`, so that the same semantics work on the processor
 * itself or on a copy of a guest's registers with the hypervisor's view of its memory. Leaving an instruction is a
 * thrown private singleton (`LEAVING`) that never gets past `executeInsn`. SDM volume 2, "Instruction Set Reference".
 */
import { InvariantError } from '../base/error.js';
import { arithmeticFlags, FLAGS } from '../isa/flags.js';
import type { Insn } from '../isa/rows.js';
import { FLAG, GPR, LEAVE, S, SEG } from '../isa/state.js';
import type { AnyWidth, Condition, FlagVerbs, Operand, Ops, Width } from '../isa/verbs.js';
import { LEFT } from '../memory/access.js';
import { divideWide, type Value, ValueVerbs, value } from './reference-values.js';

/**
 * Memory by linear address, as `bytes` little-endian bytes (1, 2, 4, 8 or 16). `stack`: the address was made through SS,
 * so a non-canonical one is #SS and not #GP.
 */
export interface MemoryPort {
  /** The value, or LEFT with a fault or exit recorded. */
  load(linear: bigint, bytes: number, stack: boolean): bigint | typeof LEFT;
  /** False with a fault or exit recorded, and nothing written. */
  store(linear: bigint, bytes: number, v: bigint, stack: boolean): boolean;
  /** Reads, and writes back what `change` makes of it; gives what was read. Leaves before it calls `change` or never. */
  rmw(linear: bigint, bytes: number, change: (old: bigint) => bigint, stack: boolean): bigint | typeof LEFT;
}

/** The architectural state by offset (`S`): a `Cpu`, or a `StateBlock` of its own. */
export interface InsnState {
  get32(offset: number): number;
  set32(offset: number, v: number): void;
  get64(offset: number): bigint;
  set64(offset: number, v: bigint): void;
  gpr(i: number): bigint;
  setGpr(i: number, v: bigint): void;
}

export interface Environment {
  readonly state: InsnState;
  readonly memory: MemoryPort;
  /** Runs the helper of that name (arguments in `S.arg`, results in `S.result`); false when it recorded an event. */
  helper(name: string): boolean;
  /** Linear address through a segment outside 64-bit mode, or a negative number with a fault recorded. */
  segment(seg: number, offset: number, bytes: number, write: boolean): number;
}

/** Records a fault in the state, as `Cpu.fault` does. */
export const recordFault = (state: InsnState, vector: number, code: number): void => {
  state.set32(S.leave, LEAVE.fault);
  state.set32(S.faultVector, vector);
  state.set32(S.faultCode, code);
  state.set64(S.faultAddress, 0n);
};

export class Leaving {
  readonly why: 'event' | 'budget';
  constructor(why: 'event' | 'budget') {
    this.why = why;
  }
}
export const LEAVING = { event: new Leaving('event'), budget: new Leaving('budget') } as const;

const LOG2: Readonly<Record<number, number>> = { 8: 0, 16: 1, 32: 2, 64: 3 };
const left = (a: Value): bigint => a.v << BigInt(64 - a.w);
const FLAG_BITS = { cf: FLAG.cf, pf: FLAG.pf, af: FLAG.af, zf: FLAG.zf, sf: FLAG.sf, of: FLAG.of } as const;

class ReferenceFlags implements FlagVerbs<Value> {
  readonly #state: InsnState;
  constructor(state: InsnState) {
    this.#state = state;
  }
  #keep(kind: number, a: bigint, r: Value): void {
    this.#state.set32(S.flagKind, kind | (LOG2[r.w] << 8));
    this.#state.set64(S.flagA, a);
    this.#state.set64(S.flagR, left(r));
  }
  #all(): number {
    const s = this.#state;
    return arithmeticFlags(s.get32(S.flagKind), s.get64(S.flagA), s.get64(S.flagR));
  }
  #explicit(bits: number): void {
    this.#state.set32(S.flagKind, FLAGS.explicit);
    this.#state.set64(S.flagA, BigInt(bits));
    this.#state.set64(S.flagR, (bits & FLAG.zf) !== 0 ? 0n : 1n);
  }
  add(a: Value, r: Value): void {
    this.#keep(FLAGS.add, left(a), r);
  }
  adc(a: Value, r: Value, cin: Value): void {
    this.#keep(cin.v !== 0n ? FLAGS.adc1 : FLAGS.add, left(a), r);
  }
  sub(a: Value, r: Value): void {
    this.#keep(FLAGS.sub, left(a), r);
  }
  sbb(a: Value, r: Value, cin: Value): void {
    this.#keep(cin.v !== 0n ? FLAGS.sbb1 : FLAGS.sub, left(a), r);
  }
  logic(r: Value): void {
    this.#keep(FLAGS.logic, left(r), r);
  }
  inc(r: Value): void {
    this.#keep(FLAGS.inc, BigInt(this.#all() & 1), r);
  }
  dec(r: Value): void {
    this.#keep(FLAGS.dec, BigInt(this.#all() & 1), r);
  }
  shl(r: Value, out: Value): void {
    this.#keep(FLAGS.shl, out.v << 63n, r);
  }
  shr(r: Value, out: Value): void {
    this.#keep(FLAGS.shr, out.v << 63n, r);
  }
  sar(r: Value, out: Value): void {
    this.#keep(FLAGS.sar, out.v << 63n, r);
  }
  set(flags: Parameters<FlagVerbs<Value>['set']>[0]): void {
    let bits = this.#all();
    for (const name of ['cf', 'pf', 'af', 'zf', 'sf', 'of'] as const) {
      const v = flags[name];
      if (v !== undefined) bits = (bits & ~FLAG_BITS[name]) | (v.v !== 0n ? FLAG_BITS[name] : 0);
    }
    this.#explicit(bits);
  }
  setAll(v: Value): void {
    this.#explicit(Number(v.v & 0x8d5n));
  }
  all(): Value {
    return value(BigInt(this.#all()), 32);
  }
  cf(): Value {
    return value(BigInt(this.#all() & FLAG.cf), 1);
  }
  cond(c: Condition): Value {
    const f = this.#all();
    const has = (bits: number): boolean => (f & bits) !== 0;
    const less = has(FLAG.sf) !== has(FLAG.of);
    const stems = [
      has(FLAG.of),
      has(FLAG.cf),
      has(FLAG.zf),
      has(FLAG.cf | FLAG.zf),
      has(FLAG.sf),
      has(FLAG.pf),
      less,
      less || has(FLAG.zf),
    ];
    return value(stems[c >> 1] !== ((c & 1) !== 0) ? 1n : 0n, 1);
  }
}

export class ReferenceOps extends ValueVerbs implements Ops<Value> {
  readonly env: Environment;
  readonly insn: Insn;
  readonly flags: FlagVerbs<Value>;
  /** RIP of the next instruction in sequence. */
  readonly following: bigint;
  /** The linear address last made went through SS. */
  #stack = false;

  constructor(env: Environment, insn: Insn) {
    super();
    this.env = env;
    this.insn = insn;
    this.flags = new ReferenceFlags(env.state);
    this.following = env.state.get64(S.nextRip);
  }
  get w(): Width {
    return this.insn.w;
  }
  get aw(): 16 | 32 | 64 {
    return this.insn.aw;
  }
  get mode(): 16 | 32 | 64 {
    return this.insn.mode;
  }
  get lock(): boolean {
    return this.insn.lock;
  }
  get rep(): 'none' | 'rep' | 'repne' {
    return this.insn.rep;
  }
  get dataSegment(): number {
    return this.insn.dataSegment;
  }
  override imm(v: number | bigint, w: AnyWidth = this.insn.w): Value {
    return value(BigInt(v), w);
  }

  divide(hi: Value, lo: Value, d: Value, asSigned: boolean): readonly [Value, Value] {
    const r = divideWide(hi, lo, d, asSigned);
    if (r === undefined) return this.#raise(0);
    return r;
  }

  reg(r: number, w: Width = this.insn.w): Value {
    return value(this.env.state.gpr(r), w);
  }
  setReg(r: number, v: Value): void {
    const { state } = this.env;
    if (v.w >= 32) state.setGpr(r, v.v);
    else state.setGpr(r, ((state.gpr(r) >> BigInt(v.w)) << BigInt(v.w)) | v.v);
  }
  state(offset: number, w: 32 | 64): Value {
    return w === 32
      ? value(BigInt(this.env.state.get32(offset)), 32)
      : value(this.env.state.get64(offset), 64);
  }
  setState(offset: number, v: Value): void {
    if (v.w === 64) this.env.state.set64(offset, v.v);
    else this.env.state.set32(offset, Number(BigInt.asUintN(32, v.v)));
  }

  load(linear: Value, w: AnyWidth): Value {
    const v = this.env.memory.load(linear.v, w / 8, this.#stack);
    if (v === LEFT) throw LEAVING.event;
    return value(v as bigint, w);
  }
  store(linear: Value, v: Value): void {
    if (!this.env.memory.store(linear.v, v.w / 8, v.v, this.#stack)) throw LEAVING.event;
  }
  readModifyWrite(linear: Value, w: AnyWidth, f: (old: Value) => Value): Value {
    const old = this.env.memory.rmw(linear.v, w / 8, (v) => f(value(v, w)).v, this.#stack);
    if (old === LEFT) throw LEAVING.event;
    return value(old as bigint, w);
  }
  linear(seg: number, ea: Value, bytes: number, access: 'read' | 'write'): Value {
    this.#stack = seg === SEG.ss;
    if (this.insn.mode === 64) {
      const base = seg === SEG.fs || seg === SEG.gs ? this.env.state.get64(S.segBase + 8 * seg) : 0n;
      return value(base + ea.v, 64);
    }
    const linear = this.env.segment(seg, Number(BigInt.asUintN(32, ea.v)), bytes, access === 'write');
    if (linear < 0) throw LEAVING.event;
    return value(BigInt(linear), 64);
  }

  /** Stack address size as an operand of `linear`. */
  #stackPointer(delta: number): Value {
    const size = this.env.state.get32(S.stackSize) as 16 | 32 | 64;
    return value(this.env.state.gpr(GPR.rsp) + BigInt(delta), size);
  }
  push(v: Value): void {
    const sp = this.#stackPointer(-v.w / 8);
    this.store(this.linear(SEG.ss, sp, v.w / 8, 'write'), v);
    this.setReg(GPR.rsp, sp);
  }
  pop(w: Width): { readonly value: Value; commit(extra?: Value): void } {
    const sp = this.#stackPointer(0);
    const v = this.load(this.linear(SEG.ss, sp, w / 8, 'read'), w);
    const commit = (extra?: Value): void =>
      this.setReg(GPR.rsp, value(sp.v + BigInt(w / 8) + (extra?.v ?? 0n), sp.w));
    return { value: v, commit };
  }

  when(c: Value, f: () => void): void {
    if (c.v !== 0n) f();
  }
  jump(target: Value): void {
    this.env.state.set64(S.nextRip, this.#checkedTarget(target.v));
  }
  branch(rel: Operand<Value>, c?: Value): void {
    if (c !== undefined && c.v === 0n) return;
    const target = this.following + BigInt.asIntN(rel.w, rel.read().v);
    this.env.state.set64(S.nextRip, this.#checkedTarget(target));
  }
  #checkedTarget(target: bigint): bigint {
    const { mode, w } = this.insn;
    const rip = BigInt.asUintN(mode === 64 ? w : w === 16 ? 16 : 32, target);
    const bad =
      mode === 64
        ? BigInt.asUintN(64, BigInt.asIntN(48, rip)) !== rip
        : rip > BigInt(this.env.state.get32(S.segLimit + 4 * SEG.cs));
    return bad ? this.#raise(13, 0) : rip;
  }
  nextRip(): Value {
    return value(this.following, 64);
  }
  #raise(vector: number, code = -1): never {
    recordFault(this.env.state, vector, code);
    throw LEAVING.event;
  }
  fault(vector: number, code = -1): void {
    this.#raise(vector, code);
  }
  call(helper: string, args: readonly Value[] = [], results: 0 | 1 | 2 | 3 | 4 = 0): readonly Value[] {
    const { state } = this.env;
    if (args.length > 8) throw new InvariantError(`helper ${helper} is given ${args.length} arguments`);
    // A vector takes the place of two arguments.
    args.forEach((a, i) => {
      state.set64(S.arg + 8 * i, BigInt.asUintN(64, a.v));
      if (a.w === 128) state.set64(S.arg + 8 * i + 8, a.v >> 64n);
    });
    if (!this.env.helper(helper)) throw LEAVING.event;
    return Array.from({ length: results }, (_, i) => value(state.get64(S.result + 8 * i), 64));
  }
  repeat(body: () => Value | undefined, _bulk?: string): void {
    if (this.insn.rep === 'none') {
      body();
      return;
    }
    const { state } = this.env;
    const count = (): Value => this.reg(GPR.rcx, this.insn.aw);
    if (count().v === 0n) return;
    for (;;) {
      if ((state.get32(S.budget) | 0) <= 0) throw LEAVING.budget;
      const again = body();
      const rest = value(count().v - 1n, this.insn.aw);
      this.setReg(GPR.rcx, rest);
      if (rest.v === 0n || (again !== undefined && again.v === 0n)) return;
      state.set32(S.budget, (state.get32(S.budget) | 0) - 1);
    }
  }
}
