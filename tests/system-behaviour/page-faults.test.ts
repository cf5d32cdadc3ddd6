/** Error codes, CR2, accessed and dirty bits of every combination of access, entry and control bits, bare and as a guest. */
import { describe, expect, test } from 'vitest';
import { differences, ENGINES, execute, PLACES } from './machine.js';
import { CASES, CONTROLS, DATA, entryOf, expected, logOf, pageFaultImage } from './page-faults.js';
import { LONG_WORLDS } from './worlds.js';

const world = LONG_WORLDS[0]!;
const nameOf = (k: object): string =>
  Object.entries(k)
    .map(([name, on]) => `${name}=${on ? 1 : 0}`)
    .join(' ');

describe.each(CONTROLS.map((k) => [nameOf(k), k] as const))('%s', (_name, k) => {
  const { image, start } = pageFaultImage(world, k);
  const first = execute('bare', 'interpreter', image.bytes, start);

  test('192 accesses fault as the SDM says', () => {
    expect(first.end).toBe('halt');
    const wrong: string[] = [];
    for (const [i, c] of CASES.entries()) {
      const code = expected(c, k);
      const log = logOf(first.memory, i);
      const entry = entryOf(c, first.memory);
      const name = `${c.access} cpl ${c.user ? 3 : 0} ${nameOf(c.entry)}`;
      const wanted = code === undefined ? -1 : code + 1;
      if (log.code !== wanted) wrong.push(`${name}: code ${log.code - 1}, not ${wanted - 1}`);
      if (code !== undefined && log.cr2 !== c.linear + (c.access === 'fetch' ? 0 : DATA))
        wrong.push(`${name}: CR2 ${log.cr2.toString(16)}`);
      const flags = (c.entry.p ? 1 : 0) | (code !== undefined ? 0 : c.access === 'write' ? 0x60 : 0x20);
      if (entry !== flags)
        wrong.push(`${name}: accessed and dirty ${entry.toString(16)}, not ${flags.toString(16)}`);
    }
    expect(wrong).toEqual([]);
  });

  // the reference engine is slow: everywhere on the bare processor, as a guest with every fourth combination
  const others = ENGINES.flatMap((e) => PLACES.map((p) => [e, p] as const)).filter(
    ([e, p], i) => i > 0 && (e === 'interpreter' || p === 'bare' || CONTROLS.indexOf(k) % 4 === 3),
  );
  test.each(others)('%s, %s: no difference', (engine, place) => {
    const other = execute(place, engine, image.bytes, start);
    expect(differences(first, other)).toEqual([]);
  });
});
