/**
 * The file of recorded results: a JSON line about its origin, then for each case which 64-bit words of the state the
 * processor changed, and to what. The cases themselves come from `cases.ts` and the seed.
 */
import { gunzipSync, gzipSync } from 'node:zlib';
import { casesOf, ENCODINGS, type Encoding, TRANSCENDENTAL } from './cases.js';
import { AT } from './machine.js';

export interface Provenance {
  readonly processor: string;
  readonly date: string;
  readonly seed: number;
  /** Cases of each encoding. */
  readonly count: number;
}
export interface Recorded {
  readonly encoding: Encoding;
  readonly given: Uint8Array;
  readonly expected: Uint8Array;
}

export const ALL: readonly Encoding[] = [...ENCODINGS, ...TRANSCENDENTAL];
const WORDS = AT.size / 8;
/** Pointers and opcode of the x87 and the MXCSR mask are not compared; they would only make the file larger. */
const significant = (word: number): bigint =>
  word === 0
    ? 0x0000_00ff_ffff_ffffn
    : word === 1 || word === 2
      ? 0n
      : word === 3
        ? 0xffff_ffffn
        : word === 67
          ? 0x8d5n
          : (1n << 64n) - 1n;

export const encodeVectors = (
  origin: Provenance,
  results: readonly (readonly [given: Uint8Array, expected: Uint8Array])[],
): Uint8Array => {
  const parts: Uint8Array[] = [new TextEncoder().encode(`${JSON.stringify(origin)}\n`)];
  for (const [given, expected] of results) {
    const a = new DataView(given.buffer, given.byteOffset);
    const b = new DataView(expected.buffer, expected.byteOffset);
    const changed: number[] = [];
    for (let word = 0; word < WORDS; word++) {
      const old = word >= AT.code / 8 ? 0n : a.getBigUint64(8 * word, true);
      if (((old ^ b.getBigUint64(8 * word, true)) & significant(word)) !== 0n) changed.push(word);
    }
    const part = new Uint8Array(1 + 9 * changed.length);
    part[0] = changed.length;
    const view = new DataView(part.buffer);
    changed.forEach((word, i) => {
      part[1 + i] = word;
      view.setBigUint64(1 + changed.length + 8 * i, b.getBigUint64(8 * word, true), true);
    });
    parts.push(part);
  }
  return gzipSync(Buffer.concat(parts), { level: 9 });
};

export const decodeVectors = (
  file: Uint8Array,
): { readonly origin: Provenance; readonly cases: readonly Recorded[] } => {
  const bytes = new Uint8Array(gunzipSync(file));
  const end = bytes.indexOf(10);
  const origin = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end))) as Provenance;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const cases: Recorded[] = [];
  let at = end + 1;
  ALL.forEach((encoding, n) => {
    for (const given of casesOf(encoding, origin.seed + n, origin.count)) {
      const expected = given.slice();
      expected.fill(0, AT.code);
      const result = new DataView(expected.buffer);
      const changed = bytes[at++];
      for (let i = 0; i < changed; i++) {
        result.setBigUint64(8 * bytes[at + i], view.getBigUint64(at + changed + 8 * i, true), true);
      }
      at += 9 * changed;
      cases.push({ encoding, given, expected });
    }
  });
  return { origin, cases };
};

/** Units in the last place between two 80-bit values, or Infinity when signs or exponents are far apart. */
const distance = (a: DataView, b: DataView, i: number): number => {
  const value = (v: DataView): bigint =>
    (BigInt(v.getUint16(40 + 16 * i, true) & 0x7fff) << 63n) |
    (v.getBigUint64(32 + 16 * i, true) & 0x7fff_ffff_ffff_ffffn);
  const signs = (a.getUint16(40 + 16 * i, true) ^ b.getUint16(40 + 16 * i, true)) & 0x8000;
  return signs !== 0 ? Infinity : Math.abs(Number(value(a) - value(b)));
};
/** Transcendental results may be a unit in the last place apart, and C1 with them. */
export const nearly = (name: string, expected: Uint8Array, actual: Uint8Array): string[] => {
  const e = new DataView(expected.buffer, expected.byteOffset);
  const a = new DataView(actual.buffer, actual.byteOffset);
  const found: string[] = [];
  const status = (e.getUint16(2, true) ^ a.getUint16(2, true)) & ~0x200;
  if (status !== 0) found.push(`${name}: status differs in ${status.toString(16)}`);
  for (let i = 0; i < 8; i++) {
    const d = distance(e, a, i);
    if (d > 1) found.push(`${name}: st${i} is ${d} units off`);
  }
  return found;
};
