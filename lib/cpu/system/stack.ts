/**
 * A stack as the processor uses it for frames: SS with its limit, a stack pointer and its width.
 *
 * Frames are read without moving the pointer and written as a whole after a probe of both ends, so that an instruction
 * or a delivery that faults has changed no register. SDM volume 1, "Stacks".
 */
import { S, SEG, VECTOR } from '../../isa/state.js';
import { ACCESS, LEFT } from '../../memory/access.js';
import type { Cpu } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { canonical, high, low, type Privilege, probeWrite, readLinear, writeLinear } from './memory.js';
import {
  AR,
  attrOf,
  baseOf,
  type Descriptor,
  descriptorBase,
  descriptorLimit,
  externalBit,
  limitOf,
} from './segments.js';

export interface Stack {
  readonly base: bigint;
  readonly limit: number;
  readonly attr: number;
  readonly size: 16 | 32 | 64;
  sp: bigint;
  /** Selector part of the error code of #SS. */
  readonly code: number;
  readonly privilege: Privilege;
}

const mask = (size: 16 | 32 | 64): bigint =>
  size === 64 ? 0xffff_ffff_ffff_ffffn : size === 32 ? 0xffff_ffffn : 0xffffn;

export const currentStack = (cpu: Cpu): Stack => {
  const size = cpu.get32(S.stackSize) as 16 | 32 | 64;
  return {
    base: size === 64 ? 0n : baseOf(cpu, SEG.ss),
    limit: limitOf(cpu, SEG.ss),
    attr: attrOf(cpu, SEG.ss),
    size,
    sp: cpu.gpr(4) & mask(size),
    code: 0,
    privilege: 'current',
  };
};

export const stack64 = (sp: bigint, privilege: Privilege): Stack => ({
  base: 0n,
  limit: 0,
  attr: 0,
  size: 64,
  sp,
  code: 0,
  privilege,
});

/** The stack of a checked SS descriptor. */
export const stackOf = (d: Descriptor, selector: number, sp: bigint, privilege: Privilege): Stack => {
  const size = (d.attr & AR.db) !== 0 ? 32 : 16;
  return {
    base: descriptorBase(d),
    limit: descriptorLimit(d),
    attr: d.attr,
    size,
    sp: sp & mask(size),
    code: selector & 0xfffc,
    privilege,
  };
};

/** Linear address of `bytes` bytes at sp + delta, or undefined with #SS recorded. */
const stackLinear = (cpu: Cpu, stack: Stack, delta: number, bytes: number): bigint | undefined => {
  const at = (stack.sp + BigInt(delta)) & mask(stack.size);
  if (stack.size === 64) {
    if (canonical(at) && canonical(at + BigInt(bytes - 1))) return at;
  } else {
    const start = Number(at);
    const last = start + bytes - 1;
    const down = (stack.attr & (AR.code | AR.expandDown)) === AR.expandDown;
    const top = (stack.attr & AR.db) !== 0 ? 0xffff_ffff : 0xffff;
    const inside = down ? start > stack.limit && last <= top : last <= stack.limit;
    if (inside && (stack.attr & AR.unusable) === 0) return (stack.base + at) & 0xffff_ffffn;
  }
  cpu.fault(VECTOR.ss, stack.code | externalBit(cpu));
  return undefined;
};

/** Value number `index` of `size` bytes above the stack pointer. */
export const peek = (
  cpu: Cpu,
  stack: Stack,
  index: number,
  size: 2 | 4 | 8,
  skip = 0,
): bigint | undefined => {
  const at = stackLinear(cpu, stack, index * size + skip, size);
  return at === undefined ? undefined : readLinear(cpu, at, size, stack.privilege);
};
/** The first `count` values, or undefined with an event recorded. */
export const peekAll = (
  cpu: Cpu,
  stack: Stack,
  count: number,
  size: 2 | 4 | 8,
  skip = 0,
): bigint[] | undefined => {
  const values: bigint[] = [];
  for (let i = 0; i < count; i++) {
    const v = peek(cpu, stack, i, size, skip);
    if (v === undefined) return undefined;
    values.push(v);
  }
  return values;
};

/** Pushes `values` in order and moves `stack.sp`; nothing is written when any of it is not possible. */
export const pushAll = (cpu: Cpu, stack: Stack, values: readonly bigint[], size: 2 | 4 | 8): boolean => {
  const at: bigint[] = [];
  for (let i = 0; i < values.length; i++) {
    const lin = stackLinear(cpu, stack, -(i + 1) * size, size);
    if (lin === undefined) return false;
    at.push(lin);
  }
  const first = at[0];
  const last = at[at.length - 1];
  if (first === undefined || last === undefined) return true;
  if (last <= first) {
    if (!probeWrite(cpu, last, Number(first - last) + size, stack.privilege)) return false;
  } else {
    // The pointer wrapped around: probe every piece.
    for (const lin of at) if (!probeWrite(cpu, lin, size, stack.privilege)) return false;
  }
  for (let i = 0; i < values.length; i++) {
    if (!writeLinear(cpu, at[i]!, size, values[i]!, stack.privilege)) return false;
  }
  stack.sp = (stack.sp - BigInt(values.length * size)) & mask(stack.size);
  return true;
};

/** Writes the stack pointer as a stack of `size` bits does: upper parts of RSP stay for 16 bits, are cleared for 32. */
export const setStackPointer = (cpu: Cpu, size: 16 | 32 | 64, sp: bigint): void => {
  cpu.setGpr(4, size === 16 ? (cpu.gpr(4) & ~0xffffn) | (sp & 0xffffn) : sp & mask(size));
};

/**
 * ENTER: a write at the final stack pointer must be possible. Arguments: linear address, bytes.
 * SDM volume 2, "ENTER": #PF and #SS if a write using the final value of the stack pointer would cause one.
 */
const probeStack: Helper = (cpu) => {
  const at = cpu.arg64(0);
  cpu.mmu.stackAccess = true;
  const place = cpu.mmu.access(low(at), high(at), cpu.arg32(1), ACCESS.rmw);
  cpu.mmu.stackAccess = false;
  return place !== LEFT;
};
export const STACK_HELPERS: HelperTable = { probeStack };
