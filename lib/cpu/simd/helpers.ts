/** The helpers of SSSE3, SSE4, AES, PCLMULQDQ and BMI2, for the table of an engine. */
import type { HelperTable } from '../helpers.js';
import { AES_HELPERS } from './aes.js';
import { INTEGER_HELPERS } from './integers.js';
import { POLYNOMIAL_HELPERS } from './polynomials.js';
import { STRING_COMPARE_HELPERS } from './strings.js';

export const SIMD_HELPERS: HelperTable = {
  ...AES_HELPERS,
  ...INTEGER_HELPERS,
  ...POLYNOMIAL_HELPERS,
  ...STRING_COMPARE_HELPERS,
};
