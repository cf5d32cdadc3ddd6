/**
 * Instructions on single flags, and those that do nothing.
 *
 * SDM volume 1, section "Flag Control (EFLAG) Instructions", and "Miscellaneous Instructions". CLI, STI, PUSHF and POPF
 * are system rows. Prefetches and the reserved hint instructions (`0f 18` to `0f 1f`, ENDBR among them) do nothing and
 * never fault.
 */
import type { InsnRow } from '../rows.js';
import { FLAG, S } from '../state.js';

const AH_FLAGS = FLAG.sf | FLAG.zf | FLAG.af | FLAG.pf | FLAG.cf;

export const FLAG_ROWS: readonly InsnRow[] = [
  {
    name: 'lahf',
    forms: ['9f AH'],
    sdm: 'LAHF—Load Status Flags Into AH Register',
    sem: (o, ah) => ah.write(o.trunc(o.or(o.and(o.flags.all(), o.imm(AH_FLAGS, 32)), o.imm(2, 32)), 8)),
  },
  {
    name: 'sahf',
    forms: ['9e AH'],
    sdm: 'SAHF—Store AH Into Flags',
    flags: { w: 'szapc' },
    sem: (o, ah) => {
      const kept = o.and(o.flags.all(), o.imm(FLAG.of, 32));
      o.flags.setAll(o.or(kept, o.and(o.zext(ah.read(), 32), o.imm(AH_FLAGS, 32))));
    },
  },
  {
    name: 'clc',
    forms: ['f8'],
    sdm: 'CLC—Clear Carry Flag',
    flags: { w: 'c' },
    sem: (o) => o.flags.set({ cf: o.imm(0, 1) }),
  },
  {
    name: 'stc',
    forms: ['f9'],
    sdm: 'STC—Set Carry Flag',
    flags: { w: 'c' },
    sem: (o) => o.flags.set({ cf: o.imm(1, 1) }),
  },
  {
    name: 'cmc',
    forms: ['f5'],
    sdm: 'CMC—Complement Carry Flag',
    flags: { w: 'c' },
    sem: (o) => o.flags.set({ cf: o.eqz(o.flags.cf()) }),
  },
  {
    name: 'cld',
    forms: ['fc'],
    sdm: 'CLD—Clear Direction Flag',
    sem: (o) => o.setState(S.eflags, o.and(o.state(S.eflags, 32), o.not(o.imm(FLAG.df, 32)))),
  },
  {
    name: 'std',
    forms: ['fd'],
    sdm: 'STD—Set Direction Flag',
    sem: (o) => o.setState(S.eflags, o.or(o.state(S.eflags, 32), o.imm(FLAG.df, 32))),
  },
  { name: 'nop', forms: ['90', '0f 1f /r Ev'], sdm: 'NOP—No Operation', sem: () => {} },
  {
    name: 'prefetch',
    forms: ['0f 0d /r Ev', '0f 18 /r Ev'],
    sdm: 'PREFETCHh—Prefetch Data Into Caches',
    sem: () => {},
  },
  {
    name: 'hint_nop',
    forms: ['0f 19 /r Ev', '0f 1a /r Ev', '0f 1b /r Ev', '0f 1c /r Ev', '0f 1d /r Ev', '0f 1e /r Ev'],
    sdm: 'NOP—No Operation',
    sem: () => {},
  },
];
