import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { hardwareRuns, publishedCosts } from '../../lib/lab/published.js';

test('every published value names its source', () => {
  const { gains, findings, exitCosts } = publishedCosts();
  for (const row of [...gains, ...findings, ...exitCosts]) expect(row.source.length).toBeGreaterThan(20);
  expect(gains.map((g) => g.gain)).toEqual([48, 600, 42, 500]);
});

test('the runs on real hardware are pairs, shadow paging without EPT exits', () => {
  const runs = hardwareRuns();
  expect(runs).toHaveLength(4);
  for (const run of runs) {
    expect(run.source).toMatch(/\/linux: /);
    expect(run.ept['48']).toBeGreaterThan(0);
    expect(run.shadow['48'] ?? 0).toBe(0);
  }
  expect(readFileSync('data/reference/real-hardware-exits.json', 'utf8')).toContain('zisyang/linux');
});
