/**
 * RDMSR and WRMSR over the rows of `isa/msrs.ts`.
 *
 * SDM volume 2, RDMSR and WRMSR; volume 3, "Extended Feature Enable Register". In VMX non-root operation the MSR bitmaps
 * are asked first.
 */
import { MSR, MSR_BY_NUMBER, MSR_ROWS, type MsrRow } from '../../isa/msrs.js';
import { CR0, EFER, S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { canonical } from './memory.js';

/** Time-stamp counter as software sees it, modulo 2^64. */
export const readTsc = (cpu: Cpu): bigint =>
  BigInt.asUintN(64, BigInt(Math.floor(cpu.tsc())) + (cpu.guest?.tscOffset ?? 0n));

/** Value of an MSR, or undefined when there is none (#GP). */
export const readMsr = (cpu: Cpu, msr: number): bigint | undefined => {
  const row = MSR_BY_NUMBER.get(msr);
  if (row === undefined) return undefined;
  if (msr === MSR.tsc) return readTsc(cpu);
  if (row.kind === 'constant') return row.value ?? 0n;
  if (row.kind === 'plain') return cpu.plainMsrs.get(msr) ?? row.value ?? 0n;
  return cpu.get64(row.offset ?? S.zero);
};

/** Memory types that PAT entries may hold: UC, WC, WT, WP, WB, UC-. */
const PAT_TYPES = new Set([0, 1, 4, 5, 6, 7]);
export const validPat = (value: bigint): boolean => {
  for (let i = 0n; i < 64n; i += 8n) if (!PAT_TYPES.has(Number((value >> i) & 0xffn))) return false;
  return true;
};

const writeEfer = (cpu: Cpu, value: bigint): boolean => {
  const old = cpu.get32(S.efer);
  const v = (Number(value) & ~EFER.lma) | (old & EFER.lma);
  if (((v ^ old) & EFER.lme) !== 0 && (cpu.get32(S.cr0) & CR0.pg) !== 0) return false;
  cpu.set64(S.efer, BigInt(v));
  if (((v ^ old) & EFER.nxe) !== 0) cpu.mmu.flushAll();
  cpu.mmu.contextChanged();
  return true;
};

const writeSpecial = (cpu: Cpu, row: MsrRow, value: bigint): boolean => {
  switch (row.number) {
    case MSR.tsc:
      // Offsets beyond 2^53 do not occur: the counter starts at 0 and is written by boot software only.
      cpu.tscBase += Number(BigInt.asIntN(64, value - readTsc(cpu)));
      return true;
    case MSR.efer:
      return writeEfer(cpu, value);
    case MSR.pat:
      if (!validPat(value)) return false;
      break;
    case MSR.apicBase:
      if ((value & 0xc00n) === 0x400n) return false;
      break;
    default:
      break;
  }
  cpu.set64(row.offset ?? S.reserved, value);
  return true;
};

/** Writes an MSR; false (and nothing changed) when it does not exist or the value is not allowed (#GP). */
export const writeMsr = (cpu: Cpu, msr: number, value: bigint): boolean => {
  const row = MSR_BY_NUMBER.get(msr);
  if (row === undefined || row.write === 'no') return false;
  if (row.write === 'ignored') return true;
  if (row.writable !== undefined && (value & ~row.writable) !== 0n) return false;
  if (row.canonical === true && !canonical(value)) return false;
  if (row.kind === 'special') return writeSpecial(cpu, row, value);
  if (row.kind === 'plain') cpu.plainMsrs.set(msr, value);
  else cpu.set64(row.offset ?? S.reserved, value);
  return true;
};

/** Values after reset. */
export const resetMsrs = (cpu: Cpu): void => {
  cpu.plainMsrs.clear();
  for (const row of MSR_ROWS) if (row.offset !== undefined) cpu.set64(row.offset, row.value ?? 0n);
};

const rdmsr: Helper = (cpu) => {
  const msr = Number(cpu.gpr(1) & 0xffff_ffffn);
  if (cpu.guest?.rdmsr(msr) === true) return false;
  const value = cpu.guest?.virtualRdmsr?.(msr) ?? readMsr(cpu, msr);
  if (value === undefined) return cpu.gp();
  cpu.setGpr(0, value & 0xffff_ffffn);
  cpu.setGpr(2, value >> 32n);
  return true;
};

const wrmsr: Helper = (cpu) => {
  const msr = Number(cpu.gpr(1) & 0xffff_ffffn);
  if (cpu.guest?.wrmsr(msr) === true) return false;
  const value = ((cpu.gpr(2) & 0xffff_ffffn) << 32n) | (cpu.gpr(0) & 0xffff_ffffn);
  const virtual = cpu.guest?.virtualWrmsr?.(msr, value) ?? 'register';
  if (virtual !== 'register') return virtual === 'done';
  return writeMsr(cpu, msr, value) || cpu.gp();
};

export const MSR_HELPERS: HelperTable = { rdmsr, wrmsr };
