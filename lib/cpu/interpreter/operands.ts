/** Operands of a handler: where the record says that a register, an address or an immediate is. */
import { InvariantError } from '../../base/error.js';
import type { Insn, InsnOperand } from '../../isa/rows.js';
import { S, SEG } from '../../isa/state.js';
import type { AnyWidth, Operand } from '../../isa/verbs.js';
import { at } from './core-module.js';
import { ALIGNED_ACCESS, type MemoryVerbs, pushLoad, pushStore, STACK_ACCESS } from './memory-verbs.js';
import { R } from './record.js';
import { type Node, push, type Trace } from './trace.js';
import type { Tracer } from './tracer.js';

/** Record field that holds the n-th register operand: the third goes where the base register would be. */
export const REGISTER_FIELDS = [R.r0, R.r1, R.base] as const;

/** What an operand kind does not offer: a row that asks for it is wrong, and does not build. */
abstract class OperandBase implements Operand<Node> {
  abstract readonly kind: Operand<Node>['kind'];
  abstract readonly w: AnyWidth;
  #refuse(what: string): never {
    throw new InvariantError(`a ${this.kind} operand has no ${what}`);
  }
  read(_w?: AnyWidth): Node {
    return this.#refuse('direct value');
  }
  write(_v: Node): void {
    this.#refuse('direct write');
  }
  rmw(_f: (old: Node) => Node): Node {
    return this.#refuse('direct write');
  }
  ea(): Node {
    return this.#refuse('address');
  }
  linear(_bytes: number, _access: 'read' | 'write'): Node {
    return this.#refuse('address');
  }
  at(_offset: Node): Operand<Node> {
    return this.#refuse('address');
  }
  index(): Node {
    return this.#refuse('register number');
  }
  selector(): Node {
    return this.#refuse('selector');
  }
}

/** Reads `w` bits of the state at an address that a record field holds (or at a constant address). */
const registerAddress = (field: number | undefined, constant: number) =>
  field === undefined ? { load: constant } : { field };

export class RegisterOperand extends OperandBase {
  readonly kind: 'reg' | 'xmm' | 'mmx';
  readonly w: AnyWidth;
  readonly #t: Trace;
  readonly #where: { load?: number; field?: number };
  readonly #fixedIndex: number;
  readonly #base: number;
  readonly #stride: number;
  constructor(t: Trace, op: InsnOperand & { kind: 'reg' | 'xmm' | 'mmx' }, field: number | undefined) {
    super();
    this.#t = t;
    this.kind = op.kind;
    this.w = op.w;
    const bank = op.kind === 'reg' ? S.gpr : op.kind === 'xmm' ? S.xmm : S.x87;
    this.#stride = op.kind === 'reg' ? 8 : 16;
    this.#base = at(bank);
    this.#fixedIndex = op.index;
    this.#where = registerAddress(
      field,
      at(bank) + this.#stride * op.index + (op.kind === 'reg' && op.high === true ? 1 : 0),
    );
  }
  override read(w: AnyWidth = this.w): Node {
    return this.#t.node(
      w,
      [],
      (b) => {
        if (this.#where.field === undefined) {
          b.i32(0);
          pushLoad(b, w, this.#where.load);
        } else {
          b.get(0).mem('i32.load16_u', this.#where.field);
          pushLoad(b, w);
        }
      },
      'read',
    );
  }
  override write(v: Node): void {
    this.#t.do([v], (b) => {
      const fixed = this.#where.field === undefined;
      if (fixed) b.i32(0);
      else b.get(0).mem('i32.load16_u', this.#where.field!);
      push(b, v);
      let w = v.w;
      if (w === 32 && this.kind === 'reg') {
        b.op('i64.extend_i32_u');
        w = 64;
      }
      pushStore(b, w, fixed ? this.#where.load : 0);
    });
  }
  override rmw(f: (old: Node) => Node): Node {
    const old = this.read();
    this.write(f(old));
    return old;
  }
  override index(): Node {
    if (this.#where.field === undefined) return this.#t.constant(BigInt(this.#fixedIndex), 32);
    const shift = this.#stride === 8 ? 3 : 4;
    return this.#t.node(
      32,
      [],
      (b) => {
        b.get(0)
          .mem('i32.load16_u', this.#where.field!)
          .i32(this.#base)
          .op('i32.sub')
          .i32(shift)
          .op('i32.shr_u');
      },
      'read',
    );
  }
}

/** Segment, control, debug and x87 stack registers: only their number is known; `st` has no direct value. */
export class NumberOperand extends OperandBase {
  readonly kind: 'seg' | 'cr' | 'dr' | 'st';
  readonly w: AnyWidth;
  readonly #t: Trace;
  readonly #field: number | undefined;
  readonly #fixed: number;
  constructor(t: Trace, op: InsnOperand & { kind: 'seg' | 'cr' | 'dr' | 'st' }, field: number | undefined) {
    super();
    this.#t = t;
    this.kind = op.kind;
    this.w = op.w;
    this.#field = field;
    this.#fixed = op.index;
  }
  override index(): Node {
    const field = this.#field;
    if (field === undefined) return this.#t.constant(BigInt(this.#fixed), 32);
    return this.#t.node(32, [], (b) => b.get(0).mem('i32.load16_u', field), 'read');
  }
  /** Segment registers read as their selector. */
  override read(w: AnyWidth = 16): Node {
    if (this.kind !== 'seg') return super.read();
    const index = this.index();
    const value = this.#t.node(
      32,
      [index],
      (b) => {
        push(b, index);
        b.i32(2).op('i32.shl').mem('i32.load', at(S.segSel));
      },
      'read',
    );
    return this.#t.node(w, [value], (b) => {
      push(b, value);
      if (w === 64) b.op('i64.extend_i32_u');
    });
  }
}

export class ImmediateOperand extends OperandBase {
  readonly kind: 'imm' | 'rel' | 'far';
  readonly w: AnyWidth;
  readonly #t: Trace;
  readonly #at: number;
  readonly #fixed: bigint | undefined;
  constructor(t: Trace, op: InsnOperand & { kind: 'imm' | 'rel' | 'far' }, second: boolean) {
    super();
    this.#t = t;
    this.kind = op.kind;
    this.w = op.w;
    this.#at = second ? R.disp : R.imm;
    this.#fixed = op.kind === 'imm' && op.fixed === true ? op.value : undefined;
  }
  override read(w: AnyWidth = this.w): Node {
    if (this.#fixed !== undefined) return this.#t.constant(this.#fixed, w);
    return this.#t.node(
      w,
      [],
      (b) => {
        b.get(0);
        pushLoad(b, w, this.#at);
      },
      'read',
    );
  }
  override selector(): Node {
    return this.#t.node(16, [], (b) => b.get(0).mem('i32.load16_u', R.disp), 'read');
  }
  override index(): Node {
    return this.read(32);
  }
}

export class MemoryOperandVerbs extends OperandBase {
  readonly kind = 'mem';
  readonly w: AnyWidth;
  readonly #t: Trace;
  readonly #o: Tracer;
  readonly #m: MemoryVerbs;
  readonly #insn: Insn;
  readonly #flags: number;
  #ea: Node | undefined;
  /** Displacement given by `at`. */
  #offset: Node | undefined;
  constructor(t: Trace, o: Tracer, m: MemoryVerbs, insn: Insn, op: InsnOperand & { kind: 'mem' }) {
    super();
    this.#t = t;
    this.#o = o;
    this.#m = m;
    this.#insn = insn;
    this.w = op.w;
    this.#flags =
      (insn.mem?.seg === SEG.ss ? STACK_ACCESS : 0) |
      (insn.row.aligned === true && op.w === 128 ? ALIGNED_ACCESS : 0);
  }
  /** 64-bit sum of base, scaled index and displacement, cut to the address size. */
  override ea(): Node {
    if (this.#ea !== undefined) return this.#ea;
    const { aw, mem } = this.#insn;
    const full = this.#t.node(
      64,
      [],
      (b) => {
        if (mem?.moffs !== undefined) {
          b.get(0).mem('i64.load', R.imm);
          return;
        }
        b.get(0).mem('i32.load16_u', R.base).mem('i64.load', 0);
        if (mem !== undefined && mem.index >= 0) {
          b.get(0).mem('i32.load16_u', R.index).mem('i64.load', 0);
          b.get(0).mem('i64.load8_u', R.scale).op('i64.shl').op('i64.add');
        }
        b.get(0).mem('i64.load32_s', R.disp).op('i64.add');
      },
      'read',
    );
    const moved = this.#offset === undefined ? full : this.#o.add(full, this.#o.sext(this.#offset, 64));
    this.#ea =
      aw === 64
        ? moved
        : this.#t.node(aw, [moved], (b) => {
            push(b, moved);
            b.op('i32.wrap_i64');
            if (aw === 16) b.i32(0xffff).op('i32.and');
          });
    return this.#ea;
  }
  override at(offset: Node): Operand<Node> {
    const there = new MemoryOperandVerbs(this.#t, this.#o, this.#m, this.#insn, {
      kind: 'mem',
      w: this.w as 8 | 16 | 32 | 64 | 128,
    });
    there.#offset = offset;
    return there;
  }
  override linear(bytes: number, access: 'read' | 'write'): Node {
    const ea = this.ea();
    if (this.#insn.mode !== 64)
      return this.#o.segmentLinear(this.#insn.mem?.seg ?? SEG.ds, ea, bytes, access === 'write');
    const wide = this.#o.zext(ea, 64);
    const seg = this.#insn.mem?.seg ?? SEG.ds;
    if (seg !== SEG.fs && seg !== SEG.gs) return wide;
    return this.#o.add(wide, this.#o.state(S.segBase + 8 * seg, 64));
  }
  override read(w: AnyWidth = this.w): Node {
    return this.#m.load(this.linear(w / 8, 'read'), w, this.#flags);
  }
  override write(v: Node): void {
    this.#m.store(this.linear(v.w / 8, 'write'), v, this.#flags);
  }
  override rmw(f: (old: Node) => Node): Node {
    const access = this.#m.modify(this.linear(this.w / 8, 'write'), this.w, this.#flags);
    access.store(f(access.old));
    return access.old;
  }
  override selector(): Node {
    const ea = this.linear(this.w / 8 + 2, 'read');
    return this.#m.load(this.#o.add(ea, this.#t.constant(BigInt(this.w / 8), 64)), 16, this.#flags);
  }
}
