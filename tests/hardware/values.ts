/**
 * The state that a kind and a seed stand for: registers, flags, x87 and SSE state and memory, with many special values.
 * Recorded vectors state what they change in such a state, so that this file is their key: when it changes, they have to
 * be recorded anew.
 */
import { type Random, seededRandom } from '../../lib/base/random.js';
import { AT, CODE, DATA, SELECTOR, WINDOW_A, WINDOW_B } from './layout.js';

/** What registers and memory hold. */
export const KINDS = ['int', 'count', 'text', 'f32', 'f64', 'f80', 'bcd', 'image'] as const;
export type Kind = (typeof KINDS)[number];

const EDGES: readonly (readonly [high: number, low: number])[] = [
  [0, 0],
  [0, 1],
  [0, 0x7f],
  [0, 0x80],
  [0, 0xff],
  [0, 0x7fff],
  [0, 0x8000],
  [0, 0xffff],
  [0, 0x7fff_ffff],
  [0, 0x8000_0000],
  [0, 0xffff_ffff],
  [0x7fff_ffff, 0xffff_ffff],
  [0x8000_0000, 0],
  [0xffff_ffff, 0xffff_ffff],
  [0xffff_ffff, 0xffff_ff80],
  [0x8000_7fff, 0xff80_ffff],
];

const put64 = (view: DataView, at: number, high: number, low: number): void => {
  view.setUint32(at, low, true);
  view.setUint32(at + 4, high, true);
};
const putInteger = (view: DataView, at: number, r: Random): void => {
  switch (r.below(5)) {
    case 0:
      put64(view, at, 0, r.below(70));
      break;
    case 1: {
      const [high, low] = EDGES[r.below(EDGES.length)];
      put64(view, at, high, low);
      break;
    }
    case 2:
      put64(view, at, r.u32() & 0x8080_ffff, r.u32() | 0xff80_7fff);
      break;
    default:
      put64(view, at, r.u32(), r.u32());
  }
};

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
/** High and low 32 bits of a fraction, left-justified in 64 bits. */
const fraction = { high: 0, low: 0 };
const nextFraction = (r: Random): void => {
  fraction.high = 0;
  fraction.low = 0;
  switch (r.below(6)) {
    case 0:
      break;
    case 1:
      fraction.high = 0xffff_ffff;
      fraction.low = 0xffff_ffff;
      break;
    case 2: {
      const bit = r.below(64);
      if (bit >= 32) fraction.high = 1 << (bit - 32);
      else fraction.low = 1 << bit;
      break;
    }
    case 3:
      fraction.high = r.u32() & 0xff00_0000;
      break;
    default:
      fraction.high = r.u32();
      fraction.low = r.u32();
  }
};
const putF32 = (view: DataView, at: number, r: Random): void => {
  const head = (r.below(2) << 31) | (exponent(r, 8) << 23);
  nextFraction(r);
  view.setUint32(at, head | (fraction.high >>> 9), true);
};
const putF64 = (view: DataView, at: number, r: Random): void => {
  const head = (r.below(2) << 31) | (exponent(r, 11) << 20);
  nextFraction(r);
  put64(view, at, head | (fraction.high >>> 12), (fraction.high << 20) | (fraction.low >>> 12));
};
/** @param plain of moderate size */
const putF80 = (view: DataView, at: number, r: Random, plain: boolean): void => {
  const e = plain ? 0x3fff - 40 + r.below(80) : exponent(r, 15);
  const whole = e === 0 ? r.below(12) === 0 : r.below(30) !== 0;
  nextFraction(r);
  put64(
    view,
    at,
    (whole ? 0x8000_0000 : 0) | (fraction.high >>> 1),
    (fraction.high << 31) | (fraction.low >>> 1),
  );
  view.setUint16(at + 8, e | (r.below(2) << 15), true);
};
/** A character string: few letters, zeros, sometimes signs. */
const putText = (view: DataView, at: number, r: Random): void => {
  const wide = r.below(2) === 0;
  const letters = [0x61, 0x62, 0x63, 0x7a, 0x80, 0xff, wide ? 0x8001 : 0x41];
  const end = r.below(4) === 0 ? 16 : r.below(17);
  for (let i = 0; i < 16; i += wide ? 2 : 1) {
    const c = i >= end && i < end + 2 ? 0 : letters[r.below(letters.length)];
    if (wide) view.setUint16(at + i, c, true);
    else view.setUint8(at + i, c & 0xff);
  }
};

/** 16 bytes of a kind. */
export const putVector = (view: DataView, at: number, kind: Kind, r: Random): void => {
  switch (kind) {
    case 'f32':
      for (let i = 0; i < 16; i += 4) putF32(view, at + i, r);
      break;
    case 'f64':
      putF64(view, at, r);
      putF64(view, at + 8, r);
      break;
    case 'f80':
      // the same bytes are read as single, double and extended numbers and as integers
      switch (r.below(4)) {
        case 0:
          putF32(view, at, r);
          putF32(view, at + 4, r);
          break;
        case 1:
          putF64(view, at, r);
          break;
        case 2:
          putInteger(view, at, r);
          break;
        default:
          putF80(view, at, r, false);
      }
      break;
    case 'bcd':
      for (let i = 0; i < 9; i++) view.setUint8(at + i, r.below(10) | (r.below(10) << 4));
      view.setUint8(at + 9, r.below(2) << 7);
      break;
    case 'text':
      putText(view, at, r);
      break;
    default:
      putInteger(view, at, r);
      putInteger(view, at + 8, r);
  }
};

const F80_KINDS: readonly Kind[] = ['f80', 'bcd'];
/** Control, status, x87 and XMM registers in the format of FXSAVE. `at` is a multiple of 16 of the view. */
export const putFx = (view: DataView, at: number, kind: Kind, r: Random): void => {
  const x87 = F80_KINDS.includes(kind);
  const masks = r.below(4) === 0 ? r.below(64) : 0x3f;
  const precision = r.below(3) === 0 ? [0, 2, 3][r.below(3)] : 3;
  view.setUint16(at, 0x40 | masks | (precision << 8) | (r.below(4) << 10), true);
  // sometimes exceptions are flagged before, and pending when they are not masked
  const flagged = r.below(6) === 0 ? r.below(128) : 0;
  const pending = (flagged & ~masks & 0x3f) !== 0 ? 0x8080 : 0;
  view.setUint16(at + 2, (r.below(8) << 11) | (r.u32() & 0x4700) | flagged | pending, true);
  view.setUint16(at + 4, r.below(x87 ? 4 : 3) === 0 ? r.below(256) : 0xff, true);
  view.setUint32(
    at + 24,
    ((r.below(5) === 0 ? r.below(64) : 0x3f) << 7) |
      (r.below(4) << 13) |
      (r.below(4) === 0 ? 0x8000 : 0) |
      (r.below(4) === 0 ? 0x40 : 0) |
      (r.below(3) === 0 ? r.below(64) : 0),
    true,
  );
  view.setUint32(at + 28, 0xffff, true);
  const plain = r.below(3) === 0;
  for (let i = 0; i < 8; i++) {
    const place = at + 32 + 16 * i;
    if (x87) putF80(view, place, r, plain);
    else {
      putInteger(view, place, r);
      view.setUint16(place + 8, 0xffff, true);
    }
  }
  if (x87 && r.below(6) === 0) {
    // equal or nearly equal operands
    for (let i = 0; i < 10; i++) view.setUint8(at + 48 + i, view.getUint8(at + 32 + i));
    if (r.below(2) === 0) view.setUint8(at + 48, view.getUint8(at + 48) ^ 1);
    if (r.below(2) === 0) view.setUint8(at + 57, view.getUint8(at + 57) ^ 0x80);
  }
  const data = x87 ? 'int' : kind;
  for (let i = 0; i < 16; i++) putVector(view, at + 160 + 16 * i, data, r);
};

/** An XSAVE area that may be restored, or nearly. */
export const putImage = (view: DataView, at: number, r: Random): void => {
  for (let i = 0; i < 512; i += 4) view.setUint32(at + i, 0, true);
  putFx(view, at, r.below(2) === 0 ? 'f80' : 'int', r);
  const compacted = r.below(2) === 0;
  const format = compacted ? [3, 3, 1, 2][r.below(4)] : 0;
  const present = r.below(4) & (compacted && r.below(8) !== 0 ? format : 3);
  put64(view, at + 512, 0, present | (r.below(12) === 0 ? 1 << 10 : 0));
  put64(view, at + 520, compacted ? 0x8000_0000 : 0, format | (r.below(12) === 0 ? 1 << 10 : 0));
  for (let i = 528; i < 576; i += 8) put64(view, at + i, 0, r.below(40) === 0 ? 1 : 0);
  if (r.below(8) === 0) view.setUint32(at + 24, 0x8000_0000, true);
};

/** Where code lies unless a case wants it elsewhere. */
export const CODE_AT = CODE + 0x800;

/** Fills `bytes` (`AT.size`) with the state of a kind and a seed in a mode; there is no code in it. */
export const fillState = (bytes: Uint8Array, kind: Kind, seed: number, mode: 64 | 32): void => {
  const r = seededRandom(seed);
  const view = new DataView(bytes.buffer, bytes.byteOffset, AT.size);
  bytes.fill(0, 416, 512);
  putFx(view, AT.fx, kind, r);
  for (let i = 0; i < 8; i++) view.setUint32(AT.fx + 8 + (i & 3) * 4, 0, true);
  for (let i = 0; i < 8; i++) {
    view.setUint16(AT.fx + 42 + 16 * i, 0, true);
    view.setUint32(AT.fx + 44 + 16 * i, 0, true);
  }
  for (let i = 0; i < 16; i++) {
    const at = AT.gpr + 8 * i;
    putInteger(view, at, r);
    if (kind === 'count' && r.below(2) === 0) put64(view, at, 0, r.below(80) | (r.below(80) << 8));
    else if (kind === 'text' && r.below(4) > 0) {
      const v = r.below(40) - 20;
      put64(view, at, v < 0 ? 0xffff_ffff : 0, v);
    } else if (kind === 'image' && r.below(4) > 0) put64(view, at, 0, r.below(4));
  }
  if (mode === 32) for (let i = 0; i < 16; i++) view.setUint32(AT.gpr + 8 * i + 4, 0, true);
  if (mode === 32) bytes.fill(0, AT.gpr + 64, AT.gpr + 128);
  put64(view, AT.rflags, 0, 0x202 | (r.u32() & 0x8d5) | (r.below(8) === 0 ? 0x400 : 0));
  put64(view, AT.rip, 0, CODE_AT);
  const wide = mode === 64;
  put64(view, AT.fsBase, wide ? r.below(3) : 0, wide ? r.below(DATA) : 0);
  put64(view, AT.gsBase, 0, wide && r.below(2) === 0 ? r.below(DATA) : 0);
  bytes.fill(0, AT.vector, AT.memory);
  bytes[AT.mode] = mode;
  for (let i = 0; i < 4; i++) view.setUint16(AT.selectors + 2 * i, wide ? 0 : SELECTOR.data, true);
  if (kind === 'int' || kind === 'count') {
    for (let at = AT.memory; at < AT.size; at += 4) view.setUint32(at, r.u32(), true);
  } else {
    const vectors = kind === 'image' ? 'int' : kind;
    for (let at = AT.memory; at < AT.size; at += 16) {
      if (F80_KINDS.includes(kind)) for (let i = 0; i < 16; i += 4) view.setUint32(at + i, r.u32(), true);
      putVector(view, at, vectors, r);
    }
  }
  if (kind === 'image') {
    for (let i = 0; i < 4; i++) putImageAt(view, i, r);
  }
  if (r.below(6) === 0) bytes.copyWithin(160 + 32, 160 + 16, 160 + 32);
};
/** Images lie at the start of window A and at the 64-byte boundaries of window B. */
const putImageAt = (view: DataView, i: number, r: Random): void => {
  if (i === 0) putImage(view, WINDOW_B.place, r);
  else if (i === 1 && r.below(2) === 0) putImage(view, WINDOW_B.place + 64 * (1 + r.below(3)), r);
  else if (i === 2) putFx(view, WINDOW_A.place, r.below(2) === 0 ? 'f80' : 'int', r);
};
