/**
 * KVM's statistics as `kvm_stat` shows them: event, total, share, and how often a second of virtual time since the last
 * look. The rows under `kvm_exit` are its reasons.
 */

import { reasonName } from '../hypervisor/reasons.js';
import type { Counters } from './run-types.js';

export interface StatRow {
  readonly name: string;
  readonly total: number;
  /** Percent of the total of its group: of all events, or of all exits. */
  readonly share: number;
  /** Events a second since the last look. */
  readonly rate: number;
  readonly child: boolean;
}

const total = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((s, n) => s + n, 0);

/** Reasons by the name that their rows have. */
const byReason = (exits: Readonly<Record<number, number>>): Record<string, number> =>
  Object.fromEntries(Object.entries(exits).map(([n, c]) => [`kvm_exit(${reasonName(Number(n))})`, c]));

/** @param before the counters at the last look */
export const statRows = (now: Counters, before: Counters | undefined, hz: number): StatRow[] => {
  const seconds = (now.cycles - (before?.cycles ?? 0)) / hz;
  const group = (
    counts: Readonly<Record<string, number>>,
    old: Readonly<Record<string, number>>,
    child: boolean,
  ): StatRow[] => {
    const all = total(counts);
    return Object.entries(counts)
      .filter(([, n]) => n > 0)
      .map(([name, n]) => ({
        name,
        total: n,
        share: all === 0 ? 0 : (100 * n) / all,
        rate: seconds <= 0 ? 0 : Math.max(0, n - (old[name] ?? 0)) / seconds,
        child,
      }))
      .sort((a, b) => b.rate - a.rate || b.total - a.total || (a.name < b.name ? -1 : 1));
  };
  const { exits, ...others } = now.kvmStats;
  const { exits: oldExits, ...oldOthers } = before?.kvmStats ?? {};
  const top = group({ kvm_exit: exits ?? 0, ...others }, { kvm_exit: oldExits ?? 0, ...oldOthers }, false);
  const reasons = group(byReason(now.exits), byReason(before?.exits ?? {}), true);
  return top.flatMap((row) => (row.name === 'kvm_exit' ? [row, ...reasons] : [row]));
};

const NAME_WIDTH = 40;

/** The table; `height` cuts it, the sum stays. */
export const statText = (rows: readonly StatRow[], height = Number.POSITIVE_INFINITY): string => {
  const line = (name: string, n: number, share: string, rate: number): string =>
    ` ${name.padEnd(NAME_WIDTH)} ${String(n).padStart(12)} ${share.padStart(7)} ${Math.round(rate).toString().padStart(9)}`;
  const body = rows
    .slice(0, Math.max(1, height - 5))
    .map((r) => line(`${r.child ? '  ' : ''}${r.name}`, r.total, r.share.toFixed(1), r.rate));
  const top = rows.filter((r) => !r.child);
  return [
    'kvm statistics - summary',
    '',
    ` ${'Event'.padEnd(NAME_WIDTH)} ${'Total'.padStart(12)} ${'%Total'.padStart(7)} ${'CurAvg/s'.padStart(9)}`,
    ...body,
    line(
      'Total',
      top.reduce((s, r) => s + r.total, 0),
      '',
      top.reduce((s, r) => s + r.rate, 0),
    ),
    '',
  ].join('\n');
};
