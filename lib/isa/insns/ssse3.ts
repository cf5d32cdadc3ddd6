/**
 * SSSE3: horizontal integer additions, signs, absolute values, byte shuffles and alignment, on XMM and MMX registers.
 *
 * SDM volume 1, "SSSE3 Instructions". An operation on MMX registers is done in the low halves of vectors; the
 * horizontal ones take both operands as the two halves of one vector.
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Ops, SimdOp } from '../verbs.js';
import type { VectorOp } from './sse-int.js';
import { BYTE_NUMBERS, constant, lanesOf, splatByte, vector, zeroVector } from './vectors.js';

const splat = <V>(o: Ops<V>, byte: number): V => {
  const half = BigInt(byte) * 0x0101_0101_0101_0101n;
  return constant(o, half, half);
};

const horizontal = (op: SimdOp, bytes: 2 | 4): VectorOp => {
  const even = Array.from({ length: 16 / bytes }, (_, i) => 2 * i);
  const evens = lanesOf(bytes, even);
  const odds = lanesOf(
    bytes,
    even.map((lane) => lane + 1),
  );
  return (o, a, b) => o.simd(op, o.shuffle(a, b, evens), o.shuffle(a, b, odds));
};
type Shape = 'i8x16' | 'i16x8' | 'i32x4';
/** a, -a or 0, by the sign of b. */
const sign =
  (shape: Shape): VectorOp =>
  (o, a, b) => {
    const zero = zeroVector(o);
    const negative = o.simd(`${shape}.gt_s`, zero, b);
    const signed = o.simd(`${shape}.sub`, o.simd('v128.xor', a, negative), negative);
    return o.simd('v128.andnot', signed, o.simd(`${shape}.eq`, b, zero));
  };
const absolute =
  (shape: Shape): VectorOp =>
  (o, _a, b) =>
    o.simd(`${shape}.abs`, b);
/** Unsigned bytes times signed bytes, neighbouring products added with saturation. */
const multiplyAdd: VectorOp = (o, a, b) => {
  const eight = o.imm(8, 32);
  const low = constant(o, 0x00ff_00ff_00ff_00ffn, 0x00ff_00ff_00ff_00ffn);
  const even = o.simd(
    'i16x8.mul',
    o.simd('v128.and', a, low),
    o.simdShift('i16x8.shr_s', o.simdShift('i16x8.shl', b, eight), eight),
  );
  const odd = o.simd('i16x8.mul', o.simdShift('i16x8.shr_u', a, eight), o.simdShift('i16x8.shr_s', b, eight));
  return o.simd('i16x8.add_sat_s', even, odd);
};
/** Rounded high parts; -1 times -1 wraps, where WebAssembly saturates. */
const multiplyRound: VectorOp = (o, a, b) => {
  const least = constant(o, 0x8000_8000_8000_8000n, 0x8000_8000_8000_8000n);
  const wraps = o.simd('v128.and', o.simd('i16x8.eq', a, least), o.simd('i16x8.eq', b, least));
  return o.simd('v128.xor', o.simd('i16x8.q15mulr_sat_s', a, b), wraps);
};

/** How the MMX form gets its 64 bits from the vector operation. */
type Halves = 'lanes' | 'joined';
const OPERATIONS: readonly (readonly [opcode: string, name: string, op: VectorOp, halves: Halves])[] = [
  ['01', 'phaddw', horizontal('i16x8.add', 2), 'joined'],
  ['02', 'phaddd', horizontal('i32x4.add', 4), 'joined'],
  ['03', 'phaddsw', horizontal('i16x8.add_sat_s', 2), 'joined'],
  ['04', 'pmaddubsw', multiplyAdd, 'lanes'],
  ['05', 'phsubw', horizontal('i16x8.sub', 2), 'joined'],
  ['06', 'phsubd', horizontal('i32x4.sub', 4), 'joined'],
  ['07', 'phsubsw', horizontal('i16x8.sub_sat_s', 2), 'joined'],
  ['08', 'psignb', sign('i8x16'), 'lanes'],
  ['09', 'psignw', sign('i16x8'), 'lanes'],
  ['0a', 'psignd', sign('i32x4'), 'lanes'],
  ['0b', 'pmulhrsw', multiplyRound, 'lanes'],
  ['1c', 'pabsb', absolute('i8x16'), 'lanes'],
  ['1d', 'pabsw', absolute('i16x8'), 'lanes'],
  ['1e', 'pabsd', absolute('i32x4'), 'lanes'],
];

/** Bit 7 of a byte clears, the low bits (3 or 4) choose: out of range for the WebAssembly operator is the former. */
const shuffleBytes =
  (mask: 0x87 | 0x8f): VectorOp =>
  (o, a, b) =>
    o.simd('i8x16.swizzle', a, o.simd('v128.and', b, splat(o, mask)));

/** The bytes of `high`:`low`, each of `size` bytes, from byte `imm` on. */
const align = <V>(o: Ops<V>, high: V, low: V, size: 8 | 16, imm: V): V => {
  const by = o.simd('i8x16.min_u', splatByte(o, imm), splat(o, 32));
  const from = o.simd('i8x16.add', constant(o, BYTE_NUMBERS[0], BYTE_NUMBERS[1]), by);
  if (size === 8) return o.simd('i8x16.swizzle', vector(o, o.lane(low, 64, 0), o.lane(high, 64, 0)), from);
  const upper = o.simd('i8x16.swizzle', high, o.simd('i8x16.sub', from, splat(o, 16)));
  return o.simd('v128.or', o.simd('i8x16.swizzle', low, from), upper);
};

const xmm =
  (f: VectorOp): Sem =>
  (o, d, s) => {
    const b = s.read();
    d.write(f(o, d.read(), b));
  };
const mmx =
  (f: VectorOp, halves: Halves): Sem =>
  (o, d, s) => {
    const b = s.read();
    const both = vector(o, d.read(), b);
    const r = halves === 'joined' ? f(o, both, both) : f(o, o.fromLow(d.read()), o.fromLow(b));
    o.call('mmxWrite', [d.index(), o.lane(r, 64, 0)]);
  };

const pair = (
  name: string,
  map: string,
  opcode: string,
  imm: string,
  xmmSem: Sem,
  mmxSem: Sem,
): InsnRow[] => {
  const common = { name, sdm: name.toUpperCase(), feature: 'ssse3' };
  const rest = imm === '' ? ['/r', ''] : ['/r ib', ',Ib'];
  return [
    {
      ...common,
      forms: [`66 ${map} ${opcode} ${rest[0]} Vx,Wx${rest[1]}`],
      sem: xmmSem,
      unit: 'sse',
      aligned: true,
    },
    { ...common, forms: [`np ${map} ${opcode} ${rest[0]} Pq,Qq${rest[1]}`], sem: mmxSem, unit: 'mmx' },
  ];
};

export const SSSE3_ROWS: readonly InsnRow[] = [
  ...OPERATIONS.flatMap(([opcode, name, f, halves]) =>
    pair(name, '0f 38', opcode, '', xmm(f), mmx(f, halves)),
  ),
  ...pair('pshufb', '0f 38', '00', '', xmm(shuffleBytes(0x8f)), mmx(shuffleBytes(0x87), 'lanes')),
  ...pair(
    'palignr',
    '0f 3a',
    '0f',
    'ib',
    (o, d, s, imm) => {
      const low = s.read();
      d.write(align(o, d.read(), low, 16, imm.read(8)));
    },
    (o, d, s, imm) => {
      const low = o.fromLow(s.read());
      const r = align(o, o.fromLow(d.read()), low, 8, imm.read(8));
      o.call('mmxWrite', [d.index(), o.lane(r, 64, 0)]);
    },
  ),
];
