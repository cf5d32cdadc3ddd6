/**
 * INVLPG, INVPCID, INVD and WBINVD.
 *
 * SDM volume 3, "Caching Translation Information"; INVPCID in volume 2. Caches are not modelled, so INVD and WBINVD do
 * nothing.
 */
import { CR4, S } from '../../isa/state.js';
import type { Helper, HelperTable } from '../helpers.js';
import { instructionInfo } from './instruction-info.js';
import { canonical, high, low, readLinear } from './memory.js';

/** arg: linear address. A non-canonical address invalidates nothing. */
const invlpg: Helper = (cpu) => {
  const lin = cpu.arg64(0);
  if (cpu.guest?.instruction(14, lin) === true) return false;
  if (canonical(lin)) cpu.mmu.invlpg(low(lin), high(lin));
  return true;
};

/** args: type, linear address of the descriptor. */
const invpcid: Helper = (cpu) => {
  const guest = cpu.guest;
  if (guest !== undefined) {
    const { displacement, info } = instructionInfo(cpu);
    if (guest.instruction(58, displacement, info)) return false;
  }
  const type = cpu.arg64(0);
  const at = cpu.arg64(1);
  const word = readLinear(cpu, at, 8);
  if (word === undefined) return false;
  const lin = readLinear(cpu, BigInt.asUintN(64, at + 8n), 8);
  if (lin === undefined) return false;
  if (type > 3n) return cpu.gp();
  if (type < 2n) {
    if (word >> 12n !== 0n) return cpu.gp();
    if ((cpu.get32(S.cr4) & CR4.pcide) === 0 && word !== 0n) return cpu.gp();
    if (type === 0n && !canonical(lin)) return cpu.gp();
  } else if (word >> 12n !== 0n) return cpu.gp();
  cpu.mmu.invpcid(Number(type), Number(word & 0xfffn), low(lin), high(lin));
  return true;
};

export const INVALIDATE_HELPERS: HelperTable = {
  invlpg,
  invpcid,
  invd: (cpu) => cpu.guest?.instruction(13) !== true,
  wbinvd: (cpu) => cpu.guest?.instruction(54) !== true,
};
