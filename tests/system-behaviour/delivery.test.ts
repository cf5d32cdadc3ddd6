/** Every exception class from every mode and privilege level, through every kind of gate, bare and as a guest. */
import { describe, expect, test } from 'vitest';
import { EVENTS, frameOf, handlerRip } from './delivery.js';
import { differences, ENGINES, execute, type Result } from './machine.js';
import { placesOf } from './places.js';
import { AT, type Gate, gatesOf, makeWorld, WORLDS, type World, word } from './worlds.js';

const seen = (r: Result, size: 2 | 4 | 8, count: number) => ({
  end: r.end,
  rip: r.rip,
  cs: r.segments['cs']?.selector,
  rsp: r.gprs[4],
  words: Array.from({ length: count }, (_, i) => word(r.memory, Number(r.gprs[4]) + i * size, size)),
  rflags: r.rflags & ~0x8d5,
});

/** All gates in turn; worlds that differ in paging only share the work. */
const gatesFor = (w: World, n: number): readonly Gate[] => {
  const gates = gatesOf(w);
  return w.cpl === 0 || w.cpl === 3 ? gates : [gates[n % gates.length]!];
};

describe.each(WORLDS.map((w) => [w.name, w] as const))('%s', (_name, w) => {
  const rows = EVENTS.filter((row) => row.when?.(w) ?? true);
  test.each(rows.map((row) => [row.name, row] as const))('%s', (_row, row) => {
    for (const gate of gatesFor(w, EVENTS.indexOf(row))) {
      const { image, start: plain } = makeWorld(w, gate);
      const start = row.start?.(w, plain) ?? plain;
      row.image?.(w, image);
      const before = row.before?.(w) ?? [];
      const bytes = row.bytes(w);
      image.put(AT.code, 1, ...before, ...bytes);
      const { rflags, ...frame } = frameOf(row, w, gate, start, AT.code + before.length, bytes.length);
      const undefinedFlags = 0x8d5;
      const first = execute('bare', 'interpreter', image.bytes, start);
      const got = seen(first, frame.size, frame.words.length);
      expect(got, `${gate}: ${row.sdm}`).toEqual({
        end: 'halt',
        rip: handlerRip(row),
        cs: frame.cs,
        rsp: frame.rsp,
        words: frame.words,
        rflags: rflags & ~undefinedFlags,
      });
      if (row.cr2 !== undefined) expect(first.cr.cr2, 'CR2').toBe(BigInt(row.cr2));
      for (const engine of ENGINES) {
        for (const place of placesOf(w)) {
          if (engine === 'interpreter' && place === 'bare') continue;
          if (engine === 'reference' && gate !== gatesOf(w)[0]) continue;
          const other = execute(place, engine, image.bytes, start);
          expect(differences(first, other), `${engine}, ${place}, ${gate}`).toEqual([]);
        }
      }
    }
  });
});
