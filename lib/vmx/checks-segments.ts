/**
 * VM-entry checks on the guest's segment registers.
 *
 * SDM volume 3, "Checks on Guest Segment Registers". Violation: exit 33. Access rights are in the VMX format: type 3:0,
 * S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16.
 */
import { type CheckRow, type CheckView, clear, NOT_CANONICAL, set, type Violation } from './checks.js';
import { ENTRY_CONTROL } from './controls.js';
import { type FieldName, ROW } from './fields.js';

const NAMES = ['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs'] as const;
type Name = (typeof NAMES)[number];
const DATA = ['Ds', 'Es', 'Fs', 'Gs'] as const;

const topic = 'guestSegments' as const;
type Any = Name | 'Tr' | 'Ldtr';
type Part = 'Selector' | 'Base' | 'Limit' | 'AccessRights';
/** Row numbers of one part of every segment register: rules must not build names while they run. */
const rowsOf = (part: Part) =>
  Object.fromEntries([...NAMES, 'Tr', 'Ldtr'].map((s) => [s, ROW[`guest${s as Any}${part}`]])) as Record<
    Any,
    number
  >;
const SELECTOR = rowsOf('Selector');
const BASE = rowsOf('Base');
const LIMIT = rowsOf('Limit');
const RIGHTS = rowsOf('AccessRights');
const rights = (v: CheckView, s: Any): number => v.lo(RIGHTS[s]);
const usable = (v: CheckView, s: Any): boolean => (rights(v, s) & 0x1_0000) === 0;
const typeOf = (v: CheckView, s: Any): number => rights(v, s) & 15;
const dpl = (v: CheckView, s: Name): number => (rights(v, s) >> 5) & 3;
const rpl = (v: CheckView, s: Name): number => v.lo(SELECTOR[s]) & 3;
const long = (v: CheckView): boolean => v.entry(ENTRY_CONTROL.ia32eModeGuest);
const plain = (v: CheckView): boolean => !v.virtual8086;

/** A guest in virtual-8086 mode, over the 64-bit one: what breaks is the one rule that `broken` aims at. */
const vm86 = (broken: Violation): Violation => {
  const fields: Partial<Record<FieldName, bigint | ((valid: bigint) => bigint)>> = {
    guestRflags: set(0x2_0000),
    entryControls: clear(ENTRY_CONTROL.ia32eModeGuest),
  };
  for (const s of NAMES) {
    fields[`guest${s}Selector`] = 0n;
    fields[`guest${s}Base`] = 0n;
    fields[`guest${s}Limit`] = 0xffffn;
    fields[`guest${s}AccessRights`] = 0xf3n;
  }
  return { ...fields, ...broken };
};
const type = (t: number) => (valid: bigint) => (valid & ~15n) | BigInt(t);
const withDpl = (d: number) => (valid: bigint) => (valid & ~0x60n) | BigInt(d << 5);

/** The rules that TR, LDTR and the others share. */
const granularity = (s: Any, when: (v: CheckView) => boolean): CheckRow => ({
  id: `guest${s}.granularity`,
  topic,
  says: `G of ${s.toUpperCase()} must be 0 when a bit of 11:0 of the limit is 0, and 1 when one of 31:20 is 1`,
  when,
  fails: (v) => {
    const limit = v.lo(LIMIT[s]);
    const g = (rights(v, s) & 0x8000) !== 0;
    return g ? (limit & 0xfff) !== 0xfff : (limit & 0xfff0_0000) !== 0;
  },
  example: { [`guest${s}Limit`]: 0xffff_f000n, [`guest${s}AccessRights`]: clear(0x1_0000) },
});
const reserved = (s: Any, when: (v: CheckView) => boolean): CheckRow => ({
  id: `guest${s}.reserved`,
  topic,
  says: `bits 11:8 and 31:17 of the access rights of ${s.toUpperCase()} must be 0`,
  when,
  fails: (v) => (rights(v, s) & 0xfffe_0f00) !== 0,
  example: { [`guest${s}AccessRights`]: (valid: bigint) => (valid | 0x100n) & ~0x1_0000n },
});
const present = (s: Any, when: (v: CheckView) => boolean): CheckRow => ({
  id: `guest${s}.present`,
  topic,
  says: `${s.toUpperCase()} must be present`,
  when,
  fails: (v) => (rights(v, s) & 0x80) === 0,
  example: { [`guest${s}AccessRights`]: clear(0x1_0080) },
});
const system = (s: 'Tr' | 'Ldtr', isSystem: string, when: (v: CheckView) => boolean): CheckRow => ({
  id: `guest${s}.system`,
  topic,
  says: `S of ${s.toUpperCase()} must be 0: ${isSystem}`,
  when,
  fails: (v) => (rights(v, s) & 0x10) !== 0,
  example: { [`guest${s}AccessRights`]: (valid: bigint) => (valid | 0x10n) & ~0x1_0000n },
});
const canonical = (s: 'Tr' | 'Fs' | 'Gs' | 'Ldtr', when: (v: CheckView) => boolean): CheckRow => ({
  id: `guest${s}.base`,
  topic,
  says: `the base of ${s.toUpperCase()} must be canonical`,
  when,
  fails: (v) => !v.canonical(BASE[s]),
  example: { [`guest${s}Base`]: NOT_CANONICAL, ...(s === 'Ldtr' ? { guestLdtrAccessRights: 0x82n } : {}) },
});
const always = (): boolean => true;
const ldtr = (v: CheckView): boolean => usable(v, 'Ldtr');
const used = (s: Name) => (v: CheckView) => plain(v) && (s === 'Cs' || usable(v, s));

export const SEGMENT_CHECKS: readonly CheckRow[] = [
  {
    id: 'guestTr.ti',
    topic,
    says: 'TI of TR must be 0',
    fails: (v) => v.any(ROW.guestTrSelector, 4),
    example: { guestTrSelector: set(4) },
  },
  {
    id: 'guestLdtr.ti',
    topic,
    says: 'TI of a usable LDTR must be 0',
    when: ldtr,
    fails: (v) => v.any(ROW.guestLdtrSelector, 4),
    example: { guestLdtrSelector: 4n, guestLdtrAccessRights: 0x82n },
  },
  {
    id: 'guestSs.rpl',
    topic,
    says: 'RPL of SS must equal RPL of CS',
    when: (v) => plain(v) && !v.unrestricted,
    fails: (v) => rpl(v, 'Ss') !== rpl(v, 'Cs'),
    example: { secondaryControls: clear(0x80), guestSsSelector: set(3) },
  },
  ...NAMES.map(
    (s): CheckRow => ({
      id: `vm86.${s.toLowerCase()}.base`,
      topic,
      says: `in virtual-8086 mode the base of ${s.toUpperCase()} must be its selector times 16`,
      when: (v) => v.virtual8086,
      fails: (v) => v.number(BASE[s]) !== v.lo(SELECTOR[s]) * 16,
      example: vm86({ [`guest${s}Base`]: 0x10n }),
    }),
  ),
  canonical('Tr', always),
  canonical('Fs', always),
  canonical('Gs', always),
  canonical('Ldtr', ldtr),
  {
    id: 'guestCs.base',
    topic,
    says: 'bits 63:32 of the base of CS must be 0',
    fails: (v) => v.hi(ROW.guestCsBase) !== 0,
    example: { guestCsBase: 1n << 32n },
  },
  ...(['Ss', 'Ds', 'Es'] as const).map(
    (s): CheckRow => ({
      id: `guest${s}.base`,
      topic,
      says: `bits 63:32 of the base of a usable ${s.toUpperCase()} must be 0`,
      when: (v) => usable(v, s),
      fails: (v) => v.hi(BASE[s]) !== 0,
      example: { [`guest${s}Base`]: 1n << 32n, [`guest${s}AccessRights`]: clear(0x1_0000) },
    }),
  ),
  ...NAMES.flatMap((s): CheckRow[] => [
    {
      id: `vm86.${s.toLowerCase()}.limit`,
      topic,
      says: `in virtual-8086 mode the limit of ${s.toUpperCase()} must be FFFFH`,
      when: (v) => v.virtual8086,
      fails: (v) => v.lo(LIMIT[s]) !== 0xffff,
      example: vm86({ [`guest${s}Limit`]: 0xffffen }),
    },
    {
      id: `vm86.${s.toLowerCase()}.rights`,
      topic,
      says: `in virtual-8086 mode the access rights of ${s.toUpperCase()} must be F3H`,
      when: (v) => v.virtual8086,
      fails: (v) => rights(v, s) !== 0xf3,
      example: vm86({ [`guest${s}AccessRights`]: 0x93n }),
    },
  ]),
  {
    id: 'guestCs.type',
    topic,
    says: 'CS must be an accessed code segment, or (unrestricted guest) read/write accessed data',
    when: plain,
    fails: (v) => (typeOf(v, 'Cs') & 9) !== 9 && !(typeOf(v, 'Cs') === 3 && v.unrestricted),
    example: { guestCsAccessRights: type(8) },
  },
  {
    id: 'guestSs.type',
    topic,
    says: 'a usable SS must be accessed read/write data',
    when: used('Ss'),
    fails: (v) => (typeOf(v, 'Ss') & 11) !== 3,
    example: { guestSsAccessRights: type(1) },
  },
  ...DATA.map(
    (s): CheckRow => ({
      id: `guest${s}.type`,
      topic,
      says: `a usable ${s.toUpperCase()} must be accessed, and readable if it is code`,
      when: used(s),
      fails: (v) => (typeOf(v, s) & 1) === 0 || (typeOf(v, s) & 10) === 8,
      example: { [`guest${s}AccessRights`]: (valid: bigint) => (valid & ~0x1_000fn) | 9n },
    }),
  ),
  ...NAMES.map(
    (s): CheckRow => ({
      id: `guest${s}.system`,
      topic,
      says: `S of ${s.toUpperCase()} must be 1: code or data`,
      when: used(s),
      fails: (v) => (rights(v, s) & 0x10) === 0,
      example: { [`guest${s}AccessRights`]: clear(0x1_0010) },
    }),
  ),
  {
    id: 'guestCs.dpl.data',
    topic,
    says: 'DPL of a data CS (unrestricted guest) must be 0',
    when: (v) => plain(v) && typeOf(v, 'Cs') === 3,
    fails: (v) => dpl(v, 'Cs') !== 0,
    example: { guestCsAccessRights: (valid) => withDpl(3)(type(3)(valid)) },
  },
  {
    id: 'guestCs.dpl.nonconforming',
    topic,
    says: 'DPL of a non-conforming CS must equal DPL of SS',
    when: (v) => plain(v) && (typeOf(v, 'Cs') === 9 || typeOf(v, 'Cs') === 11),
    fails: (v) => dpl(v, 'Cs') !== dpl(v, 'Ss'),
    example: { guestCsAccessRights: withDpl(3) },
  },
  {
    id: 'guestCs.dpl.conforming',
    topic,
    says: 'DPL of a conforming CS must not be greater than DPL of SS',
    when: (v) => plain(v) && (typeOf(v, 'Cs') === 13 || typeOf(v, 'Cs') === 15),
    fails: (v) => dpl(v, 'Cs') > dpl(v, 'Ss'),
    example: { guestCsAccessRights: (valid) => withDpl(3)(type(15)(valid)) },
  },
  {
    id: 'guestSs.dpl.rpl',
    topic,
    says: 'DPL of SS must equal its RPL',
    when: (v) => plain(v) && !v.unrestricted,
    fails: (v) => dpl(v, 'Ss') !== rpl(v, 'Ss'),
    example: { secondaryControls: clear(0x80), guestSsAccessRights: withDpl(3) },
  },
  {
    id: 'guestSs.dpl.real',
    topic,
    says: 'DPL of SS must be 0 in real mode and with a data CS',
    when: (v) => plain(v) && (typeOf(v, 'Cs') === 3 || !v.any(ROW.guestCr0, 1)),
    fails: (v) => dpl(v, 'Ss') !== 0,
    example: { guestCsAccessRights: type(3), guestSsAccessRights: withDpl(3) },
  },
  ...DATA.map(
    (s): CheckRow => ({
      id: `guest${s}.dpl`,
      topic,
      says: `DPL of a usable ${s.toUpperCase()} that is data or non-conforming code must not be less than its RPL`,
      when: (v) => used(s)(v) && !v.unrestricted && typeOf(v, s) < 12,
      fails: (v) => dpl(v, s) < rpl(v, s),
      example: {
        secondaryControls: clear(0x80),
        [`guest${s}Selector`]: set(3),
        [`guest${s}AccessRights`]: clear(0x1_0060),
      },
    }),
  ),
  ...NAMES.flatMap((s) => [present(s, used(s)), reserved(s, used(s)), granularity(s, used(s))]),
  {
    id: 'guestCs.longAndBig',
    topic,
    says: 'D/B of a 64-bit CS must be 0',
    when: (v) => plain(v) && long(v) && (rights(v, 'Cs') & 0x2000) !== 0,
    fails: (v) => (rights(v, 'Cs') & 0x4000) !== 0,
    example: { guestCsAccessRights: set(0x4000) },
  },
  {
    id: 'guestTr.type',
    topic,
    says: 'TR must be a busy TSS, a 64-bit one for an IA-32e mode guest',
    fails: (v) => typeOf(v, 'Tr') !== 11 && (long(v) || typeOf(v, 'Tr') !== 3),
    example: { guestTrAccessRights: type(3) },
  },
  system('Tr', 'a TSS', always),
  present('Tr', always),
  reserved('Tr', always),
  granularity('Tr', always),
  {
    id: 'guestTr.usable',
    topic,
    says: 'TR must be usable',
    fails: (v) => !usable(v, 'Tr'),
    example: { guestTrAccessRights: set(0x1_0000) },
  },
  {
    id: 'guestLdtr.type',
    topic,
    says: 'a usable LDTR must be of type 2',
    when: ldtr,
    fails: (v) => typeOf(v, 'Ldtr') !== 2,
    example: { guestLdtrAccessRights: 0x83n },
  },
  system('Ldtr', 'an LDT', ldtr),
  present('Ldtr', ldtr),
  reserved('Ldtr', ldtr),
  granularity('Ldtr', ldtr),
];
