/**
 * Helpers of PCLMULQDQ and CRC32: polynomials over GF(2).
 *
 * SDM volume 2, PCLMULQDQ and CRC32. CRC32 uses the Castagnoli polynomial 11EDC6F41H, bit-reflected, without inversion.
 */
import type { Helper } from '../helpers.js';

/** Arguments: two 64-bit factors. Results: the product, low and high half. */
const carrylessMultiply: Helper = (cpu) => {
  let low = 0n;
  let shifted = cpu.arg64(0);
  for (let b = cpu.arg64(1); b !== 0n; b >>= 1n) {
    if ((b & 1n) !== 0n) low ^= shifted;
    shifted <<= 1n;
  }
  cpu.result64(0, BigInt.asUintN(64, low));
  cpu.result64(1, low >> 64n);
  return true;
};

/** 11EDC6F41H without its highest bit, reflected. */
const CASTAGNOLI = 0x82f6_3b78;
const CRC_OF_BYTE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ ((crc & 1) !== 0 ? CASTAGNOLI : 0);
  return crc;
});

/** Arguments: the accumulated value, data, bytes of data. */
const crc32: Helper = (cpu) => {
  let crc = cpu.arg32(0);
  const size = cpu.arg32(2);
  let data = cpu.arg32(1);
  for (let i = 0; i < size; i++) {
    if (i === 4) data = Number(cpu.arg64(1) >> 32n);
    crc = (crc >>> 8) ^ CRC_OF_BYTE[(crc ^ data) & 0xff];
    data >>>= 8;
  }
  cpu.result32(0, crc);
  return true;
};

export const POLYNOMIAL_HELPERS: Readonly<Record<string, Helper>> = { carrylessMultiply, crc32 };
