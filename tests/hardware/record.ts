/**
 * `npm run vectors:record`: runs cases of every form on this machine's processor and writes what it answered to
 * `data/vectors/hardware.bin.gz`. Differences from the engines are printed; they do not keep anything from being written.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from '../../lib/base/error.js';
import { MODES, newCase, RUN_FORMS, single } from './cases.js';
import { differences } from './compare.js';
import { FOUND, foundCase } from './found.js';
import { AT } from './layout.js';
import { createMachine } from './machine.js';
import { buildRunner, Native, provenance } from './native.js';
import { encodeVectors, type Recorded } from './vectors.js';

/** Cases of a form by mode; forms on numbers and strings have more paths. */
const COUNTS = { 64: 9, 32: 4 } as const;
const MORE: ReadonlySet<string> = new Set(['f32', 'f64', 'f80', 'text', 'count', 'bcd']);

const record = async (root: string): Promise<number> => {
  const program = buildRunner(join(root, 'tests/hardware/runner.c'), join(root, 'data/cache/scripts'));
  const native = new Native(program);
  const c = newCase();
  const drafts: Omit<Recorded, 'expected'>[] = [];
  FOUND.forEach((row, i) => {
    const seed = foundCase(c.bytes, row, i);
    drafts.push({ kind: row.kind, seed, given: c.bytes.slice() });
  });
  for (const form of RUN_FORMS) {
    for (const mode of MODES) {
      for (let i = 0, n: number = COUNTS[mode]; i < n; i++) {
        // the same seed for the same case, whatever other forms there are
        const seed = [...`${form.row.name} ${form.text} ${mode} ${i}`].reduce(
          (h, ch) => (Math.imul(h, 31) + ch.charCodeAt(0)) >>> 0,
          7,
        );
        if (!single(c, form, mode, seed)) break;
        if (MORE.has(c.kind)) n = COUNTS[mode] * 2;
        drafts.push({ kind: c.kind, seed: c.seed, given: c.bytes.slice() });
      }
    }
  }
  const all = new Uint8Array(drafts.length * AT.size);
  drafts.forEach((d, i) => {
    all.set(d.given, i * AT.size);
  });
  const results = await native.run(all, drafts.length);
  native.end();
  const list = drafts.map((d, i) => ({ ...d, expected: results.slice(i * AT.size, (i + 1) * AT.size) }));
  const file = encodeVectors(provenance(), list);
  const folder = join(root, 'data/vectors');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'hardware.bin.gz'), file);
  console.log(`${list.length} vectors, ${(file.length / 1e6).toFixed(2)} MB`);
  let wrong = 0;
  const out = new Uint8Array(AT.size);
  for (const name of ['reference', 'interpreter'] as const) {
    const machine = createMachine(name);
    for (const { given, expected } of list) {
      machine.run(given, out);
      const found = differences(given, expected, out);
      if (found.length === 0) continue;
      wrong++;
      const code = Buffer.from(given.subarray(AT.code, AT.code + given[AT.length])).toString('hex');
      console.log(`${name}, ${given[AT.mode]}-bit, ${code}: ${found.slice(0, 4).join('; ')}`);
    }
  }
  console.log(`${wrong} differences`);
  return wrong === 0 ? 0 : 1;
};

/** @returns the exit status */
export const main = async (args: readonly string[], root: string): Promise<number> => {
  try {
    if (args.length > 0)
      throw new LabError('record.option', `unknown argument '${args[0]}'`, 'there are none');
    return await record(root);
  } catch (e) {
    if (!(e instanceof LabError)) throw e;
    console.error(e.message);
    return 2;
  }
};
