/**
 * SSE4.1 and SSE4.2: blends, insertion and extraction, minima and maxima, extensions, rounding, dot products, string
 * comparison and CRC32.
 *
 * SDM volume 1, "SSE4.1 Instruction Set" and "SSE4.2 Instruction Set". What rounds is in `cpu/fpu/sse-round.ts`; sums
 * of differences, PHMINPOSUW, strings and CRC32 are in `cpu/simd/`. An immediate is a value, so lane numbers are chosen
 * with byte masks. POPCNT is a row of `bits.ts`.
 */
import type { InsnRow, Sem } from '../rows.js';
import { S } from '../state.js';
import type { Operand, Ops, SimdOp, Width } from '../verbs.js';
import type { VectorOp } from './sse-int.js';
import {
  BYTE_NUMBERS,
  blend,
  constant,
  immediateMask,
  lanesOf,
  splatByte,
  vector,
  zeroVector,
} from './vectors.js';

const row = (name: string, form: string, sem: Sem, more: Partial<InsnRow> = {}): InsnRow => ({
  name,
  forms: [form],
  sdm: name.toUpperCase(),
  sem,
  unit: 'sse',
  feature: 'sse4_1',
  ...more,
});
const ALIGNED = { aligned: true } as const;

const simd =
  (op: SimdOp): VectorOp =>
  (o, a, b) =>
    o.simd(op, a, b);
const two =
  (f: VectorOp): Sem =>
  (o, d, s) => {
    const b = s.read();
    d.write(f(o, d.read(), b));
  };
const parts = <V>(o: Ops<V>, v: V): readonly [V, V] => [o.lane(v, 64, 0), o.lane(v, 64, 1)];
/** Products of the even 32-bit lanes, signed. */
const multiplyEven: VectorOp = (o, a, b) => {
  const even = lanesOf(4, [0, 2, 0, 2]);
  return o.simd('i64x2.extmul_low_i32x4_s', o.shuffle(a, a, even), o.shuffle(b, b, even));
};

const LANE_OPERATIONS: readonly (readonly [opcode: string, name: string, op: VectorOp, sse42?: true])[] = [
  ['28', 'pmuldq', multiplyEven],
  ['29', 'pcmpeqq', simd('i64x2.eq')],
  ['2b', 'packusdw', simd('i16x8.narrow_i32x4_u')],
  ['37', 'pcmpgtq', simd('i64x2.gt_s'), true],
  ['38', 'pminsb', simd('i8x16.min_s')],
  ['39', 'pminsd', simd('i32x4.min_s')],
  ['3a', 'pminuw', simd('i16x8.min_u')],
  ['3b', 'pminud', simd('i32x4.min_u')],
  ['3c', 'pmaxsb', simd('i8x16.max_s')],
  ['3d', 'pmaxsd', simd('i32x4.max_s')],
  ['3e', 'pmaxuw', simd('i16x8.max_u')],
  ['3f', 'pmaxud', simd('i32x4.max_u')],
  ['40', 'pmulld', simd('i32x4.mul')],
];

// ---- blends
/** Bits of the immediate by byte, for lanes of 2, 4 and 8 bytes. */
const SELECTORS = {
  2: [0x0808_0404_0202_0101n, 0x8080_4040_2020_1010n],
  4: [0x0202_0202_0101_0101n, 0x0808_0808_0404_0404n],
  8: [0x0101_0101_0101_0101n, 0x0202_0202_0202_0202n],
} as const;
const lanesMask = <V>(o: Ops<V>, imm: V, bytes: 2 | 4 | 8): V =>
  immediateMask(o, imm, SELECTORS[bytes][0], SELECTORS[bytes][1]);
const blendImmediate =
  (bytes: 2 | 4 | 8): Sem =>
  (o, d, s, imm) => {
    const b = s.read();
    d.write(blend(o, d.read(), b, lanesMask(o, imm.read(8), bytes)));
  };
/** XMM0 is the mask: the sign bits of its lanes. */
const blendVariable =
  (width: 8 | 32 | 64): Sem =>
  (o, d, s, mask) => {
    const b = s.read();
    const m = mask.read();
    const signs =
      width === 8
        ? o.simd('i8x16.gt_s', zeroVector(o), m)
        : o.simdShift(width === 32 ? 'i32x4.shr_s' : 'i64x2.shr_s', m, o.imm(width - 1, 32));
    d.write(blend(o, d.read(), b, signs));
  };

// ---- insertion and extraction
/** A lane number of an immediate as the number of the lane's first byte, 8 bits wide. */
const firstByte = <V>(o: Ops<V>, imm: V, width: Width): V => {
  const lane = o.and(o.zext(imm, 32), o.imm(128 / width - 1, 32));
  return o.shl(lane, o.imm({ 8: 0, 16: 1, 32: 2, 64: 3 }[width], 32));
};
const extract = <V>(o: Ops<V>, v: V, width: Width, imm: V): V => {
  const numbers = constant(o, BYTE_NUMBERS[0], BYTE_NUMBERS[1]);
  const from = o.simd('i8x16.add', numbers, splatByte(o, firstByte(o, imm, width)));
  return o.lane(o.simd('i8x16.swizzle', v, from), width, 0);
};
const extractSem =
  (width?: 8 | 16 | 32): Sem =>
  (o, d, s, imm) => {
    const v = extract(o, s.read(), width ?? (d.w as 32 | 64), imm.read(8));
    d.write(d.kind === 'reg' && d.w !== width ? o.zext(v, d.w) : v);
  };
/** Number of the first byte of its lane, for each byte. */
const laneStarts = <V>(o: Ops<V>, width: Width): V => {
  if (width === 8) return constant(o, BYTE_NUMBERS[0], BYTE_NUMBERS[1]);
  if (width === 32) return constant(o, 0x0404_0404_0000_0000n, 0x0c0c_0c0c_0808_0808n);
  return constant(o, 0n, 0x0808_0808_0808_0808n);
};
const laneOnly = <V>(o: Ops<V>, width: Width, first: V): V =>
  o.simd('i8x16.eq', laneStarts(o, width), splatByte(o, first));
const broadcast = <V>(o: Ops<V>, v: V, width: Width): V => {
  const low = o.fromLow(v);
  return o.shuffle(low, low, lanesOf(width / 8, new Array<number>(128 / width).fill(0)));
};
const insertSem =
  (width?: 8): Sem =>
  (o, d, s, imm) => {
    const w = width ?? (s.w as 32 | 64);
    const v = s.read(w);
    d.write(blend(o, d.read(), broadcast(o, v, w), laneOnly(o, w, firstByte(o, imm.read(8), w))));
  };
/** Bits 7:6 choose the source lane (of a register), 5:4 the destination, 3:0 the lanes that are cleared. */
const insertps: Sem = (o, d, s, imm) => {
  const i = imm.read(8);
  const field = (at: number): typeof i => o.and(o.shr(o.zext(i, 32), o.imm(at, 32)), o.imm(3, 32));
  const v = s.kind === 'mem' ? s.read(32) : extract(o, s.read(), 32, o.trunc(field(6), 8));
  const there = laneOnly(o, 32, o.shl(field(4), o.imm(2, 32)));
  const inserted = blend(o, d.read(), broadcast(o, v, 32), there);
  d.write(o.simd('v128.andnot', inserted, lanesMask(o, i, 4)));
};

// ---- extensions
type Step = `${'i16x8.extend_low_i8x16' | 'i32x4.extend_low_i16x8' | 'i64x2.extend_low_i32x4'}`;
const STEPS: readonly Step[] = ['i16x8.extend_low_i8x16', 'i32x4.extend_low_i16x8', 'i64x2.extend_low_i32x4'];
const extend =
  (from: number, to: number, sign: 's' | 'u', bits: 16 | 32 | 64): Sem =>
  (o, d, s) => {
    let v = o.fromLow(s.read(bits));
    for (let i = from; i < to; i++) v = o.simd(`${STEPS[i]!}_${sign}`, v);
    d.write(v);
  };
const EXTENSIONS: readonly (readonly [
  name: string,
  digit: number,
  from: number,
  to: number,
  bits: 16 | 32 | 64,
])[] = [
  ['bw', 0, 0, 1, 64],
  ['bd', 1, 0, 2, 32],
  ['bq', 2, 0, 3, 16],
  ['wd', 3, 1, 2, 64],
  ['wq', 4, 1, 3, 32],
  ['dq', 5, 2, 3, 64],
];
const TYPE = { 16: 'Ww', 32: 'Wd', 64: 'Wq' } as const;

const ptest: Sem = (o, a, b) => {
  const y = b.read();
  const x = a.read();
  const none = (v: typeof x): typeof x => o.eqz(o.or(o.lane(v, 64, 0), o.lane(v, 64, 1)));
  const flag = (c: typeof x, bit: number): typeof x => o.select(c, o.imm(bit, 32), o.imm(0, 32));
  o.flags.setAll(
    o.or(flag(none(o.simd('v128.and', y, x)), 0x40), flag(none(o.simd('v128.andnot', y, x)), 1)),
  );
};

// ---- helpers
/** Both operands in 64-bit parts, then the immediate. */
const packedHelper =
  (helper: string): Sem =>
  (o, d, s, imm) => {
    const b = s.read();
    const r = o.call(helper, [...parts(o, d.read()), ...parts(o, b), imm.read(8)], 2);
    d.write(vector(o, r[0]!, r[1]!));
  };
const roundPacked =
  (helper: string): Sem =>
  (o, d, s, imm) => {
    const r = o.call(helper, [...parts(o, s.read()), imm.read(8)], 2);
    d.write(vector(o, r[0]!, r[1]!));
  };
const roundScalar =
  (helper: string, w: 32 | 64): Sem =>
  (o, d, s, imm) => {
    const r = o.call(helper, [s.read(w), imm.read(8)], 1);
    d.write(o.withLane(d.read(), w, 0, o.trunc(r[0]!, w)));
  };
const FLAGS = { flags: { w: 'oszapc' } } as const;

/** PCMPxSTRx; the mask goes to XMM0. Lengths count in units; they are not looked at without `explicit`. */
const compareStrings =
  (explicit: boolean, result: 'index' | 'mask', w: 32 | 64): Sem =>
  (o, a, b, imm) => {
    const y = b.read();
    const length = (r: number): typeof y => (explicit ? o.sext(o.reg(r, w), 64) : o.imm(-1n, 64));
    const r = o.call(
      explicit ? 'compareStringsExplicit' : 'compareStrings',
      [...parts(o, a.read()), ...parts(o, y), imm.read(8), length(0), length(2)],
      4,
    );
    if (result === 'index') o.setReg(1, o.trunc(r[0]!, 32));
    else {
      o.setState(S.xmm, r[1]!);
      o.setState(S.xmm + 8, r[2]!);
    }
    o.flags.setAll(o.trunc(r[3]!, 32));
  };
const strings = (
  name: string,
  opcode: string,
  explicit: boolean,
  result: 'index' | 'mask',
): readonly InsnRow[] => {
  const more = { feature: 'sse4_2', ...FLAGS };
  const form = (w: string): string => `66 ${w}0f 3a ${opcode} /r ib Vdq,Wdq,Ib`;
  if (!explicit) return [row(name, form(''), compareStrings(false, result, 32), more)];
  return [
    row(name, form(''), compareStrings(true, result, 32), more),
    row(name, form('w1 '), compareStrings(true, result, 64), more),
  ];
};

const crc32: Sem = (o, d, s) => {
  const r = o.call('crc32', [o.trunc(d.read(), 32), s.read(), o.imm(s.w / 8, 32)], 1);
  d.write(o.trunc(r[0]!, d.w));
};

const minPosition: Sem = (o, d, s) => {
  const r = o.call('phminposuw', parts(o, s.read()), 1);
  d.write(o.fromLow(r[0]!));
};

const move = <V>(_o: Ops<V>, d: Operand<V>, s: Operand<V>): void => d.write(s.read());

export const SSE4_ROWS: readonly InsnRow[] = [
  ...LANE_OPERATIONS.map(([opcode, name, f, sse42]) =>
    row(name, `66 0f 38 ${opcode} /r Vx,Wx`, two(f), { ...ALIGNED, ...(sse42 ? { feature: 'sse4_2' } : {}) }),
  ),
  row('blendps', '66 0f 3a 0c /r ib Vps,Wps,Ib', blendImmediate(4), ALIGNED),
  row('blendpd', '66 0f 3a 0d /r ib Vpd,Wpd,Ib', blendImmediate(8), ALIGNED),
  row('pblendw', '66 0f 3a 0e /r ib Vx,Wx,Ib', blendImmediate(2), ALIGNED),
  row('pblendvb', '66 0f 38 10 /r Vdq,Wdq,XMM0', blendVariable(8), ALIGNED),
  row('blendvps', '66 0f 38 14 /r Vps,Wps,XMM0', blendVariable(32), ALIGNED),
  row('blendvpd', '66 0f 38 15 /r Vpd,Wpd,XMM0', blendVariable(64), ALIGNED),
  row('pextrb', '66 0f 3a 14 /r ib Rd/Mb,Vdq,Ib', extractSem(8)),
  row('pextrw', '66 0f 3a 15 /r ib Rd/Mw,Vdq,Ib', extractSem(16)),
  row('pextrd', '66 0f 3a 16 /r ib Ey,Vdq,Ib', extractSem()),
  row('extractps', '66 0f 3a 17 /r ib Ed,Vdq,Ib', extractSem(32)),
  row('pinsrb', '66 0f 3a 20 /r ib Vdq,Rd/Mb,Ib', insertSem(8)),
  row('insertps', '66 0f 3a 21 /r ib Vps,Wss,Ib', insertps),
  row('pinsrd', '66 0f 3a 22 /r ib Vdq,Ey,Ib', insertSem()),
  ...EXTENSIONS.flatMap(([name, digit, from, to, bits]) => [
    row(`pmovsx${name}`, `66 0f 38 2${digit} /r Vx,${TYPE[bits]}`, extend(from, to, 's', bits)),
    row(`pmovzx${name}`, `66 0f 38 3${digit} /r Vx,${TYPE[bits]}`, extend(from, to, 'u', bits)),
  ]),
  row('ptest', '66 0f 38 17 /r Vx,Wx', ptest, { ...ALIGNED, ...FLAGS }),
  row('movntdqa', '66 0f 38 2a /r:mem Vx,Mx', move, ALIGNED),
  row('roundps', '66 0f 3a 08 /r ib Vps,Wps,Ib', roundPacked('roundps'), ALIGNED),
  row('roundpd', '66 0f 3a 09 /r ib Vpd,Wpd,Ib', roundPacked('roundpd'), ALIGNED),
  row('roundss', '66 0f 3a 0a /r ib Vss,Wss,Ib', roundScalar('roundss', 32)),
  row('roundsd', '66 0f 3a 0b /r ib Vsd,Wsd,Ib', roundScalar('roundsd', 64)),
  row('dpps', '66 0f 3a 40 /r ib Vps,Wps,Ib', packedHelper('dpps'), ALIGNED),
  row('dppd', '66 0f 3a 41 /r ib Vpd,Wpd,Ib', packedHelper('dppd'), ALIGNED),
  row('mpsadbw', '66 0f 3a 42 /r ib Vx,Wx,Ib', packedHelper('mpsadbw'), ALIGNED),
  row('phminposuw', '66 0f 38 41 /r Vdq,Wdq', minPosition, ALIGNED),

  ...strings('pcmpestrm', '60', true, 'mask'),
  ...strings('pcmpestri', '61', true, 'index'),
  ...strings('pcmpistrm', '62', false, 'mask'),
  ...strings('pcmpistri', '63', false, 'index'),
  {
    name: 'crc32',
    forms: ['f2 0f 38 f0 /r Gy,Eb', 'f2 0f 38 f1 /r Gy,Ev'],
    sdm: 'CRC32—Accumulate CRC32 Value',
    feature: 'sse4_2',
    sem: crc32,
  },
];
