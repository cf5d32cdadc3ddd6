/** Which case a number of a campaign stands for. */
import { seededRandom } from '../../lib/base/random.js';
import type { Form } from '../../lib/isa/forms.js';
import { type Case, type Mode, RUN_FORMS, sequence, single } from '../hardware/cases.js';

export const KINDS_OF_CASE = ['single', 'sequence'] as const;
export type KindOfCase = (typeof KINDS_OF_CASE)[number];

/** Forms by row, so that rows are equally likely however many forms they have. */
const byRow = (forms: readonly Form[]): readonly (readonly Form[])[] => {
  const rows = new Map<string, Form[]>();
  for (const f of forms) {
    const list = rows.get(f.row.name);
    if (list === undefined) rows.set(f.row.name, [f]);
    else list.push(f);
  }
  return [...rows.values()];
};

/** A name for the part of the instruction set that a form belongs to. */
export const familyOf = (form: Form): string => {
  const { row } = form;
  if (row.cpl === 0) return 'privileged';
  if (row.string !== undefined) return 'string';
  if (row.feature !== undefined) return row.feature;
  if (row.unit !== undefined) return row.unit;
  if (/^(ro|rc|sh|sa)/.test(row.name) && row.name !== 'sahf') return 'shift';
  if (/^(i?mul|i?div|aa[adms]|da[as])$/.test(row.name)) return 'multiply and decimal';
  if (/^(bt|bs|tz|lz|pop_)/.test(row.name)) return 'bit';
  if (/^(j|jmp|call|ret|loop|iret|int|bound)/.test(row.name)) return 'control';
  return 'integer';
};

export class Plan {
  readonly #rows: readonly (readonly Form[])[];
  readonly #only: KindOfCase | undefined;
  readonly #seed: number;

  constructor(seed: number, only: KindOfCase | undefined, rows: RegExp | undefined) {
    this.#seed = seed;
    this.#only = only;
    this.#rows = byRow(RUN_FORMS.filter((f) => rows === undefined || rows.test(f.row.name)));
  }

  /** Makes `c` the case of a number. */
  make(c: Case, number: number): KindOfCase {
    const r = seededRandom((Math.imul(this.#seed, 0x85eb_ca6b) ^ Math.imul(number + 1, 0x9e37_79b1)) >>> 0);
    for (;;) {
      const mode: Mode = r.below(4) === 0 ? 32 : 64;
      const kind = this.#only ?? (r.below(5) < 3 ? 'single' : 'sequence');
      const seed = r.u32();
      if (kind === 'sequence') {
        sequence(c, mode, seed);
        return kind;
      }
      const forms = this.#rows[r.below(this.#rows.length)];
      const form = forms[r.below(forms.length)];
      // privileged instructions only fault here
      if (form.row.cpl === 0 && r.below(8) > 0) continue;
      if (single(c, form, mode, seed)) return kind;
    }
  }
}
