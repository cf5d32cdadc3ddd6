/** What differs between what the processor made of a case and what an engine did, with the masks of `masks.ts`. */
import { ARITHMETIC_FLAGS, FLAG, GPR_NAMES } from '../../lib/isa/state.js';
import { undefinedAtEnd } from './cases.js';
import { AT, placeOf, WINDOW_A, WINDOW_B } from './layout.js';
import { instructionsOf, MASKS, type Seen } from './masks.js';

/** RF is in the flags that a fault pushes, and not in ours. */
const FLAGS = ARITHMETIC_FLAGS | FLAG.df | FLAG.nt | FLAG.ac | FLAG.id | FLAG.tf;

/** Bytes that are compared unless an instruction's masks say otherwise. */
const standard = (mode: number): Uint8Array => {
  const keep = new Uint8Array(AT.size).fill(0xff);
  const hide = (at: number, bytes: number): void => {
    keep.fill(0, at, at + bytes);
  };
  // x87 pointers and opcode, reserved bytes
  hide(5, 19);
  hide(28, 4);
  for (let i = 0; i < 8; i++) hide(42 + 16 * i, 6);
  hide(416, 96);
  hide(AT.rflags, 8);
  for (let i = 0; i < 4; i++) keep[AT.rflags + i] = (FLAGS >> (8 * i)) & 0xff;
  hide(AT.mode, 2);
  hide(AT.code, AT.memory - AT.code);
  if (mode === 32) {
    for (let i = 0; i < 8; i++) hide(AT.gpr + 8 * i + 4, 4);
    hide(AT.gpr + 64, 64);
    // XMM8 to XMM15 and the bases stay as they are
    hide(AT.fsBase, 16);
  }
  return keep;
};
const STANDARD = { 64: standard(64), 32: standard(32) } as const;
/** Bytes that are ever compared in a mode. */
export const standardKeep = (mode: 64 | 32): Uint8Array => STANDARD[mode];
const words = (bytes: Uint8Array): Uint32Array =>
  new Uint32Array(bytes.buffer, bytes.byteOffset, AT.size / 4);
const STANDARD_WORDS = { 64: words(STANDARD[64]), 32: words(STANDARD[32]) } as const;

/** Whether two results are the same but for what is never compared. Both must be 4-byte aligned. */
export const equal = (mode: number, expected: Uint32Array, actual: Uint32Array): boolean => {
  const keep = mode === 64 ? STANDARD_WORDS[64] : STANDARD_WORDS[32];
  for (let i = 0; i < keep.length; i++) if (((expected[i] ^ actual[i]) & keep[i]) !== 0) return false;
  return true;
};

/** Units in the last place between two 80-bit values, or Infinity. */
const distance = (a: DataView, b: DataView, at: number): number => {
  if (((a.getUint16(at + 8, true) ^ b.getUint16(at + 8, true)) & 0x8000) !== 0) return Infinity;
  const value = (v: DataView): bigint =>
    (BigInt(v.getUint16(at + 8, true) & 0x7fff) << 63n) | (v.getBigUint64(at, true) & 0x7fff_ffff_ffff_ffffn);
  const d = value(a) - value(b);
  return Number(d < 0n ? -d : d);
};

/** The bytes that are compared of a case, with the masks of its instructions. */
export const keepOf = (given: Uint8Array, expected: Uint8Array, actual: Uint8Array): Uint8Array => {
  const mode = given[AT.mode] === 64 ? 64 : 32;
  const keep = STANDARD[mode].slice();
  const insns = instructionsOf(given);
  const view = (b: Uint8Array): DataView => new DataView(b.buffer, b.byteOffset, AT.size);
  const [g, e, a] = [view(given), view(expected), view(actual)];
  const flags = (mask: number): void => {
    for (let i = 0; i < 4; i++) keep[AT.rflags + i] &= ~(mask >>> (8 * i));
  };
  flags(undefinedAtEnd(insns));
  // Linux says "present" of every fault on an address of its own half
  if (e.getInt32(AT.vector, true) === 14 && e.getUint8(AT.cr2 + 7) >= 0x80) keep[AT.error] &= ~1;
  // an interrupt of the host between the instruction and the look at it: IRET clears selectors of null segments
  for (let at = AT.selectors; at < AT.selectors + 8; at += 2)
    if (e.getUint16(at, true) === 0 && a.getUint16(at, true) <= 3) keep.fill(0, at, at + 2);
  for (const [, insn] of insns) {
    const seen: Seen = {
      insn,
      given: g,
      expected: e,
      actual: a,
      keep,
      hide: (at, bytes) => {
        keep.fill(0, at, at + bytes);
      },
      flags,
      gpr: (i) => {
        keep.fill(0, AT.gpr + 8 * i, AT.gpr + 8 * i + 8);
      },
      memory: (at, bytes) => {
        for (let i = 0; i < bytes; i++) {
          const place = placeOf(Number(BigInt.asUintN(52, at)) + i);
          if (place >= 0) keep[place] = 0;
        }
        // images may reach beyond a window
        keep.fill(0, AT.outside, AT.code);
      },
      near: (units) => {
        for (let i = 0; i < 8; i++)
          if (distance(e, a, 32 + 16 * i) <= units) keep.fill(0, 32 + 16 * i, 48 + 16 * i);
      },
    };
    for (const m of MASKS) if (m.rows.test(insn.row.name) && m.when?.(seen) !== false) m.hide(seen);
  }
  return keep;
};

const nameOf = (at: number): string => {
  if (at < 2) return 'fcw';
  if (at < 4) return 'fsw';
  if (at < 8) return 'ftw';
  if (at < 32) return 'mxcsr';
  if (at < 160) return `st${(at - 32) >> 4}`;
  if (at < 512) return `xmm${(at - 160) >> 4}`;
  if (at < AT.rflags) return GPR_NAMES[(at - AT.gpr) >> 3];
  if (at < AT.rip) return 'rflags';
  if (at < AT.fsBase) return 'rip';
  if (at < AT.gsBase) return 'fs base';
  if (at < AT.vector) return 'gs base';
  if (at < AT.error) return 'vector';
  if (at < AT.cr2) return 'error code';
  if (at < AT.mode) return 'cr2';
  if (at < AT.outside) return `selector ${['es', 'ds', 'fs', 'gs'][(at - AT.selectors) >> 1]}`;
  if (at < AT.code) return 'memory outside the windows';
  const w = at < WINDOW_B.place ? WINDOW_A : WINDOW_B;
  return `memory ${(w.at + at - w.place).toString(16)}`;
};

/** Differences as text, one a field; empty when the results agree. */
export const differences = (given: Uint8Array, expected: Uint8Array, actual: Uint8Array): string[] => {
  const keep = keepOf(given, expected, actual);
  const found: string[] = [];
  const hex = (b: Uint8Array, from: number, to: number): string =>
    [...b.subarray(from, to)]
      .reverse()
      .map((v) => v.toString(16).padStart(2, '0'))
      .join('');
  for (let at = 0; at < AT.size; at++) {
    if (((expected[at] ^ actual[at]) & keep[at]) === 0) continue;
    const name = nameOf(at);
    let end = at + 1;
    while (end < AT.size && nameOf(end) === name && end - at < 16) end++;
    let start = at;
    while (start > 0 && nameOf(start - 1) === name) start--;
    found.push(`${name}: ${hex(actual, start, end)}, hardware ${hex(expected, start, end)}`);
    at = end - 1;
  }
  return found;
};
