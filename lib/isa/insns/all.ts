/** All instruction rows. A family's file exports its rows; it is added here, once, as an import and a spread. */
import type { InsnRow } from '../rows.js';
import { ALU_ROWS } from './alu.js';
import { ATOMIC_ROWS } from './atomic.js';
import { BCD_ROWS } from './bcd.js';
import { BIT_ROWS } from './bits.js';
import { CONTROL_ROWS } from './control.js';
import { CONVERT_ROWS } from './convert.js';
import { FLAG_ROWS } from './flags.js';
import { MOVE_ROWS } from './move.js';
import { MULTIPLY_ROWS } from './multiply.js';
import { SHIFT_ROWS } from './shift.js';
import { STACK_ROWS } from './stack.js';
import { STRING_ROWS } from './string.js';

export const ROWS: readonly InsnRow[] = [
  ...ALU_ROWS,
  ...ATOMIC_ROWS,
  ...BCD_ROWS,
  ...BIT_ROWS,
  ...CONTROL_ROWS,
  ...CONVERT_ROWS,
  ...FLAG_ROWS,
  ...MOVE_ROWS,
  ...MULTIPLY_ROWS,
  ...SHIFT_ROWS,
  ...STACK_ROWS,
  ...STRING_ROWS,
];
