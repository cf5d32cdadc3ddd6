/**
 * Cases for x87, MMX and SSE instructions: encodings, and random states with many special operands, all from a seed.
 * The vectors that a processor answered (`data/vectors/fpu.bin.gz`) hold only results, so that this file is their key.
 */
import { type Random, seededRandom } from '../../../lib/base/random.js';
import { AT } from './machine.js';

export interface Encoding {
  readonly name: string;
  readonly code: readonly number[];
  readonly kind: 'sse' | 'mmx' | 'x87';
  /** Type of the data in XMM registers and memory. */
  readonly data: 'f32' | 'f64' | 'f80' | 'int' | 'i16' | 'i32' | 'i64' | 'bcd';
  /** An immediate byte follows, random. */
  readonly imm?: boolean;
}

const list: Encoding[] = [];
const sse = (
  name: string,
  prefix: number,
  opcode: number,
  data: Encoding['data'],
  options: { imm?: boolean; w?: boolean; form?: 'both' | 'reg' | 'mem'; modrm?: number } = {},
): void => {
  const head = [...(prefix === 0 ? [] : [prefix]), ...(options.w ? [0x48] : []), 0x0f, opcode];
  const add = (modrm: number, suffix: string): void => {
    list.push({
      name: `${name}${suffix}`,
      code: [...head, modrm],
      kind: 'sse',
      data,
      ...(options.imm ? { imm: true } : {}),
    });
  };
  // xmm1 (rcx) with xmm2 (rdx), or with memory
  if (options.modrm !== undefined) add(options.modrm, '');
  else {
    if (options.form !== 'mem') add(0xca, '');
    if (options.form !== 'reg') add(0x0f, ' m');
  }
};
const four = (name: string, opcode: number, imm = false): void => {
  sse(`${name}ps`, 0, opcode, 'f32', { imm });
  sse(`${name}pd`, 0x66, opcode, 'f64', { imm });
  sse(`${name}ss`, 0xf3, opcode, 'f32', { imm });
  sse(`${name}sd`, 0xf2, opcode, 'f64', { imm });
};
four('sqrt', 0x51);
four('add', 0x58);
four('mul', 0x59);
four('sub', 0x5c);
four('min', 0x5d);
four('div', 0x5e);
four('max', 0x5f);
four('cmp', 0xc2, true);
for (const [name, opcode] of [
  ['ucomi', 0x2e],
  ['comi', 0x2f],
] as const) {
  sse(`${name}ss`, 0, opcode, 'f32');
  sse(`${name}sd`, 0x66, opcode, 'f64');
}
for (const w of [false, true]) {
  sse('cvtsi2ss', 0xf3, 0x2a, 'int', { w });
  sse('cvtsi2sd', 0xf2, 0x2a, 'int', { w });
  sse('cvttss2si', 0xf3, 0x2c, 'f32', { w });
  sse('cvtss2si', 0xf3, 0x2d, 'f32', { w });
  sse('cvttsd2si', 0xf2, 0x2c, 'f64', { w });
  sse('cvtsd2si', 0xf2, 0x2d, 'f64', { w });
}
sse('cvtps2pd', 0, 0x5a, 'f32');
sse('cvtpd2ps', 0x66, 0x5a, 'f64');
sse('cvtss2sd', 0xf3, 0x5a, 'f32');
sse('cvtsd2ss', 0xf2, 0x5a, 'f64');
sse('cvtdq2ps', 0, 0x5b, 'int');
sse('cvtps2dq', 0x66, 0x5b, 'f32');
sse('cvttps2dq', 0xf3, 0x5b, 'f32');
sse('cvtdq2pd', 0xf3, 0xe6, 'int');
sse('cvttpd2dq', 0x66, 0xe6, 'f64');
sse('cvtpd2dq', 0xf2, 0xe6, 'f64');
sse('cvtpi2ps', 0, 0x2a, 'int');
sse('cvtpi2pd', 0x66, 0x2a, 'int');
sse('cvttps2pi', 0, 0x2c, 'f32');
sse('cvtps2pi', 0, 0x2d, 'f32');
sse('cvttpd2pi', 0x66, 0x2c, 'f64');
sse('cvtpd2pi', 0x66, 0x2d, 'f64');
for (const [name, opcode] of [
  ['movups', 0x10],
  ['movaps', 0x28],
  ['unpcklps', 0x14],
  ['unpckhps', 0x15],
  ['and', 0x54],
  ['andn', 0x55],
  ['or', 0x56],
  ['xor', 0x57],
] as const) {
  sse(name, 0, opcode, 'int');
  sse(`${name} 66`, 0x66, opcode, 'int');
}
sse('movups store', 0, 0x11, 'int');
sse('movaps store', 0x66, 0x29, 'int');
for (const prefix of [0xf2, 0xf3]) {
  sse('movs', prefix, 0x10, 'int');
  sse('movs store', prefix, 0x11, 'int');
}
for (const opcode of [0x12, 0x16]) {
  sse('movl/h', 0, opcode, 'int');
  sse('movl/hpd', 0x66, opcode, 'int', { form: 'mem' });
  sse('movl/h store', 0, opcode + 1, 'int', { form: 'mem' });
  sse('movl/hpd store', 0x66, opcode + 1, 'int', { form: 'mem' });
}
sse('movnt', 0, 0x2b, 'int', { form: 'mem' });
sse('movntdq', 0x66, 0xe7, 'int', { form: 'mem' });
sse('movntq', 0, 0xe7, 'int', { form: 'mem' });
sse('movnti', 0, 0xc3, 'int', { form: 'mem' });
sse('movdqu', 0xf3, 0x6f, 'int');
sse('movdqu store', 0xf3, 0x7f, 'int');
sse('movdqa', 0x66, 0x6f, 'int');
sse('movdqa store', 0x66, 0x7f, 'int');
sse('movq', 0xf3, 0x7e, 'int');
sse('movq store', 0x66, 0xd6, 'int');
sse('movq2dq', 0xf3, 0xd6, 'int', { form: 'reg' });
sse('movdq2q', 0xf2, 0xd6, 'int', { form: 'reg' });
sse('movmsk', 0, 0x50, 'int', { form: 'reg' });
sse('movmskpd', 0x66, 0x50, 'int', { form: 'reg' });
sse('maskmovdqu', 0x66, 0xf7, 'int', { form: 'reg' });
sse('maskmovq', 0, 0xf7, 'int', { form: 'reg' });
sse('shufps', 0, 0xc6, 'int', { imm: true });
sse('shufpd', 0x66, 0xc6, 'int', { imm: true });
for (const prefix of [0, 0x66, 0xf2, 0xf3]) sse('pshuf', prefix, 0x70, 'int', { imm: true });
for (const prefix of [0, 0x66]) {
  for (const w of [false, true]) {
    sse('movd', prefix, 0x6e, 'int', { w });
    sse('movd store', prefix, 0x7e, 'int', { w });
  }
  sse('pmovmskb', prefix, 0xd7, 'int', { form: 'reg' });
  sse('pextrw', prefix, 0xc5, 'int', { imm: true, form: 'reg' });
  sse('pinsrw', prefix, 0xc4, 'int', { imm: true });
  for (let opcode = 0x60; opcode <= 0x6b; opcode++) sse(`p${opcode.toString(16)}`, prefix, opcode, 'int');
  for (const opcode of [0x74, 0x75, 0x76]) sse(`p${opcode.toString(16)}`, prefix, opcode, 'int');
  for (let opcode = 0xd1; opcode <= 0xfe; opcode++) {
    if ([0xd6, 0xd7, 0xe6, 0xe7, 0xf0, 0xf7].includes(opcode)) continue;
    sse(`p${opcode.toString(16)}`, prefix, opcode, 'int');
  }
  for (const [opcode, digits] of [
    [0x71, [2, 4, 6]],
    [0x72, [2, 4, 6]],
    [0x73, prefix === 0 ? [2, 6] : [2, 3, 6, 7]],
  ] as const) {
    for (const digit of digits)
      sse(`shift ${opcode.toString(16)}/${digit}`, prefix, opcode, 'int', {
        imm: true,
        modrm: 0xc1 | (digit << 3),
      });
  }
}
sse('punpcklqdq', 0x66, 0x6c, 'int');
sse('punpckhqdq', 0x66, 0x6d, 'int');
list.push({ name: 'emms', code: [0x0f, 0x77], kind: 'mmx', data: 'int' });
list.push({ name: 'movq mm', code: [0x0f, 0x6f, 0xca], kind: 'mmx', data: 'int' });
list.push({ name: 'movq mm store', code: [0x0f, 0x7f, 0x0f], kind: 'mmx', data: 'int' });

const x87 = (name: string, code: readonly number[], data: Encoding['data'] = 'f80'): void => {
  list.push({ name, code, kind: 'x87', data });
};
const NAMES = ['fadd', 'fmul', 'fcom', 'fcomp', 'fsub', 'fsubr', 'fdiv', 'fdivr'];
NAMES.forEach((name, op) => {
  x87(`${name} m32`, [0xd8, 0x07 | (op << 3)], 'f32');
  x87(`${name} m64`, [0xdc, 0x07 | (op << 3)], 'f64');
  x87(`${name} i32`, [0xda, 0x07 | (op << 3)], 'i32');
  x87(`${name} i16`, [0xde, 0x07 | (op << 3)], 'i16');
  x87(`${name} st,st1`, [0xd8, 0xc1 | (op << 3)]);
  if (op !== 2 && op !== 3) {
    x87(`${name} st1,st (dc)`, [0xdc, 0xc1 | (op << 3)]);
    x87(`${name} st1,st (de)`, [0xde, 0xc1 | (op << 3)]);
  }
});
x87('fld m32', [0xd9, 0x07], 'f32');
x87('fld m64', [0xdd, 0x07], 'f64');
x87('fld m80', [0xdb, 0x2f], 'f80');
x87('fild16', [0xdf, 0x07], 'i16');
x87('fild32', [0xdb, 0x07], 'i32');
x87('fild64', [0xdf, 0x2f], 'i64');
x87('fbld', [0xdf, 0x27], 'bcd');
for (const [name, code] of [
  ['fst m32', [0xd9, 0x17]],
  ['fstp m32', [0xd9, 0x1f]],
  ['fst m64', [0xdd, 0x17]],
  ['fstp m64', [0xdd, 0x1f]],
  ['fstp m80', [0xdb, 0x3f]],
  ['fist16', [0xdf, 0x17]],
  ['fistp16', [0xdf, 0x1f]],
  ['fist32', [0xdb, 0x17]],
  ['fistp32', [0xdb, 0x1f]],
  ['fistp64', [0xdf, 0x3f]],
  ['fbstp', [0xdf, 0x37]],
  ['fld st1', [0xd9, 0xc1]],
  ['fxch', [0xd9, 0xc9]],
  ['fst st1', [0xdd, 0xd1]],
  ['fstp st1', [0xdd, 0xd9]],
  ['ffree', [0xdd, 0xc1]],
  ['fnop', [0xd9, 0xd0]],
  ['fcompp', [0xde, 0xd9]],
  ['fucom', [0xdd, 0xe1]],
  ['fucomp', [0xdd, 0xe9]],
  ['fucompp', [0xda, 0xe9]],
  ['fcomi', [0xdb, 0xf1]],
  ['fucomi', [0xdb, 0xe9]],
  ['fcomip', [0xdf, 0xf1]],
  ['fucomip', [0xdf, 0xe9]],
  ['fcmovb', [0xda, 0xc1]],
  ['fcmove', [0xda, 0xc9]],
  ['fcmovbe', [0xda, 0xd1]],
  ['fcmovu', [0xda, 0xd9]],
  ['fcmovnb', [0xdb, 0xc1]],
  ['fcmovne', [0xdb, 0xc9]],
  ['fcmovnbe', [0xdb, 0xd1]],
  ['fcmovnu', [0xdb, 0xd9]],
  ['fchs', [0xd9, 0xe0]],
  ['fabs', [0xd9, 0xe1]],
  ['ftst', [0xd9, 0xe4]],
  ['fxam', [0xd9, 0xe5]],
  ['fld1', [0xd9, 0xe8]],
  ['fldl2t', [0xd9, 0xe9]],
  ['fldl2e', [0xd9, 0xea]],
  ['fldpi', [0xd9, 0xeb]],
  ['fldlg2', [0xd9, 0xec]],
  ['fldln2', [0xd9, 0xed]],
  ['fldz', [0xd9, 0xee]],
  ['fxtract', [0xd9, 0xf4]],
  ['fprem1', [0xd9, 0xf5]],
  ['fdecstp', [0xd9, 0xf6]],
  ['fincstp', [0xd9, 0xf7]],
  ['fprem', [0xd9, 0xf8]],
  ['fsqrt', [0xd9, 0xfa]],
  ['frndint', [0xd9, 0xfc]],
  ['fscale', [0xd9, 0xfd]],
  ['fnstcw', [0xd9, 0x3f]],
  ['fnstsw', [0xdd, 0x3f]],
  ['fnstsw ax', [0xdf, 0xe0]],
  ['fnclex', [0xdb, 0xe2]],
  ['fninit', [0xdb, 0xe3]],
] as const) {
  x87(name, code);
}
/** Their last bits differ between processors, so they are compared by distance. */
export const TRANSCENDENTAL: readonly Encoding[] = (
  [
    ['f2xm1', 0xf0],
    ['fyl2x', 0xf1],
    ['fptan', 0xf2],
    ['fpatan', 0xf3],
    ['fyl2xp1', 0xf9],
    ['fsincos', 0xfb],
    ['fsin', 0xfe],
    ['fcos', 0xff],
  ] as const
).map(([name, modrm]) => ({ name, code: [0xd9, modrm], kind: 'x87', data: 'f80' }));
export const ENCODINGS: readonly Encoding[] = list;

/** A biased exponent with all kinds of neighbourhoods. */
const exponent = (r: Random, bits: number): number => {
  const top = 2 ** bits - 1;
  const bias = top >> 1;
  switch (r.below(10)) {
    case 0:
      return 0;
    case 1:
      return top;
    case 2:
      return 1 + r.below(3);
    case 3:
      return top - 1 - r.below(3);
    case 4:
      return r.below(top + 1);
    default:
      return bias - 20 + r.below(90 > bias ? bias : 90);
  }
};
const u64 = (r: Random): bigint => (BigInt(r.u32()) << 32n) | BigInt(r.u32());
const fraction = (r: Random, bits: number): bigint => {
  const all = BigInt.asUintN(bits, u64(r));
  switch (r.below(6)) {
    case 0:
      return 0n;
    case 1:
      return (1n << BigInt(bits)) - 1n;
    case 2:
      return 1n << BigInt(r.below(bits));
    case 3:
      return (all >> BigInt(bits - 8)) << BigInt(bits - 8);
    default:
      return all;
  }
};
const f32 = (r: Random): bigint =>
  (BigInt(r.below(2)) << 31n) | (BigInt(exponent(r, 8)) << 23n) | fraction(r, 23);
const f64 = (r: Random): bigint =>
  (BigInt(r.below(2)) << 63n) | (BigInt(exponent(r, 11)) << 52n) | fraction(r, 52);
export const f80 = (r: Random, plain: boolean): readonly [bigint, number] => {
  let e = exponent(r, 15);
  if (plain) e = 0x3fff - 40 + r.below(80);
  const whole = e === 0 ? r.below(12) === 0 : r.below(30) !== 0;
  return [(whole ? 1n << 63n : 0n) | fraction(r, 63), e | (r.below(2) << 15)];
};
export const integer = (r: Random): bigint => {
  const v = u64(r);
  switch (r.below(5)) {
    case 0:
      return BigInt(r.below(40));
    case 1:
      return v | 0x8000_7fff_ff80_ffffn;
    case 2:
      return v & 0x8080_ffff_0000_7fffn;
    default:
      return v;
  }
};
const bcd = (r: Random): bigint => {
  let v = 0n;
  for (let i = 0; i < 16; i++) v = (v << 4n) | BigInt(r.below(10));
  return v;
};

export const putData = (
  view: DataView,
  at: number,
  bytes: number,
  data: Encoding['data'],
  r: Random,
): void => {
  for (let i = 0; i < bytes; i += 8) {
    let v: bigint;
    if (data === 'f32') v = f32(r) | (f32(r) << 32n);
    else if (data === 'f64') v = f64(r);
    else if (data === 'bcd')
      v = i % 16 === 0 ? bcd(r) : BigInt(r.below(10) | (r.below(10) << 4) | (r.below(2) << 15));
    else if (data === 'f80') {
      const [sig, se] = f80(r, false);
      v = i % 16 === 0 ? sig : BigInt(se);
    } else v = integer(r);
    view.setBigUint64(at + i, v, true);
  }
};

/** Writes the case of an encoding that `r` gives next. */
export const makeCase = (e: Encoding, r: Random): Uint8Array => {
  const bytes = new Uint8Array(AT.size);
  const view = new DataView(bytes.buffer);
  const trig = e.kind === 'x87' && e.code[0] === 0xd9 && e.code[1] >= 0xf0;
  const masks = r.below(4) === 0 ? r.below(64) : 0x3f;
  view.setUint16(
    0,
    0x40 | (e.kind === 'x87' ? masks : 0x3f) | ([0, 2, 3, 3][r.below(4)] << 8) | (r.below(4) << 10),
    true,
  );
  const top = r.below(8);
  // conditions and masked flags may be set before; an exception must not be pending
  view.setUint16(2, (top << 11) | (r.u32() & 0x4700), true);
  view.setUint8(4, r.below(3) === 0 ? r.below(256) : 0xff);
  view.setUint32(
    24,
    ((r.below(5) === 0 ? r.below(64) : 0x3f) << 7) |
      (r.below(4) << 13) |
      (r.below(4) === 0 ? 0x8000 : 0) |
      (r.below(4) === 0 ? 0x40 : 0) |
      (r.below(2) === 0 ? 0x20 : 0),
    true,
  );
  view.setUint32(28, 0xffff, true);
  const plain = trig && r.below(2) === 0;
  for (let i = 0; i < 8; i++) {
    const [sig, se] = f80(r, plain);
    view.setBigUint64(32 + 16 * i, e.kind === 'x87' ? sig : integer(r), true);
    view.setUint16(40 + 16 * i, e.kind === 'x87' ? se : 0xffff, true);
  }
  if (r.below(6) === 0) {
    // equal or nearly equal operands
    view.setBigUint64(48, view.getBigUint64(32, true) ^ (r.below(2) === 0 ? 0n : 1n), true);
    view.setUint16(56, view.getUint16(40, true) ^ (r.below(2) << 15), true);
  }
  for (let i = 0; i < 4; i++) putData(view, 160 + 16 * i, 16, e.data, r);
  if (r.below(6) === 0) bytes.copyWithin(160 + 16, 160 + 32, 160 + 48);
  putData(view, AT.memory, 32, e.data, r);
  if (r.below(6) === 0) bytes.copyWithin(AT.memory, 160 + 16, 160 + 32);
  for (const at of [AT.rax, AT.rcx, AT.rdx]) view.setBigUint64(at, integer(r), true);
  view.setBigUint64(AT.rflags, 2n | BigInt(r.u32() & 0x8d5), true);
  const code = e.imm === true ? [...e.code, r.below(2) === 0 ? r.below(256) : r.below(20)] : e.code;
  bytes.set([code.length, ...code], AT.code);
  return bytes;
};

export const casesOf = (e: Encoding, seed: number, count: number): Uint8Array[] => {
  const r = seededRandom(seed);
  return Array.from({ length: count }, () => makeCase(e, r));
};
