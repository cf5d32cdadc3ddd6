/** `lib/isa/COVERAGE.md` is up to date: `npm run coverage` writes it anew. Every form is decoded and executed. */
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import type { NonRoot } from '../../lib/cpu/core.js';
import { coverageTable, exampleOf, MODES } from '../../lib/isa/coverage.js';
import { decode } from '../../lib/isa/decoder.js';
import type { Form } from '../../lib/isa/forms.js';
import { VMX_ROWS } from '../../lib/isa/insns/vmx.js';
import { FORMS } from '../../lib/isa/opcodes.js';
import { CR4, S } from '../../lib/isa/state.js';
import { ENGINES, enter32, enter64, makeFlat, useEngine } from '../cpu/system/flat.js';
import { notRun } from '../hardware/masks.js';
import { decodeVectors } from '../hardware/vectors.js';

/** Forms that raise #UD on this processor: never defined, or of features that it does not offer. */
const UNDEFINED = /^(ud0|ud1|ud2|rsm|monitor|mwait)$/;

const file = (path: string): Buffer => readFileSync(new URL(`../../${path}`, import.meta.url));

/** Vectors by form number and mode. */
const vectorsByForm = (): Map<number, Map<string, number>> => {
  const found = new Map<number, Map<string, number>>();
  for (const { code, mode } of decodeVectors(file('data/vectors/hardware.bin.gz')).vectors) {
    const insn = decode(code, 0, code.length, mode);
    if (typeof insn === 'string') throw new Error(`vector ${code.join(' ')} is ${insn}`);
    const counts = found.get(insn.form) ?? new Map<string, number>();
    counts.set(String(mode), (counts.get(String(mode)) ?? 0) + 1);
    found.set(insn.form, counts);
  }
  return found;
};

/** How the form's example ends on the engine in use: `budget` when it retired. */
const execute = (form: Form): string => {
  const f = makeFlat();
  const { cpu } = f;
  const mode = form.row.modes === 'no64' ? 32 : 64;
  if (mode === 64) enter64(f);
  else enter32(f);
  const smap = form.row.feature === 'smap' ? CR4.smap : 0;
  cpu.set64(S.cr4, BigInt(CR4.pae | CR4.osfxsr | CR4.osxmmexcpt | CR4.osxsave | CR4.fsgsbase | smap));
  cpu.set64(S.xcr0, 3n);
  for (const r of [0, 1, 2, 3, 5, 6, 7]) cpu.setGpr(r, 0xc000n);
  if (VMX_ROWS.includes(form.row)) {
    // these exist in VMX non-root operation, where they exit
    const instruction = (): boolean => {
      cpu.leaveForExit();
      return true;
    };
    cpu.guest = { instruction } as unknown as NonRoot;
  }
  f.run([...exampleOf(form, mode)!]);
  return f.outcome();
};

const engines = new Map<number, string[]>();

describe.each(ENGINES)('%s', (engine) => {
  beforeAll(() => useEngine(engine));
  test('executes every form', () => {
    const undefinedForms: string[] = [];
    for (const form of FORMS) {
      if (execute(form) === '#6') undefinedForms.push(form.row.name);
      else engines.set(form.number, [...(engines.get(form.number) ?? []), engine]);
    }
    expect(undefinedForms.filter((name) => !UNDEFINED.test(name))).toEqual([]);
  });
});

test('every form has an encoding', () => {
  const without = FORMS.filter((f) => !MODES.some((mode) => exampleOf(f, mode) !== undefined));
  expect(without.map((f) => f.text)).toEqual([]);
});

test('every form that user code can run has vectors', () => {
  const vectors = vectorsByForm();
  const without = FORMS.filter((f) => !vectors.has(f.number) && notRun(f.row.name) === undefined);
  expect(without.map((f) => `${f.row.name} ${f.text}`)).toEqual([]);
});

test('COVERAGE.md is up to date (npm run coverage)', async () => {
  const table = coverageTable(FORMS, { engines, vectors: vectorsByForm(), notRun });
  await expect(table).toMatchFileSnapshot('../../lib/isa/COVERAGE.md');
});
