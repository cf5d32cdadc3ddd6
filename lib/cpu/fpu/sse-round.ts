/**
 * Helpers of ROUNDPS … ROUNDSD, DPPS and DPPD.
 *
 * SDM volume 2. Arguments are the 64-bit parts of the operands, then imm8. A rounding of ROUNDxx is exact in host
 * doubles; the stages of a dot product are separate operations, each of which may raise #XM before the next.
 */
import { S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper } from '../helpers.js';
import { add, mul } from './arith.js';
import {
  F32,
  F64,
  FE,
  type Format,
  pack32,
  pack64,
  ROUND,
  type Status,
  unpack32,
  unpack64,
} from './softfloat.js';
import { finishSse, sseStatus } from './sse-status.js';

/** From here on every double is an integer. */
const INTEGERS = 2 ** 52;
const integral = (x: number, rounding: number): number => {
  const magnitude = Math.abs(x);
  if (!(magnitude < INTEGERS)) return x;
  switch (rounding) {
    case ROUND.nearest: {
      const r = magnitude + INTEGERS - INTEGERS;
      return x < 0 || Object.is(x, -0) ? -r : r;
    }
    case ROUND.down:
      return Math.floor(x);
    case ROUND.up:
      return Math.ceil(x);
    default:
      return Math.trunc(x);
  }
};

/** Of a value that is no NaN: zero for a denormal under DAZ; inexactness is flagged unless imm8 bit 3 is set. */
const rounded = (s: Status, x: number, tiny: number, imm: number): number => {
  const from = s.daz && Math.abs(x) < tiny ? x * 0 : x;
  const r = integral(from, s.rounding);
  if (r !== from && (imm & 8) === 0) s.flags |= FE.inexact;
  return r;
};
const status = (cpu: Cpu, imm: number): Status => {
  const s = sseStatus(cpu.get32(S.mxcsr));
  if ((imm & 4) === 0) s.rounding = imm & 3;
  return s;
};

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);
const roundSingles =
  (lanes: 1 | 4): Helper =>
  (cpu) => {
    const imm = cpu.arg32(lanes === 1 ? 1 : 2);
    const s = status(cpu, imm);
    const from = (cpu.at + S.arg) >>> 2;
    const to = (cpu.at + S.result) >>> 2;
    for (let i = 0; i < lanes; i++) {
      const bits = cpu.u32[from + i];
      if ((bits & 0x7fff_ffff) > 0x7f80_0000) {
        if ((bits & 0x40_0000) === 0) s.flags |= FE.invalid;
        cpu.u32[to + i] = bits | 0x40_0000;
        continue;
      }
      u32[0] = bits;
      f32[0] = rounded(s, f32[0], 2 ** -126, imm);
      cpu.u32[to + i] = u32[0];
    }
    if (lanes === 1) cpu.u32[to + 1] = 0;
    return finishSse(cpu, s);
  };
const roundDoubles =
  (lanes: 1 | 2): Helper =>
  (cpu) => {
    const imm = cpu.arg32(lanes);
    const s = status(cpu, imm);
    const from = (cpu.at + S.arg) >>> 3;
    const to = (cpu.at + S.result) >>> 3;
    for (let i = 0; i < lanes; i++) {
      const x = cpu.ram.f64[from + i];
      if (Number.isNaN(x)) {
        const bits = cpu.u64[from + i];
        if ((bits & (1n << 51n)) === 0n) s.flags |= FE.invalid;
        cpu.u64[to + i] = bits | (1n << 51n);
        continue;
      }
      cpu.ram.f64[to + i] = rounded(s, x, 2 ** -1022, imm);
    }
    return finishSse(cpu, s);
  };

interface Lanes {
  readonly format: Format;
  readonly unpack: typeof unpack32;
  readonly pack: typeof pack32;
}
const SINGLE: Lanes = { format: F32, unpack: unpack32, pack: pack32 };
const DOUBLE: Lanes = { format: F64, unpack: unpack64, pack: pack64 };

const product = (s: Status, l: Lanes, a: bigint, b: bigint): bigint =>
  l.pack(mul(s, l.format, 'sse', l.unpack(a, s.daz), l.unpack(b, s.daz)));
const sum = (s: Status, l: Lanes, a: bigint, b: bigint): bigint =>
  l.pack(add(s, l.format, 'sse', l.unpack(a, s.daz), l.unpack(b, s.daz)));

/** The masked dot product of the lanes of two operands, or undefined with #XM recorded. */
const dot = (
  cpu: Cpu,
  l: Lanes,
  a: readonly bigint[],
  b: readonly bigint[],
  imm: number,
): bigint | undefined => {
  const s = sseStatus(cpu.get32(S.mxcsr));
  let terms = a.map((x, i) => ((imm & (0x10 << i)) === 0 ? 0n : product(s, l, x, b[i])));
  if (!finishSse(cpu, s)) return undefined;
  while (terms.length > 1) {
    s.flags = 0;
    const sums: bigint[] = [];
    for (let i = 0; i < terms.length; i += 2) sums.push(sum(s, l, terms[i], terms[i + 1]));
    if (!finishSse(cpu, s)) return undefined;
    terms = sums;
  }
  return terms[0];
};

const dpps: Helper = (cpu) => {
  const from = (cpu.at + S.arg) >>> 2;
  const lanes = (at: number): bigint[] => [0, 1, 2, 3].map((i) => BigInt(cpu.u32[from + at + i]));
  const imm = cpu.arg32(4);
  const r = dot(cpu, SINGLE, lanes(0), lanes(4), imm);
  if (r === undefined) return false;
  const to = (cpu.at + S.result) >>> 2;
  for (let i = 0; i < 4; i++) cpu.u32[to + i] = (imm & (1 << i)) === 0 ? 0 : Number(r);
  return true;
};
const dppd: Helper = (cpu) => {
  const imm = cpu.arg32(4);
  const r = dot(cpu, DOUBLE, [cpu.arg64(0), cpu.arg64(1)], [cpu.arg64(2), cpu.arg64(3)], imm);
  if (r === undefined) return false;
  for (let i = 0; i < 2; i++) cpu.result64(i, (imm & (1 << i)) === 0 ? 0n : r);
  return true;
};

export const SSE_ROUNDING: Readonly<Record<string, Helper>> = {
  roundps: roundSingles(4),
  roundss: roundSingles(1),
  roundpd: roundDoubles(2),
  roundsd: roundDoubles(1),
  dpps,
  dppd,
};
