/** Every system instruction at every privilege level and in every mode, bare and as a guest. */
import { describe, expect, test } from 'vitest';
import { differences, ENGINES, execute, type Result } from './machine.js';
import { placesOf } from './places.js';
import { outcomeOf, PRIVILEGE } from './privilege.js';
import { AT, makeWorld, WORLDS, type World, word } from './worlds.js';

const DONE = 0x31;
/** One world of each kind; CPL 1 stands for the levels between. */
const NAMES = ['long 0', 'long 1', 'long 3', 'compat 3', 'p32 0', 'p32 3', 'p16 0', 'v86 3', 'real 0'];
const worlds = WORLDS.filter(
  (w) => (w.paging === 'none' || w.paging === 'long') && NAMES.includes(`${w.kind} ${w.cpl}`),
);

/** The first event: the vector of the handler that was reached, and its error code. */
const seen = (r: Result, w: World, bytes: number): string => {
  const rip = Number(r.rip);
  if (rip === AT.code + bytes) return 'ok';
  const vector = (rip - 1 - AT.handlers) / 16;
  if (vector === DONE) return 'ok';
  if (vector === 6) return 'ud';
  const size = w.kind === 'real' ? 2 : w.paging === 'long' ? 8 : 4;
  if (vector === 13 && w.kind === 'real') return 'gp';
  return vector === 13 && word(r.memory, Number(r.gprs[4]), size) === 0n
    ? 'gp'
    : `${r.end} at ${rip.toString(16)}`;
};

describe.each(worlds.map((w) => [w.name, w] as const))('%s', (_name, w) => {
  const rows = PRIVILEGE.filter((row) => row.when?.(w) ?? true);
  test.each(rows.map((row) => [row.name, row] as const))('%s', (_row, row) => {
    const { image, start: plain } = makeWorld(w);
    const start = row.start?.(plain, w) ?? plain;
    row.image?.(image, w);
    const bytes = row.bytes(w);
    image.put(AT.code, 1, ...bytes, 0xcd, DONE);
    const first = execute('bare', 'interpreter', image.bytes, start);
    expect(seen(first, w, bytes.length), row.sdm).toBe(outcomeOf(row, w));
    for (const engine of ENGINES) {
      for (const place of placesOf(w)) {
        if (engine === 'interpreter' ? place === 'bare' : place !== 'bare') continue;
        expect(differences(first, execute(place, engine, image.bytes, start)), `${engine}, ${place}`).toEqual(
          [],
        );
      }
    }
  });
});
