/**
 * Charts as vega-lite specifications: plain data, so that tests can compare them. The title is the answer.
 */
import type { TopLevelSpec } from 'vega-lite';
import { compareCounts } from './compare.js';

type Counts = Readonly<Record<number, number>>;

export const MODE_COLOURS = { EPT: '#1f77b4', shadow: '#d9480f' } as const;
const colour = {
  field: 'mode',
  type: 'nominal',
  scale: { domain: Object.keys(MODE_COLOURS), range: Object.values(MODE_COLOURS) },
  title: null,
} as const;

/** 0.5 stands for 0, which a logarithm has no place for. */
const TICKS = [0.5, ...[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => 10 ** n)];

/** Exits by type in both modes, as points on a logarithmic axis: a gap is a factor. Zero is drawn at the left edge. */
export const exitChart = (ept: Counts, shadow: Counts, title: string): TopLevelSpec => {
  const values = compareCounts(ept, shadow).flatMap((r) => {
    const name = `${r.reason} ${r.kvm}`;
    return [
      { name, mode: 'EPT', exits: r.ept, shown: Math.max(r.ept, 0.5), larger: Math.max(r.ept, r.shadow) },
      {
        name,
        mode: 'shadow',
        exits: r.shadow,
        shown: Math.max(r.shadow, 0.5),
        larger: Math.max(r.ept, r.shadow),
      },
    ];
  });
  const y = {
    field: 'name',
    type: 'nominal',
    title: null,
    sort: { field: 'larger', order: 'descending' },
  } as const;
  const x = {
    field: 'shown',
    type: 'quantitative',
    scale: { type: 'log', domainMin: 0.5 },
    title: 'exits (log scale; the left edge is 0)',
    axis: { labelExpr: 'datum.value < 1 ? "0" : format(datum.value, "~s")', values: TICKS },
  } as const;
  return {
    title: { text: title, anchor: 'start' },
    width: 620,
    height: { step: 24 },
    data: { values },
    layer: [
      {
        mark: { type: 'line', color: '#bbb', strokeWidth: 2 },
        encoding: { y, x, detail: { field: 'name', type: 'nominal' } },
      },
      {
        mark: { type: 'point', filled: true, opacity: 1 },
        encoding: {
          y,
          x,
          color: colour,
          // where both are equal, one shows as a ring around the other
          size: { condition: { test: "datum.mode === 'EPT'", value: 170 }, value: 70 },
          tooltip: [{ field: 'name', title: 'type' }, { field: 'mode' }, { field: 'exits', format: ',' }],
        },
      },
    ],
  };
};

/** Named quantities in both modes, side by side; one small chart each, because their units differ. */
export const costChart = (
  rows: readonly { readonly what: string; readonly ept: number; readonly shadow: number }[],
  title: string,
): TopLevelSpec => ({
  title: { text: title, anchor: 'start' },
  data: {
    values: rows.flatMap((r) => [
      { what: r.what, mode: 'EPT', value: r.ept },
      { what: r.what, mode: 'shadow', value: r.shadow },
    ]),
  },
  facet: { field: 'what', type: 'nominal', title: null, sort: rows.map((r) => r.what) },
  columns: 3,
  resolve: { scale: { y: 'independent' } },
  spec: {
    width: 170,
    height: 140,
    mark: 'bar',
    encoding: {
      x: { field: 'mode', type: 'nominal', title: null, axis: { labelAngle: 0 } },
      y: { field: 'value', type: 'quantitative', title: null, axis: { format: '~s' } },
      color: { ...colour, legend: null },
      tooltip: [{ field: 'what' }, { field: 'mode' }, { field: 'value', format: ',' }],
    },
  },
});

/** Boot and workload apart: exits of the largest types, stacked by phase. */
export const phaseChart = (
  phases: readonly { readonly phase: string; readonly ept: Counts; readonly shadow: Counts }[],
  title: string,
  types = 6,
): TopLevelSpec => {
  const values = phases.flatMap((p) =>
    compareCounts(p.ept, p.shadow).flatMap((r) => [
      { phase: p.phase, type: `${r.reason} ${r.kvm}`, mode: 'EPT', exits: r.ept },
      { phase: p.phase, type: `${r.reason} ${r.kvm}`, mode: 'shadow', exits: r.shadow },
    ]),
  );
  const totals = new Map<string, number>();
  for (const v of values) totals.set(v.type, (totals.get(v.type) ?? 0) + v.exits);
  const top = [...totals]
    .sort((a, b) => b[1] - a[1])
    .slice(0, types)
    .map(([t]) => t);
  return {
    title: { text: title, anchor: 'start' },
    width: 560,
    height: { step: 18 },
    data: { values: values.filter((v) => top.includes(v.type)) },
    mark: 'bar',
    encoding: {
      y: { field: 'type', type: 'nominal', sort: top, title: null },
      yOffset: { field: 'mode', type: 'nominal' },
      x: { field: 'exits', type: 'quantitative', stack: 'zero', axis: { format: '~s' } },
      color: colour,
      opacity: {
        field: 'phase',
        type: 'ordinal',
        sort: phases.map((p) => p.phase),
        scale: { range: [0.45, 1] },
        title: 'phase',
      },
      tooltip: [{ field: 'type' }, { field: 'mode' }, { field: 'phase' }, { field: 'exits', format: ',' }],
    },
  };
};
