/**
 * What of a result is not compared, and which forms are not run on hardware at all, each with its reason.
 *
 * Undefined flags come from the rows (`flags.u`). The rest are rows here: where the SDM leaves something undefined or to
 * the model, and where the recording processor (AMD) does not do what the SDM says that Intel's do.
 */
import { decode } from '../../lib/isa/decoder.js';
import type { Insn } from '../../lib/isa/rows.js';
import { FLAG, GPR } from '../../lib/isa/state.js';
import { memoryAddress, operandBytes } from './address.js';
import { AT, placeOf } from './layout.js';

/** A result on its way to be compared: bits of `keep` that are 0 are not. */
export interface Seen {
  readonly insn: Insn;
  readonly given: DataView;
  readonly expected: DataView;
  readonly actual: DataView;
  readonly keep: Uint8Array;
  /** Hides bytes of the result. */
  hide(at: number, bytes: number): void;
  flags(mask: number): void;
  gpr(i: number, from?: number): void;
  /** Hides bytes of memory by linear address. */
  memory(at: bigint, bytes: number): void;
  /** Registers ST(i) may be so many units in the last place apart. */
  near(units: number): void;
}

export interface Mask {
  readonly rows: RegExp;
  readonly when?: (s: Seen) => boolean;
  readonly hide: (s: Seen) => void;
  /** Section of the SDM, and what it says of Intel's processors; or that it leaves this open. */
  readonly sdm: string;
  readonly says: string;
}

const pending = (s: Seen): boolean => (s.expected.getUint16(2, true) & 0x80) !== 0;
const trapped = (s: Seen): boolean => s.expected.getInt32(AT.vector, true) >= 0;
const destination = (s: Seen): void => {
  const op = s.insn.operands[0];
  if (op?.kind === 'reg') s.gpr(op.index);
};
/** The selector that a row with one in its last operand is given. */
const selectorOf = (s: Seen): number => {
  const op = s.insn.operands[s.insn.operands.length - 1];
  if (op.kind === 'reg') return s.given.getUint16(AT.gpr + 8 * op.index, true);
  const byte = (i: bigint): number => {
    const place = placeOf(Number(BigInt.asUintN(52, address(s) + i)));
    return place < 0 ? 0xff : s.given.getUint8(place);
  };
  return byte(0n) | (byte(1n) << 8);
};
const address = (s: Seen): bigint => memoryAddress(s.insn, s.given) ?? 0n;

export const MASKS: readonly Mask[] = [
  {
    rows: /^(fnstenv|fnsave)$/,
    sdm: 'Volume 1, "Saving the x87 FPU’s State with FSTENV/FNSTENV and FSAVE/FNSAVE"',
    says: 'The last instruction and operand pointers and the opcode are stored; AMD stores them only with an unmasked exception pending.',
    hide: (s) => {
      const at = address(s);
      if (s.insn.w === 16) s.memory(at + 6n, 8);
      else s.memory(at + 12n, 16);
      // the reserved upper halves of the control, status and tag words
      if (s.insn.w !== 16) for (const i of [2n, 6n, 10n]) s.memory(at + i, 2);
    },
  },
  {
    rows: /^(fxsave|xsave|xsaveopt|xsavec)$/,
    sdm: 'Volume 2, "FXSAVE"',
    says: 'The x87 pointers and opcode are the model’s (as in FSTENV), MXCSR_MASK and reserved bytes too.',
    hide: (s) => {
      const at = address(s);
      s.memory(at + 5n, 19);
      s.memory(at + 28n, 4);
      for (let i = 0n; i < 8n; i++) s.memory(at + 42n + 16n * i, 6);
      s.memory(at + 416n, 96);
    },
  },
  {
    rows: /^(f2xm1|fyl2x|fyl2xp1|fptan|fpatan|fsincos|fsin|fcos)$/,
    sdm: 'Volume 1, "Transcendental Instruction Accuracy"',
    says: 'The error is below one unit in the last place in round-to-nearest; the last bit, C1 and with them inexactness are the model’s.',
    hide: (s) => {
      s.near(1);
      s.hide(1 + 2, 0);
      s.keep[3] &= ~0x02;
    },
  },
  {
    rows: /^(rcp|rsqrt)[ps]s$/,
    sdm: 'Volume 2, "RCPPS", "RSQRTPS"',
    says: 'The relative error is at most 1.5 × 2⁻¹²; the bits are the model’s.',
    hide: (s) => {
      const op = s.insn.operands[0];
      if (op.kind === 'xmm') s.hide(160 + 16 * op.index, s.insn.row.name.endsWith('ss') ? 4 : 16);
    },
  },
  {
    rows: /^(cpuid|rdtsc|rdtscp|rdpmc|xgetbv)$/,
    sdm: 'Volume 2, "CPUID", "RDTSC", "RDTSCP", "XGETBV"',
    says: 'What is read is the processor’s own; only that nothing else changes is compared.',
    hide: (s) => {
      for (const i of s.insn.row.name === 'cpuid'
        ? [GPR.rbx, GPR.rcx]
        : s.insn.row.name === 'rdtscp'
          ? [GPR.rcx]
          : [])
        s.gpr(i, 0);
      s.gpr(GPR.rax, 0);
      s.gpr(GPR.rdx, 0);
    },
  },
  {
    rows: /^(rdrand|rdseed|rdpid)$/,
    sdm: 'Volume 2, "RDRAND", "RDSEED", "RDPID"',
    says: 'The number is the processor’s own; the flags are compared, for RDSEED not CF, which is clear when no number is ready.',
    hide: (s) => {
      destination(s);
      if (s.insn.row.name === 'rdseed') s.flags(FLAG.cf);
    },
  },
  {
    rows: /^f(u?com|icom|tst)/,
    when: (s) => pending(s) || s.insn.row.name.includes('comi'),
    sdm: 'Volume 1, "x87 FPU Floating-Point Exception Handling", "Invalid Arithmetic Operand Exception"; volume 2, "FCOMI"',
    says: 'An unmasked invalid operation leaves condition codes and EFLAGS alone, and FCOMI clears C1; AMD sets the codes and keeps C1.',
    hide: (s) => {
      s.keep[3] &= ~0x47;
      if (pending(s)) s.flags(0x8d5);
    },
  },
  {
    rows: /^(cvt.*pi|maskmovq)/,
    when: (s) => trapped(s) || s.insn.row.name === 'cvtpi2ps',
    sdm: 'Volume 2, "CVTPI2PS"; volume 3, "x87 FPU and MMX State"',
    says: 'The transition to MMX state is made for CVTPI2PS from memory, and not when the instruction faults; AMD does the reverse.',
    hide: (s) => {
      s.hide(0, 5);
      s.hide(32, 128);
    },
  },
  {
    rows: /^(maskmovq|maskmovdqu|frstor|fldenv|fxrstor|fnsave|fnstenv|fxsave|xsave.*|xrstor|enter|pusha|popa|iret|ret|call|jmp|l[defgs]s|lss|cmps|bound)$/,
    sdm: 'Volume 3, "Interrupt 14—Page-Fault Exception"',
    says: 'CR2 is the address that faulted; which of an operand’s bytes on the page is touched first is the model’s.',
    hide: (s) => {
      // two operands that fault
      if (s.insn.row.name === 'cmps' && trapped(s)) s.hide(AT.vector, 8);
      s.hide(AT.cr2, /^(cmps|f?x(save|rstor))/.test(s.insn.row.name) ? 8 : 1);
      s.keep[AT.cr2 + 1] &= 0xf0;
    },
  },
  {
    rows: /^maskmov/,
    when: trapped,
    sdm: 'Volume 2, "MASKMOVDQU", "MASKMOVQ"',
    says: 'Whether addresses whose mask bits are 0 fault is the model’s; AMD’s always do.',
    hide: (s) => s.hide(0, AT.size),
  },
  {
    rows: /^cvtpi2ps$/,
    when: (s) => s.insn.mem !== undefined && (s.given.getUint16(2, true) & 0x80) !== 0,
    sdm: 'Volume 2, "CVTPI2PS"',
    says: 'A pending x87 exception is raised before the instruction also with a memory operand; by AMD not.',
    hide: (s) => s.hide(0, AT.size),
  },
  {
    rows: /^popa$/,
    when: trapped,
    sdm: 'Volume 3, "Program or Task Restart"',
    says: 'A fault leaves the registers of the instruction’s start; AMD has loaded some.',
    hide: (s) => {
      for (const i of [0, 1, 2, 3, 5, 6, 7]) s.gpr(i);
    },
  },
  {
    rows: /^(lar|lsl|verr|verw)$/,
    when: (s) => (selectorOf(s) & 0xfff8) >= 0x60 && (selectorOf(s) & 4) === 0,
    sdm: 'Volume 3, "Segment Descriptors"',
    says: 'The descriptors are the kernel’s; those behind the TSS are not copied here.',
    hide: (s) => {
      destination(s);
      s.flags(FLAG.zf);
    },
  },
  {
    rows: /^(ldmxcsr|fxrstor|xrstor)$/,
    when: (s) => (s.expected.getUint32(24, true) & 0x2_0000) !== 0,
    sdm: 'Volume 1, "MXCSR Control and Status Register"',
    says: 'Bits 31:16 are reserved, and setting one is #GP(0); AMD’s bit 17 allows misaligned operands.',
    hide: (s) => s.hide(0, AT.size),
  },
  {
    rows: /^movsxd$/,
    when: (s) => trapped(s) && s.insn.w === 16,
    sdm: 'Volume 2, "MOVSX/MOVSXD"',
    says: 'With a 16-bit operand size a word is read; AMD reads a doubleword.',
    hide: (s) => s.hide(0, AT.size),
  },
  {
    rows: /^ud[01]$/,
    when: (s) => s.actual.getInt32(AT.vector, true) === 14,
    sdm: 'Volume 2, "UD—Undefined Instruction"',
    says: 'Some processors decode UD0 without ModRM, and so do not fetch it.',
    hide: (s) => s.hide(AT.vector, 16),
  },
  {
    rows: /^(f2xm1|fyl2xp1)$/,
    when: (s) => (s.given.getUint16(40, true) & 0x7fff) >= (s.insn.row.name === 'f2xm1' ? 0x3fff : 0x3ffd),
    sdm: 'Volume 2, "F2XM1", "FYL2XP1"',
    says: 'For operands outside the range the result and the exceptions are undefined.',
    hide: (s) => s.hide(0, 160),
  },
  {
    rows: /^ret$/,
    when: (s) => trapped(s) && s.actual.getInt32(AT.vector, true) === 13,
    sdm: 'Volume 2, "RET"',
    says: 'The code segment selector is checked before the rest of the frame is read; AMD reads first.',
    hide: (s) => s.hide(AT.vector, 16),
  },
  {
    rows: /./,
    when: (s) => s.insn.mode !== 64 && s.actual.getBigUint64(AT.cr2, true) >> 4n === 0xfff_ffffn,
    sdm: 'Volume 3, "Limit Checking"',
    says: 'As above, for accesses to the stack.',
    hide: (s) => s.hide(0, AT.size),
  },
  {
    rows: /./,
    when: (s) => s.insn.mode !== 64 && address(s) + BigInt(operandBytes(s.insn)) > 0x1_0000_0000n,
    sdm: 'Volume 3, "Limit Checking"',
    says: 'Whether an access that wraps at 4 GiB faults in a segment of 4 GiB is the model’s.',
    hide: (s) => s.hide(0, AT.size),
  },
  {
    rows: /^(ins|outs)$/,
    when: (s) => s.insn.rep !== 'none',
    sdm: 'Volume 2, "INS", "REP/REPE/REPZ/REPNE/REPNZ"',
    says: 'With a count of 0 nothing is done; AMD checks the I/O permission first.',
    hide: (s) => {
      if (BigInt.asUintN(s.insn.aw, s.given.getBigUint64(AT.gpr + 8, true)) === 0n)
        s.hide(AT.rip, AT.mode - AT.rip);
    },
  },
];

/** Rows of which nothing is recorded, and why. */
export const NOT_RUN: readonly { readonly rows: RegExp; readonly why: string }[] = [
  { rows: /^(sgdt|sidt|sldt|str|smsw)$/, why: 'emulated by Linux under UMIP' },
  { rows: /^(syscall|sysenter)$/, why: 'calls the kernel' },
  { rows: /^(int|int1|int3|into)$/, why: 'delivered through the IDT' },
  { rows: /^(vm|invept|invvpid)/, why: 'Intel only; the recording processor is AMD' },
];
export const notRun = (name: string): string | undefined => NOT_RUN.find((n) => n.rows.test(name))?.why;

const LETTERS: Readonly<Record<string, number>> = {
  o: FLAG.of,
  s: FLAG.sf,
  z: FLAG.zf,
  a: FLAG.af,
  p: FLAG.pf,
  c: FLAG.cf,
};
export const flagMask = (letters: string | undefined): number =>
  [...(letters ?? '')].reduce((m, letter) => m | LETTERS[letter], 0);

/** Flags that a row leaves undefined; the OF of shifts is what processors deliver for every count. */
export const undefinedFlags = (insn: Insn): number => flagMask(insn.row.flags?.u);

/** The instructions of a case, with their places in the code. */
export const instructionsOf = (given: Uint8Array): readonly (readonly [at: number, insn: Insn])[] => {
  const code = given.subarray(AT.code, AT.code + given[AT.length]);
  const mode = given[AT.mode] === 64 ? 64 : 32;
  const list: (readonly [number, Insn])[] = [];
  for (let at = 0; at < code.length; ) {
    const insn = decode(code, at, code.length - at, mode);
    if (typeof insn === 'string') break;
    list.push([at, insn]);
    at += insn.length;
  }
  return list;
};

export { placeOf };
