/** All instruction rows. A family's file exports its rows; it is added here, once, as an import and a spread. */
import type { InsnRow } from '../rows.js';
import { ALU_ROWS } from './alu.js';
import { ATOMIC_ROWS } from './atomic.js';
import { BCD_ROWS } from './bcd.js';
import { BIT_ROWS } from './bits.js';
import { BMI_ROWS } from './bmi.js';
import { CONTROL_ROWS } from './control.js';
import { CONVERT_ROWS } from './convert.js';
import { CRYPTO_ROWS } from './crypto.js';
import { FLAG_ROWS } from './flags.js';
import { FPU_STATE_ROWS } from './fpu-state.js';
import { IO_ROWS } from './io.js';
import { MMX_ROWS } from './mmx.js';
import { MOVE_ROWS } from './move.js';
import { MULTIPLY_ROWS } from './multiply.js';
import { SHIFT_ROWS } from './shift.js';
import { SSE_FP_ROWS } from './sse-fp.js';
import { SSE_INT_ROWS } from './sse-int.js';
import { SSE_MOVE_ROWS } from './sse-move.js';
import { SSE3_ROWS } from './sse3.js';
import { SSE4_ROWS } from './sse4.js';
import { SSSE3_ROWS } from './ssse3.js';
import { STACK_ROWS } from './stack.js';
import { STRING_ROWS } from './string.js';
import { SYSTEM_ROWS } from './system.js';
import { TRANSFER_ROWS } from './transfer.js';
import { VMX_ROWS } from './vmx.js';
import { X87_ROWS } from './x87.js';

export const ROWS: readonly InsnRow[] = [
  ...ALU_ROWS,
  ...ATOMIC_ROWS,
  ...BCD_ROWS,
  ...BIT_ROWS,
  ...BMI_ROWS,
  ...CONTROL_ROWS,
  ...CONVERT_ROWS,
  ...CRYPTO_ROWS,
  ...FLAG_ROWS,
  ...MOVE_ROWS,
  ...MULTIPLY_ROWS,
  ...SHIFT_ROWS,
  ...STACK_ROWS,
  ...STRING_ROWS,
  ...FPU_STATE_ROWS,
  ...MMX_ROWS,
  ...SSE_FP_ROWS,
  ...SSE_INT_ROWS,
  ...SSE_MOVE_ROWS,
  ...SSE3_ROWS,
  ...SSSE3_ROWS,
  ...SSE4_ROWS,
  ...X87_ROWS,
  ...IO_ROWS,
  ...SYSTEM_ROWS,
  ...TRANSFER_ROWS,
  ...VMX_ROWS,
];
