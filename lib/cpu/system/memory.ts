/**
 * Memory as the processor's own microcode sees it: descriptor tables, task-state segments and stacks by linear address.
 *
 * A read answers `undefined`, a write `false`, when a fault or VM exit has been recorded. `supervisor` accesses are
 * those that the SDM calls implicit (volume 3, "Determination of Access Rights").
 */
import { S } from '../../isa/state.js';
import { ACCESS, LEFT } from '../../memory/access.js';
import type { Cpu } from '../core.js';

export type Privilege = 'current' | 'supervisor' | 'user';

/** Low and high half of a linear address, as the memory unit takes them. */
export const low = (lin: bigint): number => Number(lin & 0xffff_ffffn) | 0;
export const high = (lin: bigint): number => Number((lin >> 32n) & 0xffff_ffffn) | 0;

/** True for a linear address whose bits 63:47 are all equal. */
export const canonical = (lin: bigint): boolean => {
  const top = BigInt.asUintN(64, lin) >> 47n;
  return top === 0n || top === 0x1_ffffn;
};

/** Little-endian bytes of linear memory. @param at linear-memory address */
const bytesAt = (cpu: Cpu, at: number, size: number): bigint => {
  const u8 = cpu.ram.u8;
  let lo = 0;
  let hi = 0;
  for (let i = Math.min(size, 4) - 1; i >= 0; i--) lo = lo * 256 + u8[at + i];
  for (let i = size - 1; i >= 4; i--) hi = hi * 256 + u8[at + i];
  return size > 4 ? (BigInt(hi) << 32n) | BigInt(lo) : BigInt(lo);
};

/** The memory unit's answer; a non-canonical address is #GP(0) here, stacks are checked before (`stack.ts`). */
const pointer = (cpu: Cpu, lin: bigint, size: number, kind: number, privilege: Privilege): number => {
  cpu.mmu.stackAccess = false;
  return cpu.mmu.access(low(lin), high(lin), size, kind, privilege);
};

/** Reads `size` bytes at a linear address. */
export const readLinear = (
  cpu: Cpu,
  lin: bigint,
  size: number,
  privilege: Privilege = 'current',
): bigint | undefined => {
  const at = pointer(cpu, lin, size, ACCESS.read, privilege);
  return at === LEFT ? undefined : bytesAt(cpu, at >>> 0, size);
};

/** Reads up to 4 bytes as a number. */
export const readLinear32 = (
  cpu: Cpu,
  lin: bigint,
  size: 1 | 2 | 4,
  privilege: Privilege = 'current',
): number | undefined => {
  const at = pointer(cpu, lin, size, ACCESS.read, privilege);
  return at === LEFT ? undefined : Number(bytesAt(cpu, at >>> 0, size));
};

/** Writes `size` bytes at a linear address. */
export const writeLinear = (
  cpu: Cpu,
  lin: bigint,
  size: number,
  value: bigint,
  privilege: Privilege = 'current',
): boolean => {
  const at = pointer(cpu, lin, size, ACCESS.write, privilege);
  if (at === LEFT) return false;
  const p = at >>> 0;
  const u8 = cpu.ram.u8;
  let v = Number(value & 0xffff_ffffn);
  for (let i = 0; i < size; i++) {
    if (i === 4) v = Number((value >> 32n) & 0xffff_ffffn);
    u8[p + i] = v & 0xff;
    v >>>= 8;
  }
  if (p === cpu.at + S.bounce) cpu.mmu.commit();
  return true;
};

/** Asks whether [lin, lin + bytes), at most a page long, may be written, without writing. */
export const probeWrite = (cpu: Cpu, lin: bigint, bytes: number, privilege: Privilege): boolean => {
  if (pointer(cpu, lin, 1, ACCESS.rmw, privilege) === LEFT) return false;
  const last = BigInt.asUintN(64, lin + BigInt(bytes - 1));
  if (last >> 12n === BigInt.asUintN(64, lin) >> 12n) return true;
  return pointer(cpu, last, 1, ACCESS.rmw, privilege) !== LEFT;
};
