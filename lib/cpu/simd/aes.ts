/**
 * Helpers of AES-NI over the 64-bit parts of state and round key.
 *
 * FIPS 197, "Advanced Encryption Standard"; SDM volume 2, AESENC, AESDEC, AESIMC, AESKEYGENASSIST. Byte 0 of a vector is
 * row 0, column 0 of the state, byte 1 row 1. The S-box is computed from its definition when the module is loaded.
 */
import { S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper } from '../helpers.js';

/** Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. */
const multiply = (a: number, b: number): number => {
  let r = 0;
  let x = a;
  for (let y = b; y !== 0; y >>= 1) {
    if ((y & 1) !== 0) r ^= x;
    x = (x << 1) ^ ((x & 0x80) !== 0 ? 0x11b : 0);
  }
  return r;
};
const SBOX = new Uint8Array(256);
const INVERSE = new Uint8Array(256);
/** Products of each byte by a constant of MixColumns or its inverse. */
const times = (k: number): Uint8Array => Uint8Array.from({ length: 256 }, (_, i) => multiply(i, k));
for (let i = 0; i < 256; i++) {
  let inverse = 0;
  while (i !== 0 && multiply(i, inverse) !== 1) inverse++;
  let s = 0x63;
  for (let k = 0; k < 5; k++) s ^= ((inverse << k) | (inverse >> (8 - k))) & 0xff;
  SBOX[i] = s;
  INVERSE[s] = i;
}
const BY = { 2: times(2), 3: times(3), 9: times(9), 11: times(11), 13: times(13), 14: times(14) } as const;

/** Where byte i of the result comes from: rows are rotated left by their number (ShiftRows), or right. */
const SHIFTED = Array.from({ length: 16 }, (_, i) => (i + 4 * (i & 3)) & 15);
const UNSHIFTED = Array.from({ length: 16 }, (_, i) => (i - 4 * (i & 3)) & 15);

const scratch = new Uint8Array(16);

/** The bytes of the argument at `index`, as they lie in memory. */
const bytes = (cpu: Cpu, offset: number): Uint8Array => {
  const at = cpu.at + offset;
  return cpu.ram.u8.subarray(at, at + 16);
};

const substitute = (state: Uint8Array, from: readonly number[], box: Uint8Array): void => {
  for (let i = 0; i < 16; i++) scratch[i] = box[state[from[i]]];
};
const mixColumns = (out: Uint8Array, a: Uint8Array): void => {
  const { 2: two, 3: three } = BY;
  for (let c = 0; c < 16; c += 4) {
    const [w, x, y, z] = [a[c], a[c + 1], a[c + 2], a[c + 3]];
    out[c] = two[w] ^ three[x] ^ y ^ z;
    out[c + 1] = w ^ two[x] ^ three[y] ^ z;
    out[c + 2] = w ^ x ^ two[y] ^ three[z];
    out[c + 3] = three[w] ^ x ^ y ^ two[z];
  }
};
const unmixColumns = (out: Uint8Array, a: Uint8Array): void => {
  const { 9: t9, 11: t11, 13: t13, 14: t14 } = BY;
  for (let c = 0; c < 16; c += 4) {
    const [w, x, y, z] = [a[c], a[c + 1], a[c + 2], a[c + 3]];
    out[c] = t14[w] ^ t11[x] ^ t13[y] ^ t9[z];
    out[c + 1] = t9[w] ^ t14[x] ^ t11[y] ^ t13[z];
    out[c + 2] = t13[w] ^ t9[x] ^ t14[y] ^ t11[z];
    out[c + 3] = t11[w] ^ t13[x] ^ t9[y] ^ t14[z];
  }
};

type Mix = (out: Uint8Array, a: Uint8Array) => void;
const copy: Mix = (out, a) => out.set(a);

/** Arguments: state, round key. */
const round =
  (from: readonly number[], box: Uint8Array, mix: Mix): Helper =>
  (cpu) => {
    const out = bytes(cpu, S.result);
    substitute(bytes(cpu, S.arg), from, box);
    mix(out, scratch);
    const key = bytes(cpu, S.arg + 16);
    for (let i = 0; i < 16; i++) out[i] ^= key[i];
    return true;
  };

const aesimc: Helper = (cpu) => {
  unmixColumns(bytes(cpu, S.result), bytes(cpu, S.arg));
  return true;
};

/** Arguments: source, round constant. Words 1 and 3 are substituted, then also rotated. */
const aeskeygenassist: Helper = (cpu) => {
  const a = bytes(cpu, S.arg);
  const out = bytes(cpu, S.result);
  const constant = cpu.arg32(2) & 0xff;
  for (let half = 0; half < 16; half += 8) {
    const word = half + 4;
    for (let i = 0; i < 4; i++) {
      out[half + i] = SBOX[a[word + i]];
      out[word + i] = SBOX[a[word + ((i + 1) & 3)]];
    }
    out[word] ^= constant;
  }
  return true;
};

export const AES_HELPERS: Readonly<Record<string, Helper>> = {
  aesenc: round(SHIFTED, SBOX, mixColumns),
  aesenclast: round(SHIFTED, SBOX, copy),
  aesdec: round(UNSHIFTED, INVERSE, unmixColumns),
  aesdeclast: round(UNSHIFTED, INVERSE, copy),
  aesimc,
  aeskeygenassist,
};
