/**
 * SYSCALL, SYSRET, SYSENTER and SYSEXIT.
 *
 * SDM volume 2; volume 3, "Fast System Calls in 64-Bit Mode". As on Intel processors SYSCALL exists in 64-bit mode only,
 * and SYSRET checks RCX at CPL 0.
 */
import { EFER, FLAG, S, SEG } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { readRflags, writeRflags } from '../rflags.js';
import { canonical } from './memory.js';
import { longMode, modeChanged, setSegment } from './segments.js';

const CODE64 = 0xa09b;
const CODE32 = 0xc09b;
const DATA = 0xc093;
const FLAT = 0xffff_ffff;

const flat = (cpu: Cpu, cs: number, code: number, ss: number, cpl: number): void => {
  setSegment(cpu, SEG.cs, (cs & 0xfffc) | cpl, 0n, FLAT, code | (cpl << 5));
  setSegment(cpu, SEG.ss, (ss & 0xfffc) | cpl, 0n, FLAT, DATA | (cpl << 5));
  modeChanged(cpu);
};

const enabled = (cpu: Cpu): boolean => cpu.get32(S.mode) === 64 && (cpu.get32(S.efer) & EFER.sce) !== 0;

const syscall: Helper = (cpu) => {
  if (!enabled(cpu)) return cpu.ud();
  const flags = readRflags(cpu);
  const cs = Number((cpu.get64(S.star) >> 32n) & 0xffffn);
  cpu.setGpr(1, cpu.nextRip);
  cpu.setGpr(11, BigInt(flags & ~FLAG.rf));
  writeRflags(cpu, flags & ~(cpu.get32(S.sfmask) | FLAG.rf));
  cpu.noStepTrap = (cpu.get32(S.eflags) & FLAG.tf) === 0;
  cpu.nextRip = cpu.get64(S.lstar);
  flat(cpu, cs, CODE64, cs + 8, 0);
  return true;
};

/** arg: operand size. */
const sysret: Helper = (cpu) => {
  if (!enabled(cpu)) return cpu.ud();
  const wide = cpu.arg32(0) === 64;
  if (cpu.get32(S.cpl) !== 0) return cpu.gp();
  const rip = cpu.gpr(1);
  if (wide && !canonical(rip)) return cpu.gp();
  const base = Number(cpu.get64(S.star) >> 48n);
  writeRflags(cpu, Number(cpu.gpr(11) & 0x3c_7fd7n));
  cpu.nextRip = wide ? rip : BigInt.asUintN(32, rip);
  flat(cpu, wide ? base + 16 : base, wide ? CODE64 : CODE32, base + 8, 3);
  return true;
};

const sysenter: Helper = (cpu) => {
  const cs = cpu.get32(S.sysenterCs) & 0xffff;
  if ((cs & 0xfffc) === 0) return cpu.gp();
  const long = longMode(cpu);
  cpu.set32(S.eflags, cpu.get32(S.eflags) & ~(FLAG.vm | FLAG.if | FLAG.rf));
  cpu.setGpr(4, long ? cpu.get64(S.sysenterEsp) : BigInt.asUintN(32, cpu.get64(S.sysenterEsp)));
  cpu.nextRip = long ? cpu.get64(S.sysenterEip) : BigInt.asUintN(32, cpu.get64(S.sysenterEip));
  flat(cpu, cs, long ? CODE64 : CODE32, (cs & 0xfffc) + 8, 0);
  return true;
};

/** arg: operand size. */
const sysexit: Helper = (cpu) => {
  const wide = cpu.arg32(0) === 64;
  const cs = cpu.get32(S.sysenterCs) & 0xffff;
  if ((cs & 0xfffc) === 0 || cpu.get32(S.cpl) !== 0) return cpu.gp();
  const sp = cpu.gpr(1);
  const rip = cpu.gpr(2);
  if (wide && !(canonical(sp) && canonical(rip))) return cpu.gp();
  cpu.setGpr(4, wide ? sp : BigInt.asUintN(32, sp));
  cpu.nextRip = wide ? rip : BigInt.asUintN(32, rip);
  const base = cs & 0xfffc;
  flat(cpu, base + (wide ? 32 : 16), wide ? CODE64 : CODE32, base + (wide ? 40 : 24), 3);
  return true;
};

export const SYSCALL_HELPERS: HelperTable = { syscall, sysret, sysenter, sysexit };
