/** Pure verbs as WebAssembly: values of up to 32 bits live zero-extended in an i32, 64 bits in an i64. */
import type { AnyWidth, SimdOp, SimdShift, Width } from '../../isa/verbs.js';
import type { Body, OpName } from '../wasm/encoder.js';
import { LANE, SHUFFLE, SIMD, SIMD_TO_I32, V128_CONST } from './simd.js';
import { type Node, push, type Trace } from './trace.js';

const mask = (b: Body, w: AnyWidth): void => {
  if (w < 32) b.i32(2 ** w - 1).op('i32.and');
};
const typed = (w: AnyWidth, name: string): OpName => `${w === 64 ? 'i64' : 'i32'}.${name}` as OpName;
/** Pushes `n` sign-extended in its container. */
const pushSigned = (b: Body, n: Node): void => {
  push(b, n);
  if (n.w === 8) b.op('i32.extend8_s');
  else if (n.w === 16) b.op('i32.extend16_s');
  else if (n.w === 1) b.i32(31).op('i32.shl').i32(31).op('i32.shr_s');
};
/** Pushes a shift count in the container type of width `w`. */
const pushCount = (b: Body, count: Node, w: AnyWidth): void => {
  push(b, count);
  if (w === 64 && count.w !== 64) b.op('i64.extend_i32_u');
  if (w !== 64 && count.w === 64) b.op('i32.wrap_i64');
};

export class Values {
  readonly t: Trace;
  constructor(t: Trace) {
    this.t = t;
  }
  imm(value: number | bigint, w: AnyWidth): Node {
    return this.t.constant(BigInt(value), w);
  }
  #binary(name: string, a: Node, b: Node, w: AnyWidth, masked: boolean): Node {
    return this.t.node(w, [a, b], (x) => {
      push(x, a);
      push(x, b);
      x.op(typed(a.w, name));
      if (masked) mask(x, w);
    });
  }
  add(a: Node, b: Node): Node {
    return this.#binary('add', a, b, a.w, true);
  }
  sub(a: Node, b: Node): Node {
    return this.#binary('sub', a, b, a.w, true);
  }
  mul(a: Node, b: Node): Node {
    return this.#binary('mul', a, b, a.w, true);
  }
  and(a: Node, b: Node): Node {
    return this.#binary('and', a, b, a.w, false);
  }
  or(a: Node, b: Node): Node {
    return this.#binary('or', a, b, a.w, false);
  }
  xor(a: Node, b: Node): Node {
    return this.#binary('xor', a, b, a.w, false);
  }
  not(a: Node): Node {
    return this.xor(a, this.imm(-1n, a.w));
  }
  neg(a: Node): Node {
    return this.sub(this.imm(0, a.w), a);
  }
  shl(a: Node, count: Node): Node {
    return this.t.node(a.w, [a, count], (x) => {
      push(x, a);
      pushCount(x, count, a.w);
      x.op(typed(a.w, 'shl'));
      mask(x, a.w);
    });
  }
  shr(a: Node, count: Node): Node {
    return this.t.node(a.w, [a, count], (x) => {
      push(x, a);
      pushCount(x, count, a.w);
      x.op(typed(a.w, 'shr_u'));
    });
  }
  sar(a: Node, count: Node): Node {
    return this.t.node(a.w, [a, count], (x) => {
      pushSigned(x, a);
      pushCount(x, count, a.w);
      x.op(typed(a.w, 'shr_s'));
      mask(x, a.w);
    });
  }
  rol(a: Node, count: Node): Node {
    return this.#rotate(a, count, 'rotl', true);
  }
  ror(a: Node, count: Node): Node {
    return this.#rotate(a, count, 'rotr', false);
  }
  #rotate(a: Node, count: Node, name: string, left: boolean): Node {
    if (a.w === 32 || a.w === 64) {
      return this.t.node(a.w, [a, count], (x) => {
        push(x, a);
        pushCount(x, count, a.w);
        x.op(typed(a.w, name));
      });
    }
    const w = a.w;
    const c = this.zext(count.w === 64 ? this.trunc(count, 32) : count, 32);
    const n = this.and(c, this.imm(w - 1, 32));
    const other = this.sub(this.imm(w, 32), n);
    return left ? this.or(this.shl(a, n), this.shr(a, other)) : this.or(this.shr(a, n), this.shl(a, other));
  }
  #compare(name: string, a: Node, b: Node, signed = false): Node {
    return this.t.node(1, [a, b], (x) => {
      if (signed && a.w < 32) {
        pushSigned(x, a);
        pushSigned(x, b);
      } else {
        push(x, a);
        push(x, b);
      }
      x.op(typed(a.w, name));
    });
  }
  eq(a: Node, b: Node): Node {
    return this.#compare('eq', a, b);
  }
  ne(a: Node, b: Node): Node {
    return this.#compare('ne', a, b);
  }
  ltu(a: Node, b: Node): Node {
    return this.#compare('lt_u', a, b);
  }
  leu(a: Node, b: Node): Node {
    return this.#compare('le_u', a, b);
  }
  lts(a: Node, b: Node): Node {
    return this.#compare('lt_s', a, b, true);
  }
  les(a: Node, b: Node): Node {
    return this.#compare('le_s', a, b, true);
  }
  eqz(a: Node): Node {
    return this.t.node(1, [a], (x) => {
      push(x, a);
      x.op(typed(a.w, 'eqz'));
    });
  }
  nez(a: Node): Node {
    return this.ne(a, this.imm(0, a.w));
  }
  zext(a: Node, w: AnyWidth): Node {
    if (w === 128) return this.fromLow(a);
    return this.t.node(w, [a], (x) => {
      push(x, a);
      if (w === 64 && a.w !== 64) x.op('i64.extend_i32_u');
    });
  }
  sext(a: Node, w: AnyWidth): Node {
    return this.t.node(w, [a], (x) => {
      pushSigned(x, a);
      if (w === 64 && a.w !== 64) x.op('i64.extend_i32_s');
      else mask(x, w);
    });
  }
  trunc(a: Node, w: AnyWidth): Node {
    if (a.w === w) return a;
    if (a.w === 128) return this.lane(a, w as Width, 0);
    return this.t.node(w, [a], (x) => {
      push(x, a);
      if (a.w === 64 && w !== 64) x.op('i32.wrap_i64');
      mask(x, w);
    });
  }
  bit(a: Node, position: number): Node {
    return this.t.node(1, [a], (x) => {
      push(x, a);
      if (a.w === 64) x.i64(BigInt(position)).op('i64.shr_u').op('i32.wrap_i64');
      else x.i32(position).op('i32.shr_u');
      x.i32(1).op('i32.and');
    });
  }
  select(c: Node, ifTrue: Node, ifFalse: Node): Node {
    if (ifTrue.w === 128) {
      return this.t.node(128, [c, ifTrue, ifFalse], (x) => {
        push(x, ifTrue);
        push(x, ifFalse);
        push(x, c);
        x.byte(0x1c).byte(1).byte(0x7b);
      });
    }
    return this.t.node(ifTrue.w, [c, ifTrue, ifFalse], (x) => {
      push(x, ifTrue);
      push(x, ifFalse);
      push(x, c);
      x.op('select');
    });
  }
  clz(a: Node): Node {
    return this.t.node(a.w, [a], (x) => {
      push(x, a);
      x.op(typed(a.w, 'clz'));
      if (a.w < 32) x.i32(32 - a.w).op('i32.sub');
    });
  }
  ctz(a: Node): Node {
    return this.t.node(a.w, [a], (x) => {
      push(x, a);
      if (a.w < 32) x.i32(2 ** a.w).op('i32.or');
      x.op(typed(a.w, 'ctz'));
    });
  }
  popcnt(a: Node): Node {
    return this.t.node(a.w, [a], (x) => {
      push(x, a);
      x.op(typed(a.w, 'popcnt'));
    });
  }
  bswap(a: Node): Node {
    if (a.w === 16) return this.rol(a, this.imm(8, 32));
    if (a.w === 32) {
      const even = this.and(this.rol(a, this.imm(8, 32)), this.imm(0x00ff00ff, 32));
      return this.or(even, this.and(this.ror(a, this.imm(8, 32)), this.imm(0xff00ff00, 32)));
    }
    const low = this.bswap(this.trunc(a, 32));
    const high = this.bswap(this.trunc(this.shr(a, this.imm(32, 32)), 32));
    return this.or(this.shl(this.zext(low, 64), this.imm(32, 32)), this.zext(high, 64));
  }
  mulWide(a: Node, b: Node, signed: boolean): readonly [Node, Node] {
    const w = a.w;
    if (w < 64) {
      const x = signed ? this.sext(a, 64) : this.zext(a, 64);
      const y = signed ? this.sext(b, 64) : this.zext(b, 64);
      const p = this.mul(x, y);
      return [this.trunc(p, w), this.trunc(this.shr(p, this.imm(w, 32)), w)];
    }
    const low32 = (n: Node): Node => this.and(n, this.imm(0xffff_ffffn, 64));
    const high32 = (n: Node): Node => this.shr(n, this.imm(32, 32));
    const [al, ah, bl, bh] = [low32(a), high32(a), low32(b), high32(b)];
    const ll = this.mul(al, bl);
    const mid = this.add(this.mul(ah, bl), high32(ll));
    const mid2 = this.add(this.mul(al, bh), low32(mid));
    let high = this.add(this.add(this.mul(ah, bh), high32(mid)), high32(mid2));
    if (signed) {
      const sign = (n: Node): Node => this.sar(n, this.imm(63, 32));
      high = this.sub(this.sub(high, this.and(sign(a), b)), this.and(sign(b), a));
    }
    return [this.mul(a, b), high];
  }
  simd(op: SimdOp, a: Node, b?: Node): Node {
    const scalar = SIMD_TO_I32.has(op);
    return this.t.node(scalar ? 32 : 128, b === undefined ? [a] : [a, b], (x) => {
      push(x, a);
      if (b !== undefined) push(x, b);
      x.simd(SIMD[op]);
    });
  }
  simdShift(op: SimdShift, a: Node, count: Node): Node {
    return this.t.node(128, [a, count], (x) => {
      push(x, a);
      pushCount(x, count, 32);
      x.simd(SIMD[op]);
    });
  }
  shuffle(a: Node, b: Node, lanes: readonly number[]): Node {
    return this.t.node(128, [a, b], (x) => {
      push(x, a);
      push(x, b);
      x.simd(SHUFFLE);
      for (const l of lanes) x.byte(l);
    });
  }
  lane(a: Node, w: Width, index: number): Node {
    return this.t.node(w, [a], (x) => {
      push(x, a);
      x.simd(LANE[w].get).byte(index);
    });
  }
  withLane(a: Node, w: Width, index: number, v: Node): Node {
    return this.t.node(128, [a, v], (x) => {
      push(x, a);
      push(x, v);
      x.simd(LANE[w].set).byte(index);
    });
  }
  fromLow(v: Node): Node {
    if (v.w === 128) return v;
    const w = v.w === 1 ? 8 : v.w;
    return this.t.node(128, [v], (x) => {
      x.simd(V128_CONST);
      for (let i = 0; i < 16; i++) x.byte(0);
      push(x, v);
      x.simd(LANE[w].set).byte(0);
    });
  }
}
