/**
 * Helpers of integer instructions for which WebAssembly has no operator: MPSADBW, PHMINPOSUW, PDEP and PEXT.
 *
 * SDM volume 2. Arguments and results are 64-bit parts of the operands.
 */
import { S } from '../../isa/state.js';
import type { Helper } from '../helpers.js';

/** Arguments: first and second operand, imm8: bit 2 chooses the block of the first, bits 1:0 that of the second. */
const mpsadbw: Helper = (cpu) => {
  const { u8, u16 } = cpu.ram;
  const imm = cpu.arg32(4);
  const a = cpu.at + S.arg + (imm & 4);
  const b = cpu.at + S.arg + 16 + 4 * (imm & 3);
  const to = (cpu.at + S.result) >>> 1;
  for (let i = 0; i < 8; i++) {
    let sum = 0;
    for (let k = 0; k < 4; k++) sum += Math.abs(u8[a + i + k] - u8[b + k]);
    u16[to + i] = sum;
  }
  return true;
};

/** Argument: the source. Result: the least word, and its index from bit 16. */
const phminposuw: Helper = (cpu) => {
  const { u16 } = cpu.ram;
  const from = (cpu.at + S.arg) >>> 1;
  let least = 0;
  for (let i = 1; i < 8; i++) if (u16[from + i] < u16[from + least]) least = i;
  cpu.result32(0, u16[from + least] | (least << 16));
  return true;
};

/** Arguments: source, mask. The low bits of the source go to the places of the mask's ones. */
const pdep: Helper = (cpu) => {
  let source = cpu.arg64(0);
  let r = 0n;
  for (let mask = cpu.arg64(1); mask !== 0n; mask &= mask - 1n) {
    if ((source & 1n) !== 0n) r |= mask & -mask;
    source >>= 1n;
  }
  cpu.result64(0, r);
  return true;
};
/** Arguments: source, mask. */
const pext: Helper = (cpu) => {
  const source = cpu.arg64(0);
  let r = 0n;
  let place = 1n;
  for (let mask = cpu.arg64(1); mask !== 0n; mask &= mask - 1n) {
    if ((source & mask & -mask) !== 0n) r |= place;
    place <<= 1n;
  }
  cpu.result64(0, r);
  return true;
};

export const INTEGER_HELPERS: Readonly<Record<string, Helper>> = { mpsadbw, phminposuw, pdep, pext };
