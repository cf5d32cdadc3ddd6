/**
 * The x87 register stack, status word and exceptions, and the checks before x87, MMX and WAIT instructions.
 *
 * SDM volume 1, "x87 FPU State" and "x87 FPU Floating-Point Exception Handling". `S.ftw` holds 3 for an empty register
 * and anything else for a full one; the finer tags are derived when the environment is stored. Exceptions are reported the CR0.NE way
 * only (#MF before the next waiting instruction). FOP, FCS and FDS are not recorded and read 0.
 */
import { CR0, S, VECTOR } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import { DEFAULT_NAN, FE, type Float, pack80, type Status, unpack80 } from './softfloat.js';

export const FSW = {
  stackFault: 0x40,
  es: 0x80,
  c0: 0x100,
  c1: 0x200,
  c2: 0x400,
  top: 0x3800,
  c3: 0x4000,
  busy: 0x8000,
} as const;
const CONDITION = FSW.c0 | FSW.c1 | FSW.c2 | FSW.c3;
export const FCW_RESET = 0x37f;

export const x87Status = (cpu: Cpu): Status => {
  const fcw = cpu.get32(S.fcw);
  return {
    rounding: (fcw >>> 10) & 3,
    masks: fcw & 0x3f,
    daz: false,
    ftz: false,
    wrap: true,
    flags: 0,
    up: false,
  };
};

export const top = (cpu: Cpu): number => (cpu.get32(S.fsw) >>> 11) & 7;
const setTop = (cpu: Cpu, t: number): void =>
  cpu.set32(S.fsw, (cpu.get32(S.fsw) & ~FSW.top) | ((t & 7) << 11));
/** Physical number of ST(i). */
const physical = (cpu: Cpu, i: number): number => (top(cpu) + i) & 7;

export const isEmpty = (cpu: Cpu, i: number): boolean =>
  ((cpu.get32(S.ftw) >>> (2 * physical(cpu, i))) & 3) === 3;
const setTag = (cpu: Cpu, reg: number, tag: 0 | 3): void => {
  const ftw = cpu.get32(S.ftw);
  cpu.set32(S.ftw, tag === 0 ? ftw & ~(3 << (2 * reg)) : ftw | (3 << (2 * reg)));
};

/** Significand and sign-exponent word of physical register `reg`. */
export const sigOf = (cpu: Cpu, reg: number): bigint => cpu.get64(S.x87 + 16 * reg);
export const seOf = (cpu: Cpu, reg: number): number => cpu.get32(S.x87 + 16 * reg + 8) & 0xffff;
export const setRegister = (cpu: Cpu, reg: number, sig: bigint, se: number): void => {
  cpu.set64(S.x87 + 16 * reg, sig);
  cpu.set64(S.x87 + 16 * reg + 8, BigInt(se));
};

/** Raw bits of ST(i): copies keep encodings that arithmetic would not. */
export const rawSt = (cpu: Cpu, i: number): readonly [bigint, number] => {
  const reg = physical(cpu, i);
  return [sigOf(cpu, reg), seOf(cpu, reg)];
};
export const setRawSt = (cpu: Cpu, i: number, raw: readonly [bigint, number]): void => {
  const reg = physical(cpu, i);
  setRegister(cpu, reg, raw[0], raw[1]);
  setTag(cpu, reg, 0);
};
export const readSt = (cpu: Cpu, i: number): Float => {
  const [sig, se] = rawSt(cpu, i);
  return unpack80(sig, se);
};
export const writeSt = (cpu: Cpu, i: number, v: Float): void => setRawSt(cpu, i, pack80(v));
export const free = (cpu: Cpu, i: number): void => setTag(cpu, physical(cpu, i), 3);
export const pop = (cpu: Cpu): void => {
  const t = top(cpu);
  setTag(cpu, t, 3);
  setTop(cpu, t + 1);
};
export const moveTop = (cpu: Cpu, by: number): void => setTop(cpu, top(cpu) + by);

/** Condition codes: clears all four bits, or those in `which`, and sets `to`. */
export const setConditions = (cpu: Cpu, to: number, which: number = CONDITION): void =>
  cpu.set32(S.fsw, (cpu.get32(S.fsw) & ~which) | to);

/** ES and B follow from the flags and masks; called when either was loaded. */
export const summarize = (cpu: Cpu): void => {
  const fsw = cpu.get32(S.fsw) & ~(FSW.es | FSW.busy);
  cpu.set32(S.fsw, (fsw & ~cpu.get32(S.fcw) & 0x3f) !== 0 ? fsw | FSW.es | FSW.busy : fsw);
};

/**
 * Records what an operation reported; C1 tells whether it rounded up. False when an unmasked exception was found before
 * computing (invalid, denormal, zero divide): then nothing else may change.
 */
export const raise = (cpu: Cpu, s: Status): boolean => {
  const unmasked = s.flags & ~s.masks;
  const before = (unmasked & 7) !== 0;
  const flags = before ? s.flags & 7 : s.flags;
  let fsw = cpu.get32(S.fsw) & ~FSW.c1;
  if (!before && s.up) fsw |= FSW.c1;
  fsw |= flags;
  if (unmasked !== 0) fsw |= FSW.es | FSW.busy;
  cpu.set32(S.fsw, fsw);
  return !before;
};

/** Stack underflow or overflow; true when invalid-operation is masked, so that a default result is delivered. */
const stackFault = (cpu: Cpu, overflow: boolean): boolean => {
  const masked = (cpu.get32(S.fcw) & FE.invalid) !== 0;
  const fsw =
    (cpu.get32(S.fsw) & ~FSW.c1) |
    FE.invalid |
    FSW.stackFault |
    (overflow ? FSW.c1 : 0) |
    (masked ? 0 : FSW.es | FSW.busy);
  cpu.set32(S.fsw, fsw);
  return masked;
};
export const underflow = (cpu: Cpu): boolean => stackFault(cpu, false);

/** Makes room for a push; false when the stack overflowed (the default NaN was pushed if the exception is masked). */
export const room = (cpu: Cpu): boolean => {
  if (isEmpty(cpu, 7)) return true;
  if (stackFault(cpu, true)) pushRaw(cpu, pack80(DEFAULT_NAN));
  return false;
};
export const pushRaw = (cpu: Cpu, raw: readonly [bigint, number]): void => {
  moveTop(cpu, -1);
  setRawSt(cpu, 0, raw);
};
export const push = (cpu: Cpu, v: Float): void => pushRaw(cpu, pack80(v));

/** Records the instruction pointer of a non-control instruction. */
export const noteInstruction = (cpu: Cpu): void => {
  cpu.set64(S.fip, cpu.rip);
};

// ---- checks before instructions

/** #MF for a pending unmasked exception. */
const pending = (cpu: Cpu): boolean => ((cpu.get32(S.fsw) & FSW.es) !== 0 ? cpu.fault(VECTOR.mf) : true);
/** #NM of x87 instructions that do not wait (FNINIT, FNSTSW …), FXSAVE and XSAVE families excepted. */
export const checkAvailable = (cpu: Cpu): boolean =>
  (cpu.get32(S.cr0) & (CR0.em | CR0.ts)) !== 0 ? cpu.fault(VECTOR.nm) : true;
export const checkX87 = (cpu: Cpu): boolean => checkAvailable(cpu) && pending(cpu);
export const checkMmx = (cpu: Cpu): boolean => {
  const cr0 = cpu.get32(S.cr0);
  if ((cr0 & CR0.em) !== 0) return cpu.ud();
  return (cr0 & CR0.ts) !== 0 ? cpu.fault(VECTOR.nm) : pending(cpu);
};
export const checkWait = (cpu: Cpu): boolean => {
  const cr0 = cpu.get32(S.cr0);
  return (cr0 & CR0.mp) !== 0 && (cr0 & CR0.ts) !== 0 ? cpu.fault(VECTOR.nm) : pending(cpu);
};
