/** The flag verbs as stores to, and reads of, the lazy flag words (`isa/flags.ts`). */
import { FLAGS } from '../../isa/flags.js';
import { S } from '../../isa/state.js';
import type { Condition, FlagVerbs } from '../../isa/verbs.js';
import { type Body, I32, I64 } from '../wasm/encoder.js';
import { at } from './core-module.js';
import type { RuntimeIndex } from './runtime.js';
import { type Node, push } from './trace.js';
import type { Values } from './values.js';

const LOG2: Readonly<Record<number, number>> = { 8: 0, 16: 1, 32: 2, 64: 3 };

/** Pushes `n` left-justified in an i64. */
const pushLeft = (b: Body, n: Node): void => {
  push(b, n);
  if (n.w === 64) return;
  b.op('i64.extend_i32_u')
    .i64(BigInt(64 - n.w))
    .op('i64.shl');
};

/** Bit of `kind` in this set: the comparison formulas of `sub` hold (logic keeps A = R). */
const COMPARES = (1 << FLAGS.sub) | (1 << FLAGS.logic);

export class FlagTracer implements FlagVerbs<Node> {
  readonly #v: Values;
  readonly #fn: RuntimeIndex;
  constructor(v: Values, fn: RuntimeIndex) {
    this.#v = v;
    this.#fn = fn;
  }
  #store(kind: number | ((b: Body) => void), args: readonly Node[], a: (b: Body) => void, r: Node): void {
    const width = (LOG2[r.w] ?? 0) << 8;
    this.#v.t.do([...args, r], (b) => {
      // values first: they may read the old words
      const la = b.local(I64);
      a(b);
      b.set(la);
      b.i32(0);
      if (typeof kind === 'number') b.i32(kind | width);
      else {
        kind(b);
        b.i32(width).op('i32.or');
      }
      b.mem('i32.store', at(S.flagKind));
      b.i32(0).get(la).mem('i64.store', at(S.flagA));
      b.i32(0);
      pushLeft(b, r);
      b.mem('i64.store', at(S.flagR));
    });
  }
  add(a: Node, r: Node): void {
    this.#store(FLAGS.add, [a], (b) => pushLeft(b, a), r);
  }
  sub(a: Node, r: Node): void {
    this.#store(FLAGS.sub, [a], (b) => pushLeft(b, a), r);
  }
  adc(a: Node, r: Node, cin: Node): void {
    this.#store(
      (b) => {
        b.i32(FLAGS.adc1).i32(FLAGS.add);
        push(b, cin);
        b.op('select');
      },
      [a, cin],
      (b) => pushLeft(b, a),
      r,
    );
  }
  sbb(a: Node, r: Node, cin: Node): void {
    this.#store(
      (b) => {
        b.i32(FLAGS.sbb1).i32(FLAGS.sub);
        push(b, cin);
        b.op('select');
      },
      [a, cin],
      (b) => pushLeft(b, a),
      r,
    );
  }
  logic(r: Node): void {
    this.#store(FLAGS.logic, [r], (b) => pushLeft(b, r), r);
  }
  inc(r: Node): void {
    this.#store(FLAGS.inc, [], (b) => b.call(this.#fn.carry).op('i64.extend_i32_u'), r);
  }
  dec(r: Node): void {
    this.#store(FLAGS.dec, [], (b) => b.call(this.#fn.carry).op('i64.extend_i32_u'), r);
  }
  #shift(kind: number, r: Node, out: Node): void {
    this.#store(
      kind,
      [out],
      (b) => {
        push(b, out);
        b.op('i64.extend_i32_u').i64(63n).op('i64.shl');
      },
      r,
    );
  }
  shl(r: Node, out: Node): void {
    this.#shift(FLAGS.shl, r, out);
  }
  shr(r: Node, out: Node): void {
    this.#shift(FLAGS.shr, r, out);
  }
  sar(r: Node, out: Node): void {
    this.#shift(FLAGS.sar, r, out);
  }
  set(flags: {
    readonly cf?: Node;
    readonly pf?: Node;
    readonly af?: Node;
    readonly zf?: Node;
    readonly sf?: Node;
    readonly of?: Node;
  }): void {
    const parts: [Node, number][] = [];
    const take = (n: Node | undefined, bit: number): void => {
      if (n !== undefined) parts.push([n, bit]);
    };
    take(flags.cf, 0);
    take(flags.pf, 2);
    take(flags.af, 4);
    take(flags.zf, 6);
    take(flags.sf, 7);
    take(flags.of, 11);
    const cleared = parts.reduce((m, [, bit]) => m & ~(1 << bit), 0x8d5);
    this.#v.t.do(
      parts.map(([n]) => n),
      (b) => {
        const f = b.local(I32);
        b.call(this.#fn.flags).i32(cleared).op('i32.and');
        for (const [n, bit] of parts) {
          push(b, n);
          b.i32(bit).op('i32.shl').op('i32.or');
        }
        b.set(f);
        this.#explicit(b, f);
      },
    );
  }
  #explicit(b: Body, f: number): void {
    b.i32(0).i32(FLAGS.explicit).mem('i32.store', at(S.flagKind));
    b.i32(0).get(f).op('i64.extend_i32_u').mem('i64.store', at(S.flagA));
    b.i32(0)
      .get(f)
      .i32(0x40)
      .op('i32.and')
      .op('i32.eqz')
      .op('i64.extend_i32_u')
      .mem('i64.store', at(S.flagR));
  }
  setAll(v: Node): void {
    this.#v.t.do([v], (b) => {
      const f = b.local(I32);
      push(b, v);
      b.i32(0x8d5).op('i32.and').set(f);
      this.#explicit(b, f);
    });
  }
  all(): Node {
    return this.#v.t.node(32, [], (b) => b.call(this.#fn.flags), 'read');
  }
  cf(): Node {
    return this.#v.t.node(1, [], (b) => b.call(this.#fn.carry), 'read');
  }
  cond(c: Condition): Node {
    return this.#v.t.node(1, [], (b) => this.#pushCondition(b, c), 'read');
  }
  #pushCondition(b: Body, c: Condition): void {
    const negate = (): void => {
      if ((c & 1) !== 0) b.op('i32.eqz');
    };
    const r = (): Body => b.i32(0).mem('i64.load', at(S.flagR));
    const a = (): Body => b.i32(0).mem('i64.load', at(S.flagA));
    const stem = c >> 1;
    if (stem === 2) {
      r().op('i64.eqz');
      negate();
      return;
    }
    if (stem === 4) {
      // SF: R < 0, but bit 7 of A for explicit flags
      r().i64(63n).op('i64.shr_u').op('i32.wrap_i64');
      a().i64(7n).op('i64.shr_u').op('i32.wrap_i64').i32(1).op('i32.and');
      b.i32(0).mem('i32.load8_u', at(S.flagKind)).op('select');
      negate();
      return;
    }
    if (stem !== 1 && stem !== 3 && stem !== 6 && stem !== 7) {
      b.i32(c).call(this.#fn.condition);
      return;
    }
    b.i32(COMPARES).i32(0).mem('i32.load8_u', at(S.flagKind)).op('i32.shr_u').i32(1).op('i32.and').if(I32);
    a();
    a();
    r().op('i64.sub');
    b.op(stem === 1 ? 'i64.lt_u' : stem === 3 ? 'i64.le_u' : stem === 6 ? 'i64.lt_s' : 'i64.le_s');
    negate();
    b.op('else').i32(c).call(this.#fn.condition).op('end');
  }
}
