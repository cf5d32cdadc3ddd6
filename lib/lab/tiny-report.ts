/**
 * The comparison on the built-in guest, as text and as one self-contained HTML page: what the lab shows where Debian's
 * packages cannot be had.
 */
import { exitChart } from './charts.js';
import { compareCounts, compareText, ratioText } from './compare.js';
import { toSVG } from './plot.js';
import { type PredictedRun, predictionText } from './prediction.js';
import type { Paging, RunResult } from './run-types.js';

export interface TinyRun {
  readonly run: RunResult;
  readonly prediction: PredictedRun;
}
export type TinyRuns = Readonly<Record<Paging, TinyRun>>;

const TITLE: Readonly<Record<Paging, string>> = { ept: 'With EPT', shadow: 'Without EPT' };
const MODES = ['ept', 'shadow'] as const;

/** Exits side by side, then predicted against counted in each mode. */
export const tinyText = (runs: TinyRuns): string =>
  [
    compareText(runs.ept.run.exits, runs.shadow.run.exits),
    ...MODES.map((mode) => `${TITLE[mode]}:\n${predictionText(runs[mode].prediction)}`),
  ].join('\n\n');

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const row = (cells: readonly (string | number)[], tag = 'td'): string =>
  `<tr>${cells
    .map(
      (c) =>
        `<${tag}${typeof c === 'number' ? ' class="n"' : ''}>${escaped(c.toLocaleString('en-US'))}</${tag}>`,
    )
    .join('')}</tr>`;
const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[]): string =>
  `<table><thead>${row(head, 'th')}</thead><tbody>${rows.map((r) => row(r)).join('\n')}</tbody></table>`;

const STYLE = `body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#1b1b1b;background:#fff}
table{border-collapse:collapse;margin:.6em 0 2em}th,td{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}`;

const predicted = (mode: Paging, { prediction }: TinyRun): string =>
  `<h2>${TITLE[mode]}: predicted and counted</h2>
<p>What the workload adds to a guest that has nothing to do${prediction.exact ? ', exactly as predicted' : ', not as predicted'}.</p>
${table(
  ['type', 'predicted', 'counted', 'where they come from'],
  prediction.rows.map((r) => [
    `${r.reason} ${r.kvm}`,
    r.predicted ?? 'driven by time',
    r.counted,
    r.because.join('; '),
  ]),
)}`;

/** The page. @param why the reason for which the built-in guest runs, if there is one to tell */
export const tinyHtml = async (runs: TinyRuns, why?: string): Promise<string> => {
  const { ept, shadow } = runs;
  const rows = compareCounts(ept.run.exits, shadow.run.exits);
  const work = Object.entries(ept.prediction.workload).filter(([, n]) => n > 0);
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>vmxlab: nested and shadow paging on the built-in guest</title>
<style>${STYLE}</style>
<h1>Nested and shadow paging on the built-in guest</h1>
${why === undefined ? '' : `<p>${escaped(why)}</p>`}
<p>The guest does ${escaped(work.map(([name, n]) => `${n} ${name}`).join(', '))}.</p>
${await toSVG(exitChart(ept.run.exits, shadow.run.exits, 'Exits by type, with and without EPT'))}
${table(
  ['type', "the SDM's name", 'EPT', 'shadow', 'ratio'],
  rows.map((r) => [`${r.reason} ${r.kvm}`, r.sdm, r.ept, r.shadow, ratioText(r.ratio)]),
)}
${MODES.map((mode) => predicted(mode, runs[mode])).join('\n')}
</html>
`;
};
