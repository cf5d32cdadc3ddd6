/** The instruction-set extensions and state images against what a processor answered, on both engines. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createMachine, differences, ENGINES } from './machine.js';
import { decodeVectors } from './vectors.js';

const { origin, vectors } = decodeVectors(
  readFileSync(new URL('../../../data/vectors/extensions.bin.gz', import.meta.url)),
);

describe.each(ENGINES)(`${origin.processor} and the %s engine`, (name) => {
  it('agree', () => {
    const machine = createMachine(name);
    const wrong: string[] = [];
    for (const { given, expected } of vectors)
      wrong.push(...differences(given, expected, machine.run(given)));
    expect(wrong).toEqual([]);
    expect(vectors.length).toBe(origin.vectors);
  });
});
