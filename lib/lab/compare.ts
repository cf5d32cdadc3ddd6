/** EPT beside shadow paging: one row an exit reason, for the terminal, CSV and the notebook. */
import { EXIT_REASONS } from '../vmx/exit-reasons.js';

export interface CompareRow {
  readonly reason: number;
  /** KVM's macro name. */
  readonly kvm: string;
  /** The SDM's name of the event. */
  readonly sdm: string;
  readonly ept: number;
  readonly shadow: number;
  /** shadow / ept; Infinity when only shadow has exits of this type. */
  readonly ratio: number;
}

type Counts = Readonly<Record<number, number>>;

/** Rows of all reasons that occur in either run, by reason. */
export const compareCounts = (ept: Counts, shadow: Counts): CompareRow[] => {
  const rows: CompareRow[] = [];
  for (const row of EXIT_REASONS) {
    const a = ept[row.number] ?? 0;
    const b = shadow[row.number] ?? 0;
    if (a === 0 && b === 0) continue;
    rows.push({ reason: row.number, kvm: row.kvm ?? '', sdm: row.sdm, ept: a, shadow: b, ratio: b / a });
  }
  return rows;
};

export const ratioText = (ratio: number): string =>
  ratio === Number.POSITIVE_INFINITY
    ? 'new'
    : ratio === 0
      ? 'gone'
      : Number.isNaN(ratio)
        ? ''
        : ratio >= 10
          ? `${ratio.toFixed(0)}×`
          : `${ratio.toFixed(2)}×`;

const sum = (c: Counts): number => Object.values(c).reduce((s, n) => s + n, 0);

/** A table for the terminal, with the totals in its last line. */
export const compareText = (ept: Counts, shadow: Counts): string => {
  const rows = compareCounts(ept, shadow).map((r) => [
    String(r.reason),
    r.kvm,
    r.sdm,
    String(r.ept),
    String(r.shadow),
    ratioText(r.ratio),
  ]);
  rows.push(['', 'total', '', String(sum(ept)), String(sum(shadow)), ratioText(sum(shadow) / sum(ept))]);
  const head = ['#', 'KVM', 'SDM', 'EPT', 'shadow', 'ratio'];
  const width = head.map((h, i) => Math.max(h.length, ...rows.map((r) => r[i]!.length)));
  const line = (r: readonly string[]): string =>
    r
      .map((c, i) => (i === 1 || i === 2 ? c.padEnd(width[i]!) : c.padStart(width[i]!)))
      .join('  ')
      .trimEnd();
  return [line(head), width.map((w) => '-'.repeat(w)).join('  '), ...rows.map(line)].join('\n');
};

const quoted = (s: string): string => (/[",\n]/.test(s) ? `"${s.replaceAll('"', '""')}"` : s);

export const compareCsv = (ept: Counts, shadow: Counts): string =>
  [
    'reason,kvm,sdm,ept,shadow',
    ...compareCounts(ept, shadow).map((r) =>
      [r.reason, quoted(r.kvm), quoted(r.sdm), r.ept, r.shadow].join(','),
    ),
  ]
    .join('\n')
    .concat('\n');
