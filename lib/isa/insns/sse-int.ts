/**
 * SSE2 integer operations on XMM registers, the bitwise logic of all types, shuffles and unpacks.
 *
 * SDM volume 1, "SSE2 128-Bit SIMD Integer Instructions" and "SSE2 Shuffle and Unpack Instructions". Lane operations are
 * WebAssembly's where it has them; the others (PMULHW, PSADBW, byte shifts) are put together here. The MMX forms of the
 * same operations are in `mmx.ts`.
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Ops, SimdOp, SimdShift } from '../verbs.js';
import {
  BYTE_NUMBERS,
  chooseDwords,
  chooseWords,
  constant,
  interleave,
  lanesOf,
  splatByte,
  vector,
  zeroVector,
} from './vectors.js';

/** A vector operation of two operands, first the destination. */
export type VectorOp = <V>(o: Ops<V>, a: V, b: V) => V;
const simd =
  (op: SimdOp): VectorOp =>
  (o, a, b) =>
    o.simd(op, a, b);

/** High halves of the 16-bit products. */
const multiplyHigh =
  (sign: 's' | 'u'): VectorOp =>
  (o, a, b) =>
    o.shuffle(
      o.simd(`i32x4.extmul_low_i16x8_${sign}`, a, b),
      o.simd(`i32x4.extmul_high_i16x8_${sign}`, a, b),
      lanesOf(2, [1, 3, 5, 7, 9, 11, 13, 15]),
    );
/** Products of the even 32-bit lanes. */
const multiplyEven: VectorOp = (o, a, b) => {
  const even = lanesOf(4, [0, 2, 0, 2]);
  return o.simd('i64x2.extmul_low_i32x4_u', o.shuffle(a, a, even), o.shuffle(b, b, even));
};
/** Sum of absolute differences of the bytes of each half. */
const absoluteDifferences: VectorOp = (o, a, b) => {
  const d = o.simd('i8x16.sub', o.simd('i8x16.max_u', a, b), o.simd('i8x16.min_u', a, b));
  const ones8 = constant(o, 0x0101_0101_0101_0101n, 0x0101_0101_0101_0101n);
  const ones16 = constant(o, 0x0001_0001_0001_0001n, 0x0001_0001_0001_0001n);
  const half = (v: typeof a): typeof a => {
    const pairs = o.simd('i32x4.dot_i16x8_s', o.simd('i16x8.extmul_low_i8x16_u', v, ones8), ones16);
    const two = o.simd('i32x4.add', pairs, o.shuffle(pairs, pairs, lanesOf(8, [1, 0])));
    return o.zext(o.lane(o.simd('i32x4.add', two, o.shuffle(two, two, lanesOf(4, [1, 0, 3, 2]))), 32, 0), 64);
  };
  return vector(o, half(d), half(o.shuffle(d, d, lanesOf(8, [1, 0]))));
};

/** Operations that exist for MMX registers (opcode without prefix) and XMM registers (66): opcode, name, operation. */
export const LANE_OPERATIONS: readonly (readonly [opcode: string, name: string, op: VectorOp, sse?: true])[] =
  [
    ['fc', 'paddb', simd('i8x16.add')],
    ['fd', 'paddw', simd('i16x8.add')],
    ['fe', 'paddd', simd('i32x4.add')],
    ['d4', 'paddq', simd('i64x2.add')],
    ['f8', 'psubb', simd('i8x16.sub')],
    ['f9', 'psubw', simd('i16x8.sub')],
    ['fa', 'psubd', simd('i32x4.sub')],
    ['fb', 'psubq', simd('i64x2.sub')],
    ['ec', 'paddsb', simd('i8x16.add_sat_s')],
    ['ed', 'paddsw', simd('i16x8.add_sat_s')],
    ['dc', 'paddusb', simd('i8x16.add_sat_u')],
    ['dd', 'paddusw', simd('i16x8.add_sat_u')],
    ['e8', 'psubsb', simd('i8x16.sub_sat_s')],
    ['e9', 'psubsw', simd('i16x8.sub_sat_s')],
    ['d8', 'psubusb', simd('i8x16.sub_sat_u')],
    ['d9', 'psubusw', simd('i16x8.sub_sat_u')],
    ['74', 'pcmpeqb', simd('i8x16.eq')],
    ['75', 'pcmpeqw', simd('i16x8.eq')],
    ['76', 'pcmpeqd', simd('i32x4.eq')],
    ['64', 'pcmpgtb', simd('i8x16.gt_s')],
    ['65', 'pcmpgtw', simd('i16x8.gt_s')],
    ['66', 'pcmpgtd', simd('i32x4.gt_s')],
    ['db', 'pand', simd('v128.and')],
    ['df', 'pandn', (o, a, b) => o.simd('v128.andnot', b, a)],
    ['eb', 'por', simd('v128.or')],
    ['ef', 'pxor', simd('v128.xor')],
    ['d5', 'pmullw', simd('i16x8.mul')],
    ['e5', 'pmulhw', multiplyHigh('s')],
    ['f5', 'pmaddwd', simd('i32x4.dot_i16x8_s')],
    ['f4', 'pmuludq', multiplyEven],
    // what SSE added to both register files
    ['e4', 'pmulhuw', multiplyHigh('u'), true],
    ['e0', 'pavgb', simd('i8x16.avgr_u'), true],
    ['e3', 'pavgw', simd('i16x8.avgr_u'), true],
    ['da', 'pminub', simd('i8x16.min_u'), true],
    ['de', 'pmaxub', simd('i8x16.max_u'), true],
    ['ea', 'pminsw', simd('i16x8.min_s'), true],
    ['ee', 'pmaxsw', simd('i16x8.max_s'), true],
    ['f6', 'psadbw', absoluteDifferences, true],
  ];

/** Packs with saturation: the first operand gives the low half. */
export const PACKS: readonly (readonly [opcode: string, name: string, op: SimdOp])[] = [
  ['63', 'packsswb', 'i8x16.narrow_i16x8_s'],
  ['6b', 'packssdw', 'i16x8.narrow_i32x4_s'],
  ['67', 'packuswb', 'i8x16.narrow_i16x8_u'],
];

/** Unpacks: opcode, name, bytes a lane, high half. */
export const UNPACKS: readonly (readonly [opcode: string, name: string, bytes: number, high: boolean])[] = [
  ['60', 'punpcklbw', 1, false],
  ['61', 'punpcklwd', 2, false],
  ['62', 'punpckldq', 4, false],
  ['68', 'punpckhbw', 1, true],
  ['69', 'punpckhwd', 2, true],
  ['6a', 'punpckhdq', 4, true],
];

/** Shifts of all lanes: name, operation, lane width, opcode with a count operand, group of the immediate form. */
export const SHIFTS: readonly (readonly [
  name: string,
  op: SimdShift,
  width: number,
  opcode: string,
  group: string,
])[] = [
  ['psrlw', 'i16x8.shr_u', 16, 'd1', '71 /2'],
  ['psrld', 'i32x4.shr_u', 32, 'd2', '72 /2'],
  ['psrlq', 'i64x2.shr_u', 64, 'd3', '73 /2'],
  ['psraw', 'i16x8.shr_s', 16, 'e1', '71 /4'],
  ['psrad', 'i32x4.shr_s', 32, 'e2', '72 /4'],
  ['psllw', 'i16x8.shl', 16, 'f1', '71 /6'],
  ['pslld', 'i32x4.shl', 32, 'f2', '72 /6'],
  ['psllq', 'i64x2.shl', 64, 'f3', '73 /6'],
];
/** Shifts by a count of 64 bits: too large a count gives zeros, or sign bits. */
export const shiftLanes = <V>(o: Ops<V>, op: SimdShift, width: number, a: V, count: V): V => {
  const small = o.ltu(count, o.imm(BigInt(width), 64));
  const n = o.select(small, o.trunc(count, 32), o.imm(width - 1, 32));
  const shifted = o.simdShift(op, a, n);
  return op.endsWith('shr_s') ? shifted : o.select(small, shifted, zeroVector(o));
};

const two =
  (f: VectorOp): Sem =>
  (o, d, s) => {
    const b = s.read();
    d.write(f(o, d.read(), b));
  };

const row = (
  name: string,
  forms: readonly string[],
  sem: Sem,
  sdm = name.toUpperCase(),
  aligned = true,
  feature = 'sse2',
): InsnRow => ({
  name,
  forms,
  sdm,
  sem,
  unit: 'sse',
  feature,
  aligned,
});
const logic = (name: string, opcode: string, f: VectorOp): readonly InsnRow[] => [
  row(`${name}ps`, [`np 0f ${opcode} /r Vps,Wps`], two(f), undefined, true, 'sse'),
  row(`${name}pd`, [`66 0f ${opcode} /r Vpd,Wpd`], two(f)),
];
const unpack = (name: string, form: string, bytes: number, high: boolean, feature = 'sse2'): InsnRow =>
  row(
    name,
    [form],
    two((o, a, b) => o.shuffle(a, b, interleave(bytes, high))),
    undefined,
    true,
    feature,
  );

/** PSRLDQ and PSLLDQ: chosen bytes beyond the register read as zeros. */
const shiftBytes =
  (left: boolean): Sem =>
  (o, d, imm) => {
    const by = o.simd(
      'i8x16.min_u',
      splatByte(o, imm.read(8)),
      constant(o, 0x1010_1010_1010_1010n, 0x1010_1010_1010_1010n),
    );
    const numbers = constant(o, BYTE_NUMBERS[0], BYTE_NUMBERS[1]);
    d.write(o.simd('i8x16.swizzle', d.read(), o.simd(left ? 'i8x16.sub' : 'i8x16.add', numbers, by)));
  };

const shuffleDwords: Sem = (o, d, s, imm) => {
  const i = imm.read(8);
  d.write(o.simd('i8x16.swizzle', s.read(), vector(o, chooseDwords(o, i, 0), chooseDwords(o, i, 4))));
};
const shuffleWords =
  (half: 0 | 1): Sem =>
  (o, d, s, imm) => {
    const chosen = chooseWords(o, imm.read(8), half === 0 ? 0n : 8n);
    const kept = o.imm(BYTE_NUMBERS[1 - half], 64);
    d.write(
      o.simd('i8x16.swizzle', s.read(), half === 0 ? vector(o, chosen, kept) : vector(o, kept, chosen)),
    );
  };
/** Low half chosen from the destination, high half from the source. */
const shufps: Sem = (o, d, s, imm) => {
  const b = s.read();
  const i = imm.read(8);
  const low = o.simd('i8x16.swizzle', d.read(), o.fromLow(chooseDwords(o, i, 0)));
  const high = o.simd('i8x16.swizzle', b, o.fromLow(chooseDwords(o, i, 4)));
  d.write(o.shuffle(low, high, lanesOf(8, [0, 2])));
};
const shufpd: Sem = (o, d, s, imm) => {
  const b = s.read();
  const a = d.read();
  const i = imm.read(8);
  d.write(
    vector(
      o,
      o.select(o.bit(i, 0), o.lane(a, 64, 1), o.lane(a, 64, 0)),
      o.select(o.bit(i, 1), o.lane(b, 64, 1), o.lane(b, 64, 0)),
    ),
  );
};

/** The bit position of the word that an immediate chooses within its half. */
const wordPosition = <V>(o: Ops<V>, imm: V): V => o.shl(o.and(o.zext(imm, 32), o.imm(3, 32)), o.imm(4, 32));
const extractWord: Sem = (o, d, s, imm) => {
  const i = imm.read(8);
  const v = s.read();
  const half = o.select(o.bit(i, 2), o.lane(v, 64, 1), o.lane(v, 64, 0));
  d.write(o.and(o.trunc(o.shr(half, wordPosition(o, i)), 32), o.imm(0xffff, 32)));
};
const insertWord: Sem = (o, d, s, imm) => {
  const word = o.zext(s.read(16), 64);
  const i = imm.read(8);
  const v = d.read();
  const at = wordPosition(o, i);
  const upper = o.bit(i, 2);
  const put = (half: typeof v): typeof v =>
    o.or(o.and(half, o.not(o.shl(o.imm(0xffffn, 64), at))), o.shl(word, at));
  const [low, high] = [o.lane(v, 64, 0), o.lane(v, 64, 1)];
  d.write(vector(o, o.select(upper, low, put(low)), o.select(upper, put(high), high)));
};

export const SSE_INT_ROWS: readonly InsnRow[] = [
  ...LANE_OPERATIONS.map(([opcode, name, f]) => row(name, [`66 0f ${opcode} /r Vx,Wx`], two(f))),
  ...PACKS.map(([opcode, name, op]) => row(name, [`66 0f ${opcode} /r Vx,Wx`], two(simd(op)))),
  ...UNPACKS.map(([opcode, name, bytes, high]) => unpack(name, `66 0f ${opcode} /r Vx,Wx`, bytes, high)),
  unpack('punpcklqdq', '66 0f 6c /r Vx,Wx', 8, false),
  unpack('punpckhqdq', '66 0f 6d /r Vx,Wx', 8, true),
  unpack('unpcklps', 'np 0f 14 /r Vps,Wps', 4, false, 'sse'),
  unpack('unpckhps', 'np 0f 15 /r Vps,Wps', 4, true, 'sse'),
  unpack('unpcklpd', '66 0f 14 /r Vpd,Wpd', 8, false),
  unpack('unpckhpd', '66 0f 15 /r Vpd,Wpd', 8, true),
  ...logic('and', '54', simd('v128.and')),
  ...logic('andn', '55', (o, a, b) => o.simd('v128.andnot', b, a)),
  ...logic('or', '56', simd('v128.or')),
  ...logic('xor', '57', simd('v128.xor')),
  ...SHIFTS.map(([name, op, width, opcode]) =>
    row(name, [`66 0f ${opcode} /r Vx,Wx`], (o, d, s) => {
      const count = o.lane(s.read(), 64, 0);
      d.write(shiftLanes(o, op, width, d.read(), count));
    }),
  ),
  ...SHIFTS.map(([name, op, width, , group]) =>
    row(name, [`66 0f ${group}:reg ib Ux,Ib`], (o, d, imm) =>
      d.write(shiftLanes(o, op, width, d.read(), o.zext(imm.read(8), 64))),
    ),
  ),
  row('psrldq', ['66 0f 73 /3:reg ib Ux,Ib'], shiftBytes(false)),
  row('pslldq', ['66 0f 73 /7:reg ib Ux,Ib'], shiftBytes(true)),
  row('pshufd', ['66 0f 70 /r ib Vx,Wx,Ib'], shuffleDwords),
  row('pshuflw', ['f2 0f 70 /r ib Vx,Wx,Ib'], shuffleWords(0)),
  row('pshufhw', ['f3 0f 70 /r ib Vx,Wx,Ib'], shuffleWords(1)),
  row('shufps', ['np 0f c6 /r ib Vps,Wps,Ib'], shufps, undefined, true, 'sse'),
  row('shufpd', ['66 0f c6 /r ib Vpd,Wpd,Ib'], shufpd),
  row('pextrw', ['66 0f c5 /r:reg ib Gd,Udq,Ib'], extractWord),
  row('pinsrw', ['66 0f c4 /r ib Vdq,Rd/Mw,Ib'], insertWord, undefined, false),
];
