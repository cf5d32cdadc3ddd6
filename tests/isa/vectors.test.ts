/** The integer instructions against vectors recorded on a real processor (`tests/hardware`). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { FLAG } from '../../lib/isa/state.js';
import { changes, parseVector, type Vector } from '../hardware/state.js';
import { decoded, interpreterMachine, type Ran, runOne } from './machine.js';

const FLAG_LETTERS: Readonly<Record<string, number>> = {
  o: FLAG.of,
  s: FLAG.sf,
  z: FLAG.zf,
  a: FLAG.af,
  p: FLAG.pf,
  c: FLAG.cf,
};

const text = readFileSync(join(import.meta.dirname, '../hardware/integer.txt'), 'utf8');
const vectors = text
  .trim()
  .split('\n')
  .filter((line) => !line.startsWith('#'))
  .map(parseVector);

/** Flags that the row leaves undefined; for shifts and rotates, OF by the rule of count 1 is what processors deliver. */
const undefinedFlags = (v: Vector): number => {
  const { name, flags } = decoded(v.code, 64).row;
  const mask = [...(flags?.u ?? '')].reduce((m, letter) => m | FLAG_LETTERS[letter], 0);
  return /^(ro|rc|sh|sa)/.test(name) ? mask & ~FLAG.of : mask;
};

type Run = (code: Uint8Array, before: Vector['before']) => Ran;

const wrong = (run: Run, v: Vector): string | undefined => {
  const ran = run(v.code, v.before);
  if (typeof v.after === 'number') {
    const same = ran.outcome === 'left' && (ran.fault === v.after || (v.after === 13 && ran.fault === 14));
    if (!same) return `${v.text}: ${ran.outcome} ${ran.fault}`;
    const changed = changes({ ...v.before, memory: ran.after.memory }, ran.after);
    return changed === '' ? undefined : `${v.text}: changed ${changed}`;
  }
  if (ran.outcome !== 'done') return `${v.text}: ${ran.outcome} ${ran.fault}`;
  const keep = ~undefinedFlags(v);
  const expected = { ...v.after, flags: v.after.flags & keep };
  const got = { ...ran.after, flags: ran.after.flags & keep };
  return changes(expected, got) === '' ? undefined : `${v.text}: got ${changes(v.before, ran.after)}`;
};

const byName = new Map<string, Vector[]>();
for (const v of vectors) {
  const { name } = decoded(v.code, 64).row;
  const list = byName.get(name);
  if (list === undefined) byName.set(name, [v]);
  else list.push(v);
}

describe.each<[string, () => Run]>([
  ['reference', () => runOne],
  ['interpreter', interpreterMachine],
])('recorded on hardware: %s', (_engine, create) => {
  const run = create();
  test.each([...byName])('%s', (_name, list) => {
    const all = list.map((v) => wrong(run, v)).filter((w) => w !== undefined);
    expect(all.slice(0, 5)).toEqual([]);
  });
});
