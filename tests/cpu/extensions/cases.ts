/**
 * Cases for the instruction-set extensions, made from the forms: random registers, prefixes, memory operands and
 * immediates, and states that a kind and a seed stand for (so that a vector need not hold its state).
 */
import { type Random, seededRandom } from '../../../lib/base/random.js';
import type { Form } from '../../../lib/isa/forms.js';
import { FORMS } from '../../../lib/isa/opcodes.js';
import { f80, integer, putData } from '../fpu/cases.js';

/** Offsets and size of `struct state` of `tests/hardware/extension-vectors.c`. */
export const AT = { fx: 0, gpr: 512, rflags: 640, memory: 648, code: 1672, size: 1696 } as const;
export const WINDOW = 0x100c00;
export const WINDOW_BYTES = 1024;

/** What registers and memory hold. */
export const KINDS = ['int', 'f32', 'f64', 'f80', 'text', 'count', 'image', 'save'] as const;
export type Kind = (typeof KINDS)[number];

/** Features whose forms are covered. */
const COVERED = new Set(
  'sse3 ssse3 sse4_1 sse4_2 aes pclmulqdq bmi1 bmi2 popcnt lzcnt movbe adx clflush clflushopt clwb fxsr xsave xsaveopt xsavec'.split(
    ' ',
  ),
);
/** Forms that user code cannot run, or whose result is not the processor's alone. */
const EXCLUDED = /^(xsetbv|xgetbv)$/;
export const COVERED_FORMS: readonly Form[] = FORMS.filter(
  (f) => f.row.feature !== undefined && COVERED.has(f.row.feature) && !EXCLUDED.test(f.row.name),
);

const kindOf = (form: Form): Kind => {
  const { name, feature } = form.row;
  if (/^f?x?rstor$|^fxrstor$/.test(name)) return 'image';
  if (/^f?xsave/.test(name)) return 'save';
  if (name === 'fisttp') return 'f80';
  if (name.startsWith('pcmp') && name.includes('str')) return 'text';
  if (/^(addsub|hadd|hsub|dp|round)/.test(name))
    return /s[sd]$|p[sd]$/.test(name) && name.endsWith('s') ? 'f32' : 'f64';
  return feature === 'bmi1' || feature === 'bmi2' ? 'count' : 'int';
};

const below = (r: Random, n: number): number => r.below(n);
/** Registers that hold addresses in every state: RBX and R13 point into the window, RBP is a small index. */
const BASES = [3, 13] as const;
const PP: Readonly<Record<string, number>> = { np: 0, '66': 1, f3: 2, f2: 3 };

/** The bytes of a random instruction of a form, in 64-bit mode. */
const assemble = (r: Random, form: Form, kind: Kind): number[] => {
  const code: number[] = [];
  const memory = form.modrm && form.mod !== 'reg' && (form.mod === 'mem' || below(r, 2) === 0);
  const w = form.rexW === 'any' ? below(r, 2) : form.rexW;
  let rex = (w << 3) | below(r, 8);
  let modrm = (form.digit >= 0 ? form.digit : below(r, 8)) << 3;
  const rest: number[] = [];
  if (memory) {
    const base = BASES[below(r, 2)];
    const whole = kind === 'image' || kind === 'save';
    rex = (rex & 12) | (base >> 3);
    let disp = whole ? 0 : 16 * (below(r, 9) - 4);
    if (below(r, 8) === 0) disp += whole ? 8 : below(r, 16);
    if (!whole && below(r, 4) === 0) {
      // base + RBP × scale
      modrm |= 0x44;
      rest.push((below(r, 4) << 6) | (5 << 3) | (base & 7));
    } else modrm |= 0x40 | (base & 7);
    rest.push(disp & 0xff);
  } else if (form.exact >= 0) modrm = form.exact;
  else modrm |= 0xc0 | below(r, 8);
  for (const c of form.codes)
    if (c.from === 'immediate') rest.push(below(r, 3) === 0 ? below(r, 20) : below(r, 256));

  if (form.vex) {
    const vvvv = form.codes.some((c) => c.from === 'vvvv') ? below(r, 16) : 15;
    const rxb = ~rex & 7;
    code.push(0xc4, (rxb << 5) | form.map, ((rex & 8) << 4) | (vvvv << 3) | PP[form.prefix]);
  } else {
    if (form.sized && form.prefix !== '66' && form.prefix !== 'np' && below(r, 4) === 0) code.push(0x66);
    if (form.prefix === '66' || form.prefix === 'f2' || form.prefix === 'f3')
      code.push(Number.parseInt(form.prefix, 16));
    if (rex !== 0 || below(r, 2) === 0) code.push(0x40 | rex);
    code.push(0x0f);
    if (form.map > 1) code.push(form.map === 2 ? 0x38 : 0x3a);
  }
  if (!form.vex && form.map === 0) code.splice(code.lastIndexOf(0x0f), 1);
  code.push(form.opcode, ...(form.modrm ? [modrm] : []), ...rest);
  return code;
};

/** A character string in an XMM register or memory: few letters, zeros, sometimes signs. */
const putText = (view: DataView, at: number, r: Random): void => {
  const words = below(r, 2) === 0;
  const letters = [0x61, 0x62, 0x63, 0x7a, 0x80, 0xff, words ? 0x8001 : 0x41];
  const end = below(r, 4) === 0 ? 16 : below(r, 17);
  for (let i = 0; i < 16; i += words ? 2 : 1) {
    const c = i >= end && i < end + 2 ? 0 : letters[below(r, letters.length)];
    if (words) view.setUint16(at + i, c, true);
    else view.setUint8(at + i, c & 0xff);
  }
};
const putVector = (view: DataView, at: number, kind: Kind, r: Random): void => {
  if (kind === 'text') putText(view, at, r);
  else putData(view, at, 16, kind === 'f32' || kind === 'f64' || kind === 'f80' ? kind : 'int', r);
};
/** Control, status, x87 and XMM registers in the format of FXSAVE. */
const putFx = (view: DataView, at: number, kind: Kind, r: Random): void => {
  view.setUint16(at, 0x40 | (below(r, 4) === 0 ? below(r, 64) : 0x3f) | (3 << 8) | (below(r, 4) << 10), true);
  view.setUint16(at + 2, (below(r, 8) << 11) | (r.u32() & 0x4700), true);
  view.setUint8(at + 4, below(r, 3) === 0 ? below(r, 256) : 0xff);
  const masks = below(r, 5) === 0 ? below(r, 64) : 0x3f;
  view.setUint32(
    at + 24,
    (masks << 7) | (below(r, 4) << 13) | (below(r, 4) === 0 ? 0x8000 : 0) | (below(r, 4) === 0 ? 0x40 : 0),
    true,
  );
  view.setUint32(at + 28, 0xffff, true);
  for (let i = 0; i < 8; i++) {
    const [sig, se] = f80(r, false);
    view.setBigUint64(at + 32 + 16 * i, kind === 'f80' ? sig : integer(r), true);
    view.setUint16(at + 40 + 16 * i, kind === 'f80' ? se : 0xffff, true);
  }
  for (let i = 0; i < 16; i++) putVector(view, at + 160 + 16 * i, kind, r);
};
/** An XSAVE area that may be restored, or nearly. */
const putImage = (view: DataView, at: number, r: Random): void => {
  putFx(view, at, 'int', r);
  const compacted = below(r, 2) === 0;
  const format = compacted ? BigInt([3, 3, 1, 2][below(r, 4)]) | (1n << 63n) : 0n;
  const present = BigInt(below(r, 4)) & (compacted && below(r, 8) !== 0 ? format : 3n);
  view.setBigUint64(at + 512, present | (below(r, 12) === 0 ? 1n << 10n : 0n), true);
  view.setBigUint64(at + 520, format | (below(r, 12) === 0 ? 1n << 10n : 0n), true);
  for (let i = 528; i < 576; i += 8) view.setBigUint64(at + i, below(r, 40) === 0 ? 1n : 0n, true);
  if (below(r, 8) === 0) view.setUint32(at + 24, 0x8000_0000, true);
};

/** The state that a kind and a seed stand for, with `code` in its place. */
export const stateOf = (kind: Kind, seed: number, code: readonly number[]): Uint8Array => {
  const r = seededRandom(seed);
  const bytes = new Uint8Array(AT.size);
  const view = new DataView(bytes.buffer);
  putFx(view, AT.fx, kind, r);
  for (let i = 0; i < 16; i++) {
    let v = integer(r);
    if (kind === 'count' && below(r, 2) === 0) v = BigInt(below(r, 80) | (below(r, 80) << 8));
    if (kind === 'text' && below(r, 4) > 0) v = BigInt.asUintN(64, BigInt(below(r, 40) - 20));
    if (kind === 'image' || kind === 'save') v = i === 2 ? 0n : BigInt(below(r, 4));
    view.setBigUint64(AT.gpr + 8 * i, v, true);
  }
  const base = BigInt(WINDOW + 256);
  for (const [i, v] of [
    [3, base],
    [13, base],
    [4, base + 64n],
    [5, 8n],
  ] as const)
    view.setBigUint64(AT.gpr + 8 * i, v, true);
  view.setBigUint64(AT.rflags, 2n | BigInt(r.u32() & 0x8d5), true);
  for (let i = 128; i < 512; i += 16) putVector(view, AT.memory + i, kind, r);
  if (kind === 'image') putImage(view, AT.memory + 256, r);
  if (below(r, 6) === 0) bytes.copyWithin(160 + 32, 160 + 16, 160 + 32);
  bytes.set([code.length, ...code], AT.code);
  return bytes;
};

export interface Case {
  readonly form: Form;
  readonly kind: Kind;
  readonly seed: number;
  readonly code: readonly number[];
}

/** @param count cases of each form; those with many paths get more */
export const extensionCases = (seed: number, count: number): readonly Case[] => {
  const list: Case[] = [];
  for (const form of COVERED_FORMS) {
    const kind = kindOf(form);
    const n = kind === 'text' ? 4 * count : /^(f32|f64|f80|count)$/.test(kind) ? 2 * count : count;
    for (let i = 0; i < n; i++) {
      const r = seededRandom(Math.imul(seed + list.length, 0x9e3779b1) >>> 0);
      const s = r.u32();
      list.push({ form, kind, seed: s, code: assemble(r, form, kind) });
    }
  }
  return list;
};
