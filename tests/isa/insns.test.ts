/**
 * Semantics that the hardware vectors do not reach: jumps, legacy modes, decimal adjustment, faults half-way.
 * `W` in a table is the address of the memory window, whose bytes before are `00 01 02 …`.
 */
import { describe, expect, test } from 'vitest';
import { FLAG, GPR_NAMES } from '../../lib/isa/state.js';
import {
  interpreterMachine,
  type MachineState,
  type Mode,
  type Ran,
  RIP,
  runOne,
  WINDOW,
  WINDOW_BYTES,
} from './machine.js';

const W = WINDOW;
type Values = Readonly<Record<string, bigint | number>>;
type Row = readonly [title: string, code: string, mode: Mode, before: Values, after: Values];

const NAMES = GPR_NAMES as readonly string[];

const stateBefore = (values: Values): MachineState => {
  const gpr = Array.from({ length: 16 }, () => 0n);
  gpr[4] = W + 64n;
  let flags = 2;
  for (const [name, v] of Object.entries(values)) {
    if (name === 'flags') flags = Number(v) | 2;
    else gpr[NAMES.indexOf(name)] = BigInt(v);
  }
  return { gpr, flags, memory: Uint8Array.from({ length: WINDOW_BYTES }, (_, i) => i) };
};

/** The values of `ran` that `wanted` names; `rip` counts from the instruction, `@n` is the 8 bytes at window offset n. */
const shown = (ran: Ran, wanted: Values): Values => {
  const result: Record<string, bigint | number> = {};
  for (const name of Object.keys(wanted)) {
    if (name === 'flags') result[name] = ran.after.flags & ~2;
    else if (name === 'rip') result[name] = Number(ran.rip - RIP);
    else if (name === 'fault') result[name] = ran.outcome === 'left' ? ran.fault : -1;
    else if (name[0] === '@')
      result[name] = new DataView(ran.after.memory.buffer).getBigUint64(Number(name.slice(1)), true);
    else result[name] = ran.after.gpr[NAMES.indexOf(name)];
  }
  for (const [name, v] of Object.entries(result))
    if (typeof wanted[name] === 'number') result[name] = Number(v);
  return result;
};

const interpret = interpreterMachine(true);

/** On the reference engine in every mode, and on the interpreter in 64-bit mode. */
const check = (rows: readonly Row[]): void => {
  test.each(rows)('%s (%s, %i-bit)', (_title, code, mode, before, after) => {
    const bytes = Uint8Array.from(code.split(' '), (b) => Number.parseInt(b, 16));
    expect(shown(runOne(bytes, stateBefore(before), mode), after)).toEqual(after);
    if (mode === 64) expect(shown(interpret(bytes, stateBefore(before)), after)).toEqual(after);
  });
};

const { zf, cf, af, sf, pf } = FLAG;

describe('jumps', () => {
  check([
    ['jz taken', '74 10', 64, { flags: zf }, { rip: 0x12 }],
    ['jz not taken', '74 10', 64, {}, { rip: 2 }],
    ['jnz backwards', '0f 85 f0 ff ff ff', 64, {}, { rip: -10 }],
    ['jmp short', 'eb fe', 64, {}, { rip: 0 }],
    ['jmp rax', 'ff e0', 64, { rax: RIP + 5n }, { rip: 5 }],
    ['jmp to a non-canonical address', 'ff e0', 64, { rax: 1n << 47n }, { rip: 0, fault: 13 }],
    ['call', 'e8 10 00 00 00', 64, {}, { rip: 0x15, rsp: W + 56n, '@56': RIP + 5n }],
    ['call keeps 64 bits with 66', '66 e8 10 00 00 00', 64, {}, { rip: 0x16, rsp: W + 56n, '@56': RIP + 6n }],
    ['call of a non-canonical address', 'ff d0', 64, { rax: 1n << 63n }, { rip: 0, rsp: W + 64n, fault: 13 }],
    ['call [rsp]', 'ff 14 24', 64, {}, { fault: 13, rsp: W + 64n }],
    ['ret to a non-canonical address', 'c3', 64, {}, { fault: 13, rsp: W + 64n }],
    ['ret without a stack', 'c3', 64, { rsp: 0 }, { fault: 14, rip: 0, rsp: 0 }],
    [
      'call, 32 bits',
      'e8 10 00 00 00',
      32,
      {},
      { rip: 0x15, rsp: W + 60n, '@60': (0x4342_4140n << 32n) | (RIP + 5n) },
    ],
    ['jmp, 16 bits: IP is cut', '66 e9 10 00', 32, {}, { rip: 0x14 - 0x40_0000 }],
    ['loop', 'e2 10', 64, { rcx: 2 }, { rip: 0x12, rcx: 1 }],
    ['loop ends', 'e2 10', 64, { rcx: 1 }, { rip: 2, rcx: 0 }],
    ['loop counts ECX with 67', '67 e2 10', 64, { rcx: 0x7_0000_0000 }, { rip: 0x13, rcx: 0xffff_ffff }],
    ['loope needs ZF', 'e1 10', 64, { rcx: 5 }, { rip: 2, rcx: 4 }],
    ['loopne', 'e0 10', 64, { rcx: 5 }, { rip: 0x12, rcx: 4 }],
    ['jrcxz', 'e3 10', 64, { rcx: 0x1_0000_0000 }, { rip: 2 }],
    ['jecxz', '67 e3 10', 64, { rcx: 0x1_0000_0000 }, { rip: 0x13 }],
  ]);
  test('ret and ret n', () => {
    const before = stateBefore({});
    new DataView(before.memory.buffer).setBigUint64(64, RIP + 0x99n, true);
    expect(shown(runOne(Uint8Array.of(0xc3), before), { rip: 0, rsp: 0n })).toEqual({
      rip: 0x99,
      rsp: W + 72n,
    });
    expect(shown(runOne(Uint8Array.of(0xc2, 8, 0), before), { rip: 0, rsp: 0n })).toEqual({
      rip: 0x99,
      rsp: W + 80n,
    });
  });
});

describe('stack', () => {
  check([
    ['push rsp pushes the old value', '54', 64, {}, { rsp: W + 56n, '@56': W + 64n }],
    ['pop rsp', '5c', 64, {}, { rsp: 0x4746_4544_4342_4140n }],
    ['push imm8', '6a ff', 64, {}, { rsp: W + 56n, '@56': 0xffff_ffff_ffff_ffffn }],
    ['push word', '66 6a 80', 64, {}, { rsp: W + 62n, '@56': 0xff80_3d3c_3b3a_3938n }],
    [
      'pop [rsp]: the address is that after the pop',
      '8f 04 24',
      64,
      {},
      { rsp: W + 72n, '@72': 0x4746_4544_4342_4140n },
    ],
    ['pop [rsp + rax]', '8f 04 04', 64, { rax: 8 }, { rsp: W + 72n, '@80': 0x4746_4544_4342_4140n }],
    ['pop [rbx]', '8f 03', 64, { rbx: W }, { rsp: W + 72n, '@0': 0x4746_4544_4342_4140n }],
    ['pop to memory that is not there', '8f 00', 64, {}, { rsp: W + 64n, fault: 14 }],
    ['push without a stack', '50', 64, { rsp: 8 }, { rsp: 8, fault: 14 }],
    ['leave', 'c9', 64, { rbp: W + 8n, rsp: 0 }, { rsp: W + 16n, rbp: 0x0f0e_0d0c_0b0a_0908n }],
    ['enter', 'c8 10 00 00', 64, { rbp: 7 }, { rbp: W + 56n, rsp: W + 40n, '@56': 7 }],
    [
      'pusha',
      '60',
      32,
      { rax: 0xa, rdi: 0xd, rcx: 0xc },
      { rsp: W + 32n, '@32': 0xd, '@56': 0xa_0000_000cn, '@40': (W + 64n) << 32n },
    ],
    ['pusha without room changes nothing', '60', 32, { rsp: W + 16n }, { rsp: W + 16n, fault: 14 }],
    [
      'popa',
      '61',
      32,
      {},
      { rsp: W + 96n, rdi: 0x4342_4140, rsi: 0x4746_4544, rbx: 0x5352_5150, rax: 0x5f5e_5d5c },
    ],
    ['popa, 16 bits', '66 61', 32, { rax: 0x1_0000 }, { rsp: W + 80n, rdi: 0x4140, rax: 0x1_4f4e }],
  ]);
});

describe('32-bit results and parts of registers', () => {
  const all = 0xffff_ffff_ffff_ffffn;
  check([
    ['mov eax clears the upper half', '89 c8', 64, { rax: all, rcx: 1 }, { rax: 1 }],
    ['mov ax keeps it', '66 89 c8', 64, { rax: all, rcx: 1 }, { rax: 0xffff_ffff_ffff_0001n }],
    ['mov ah, cl', '88 cc', 64, { rax: all, rcx: 1 }, { rax: 0xffff_ffff_ffff_01ffn }],
    ['mov spl, cl', '40 88 cc', 64, { rsp: all, rcx: 1 }, { rsp: 0xffff_ffff_ffff_ff01n }],
    ['xchg al, ah', '86 e0', 64, { rax: 0x1234 }, { rax: 0x3412 }],
    ['nop leaves RAX alone', '90', 64, { rax: all }, { rax: all }],
    ['xchg eax, r8d', '41 90', 64, { rax: all, r8: 5 }, { rax: 5, r8: 0xffff_ffff }],
    ['cmov clears without moving', '0f 44 c1', 64, { rax: all, rcx: 1 }, { rax: 0xffff_ffff }],
    ['cmov reads without moving', '0f 44 00', 64, { rax: 0 }, { fault: 14 }],
    [
      'shl by 0 clears the upper half and keeps flags',
      'd3 e0',
      64,
      { rax: all, flags: zf },
      { rax: 0xffff_ffff, flags: zf },
    ],
    ['movsxd', '48 63 c1', 64, { rcx: 0x8000_0000 }, { rax: 0xffff_ffff_8000_0000n }],
    ['lea is cut to the address size', '67 48 8d 44 08 ff', 64, { rax: 0xffff_ffff, rcx: 4 }, { rax: 2 }],
    ['lea ax', '66 8d 40 01', 64, { rax: 0x1_ffff }, { rax: 0x1_0000 }],
    ['16-bit address', '67 8b 00', 32, { rbx: 0x8000, rsi: 0x8000 }, { fault: 14 }],
    ['xlat', 'd7', 64, { rbx: W, rax: 0x1105 }, { rax: 0x1105 }],
    ['xlat with AL 16', 'd7', 64, { rbx: W + 1n, rax: 0x10 }, { rax: 0x11 }],
  ]);
  test('moffs', () => {
    const at = W.toString(16).padStart(16, '0').match(/../g)?.reverse().join(' ') ?? '';
    const code = Uint8Array.from(`48 a1 ${at}`.split(' '), (b) => Number.parseInt(b, 16));
    expect(runOne(code, stateBefore({})).after.gpr[0]).toBe(0x0706_0504_0302_0100n);
  });
});

describe('bit strings', () => {
  check([
    ['bt counts from the operand', '48 0f a3 03', 64, { rbx: W, rax: 64 + 3 }, { flags: cf }],
    [
      'bts before it',
      '48 0f ab 03',
      64,
      { rbx: W + 8n, rax: 0xffff_ffff_ffff_fff8n },
      { '@0': 0x0706_0504_0302_0100n | (1n << 56n), flags: cf },
    ],
    ['btr, 16 bits', '66 0f b3 03', 64, { rbx: W, rax: 0x18 }, { '@0': 0x0706_0504_0202_0100n, flags: cf }],
    ['bt of a register wraps', '0f a3 c1', 64, { rcx: 2, rax: 33 }, { flags: cf }],
    [
      'bts without memory',
      '0f ab 03',
      64,
      { rbx: W, rax: 0x7fff_ffff },
      { fault: 14, '@0': 0x0706_0504_0302_0100n },
    ],
    ['32-bit address size', '67 0f ab 03', 64, { rbx: W, rax: 0x7fff_ffff }, { fault: 14 }],
  ]);
});

describe('strings', () => {
  check([
    [
      'rep movsb',
      'f3 a4',
      64,
      { rsi: W, rdi: W + 32n, rcx: 5 },
      { rsi: W + 5n, rdi: W + 37n, rcx: 0, '@32': 0x2726_2504_0302_0100n },
    ],
    ['rep with nothing to do', 'f3 a4', 64, {}, { rsi: 0, rcx: 0, rip: 2, fault: -1 }],
    [
      'rep movsq faults after whole iterations',
      'f3 48 a5',
      64,
      { rsi: W + 112n, rdi: W, rcx: 5 },
      { rsi: W + 128n, rdi: W + 16n, rcx: 3, rip: 0, fault: 14, '@8': 0x7f7e_7d7c_7b7a_7978n },
    ],
    [
      'stosd backwards',
      'f3 ab',
      64,
      { rdi: W + 4n, rcx: 2, rax: 1, flags: 0x400 },
      { rdi: W - 4n, '@0': 0x1_0000_0001n },
    ],
    ['repne scasb', 'f2 ae', 64, { rdi: W, rcx: 100, rax: 9 }, { rdi: W + 10n, rcx: 90, flags: zf | pf }],
    ['repe cmpsb', 'f3 a6', 64, { rdi: W, rsi: W + 1n, rcx: 4 }, { rdi: W + 1n, rcx: 3, flags: 0 }],
    ['lodsb', 'ac', 64, { rsi: W + 9n, rax: 0x100 }, { rax: 0x109, rsi: W + 10n }],
    [
      'stosb, 32-bit addresses',
      '67 aa',
      64,
      { rdi: (1n << 40n) + W, rax: 0xee },
      { rdi: W + 1n, '@0': 0x0706_0504_0302_01een },
    ],
  ]);
});

describe('multiplication, division and decimal adjustment', () => {
  check([
    ['div by zero', 'f7 f1', 64, { rax: 7 }, { fault: 0, rax: 7, rip: 0 }],
    ['div overflow', 'f7 f1', 64, { rdx: 1, rcx: 1 }, { fault: 0, rdx: 1 }],
    [
      'idiv of the smallest number',
      '48 f7 f9',
      64,
      { rax: 1n << 63n, rdx: (1n << 64n) - 1n, rcx: (1n << 64n) - 1n },
      { fault: 0 },
    ],
    ['daa', '27', 32, { rax: 0x7b }, { rax: 0x81, flags: af | sf | pf }],
    ['daa with carry', '27', 32, { rax: 0x9a }, { rax: 0, flags: af | cf | zf | pf }],
    ['das', '2f', 32, { rax: 0x2f, flags: af }, { rax: 0x29, flags: af }],
    ['das borrows', '2f', 32, { rax: 0x05, flags: af }, { rax: 0xff, flags: af | cf | sf | pf }],
    ['aaa', '37', 32, { rax: 0x0b }, { rax: 0x101, flags: af | cf }],
    ['aas', '3f', 32, { rax: 0x2ff }, { rax: 0x109, flags: af | cf }],
    ['aam', 'd4 0a', 32, { rax: 0xff }, { rax: 0x1905, flags: pf }],
    ['aam by zero', 'd4 00', 32, { rax: 0xff }, { rax: 0xff, fault: 0 }],
    ['aad', 'd5 0a', 32, { rax: 0x0205 }, { rax: 25, flags: 0 }],
  ]);
});

describe('flags', () => {
  check([
    ['lahf', '9f', 64, { flags: cf | zf | pf }, { rax: (cf | zf | pf | 2) << 8 }],
    ['sahf', '9e', 64, { rax: 0xff00, flags: FLAG.of }, { flags: FLAG.of | cf | pf | af | zf | sf }],
    ['cmc', 'f5', 64, { flags: zf }, { flags: zf | cf }],
    ['std', 'fd', 64, { flags: zf }, { flags: zf | FLAG.df }],
    ['cld', 'fc', 64, { flags: FLAG.df | cf }, { flags: cf }],
    ['inc keeps CF', 'ff c0', 64, { rax: 0xffff_ffff, flags: cf }, { rax: 0, flags: cf | zf | pf | af }],
    [
      'adox leaves CF',
      'f3 0f 38 f6 c1',
      64,
      { rax: 0xffff_ffff, rcx: 1, flags: cf },
      { rax: 0, flags: FLAG.of | cf },
    ],
    [
      'cmpxchg8b fails',
      '0f c7 0b',
      64,
      { rbx: W, flags: zf },
      { rax: 0x0302_0100, rdx: 0x0706_0504, flags: 0 },
    ],
    ['cmpxchg16b unaligned', '48 0f c7 09', 64, { rcx: W + 8n }, { fault: 13 }],
  ]);
});
