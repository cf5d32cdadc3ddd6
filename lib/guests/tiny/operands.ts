/**
 * Operands of the assembler's source text, and the tokens under which iced-x86 names the instruction forms that take
 * them: `mov rax, [rbx]` is `Mov_r64_rm64`, so RAX offers `r64` and `rm64`, and a quadword in memory `rm64` and `m64`.
 */
import { MemoryOperand, Register } from 'iced-x86';
import { LabError } from '../../base/error.js';

export type Operand =
  | { readonly kind: 'register'; readonly register: Register; readonly tokens: readonly string[] }
  | { readonly kind: 'memory'; readonly memory: MemoryParts; readonly bits: number }
  | { readonly kind: 'value'; readonly value: bigint; readonly movable: boolean };

export interface MemoryParts {
  readonly base: Register;
  readonly index: Register;
  readonly scale: number;
  readonly displacement: bigint;
  /** The displacement depends on a label, so it must not be shortened. */
  readonly movable: boolean;
}

/** The value of a symbol, and whether it is a label, which moves while sizes are not known. */
export type Lookup = (name: string) => { readonly value: bigint; readonly movable: boolean };

const SIZES: Readonly<Record<string, number>> = { byte: 8, word: 16, dword: 32, qword: 64 };
const OLD = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'] as const;

/** Names and token lists of all registers that the source may use. */
const REGISTERS: ReadonlyMap<string, { readonly register: Register; readonly tokens: readonly string[] }> =
  (() => {
    const out = new Map<string, { register: Register; tokens: string[] }>();
    const add = (name: string, ...tokens: string[]): void => {
      const key = name.toUpperCase();
      const register = (Register as unknown as Record<string, Register>)[key] as Register;
      out.set(name, { register, tokens: [...tokens, key] });
    };
    for (const n of OLD) {
      add(`r${n}`, 'rm64', 'r64');
      add(`e${n}`, 'rm32', 'r32');
      add(n, 'rm16', 'r16');
    }
    for (const n of ['al', 'cl', 'dl', 'bl', 'sil', 'dil', 'spl', 'bpl']) add(n, 'rm8', 'r8');
    for (let i = 8; i < 16; i++) {
      add(`r${i}`, 'rm64', 'r64');
      add(`r${i}d`, 'rm32', 'r32');
      add(`r${i}w`, 'rm16', 'r16');
      const byte = (Register as unknown as Record<string, Register>)[`R${i}L`] as Register;
      out.set(`r${i}b`, { register: byte, tokens: ['rm8', 'r8'] });
    }
    for (const n of ['cr0', 'cr2', 'cr3', 'cr4']) add(n, 'cr');
    for (const n of ['ds', 'es', 'fs', 'gs', 'ss']) add(n, 'Sreg');
    return out;
  })();

const bad = (what: string, text: string): LabError => new LabError('assembler.operand', `${what}: '${text}'`);

/** Sums of numbers, characters and symbols. */
export const evaluate = (text: string, lookup: Lookup): { value: bigint; movable: boolean } => {
  let value = 0n;
  let movable = false;
  const terms = text.trim().match(/[+-]?\s*(?:'.'|[\w.]+)/g);
  if (terms === null || terms.join('').replace(/\s/g, '') !== text.replace(/\s/g, ''))
    throw bad('no expression', text);
  for (const term of terms) {
    const negative = term.startsWith('-');
    const name = term.replace(/^[+-]?\s*/, '');
    let v: bigint;
    if (name.startsWith("'")) v = BigInt(name.charCodeAt(1));
    else if (/^\d/.test(name)) v = BigInt(name);
    else {
      const symbol = lookup(name);
      v = symbol.value;
      movable ||= symbol.movable;
    }
    value += negative ? -v : v;
  }
  return { value, movable };
};

const parseMemory = (text: string, lookup: Lookup): MemoryParts => {
  let base: Register = Register.None;
  let index: Register = Register.None;
  let scale = 1;
  const rest: string[] = [];
  for (const term of text.match(/[+-]?[^+-]+/g) ?? []) {
    const scaled = /^\+?\s*(\w+)\s*\*\s*([1248])\s*$/.exec(term);
    const register = REGISTERS.get(term.replace(/^\+?\s*/, '').trim());
    if (scaled !== null) {
      index = REGISTERS.get(scaled[1] as string)?.register ?? Register.None;
      scale = Number(scaled[2]);
    } else if (register === undefined) rest.push(term);
    else if (base === Register.None) base = register.register;
    else index = register.register;
  }
  const { value, movable } =
    rest.length === 0 ? { value: 0n, movable: false } : evaluate(rest.join(''), lookup);
  return { base, index, scale, displacement: BigInt.asIntN(64, value), movable };
};

/** @throws LabError for text that is no operand */
export const parseOperand = (text: string, lookup: Lookup): Operand => {
  const trimmed = text.trim();
  const register = REGISTERS.get(trimmed);
  if (register !== undefined) return { kind: 'register', ...register };
  const memory = /^(?:(byte|word|dword|qword)\s+)?\[(.*)\]$/.exec(trimmed);
  if (memory !== null) {
    const bits = memory[1] === undefined ? 0 : (SIZES[memory[1]] as number);
    return { kind: 'memory', memory: parseMemory(memory[2] as string, lookup), bits };
  }
  return { kind: 'value', ...evaluate(trimmed, lookup) };
};

/** As iced-x86 wants it; the caller frees it. */
export const memoryOperand = (m: MemoryParts): MemoryOperand => {
  const { base, index, displacement } = m;
  const none = base === Register.None && index === Register.None;
  const short = displacement >= -128n && displacement <= 127n;
  const size = none || m.movable ? 8 : displacement === 0n ? 0 : short && base !== Register.None ? 1 : 8;
  return new MemoryOperand(base, index, m.scale, displacement, size, false, Register.None);
};

/** Immediate forms that hold a value, shortest first. A label always takes 32 bits. */
const valueTokens = (value: bigint, movable: boolean): string[] => {
  const out: string[] = [];
  if (!movable && value >= -128n && value <= 127n) out.push('imm8');
  if (value >= -0x8000_0000n && value <= 0x7fff_ffffn) out.push('imm32');
  if (!movable && value >= 0n && value <= 255n) out.push('imm8');
  if (value >= -0x8000n && value <= 0xffffn) out.push('imm16');
  if (value >= 0n && value <= 0xffff_ffffn && !out.includes('imm32')) out.push('imm32u');
  out.push('imm64');
  return out;
};

/** @param bits operand size to assume for memory without one */
export const tokensOf = (operand: Operand, bits: number): readonly string[] => {
  switch (operand.kind) {
    case 'register':
      return operand.tokens;
    case 'memory': {
      const size = operand.bits !== 0 ? operand.bits : bits;
      return size === 0 ? ['m', 'm1664'] : [`rm${size}`, `m${size}`, 'm', 'm1664'];
    }
    case 'value':
      return valueTokens(operand.value, operand.movable);
  }
};

/** Operand size in bits that a register implies, or 0. */
export const bitsOf = (operand: Operand): number => {
  if (operand.kind === 'memory') return operand.bits;
  if (operand.kind === 'value') return 0;
  const sized = operand.tokens.find((t) => /^r\d/.test(t));
  return sized === undefined ? 0 : Number(sized.slice(1));
};
