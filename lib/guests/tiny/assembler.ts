/**
 * A small assembler over the encoder of iced-x86: Intel syntax, one statement a line, labels, constants, data.
 *
 *   name:            a label            .align N        zero bytes up to a multiple of N
 *   mov rax, [rbx]   an instruction     .quad A, B      8 bytes each (.dword, .byte alike)
 *   ; text           a comment          .zero N, .text "…"
 *
 * The instruction form is found by name in iced-x86's table: mnemonic, then what each operand can stand for. Branches
 * always have 32-bit displacements and labels 32-bit values, so that sizes do not depend on where labels lie: the first
 * pass measures, the second encodes. Wrong source throws LabError with its line.
 */
import { Code, Encoder, Instruction } from 'iced-x86';
import { LabError } from '../../base/error.js';
import {
  bitsOf,
  evaluate,
  type Lookup,
  memoryOperand,
  type Operand,
  parseOperand,
  tokensOf,
} from './operands.js';

export interface Program {
  readonly base: bigint;
  readonly bytes: Uint8Array;
  /** Address of a label. @throws LabError when there is none */
  address(label: string): bigint;
  /** All labels but the local ones, which begin with a dot. */
  readonly labels: readonly { readonly name: string; readonly value: bigint }[];
}

type Resolve = (label: string) => bigint;
type Statement =
  | { readonly kind: 'label'; readonly name: string }
  | {
      readonly kind: 'code';
      readonly mnemonic: string;
      readonly operands: readonly string[];
      readonly line: string;
    }
  | { readonly kind: 'align'; readonly to: number }
  | { readonly kind: 'values'; readonly bytes: number; readonly values: readonly string[] }
  | { readonly kind: 'data'; readonly bytes: number; readonly make: (resolve: Resolve) => Uint8Array };

/** Instructions whose name in iced-x86 is not mnemonic and operands. */
const NAMES: Readonly<Record<string, Code>> = {
  iretq: Code.Iretq,
  ret: Code.Retnq,
  retfq: Code.Retfq,
  sysretq: Code.Sysretq,
  syscall: Code.Syscall,
  cpuid: Code.Cpuid,
  rdtsc: Code.Rdtsc,
  rdmsr: Code.Rdmsr,
  wrmsr: Code.Wrmsr,
  cld: Code.Cld,
  cli: Code.Cli,
  sti: Code.Sti,
  hlt: Code.Hlt,
  nop: Code.Nopd,
  ud2: Code.Ud2,
};
const STRINGS: Readonly<Record<string, () => Instruction>> = {
  'rep stosq': () => Instruction.createRepStosq(64),
  'rep movsq': () => Instruction.createRepMovsq(64),
  'rep outsb': () => Instruction.createRepOutsb(64),
};
const CODES = Code as unknown as Readonly<Record<string, Code | undefined>>;

const error = (line: string, what: string): LabError =>
  new LabError('assembler.source', `'${line.trim()}': ${what}`);

const capital = (word: string): string => word.slice(0, 1).toUpperCase() + word.slice(1);

/** The first form in iced-x86's table for a mnemonic and operands. */
const formOf = (mnemonic: string, operands: readonly Operand[]): Code | undefined => {
  const bits = Math.max(0, ...operands.map(bitsOf));
  const name = capital(mnemonic);
  // the last operand varies slowest, so that the shortest immediate wins over the order of the others
  let names: string[][] = [[]];
  for (const operand of [...operands].reverse()) {
    const tokens = tokensOf(operand, bits);
    names = names.flatMap((tail) =>
      tokens.map((t) => [t === 'imm32u' && bits === 32 ? 'imm32' : t, ...tail]),
    );
  }
  for (const tokens of names) {
    const code =
      CODES[[name, ...tokens].join('_')] ??
      (name === 'Push' ? CODES[[`${name}q`, ...tokens].join('_')] : undefined);
    if (code !== undefined) return code;
  }
  return undefined;
};

const build = (code: Code, operands: readonly Operand[], line: string): Instruction => {
  const [a, b] = operands;
  if (a === undefined) return Instruction.create(code);
  if (a.kind === 'memory') {
    const memory = memoryOperand(a.memory);
    if (b === undefined) return Instruction.createMem(code, memory);
    if (b.kind === 'register') return Instruction.createMemReg(code, memory, b.register);
    if (b.kind === 'value') return Instruction.createMemI32(code, memory, Number(b.value));
  } else if (a.kind === 'register') {
    if (b === undefined) return Instruction.createReg(code, a.register);
    if (b.kind === 'register') return Instruction.createRegReg(code, a.register, b.register);
    if (b.kind === 'memory') return Instruction.createRegMem(code, a.register, memoryOperand(b.memory));
    return Instruction.createRegI64(code, a.register, b.value);
  } else {
    if (b === undefined) return Instruction.createI32(code, Number(a.value));
    if (b.kind === 'register') return Instruction.createU32Reg(code, Number(a.value), b.register);
  }
  throw error(line, 'these operands are not known here');
};

/** Conditions that iced-x86 knows by another name. */
const SYNONYMS: Readonly<Record<string, string>> = { jz: 'je', jnz: 'jne', jc: 'jb', jnc: 'jae' };

/** The form of a direct jump or call, or undefined. */
const branchForm = (mnemonic: string, operands: readonly Operand[]): Code | undefined =>
  operands.length === 1 && operands[0]?.kind === 'value' && /^(j[a-z]+|call)$/.test(mnemonic)
    ? CODES[`${capital(SYNONYMS[mnemonic] ?? mnemonic)}_rel32_64`]
    : undefined;

const DATA: Readonly<Record<string, number>> = { '.byte': 1, '.word': 2, '.dword': 4, '.quad': 8 };

export class Assembler {
  readonly #base: bigint;
  readonly #constants: ReadonlyMap<string, bigint>;
  readonly #statements: Statement[] = [];
  /** Instructions that are the same wherever they and the labels lie. */
  readonly #fixed = new Map<string, Uint8Array>();

  /** @param constants names that the source may use in expressions */
  constructor(base: bigint, constants: Readonly<Record<string, number | bigint>> = {}) {
    this.#base = base;
    this.#constants = new Map(Object.entries(constants).map(([name, value]) => [name, BigInt(value)]));
  }

  /** Adds source text. */
  source(text: string): this {
    for (const raw of text.split('\n')) {
      let line = raw.replace(/;.*$/, '').trim();
      const label = /^(\.?\w+):\s*/.exec(line);
      if (label !== null) {
        this.#statements.push({ kind: 'label', name: label[1] as string });
        line = line.slice(label[0].length);
      }
      if (line === '') continue;
      this.#statements.push(this.#statement(line));
    }
    return this;
  }
  #statement(line: string): Statement {
    const [, word, rest] = /^(\S+)\s*(.*)$/.exec(line) as unknown as [string, string, string];
    if (word === '.align') return { kind: 'align', to: Number(rest) };
    if (word === '.zero')
      return { kind: 'data', bytes: Number(rest), make: () => new Uint8Array(Number(rest)) };
    if (word === '.text') {
      const bytes = new TextEncoder().encode(JSON.parse(rest) as string);
      return { kind: 'data', bytes: bytes.length, make: () => bytes };
    }
    const size = DATA[word];
    if (size !== undefined) return { kind: 'values', bytes: size, values: rest.split(',') };
    if (word === 'rep') return { kind: 'code', mnemonic: `rep ${rest}`, operands: [], line };
    return { kind: 'code', mnemonic: word, operands: rest === '' ? [] : rest.split(','), line };
  }
  /** Adds a label and bytes that may depend on the addresses of labels. */
  data(name: string, bytes: number, make: (resolve: Resolve) => Uint8Array): this {
    this.#statements.push({ kind: 'label', name }, { kind: 'data', bytes, make });
    return this;
  }

  /** @throws LabError for wrong source */
  assemble(): Program {
    const labels = new Map<string, bigint>();
    const encoder = new Encoder(64);
    const sizes = this.#pass(encoder, labels, false).map((part) => part.length);
    const parts = this.#pass(encoder, labels, true);
    encoder.free();
    const bytes = new Uint8Array(sizes.reduce((sum, n) => sum + n, 0));
    let at = 0;
    parts.forEach((part, i) => {
      if (part.length !== sizes[i])
        throw new LabError('assembler.size', `statement ${i} changed its size between passes`);
      bytes.set(part, at);
      at += part.length;
    });
    const address = (label: string): bigint => {
      const value = labels.get(label);
      if (value === undefined) throw new LabError('assembler.label', `there is no label '${label}'`);
      return value;
    };
    const listed = [...labels].filter(([name]) => !name.startsWith('.'));
    return { base: this.#base, bytes, address, labels: listed.map(([name, value]) => ({ name, value })) };
  }

  /** Encodes every statement; the first pass also notes where the labels are. */
  #pass(encoder: Encoder, labels: Map<string, bigint>, known: boolean): Uint8Array[] {
    let at = this.#base;
    const lookup: Lookup = (name) => {
      const constant = this.#constants.get(name);
      if (constant !== undefined) return { value: constant, movable: false };
      const label = labels.get(name);
      if (label === undefined && known) throw new LabError('assembler.label', `there is no symbol '${name}'`);
      return { value: label ?? this.#base, movable: true };
    };
    return this.#statements.map((s) => {
      const part = this.#encode(encoder, s, at, lookup, labels, known);
      at += BigInt(part.length);
      return part;
    });
  }

  #encode(
    encoder: Encoder,
    s: Statement,
    at: bigint,
    lookup: Lookup,
    labels: Map<string, bigint>,
    known: boolean,
  ): Uint8Array {
    switch (s.kind) {
      case 'label':
        if (!known && labels.has(s.name))
          throw new LabError('assembler.label', `label '${s.name}' is there twice`);
        labels.set(s.name, at);
        return new Uint8Array(0);
      case 'align':
        return new Uint8Array(Number(BigInt.asUintN(64, -at) % BigInt(s.to)));
      case 'values': {
        const view = new DataView(new ArrayBuffer(8));
        const out = new Uint8Array(s.bytes * s.values.length);
        s.values.forEach((text, i) => {
          view.setBigUint64(0, BigInt.asUintN(64, evaluate(text, lookup).value), true);
          out.set(new Uint8Array(view.buffer, 0, s.bytes), i * s.bytes);
        });
        return out;
      }
      case 'data':
        return known ? s.make((name) => lookup(name).value) : new Uint8Array(s.bytes);
      case 'code':
        return this.#instruction(encoder, s, at, lookup);
    }
  }

  #instruction(
    encoder: Encoder,
    s: Extract<Statement, { kind: 'code' }>,
    at: bigint,
    lookup: Lookup,
  ): Uint8Array {
    const fixed = this.#fixed.get(s.line);
    if (fixed !== undefined) return fixed;
    try {
      const operands = s.operands.map((text) => signed(parseOperand(text, lookup)));
      const branch = branchForm(s.mnemonic, operands);
      const code = branch ?? NAMES[s.mnemonic] ?? formOf(s.mnemonic, operands);
      const string = STRINGS[s.mnemonic];
      let instruction: Instruction;
      if (string !== undefined) instruction = string();
      else if (code === undefined) throw error(s.line, 'there is no such instruction');
      else if (branch === undefined) instruction = build(code, operands, s.line);
      else instruction = Instruction.createBranch(code, BigInt.asUintN(64, targetOf(operands)));
      encoder.encode(instruction, BigInt.asUintN(64, at));
      instruction.free();
      const bytes = encoder.takeBuffer();
      if (branch === undefined && !operands.some(moves)) this.#fixed.set(s.line, bytes);
      return bytes;
    } catch (e) {
      throw e instanceof LabError ? e : error(s.line, (e as Error).message);
    }
  }
}

const targetOf = ([target]: readonly Operand[]): bigint => (target?.kind === 'value' ? target.value : 0n);

const moves = (operand: Operand): boolean =>
  operand.kind === 'value' ? operand.movable : operand.kind === 'memory' && operand.memory.movable;

/** Addresses of the upper half are negative numbers, so that they fit into 32 bits. */
const signed = (operand: Operand): Operand =>
  operand.kind === 'value' ? { ...operand, value: BigInt.asIntN(64, operand.value) } : operand;
