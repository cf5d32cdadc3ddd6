/**
 * Operands of a decoded instruction for the reference engine: register, memory and immediate, read and written at once.
 *
 * SDM volume 1, "Operand Addressing". AH, CH, DH and BH are registers with `high`; a write of 32 bits to a general
 * register clears its upper half, narrower writes keep it. System registers have a number only: instruction rows reach
 * them through helpers.
 */
import { InvariantError } from '../base/error.js';
import type { InsnOperand, MemoryOperand } from '../isa/rows.js';
import { S } from '../isa/state.js';
import type { AnyWidth, Operand } from '../isa/verbs.js';
import type { ReferenceOps } from './reference-ops.js';
import { type Value, value } from './reference-values.js';

/** Offset of a memory operand in its segment, truncated to the address size. */
export const effectiveAddress = (o: ReferenceOps, mem: MemoryOperand): bigint => {
  const { state } = o.env;
  if (mem.moffs !== undefined) return mem.moffs;
  let ea = BigInt(mem.disp);
  if (mem.base >= 0) ea += state.gpr(mem.base);
  else if (mem.base === -2) ea += o.following;
  if (mem.index >= 0) ea += state.gpr(mem.index) << BigInt(mem.scale);
  return BigInt.asUintN(o.aw, ea);
};

abstract class Base implements Operand<Value> {
  abstract readonly kind: Operand<Value>['kind'];
  readonly o: ReferenceOps;
  readonly w: AnyWidth;
  constructor(o: ReferenceOps, w: AnyWidth) {
    this.o = o;
    this.w = w;
  }
  #no(what: string): never {
    throw new InvariantError(`${this.o.insn.row.name}: a ${this.kind} operand has no ${what}`);
  }
  read(_w?: AnyWidth): Value {
    return this.#no('value');
  }
  write(_v: Value): void {
    this.#no('place for a value');
  }
  rmw(f: (old: Value) => Value): Value {
    const old = this.read();
    this.write(f(old));
    return old;
  }
  ea(): Value {
    return this.#no('address');
  }
  linear(_bytes: number, _access: 'read' | 'write'): Value {
    return this.#no('address');
  }
  at(_offset: Value): Operand<Value> {
    return this.#no('address');
  }
  index(): Value {
    return this.#no('number');
  }
  selector(): Value {
    return this.#no('selector');
  }
}

/** General, vector and MMX registers, which hold values. */
class Register extends Base {
  readonly kind: 'reg' | 'xmm' | 'mmx';
  readonly number: number;
  readonly high: boolean;
  constructor(o: ReferenceOps, kind: 'reg' | 'xmm' | 'mmx', w: AnyWidth, number: number, high: boolean) {
    super(o, w);
    this.kind = kind;
    this.number = number;
    this.high = high;
  }
  override read(w: AnyWidth = this.w): Value {
    const { state } = this.o.env;
    if (this.kind === 'reg') return value(state.gpr(this.number) >> (this.high ? 8n : 0n), w);
    if (this.kind === 'mmx') return value(state.get64(S.x87 + 16 * this.number), w);
    const at = S.xmm + 16 * this.number;
    return value((state.get64(at + 8) << 64n) | state.get64(at), w);
  }
  override write(v: Value): void {
    const { o } = this;
    const { state } = o.env;
    if (this.kind === 'reg') {
      if (this.high) state.setGpr(this.number, (state.gpr(this.number) & ~0xff00n) | (v.v << 8n));
      else o.setReg(this.number, v);
      return;
    }
    // A value narrower than a vector register replaces its low part.
    const at = this.kind === 'mmx' ? S.x87 + 16 * this.number : S.xmm + 16 * this.number;
    if (v.w < 64) state.set64(at, ((state.get64(at) >> BigInt(v.w)) << BigInt(v.w)) | v.v);
    else state.set64(at, BigInt.asUintN(64, v.v));
    if (v.w === 128) state.set64(at + 8, v.v >> 64n);
  }
  override index(): Value {
    return value(BigInt(this.number), 32);
  }
}

/** Segment, control, debug and x87 registers. */
class SystemRegister extends Base {
  readonly kind: 'seg' | 'cr' | 'dr' | 'st';
  readonly number: number;
  constructor(o: ReferenceOps, kind: 'seg' | 'cr' | 'dr' | 'st', w: AnyWidth, number: number) {
    super(o, w);
    this.kind = kind;
    this.number = number;
  }
  override read(w: AnyWidth = this.w): Value {
    if (this.kind !== 'seg') return super.read(w);
    return value(BigInt(this.o.env.state.get32(S.segSel + 4 * this.number)), w);
  }
  override index(): Value {
    return value(BigInt(this.number), 32);
  }
}

class Memory extends Base {
  readonly kind = 'mem';
  readonly mem: MemoryOperand;
  readonly offset: bigint;
  constructor(o: ReferenceOps, w: AnyWidth, mem: MemoryOperand, offset = 0n) {
    super(o, w);
    this.mem = mem;
    this.offset = offset;
  }
  #at(w: AnyWidth, access: 'read' | 'write'): Value {
    const linear = this.linear(w / 8, access);
    if (w === 128 && this.o.insn.row.aligned === true && (linear.v & 15n) !== 0n) this.o.fault(13, 0);
    return linear;
  }
  override read(w: AnyWidth = this.w): Value {
    return this.o.load(this.#at(w, 'read'), w);
  }
  override write(v: Value): void {
    this.o.store(this.#at(v.w, 'write'), v);
  }
  override rmw(f: (old: Value) => Value): Value {
    return this.o.readModifyWrite(this.#at(this.w, 'write'), this.w, f);
  }
  override ea(): Value {
    return value(effectiveAddress(this.o, this.mem) + this.offset, this.o.aw);
  }
  override at(offset: Value): Operand<Value> {
    return new Memory(this.o, this.w, this.mem, this.offset + offset.v);
  }
  override linear(bytes: number, access: 'read' | 'write'): Value {
    return this.o.linear(this.mem.seg, this.ea(), bytes, access);
  }
}

class Constant extends Base {
  readonly kind: 'imm' | 'rel' | 'far';
  readonly number: bigint;
  readonly segment: number;
  constructor(o: ReferenceOps, kind: 'imm' | 'rel' | 'far', w: AnyWidth, number: bigint, segment = 0) {
    super(o, w);
    this.kind = kind;
    this.number = number;
    this.segment = segment;
  }
  /** The value of an immediate, the displacement of a `rel`, the offset of a `far` pointer. */
  override read(w: AnyWidth = this.w): Value {
    return value(this.number, w);
  }
  override selector(): Value {
    return this.kind === 'far' ? value(BigInt(this.segment), 16) : super.selector();
  }
}

/** What the semantics of an instruction see of one of its operands. */
export const operandOf = (o: ReferenceOps, op: InsnOperand): Operand<Value> => {
  switch (op.kind) {
    case 'reg':
      return new Register(o, 'reg', op.w, op.index, op.high === true);
    case 'xmm':
    case 'mmx':
      return new Register(o, op.kind, op.w, op.index, false);
    case 'mem':
      if (o.insn.mem === undefined)
        throw new InvariantError(`${o.insn.row.name} was decoded without an address`);
      return new Memory(o, op.w, o.insn.mem);
    case 'imm':
      return new Constant(o, 'imm', op.w, op.value);
    case 'rel':
      return new Constant(o, 'rel', op.w, BigInt(op.value));
    case 'far':
      return new Constant(o, 'far', op.w, BigInt(op.offset), op.selector);
    default:
      return new SystemRegister(o, op.kind, op.w, op.index);
  }
};
