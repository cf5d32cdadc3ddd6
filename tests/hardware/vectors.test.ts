/** Every engine against what a processor answered (`npm run vectors:record`). */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { differences, equal } from './compare.js';
import { FOUND } from './found.js';
import { AT } from './layout.js';
import { createMachine } from './machine.js';
import { decodeVectors } from './vectors.js';

const { origin, vectors } = decodeVectors(
  readFileSync(new URL('../../data/vectors/hardware.bin.gz', import.meta.url)),
);
const words = (bytes: Uint8Array): Uint32Array =>
  new Uint32Array(bytes.buffer, bytes.byteOffset, AT.size / 4);

test('the file holds what it says, and what was found', () => {
  expect(vectors.length).toBe(origin.vectors);
  expect(vectors.length).toBeGreaterThan(10_000);
  const codes = vectors.map((v) => Buffer.from(v.code).toString('hex'));
  for (const row of FOUND) expect(codes).toContain(row.code.replaceAll(' ', ''));
});

describe.each(['reference', 'interpreter'] as const)(
  `${origin.processor}, ${origin.date}, and the %s engine`,
  (name) => {
    test.each([64, 32])('agree in %i-bit code', (mode) => {
      const machine = createMachine(name);
      const out = new Uint8Array(AT.size);
      const wrong: string[] = [];
      for (const v of vectors) {
        if (v.mode !== mode) continue;
        machine.run(v.given, out);
        if (equal(mode, words(v.expected), words(out))) continue;
        const found = differences(v.given, v.expected, out);
        if (found.length > 0)
          wrong.push(`${Buffer.from(v.code).toString('hex')}: ${found.slice(0, 4).join('; ')}`);
      }
      expect(wrong).toEqual([]);
    });

    test('a result that is not the recorded one is found', () => {
      const machine = createMachine(name);
      const out = new Uint8Array(AT.size);
      const v = vectors.find((x) => x.mode === 64 && x.code.length > 0 && x.expected[AT.vector] === 0xff)!;
      machine.run(v.given, out);
      out[AT.gpr + 8 * 15] ^= 1;
      expect(differences(v.given, v.expected, out).length).toBe(1);
    });
  },
);
