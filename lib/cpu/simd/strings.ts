/**
 * Helpers of PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM.
 *
 * SDM volume 1, "SSE4.2 String and Text Instructions" (imm8 control, aggregation, polarity, output, valid bits); volume
 * 2, "PCMPESTRI". Arguments: first and second operand (128 bits each), imm8, and for explicit lengths EAX/RAX and
 * EDX/RDX sign-extended. Results: index, mask (low, high), flags.
 */
import { FLAG, S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper } from '../helpers.js';

const AGGREGATION = { equalAny: 0, ranges: 1, equalEach: 2, equalOrdered: 3 } as const;

/** The units of the argument at `offset`. */
const units = (cpu: Cpu, offset: number, words: boolean, signed: boolean): readonly number[] => {
  const view = new DataView(cpu.ram.memory.buffer, cpu.at + offset, 16);
  return Array.from({ length: words ? 8 : 16 }, (_, i) => {
    if (words) return signed ? view.getInt16(2 * i, true) : view.getUint16(2 * i, true);
    return signed ? view.getInt8(i) : view.getUint8(i);
  });
};

/** Index of the terminating zero, or the number of units. */
const implicitLength = (list: readonly number[]): number => {
  const end = list.indexOf(0);
  return end < 0 ? list.length : end;
};
const explicitLength = (v: bigint, most: number): number => {
  const length = BigInt.asIntN(64, v);
  const magnitude = length < 0n ? -length : length;
  return magnitude > BigInt(most) ? most : Number(magnitude);
};

/** IntRes1: bit j tells about unit j of the second operand. */
const aggregate = (
  how: number,
  a: readonly number[],
  b: readonly number[],
  lengthA: number,
  lengthB: number,
): number => {
  const n = a.length;
  let r = 0;
  for (let j = 0; j < n; j++) {
    let found = false;
    const valid = j < lengthB;
    switch (how) {
      case AGGREGATION.equalAny:
        for (let i = 0; i < lengthA; i++) found ||= valid && a[i] === b[j];
        break;
      case AGGREGATION.ranges:
        // a pair whose second bound is missing does not count
        for (let i = 0; i + 1 < lengthA; i += 2) found ||= valid && a[i] <= b[j] && b[j] <= a[i + 1];
        break;
      case AGGREGATION.equalEach:
        found = j < lengthA === valid && (!valid || a[j] === b[j]);
        break;
      default:
        // the first operand is found at j; what lies beyond the register is not compared
        found = true;
        for (let i = 0; i < lengthA && i + j < n; i++) found &&= i + j < lengthB && a[i] === b[i + j];
        break;
    }
    if (found) r |= 1 << j;
  }
  return r;
};

/** All ones in the units (of 1 or 2 bytes) of the set bits, or the bits themselves. */
const maskOf = (bits: number, n: number, expand: boolean): bigint => {
  if (!expand) return BigInt(bits);
  const width = BigInt(128 / n);
  const ones = (1n << width) - 1n;
  let v = 0n;
  for (let i = n - 1; i >= 0; i--) v = (v << width) | ((bits & (1 << i)) !== 0 ? ones : 0n);
  return v;
};

const compare =
  (explicit: boolean): Helper =>
  (cpu) => {
    const imm = cpu.arg32(4) & 0xff;
    const words = (imm & 1) !== 0;
    const signed = (imm & 2) !== 0;
    const a = units(cpu, S.arg, words, signed);
    const b = units(cpu, S.arg + 16, words, signed);
    const n = a.length;
    const lengthA = explicit ? explicitLength(cpu.arg64(5), n) : implicitLength(a);
    const lengthB = explicit ? explicitLength(cpu.arg64(6), n) : implicitLength(b);
    let r = aggregate((imm >> 2) & 3, a, b, lengthA, lengthB);
    // polarity: negate all, or only the valid units of the second operand
    if ((imm & 0x10) !== 0) r ^= (imm & 0x20) !== 0 ? (1 << lengthB) - 1 : (1 << n) - 1;
    const last = (imm & 0x40) !== 0;
    const index = r === 0 ? n : last ? 31 - Math.clz32(r) : 31 - Math.clz32(r & -r);
    const mask = maskOf(r, n, last);
    cpu.result32(0, index);
    cpu.result64(1, BigInt.asUintN(64, mask));
    cpu.result64(2, mask >> 64n);
    cpu.result32(
      3,
      (r !== 0 ? FLAG.cf : 0) |
        (lengthB < n ? FLAG.zf : 0) |
        (lengthA < n ? FLAG.sf : 0) |
        ((r & 1) !== 0 ? FLAG.of : 0),
    );
    return true;
  };

export const STRING_COMPARE_HELPERS: Readonly<Record<string, Helper>> = {
  compareStrings: compare(false),
  compareStringsExplicit: compare(true),
};
