/**
 * Charts of what the two kinds of paging cost, as vega-lite specifications: curves with their crossing point, bars of
 * bills, and the map of who is cheaper. Titles, axis titles and units come from the caller; the title is the answer.
 */
import type { TopLevelSpec } from 'vega-lite';
import { type CurvePoint, crossingOf } from './bill.js';
import { MODE_COLOURS } from './charts.js';

const colour = {
  field: 'mode',
  type: 'nominal',
  scale: { domain: Object.keys(MODE_COLOURS), range: Object.values(MODE_COLOURS) },
  title: null,
} as const;

const MODES = [
  ['EPT', 'ept'],
  ['shadow', 'shadow'],
] as const;

export interface CurveOptions {
  readonly title: string;
  /** Axis titles, with units. */
  readonly x: string;
  readonly y: string;
  /** Logarithmic axes: for x to the base of 2. */
  readonly logX?: boolean;
  readonly logY?: boolean;
}

/** One curve a mode, points marked; where they cross, a rule that says so. */
export const curveChart = (points: readonly CurvePoint[], options: CurveOptions): TopLevelSpec => {
  const values = points.flatMap((p) => MODES.map(([mode, key]) => ({ mode, x: p.x, y: p[key] })));
  const crossing = crossingOf(points);
  const xScale = options.logX === true ? ({ type: 'log', base: 2, nice: false } as const) : ({} as const);
  const x = {
    field: 'x',
    type: 'quantitative',
    title: options.x,
    scale: xScale,
    axis: {
      format: ',d',
      grid: false,
      ...(options.logX === true ? { values: points.map((p) => p.x).filter((v) => v > 0) } : {}),
    },
  } as const;
  const y = {
    field: 'y',
    type: 'quantitative',
    title: options.y,
    scale: options.logY === true ? ({ type: 'log' } as const) : ({ zero: true } as const),
    axis: { format: '~s' },
  } as const;
  const near = (at: number): string =>
    at >= 100 ? Math.round(at).toLocaleString('en-US') : String(Number(at.toPrecision(3)));
  const mark = crossing === undefined ? [] : [{ at: crossing, text: `cross at ${near(crossing)}` }];
  return {
    title: { text: options.title, anchor: 'start' },
    width: 620,
    height: 260,
    layer: [
      {
        data: { values },
        mark: { type: 'line', point: { filled: true, size: 55 }, strokeWidth: 2.5 },
        encoding: {
          x,
          y,
          color: colour,
          tooltip: [
            { field: 'mode' },
            { field: 'x', title: options.x, format: ',' },
            { field: 'y', title: options.y, format: ',.1f' },
          ],
        },
      },
      {
        data: { values: mark },
        mark: { type: 'rule', strokeDash: [5, 4], color: '#555' },
        encoding: { x: { field: 'at', type: 'quantitative', scale: xScale } },
      },
      {
        data: { values: mark },
        mark: { type: 'text', align: 'left', dx: 6, baseline: 'top', color: '#333', fontSize: 12 },
        encoding: {
          x: { field: 'at', type: 'quantitative', scale: xScale },
          y: { value: 4 },
          text: { field: 'text' },
        },
      },
    ],
  };
};

export interface BillBar {
  readonly what: string;
  readonly mode: 'EPT' | 'shadow';
  /** Cycles. */
  readonly exits: number;
  readonly walks: number;
}

/** Bills as stacked bars, exits full and walks pale, in cycles per guest instruction or whatever `unit` says. */
export const billChart = (bars: readonly BillBar[], title: string, unit: string): TopLevelSpec => {
  const walks = bars.map((b) => ({ what: b.what, mode: b.mode, part: 'page walks', cycles: b.walks }));
  const exits = bars.map((b) => ({ what: b.what, mode: b.mode, part: 'exits', cycles: b.exits }));
  const both = exits.some((e) => e.cycles !== 0);
  const opacity = {
    field: 'part',
    type: 'nominal',
    sort: ['exits', 'page walks'],
    scale: { domain: ['exits', 'page walks'], range: [1, 0.4] },
    title: null,
  } as const;
  return {
    title: { text: title, anchor: 'start' },
    width: 560,
    height: { step: 20 },
    data: { values: both ? [...exits, ...walks] : walks },
    mark: 'bar',
    encoding: {
      y: { field: 'what', type: 'nominal', title: null, sort: [...new Set(bars.map((b) => b.what))] },
      yOffset: { field: 'mode', type: 'nominal' },
      x: { field: 'cycles', type: 'quantitative', stack: 'zero', title: unit, axis: { format: '~s' } },
      color: colour,
      ...(both ? { opacity } : {}),
      order: { field: 'part', sort: 'ascending' },
      tooltip: [{ field: 'what' }, { field: 'mode' }, { field: 'part' }, { field: 'cycles', format: ',.3f' }],
    },
  };
};

export interface WinnerCell {
  readonly x: number;
  readonly y: number;
  /** Bills, in any one unit. */
  readonly ept: number;
  readonly shadow: number;
}

/** Who is cheaper and how many times, over two parameters. */
export const winnerChart = (
  cells: readonly WinnerCell[],
  options: Pick<CurveOptions, 'title' | 'x' | 'y'>,
): TopLevelSpec => {
  const values = cells.map((c) => {
    const ratio = c.shadow / c.ept;
    const times = Math.max(ratio, 1 / ratio);
    return { ...c, log: Math.log2(ratio), text: `${times >= 10 ? times.toFixed(0) : times.toFixed(1)}×` };
  });
  const far = Math.max(1, ...values.map((v) => Math.abs(v.log)));
  const y = {
    field: 'y',
    type: 'ordinal',
    title: options.y,
    sort: 'descending',
    axis: { format: ',' },
  } as const;
  const x = { field: 'x', type: 'ordinal', title: options.x, axis: { labelAngle: 0, format: ',' } } as const;
  return {
    title: { text: options.title, anchor: 'start' },
    width: { step: 72 },
    height: { step: 36 },
    data: { values },
    encoding: { x, y },
    layer: [
      {
        mark: { type: 'rect', stroke: 'white', strokeWidth: 2 },
        encoding: {
          color: {
            field: 'log',
            type: 'quantitative',
            title: ['cheaper'],
            scale: {
              domain: [-far, 0, far],
              range: [MODE_COLOURS.shadow, '#f7f7f7', MODE_COLOURS.EPT],
            },
            legend: {
              values: [-far, 0, far],
              labelExpr: "datum.value < 0 ? 'shadow' : datum.value > 0 ? 'EPT' : 'equal'",
              gradientLength: 140,
            },
          },
          tooltip: [
            { field: 'x', title: options.x, format: ',' },
            { field: 'y', title: options.y, format: ',' },
            { field: 'ept', title: 'EPT, cycles', format: ',.0f' },
            { field: 'shadow', title: 'shadow, cycles', format: ',.0f' },
          ],
        },
      },
      {
        mark: { type: 'text', fontSize: 12 },
        encoding: {
          text: { field: 'text' },
          color: {
            condition: { test: `abs(datum.log) > ${far * 0.55}`, value: 'white' },
            value: '#222',
          },
        },
      },
    ],
  };
};
