/**
 * `npm run fuzz`: random code on this machine's processor and on both engines. Cases go to the native runner in batches;
 * while it answers, the next batch is made.
 */
import { join } from 'node:path';
import { LabError } from '../../lib/base/error.js';
import { FORMS } from '../../lib/isa/opcodes.js';
import { newCase } from '../hardware/cases.js';
import { AT } from '../hardware/layout.js';
import { createMachine } from '../hardware/machine.js';
import { buildRunner, Native } from '../hardware/native.js';
import { type FuzzOptions, fuzzOptions, HELP } from './options.js';
import { familyOf, Plan } from './plan.js';
import { check, reduce, report } from './reduce.js';

const BATCH = 1000;
/** Cases between two lines of progress. */
const PROGRESS = 500_000;

const campaign = async (o: FuzzOptions, root: string): Promise<number> => {
  const program = buildRunner(join(root, 'tests/hardware/runner.c'), join(root, 'data/cache/scripts'));
  const native = new Native(program);
  const machines = [createMachine('reference'), createMachine('interpreter')];
  const plan = new Plan(o.seed, o.only, o.rows);
  const c = newCase();
  const out = new Uint8Array(AT.size);
  const families = new Map<string, number>();
  const began = process.hrtime.bigint();
  const make = (first: number, into: Uint8Array): number => {
    const count = Math.min(BATCH, o.from + o.cases - first);
    for (let i = 0; i < count; i++) {
      const kind = plan.make(c, first + i);
      into.set(c.bytes, i * AT.size);
      const family = kind === 'sequence' ? `sequences (${c.kind})` : familyOf(c.form);
      families.set(family, (families.get(family) ?? 0) + 1);
    }
    return count;
  };
  const rate = (done: number): number => Math.round((done * 1e9) / Number(process.hrtime.bigint() - began));
  let differing = 0;
  let faults = 0;
  let number = o.from;
  let batch = new Uint8Array(BATCH * AT.size);
  let following = new Uint8Array(BATCH * AT.size);
  let count = make(number, batch);
  while (count > 0 && differing < o.stop) {
    const answer = native.run(batch, count);
    const next = make(number + count, following);
    const results = await answer;
    for (let i = 0; i < count && differing < o.stop; i++) {
      const given = batch.subarray(i * AT.size, (i + 1) * AT.size);
      const expected = results.subarray(i * AT.size, (i + 1) * AT.size);
      if (expected[AT.vector + 3] === 0) faults++;
      for (const machine of machines) {
        if (check(machine, given, expected, out).length === 0) continue;
        const small = await reduce(native, machine, given.slice());
        const again = await native.run(small, 1);
        const lines = check(machine, small, again, out);
        console.log(`case ${number + i}: ${report(machine.name, small, lines)}`);
        console.log(
          `  again: npm run fuzz -- --seed ${o.seed} --from ${number + i} --cases 1${o.only === undefined ? '' : ` --only ${o.only}`}`,
        );
        differing++;
        break;
      }
    }
    number += count;
    count = next;
    [batch, following] = [following, batch];
    const done = number - o.from;
    if (done % PROGRESS === 0 && count > 0)
      console.log(`${done} cases, ${differing} differences, ${rate(done)} a second`);
  }
  native.end();
  const done = number - o.from;
  const list = [...families].sort((a, b) => (a[0] < b[0] ? -1 : 1)).map(([name, n]) => `${name} ${n}`);
  console.log(`cases by family: ${list.join(', ')}`);
  console.log(
    `${done} cases (${faults} fault), seed ${o.seed}: ${differing} differences; ${rate(done)} a second`,
  );
  return differing === 0 ? 0 : 1;
};

/** @returns the exit status: 0 no difference, 1 differences, 2 bad arguments or no runner */
export const main = async (args: readonly string[], root: string): Promise<number> => {
  try {
    const o = fuzzOptions(args, new Set(FORMS.map((f) => f.row.name)));
    if (o === 'help') {
      console.log(HELP);
      return 0;
    }
    return await campaign(o, root);
  } catch (e) {
    if (!(e instanceof LabError)) throw e;
    console.error(e.message);
    return 2;
  }
};
