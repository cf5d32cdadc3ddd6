/** The decoder against iced-x86, a foreign disassembler, and its answers for what is not an instruction. */
import { describe, expect, test } from 'vitest';
import { type Random, seededRandom } from '../../lib/base/random.js';
import { decode } from '../../lib/isa/decoder.js';
import type { Form } from '../../lib/isa/forms.js';
import { FORMS } from '../../lib/isa/opcodes.js';
import type { Insn } from '../../lib/isa/rows.js';
import { icedDecode, icedMnemonic, icedOperands, ourOperands, sameName } from './iced.js';

type Mode = 16 | 32 | 64;
const MODES: readonly Mode[] = [16, 32, 64];
const hex = (bytes: Iterable<number>): string =>
  [...bytes].map((b) => b.toString(16).padStart(2, '0')).join(' ');
const bytesOf = (text: string): Uint8Array => Uint8Array.from(text.split(' '), (b) => Number.parseInt(b, 16));

/** Rows whose text differs by design: other operand lists, or names that are not compared. */
const OPERANDS_DIFFER = /^(xlatb|prefetch|hint_nop|nop)$/;
/** Families this test holds to names and operands; others are held to lengths. */
const INTEGER =
  /^(add|or|adc|sbb|and|sub|xor|cmp|test|not|neg|inc|dec|mov|movzx|movsx|movsxd|lea|xchg|bswap|movbe|xlatb|cbw|cwd|cmpxchg|cmpxchg8b|cmpxchg16b|xadd|rol|ror|rcl|rcr|shl|shr|sar|shld|shrd|mul|imul|div|idiv|bt|bts|btr|btc|bsf|bsr|tzcnt|lzcnt|popcnt|adcx|adox|j|jmp|call|ret|loop|loope|loopne|jcxz|set|cmov|push|pop|pusha|popa|enter|leave|movs|cmps|stos|lods|scas|lahf|sahf|clc|stc|cmc|cld|std|nop|prefetch|hint_nop|daa|das|aaa|aas|aam|aad|andn|bextr|blsi|blsr|blsmsk|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|crc32|rdrand|rdseed|rdpid|clflushopt|clwb)$/;

/** What differs between the two decoders for these bytes, or undefined. */
const difference = (bytes: Uint8Array, mode: Mode): string | undefined => {
  const ours = decode(bytes, 0, bytes.length, mode);
  const theirs = icedDecode(bytes, mode);
  try {
    if (typeof ours === 'string') {
      if (theirs === undefined || !INTEGER.test(icedMnemonic(theirs))) return undefined;
      return `${mode}: ${hex(bytes)}: ${ours} is ${theirs.toString()}`;
    }
    const says = `${mode}: ${hex(bytes)}: ${ours.row.name}`;
    // iced-x86 holds some VMX instructions to have no prefixes
    if (theirs === undefined && /^vm(call|launch|resume|xoff)$/.test(ours.row.name)) return undefined;
    if (theirs === undefined) return `${says} is invalid to iced`;
    if (ours.length !== theirs.length)
      return `${says} has length ${ours.length}, iced ${theirs.length} ${theirs.toString()}`;
    if (!INTEGER.test(ours.row.name)) return undefined;
    const name = icedMnemonic(theirs);
    // F3 41 90 exchanges R8 with rAX on hardware
    if (ours.row.name === 'xchg' && name === 'pause') return undefined;
    if (!sameName(ours, name)) return `${says} is ${name}`;
    if (OPERANDS_DIFFER.test(ours.row.name) || ours.row.string !== undefined) return undefined;
    // iced-x86 names the source of MOV to a segment register by 32 bits
    if (ours.operands.some((op) => op.kind === 'seg')) return undefined;
    const theirText = icedOperands(theirs, ours).join(', ');
    for (const fixed of [true, false])
      if (ourOperands(ours, fixed).join(', ') === sized(theirText, ours)) return undefined;
    return `${says} ${ourOperands(ours, true).join(', ')} is ${theirText}`;
  } finally {
    theirs?.free();
  }
};
/** LEA's operand has no size. */
const sized = (text: string, ours: Insn): string =>
  ours.row.name === 'lea' ? text.replace(/\]:0$/, ']:1') : text;

const pick = <T>(random: Random, list: readonly T[]): T => list[random.below(list.length)];

const PP: Readonly<Record<string, number>> = { np: 0, '66': 1, f3: 2, f2: 3 };
/** Bytes that should decode as a VEX-encoded form; outside 64-bit mode R and X are 0 and VEX.W is ignored. */
const assembleVex = (random: Random, form: Form, mode: Mode): Uint8Array => {
  const bytes = random.below(4) === 0 ? [0x67] : [];
  const rxb = mode === 64 ? random.below(8) : 7;
  const vvvv = form.codes.some((c) => c.from === 'vvvv') ? random.below(16) : 15;
  const last = (random.below(2) << 7) | ((mode === 64 ? vvvv : vvvv | 8) << 3) | PP[form.prefix];
  bytes.push(0xc4, (rxb << 5) | form.map, last, form.opcode);
  let m = random.below(256);
  if (form.digit >= 0) m = (m & 0xc7) | (form.digit << 3);
  bytes.push(m);
  while (bytes.length < 24) bytes.push(random.below(256));
  return Uint8Array.from(bytes);
};

/** Bytes that should decode as `form`. */
const assemble = (random: Random, form: Form, mode: Mode): Uint8Array => {
  const bytes: number[] = [];
  if (form.vex) return assembleVex(random, form, mode);
  if (random.below(4) === 0) bytes.push(pick(random, [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65]));
  if (random.below(4) === 0) bytes.push(0x67);
  if ((form.prefix === 'any' || form.prefix[0] === 'f') && random.below(3) === 0) bytes.push(0x66);
  if (form.row.lock === true && random.below(6) === 0) bytes.push(0xf0);
  if (form.row.string !== undefined && random.below(2) === 0) bytes.push(pick(random, [0xf2, 0xf3]));
  if (form.prefix === '66' || form.prefix === 'f2' || form.prefix === 'f3')
    bytes.push(Number.parseInt(form.prefix, 16));
  if (mode === 64 && (form.rexW === 1 || random.below(2) === 0)) {
    const w = form.rexW === 'any' ? random.below(2) : form.rexW;
    bytes.push(0x40 | (w << 3) | random.below(8));
  }
  if (form.map > 0) bytes.push(0x0f);
  if (form.map > 1) bytes.push(form.map === 2 ? 0x38 : 0x3a);
  bytes.push(form.opcode + random.below(form.plus === 'none' ? 1 : form.plus === 'r' ? 8 : 16));
  if (form.modrm) {
    let m = form.exact >= 0 ? form.exact : random.below(256);
    if (form.exact < 0 && form.digit >= 0) m = (m & 0xc7) | (form.digit << 3);
    if (form.mod === 'reg') m |= 0xc0;
    else if (form.mod === 'mem') m = (m & 0x3f) | (random.below(3) << 6);
    bytes.push(m);
  }
  while (bytes.length < 24)
    bytes.push(random.below(3) === 0 ? pick(random, [0, 0x25, 0x7f, 0x80, 0xff]) : random.below(256));
  return Uint8Array.from(bytes);
};

describe('against iced-x86', () => {
  test.each(MODES)('every form, %i-bit code', (mode) => {
    const random = seededRandom(mode);
    const wrong = new Map<string, string>();
    let compared = 0;
    for (const form of FORMS) {
      if (form.row.modes === (mode === 64 ? 'no64' : 'only64')) continue;
      for (let i = 0; i < 40; i++) {
        const bytes = assemble(random, form, mode);
        const says = difference(bytes, mode);
        compared++;
        if (says !== undefined) wrong.set(form.text, says);
      }
    }
    expect(Object.fromEntries(wrong)).toEqual({});
    expect(compared).toBeGreaterThan(2000);
  });

  test.each(MODES)('random bytes, %i-bit code', (mode) => {
    const random = seededRandom(1000 + mode);
    const wrong: string[] = [];
    for (let i = 0; i < 20_000; i++) {
      const bytes = Uint8Array.from({ length: 18 }, () => random.below(256));
      if (random.below(2) === 0) bytes[0] = pick(random, [0x0f, 0x66, 0xf2, 0xf3, 0xf0, 0x67]);
      const says = difference(bytes, mode);
      if (says !== undefined) wrong.push(says);
    }
    expect(wrong.slice(0, 25)).toEqual([]);
  });
});

describe('what is not a whole instruction', () => {
  test.each<[string, Mode, string]>([
    ['48', 64, 'more'],
    ['0f', 64, 'more'],
    ['48 8b', 64, 'more'],
    ['48 8b 04', 64, 'more'],
    ['48 8b 84 24 00 00 00', 64, 'more'],
    ['48 b8 00 00 00 00 00 00 00', 64, 'more'],
    ['81 c0 00 00', 32, 'more'],
    ['66 66 66 66 66 66 66 66 66 66 66 66 66 66 66', 64, 'too-long'],
    ['66 66 66 66 66 66 66 66 66 66 66 66 66 66 90', 64, 'nop'],
    ['2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 48 81 c0 00 00 00 00', 64, 'too-long'],
    // LOCK: only where the row allows it and the destination is memory
    ['f0 01 c0', 64, 'undefined'],
    ['f0 03 00', 64, 'undefined'],
    ['f0 01 00', 64, 'add'],
    ['f0 89 00', 64, 'undefined'],
    ['f0 39 00', 64, 'undefined'],
    ['f0 87 00', 64, 'xchg'],
    // modes
    ['06', 64, 'undefined'],
    ['27', 64, 'undefined'],
    ['27', 32, 'daa'],
    ['40', 32, 'inc'],
    ['63 c0', 64, 'movsxd'],
    // VEX: only L = 0, without LOCK, 66, F2, F3 and REX before it, and LES and LDS of memory in legacy modes
    ['c4 e2 f0 f2 c0', 64, 'andn'],
    ['c4 62 f0', 32, 'les'],
    ['c4 e2 f0 f2 c0', 32, 'andn'],
    ['c4 e2 f4 f2 c0', 64, 'undefined'],
    ['c4 e3 fb f0 c0 01', 64, 'rorx'],
    ['c4 e3 f3 f0 c0 01', 64, 'undefined'],
    ['66 c4 e2 f0 f2 c0', 64, 'undefined'],
    ['48 c4 e2 f0 f2 c0', 64, 'undefined'],
    ['f0 c4 e2 f0 f2 c0', 64, 'undefined'],
    ['c4 e2 f0', 64, 'more'],
    ['c4', 32, 'more'],
    ['c5 f8 77', 64, 'undefined'],
    ['c5 c0', 32, 'more'],
    ['66 f2 0f 38 00 c0', 64, 'undefined'],
    // NOP, XCHG and prefixes
    ['90', 64, 'nop'],
    ['48 90', 64, 'nop'],
    ['41 90', 64, 'xchg'],
    ['f3 0f bc c0', 64, 'tzcnt'],
    ['66 f3 0f bd c0', 64, 'lzcnt'],
    ['0f bd c0', 64, 'bsr'],
    ['f3 0f 38 f0 00', 64, 'undefined'],
    // REX counts only right before the opcode
    ['48 66 b8 01 00', 64, 'mov'],
    // LEA of a register
    ['8d c0', 64, 'undefined'],
    ['8f c8', 64, 'undefined'],
  ])('%s in %i-bit code: %s', (text, mode, says) => {
    const bytes = bytesOf(text);
    const insn = decode(bytes, 0, bytes.length, mode);
    expect(typeof insn === 'string' ? insn : insn.row.name).toBe(says);
  });
});

describe('details that iced-x86 does not state', () => {
  const insn = (text: string, mode: Mode): Insn => {
    const bytes = bytesOf(text);
    const decoded = decode(bytes, 0, bytes.length, mode);
    if (typeof decoded === 'string') throw new Error(`${text}: ${decoded}`);
    return decoded;
  };
  test('operand sizes', () => {
    expect(insn('50', 64).w).toBe(64);
    expect(insn('66 50', 64).w).toBe(16);
    expect(insn('66 e8 00 00 00 00', 64).w).toBe(64);
    expect(insn('66 98', 16).w).toBe(32);
    expect(insn('aa', 64).w).toBe(8);
    expect(insn('48 ab', 64).w).toBe(64);
    expect(insn('48 66 b8 01 00', 64).w).toBe(16);
  });
  test('segments', () => {
    expect(insn('8b 45 00', 64).mem?.seg).toBe(2);
    expect(insn('41 8b 45 00', 64).mem?.seg).toBe(3);
    expect(insn('3e 8b 45 00', 64).mem?.seg).toBe(2);
    expect(insn('3e 8b 45 00', 32).mem?.seg).toBe(3);
    expect(insn('65 2e 8b 45 00', 64).mem?.seg).toBe(5);
    expect(insn('64 a4', 64).dataSegment).toBe(4);
    expect(insn('8b 42 00', 16).mem?.seg).toBe(2);
  });
  test('repetition', () => {
    expect(insn('f2 a4', 64).rep).toBe('rep');
    expect(insn('f2 a6', 64).rep).toBe('repne');
    expect(insn('f3 a6', 64).rep).toBe('rep');
    expect(insn('f3 c3', 64).rep).toBe('none');
  });
  test('immediates are sign-extended to the operand size', () => {
    expect(insn('48 81 c0 ff ff ff ff', 64).operands[1]).toEqual({
      kind: 'imm',
      w: 64,
      value: 0xffff_ffff_ffff_ffffn,
    });
    expect(insn('6a 80', 64).operands[0]).toEqual({ kind: 'imm', w: 64, value: 0xffff_ffff_ffff_ff80n });
    expect(insn('66 83 c0 ff', 32).operands[1]).toEqual({ kind: 'imm', w: 16, value: 0xffffn });
  });
});
