/** danfojs dataframes of runs, and their HTML (danfojs-node shows none by itself). */
import { DataFrame, tensorflow } from 'danfojs-node';
import { type CompareRow, compareCounts, ratioText } from './compare.js';

// otherwise the first operation prints a banner on stderr
(tensorflow as { env(): { set(name: string, value: boolean): void } }).env().set('IS_TEST', true);

type Counts = Readonly<Record<number, number>>;

/** One row an exit reason that occurs in either run: reason, kvm, sdm, ept, shadow. */
export const exitFrame = (ept: Counts, shadow: Counts): DataFrame =>
  new DataFrame(
    compareCounts(ept, shadow).map((r: CompareRow) => ({
      reason: r.reason,
      kvm: r.kvm,
      sdm: r.sdm,
      ept: r.ept,
      shadow: r.shadow,
      ratio: ratioText(r.ratio),
    })),
  );

const escapeHTML = (s: string): string =>
  s.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

const cell = (v: unknown): string =>
  typeof v === 'number'
    ? `<td style="text-align:right">${v.toLocaleString('en-US')}</td>`
    : `<td style="text-align:left">${escapeHTML(String(v ?? ''))}</td>`;

/** A dataframe, or rows of objects, as an HTML table; numbers right-aligned with thousands separators. */
export const frameToHTML = (
  frame: DataFrame | readonly Readonly<Record<string, unknown>>[],
  caption?: string,
): string => {
  const rows = (Array.isArray(frame) ? frame : toRows(frame as DataFrame)) as readonly Readonly<
    Record<string, unknown>
  >[];
  const columns = rows.length === 0 ? [] : Object.keys(rows[0]!);
  const head = columns.map((c) => `<th style="text-align:left">${escapeHTML(c)}</th>`).join('');
  const body = rows.map((r) => `<tr>${columns.map((c) => cell(r[c])).join('')}</tr>`).join('');
  return `<table>${caption === undefined ? '' : `<caption>${escapeHTML(caption)}</caption>`}<thead><tr>${head}</tr></thead><tbody>${body}</tbody></table>`;
};

const toRows = (frame: DataFrame): Record<string, unknown>[] =>
  (frame.values as unknown[][]).map((values) =>
    Object.fromEntries(frame.columns.map((c, i) => [c, values[i]])),
  );
