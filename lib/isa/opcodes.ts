/**
 * Opcode maps, built from the instruction rows: from map, opcode, prefix, mode and REX to a form.
 *
 * SDM volume 2, appendix A, "Opcode Map". A more special form wins over a more general one: a mandatory prefix over none,
 * REX.W over none, a whole ModRM byte over a group digit, an exact opcode over `+r` (where REX.B is 0: `90` is NOP,
 * `41 90` is XCHG). Two forms of the same rank on the same encoding, and a form that nothing can reach, do not load.
 */
import { InvariantError } from '../base/error.js';
import { checkRow, type Form, parseForm } from './forms.js';
import { ROWS } from './insns/all.js';
import type { InsnRow } from './rows.js';

/** Columns of a map entry: outside 64-bit mode, then 64-bit mode by REX.W and REX.B. */
export const COLUMN = { legacy: 0, long: 1, w: 1, b: 2 } as const;
const COLUMNS = 5;
/** Prefix slots: none, 66, F3, F2. */
const SLOTS = { np: [0], '66': [1], f3: [2], f2: [3], nfx: [0, 1], any: [0, 1, 2, 3] } as const;

/** No form: #UD. */
export const NO_FORM = -1;

export interface OpcodeMaps {
  readonly forms: readonly Form[];
  /** By `entryIndex`: a form number, `NO_FORM`, or -2 - g for `groups[g]`. */
  readonly entries: Int16Array;
  /** Form number by ModRM byte. */
  readonly groups: readonly Int16Array[];
}

/** VEX-encoded forms have maps of their own, behind the others. */
export const VEX_MAPS = 4;
/** @param column 0 outside 64-bit mode, else 1 + REX.W + 2 × REX.B */
export const entryIndex = (map: number, opcode: number, slot: number, column: number): number =>
  (((map << 8) | opcode) * 4 + slot) * COLUMNS + column;
const ENTRIES = 2 * VEX_MAPS * 256 * 4 * COLUMNS;

const mapOf = (form: Form): number => (form.vex ? VEX_MAPS + form.map : form.map);

const opcodesOf = (form: Form): readonly number[] => {
  const n = form.plus === 'r' ? 8 : form.plus === 'cc' ? 16 : 1;
  return Array.from({ length: n }, (_, i) => form.opcode + i);
};

const modrmCells = (form: Form): readonly number[] => {
  const cells: number[] = [];
  for (let m = 0; m < 256; m++) {
    if (form.exact >= 0 ? m !== form.exact : form.digit >= 0 && ((m >> 3) & 7) !== form.digit) continue;
    if (!form.modIgnored && form.mod !== 'any' && m >= 0xc0 !== (form.mod === 'reg')) continue;
    cells.push(m);
  }
  return cells;
};

const columnsOf = (form: Form, keepsB: boolean): readonly number[] => {
  const columns: number[] = [];
  if (form.row.modes !== 'only64' && form.rexW !== 1) columns.push(COLUMN.legacy);
  if (form.row.modes !== 'no64') {
    for (let rex = 0; rex < 4; rex++) {
      if (form.rexW !== 'any' && (rex & 1) !== form.rexW) continue;
      if (!keepsB && (rex & COLUMN.b) !== 0) continue;
      columns.push(COLUMN.long + rex);
    }
  }
  return columns;
};

interface Cell {
  readonly modrm: boolean;
  readonly forms: Int16Array;
  readonly ranks: Int8Array;
}

/** Builds the maps; throws for rows that are bad, collide, or cannot be reached. */
export const buildOpcodes = (rows: readonly InsnRow[]): OpcodeMaps => {
  const forms: Form[] = [];
  for (const row of rows) {
    checkRow(row);
    for (const text of row.forms) forms.push(parseForm(row, text, forms.length));
  }
  const plusR = new Set<number>();
  for (const form of forms) {
    if (form.plus === 'r') for (const op of opcodesOf(form)) plusR.add((mapOf(form) << 8) | op);
  }
  const cells = new Map<number, Cell>();
  for (const form of forms) {
    const rank =
      (form.prefix === 'any' ? 0 : 8) +
      (form.rexW === 'any' ? 0 : 4) +
      (form.exact >= 0 ? 2 : 0) +
      (form.plus === 'r' ? 0 : 1);
    const selected = modrmCells(form);
    for (const op of opcodesOf(form)) {
      const columns = columnsOf(form, form.plus === 'r' || !plusR.has((mapOf(form) << 8) | op));
      for (const slot of SLOTS[form.prefix]) {
        for (const column of columns) {
          const at = entryIndex(mapOf(form), op, slot, column);
          let cell = cells.get(at);
          if (cell === undefined) {
            cell = { modrm: form.modrm, forms: new Int16Array(256).fill(NO_FORM), ranks: new Int8Array(256) };
            cells.set(at, cell);
          }
          if (cell.modrm !== form.modrm)
            throw new InvariantError(
              `'${form.text}' of ${form.row.name}: other forms of the opcode disagree about ModRM`,
            );
          for (const m of selected) {
            const there = cell.forms[m];
            if (there >= 0 && cell.ranks[m] === rank) {
              throw new InvariantError(
                `'${form.text}' of ${form.row.name} collides with '${forms[there].text}' of ${forms[there].row.name}`,
              );
            }
            if (there >= 0 && cell.ranks[m] > rank) continue;
            cell.forms[m] = form.number;
            cell.ranks[m] = rank;
          }
        }
      }
    }
  }
  return finish(forms, cells);
};

const finish = (forms: readonly Form[], cells: ReadonlyMap<number, Cell>): OpcodeMaps => {
  const entries = new Int16Array(ENTRIES).fill(NO_FORM);
  const groups: Int16Array[] = [];
  const numbers = new Map<string, number>();
  const reached = new Set<number>();
  for (const [at, cell] of cells) {
    for (const f of cell.forms) reached.add(f);
    if (cell.forms.every((f) => f === cell.forms[0])) {
      entries[at] = cell.forms[0];
      continue;
    }
    const key = cell.forms.join();
    let g = numbers.get(key);
    if (g === undefined) {
      g = groups.length;
      groups.push(cell.forms);
      numbers.set(key, g);
    }
    entries[at] = -2 - g;
  }
  for (const form of forms) {
    if (!reached.has(form.number))
      throw new InvariantError(`'${form.text}' of ${form.row.name} can never be reached`);
  }
  return { forms, entries, groups };
};

export const OPCODES: OpcodeMaps = buildOpcodes(ROWS);
/** All forms by number, as `Insn.form` counts them. */
export const FORMS: readonly Form[] = OPCODES.forms;
