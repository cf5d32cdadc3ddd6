/**
 * Charts that put several sources or parts together, as vega-lite specifications: dots of the same quantity from several
 * sources, bars stacked from parts, areas over exits. Titles and units come from the caller; the title is the answer.
 */
import type { TopLevelSpec } from 'vega-lite';

export interface RangeRow {
  readonly what: string;
  /** Who says so. */
  readonly source: string;
  readonly value: number;
}

/** Values of several sources, one row a quantity: where the dots lie together, the sources agree. */
export const dotChart = (
  rows: readonly RangeRow[],
  options: {
    readonly title: string;
    readonly x: string;
    readonly colours: Readonly<Record<string, string>>;
    readonly log?: boolean;
    /** A line to compare with, such as 1 for a ratio. */
    readonly rule?: number;
  },
): TopLevelSpec => {
  const order = [...new Set(rows.map((r) => r.what))];
  return {
    title: { text: options.title, anchor: 'start' },
    width: 560,
    height: { step: 26 },
    layer: [
      {
        data: { values: options.rule === undefined ? [] : [{ at: options.rule }] },
        mark: { type: 'rule', color: '#888', strokeDash: [4, 3] },
        encoding: { x: { field: 'at', type: 'quantitative' } },
      },
      {
        data: { values: rows.map((r) => ({ ...r })) },
        mark: { type: 'point', filled: true, size: 95, opacity: 0.85 },
        encoding: {
          y: {
            field: 'what',
            type: 'nominal',
            title: null,
            sort: order,
            axis: { grid: true, labelLimit: 320 },
          },
          x: {
            field: 'value',
            type: 'quantitative',
            title: options.x,
            ...(options.log === true ? { scale: { type: 'log' } } : {}),
            axis: { format: '~g' },
          },
          color: {
            field: 'source',
            type: 'nominal',
            title: null,
            scale: { domain: Object.keys(options.colours), range: Object.values(options.colours) },
            legend: { labelLimit: 320, orient: 'bottom', columns: 2 },
          },
          tooltip: [{ field: 'what' }, { field: 'source' }, { field: 'value', format: ',.3~g' }],
        },
      },
    ],
  };
};

export interface StackPart {
  readonly what: string;
  readonly part: string;
  readonly value: number;
}

/** Bars that are stacked from parts, in the order given. */
export const stackChart = (parts: readonly StackPart[], title: string, unit: string): TopLevelSpec => {
  const order = [...new Set(parts.map((p) => p.part))];
  return {
    title: { text: title, anchor: 'start' },
    width: 560,
    height: { step: 30 },
    data: { values: parts.map((p) => ({ ...p, place: order.indexOf(p.part) })) },
    mark: 'bar',
    encoding: {
      y: { field: 'what', type: 'nominal', title: null, sort: [...new Set(parts.map((p) => p.what))] },
      x: { field: 'value', type: 'quantitative', stack: 'zero', title: unit, axis: { format: '~s' } },
      color: {
        field: 'part',
        type: 'nominal',
        title: null,
        scale: { domain: order, scheme: 'tableau10' },
        legend: { labelLimit: 260 },
      },
      order: { field: 'place' },
      tooltip: [{ field: 'what' }, { field: 'part' }, { field: 'value', format: ',' }],
    },
  };
};

/** What a whole is made of, over time or exits: one area a kind, stacked. */
export const areaChart = (
  points: readonly { readonly x: number; readonly kind: string; readonly value: number }[],
  options: { readonly title: string; readonly x: string; readonly y: string },
): TopLevelSpec => ({
  title: { text: options.title, anchor: 'start' },
  width: 620,
  height: 240,
  data: { values: points.map((p) => ({ ...p })) },
  mark: { type: 'area', interpolate: 'step-after' },
  encoding: {
    x: { field: 'x', type: 'quantitative', title: options.x, axis: { format: '~s', grid: false } },
    y: { field: 'value', type: 'quantitative', stack: 'zero', title: options.y },
    color: {
      field: 'kind',
      type: 'nominal',
      title: null,
      sort: [...new Set(points.map((p) => p.kind))],
      scale: { scheme: 'tableau10' },
    },
    tooltip: [
      { field: 'x', title: options.x, format: ',' },
      { field: 'kind' },
      { field: 'value', title: options.y, format: ',' },
    ],
  },
});
