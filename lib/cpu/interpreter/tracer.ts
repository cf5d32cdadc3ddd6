/**
 * The verbs (`isa/verbs.ts`) as statements of a handler in WebAssembly.
 *
 * A handler gets its record's address as parameter 0 and returns the next record, or 0 after it has left.
 */

import type { Insn } from '../../isa/rows.js';
import { LEAVE, S, SEG } from '../../isa/state.js';
import type { AnyWidth, Operand, Ops, Width } from '../../isa/verbs.js';
import { type Body, I32, I64 } from '../wasm/encoder.js';
import { at } from './core-module.js';
import { emitDivide } from './divide.js';
import { FlagTracer } from './flag-verbs.js';
import { leaveHandler, MemoryVerbs, noteRecord, pushLoad, pushStore, STACK_ACCESS } from './memory-verbs.js';
import { R, RECORD_BYTES } from './record.js';
import type { RuntimeIndex } from './runtime.js';
import { type Node, push, Trace } from './trace.js';
import { Values } from './values.js';

/** Numbers of the bulk helpers of string instructions. */
export const BULK = { bulkMovs: 0, bulkStos: 1 } as const;

export class Tracer extends Values implements Ops<Node> {
  readonly w: Width;
  readonly aw: 16 | 32 | 64;
  readonly mode: 16 | 32 | 64;
  readonly lock: boolean;
  readonly rep: 'none' | 'rep' | 'repne';
  readonly dataSegment: number;
  readonly flags: FlagTracer;
  readonly memory: MemoryVerbs;
  /** Control left for another block: the block must end with this instruction. */
  jumps = false;
  /** Addresses made through SS: non-canonical ones are #SS. */
  readonly #throughStack = new WeakSet<Node>();
  readonly #fn: RuntimeIndex;
  readonly #helper: (name: string) => number;

  constructor(insn: Insn, fn: RuntimeIndex, helper: (name: string) => number) {
    super(new Trace());
    this.w = insn.w;
    this.aw = insn.aw;
    this.mode = insn.mode;
    this.lock = insn.lock;
    this.rep = insn.rep;
    this.dataSegment = insn.dataSegment;
    this.#fn = fn;
    this.#helper = helper;
    this.flags = new FlagTracer(this, fn);
    this.memory = new MemoryVerbs(this.t, fn);
  }
  override imm(value: number | bigint, w: AnyWidth = this.w): Node {
    return super.imm(value, w);
  }

  // ---- registers and state
  reg(r: number, w: Width = this.w): Node {
    return this.t.node(
      w,
      [],
      (b) => {
        b.i32(0);
        pushLoad(b, w, at(S.gpr) + 8 * r);
      },
      'read',
    );
  }
  setReg(r: number, v: Node): void {
    this.t.do([v], (b) => {
      b.i32(0);
      push(b, v);
      if (v.w === 32) b.op('i64.extend_i32_u');
      pushStore(b, v.w === 32 ? 64 : v.w, at(S.gpr) + 8 * r);
    });
  }
  state(offset: number, w: 32 | 64): Node {
    return this.t.node(
      w,
      [],
      (b) => {
        b.i32(0);
        pushLoad(b, w, at(offset));
      },
      'read',
    );
  }
  setState(offset: number, v: Node): void {
    this.t.do([v], (b) => {
      b.i32(0);
      push(b, v);
      pushStore(b, v.w < 32 ? 32 : v.w, at(offset));
    });
  }

  // ---- memory
  load(linear: Node, w: AnyWidth): Node {
    return this.memory.load(linear, w, this.#throughStack.has(linear) ? STACK_ACCESS : 0);
  }
  store(linear: Node, v: Node): void {
    this.memory.store(linear, v, this.#throughStack.has(linear) ? STACK_ACCESS : 0);
  }
  linear(seg: number, ea: Node, bytes: number, access: 'read' | 'write'): Node {
    if (this.mode !== 64) return this.segmentLinear(seg, ea, bytes, access === 'write');
    const wide = this.zext(ea, 64);
    if (seg === SEG.ss) this.#throughStack.add(wide);
    return seg === SEG.fs || seg === SEG.gs ? this.add(wide, this.state(S.segBase + 8 * seg, 64)) : wide;
  }
  /** Legacy segmentation: checked, 32-bit linear address in 64 bits. */
  segmentLinear(seg: number, ea: Node, bytes: number, write: boolean): Node {
    return this.t.node(
      64,
      [ea],
      (b) => {
        const lin = b.local(I64);
        noteRecord(b);
        b.i32(seg);
        push(b, ea);
        b.i32(bytes | (write ? 0x100 : 0))
          .call(this.#fn.segment)
          .tee(lin)
          .i64(-1n)
          .op('i64.eq')
          .if();
        leaveHandler(b);
        b.op('end').get(lin);
      },
      'effect',
    );
  }
  #stackPointer(): Node {
    if (this.mode === 64) return this.reg(4, 64);
    const esp = this.reg(4, 32);
    return this.select(
      this.eq(this.state(S.stackSize, 32), this.imm(16, 32)),
      this.and(esp, this.imm(0xffff, 32)),
      esp,
    );
  }
  #moveStackPointer(sp: Node): void {
    if (this.mode === 64) {
      this.setReg(4, sp);
      return;
    }
    const wide = this.reg(4, 32);
    const low = this.or(this.and(wide, this.imm(0xffff_0000, 32)), this.and(sp, this.imm(0xffff, 32)));
    this.setReg(4, this.select(this.eq(this.state(S.stackSize, 32), this.imm(16, 32)), low, sp));
  }
  #wrapStack(sp: Node): Node {
    return this.mode === 64
      ? sp
      : this.select(
          this.eq(this.state(S.stackSize, 32), this.imm(16, 32)),
          this.and(sp, this.imm(0xffff, 32)),
          sp,
        );
  }
  push(v: Node): void {
    const bytes = v.w / 8;
    const sp = this.#stackPointer();
    const top = this.#wrapStack(this.sub(sp, this.imm(bytes, sp.w)));
    const lin = this.linear(SEG.ss, top, bytes, 'write');
    this.memory.store(lin, v, STACK_ACCESS);
    this.#moveStackPointer(top);
  }
  pop(w: Width): { readonly value: Node; commit(extra?: Node): void } {
    const sp = this.#stackPointer();
    const lin = this.linear(SEG.ss, sp, w / 8, 'read');
    const value = this.memory.load(lin, w, STACK_ACCESS);
    return {
      value,
      commit: (extra) => {
        let next = this.add(sp, this.imm(w / 8, sp.w));
        if (extra !== undefined)
          next = this.add(
            next,
            extra.w === sp.w ? extra : extra.w < sp.w ? this.zext(extra, sp.w) : this.trunc(extra, sp.w),
          );
        this.#moveStackPointer(next);
      },
    };
  }

  // ---- division
  divide(hi: Node, lo: Node, d: Node, signed: boolean): readonly [Node, Node] {
    return emitDivide(this, this.#fn, this.#helper('divide128'), hi, lo, d, signed);
  }

  // ---- control
  when(c: Node, f: () => void): void {
    const body = this.t.nested(f);
    this.t.do([c], (b) => {
      push(b, c);
      b.if();
      body(b);
      b.op('end');
    });
  }
  /** Pushes the RIP of an offset from the page start, cut to 32 bits outside 64-bit mode. */
  #pushRip(b: Body, offset: () => void): void {
    b.i32(0).mem('i64.load', at(S.pageRip));
    offset();
    b.op('i64.add');
    if (this.mode !== 64) b.i64(0xffff_ffffn).op('i64.and');
  }
  #pushNextOffset(b: Body): void {
    b.get(0)
      .mem('i32.load16_u', R.offset)
      .i32(4095)
      .op('i32.and')
      .get(0)
      .mem('i32.load16_u', R.offset)
      .i32(12)
      .op('i32.shr_u')
      .op('i32.add');
  }
  nextRip(): Node {
    return this.t.node(
      64,
      [],
      (b) =>
        this.#pushRip(b, () => {
          this.#pushNextOffset(b);
          b.op('i64.extend_i32_u');
        }),
      'read',
    );
  }
  jump(target: Node): void {
    this.jumps = true;
    let to = target;
    if (to.w !== 64) to = this.zext(to, 64);
    this.t.do([to], (b) => {
      const rip = b.local(I64);
      push(b, to);
      b.set(rip);
      if (this.mode === 64) {
        b.get(rip).get(rip).i64(16n).op('i64.shl').i64(16n).op('i64.shr_s').op('i64.ne');
      } else {
        b.get(rip)
          .i32(0)
          .mem('i64.load32_u', at(S.segLimit) + 4 * SEG.cs)
          .op('i64.gt_u');
      }
      b.if();
      noteRecord(b);
      b.i32(13).i32(0).call(this.#fn.fault);
      leaveHandler(b);
      b.op('end');
      b.get(rip).call(this.#fn.dispatch).op('return');
    });
  }
  branch(_rel: Operand<Node>, c?: Node): void {
    this.jumps = true;
    this.t.do(c === undefined ? [] : [c], (b) => {
      if (c !== undefined) {
        push(b, c);
        b.if();
      }
      const short = this.mode !== 64 && this.w === 16;
      this.#follow(b, R.taken, short, () => b.get(0).mem('i64.load32_s', R.disp));
      if (c !== undefined) b.op('end');
    });
  }
  /** Goes on with the next instruction through its link: the end of a block without a jump, and branches not taken. */
  fallThrough(): void {
    this.t.do([], (b) => {
      this.#follow(b, R.next, false, () => {
        this.#pushNextOffset(b);
        b.op('i64.extend_i32_u');
      });
    });
  }
  /**
   * Enters the linked block, or looks the target up and links it when it lies in this page.
   * @param short a 16-bit operand size cuts the target; it is then not linked
   */
  #follow(b: Body, link: number, short: boolean, pushOffset: () => void): void {
    const next = b.local(I32);
    const budget = b.local(I32);
    const offset = b.local(I64);
    const linkable = !short;
    if (linkable) {
      b.get(0).mem('i32.load', link).tee(next).if();
      b.i32(0)
        .mem('i32.load', at(S.budget))
        .get(next)
        .mem('i32.load8_u', R.count)
        .op('i32.sub')
        .tee(budget)
        .i32(0)
        .op('i32.ge_s')
        .if();
      b.i32(0).get(budget).mem('i32.store', at(S.budget)).get(next).op('return');
      b.op('end');
      this.#leaveAt(b, LEAVE.budget, pushOffset);
      b.op('end');
    }
    pushOffset();
    b.set(offset);
    this.#pushRip(b, () => b.get(offset));
    if (short) b.i64(0xffffn).op('i64.and');
    b.call(this.#fn.dispatch).tee(next);
    if (linkable) {
      b.op('i32.eqz').i32(1).op('i32.xor').get(offset).i64(4096n).op('i64.lt_u').op('i32.and').if();
      b.get(0).get(next).mem('i32.store', link);
      b.op('end').get(next);
    }
    b.op('return');
  }
  #leaveAt(b: Body, why: number, pushOffset: () => void): void {
    b.i32(0);
    this.#pushRip(b, pushOffset);
    b.mem('i64.store', at(S.rip));
    b.i32(0).i32(why).mem('i32.store', at(S.leave));
    leaveHandler(b);
  }
  /** Leaves with RIP at this instruction: the budget ended before it, or the record is stale. */
  leaveHere(b: Body, why: number): void {
    this.#leaveAt(b, why, () => this.#pushOffset(b));
  }
  #pushOffset(b: Body): void {
    b.get(0).mem('i32.load16_u', R.offset).i32(4095).op('i32.and').op('i64.extend_i32_u');
  }
  stop(why: number): void {
    this.t.do([], (b) => {
      noteRecord(b);
      this.leaveHere(b, why);
    });
  }
  /** Gives the block's instructions back and looks its address up again. */
  enterAgain(): void {
    this.t.do([], (b) => {
      b.i32(0).i32(0).mem('i32.load', at(S.budget)).get(0).mem('i32.load8_u', R.count).op('i32.add');
      b.mem('i32.store', at(S.budget));
      this.#pushRip(b, () => this.#pushOffset(b));
      b.call(this.#fn.dispatch).op('return');
    });
  }
  fault(vector: number, code = -1): void {
    this.t.do([], (b) => {
      noteRecord(b);
      b.i32(vector).i32(code).call(this.#fn.fault);
      leaveHandler(b);
    });
  }
  /** Notes RIP and the next RIP in the state, for helpers. */
  noteRip(): void {
    this.t.do([], (b) => {
      b.i32(0);
      this.#pushRip(b, () => this.#pushOffset(b));
      b.mem('i64.store', at(S.rip)).i32(0);
      this.#pushRip(b, () => {
        this.#pushNextOffset(b);
        b.op('i64.extend_i32_u');
      });
      b.mem('i64.store', at(S.nextRip));
    });
  }
  call(helper: string, args: readonly Node[] = [], results: 0 | 1 | 2 | 3 | 4 = 0): readonly Node[] {
    const id = this.#helper(helper);
    this.noteRip();
    this.t.do(args, (b) => {
      noteRecord(b);
      args.forEach((a, i) => {
        b.i32(0);
        push(b, a);
        if (a.w === 128) b.v128Store(at(S.arg) + 8 * i);
        else {
          if (a.w !== 64) b.op('i64.extend_i32_u');
          b.mem('i64.store', at(S.arg) + 8 * i);
        }
      });
      b.i32(id).call(this.#fn.helper).op('i32.eqz').if();
      leaveHandler(b);
      b.op('end');
    });
    const out: Node[] = [];
    for (let i = 0; i < results; i++) out.push(this.state(S.result + 8 * i, 64));
    return out;
  }
  repeat(body: () => Node | undefined, bulk?: string): void {
    if (this.rep === 'none') {
      body();
      return;
    }
    let again: Node | undefined;
    const w = this.aw;
    const bulkNumber = bulk === undefined ? -1 : (BULK as Readonly<Record<string, number>>)[bulk];
    // statements of one iteration; they end with the new count in rCX
    const once = this.t.nested(() => {
      again = body();
      if (again !== undefined) again.uses++;
    });
    const count = this.t.nested(() => this.setReg(1, this.sub(this.reg(1, w), this.imm(1, w))));
    this.t.do([], (b) => {
      const pushCount = (): void => {
        b.i32(0);
        pushLoad(b, w, at(S.gpr) + 8);
        if (w !== 64) b.op('i64.extend_i32_u');
      };
      b.block();
      const done = b.depth;
      pushCount();
      b.op('i64.eqz').brIf(done);
      b.loop();
      const top = b.depth;
      b.block();
      const iterated = b.depth;
      if (bulkNumber >= 0) {
        pushCount();
        b.i64(4n).op('i64.ge_u').if();
        noteRecord(b);
        b.i32(bulkNumber).i32(this.w).call(this.#fn.bulk).brIf(iterated);
        b.op('end');
      }
      once(b);
      count(b);
      if (again !== undefined) {
        push(b, again);
        b.op('i32.eqz').brIf(done);
      }
      b.op('end');
      pushCount();
      b.op('i64.eqz').brIf(done);
      b.i32(0).mem('i32.load', at(S.budget)).op('i32.eqz').if();
      this.leaveHere(b, LEAVE.budget);
      b.op('end');
      b.i32(0).i32(0).mem('i32.load', at(S.budget)).i32(1).op('i32.sub').mem('i32.store', at(S.budget));
      b.br(top);
      b.op('end');
      b.op('end');
    });
  }
  /** Ends the handler by going to the record behind this one. */
  endSequential(b: Body): void {
    b.get(0).i32(RECORD_BYTES).op('i32.add');
  }
  /** Ends the handler of an `ends` row: continues at `S.nextRip`. */
  endDispatch(b: Body): void {
    b.i32(0).mem('i64.load', at(S.nextRip)).call(this.#fn.boundary);
  }
}
export const HANDLER_SIGNATURE = { params: [I32], results: [I32] } as const;
