/**
 * Cases: single instructions of a form, and short sequences, in a state that suits them. Everything comes from a seed.
 */
import { type Random, seededRandom } from '../../lib/base/random.js';
import type { Form } from '../../lib/isa/forms.js';
import { FORMS } from '../../lib/isa/opcodes.js';
import type { Insn } from '../../lib/isa/rows.js';
import { GPR } from '../../lib/isa/state.js';
import { operandBytes } from './address.js';
import { arrange } from './arrange.js';
import { assemble, chooseAddress, chooseStack, type Encoded, point } from './assemble.js';
import { AT, CODE } from './layout.js';
import { flagMask, notRun, undefinedFlags } from './masks.js';
import { CODE_AT, fillState, KINDS, type Kind } from './values.js';

export type Mode = 64 | 32;
export const MODES: readonly Mode[] = [64, 32];

/** What the state of a form's cases holds; vectors repeat the choice by index. */
export const kindOf = (form: Form, r: Random): Kind => {
  const { name, unit, feature } = form.row;
  if (/^(fxrstor|xrstor|fldenv|frstor|fxsave|xsave|xsaveopt|xsavec|fnsave|fnstenv)$/.test(name))
    return 'image';
  if (/^fb/.test(name)) return 'bcd';
  if (/^pcmp.str/.test(name)) return 'text';
  if (feature === 'bmi1' || feature === 'bmi2') return 'count';
  if (unit === 'x87') return 'f80';
  if (unit === 'sse') {
    if (/ss$|ps$/.test(name)) return r.below(8) === 0 ? 'int' : 'f32';
    if (/sd$|pd$/.test(name)) return r.below(8) === 0 ? 'int' : 'f64';
    if (/ps|ss2/.test(name)) return 'f32';
    if (/pd|sd2/.test(name)) return 'f64';
  }
  return 'int';
};

/** NOT AL: what a taken branch jumps over. */
const FILLER = [0xf6, 0xd0];

const branchDistance = (code: Encoded): { at: number; bytes: number } | undefined => {
  const { insn } = code;
  if (insn.operands[0]?.kind !== 'rel') return undefined;
  const long =
    code.bytes.length -
    code.bytes.findIndex((b) => (b >= 0x70 && b < 0x80) || (b >= 0xe0 && b < 0xf0) || b === 0x0f);
  const bytes = long === 2 ? 1 : insn.w === 16 ? 2 : 4;
  return { at: code.bytes.length - bytes, bytes };
};
const setDistance = (code: Encoded, distance: number): void => {
  const place = branchDistance(code);
  if (place === undefined) return;
  for (let i = 0; i < place.bytes; i++) code.bytes[place.at + i] = (distance >> (8 * i)) & 0xff;
};

/** Encodings that Linux or the processor of the recording do something else with; the reasons are in `masks.ts` terms. */
const excluded = (insn: Insn, code: readonly number[]): boolean => {
  const { name } = insn.row;
  // AMD takes 66 before near branches of 64-bit mode for a 16-bit operand size (SDM volume 2, "CALL", "JMP", "Jcc")
  if (insn.mode === 64 && code.includes(0x66) && /^(j|jmp|call|ret|loop|loope|loopne|jcxz)$/.test(name))
    return true;
  // … and ignores REX.W of far branches and far pointer loads (SDM volume 2, "JMP", "LDS/LES/LFS/LGS/LSS")
  if (insn.mode === 64 && insn.w === 64 && (insn.rex & 8) !== 0) {
    const op = insn.operands.at(-1);
    if (op?.kind === 'mem' && op.bytes === 10 && /^(jmp|call|lfs|lgs|lss)$/.test(name)) return true;
  }
  // AMD has no register form of the prefetches; SDM volume 2, "Opcode Map": 0F 0D is a NOP there
  if (name === 'prefetch' && insn.operands[0].kind === 'reg') return true;
  if (name === 'shld' || name === 'shrd') {
    // counts above the operand size leave the result undefined
    const count = insn.operands[2];
    return insn.w === 16 && (count.kind !== 'imm' || (count.value & 31n) > 16n);
  }
  return false;
};

export interface Case {
  /** The whole case, `AT.size` bytes. */
  readonly bytes: Uint8Array;
  readonly view: DataView;
  kind: Kind;
  seed: number;
  form: Form;
}
export const newCase = (): Case => {
  const bytes = new Uint8Array(AT.size);
  return { bytes, view: new DataView(bytes.buffer), kind: 'int', seed: 0, form: FORMS[0] };
};

const putCode = (c: Case, bytes: readonly number[]): void => {
  c.bytes[AT.length] = bytes.length;
  c.bytes.set(bytes, AT.code);
};

/** Makes `c` a case of one instruction; false when the form has no encoding in the mode. */
export const single = (c: Case, form: Form, mode: Mode, seed: number): boolean => {
  const r = seededRandom(seed);
  c.kind = kindOf(form, r);
  c.seed = r.u32();
  c.form = form;
  let code: Encoded | undefined;
  for (let n = 0; n < 8 && code === undefined; n++) {
    const found = assemble(r, form, mode);
    if (found === undefined) return false;
    if (!excluded(found.insn, found.bytes)) code = found;
  }
  if (code === undefined) return false;
  const { view } = c;
  fillState(c.bytes, c.kind, c.seed, mode);
  // now and then the code ends with its page, behind which nothing is mapped
  const length = code.bytes.length;
  const edge = r.below(100) === 0;
  const rip = edge ? CODE + 0x1000 - 1 - r.below(length) : CODE_AT;
  view.setUint32(AT.rip, rip, true);
  view.setUint32(AT.gpr + 8 * GPR.rsp, chooseStack(r), true);
  view.setUint32(AT.gpr + 8 * GPR.rsp + 4, 0, true);
  const size = operandBytes(code.insn);
  let at: bigint | undefined;
  if (code.insn.mem !== undefined && code.insn.row.name !== 'lea') {
    let target = chooseAddress(r, size, form.row.name === 'clflush');
    if (mode === 32) target = BigInt.asUintN(32, target);
    at = point(view, code, 0, target, false);
  }
  const jumps = code.insn.operands[0]?.kind === 'rel' || /^(jmp|call|ret|iret)$/.test(form.row.name);
  const next = rip + length;
  if (jumps) setDistance(code, FILLER.length);
  const target = next + FILLER.length;
  if (code.insn.operands[0]?.kind === 'far') {
    const far = code.bytes.length - (code.insn.w === 16 ? 4 : 6);
    const values = [BigInt(target), BigInt(r.below(5) > 0 ? 0x23 : [0, 3, 0x2b, 0x10, 0x83][r.below(5)])];
    const offsetBytes = code.insn.w / 8;
    for (let i = 0; i < offsetBytes; i++) code.bytes[far + i] = Number((values[0] >> BigInt(8 * i)) & 0xffn);
    for (let i = 0; i < 2; i++)
      code.bytes[far + offsetBytes + i] = Number((values[1] >> BigInt(8 * i)) & 0xffn);
  }
  arrange({ r, view, code, at, next, target, mode }, c.kind);
  putCode(c, jumps && !edge ? [...code.bytes, ...FILLER] : code.bytes);
  return true;
};

/** Rows that sequences leave out: what they store or need is known only for a case of their own. */
const ALONE =
  /^(fnstenv|fnsave|fldenv|frstor|fxsave|fxrstor|xsave.*|xrstor|popf|iret|ret|jmp|call|loop.*|jcxz|int|f2xm1|fyl2x|fyl2xp1|fptan|fpatan|fsincos|fsin|fcos|rcp.*|rsqrt.*|cpuid|rdtsc|rdtscp|rdpmc|xgetbv|rdrand|rdseed|rdpid|cvt.*pi.*|enter|ins|outs|l[defgs]s|lss|wr[fg]sbase)$/;
const READS_FLAGS =
  /^(adc|sbb|rcl|rcr|cmc|lahf|pushf|adcx|adox|fcmov.*|cmov|set|j|salc|loope|loopne|aaa|aas|daa|das|into)$/;
const COMPARES = /^f(u?com|icom|tst)/;
/** Flags are written for some counts only. */
const MAY_KEEP = /^(sh|sa|ro|rc|cmps|scas|bsf|bsr|cmpxchg8b|cmpxchg16b)/;

const SEQUENCE_FORMS: readonly Form[] = FORMS.filter(
  (f) =>
    !ALONE.test(f.row.name) &&
    notRun(f.row.name) === undefined &&
    f.row.cpl !== 0 &&
    !f.codes.some((c) => ['seg', 'cr', 'dr', 'far'].includes(c.kind)) &&
    !(f.row.ends === true && f.row.name !== 'j'),
);
/** Sequences keep to one kind of data, and mix it with integers. */
const formsOf = (kind: Kind): readonly Form[] =>
  SEQUENCE_FORMS.filter((f) => kindOf(f, seededRandom(1)) === kind || kindOf(f, seededRandom(1)) === 'int');
const BY_KIND = new Map(KINDS.map((k) => [k, formsOf(k)] as const));
const SEQUENCE_KINDS: readonly Kind[] = ['int', 'int', 'count', 'f32', 'f64', 'f80', 'f80', 'text', 'bcd'];

/** Makes `c` a sequence of two to six instructions with forward branches between them. */
export const sequence = (c: Case, mode: Mode, seed: number): void => {
  const r = seededRandom(seed);
  c.kind = SEQUENCE_KINDS[r.below(SEQUENCE_KINDS.length)];
  c.seed = r.u32();
  fillState(c.bytes, c.kind, c.seed, mode);
  const { view } = c;
  view.setUint32(AT.gpr + 8 * GPR.rsp, chooseStack(r), true);
  view.setUint32(AT.gpr + 8 * GPR.rsp + 4, 0, true);
  const bases = [[GPR.rbx, GPR.rbp], [GPR.rsi, GPR.rdi], mode === 64 ? [13, 8] : [GPR.rdx, GPR.rbx]][
    r.below(3)
  ];
  for (const b of [...bases, GPR.rsi, GPR.rdi])
    view.setBigUint64(AT.gpr + 8 * b, chooseAddress(r, 32, true), true);
  view.setBigUint64(AT.gpr + 8 * GPR.rcx, BigInt(r.below(10)), true);
  const forms = BY_KIND.get(c.kind) ?? SEQUENCE_FORMS;
  const special = forms.filter(() => true);
  const wanted = 2 + r.below(5);
  const bytes: number[] = [];
  const starts: number[] = [];
  const branches: { code: Encoded; at: number }[] = [];
  let undefinedNow = 0;
  let compared = false;
  for (let n = 0, tries = 0; n < wanted && tries < 40; tries++) {
    const form = special[r.below(special.length)];
    const code = assemble(r, form, mode, bases);
    if (code === undefined || excluded(code.insn, code.bytes)) continue;
    const { insn } = code;
    if (undefinedNow !== 0 && READS_FLAGS.test(form.row.name)) continue;
    // what comparisons leave in C1, and flags with an invalid operation unmasked, is masked at the end only
    if (COMPARES.test(form.row.name)) {
      if ((c.bytes[0] & 1) === 0) continue;
      compared = true;
    }
    if (compared && form.row.name.startsWith('fnstsw')) continue;
    if (/^sh[lr]d$/.test(form.row.name) && insn.w === 16) continue;
    if (bytes.length + code.bytes.length > 60) break;
    if (insn.mem !== undefined && form.row.name !== 'lea')
      point(view, code, bytes.length, BigInt.asUintN(mode, chooseAddress(r, operandBytes(insn), true)), true);
    const u = undefinedFlags(insn);
    if (!MAY_KEEP.test(form.row.name)) undefinedNow &= ~flagMask(form.row.flags?.w);
    undefinedNow |= u;
    if (insn.operands[0]?.kind === 'rel') branches.push({ code, at: bytes.length });
    starts.push(bytes.length);
    bytes.push(...code.bytes);
    c.form = form;
    n++;
  }
  for (const { code, at } of branches) {
    const next = at + code.bytes.length;
    const later = [...starts.filter((s) => s >= next), bytes.length];
    setDistance(code, later[r.below(later.length)] - next);
    for (let i = 0; i < code.bytes.length; i++) bytes[at + i] = code.bytes[i];
  }
  putCode(c, bytes);
};

/** Undefined flags at the end of a sequence, or of the instruction. */
export const undefinedAtEnd = (insns: readonly (readonly [number, Insn])[]): number => {
  let mask = 0;
  for (const [, insn] of insns) {
    if (!MAY_KEEP.test(insn.row.name) && insns.length === 1) mask = 0;
    mask |= undefinedFlags(insn);
  }
  return mask;
};

/** Forms that user code can execute and the hardware vectors cover. */
export const RUN_FORMS: readonly Form[] = FORMS.filter((f) => notRun(f.row.name) === undefined);
