/**
 * The instruction decoder: bytes to `Insn`, driven by the opcode maps.
 *
 * SDM volume 2, chapter 2, "Instruction Format": legacy prefixes, REX, opcode maps, ModRM and SIB, displacements and
 * immediates, in 16-, 32- and 64-bit code. VEX is decoded for forms with VEX.L = 0; EVEX and XOP have none, so their
 * bytes are undefined. The last of several prefixes of a group counts; 64-bit mode ignores CS, DS, ES and SS overrides; near branches of 64-bit mode
 * ignore 66 (Intel's behaviour). Whether real or virtual-8086 mode forbids a form (`protected`) is left to the engine.
 */
import { type Form, type FormOperand, oddBytes, typeWidth } from './forms.js';
import { entryIndex, FORMS, OPCODES, VEX_MAPS } from './opcodes.js';
import type { Decode, Decoded, Insn, InsnOperand, MemoryOperand } from './rows.js';
import { SEG } from './state.js';
import type { Condition, Width } from './verbs.js';

/** Longest instruction, in bytes. */
export const MAX_LENGTH = 15;

// What the first byte of an instruction may be besides an opcode.
const PREFIX = { none: 0, size: 1, address: 2, lock: 3, repne: 4, rep: 5, segment: 6, rex: 7 } as const;
const PREFIXES = new Uint8Array(256);
PREFIXES[0x66] = PREFIX.size;
PREFIXES[0x67] = PREFIX.address;
PREFIXES[0xf0] = PREFIX.lock;
PREFIXES[0xf2] = PREFIX.repne;
PREFIXES[0xf3] = PREFIX.rep;
for (const b of [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65]) PREFIXES[b] = PREFIX.segment;
for (let b = 0x40; b < 0x50; b++) PREFIXES[b] = PREFIX.rex;
const segmentOf = (prefix: number): number => (prefix >= 0x64 ? prefix - 0x60 : (prefix >> 3) & 3);

// Operands that do not change are made once.
type Table<T> = readonly (readonly T[])[];
const perWidth = <T>(make: (w: Width) => T): readonly T[] => {
  const list: T[] = [];
  for (const w of [8, 16, 32, 64] as const) list[w] = make(w);
  return list;
};
const sixteen = <T>(make: (i: number) => T): readonly T[] => Array.from({ length: 16 }, (_, i) => make(i));
const REG: Table<InsnOperand> = perWidth((w) => sixteen((index) => ({ kind: 'reg', w, index })));
const REG_FIXED: Table<InsnOperand> = perWidth((w) =>
  sixteen((index) => ({ kind: 'reg', w, index, fixed: true })),
);
/** Byte registers by encoding without REX: 4 to 7 are AH, CH, DH, BH. */
const REG8_LEGACY = sixteen(
  (i): InsnOperand => (i < 4 || i > 7 ? REG[8][i] : { kind: 'reg', w: 8, index: i - 4, high: true }),
);
const HIGH_FIXED = sixteen((index): InsnOperand => ({ kind: 'reg', w: 8, index, high: true, fixed: true }));
const SYSTEM = {
  seg: perWidth((w) => sixteen((index): InsnOperand => ({ kind: 'seg', w, index }))),
  cr: perWidth((w) => sixteen((index): InsnOperand => ({ kind: 'cr', w, index }))),
  dr: perWidth((w) => sixteen((index): InsnOperand => ({ kind: 'dr', w, index }))),
  st: perWidth((w) => sixteen((index): InsnOperand => ({ kind: 'st', w, index }))),
};
const XMM = sixteen((index): InsnOperand => ({ kind: 'xmm', w: 128, index }));
const MMX = sixteen((index): InsnOperand => ({ kind: 'mmx', w: 64, index: index & 7 }));
const MEM: readonly InsnOperand[] = (() => {
  const list: InsnOperand[] = [];
  for (const w of [8, 16, 32, 64, 128] as const) list[w] = { kind: 'mem', w };
  return list;
})();

const BASES16 = [3, 3, 5, 5, 6, 7, 5, 3];
const INDEXES16 = [6, 7, 6, 7, -1, -1, -1, -1];

/** Scratch of the decoding under way; a decode never calls back. */
const at = {
  bytes: new Uint8Array(0) as Uint8Array,
  pos: 0,
  limit: 0,
  rex: 0,
  mode: 64 as 16 | 32 | 64,
  aw: 64 as 16 | 32 | 64,
  w: 64 as Width,
  modrm: 0,
  opcode: 0,
  override: -1,
  short: false,
};

const take = (n: number): number => {
  const p = at.pos;
  if (p + n > at.limit) {
    at.short = true;
    return -1;
  }
  at.pos = p + n;
  return p;
};
const read8 = (): number => {
  const p = take(1);
  return p < 0 ? 0 : (at.bytes[p] << 24) >> 24;
};
const read16 = (): number => {
  const p = take(2);
  return p < 0 ? 0 : ((at.bytes[p] | (at.bytes[p + 1] << 8)) << 16) >> 16;
};
const read32 = (): number => {
  const p = take(4);
  if (p < 0) return 0;
  const b = at.bytes;
  return b[p] | (b[p + 1] << 8) | (b[p + 2] << 16) | (b[p + 3] << 24);
};
const read64 = (): bigint => {
  const low = read32() >>> 0;
  const high = read32() >>> 0;
  return (BigInt(high) << 32n) | BigInt(low);
};

const address = (): MemoryOperand => {
  const mod = at.modrm >> 6;
  const rm = at.modrm & 7;
  let base = -1;
  let index = -1;
  let scale: 0 | 1 | 2 | 3 = 0;
  let disp = 0;
  if (at.aw === 16) {
    if (mod === 0 && rm === 6) disp = read16();
    else {
      base = BASES16[rm];
      index = INDEXES16[rm];
      if (mod === 1) disp = read8();
      else if (mod === 2) disp = read16();
    }
  } else {
    let low = rm;
    if (rm === 4) {
      const p = take(1);
      const sib = p < 0 ? 0 : at.bytes[p];
      scale = (sib >> 6) as 0 | 1 | 2 | 3;
      index = ((sib >> 3) & 7) | ((at.rex & 2) << 2);
      if (index === 4) {
        index = -1;
        scale = 0;
      }
      low = sib & 7;
    }
    if (mod === 0 && low === 5) {
      disp = read32();
      if (rm === 5 && at.mode === 64) base = -2;
    } else {
      base = low | ((at.rex & 1) << 3);
      if (mod === 1) disp = read8();
      else if (mod === 2) disp = read32();
    }
  }
  const seg = at.override >= 0 ? at.override : base === 4 || base === 5 ? SEG.ss : SEG.ds;
  return { base, index, scale, disp, seg };
};

const moffs = (): MemoryOperand => {
  const seg = at.override >= 0 ? at.override : SEG.ds;
  if (at.aw === 64) {
    const offset = read64();
    return { base: -1, index: -1, scale: 0, disp: 0, moffs: offset, seg };
  }
  return { base: -1, index: -1, scale: 0, disp: at.aw === 16 ? read16() & 0xffff : read32(), seg };
};

const memoryOperand = (op: FormOperand): InsnOperand => {
  const w = typeWidth(op.memoryType, at.w);
  const bytes = oddBytes(op.memoryType, at.w, at.mode);
  return bytes === 0 ? MEM[w] : { kind: 'mem', w, bytes };
};

const unsigned = (v: number, w: Width): bigint => (v >= 0 ? BigInt(v) : BigInt.asUintN(w, BigInt(v)));

const immediate = (op: FormOperand): InsnOperand => {
  const w = at.w;
  if (op.kind === 'rel') {
    const value = op.type === 'b' ? read8() : w === 16 ? read16() : read32();
    return { kind: 'rel', w, value };
  }
  if (op.kind === 'far') {
    const offset = w === 16 ? read16() & 0xffff : read32() >>> 0;
    return { kind: 'far', w, offset, selector: read16() & 0xffff };
  }
  switch (op.type) {
    case 'b':
      return { kind: 'imm', w: 8, value: BigInt(read8() & 0xff) };
    case 'bs':
      return { kind: 'imm', w, value: unsigned(read8(), w) };
    case 'w':
      return { kind: 'imm', w: 16, value: BigInt(read16() & 0xffff) };
    case 'v':
      if (w === 64) return { kind: 'imm', w, value: read64() };
      return { kind: 'imm', w, value: unsigned(w === 16 ? read16() : read32(), w) };
    case 'z':
      return { kind: 'imm', w, value: unsigned(w === 16 ? read16() : read32(), w) };
    case 'q':
      return { kind: 'imm', w: 64, value: read64() };
    default:
      return { kind: 'imm', w: 32, value: unsigned(read32(), 32) };
  }
};

const general = (index: number, w: 8 | 16 | 32 | 64 | 128): InsnOperand =>
  w === 8 && at.rex === 0 ? REG8_LEGACY[index] : REG[w][index];

const operandOf = (op: FormOperand, index: number): InsnOperand => {
  switch (op.kind) {
    case 'reg':
      return general(index, typeWidth(op.type, at.w));
    case 'xmm':
      return XMM[index];
    case 'mmx':
      return MMX[index];
    case 'st':
      return SYSTEM.st[64][index & 7];
    case 'seg':
      return SYSTEM.seg[typeWidth(op.type, at.w)][index & 7];
    case 'cr':
      return SYSTEM.cr[typeWidth(op.type, at.w)][index];
    default:
      return SYSTEM.dr[typeWidth(op.type, at.w)][index];
  }
};

const fixedOperand = (op: FormOperand): InsnOperand => {
  const w = typeWidth(op.type, at.w);
  switch (op.kind) {
    case 'imm':
      return { kind: 'imm', w: 8, value: BigInt(op.index), fixed: true };
    case 'reg':
      return op.high ? HIGH_FIXED[op.index] : REG_FIXED[w][op.index];
    case 'xmm':
      return { kind: 'xmm', w: 128, index: op.index, fixed: true };
    case 'seg':
      return { kind: 'seg', w: 16, index: op.index, fixed: true };
    default:
      return { kind: 'st', w: 64, index: op.index, fixed: true };
  }
};

/** System registers that do not exist, and MOV to CS. */
const noSuchRegister = (op: FormOperand, index: number, first: boolean): boolean => {
  if (op.kind === 'seg') return (index & 7) > 5 || (first && (index & 7) === SEG.cs);
  if (op.kind === 'dr') return index > 7;
  return op.kind === 'cr' && (index === 1 || (index > 4 && index !== 8));
};

const stopped = (start: number, available: number): Decoded =>
  available >= MAX_LENGTH && at.limit - start >= MAX_LENGTH ? 'too-long' : 'more';

export const decode: Decode = (bytes, start, available, mode) => {
  at.bytes = bytes;
  at.limit = start + Math.min(available, MAX_LENGTH);
  at.mode = mode;
  at.short = false;
  const limit = at.limit;
  let pos = start;
  let rex = 0;
  let size66 = false;
  let size67 = false;
  let lock = false;
  let repeat = 0;
  let override = -1;
  let opcode = 0;
  for (;;) {
    if (pos >= limit) return stopped(start, available);
    opcode = bytes[pos++];
    const prefix = PREFIXES[opcode];
    if (prefix === PREFIX.none) break;
    if (prefix === PREFIX.rex) {
      if (mode !== 64) break;
      rex = opcode;
      continue;
    }
    rex = 0;
    if (prefix === PREFIX.size) size66 = true;
    else if (prefix === PREFIX.address) size67 = true;
    else if (prefix === PREFIX.lock) lock = true;
    else if (prefix === PREFIX.segment) {
      const seg = segmentOf(opcode);
      if (mode !== 64 || seg >= SEG.fs) override = seg;
    } else repeat = opcode;
  }
  let map = 0;
  let slot = repeat !== 0 ? (repeat === 0xf3 ? 2 : 3) : size66 ? 1 : 0;
  // VEX.vvvv, or -1 without VEX
  let vvvv = -1;
  if (opcode === 0xc4 || opcode === 0xc5) {
    if (mode !== 64 && pos >= limit) return stopped(start, available);
    if (mode === 64 || bytes[pos] >= 0xc0) {
      const three = opcode === 0xc4;
      if (pos + (three ? 2 : 1) >= limit) return stopped(start, available);
      // the inverted R, X and B, and the map, or those that two bytes stand for
      const first = three ? bytes[pos++] : (bytes[pos] & 0x80) | 0x61;
      const last = three ? bytes[pos++] : bytes[pos++] & 0x7f;
      map = first & 0x1f;
      if (rex !== 0 || repeat !== 0 || size66 || lock || (last & 4) !== 0 || map === 0 || map > 3)
        return 'undefined';
      map += VEX_MAPS;
      slot = last & 3;
      vvvv = (~last >> 3) & 15;
      if (mode === 64) rex = 0x40 | ((last >> 4) & 8) | ((~first >> 5) & 7);
      opcode = bytes[pos++];
    }
  } else if (opcode === 0x0f) {
    if (pos >= limit) return stopped(start, available);
    opcode = bytes[pos++];
    map = 1;
    if (opcode === 0x38 || opcode === 0x3a) {
      map = opcode === 0x38 ? 2 : 3;
      if (pos >= limit) return stopped(start, available);
      opcode = bytes[pos++];
    }
  }
  const column = mode !== 64 ? 0 : 1 + ((rex >> 3) & 1) + ((rex & 1) << 1);
  const entry = OPCODES.entries[entryIndex(map, opcode, slot, column)];
  if (entry === -1) return 'undefined';
  let number = entry;
  if (entry < 0) {
    if (pos >= limit) return stopped(start, available);
    number = OPCODES.groups[-2 - entry][bytes[pos]];
    if (number < 0) return 'undefined';
  }
  const form: Form = FORMS[number];
  const row = form.row;
  if (vvvv > 0 && !form.codes.some((c) => c.from === 'vvvv')) return 'undefined';

  let w: Width;
  if (!form.sized) w = form.fixedWidth;
  else {
    const operand66 = size66 && form.prefix !== '66';
    if (mode === 64) {
      if (row.size === 'f64' || (rex & 8) !== 0) w = 64;
      else w = operand66 ? 16 : row.size === 'd64' ? 64 : 32;
    } else w = form.vex || (mode === 16) === operand66 ? 32 : 16;
  }
  at.w = w;
  at.aw = mode === 64 ? (size67 ? 32 : 64) : (mode === 16) === size67 ? 32 : 16;
  at.rex = rex;
  at.override = override;

  let modrm = 0xc0;
  let mem: MemoryOperand | undefined;
  if (form.modrm) {
    if (pos >= limit) return stopped(start, available);
    modrm = bytes[pos++];
    at.modrm = modrm;
  }
  at.pos = pos;
  if (modrm < 0xc0 && !form.modIgnored) mem = address();

  const stated = form.operands;
  const operands: InsnOperand[] = [];
  for (let i = 0; i < stated.length; i++) {
    const op = stated[i];
    switch (op.from) {
      case 'reg': {
        const index = ((modrm >> 3) & 7) | ((rex & 4) << 1);
        if (noSuchRegister(op, index, i === 0)) return 'undefined';
        operands.push(operandOf(op, index));
        break;
      }
      case 'rm':
        operands.push(mem !== undefined ? memoryOperand(op) : operandOf(op, (modrm & 7) | ((rex & 1) << 3)));
        break;
      case 'vvvv':
        operands.push(operandOf(op, mode === 64 ? vvvv : vvvv & 7));
        break;
      case 'opcode':
        operands.push(operandOf(op, (opcode & 7) | ((rex & 1) << 3)));
        break;
      case 'immediate':
        operands.push(immediate(op));
        break;
      case 'moffs':
        mem = moffs();
        operands.push(memoryOperand(op));
        break;
      default:
        operands.push(fixedOperand(op));
        break;
    }
  }
  if (at.short) return stopped(start, available);
  if (lock && (row.lock !== true || operands.length === 0 || operands[0].kind !== 'mem')) return 'undefined';
  const insn: Insn = {
    row,
    form: number,
    cc: (form.plus === 'cc' ? opcode & 15 : 0) as Condition,
    length: at.pos - start,
    w,
    aw: at.aw,
    mode,
    lock,
    rep:
      repeat === 0 || row.string === undefined
        ? 'none'
        : row.string === 'repe' && repeat === 0xf2
          ? 'repne'
          : 'rep',
    rex,
    operands,
    mem,
    dataSegment: override >= 0 ? override : SEG.ds,
  };
  return insn;
};
