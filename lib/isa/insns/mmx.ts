/**
 * MMX instructions, those of SSE and SSE2 on MMX registers included.
 *
 * SDM volume 1, "Programming with Intel MMX Technology". The 64-bit registers are worked on as the low halves of
 * vectors. Each instruction but EMMS marks all x87 registers valid and makes R0 the top (helpers `mmxWrite`, `mmxTouch`).
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Operand, Ops } from '../verbs.js';
import { LANE_OPERATIONS, PACKS, SHIFTS, shiftLanes, UNPACKS, type VectorOp } from './sse-int.js';
import { chooseWords, interleave, vector } from './vectors.js';

const put = <V>(o: Ops<V>, d: Operand<V>, v: V): void => {
  o.call('mmxWrite', [d.index(), v]);
};
/** The low half of a vector operation on two MMX operands. */
const two =
  (f: VectorOp): Sem =>
  (o, d, s) => {
    const b = s.read();
    put(o, d, o.lane(f(o, o.fromLow(d.read()), o.fromLow(b)), 64, 0));
  };
/** `source`: bits read of the second operand; unpacks of low halves read 32. */
const unpack =
  (bytes: number, high: boolean): Sem =>
  (o, d, s) => {
    const b = o.fromLow(high ? s.read() : s.read(32));
    const mixed = o.shuffle(o.fromLow(d.read()), b, interleave(bytes, false));
    put(o, d, o.lane(mixed, 64, high ? 1 : 0));
  };

const row = (name: string, forms: readonly string[], sem: Sem, feature = 'mmx'): InsnRow => ({
  name,
  forms,
  sdm: name.toUpperCase(),
  sem,
  unit: 'mmx',
  feature,
});

const wordPosition = <V>(o: Ops<V>, imm: V): V => o.shl(o.and(o.zext(imm, 32), o.imm(3, 32)), o.imm(4, 32));

export const MMX_ROWS: readonly InsnRow[] = [
  ...LANE_OPERATIONS.map(([opcode, name, f, sse]) =>
    row(
      name,
      [`np 0f ${opcode} /r Pq,Qq`],
      two(f),
      sse ? 'sse' : /^(paddq|psubq|pmuludq)$/.test(name) ? 'sse2' : 'mmx',
    ),
  ),
  ...PACKS.map(([opcode, name, op]) =>
    row(name, [`np 0f ${opcode} /r Pq,Qq`], (o, d, s) => {
      const both = vector(o, d.read(), s.read());
      put(o, d, o.lane(o.simd(op, both, both), 64, 0));
    }),
  ),
  ...UNPACKS.map(([opcode, name, bytes, high]) =>
    row(name, [`np 0f ${opcode} /r Pq,${high ? 'Qq' : 'Qd'}`], unpack(bytes, high)),
  ),
  ...SHIFTS.map(([name, op, width, opcode]) =>
    row(name, [`np 0f ${opcode} /r Pq,Qq`], (o, d, s) => {
      const count = s.read();
      put(o, d, o.lane(shiftLanes(o, op, width, o.fromLow(d.read()), count), 64, 0));
    }),
  ),
  ...SHIFTS.map(([name, op, width, , group]) =>
    row(name, [`np 0f ${group}:reg ib Nq,Ib`], (o, d, imm) =>
      put(o, d, o.lane(shiftLanes(o, op, width, o.fromLow(d.read()), o.zext(imm.read(8), 64)), 64, 0)),
    ),
  ),
  row('movd', ['np 0f 6e /r Pq,Ey'], (o, d, s) => put(o, d, o.zext(s.read(), 64))),
  row('movd', ['np 0f 7e /r Ey,Pq'], (o, d, s) => {
    d.write(o.trunc(s.read(), d.w));
    o.call('mmxTouch');
  }),
  row('movq', ['np 0f 6f /r Pq,Qq'], (o, d, s) => put(o, d, s.read())),
  row('movq', ['np 0f 7f /r Qq,Pq'], (o, d, s) => {
    if (d.kind === 'mmx') put(o, d, s.read());
    else {
      d.write(s.read());
      o.call('mmxTouch');
    }
  }),
  row(
    'movntq',
    ['np 0f e7 /r:mem Mq,Pq'],
    (o, d, s) => {
      d.write(s.read());
      o.call('mmxTouch');
    },
    'sse',
  ),
  row(
    'maskmovq',
    ['np 0f f7 /r:reg Pq,Nq'],
    (o, v, m) => {
      const at = o.linear(o.dataSegment, o.reg(7, o.aw), 8, 'write');
      o.call('maskMove', [at, v.read(), o.imm(0n, 64), m.read(), o.imm(0n, 64)]);
      o.call('mmxTouch');
    },
    'sse',
  ),
  row(
    'pmovmskb',
    ['np 0f d7 /r:reg Gd,Nq'],
    (o, d, s) => {
      d.write(o.simd('i8x16.bitmask', o.fromLow(s.read())));
      o.call('mmxTouch');
    },
    'sse',
  ),
  row(
    'pextrw',
    ['np 0f c5 /r:reg ib Gd,Nq,Ib'],
    (o, d, s, imm) => {
      d.write(o.and(o.trunc(o.shr(s.read(), wordPosition(o, imm.read(8))), 32), o.imm(0xffff, 32)));
      o.call('mmxTouch');
    },
    'sse',
  ),
  row(
    'pinsrw',
    ['np 0f c4 /r ib Pq,Rd/Mw,Ib'],
    (o, d, s, imm) => {
      const word = o.zext(s.read(16), 64);
      const at = wordPosition(o, imm.read(8));
      put(o, d, o.or(o.and(d.read(), o.not(o.shl(o.imm(0xffffn, 64), at))), o.shl(word, at)));
    },
    'sse',
  ),
  row(
    'pshufw',
    ['np 0f 70 /r ib Pq,Qq,Ib'],
    (o, d, s, imm) =>
      put(
        o,
        d,
        o.lane(
          o.simd('i8x16.swizzle', o.fromLow(s.read()), o.fromLow(chooseWords(o, imm.read(8), 0n))),
          64,
          0,
        ),
      ),
    'sse',
  ),
  row('emms', ['np 0f 77'], (o) => {
    o.call('emms');
  }),
];
