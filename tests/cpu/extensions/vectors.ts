/**
 * The file of recorded results: a JSON line about its origin, then for each vector its kind, seed and code, and which
 * 64-bit words of the state the processor changed, and to what.
 */
import { gunzipSync, gzipSync } from 'node:zlib';
import { AT, type Case, KINDS, stateOf } from './cases.js';
import { significant } from './machine.js';

export interface Provenance {
  readonly processor: string;
  readonly date: string;
  readonly vectors: number;
}
export interface Recorded {
  readonly code: Uint8Array;
  readonly given: Uint8Array;
  readonly expected: Uint8Array;
}

const WORDS = AT.size / 8;
const before = (given: DataView, word: number): bigint =>
  8 * word >= AT.code ? 0n : given.getBigUint64(8 * word, true);

export const encodeVectors = (
  origin: Omit<Provenance, 'vectors'>,
  results: readonly (readonly [c: Case, expected: Uint8Array])[],
): Uint8Array => {
  const head = `${JSON.stringify({ ...origin, vectors: results.length })}\n`;
  const parts: Uint8Array[] = [new TextEncoder().encode(head)];
  for (const [c, expected] of results) {
    const a = new DataView(stateOf(c.kind, c.seed, c.code).buffer);
    const b = new DataView(expected.buffer, expected.byteOffset);
    const changed: number[] = [];
    for (let w = 0; w < WORDS; w++)
      if (((before(a, w) ^ b.getBigUint64(8 * w, true)) & significant(8 * w)) !== 0n) changed.push(w);
    const part = new Uint8Array(7 + c.code.length + 9 * changed.length);
    const view = new DataView(part.buffer);
    view.setUint8(0, KINDS.indexOf(c.kind));
    view.setUint32(1, c.seed, true);
    view.setUint8(5, c.code.length);
    part.set(c.code, 6);
    let at = 6 + c.code.length;
    view.setUint8(at++, changed.length);
    for (const w of changed) {
      view.setUint8(at, w);
      view.setBigUint64(at + 1, b.getBigUint64(8 * w, true), true);
      at += 9;
    }
    parts.push(part);
  }
  return gzipSync(Buffer.concat(parts), { level: 9 });
};

export const decodeVectors = (
  file: Uint8Array,
): { readonly origin: Provenance; readonly vectors: readonly Recorded[] } => {
  const bytes = new Uint8Array(gunzipSync(file));
  let at = bytes.indexOf(10) + 1;
  const origin = JSON.parse(new TextDecoder().decode(bytes.subarray(0, at))) as Provenance;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const vectors: Recorded[] = [];
  while (at < bytes.length) {
    const kind = KINDS[view.getUint8(at)];
    const seed = view.getUint32(at + 1, true);
    const length = view.getUint8(at + 5);
    const code = bytes.slice(at + 6, at + 6 + length);
    at += 6 + length;
    const given = stateOf(kind, seed, [...code]);
    const expected = given.slice();
    expected.fill(0, AT.code);
    const result = new DataView(expected.buffer);
    const changed = view.getUint8(at++);
    for (let i = 0; i < changed; i++, at += 9)
      result.setBigUint64(8 * view.getUint8(at), view.getBigUint64(at + 1, true), true);
    vectors.push({ code, given, expected });
  }
  return { origin, vectors };
};
