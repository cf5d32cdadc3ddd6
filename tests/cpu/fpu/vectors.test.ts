/** x87, MMX and SSE instructions against what a processor answered, on both engines. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { TRANSCENDENTAL } from './cases.js';
import { createMachine, differences } from './machine.js';
import { decodeVectors, nearly } from './vectors.js';

const { origin, cases } = decodeVectors(
  readFileSync(new URL('../../../data/vectors/fpu.bin.gz', import.meta.url)),
);

describe.each(['reference', 'interpreter'] as const)(`${origin.processor} and the %s engine`, (name) => {
  it('agree', { timeout: 60_000 }, () => {
    const machine = createMachine(name);
    const wrong: string[] = [];
    for (const { encoding, given, expected } of cases) {
      const compare = TRANSCENDENTAL.includes(encoding) ? nearly : differences;
      wrong.push(...compare(encoding.name, expected, machine.run(given)));
    }
    expect(wrong).toEqual([]);
    expect(cases.length).toBeGreaterThan(4000);
  });
});
