/** Cases for the hardware vectors of the integer instructions, made from the forms with a seed. */
import { type Random, seededRandom } from '../../lib/base/random.js';
import type { Form } from '../../lib/isa/forms.js';
import { FORMS } from '../../lib/isa/opcodes.js';
import { GPR_NAMES } from '../../lib/isa/state.js';
import { WINDOW } from './state.js';

export interface Case {
  readonly code: readonly number[];
  readonly seed: number;
  readonly over: Readonly<Record<string, bigint>>;
}

/** Families recorded: those without jumps, in 64-bit mode. */
const FAMILIES =
  /^(add|or|adc|sbb|and|sub|xor|cmp|test|not|neg|inc|dec|mov|movzx|movsx|movsxd|lea|xchg|bswap|movbe|cbw|cwd|cmpxchg|cmpxchg8b|cmpxchg16b|xadd|rol|ror|rcl|rcr|shl|shr|sar|shld|shrd|mul|imul|div|idiv|bt|bts|btr|btc|bsf|bsr|tzcnt|lzcnt|popcnt|adcx|adox|set|cmov|push|pop|enter|leave|movs|cmps|stos|lods|scas|lahf|sahf|clc|stc|cmc|cld|std|nop)$/;

const isRecorded = (form: Form): boolean =>
  FAMILIES.test(form.row.name) &&
  form.row.modes !== 'no64' &&
  form.row.ends !== true &&
  !form.codes.some((c) => ['seg', 'cr', 'dr', 'xmm', 'mmx', 'far'].includes(c.kind) || c.from === 'moffs');

const many = (name: string): number =>
  /^(ro|rc|sh|sa|bt|mul|imul|div|idiv|adc|sbb|cmpxchg)/.test(name) ? 14 : 7;

const sizeOf = (c: { readonly type: Form['codes'][number]['type'] }, w: number): number =>
  c.type === 'b' || c.type === 'bs' ? 1 : c.type === 'w' ? 2 : c.type === 'v' ? w / 8 : w === 16 ? 2 : 4;

const makeCase = (random: Random, form: Form, seed: number): Case => {
  const over: Record<string, bigint> = {};
  const code: number[] = [];
  const below = (n: number): number => random.below(n);
  const w66 = form.prefix !== '66' && below(4) === 0;
  if (w66) code.push(0x66);
  if (form.prefix === '66' || form.prefix[0] === 'f') code.push(Number.parseInt(form.prefix, 16));
  if (form.row.string !== undefined && below(2) === 0) {
    code.push(0xf2 + below(2));
    over['rcx'] = BigInt(below(4));
    if (below(3) === 0) over['flags'] = 0x400n;
  }
  let rex = below(2) === 0 ? 0 : 0x40 | (below(2) << 3) | below(8);
  if (form.rexW === 1) rex |= 0x48;
  // stack operands stay 64 bits wide, so that the stack keeps inside the window
  const memory = form.modrm && form.mod !== 'reg' && (form.mod === 'mem' || below(2) === 0);
  let modrm = 0;
  let base = 0;
  let disp = 0;
  if (form.modrm) {
    const reg = form.digit >= 0 ? form.digit : below(8);
    if (memory) {
      do base = below(8);
      while (base === 4 || (form.row.string !== undefined && base === 1));
      disp = (below(5) - 2) * 8;
      modrm = 0x40 | (reg << 3) | base;
      over[GPR_NAMES[base | ((rex & 1) << 3)]] = WINDOW + 64n;
    } else modrm = 0xc0 | (reg << 3) | below(8);
    if (form.exact >= 0) modrm = form.exact;
  }
  if (rex !== 0) code.push(rex);
  if (form.map > 0) code.push(0x0f);
  if (form.map > 1) code.push(form.map === 2 ? 0x38 : 0x3a);
  code.push(form.opcode + below(form.plus === 'none' ? 1 : form.plus === 'r' ? 8 : 16));
  if (form.modrm) code.push(modrm);
  if (memory) code.push(disp & 0xff);
  const w = (rex & 8) !== 0 ? 64 : w66 ? 16 : 32;
  for (const c of form.codes) {
    if (c.from !== 'immediate') continue;
    const edge = below(3) === 0 ? [0, 1, 0x7f, 0x80, 0xff][below(5)] : -1;
    for (let i = 0; i < sizeOf(c, w); i++)
      code.push(edge >= 0 ? (i === 0 ? edge : edge === 0xff ? 0xff : 0) : below(256));
  }
  // a frame inside the window, or one whose end is not mapped
  if (form.row.name === 'enter') code.splice(-3, 3, below(16), below(4) === 0 ? 0x80 : 0, below(4));
  // beyond 16, the result of a 16-bit double shift is undefined
  if (/^sh[lr]d$/.test(form.row.name) && w66) {
    if (form.codes[2].from === 'immediate') code[code.length - 1] &= 15;
    else over['rcx'] ??= BigInt(below(17));
  }
  arrange(random, form, over, { modrm, rex, memory, base });
  return { code, seed, over };
};

/** Registers for which random values would only fault. */
const arrange = (
  random: Random,
  form: Form,
  over: Record<string, bigint>,
  at: { readonly modrm: number; readonly rex: number; readonly memory: boolean; readonly base: number },
): void => {
  const below = (n: number): number => random.below(n);
  const { name } = form.row;
  const reg = GPR_NAMES[((at.modrm >> 3) & 7) | ((at.rex & 4) << 1)];
  if (form.row.string !== undefined) {
    over['rsi'] = WINDOW + 40n;
    over['rdi'] = WINDOW + 72n;
  }
  if (/^bt/.test(name) && at.memory && form.digit < 0 && over[reg] === undefined) {
    over[reg] = BigInt.asUintN(64, BigInt(below(256) - 128));
  }
  if (/^i?div$/.test(name) && below(4) > 0) {
    over['rdx'] ??= BigInt(below(3));
    over['rax'] ??= BigInt(random.u32() >>> below(32));
  }
  if (/^(ro|rc|sh|sa)/.test(name) && form.codes.some((c) => c.code === 'CL')) {
    over['rcx'] ??= BigInt([0, 1, 2, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, below(256)][below(14)]);
  }
  if (name === 'leave' || name === 'enter') over['rbp'] = WINDOW + 80n;
};

/** Every case, in an order that depends on the forms. */
export const integerCases = (): readonly Case[] => {
  const random = seededRandom(2024);
  const list: Case[] = [];
  for (const form of FORMS) {
    if (!isRecorded(form)) continue;
    const n = many(form.row.name) * (form.plus === 'cc' ? 5 : 1);
    for (let i = 0; i < n; i++) list.push(makeCase(random, form, list.length + 1));
  }
  return list;
};
