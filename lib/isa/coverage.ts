/**
 * The coverage table: every instruction form with where it is decoded, which engines execute it, and which committed
 * hardware vectors cover it. `npm run coverage` writes it to `COVERAGE.md`; a test holds the file to it.
 *
 * What can be derived from the forms is derived here; what engines do and what vectors hold is found by the test.
 */
import { CPU_MODELS, FEATURE_ALIASES, FEATURES } from './cpuid.js';
import { decode } from './decoder.js';
import type { Form } from './forms.js';
import type { InsnRow } from './rows.js';

export const MODES = [64, 32, 16] as const;
export type CodeSize = (typeof MODES)[number];

const VEX_PREFIX: Readonly<Record<string, number>> = { np: 0, '66': 1, f3: 2, f2: 3 };

/** Bytes up to the opcode; operands of VEX.vvvv are register 0. */
const opcodeBytes = (form: Form, low: number): number[] => {
  const w = form.rexW === 1;
  if (form.vex)
    return [0xc4, 0xe0 | form.map, (w ? 0x80 : 0) | 0x78 | (VEX_PREFIX[form.prefix] ?? 0), form.opcode];
  const bytes = /^(66|f2|f3)$/.test(form.prefix) ? [Number.parseInt(form.prefix, 16)] : [];
  if (w) bytes.push(0x48);
  if (form.map > 0) bytes.push(0x0f);
  if (form.map > 1) bytes.push(form.map === 2 ? 0x38 : 0x3a);
  bytes.push(form.opcode + low);
  return bytes;
};

/** An encoding that decodes as the form in a mode, or undefined when there is none. */
export const exampleOf = (form: Form, mode: CodeSize): Uint8Array | undefined => {
  const lows = form.plus === 'none' ? [0] : [1, 0, 2, 3];
  const last = form.modrm ? 256 : 1;
  for (const low of lows) {
    // a register operand first, then memory
    for (let i = 0; i < last; i++) {
      const head = opcodeBytes(form, low);
      if (form.modrm) head.push((i + 0xc0) & 0xff);
      const bytes = Uint8Array.from([...head, ...new Array<number>(14).fill(0)]);
      const insn = decode(bytes, 0, bytes.length, mode);
      if (typeof insn !== 'string' && insn.form === form.number) return bytes.slice(0, insn.length);
    }
  }
  return undefined;
};

const modelOf = (row: InsnRow): string => {
  if (row.feature === undefined) return '';
  const name = FEATURE_ALIASES[row.feature] ?? row.feature;
  return FEATURES.find((f) => f.name === name)?.model ?? CPU_MODELS[0];
};

export interface CoverageFacts {
  /** Names of the engines that execute a form, or `undefined` when it raises #UD by design. By form number. */
  readonly engines: ReadonlyMap<number, readonly string[] | undefined>;
  /** Vectors that execute a form: how many in which mode. By form number. */
  readonly vectors: ReadonlyMap<number, ReadonlyMap<string, number>>;
  /** Why a row is not run on hardware, by name. */
  readonly notRun: (name: string) => string | undefined;
}

const percent = (n: number, of: number): string => `${n} of ${of}`;

/** The table in Markdown. */
export const coverageTable = (forms: readonly Form[], facts: CoverageFacts): string => {
  const rows = forms.map((form) => {
    const modes = MODES.filter((mode) => exampleOf(form, mode) !== undefined);
    const engines = facts.engines.get(form.number);
    const counts = [...(facts.vectors.get(form.number) ?? [])].sort((a, b) => (a[0] < b[0] ? 1 : -1));
    const vectors = counts.map(([mode, n]) => `${mode}: ${n}`);
    return { form, modes, engines, vectors };
  });
  rows.sort((a, b) => {
    const key = (f: Form): string => `${f.row.feature ?? ''} ${f.row.name}`;
    return key(a.form) < key(b.form) ? -1 : key(a.form) > key(b.form) ? 1 : a.form.number - b.form.number;
  });
  const user = rows.filter((r) => facts.notRun(r.form.row.name) === undefined);
  const executed = rows.filter((r) => (r.engines?.length ?? 0) > 0).length;
  const tested = rows.filter((r) => r.vectors.length > 0).length;
  const lines = rows.map(({ form, modes, engines, vectors }) => {
    const { row } = form;
    const cells = [
      row.name,
      `\`${form.text}\``,
      row.feature ?? '',
      modelOf(row),
      modes.join(' '),
      engines === undefined ? '#UD' : engines.join(', '),
      vectors.length > 0 ? vectors.join(', ') : `none: ${facts.notRun(row.name) ?? 'not recorded'}`,
    ];
    return `| ${cells.join(' | ')} |`;
  });
  return `# Instruction coverage

Written by \`npm run coverage\`; a test holds this file to the instruction rows. One line an instruction form, in the
notation of \`rows.ts\`. *Model* is the first processor model whose CPUID advertises the feature (\`cpuid.ts\`); every model
executes every form. *Decoded* are the code sizes in which the form has an encoding. *Executed* are the engines that
ran it; \`#UD\` forms are undefined by design. *Vectors* are results recorded on hardware that both engines reproduce
(\`data/vectors/hardware.bin.gz\`), with their number in 64-bit and in compatibility mode (32); of privileged forms they are
the faults of user code. Forms without say why they were not run.

- forms: ${forms.length}
- executed: ${percent(executed, forms.length)}
- covered by hardware vectors: ${percent(tested, forms.length)}; of those that the recording processor can run as user
  code: ${percent(tested, user.length)}

| Instruction | Form | Feature | Model | Decoded | Executed | Vectors |
|---|---|---|---|---|---|---|
${lines.join('\n')}
`;
};
