/** Medians, spreads and plain-text tables. */

/** The middle value; of an even number, the mean of the two middle ones. @throws RangeError for an empty list */
export const median = (values: readonly number[]): number => {
  if (values.length === 0) throw new RangeError('the median of nothing');
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
};

/** Distance between smallest and largest value, relative to the median. */
export const spread = (values: readonly number[]): number => {
  const middle = median(values);
  return middle === 0 ? 0 : (Math.max(...values) - Math.min(...values)) / middle;
};

export interface Column {
  readonly head: string;
  /** Text is at the left, numbers at the right. */
  readonly align?: 'left' | 'right';
}

/**
 * A table with a line under its head. Columns are as wide as their widest cell; a cell that is missing or empty stays
 * blank, and no line ends in blanks.
 */
export const table = (columns: readonly Column[], rows: readonly (readonly string[])[]): string => {
  const width = columns.map((c, i) => Math.max(c.head.length, ...rows.map((r) => r[i]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ align }, i) =>
        align === 'left' ? (cells[i] ?? '').padEnd(width[i]!) : (cells[i] ?? '').padStart(width[i]!),
      )
      .join('  ')
      .trimEnd();
  return [
    line(columns.map((c) => c.head)),
    width.map((w) => '-'.repeat(w)).join('  '),
    ...rows.map(line),
  ].join('\n');
};

/** A number with a fixed count of decimals and grouped digits; blank for what was not measured. */
export const decimal = (value: number | undefined, decimals: number): string =>
  value === undefined || !Number.isFinite(value)
    ? ''
    : value.toLocaleString('en-US', { minimumFractionDigits: decimals, maximumFractionDigits: decimals });

export const percent = (value: number): string => `${(100 * value).toFixed(0)} %`;
