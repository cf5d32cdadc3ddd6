/** RFLAGS as a whole: the lazily kept arithmetic flags and the rest. */
import { arithmeticFlags } from '../isa/flags.js';
import { ARITHMETIC_FLAGS, FLAG, S } from '../isa/state.js';
import type { Cpu } from './core.js';

/** All 22 defined bits of RFLAGS; bit 1 is set. */
export const readRflags = (cpu: Cpu): number =>
  (cpu.get32(S.eflags) & ~ARITHMETIC_FLAGS) |
  2 |
  arithmeticFlags(cpu.get32(S.flagKind), cpu.get64(S.flagA), cpu.get64(S.flagR));

/** Replaces the bits of RFLAGS that `mask` names. The caller tells the MMU when AC changed (`mmu.contextChanged`). */
export const writeRflags = (cpu: Cpu, value: number, mask = 0x3f_ffff): void => {
  const v = ((readRflags(cpu) & ~mask) | (value & mask) | 2) & ~0x8028;
  cpu.set32(S.flagKind, 0);
  cpu.set64(S.flagA, BigInt(v & ARITHMETIC_FLAGS));
  cpu.set64(S.flagR, (v & FLAG.zf) !== 0 ? 0n : 1n);
  cpu.set32(S.eflags, v & ~ARITHMETIC_FLAGS);
};
