/** Rows that are bad, collide or cannot be reached do not load; those that are good select the right form. */
import { describe, expect, test } from 'vitest';
import { parseForm, parseOperand, typeWidth } from '../../lib/isa/forms.js';
import { ROWS } from '../../lib/isa/insns/all.js';
import { buildOpcodes, entryIndex, FORMS, NO_FORM, OPCODES } from '../../lib/isa/opcodes.js';
import type { InsnRow } from '../../lib/isa/rows.js';

const row = (forms: readonly string[], rest: Partial<InsnRow> = {}): InsnRow => ({
  name: 'test_row',
  forms,
  sdm: 'a section',
  sem: () => {},
  ...rest,
});

describe('rows that do not load', () => {
  test.each<[string, readonly InsnRow[], RegExp]>([
    ['no forms', [row([])], /no forms/],
    ['no section', [row(['90'], { sdm: '' })], /manual section/],
    ['upper-case name', [row(['90'], { name: 'NOP' })], /lower case/],
    ['a form twice', [row(['90', '90'])], /twice/],
    ['unknown flags', [row(['90'], { flags: { w: 'cx' } })], /oszapc/],
    ['no opcode', [row(['/0 Eb'])], /no opcode/],
    ['unknown operand', [row(['00 /r Eb,Hb'])], /operand code 'Hb'/],
    ['unknown type', [row(['00 /r Ek,Gb'])], /operand code 'Ek'/],
    ['operand without ModRM', [row(['00 Eb'])], /needs ModRM/],
    ['Z without +r', [row(['50 Zv'])], /\+r/],
    ['+r with low bits', [row(['51+r Zv'])], /low bits/],
    ['+cc without semCc', [row(['70+cc cb Jb'])], /semCc/],
    ['digit and G', [row(['80 /1 Gb'])], /reg field/],
    ['memory that is a register', [row(['80 /1:reg Mb'])], /contradicts/],
    ['byte and digit disagree', [row(['0f 01 /1:d0'])], /disagree/],
    ['left over text', [row(['90 ib Ib Ib'])], /left over/],
    ['the same encoding', [row(['90']), row(['90'])], /collides/],
    ['a group digit twice', [row(['80 /1 Eb']), row(['80 /1:reg Rb'])], /collides/],
    ['a group and a whole opcode', [row(['80 /1 Eb']), row(['80 /r Eb,Gb'])], /collides/],
    ['ModRM and none', [row(['80 /1:reg Rb']), row(['80'])], /disagree about ModRM/],
    ['np and nfx', [row(['np 0f 10 /r Gv,Ev']), row(['nfx 0f 10 /r Gv,Ev'])], /collides/],
    ['modes that meet', [row(['06'], { modes: 'no64' }), row(['06'])], /collides/],
    [
      'never reached',
      [row(['0f 10 /r Gv,Ev']), ...['np', '66', 'f2', 'f3'].map((p) => row([`${p} 0f 10 /r Gv,Ev`]))],
      /never be reached/,
    ],
  ])('%s', (_title, rows, message) => {
    expect(() => buildOpcodes(rows)).toThrow(message);
  });
});

describe('rows that load', () => {
  test('special forms win over general ones, in either order', () => {
    const rows = [
      row(['0f 01 /2:mem Ms', '0f 01 /2:d0', '0f 01 /2:reg Rv']),
      row(['90']),
      row(['90+r Zv,rAX']),
      row(['f3 90']),
    ];
    for (const list of [rows, [...rows].reverse()]) {
      const { entries, groups, forms } = buildOpcodes(list);
      const text = (n: number): string | undefined => forms[n]?.text;
      const group = groups[-2 - entries[entryIndex(1, 0x01, 0, 0)]];
      expect([0x10, 0xd0, 0xd1, 0x00].map((m) => text(group[m]))).toEqual([
        '0f 01 /2:mem Ms',
        '0f 01 /2:d0',
        '0f 01 /2:reg Rv',
        undefined,
      ]);
      expect(text(entries[entryIndex(0, 0x90, 0, 1)])).toBe('90');
      expect(text(entries[entryIndex(0, 0x90, 2, 1)])).toBe('f3 90');
      expect(text(entries[entryIndex(0, 0x90, 0, 3)])).toBe('90+r Zv,rAX');
      expect(text(entries[entryIndex(0, 0x91, 0, 0)])).toBe('90+r Zv,rAX');
    }
  });
  test('mandatory prefixes and modes', () => {
    const { entries } = buildOpcodes([
      row(['nfx 0f 38 f0 /r Gv,Mv']),
      row(['63 /r Gv,Ed'], { modes: 'only64' }),
    ]);
    const there = (map: number, op: number, slot: number, column: number): boolean =>
      entries[entryIndex(map, op, slot, column)] !== NO_FORM;
    expect([0, 1, 2, 3].map((slot) => there(2, 0xf0, slot, 0))).toEqual([true, true, false, false]);
    expect([0, 1].map((column) => there(0, 0x63, 0, column))).toEqual([false, true]);
  });
});

test('the instruction set loads, and forms know their number', () => {
  expect(FORMS.length).toBe(ROWS.reduce((n, r) => n + r.forms.length, 0));
  FORMS.forEach((form, i) => {
    expect(form.number).toBe(i);
  });
  expect(OPCODES.forms).toBe(FORMS);
});

test('forms', () => {
  const form = parseForm(row(['66 0f c4 /r ib Vdq,Rd/Mw,Ib']), '66 0f c4 /r ib Vdq,Rd/Mw,Ib', 3);
  expect(form).toMatchObject({ map: 1, opcode: 0xc4, prefix: '66', modrm: true, digit: -1, mod: 'any' });
  expect(form.operands.map((o) => [o.kind, o.from, o.memory])).toEqual([
    ['xmm', 'reg', 'never'],
    ['reg', 'rm', 'allowed'],
    ['imm', 'immediate', 'never'],
  ]);
  expect(typeWidth(form.operands[1].memoryType, 32)).toBe(16);
  expect(parseOperand('AH')).toMatchObject({ kind: 'reg', from: 'fixed', index: 0, high: true });
  expect(parseForm(row(['a4 Yb,Xb']), 'a4 Yb,Xb', 0)).toMatchObject({
    operands: [],
    sized: false,
    fixedWidth: 8,
  });
});
