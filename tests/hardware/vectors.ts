/**
 * The file of recorded results, `data/vectors/hardware.bin.gz`: a JSON line about its origin, then for each vector the
 * kind, seed and mode of its state, the code, the 64-bit words in which the case differs from that state, and those in
 * which the result differs from the case.
 */
import { gunzipSync, gzipSync } from 'node:zlib';
import { standardKeep } from './compare.js';
import { AT } from './layout.js';
import { fillState, KINDS, type Kind } from './values.js';

export interface Provenance {
  readonly processor: string;
  readonly date: string;
  readonly vectors: number;
}
export interface Vector {
  readonly mode: 64 | 32;
  readonly code: Uint8Array;
  readonly given: Uint8Array;
  readonly expected: Uint8Array;
}
/** A case before it is encoded. */
export interface Recorded {
  readonly kind: Kind;
  readonly seed: number;
  readonly given: Uint8Array;
  readonly expected: Uint8Array;
}

const WORDS = AT.size / 8;
const LEGACY = 0x80;

const view = (b: Uint8Array): DataView => new DataView(b.buffer, b.byteOffset, AT.size);

/** What a result is when nothing happens: the case, with RIP behind the code and no fault. */
const quiet = (given: Uint8Array): Uint8Array => {
  const out = given.slice();
  const v = view(out);
  v.setBigUint64(AT.rip, v.getBigUint64(AT.rip, true) + BigInt(given[AT.length]), true);
  v.setInt32(AT.vector, -1, true);
  v.setInt32(AT.error, -1, true);
  return out;
};

const changes = (from: Uint8Array, to: Uint8Array, skip: (word: number) => boolean): Uint8Array => {
  const a = view(from);
  const b = view(to);
  const changed: number[] = [];
  for (let w = 0; w < WORDS; w++)
    if (!skip(w) && a.getBigUint64(8 * w, true) !== b.getBigUint64(8 * w, true)) changed.push(w);
  const part = new Uint8Array(1 + 9 * changed.length);
  part[0] = changed.length;
  const out = new DataView(part.buffer);
  changed.forEach((w, i) => {
    part[1 + i] = w;
    out.setBigUint64(1 + changed.length + 8 * i, b.getBigUint64(8 * w, true), true);
  });
  return part;
};
const CODE_WORDS = [AT.mode / 8, AT.memory / 8] as const;
const isCode = (word: number): boolean => word >= CODE_WORDS[0] + 2 && word < CODE_WORDS[1];

export const encodeVectors = (origin: Omit<Provenance, 'vectors'>, list: readonly Recorded[]): Uint8Array => {
  const head = `${JSON.stringify({ ...origin, vectors: list.length })}\n`;
  const parts: Uint8Array[] = [new TextEncoder().encode(head)];
  const state = new Uint8Array(AT.size);
  for (const { kind, seed, given, expected } of list) {
    const mode = given[AT.mode] === 64 ? 64 : 32;
    fillState(state, kind, seed, mode);
    const length = given[AT.length];
    state[AT.length] = length;
    const code = given.slice(AT.code, AT.code + length);
    const keep = standardKeep(mode);
    const before = quiet(given);
    // what is never compared is not stored
    const after = expected.map((v, i) => (v & keep[i]) | (before[i] & ~keep[i]));
    const start = new Uint8Array(6 + length);
    start[0] = KINDS.indexOf(kind) | (mode === 64 ? 0 : LEGACY);
    new DataView(start.buffer).setUint32(1, seed, true);
    start[5] = length;
    start.set(code, 6);
    parts.push(start, changes(state, given, isCode), changes(before, after, isCode));
  }
  return gzipSync(Buffer.concat(parts), { level: 9 });
};

export const decodeVectors = (
  file: Uint8Array,
): { readonly origin: Provenance; readonly vectors: readonly Vector[] } => {
  const bytes = new Uint8Array(gunzipSync(file));
  let at = bytes.indexOf(10) + 1;
  const origin = JSON.parse(new TextDecoder().decode(bytes.subarray(0, at))) as Provenance;
  const data = new DataView(bytes.buffer);
  const apply = (to: Uint8Array): void => {
    const count = bytes[at++];
    const out = view(to);
    for (let i = 0; i < count; i++)
      out.setBigUint64(8 * bytes[at + i], data.getBigUint64(at + count + 8 * i, true), true);
    at += 9 * count;
  };
  const vectors: Vector[] = [];
  while (at < bytes.length) {
    const kind = KINDS[bytes[at] & ~LEGACY];
    const mode = (bytes[at] & LEGACY) !== 0 ? 32 : 64;
    const seed = data.getUint32(at + 1, true);
    const length = bytes[at + 5];
    const code = bytes.slice(at + 6, at + 6 + length);
    at += 6 + length;
    const given = new Uint8Array(AT.size);
    fillState(given, kind, seed, mode);
    given[AT.length] = length;
    given.set(code, AT.code);
    apply(given);
    const expected = quiet(given);
    apply(expected);
    vectors.push({ mode, code, given, expected });
  }
  return { origin, vectors };
};
