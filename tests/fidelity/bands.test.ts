import { expect, test } from 'vitest';
import { type Band, inBand, type Place, reasonBand, statBand } from '../../lib/fidelity/bands.js';
import { reportHtml, sectionText, summaryText } from '../../lib/fidelity/report.js';
import { compare } from '../../lib/fidelity/table.js';
import type { ReferenceMarker } from '../../lib/lab/reference.js';

const part = (p: number): Band => ({ kind: 'within', part: p });
const time: Band = { kind: 'factor', factor: 1.5 };

test.each<[Band, number, number, boolean]>([
  [{ kind: 'exact' }, 59, 59, true],
  [{ kind: 'exact' }, 65, 59, false],
  [part(0.05), 13_297, 12_664, true],
  [part(0.05), 13_298, 12_664, false],
  // five counts are always allowed
  [part(0.01), 45, 40, true],
  [part(0.01), 46, 40, false],
  [time, 300, 200, true],
  [time, 301, 200, false],
  [time, 134, 200, true],
  [time, 133, 200, false],
  [time, 0, 5, true],
  [{ kind: 'zero' }, 0, 0, true],
  [{ kind: 'zero' }, 6, 0, false],
])('%o: %i against %i', (band, ours, theirs, ok) => {
  expect(inBand(band, ours, theirs)).toBe(ok);
});

test.each<[Place, number, number, string | undefined]>([
  ['init', 28, 17_586, 'within'],
  ['init', 31, 59, 'exact'],
  ['init', 52, 0, 'factor'],
  ['init', 48, 0, 'zero'],
  ['workload', 30, 35_685, undefined],
  ['workload', 58, 1779, 'within'],
])('at %s reason %i has the band', (place, reason, theirs, kind) => {
  expect(reasonBand(place, reason, theirs)?.kind).toBe(kind);
});

test('statistics with a band and without', () => {
  expect(statBand('pf_guest')).toEqual(part(0.15));
  expect(statBand('req_event')).toBeUndefined();
});

const real: ReferenceMarker = {
  marker: 'INIT-REACHED',
  exits: { '0': 100, '31': 6, '32': 20 },
  total: 126,
  kvmStats: { exits: 126, pf_guest: 10 },
  detail: { msr: { 'read 0x1b': 4, 'read 0x480': 2, 'write 0x6e0': 15, 'write 0x10': 5 } },
};
const ours = {
  exits: { 0: 104, 14: 9, 31: 4, 32: 30 },
  kvmStats: { exits: 147, pf_guest: 30 },
  msr: { 'read 0x1b': 4, 'write 0x6e0': 25, 'write 0x10': 5 },
};

test('a table has every reason and statistic of either side, MSRs judged without those of the time', () => {
  const lines = compare('init', ours, real);
  const by = Object.fromEntries(lines.map((l) => [l.name, l]));
  expect(by['0 EXCEPTION_NMI']).toMatchObject({ ours: 104, theirs: 100, ratio: 1.04, ok: true });
  expect(by['14 INVLPG']).toMatchObject({ theirs: 0, ratio: undefined, ok: false });
  expect(by['31 MSR_READ']).toMatchObject({ ok: true, note: 'without 0x480-0x491: 4 / 4' });
  expect(by['32 MSR_WRITE']).toMatchObject({ ok: true, note: 'without 0x6e0, 0x80b: 5 / 5' });
  expect(by['pf_guest']).toMatchObject({ ok: false });
  expect(by['total']).toMatchObject({ ours: 147, theirs: 126, ok: undefined });
  expect(by['exits']).toBeUndefined();
});

test('the report says what was missed, and nothing when the kernel is another one', () => {
  const section = {
    id: 'b',
    description: 'shadow <x>',
    place: 'init' as const,
    lines: compare('init', ours, real),
  };
  const report = { notes: ['a note'], judged: true, sections: [section], micro: [] };
  expect(summaryText(report)).toContain('missed: b init 14 INVLPG: 9 against 0 (zero or 5)');
  expect(sectionText(section, true)).toMatch(/14 INVLPG +9 +0 +zero or 5 +missed/);
  const page = reportHtml(report);
  expect(page).toContain('shadow &lt;x&gt;');
  expect(page).not.toMatch(/<(script|link|img)/);
  const other = { ...report, judged: false };
  expect(summaryText(other)).toContain('nothing is judged');
  expect(sectionText(section, false)).not.toContain('missed');
  expect(reportHtml(other)).not.toContain('class="missed"');
});
