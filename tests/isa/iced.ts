/** Describes a decoded instruction of ours, and one of iced-x86's, in the same words, so that they can be compared. */
import {
  Decoder,
  DecoderOptions,
  type Instruction,
  MemorySizeExt,
  Mnemonic,
  OpKind,
  Register,
} from 'iced-x86';
import type { Insn, InsnOperand, MemoryOperand } from '../../lib/isa/rows.js';
import { SEG_NAMES } from '../../lib/isa/state.js';

const reversed = (names: Readonly<Record<string, number | string>>): readonly string[] => {
  const list: string[] = [];
  for (const [name, n] of Object.entries(names)) if (typeof n === 'number') list[n] ??= name.toLowerCase();
  return list;
};
const REGISTERS = reversed(Register as unknown as Record<string, number>);
const MNEMONICS = reversed(Mnemonic as unknown as Record<string, number>);
const RIP = 0x10_0000n;

/** The instruction iced-x86 sees, at address 0x100000, or undefined. Free it after use. */
export const icedDecode = (bytes: Uint8Array, mode: 16 | 32 | 64): Instruction | undefined => {
  const decoder = new Decoder(mode, bytes, DecoderOptions.None);
  decoder.ip = RIP;
  const insn = decoder.decode();
  decoder.free();
  if (!insn.isInvalid) return insn;
  insn.free();
  return undefined;
};
export const icedMnemonic = (insn: Instruction): string => MNEMONICS[insn.mnemonic];

const LEGACY = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'];
const registerName = (index: number, w: number, high = false): string => {
  if (high) return `${'acdb'[index]}h`;
  if (index >= 8) return `r${index}${w === 64 ? '' : w === 32 ? 'd' : w === 16 ? 'w' : 'l'}`;
  if (w === 8) return index < 4 ? `${'acdb'[index]}l` : `${LEGACY[index]}l`;
  return `${w === 64 ? 'r' : w === 32 ? 'e' : ''}${LEGACY[index]}`;
};

const memoryText = (
  seg: string,
  base: string,
  index: string,
  scale: number,
  disp: bigint,
  bytes: number,
): string => `${seg}:[${base}+${index}*${scale}+0x${disp.toString(16)}]:${bytes}`;

/** iced-x86 shows the overrides that 64-bit mode ignores. */
const shownSegment = (seg: string, mode: 16 | 32 | 64): string =>
  mode === 64 && /^[ecsd]s$/.test(seg) ? '' : seg;

const ourMemory = (insn: Insn, mem: MemoryOperand, op: InsnOperand & { kind: 'mem' }): string => {
  const name = (r: number): string => (r < 0 ? 'none' : registerName(r, insn.aw));
  let disp = mem.moffs ?? BigInt(mem.disp);
  if (mem.base === -2) disp += RIP + BigInt(insn.length);
  const base = mem.base === -2 ? (insn.aw === 64 ? 'rip' : 'eip') : name(mem.base);
  const scale = mem.index < 0 ? 1 : 1 << mem.scale;
  return memoryText(
    shownSegment(SEG_NAMES[mem.seg], insn.mode),
    base,
    name(mem.index),
    scale,
    BigInt.asUintN(insn.aw, disp),
    op.bytes ?? op.w / 8,
  );
};

/** Our operands as text. */
export const ourOperands = (insn: Insn, fixed: boolean): readonly string[] =>
  insn.operands
    .filter((op) => fixed || !('fixed' in op && op.fixed === true))
    .map((op) => {
      switch (op.kind) {
        case 'mem':
          return ourMemory(insn, insn.mem as MemoryOperand, op);
        case 'reg':
          return registerName(op.index, op.w, op.high);
        case 'imm':
          return `0x${op.value.toString(16)}`;
        case 'rel':
          return `-> 0x${BigInt.asUintN(insn.w, RIP + BigInt(insn.length) + BigInt(op.value)).toString(16)}`;
        case 'far':
          return `${op.selector.toString(16)}:${op.offset.toString(16)}`;
        case 'seg':
          return SEG_NAMES[op.index];
        case 'mmx':
          return `mm${op.index}`;
        default:
          return `${op.kind}${op.index}`;
      }
    });

const STRING_KINDS: ReadonlySet<number> = new Set([
  OpKind.MemorySegSI,
  OpKind.MemorySegESI,
  OpKind.MemorySegRSI,
  OpKind.MemorySegDI,
  OpKind.MemorySegEDI,
  OpKind.MemorySegRDI,
  OpKind.MemoryESDI,
  OpKind.MemoryESEDI,
  OpKind.MemoryESRDI,
]);

/** iced-x86's operands as text, without the implicit ones of string instructions. `ours` gives immediates their width. */
export const icedOperands = (insn: Instruction, ours: Insn): readonly string[] => {
  const list: string[] = [];
  let imm = 0;
  const widths = ours.operands.filter((o) => o.kind === 'imm').map((o) => o.w);
  for (let i = 0; i < insn.opCount; i++) {
    const kind = insn.opKind(i);
    if (STRING_KINDS.has(kind)) continue;
    if (kind === OpKind.Register) list.push(REGISTERS[insn.opRegister(i)]);
    else if (kind === OpKind.Memory) {
      const part = (r: Register): string => REGISTERS[r];
      const disp = BigInt.asUintN(ours.aw, insn.memoryDisplacement);
      const bytes = MemorySizeExt.size(insn.memorySize);
      const index = part(insn.memoryIndex);
      const scale = index === 'none' ? 1 : insn.memoryIndexScale;
      list.push(
        memoryText(
          shownSegment(part(insn.memorySegment), ours.mode),
          part(insn.memoryBase),
          index,
          scale,
          disp,
          bytes,
        ),
      );
    } else if (kind === OpKind.NearBranch16 || kind === OpKind.NearBranch32 || kind === OpKind.NearBranch64) {
      list.push(`-> 0x${insn.nearBranchTarget.toString(16)}`);
    } else if (kind === OpKind.FarBranch16)
      list.push(`${insn.farBranchSelector.toString(16)}:${insn.farBranch16.toString(16)}`);
    else if (kind === OpKind.FarBranch32)
      list.push(`${insn.farBranchSelector.toString(16)}:${insn.farBranch32.toString(16)}`);
    else list.push(`0x${BigInt.asUintN(widths[imm++] ?? 64, insn.immediate(i)).toString(16)}`);
  }
  return list;
};

const CONDITIONS: readonly string[] = [
  'o',
  'no',
  'b',
  'ae',
  'e',
  'ne',
  'be',
  'a',
  's',
  'ns',
  'p',
  'np',
  'l',
  'ge',
  'le',
  'g',
];
const NAMES: Readonly<Record<string, RegExp>> = {
  cbw: /^(cbw|cwde|cdqe)$/,
  cwd: /^(cwd|cdq|cqo)$/,
  jcxz: /^j[er]?cxz$/,
  shl: /^(shl|sal)$/,
  xlatb: /^xlatb$/,
  movs: /^movs[bwdq]$/,
  cmps: /^cmps[bwdq]$/,
  stos: /^stos[bwdq]$/,
  lods: /^lods[bwdq]$/,
  scas: /^scas[bwdq]$/,
  pusha: /^pushad?$/,
  popa: /^popad?$/,
  nop: /^(nop|reservednop)$/,
  prefetch: /^(prefetch.*|reservednop)$/,
  ret: /^retf?$/,
  hint_nop: /^/,
};

/** Whether iced-x86's mnemonic is a name of our row. */
export const sameName = (ours: Insn, mnemonic: string): boolean => {
  const { name } = ours.row;
  if (ours.row.semCc !== undefined) return mnemonic === name + CONDITIONS[ours.cc];
  return NAMES[name]?.test(mnemonic) ?? mnemonic === name;
};
