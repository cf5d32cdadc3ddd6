/**
 * MOV to and from the debug registers.
 *
 * SDM volume 3, "Debug Registers". DR4 and DR5 are DR6 and DR7 while CR4.DE is 0. A set DR7.GD makes every access a #DB
 * with DR6.BD. Not modelled: RTM and bus-lock bits of DR6 (they read 1).
 */
import { CR4, S, VECTOR } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { DR7_ENABLES } from './breakpoints.js';

/** The register that a number names, or -1 with an event recorded. */
const accessible = (cpu: Cpu, dr: number, gpr: number, write: boolean): number => {
  let number = dr;
  if (number === 4 || number === 5) {
    if ((cpu.get32(S.cr4) & CR4.de) !== 0) {
      cpu.ud();
      return -1;
    }
    number += 2;
  }
  if (cpu.guest?.movDr(dr, gpr, write) === true) return -1;
  if ((cpu.get32(S.dr7) & 0x2000) !== 0) {
    cpu.fault(VECTOR.db, -1, 0x2000n);
    return -1;
  }
  return number;
};

/** Values as the registers keep them: fixed bits forced. */
export const dr6Value = (v: bigint): bigint => (v & 0xe00fn) | 0xffff_0ff0n;
export const dr7Value = (v: bigint): bigint => (v & 0xffff_2bffn) | 0x400n;

/** args: debug register, general register, value. */
const movToDr: Helper = (cpu) => {
  const dr = accessible(cpu, cpu.arg32(0), cpu.arg32(1), true);
  if (dr < 0) return false;
  const value = cpu.arg64(2);
  if (dr < 4) {
    cpu.set64(S.dr + 8 * dr, value);
    return true;
  }
  if (value >> 32n !== 0n) return cpu.gp();
  if (dr === 6) cpu.set64(S.dr6, dr6Value(value));
  else {
    cpu.set64(S.dr7, dr7Value(value));
    // the run loop is asked before the next instruction
    if ((cpu.get32(S.dr7) & DR7_ENABLES) !== 0) cpu.set32(S.attention, 1);
  }
  return true;
};

/** args: debug register, general register; result: value. */
const movFromDr: Helper = (cpu) => {
  const dr = accessible(cpu, cpu.arg32(0), cpu.arg32(1), false);
  if (dr < 0) return false;
  cpu.result64(0, dr < 4 ? cpu.get64(S.dr + 8 * dr) : dr === 6 ? cpu.get64(S.dr6) : cpu.get64(S.dr7));
  return true;
};

export const DEBUG_REGISTER_HELPERS: HelperTable = { movToDr, movFromDr };
