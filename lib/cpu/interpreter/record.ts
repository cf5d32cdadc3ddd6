/**
 * A decoded instruction as the interpreter's handlers see it: 32 bytes in linear memory.
 *
 *    0 u32 handler   index into the handler table
 *    4 u16 r0        state address of the first register operand (or its number, for st, cr, dr, seg)
 *    6 u16 r1        the second
 *    8 u16 base      state address of the base register, `zero`, or `pageRip` (RIP-relative)
 *   10 u16 index
 *   12 u16           unused
 *   14 u8  scale     0..3
 *   15 u8  segment   number of the segment register (`SEG`)
 *   16 i32 disp      displacement; RIP-relative: from the start of the page; branches: target offset from the page start
 *   20 u16 offset    of the instruction in its page
 *   22 u8  done      instructions of the block completed before this one
 *   23 u8  count     instructions in the block
 *   24 u64 imm       immediate; branches: u32 record of the taken target, u32 record of the next instruction (0 = not linked)
 *
 * The length is in the upper four bits of `offset` (an offset is below 4096). Records of a block lie one behind the
 * other; a page's blocks are dropped together, so links between records of one page never dangle.
 */
export const R = {
  handler: 0,
  r0: 4,
  r1: 6,
  base: 8,
  index: 10,
  scale: 14,
  segment: 15,
  disp: 16,
  offset: 20,
  done: 22,
  count: 23,
  imm: 24,
  taken: 24,
  next: 28,
} as const;
export const RECORD_BYTES = 32;
/** Blocks are cut at this many instructions (must fit `count`). */
export const BLOCK_LIMIT = 64;
