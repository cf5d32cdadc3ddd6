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

const rankOf = (form: Form): number =>
  (form.prefix === 'any' ? 0 : 8) +
  (form.rexW === 'any' ? 0 : 4) +
  (form.exact >= 0 ? 2 : 0) +
  (form.plus === 'r' ? 0 : 1);

const collision = (form: Form, other: Form): InvariantError =>
  new InvariantError(`'${form.text}' of ${form.row.name} collides with '${other.text}' of ${other.row.name}`);

/** What an encoding stands for, when it may be any of `candidates`: one form for all ModRM bytes, or one by ModRM byte. */
const select = (forms: readonly Form[], candidates: readonly number[]): number | Int16Array => {
  const modrm = forms[candidates[0]].modrm;
  if (candidates.length === 1 && !modrm) return candidates[0];
  const chosen = new Int16Array(256).fill(NO_FORM);
  const ranks = new Int8Array(256);
  for (const number of candidates) {
    const form = forms[number];
    if (form.modrm !== modrm)
      throw new InvariantError(
        `'${form.text}' of ${form.row.name}: other forms of the opcode disagree about ModRM`,
      );
    const rank = rankOf(form);
    for (const m of modrmCells(form)) {
      const there = chosen[m];
      if (there >= 0 && ranks[m] === rank) throw collision(form, forms[there]);
      if (there >= 0 && ranks[m] > rank) continue;
      chosen[m] = number;
      ranks[m] = rank;
    }
  }
  return chosen.every((f) => f === chosen[0]) ? chosen[0] : chosen;
};

/** The forms that an encoding may be, in the order of the rows: most encodings of an opcode share one such list. */
interface Candidates {
  readonly forms: readonly number[];
  /** The list with one more form. */
  readonly more: Map<number, Candidates>;
  /** Its entry in the maps, once chosen. */
  entry: number;
}
const candidates = (forms: readonly number[]): Candidates => ({ forms, more: new Map(), entry: NO_FORM });

/** Which forms each encoding may be, by `entryIndex`. */
const candidatesByEntry = (forms: readonly Form[]): readonly (Candidates | undefined)[] => {
  const plusR = new Set<number>();
  for (const form of forms) {
    if (form.plus === 'r') for (const op of opcodesOf(form)) plusR.add((mapOf(form) << 8) | op);
  }
  const none = candidates([]);
  const out = new Array<Candidates | undefined>(ENTRIES);
  for (const form of forms) {
    for (const op of opcodesOf(form)) {
      const columns = columnsOf(form, form.plus === 'r' || !plusR.has((mapOf(form) << 8) | op));
      for (const slot of SLOTS[form.prefix]) {
        for (const column of columns) {
          const at = entryIndex(mapOf(form), op, slot, column);
          const before = out[at] ?? none;
          let after = before.more.get(form.number);
          if (after === undefined) {
            after = candidates([...before.forms, form.number]);
            before.more.set(form.number, after);
          }
          out[at] = after;
        }
      }
    }
  }
  return out;
};

/** Builds the maps; throws for rows that are bad, collide, or cannot be reached. */
export const buildOpcodes = (rows: readonly InsnRow[]): OpcodeMaps => {
  const forms: Form[] = [];
  for (const row of rows) {
    checkRow(row);
    for (const text of row.forms) forms.push(parseForm(row, text, forms.length));
  }
  const entries = new Int16Array(ENTRIES).fill(NO_FORM);
  const groups: Int16Array[] = [];
  const reached = new Set<number>();
  const byEntry = candidatesByEntry(forms);
  for (let at = 0; at < ENTRIES; at++) {
    const list = byEntry[at];
    if (list === undefined) continue;
    if (list.entry === NO_FORM) {
      const choice = select(forms, list.forms);
      if (typeof choice === 'number') {
        list.entry = choice;
        reached.add(choice);
      } else {
        list.entry = -2 - groups.length;
        groups.push(choice);
        for (const f of choice) reached.add(f);
      }
    }
    entries[at] = list.entry;
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
