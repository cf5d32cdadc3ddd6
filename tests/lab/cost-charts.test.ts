import { expect, test, vi } from 'vitest';
import { billChart, curveChart, winnerChart } from '../../lib/lab/cost-charts.js';
import { areaChart, dotChart, stackChart } from '../../lib/lab/part-charts.js';
import { toSVG } from '../../lib/lab/plot.js';

const POINTS = [
  { x: 1, ept: 1, shadow: 5 },
  { x: 8, ept: 9, shadow: 5 },
];
const AXES = { title: 'title one', x: 'pages', y: 'cycles' };

test.each([
  [
    'curves',
    curveChart(POINTS, { ...AXES, logX: true }),
    ['#1f77b4', '#d9480f', 'cross at 4.5', 'pages', 'cycles'],
  ],
  [
    'bills',
    billChart([{ what: 'boot', mode: 'EPT', exits: 1, walks: 2 }], 'title one', 'cycles'),
    ['boot', 'page walks'],
  ],
  [
    'walks alone',
    billChart([{ what: 'boot', mode: 'EPT', exits: 0, walks: 2 }], 'title one', 'cycles'),
    ['boot'],
  ],
  [
    'winners',
    winnerChart(
      [
        { x: 1, y: 1, ept: 1, shadow: 4 },
        { x: 2, y: 1, ept: 30, shadow: 2 },
      ],
      AXES,
    ),
    ['4.0×', '15×', 'pages', 'cycles'],
  ],
  [
    'dots',
    dotChart([{ what: 'exits', source: 'ours', value: 3 }], {
      title: 'title one',
      x: 'ratio',
      colours: { ours: '#d9480f' },
      log: true,
      rule: 1,
    }),
    ['ours', 'ratio', '#d9480f'],
  ],
  ['stacks', stackChart([{ what: 'run', part: 'CPUID', value: 3 }], 'title one', 'exits'), ['run', 'CPUID']],
  [
    'areas',
    areaChart(
      [
        { x: 1, kind: 'direct', value: 3 },
        { x: 2, kind: 'direct', value: 4 },
      ],
      AXES,
    ),
    ['direct', 'pages'],
  ],
])('a chart of %s has its title, its axes and its marks', async (_name, spec, texts) => {
  const warn = vi.spyOn(console, 'warn');
  const svg = await toSVG(spec);
  expect(warn).not.toHaveBeenCalled();
  warn.mockRestore();
  for (const text of ['title one', ...texts]) expect(svg).toContain(text);
  expect(svg).not.toMatch(/NaN|undefined/);
});

test('curves that do not cross have no rule; a bill without exits does not speak of them', async () => {
  const apart = POINTS.map((p) => ({ ...p, shadow: p.ept + 1 }));
  expect(await toSVG(curveChart(apart, AXES))).not.toContain('cross at');
  expect(await toSVG(billChart([{ what: 'a', mode: 'EPT', exits: 0, walks: 1 }], 't', 'c'))).not.toContain(
    'exits',
  );
});
