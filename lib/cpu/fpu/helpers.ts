/** The helpers of x87, MMX and SSE instructions and of their state, for the table of an engine. */

import { u64 } from '../../base/bits.js';
import { ACCESS, LEFT } from '../../memory/access.js';
import type { Helper, HelperTable } from '../helpers.js';
import { SIMD_HELPERS } from '../simd/helpers.js';
import { AREA_HELPERS } from './area.js';
import { SSE_ARITHMETIC } from './sse-arith.js';
import { SSE_CONVERSIONS } from './sse-convert.js';
import { SSE_ROUNDING } from './sse-round.js';
import { checkSse, ldmxcsr } from './sse-status.js';
import { X87_HELPERS } from './x87.js';
import { X87_CONTROL } from './x87-env.js';
import { X87_FUNCTIONS } from './x87-functions.js';
import { checkMmx, checkWait, checkX87 } from './x87-state.js';
import { X87_STORES } from './x87-store.js';

/**
 * MASKMOVDQU and MASKMOVQ. Arguments: linear address, data, mask (128 bits each). Bytes are written whose mask byte has
 * its sign bit set; only their pages are accessed, and all of them before the first write.
 */
const maskMove: Helper = (cpu) => {
  const places: number[] = [];
  for (let i = 0; i < 16; i++) {
    if (((cpu.arg64(3 + (i >> 3)) >> BigInt(8 * (i & 7) + 7)) & 1n) === 0n) {
      places.push(0);
      continue;
    }
    const at = u64(cpu.arg64(0) + BigInt(i));
    const place = cpu.mmu.access(Number(at & 0xffff_ffffn) | 0, Number(at >> 32n) | 0, 1, ACCESS.write);
    if (place === LEFT) return false;
    places.push(place >>> 0);
  }
  places.forEach((place, i) => {
    if (place !== 0) cpu.ram.u8[place] = Number((cpu.arg64(1 + (i >> 3)) >> BigInt(8 * (i & 7))) & 0xffn);
  });
  return true;
};

export const FPU_HELPERS: HelperTable = {
  checkX87,
  checkMmx,
  checkSse,
  checkWait,
  ldmxcsr,
  maskMove,
  ...SSE_ARITHMETIC,
  ...SSE_CONVERSIONS,
  ...SSE_ROUNDING,
  ...SIMD_HELPERS,
  ...X87_HELPERS,
  ...X87_STORES,
  ...X87_CONTROL,
  ...X87_FUNCTIONS,
  ...AREA_HELPERS,
};
