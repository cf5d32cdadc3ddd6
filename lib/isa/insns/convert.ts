/**
 * Sign extension within and into the accumulator pair.
 *
 * SDM volume 1, section "Type Conversion Instructions". One row for the three names by operand size.
 */
import type { InsnRow } from '../rows.js';
import type { Width } from '../verbs.js';

export const CONVERT_ROWS: readonly InsnRow[] = [
  {
    name: 'cbw',
    forms: ['98'],
    sdm: 'CBW/CWDE/CDQE—Convert Byte to Word/Convert Word to Doubleword/Convert Doubleword to Quadword',
    sem: (o) => o.setReg(0, o.sext(o.reg(0, (o.w / 2) as Width), o.w)),
  },
  {
    name: 'cwd',
    forms: ['99'],
    sdm: 'CWD/CDQ/CQO—Convert Word to Doubleword/Convert Doubleword to Quadword',
    sem: (o) => o.setReg(2, o.sar(o.reg(0, o.w), o.imm(o.w - 1, 32))),
  },
];
