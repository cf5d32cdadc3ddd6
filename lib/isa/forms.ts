/**
 * Forms: the encoding strings of instruction rows (`rows.ts`), parsed and checked.
 *
 * SDM volume 2, "Instruction Format", "Interpreting the Instruction Reference Pages" and appendix A, "Opcode Map" (codes
 * for addressing method and operand type). Codes of this project's own: `Ibs` is an immediate byte sign-extended to the
 * operand size, `Rv/Mw` gives the register and the memory form of one ModRM operand different types, `M512` is memory of
 * so many bytes, `STi` an x87 register in ModRM.rm. Of VEX encodings, those with L = 0 (`vex.lz`) are known; EVEX is not.
 */
import { InvariantError } from '../base/error.js';
import type { InsnOperand, InsnRow } from './rows.js';
import type { Width } from './verbs.js';

const TYPE_NAMES = [
  'b',
  'bs',
  'w',
  'd',
  'q',
  'v',
  'y',
  'z',
  'p',
  'a',
  's',
  't',
  'x',
  'dq',
  'ps',
  'pd',
  'ss',
  'sd',
  'si',
  'pi',
  '',
] as const;
export type OperandType = (typeof TYPE_NAMES)[number] | number;

/** One operand as a form states it. */
export interface FormOperand {
  readonly code: string;
  /** `implicit`: string operands, which are not listed among the operands of a decoded instruction. */
  readonly from: 'reg' | 'rm' | 'vvvv' | 'opcode' | 'fixed' | 'immediate' | 'moffs' | 'implicit';
  /** Kind of the operand when it is not memory. */
  readonly kind: InsnOperand['kind'];
  /** Type of the operand, and of its memory variant. */
  readonly type: OperandType;
  readonly memoryType: OperandType;
  /** Whether ModRM.mod may (or must) name memory. */
  readonly memory: 'never' | 'allowed' | 'only';
  /** Register number or immediate value of a `fixed` operand. */
  readonly index: number;
  /** AH, CH, DH, BH. */
  readonly high: boolean;
}

export interface Form {
  readonly row: InsnRow;
  readonly text: string;
  readonly number: number;
  /** VEX-encoded: the prefix holds the opcode map, the mandatory prefix, REX.W and an operand. VEX.L must be 0. */
  readonly vex: boolean;
  /** 0 one byte, 1 `0f`, 2 `0f 38`, 3 `0f 3a`. */
  readonly map: 0 | 1 | 2 | 3;
  readonly opcode: number;
  readonly plus: 'none' | 'r' | 'cc';
  /** Mandatory prefix; `nfx` allows none and 66. */
  readonly prefix: 'any' | 'np' | '66' | 'f2' | 'f3' | 'nfx';
  readonly rexW: 'any' | 0 | 1;
  readonly modrm: boolean;
  /** `/digit`, or -1. */
  readonly digit: number;
  readonly mod: 'any' | 'reg' | 'mem';
  /** The whole ModRM byte of `/4:e0`, or -1. */
  readonly exact: number;
  /** ModRM.mod is not looked at (MOV to and from control and debug registers). */
  readonly modIgnored: boolean;
  /** All operands as stated, implicit ones included. */
  readonly codes: readonly FormOperand[];
  /** The operands that `Insn.operands` and `sem` get. */
  readonly operands: readonly FormOperand[];
  /** False when operand size means nothing to this form; `Insn.w` is then `fixedWidth`. */
  readonly sized: boolean;
  readonly fixedWidth: Width;
}

/** Width in bits of an operand of type `t` under operand size `w`; of its offset part for far pointers. */
export const typeWidth = (t: OperandType, w: Width): 8 | 16 | 32 | 64 | 128 => {
  switch (t) {
    case 'b':
    case '':
      return 8;
    case 'w':
      return 16;
    case 'd':
    case 'ss':
    case 'si':
      return 32;
    case 'q':
    case 'sd':
    case 'pi':
    case 's':
    case 't':
      return 64;
    case 'z':
      return w === 16 ? 16 : 32;
    case 'y':
      return w === 64 ? 64 : 32;
    case 'x':
    case 'dq':
    case 'ps':
    case 'pd':
      return 128;
    case 'v':
    case 'p':
    case 'a':
    case 'bs':
      return w;
    default:
      return 8;
  }
};

/** Bytes of a memory operand whose size is not its width; 0 otherwise. */
export const oddBytes = (t: OperandType, w: Width, mode: 16 | 32 | 64): number => {
  if (typeof t === 'number') return t;
  if (t === 'p') return 2 + w / 8;
  if (t === 'a') return w / 4;
  if (t === 's') return mode === 64 ? 10 : 6;
  return t === 't' ? 10 : 0;
};

const operand = (
  code: string,
  from: FormOperand['from'],
  kind: FormOperand['kind'],
  type: OperandType,
  index = 0,
): FormOperand => ({
  code,
  from,
  kind,
  type,
  memoryType: type,
  memory: 'never',
  index,
  high: false,
});

const FIXED: ReadonlyMap<string, FormOperand> = new Map(
  (() => {
    const list: FormOperand[] = [
      operand('1', 'fixed', 'imm', 'b', 1),
      operand('ST', 'fixed', 'st', 't'),
      operand('ST0', 'fixed', 'st', 't'),
      operand('XMM0', 'fixed', 'xmm', 'dq'),
    ];
    ['AX', 'CX', 'DX', 'BX', 'SP', 'BP', 'SI', 'DI'].forEach((name, i) => {
      list.push(
        operand(name, 'fixed', 'reg', 'w', i),
        operand(`e${name}`, 'fixed', 'reg', 'z', i),
        operand(`r${name}`, 'fixed', 'reg', 'v', i),
      );
      list.push(operand(`E${name}`, 'fixed', 'reg', 'd', i), operand(`R${name}`, 'fixed', 'reg', 'q', i));
    });
    ['A', 'C', 'D', 'B'].forEach((name, i) => {
      list.push(operand(`${name}L`, 'fixed', 'reg', 'b', i), {
        ...operand(`${name}H`, 'fixed', 'reg', 'b', i),
        high: true,
      });
    });
    ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'].forEach((name, i) => {
      list.push(operand(name, 'fixed', 'seg', 'w', i));
    });
    return list.map((f) => [f.code, f] as const);
  })(),
);

const typeOf = (text: string): OperandType | undefined => {
  if (/^[1-9]\d*$/.test(text)) return Number(text);
  return (TYPE_NAMES as readonly string[]).includes(text) ? (text as OperandType) : undefined;
};

/** The meaning of one operand code, or undefined when there is no such code. */
export const parseOperand = (code: string): FormOperand | undefined => {
  const fixed = FIXED.get(code);
  if (fixed !== undefined) return fixed;
  if (code === 'STi') return operand(code, 'rm', 'st', 't');
  const slash = code.indexOf('/');
  if (slash > 0) {
    const reg = parseOperand(code.slice(0, slash));
    const mem = parseOperand(code.slice(slash + 1));
    if (reg?.from !== 'rm' || reg.memory !== 'never' || mem?.memory !== 'only') return undefined;
    return { ...reg, code, memoryType: mem.memoryType, memory: 'allowed' };
  }
  const type = typeOf(code.slice(1));
  if (type === undefined) return undefined;
  if (code[0] !== 'M' && (type === '' || typeof type === 'number')) return undefined;
  if (code[0] !== 'I' && type === 'bs') return undefined;
  switch (code[0]) {
    case 'E':
      return { ...operand(code, 'rm', 'reg', type), memory: 'allowed' };
    case 'M':
      return { ...operand(code, 'rm', 'mem', type), memory: 'only' };
    case 'R':
      return operand(code, 'rm', 'reg', type);
    case 'G':
      return operand(code, 'reg', 'reg', type);
    case 'B':
      return operand(code, 'vvvv', 'reg', type);
    case 'Z':
      return operand(code, 'opcode', 'reg', type);
    case 'I':
      return operand(code, 'immediate', 'imm', type);
    case 'J':
      return operand(code, 'immediate', 'rel', type);
    case 'A':
      return operand(code, 'immediate', 'far', type);
    case 'O':
      return { ...operand(code, 'moffs', 'mem', type), memory: 'only' };
    case 'X':
    case 'Y':
      return operand(code, 'implicit', 'mem', type);
    case 'S':
      return operand(code, 'reg', 'seg', type);
    case 'C':
      return operand(code, 'reg', 'cr', type);
    case 'D':
      return operand(code, 'reg', 'dr', type);
    case 'P':
      return operand(code, 'reg', 'mmx', type);
    case 'N':
      return operand(code, 'rm', 'mmx', type);
    case 'Q':
      return { ...operand(code, 'rm', 'mmx', type), memory: 'allowed' };
    case 'V':
      return operand(code, 'reg', 'xmm', type);
    case 'U':
      return operand(code, 'rm', 'xmm', type);
    case 'W':
      return { ...operand(code, 'rm', 'xmm', type), memory: 'allowed' };
    default:
      return undefined;
  }
};

const IMMEDIATE_TOKENS = /^(i[bwdzvo]|c[bwdzp])$/;
const VARIABLE: ReadonlySet<OperandType> = new Set<OperandType>(['v', 'y', 'z', 'p', 'a', 's', '', 'bs']);

const isSized = (row: InsnRow, codes: readonly FormOperand[]): boolean =>
  row.size !== undefined ||
  codes.every((c) => c.kind === 'imm') ||
  codes.some(
    (c) => VARIABLE.has(c.type) || typeof c.type === 'number' || c.kind === 'rel' || c.kind === 'far',
  );

const fixedWidth = (codes: readonly FormOperand[]): Width => {
  const values = codes.filter((c) => c.kind !== 'imm');
  if (values.some((c) => c.type === 'b')) return 8;
  const w = typeWidth(values[0]?.type ?? 'd', 32);
  return w === 128 ? 64 : w;
};

/** Parses and checks one form of a row; a bad form is a bug and throws. */
export const parseForm = (row: InsnRow, text: string, number: number): Form => {
  const check: (good: boolean, says: string) => asserts good = (good, says) => {
    if (!good) throw new InvariantError(`form '${text}' of ${row.name}: ${says}`);
  };
  const tokens = text.split(' ');
  let i = 0;
  const vex = tokens[i] === 'vex.lz';
  if (vex) i++;
  let prefix: Form['prefix'] = 'any';
  if (/^(np|66|f2|f3|nfx)$/.test(tokens[i])) prefix = tokens[i++] as Form['prefix'];
  let rexW: Form['rexW'] = 'any';
  if (tokens[i] === 'w0' || tokens[i] === 'w1') rexW = tokens[i++] === 'w1' ? 1 : 0;
  let map: Form['map'] = 0;
  if (tokens[i] === '0f') {
    i++;
    map = tokens[i] === '38' ? 2 : tokens[i] === '3a' ? 3 : 1;
    if (map > 1) i++;
  }
  check(
    !vex || (map > 0 && prefix !== 'any' && prefix !== 'nfx'),
    'VEX gives the map and the mandatory prefix',
  );
  const byte = /^([0-9a-f]{2})(\+r|\+cc)?$/.exec(tokens[i++] ?? '');
  check(byte !== null, 'no opcode byte');
  const opcode = Number.parseInt(byte[1], 16);
  const plus = byte[2] === '+r' ? 'r' : byte[2] === '+cc' ? 'cc' : 'none';
  check(plus === 'none' || (opcode & (plus === 'r' ? 7 : 15)) === 0, 'low bits of the opcode must be 0');
  check((plus === 'cc') === (row.semCc !== undefined), '+cc and semCc go together');

  let digit = -1;
  let exact = -1;
  let mod: Form['mod'] = 'any';
  const modrm = tokens[i]?.startsWith('/') === true;
  if (modrm) {
    const m = /^\/([0-7r])(?::(reg|mem|[0-9a-f]{2}))?$/.exec(tokens[i++]);
    check(m !== null, 'ModRM notation');
    if (m[1] !== 'r') digit = Number(m[1]);
    if (m[2] === 'reg' || m[2] === 'mem') mod = m[2];
    else if (m[2] !== undefined) {
      exact = Number.parseInt(m[2], 16);
      check(exact >= 0xc0 && (digit < 0 || digit === ((exact >> 3) & 7)), 'ModRM byte and digit disagree');
      mod = 'reg';
    }
  }
  while (i < tokens.length && IMMEDIATE_TOKENS.test(tokens[i])) i++;
  const codes = (i < tokens.length ? tokens[i++].split(',') : []).map((code) => {
    const parsed = parseOperand(code);
    check(parsed !== undefined, `operand code '${code}'`);
    return parsed;
  });
  check(i === tokens.length, `'${tokens.slice(i).join(' ')}' is left over`);
  const has = (f: (c: FormOperand) => boolean): boolean => codes.some(f);
  check(has((c) => c.from === 'opcode') === (plus === 'r'), '+r and a Z operand go together');
  check(modrm || !has((c) => c.from === 'rm' || c.from === 'reg'), 'an operand needs ModRM');
  check(!(digit >= 0 && has((c) => c.from === 'reg')), 'an operand uses the reg field of a group');
  check(codes.filter((c) => c.from === 'rm').length <= 1, 'two operands use the rm field');
  check(vex || !has((c) => c.from === 'vvvv'), 'an operand needs VEX');

  const modIgnored = has((c) => c.kind === 'cr' || c.kind === 'dr');
  for (const c of codes) {
    if (c.from !== 'rm' || c.memory === 'allowed' || modIgnored) continue;
    const needs = c.memory === 'only' ? 'mem' : 'reg';
    check(mod === 'any' || mod === needs, `'${c.code}' contradicts :${mod}`);
    mod = needs;
  }
  return {
    row,
    text,
    number,
    vex,
    map,
    opcode,
    plus,
    prefix,
    rexW,
    modrm,
    digit,
    mod,
    exact,
    modIgnored,
    codes,
    operands: codes.filter((c) => c.from !== 'implicit'),
    sized: isSized(row, codes),
    fixedWidth: fixedWidth(codes),
  };
};

/** Checks what a row states about itself. */
export const checkRow = (row: InsnRow): void => {
  const check = (good: boolean, says: string): void => {
    if (!good) throw new InvariantError(`row ${row.name}: ${says}`);
  };
  check(/^[a-z][a-z0-9_]*$/.test(row.name), 'mnemonics are lower case');
  check(row.forms.length > 0, 'no forms');
  check(new Set(row.forms).size === row.forms.length, 'a form is given twice');
  check(row.sdm.length > 0, 'no manual section');
  check(/^[oszapc]*$/.test((row.flags?.w ?? '') + (row.flags?.u ?? '')), 'flags are letters of oszapc');
};
