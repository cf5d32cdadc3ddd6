import { expect, test, vi } from 'vitest';
import { costChart, exitChart, phaseChart } from '../../lib/lab/charts.js';
import { chart, toSVG, vegaLibraryHTML } from '../../lib/lab/plot.js';

const EPT = { 0: 0, 10: 100, 48: 40 };
const SHADOW = { 0: 500, 10: 100, 48: 0 };

test('the exit chart is plain data: a point a type and mode, zero at the edge', () => {
  const spec = exitChart(EPT, SHADOW, 'more exits');
  expect(JSON.parse(JSON.stringify(spec))).toEqual(spec);
  expect(spec).toMatchObject({ title: { text: 'more exits' } });
  const { values } = spec.data as { values: { name: string; mode: string; exits: number; shown: number }[] };
  expect(values.filter((v) => v.name === '0 EXCEPTION_NMI').map((v) => [v.mode, v.exits, v.shown])).toEqual([
    ['EPT', 0, 0.5],
    ['shadow', 500, 500],
  ]);
});

test.each([
  ['exits', exitChart(EPT, SHADOW, 'title one')],
  ['costs', costChart([{ what: 'walks', ept: 1, shadow: 2 }], 'title one')],
  ['phases', phaseChart([{ phase: 'boot', ept: EPT, shadow: SHADOW }], 'title one')],
])('the chart of %s as SVG has its title and marks in both colours', async (_name, spec) => {
  const warn = vi.spyOn(console, 'warn');
  const svg = await toSVG(spec);
  expect(warn).not.toHaveBeenCalled();
  warn.mockRestore();
  expect(svg).toMatch(/^<svg/);
  expect(svg).toContain('title one');
  expect(svg).toContain('#1f77b4');
  expect(svg).toContain('#d9480f');
  expect(svg).not.toMatch(/NaN|undefined/);
});

test('a chart in a page: static SVG, its own id, and no way out of the script', async () => {
  const spec = exitChart(EPT, SHADOW, '</script><b>');
  const [a, b] = [await chart(spec), await chart(spec)];
  const id = (html: string) => /id="([^"]+)"/.exec(html)![1];
  expect(id(a)).not.toBe(id(b));
  expect(a).toContain('<svg');
  expect(a.split('</script>')).toHaveLength(2);
});

test('the libraries are inline: one script that names no address to load', () => {
  const html = vegaLibraryHTML();
  expect(html.match(/<script/g)).toHaveLength(1);
  expect(html).not.toMatch(/<script[^>]+src=/);
  expect(html.length).toBeGreaterThan(500_000);
});
