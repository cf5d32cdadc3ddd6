/** DIV and IDIV: 64-bit WebAssembly division where the dividend fits, a helper for true 128-bit dividends. */
import { S } from '../../isa/state.js';
import { type Body, I64 } from '../wasm/encoder.js';
import { at } from './core-module.js';
import { leaveHandler, noteRecord } from './memory-verbs.js';
import type { RuntimeIndex } from './runtime.js';
import { type Node, push } from './trace.js';
import type { Tracer } from './tracer.js';

const MIN64 = -(1n << 63n);

/** @param helper number of 'divide128': args lo, hi, d, signed; results quotient, remainder */
export const emitDivide = (
  o: Tracer,
  fn: RuntimeIndex,
  helper: number,
  hi: Node,
  lo: Node,
  d: Node,
  signed: boolean,
): readonly [Node, Node] => {
  const w = lo.w as 8 | 16 | 32 | 64;
  const wide = (n: Node): Node => (w === 64 ? n : signed ? o.sext(n, 64) : o.zext(n, 64));
  const divisor = wide(d);
  const low = w === 64 ? lo : o.zext(lo, 64);
  const high = w === 64 ? hi : signed ? o.sext(hi, 64) : o.zext(hi, 64);
  const dividend = w === 64 ? low : o.or(o.shl(high, o.imm(w, 32)), low);
  let ql = -1;
  let rl = -1;
  const fault = (b: Body): void => {
    b.if();
    noteRecord(b);
    b.i32(0).i32(-1).call(fn.fault);
    leaveHandler(b);
    b.op('end');
  };
  o.noteRip();
  const run = o.t.node(
    32,
    [divisor, dividend, high],
    (b) => {
      ql = b.local(I64);
      rl = b.local(I64);
      const n = b.local(I64);
      const dv = b.local(I64);
      push(b, divisor);
      b.tee(dv).op('i64.eqz');
      fault(b);
      push(b, dividend);
      b.set(n);
      if (w === 64) {
        // the dividend fits in 64 bits, and MIN / -1 cannot happen
        if (signed) {
          push(b, high);
          b.get(n).i64(63n).op('i64.shr_s').op('i64.eq').get(n).i64(MIN64).op('i64.ne').op('i32.and');
        } else {
          push(b, high);
          b.op('i64.eqz');
        }
        b.if();
      } else if (signed) {
        b.get(n).i64(MIN64).op('i64.eq');
        fault(b);
      }
      b.get(n)
        .get(dv)
        .op(signed ? 'i64.div_s' : 'i64.div_u')
        .set(ql);
      b.get(n)
        .get(dv)
        .op(signed ? 'i64.rem_s' : 'i64.rem_u')
        .set(rl);
      if (w < 64) {
        if (signed) {
          const shift = BigInt(64 - w);
          b.get(ql).get(ql).i64(shift).op('i64.shl').i64(shift).op('i64.shr_s').op('i64.ne');
        } else
          b.get(ql)
            .i64((1n << BigInt(w)) - 1n)
            .op('i64.gt_u');
        fault(b);
      } else {
        b.op('else');
        noteRecord(b);
        b.i32(0).get(n).mem('i64.store', at(S.arg));
        b.i32(0);
        push(b, high);
        b.mem('i64.store', at(S.arg) + 8);
        b.i32(0)
          .get(dv)
          .mem('i64.store', at(S.arg) + 16);
        b.i32(0)
          .i64(signed ? 1n : 0n)
          .mem('i64.store', at(S.arg) + 24);
        b.i32(helper).call(fn.helper).op('i32.eqz').if();
        leaveHandler(b);
        b.op('end');
        b.i32(0).mem('i64.load', at(S.result)).set(ql);
        b.i32(0)
          .mem('i64.load', at(S.result) + 8)
          .set(rl);
        b.op('end');
      }
      b.i32(0);
    },
    'effect',
  );
  const pick = (which: () => number): Node =>
    o.t.node(w, [run], (b) => {
      b.get(which());
      if (w < 64) {
        b.op('i32.wrap_i64');
        if (w < 32) b.i32(2 ** w - 1).op('i32.and');
      }
    });
  return [pick(() => ql), pick(() => rl)];
};
