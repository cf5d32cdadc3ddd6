/**
 * The comparison of one configuration: a line for every exit reason and statistic that either side has, with the ratio
 * and what the bands say of it.
 *
 * MSR exits that only a guest with VMX makes (reads of 0x480-0x491), and the writes of TSC deadline and EOI, whose
 * number is that of the timer interrupts, are taken off both sides before reasons 31 and 32 are judged.
 */
import { reasonName } from '../hypervisor/reasons.js';
import type { ReferenceMarker, ReferenceRun } from '../lab/reference.js';
import { type Band, bandText, inBand, type Place, reasonBand, statBand, TOTAL_BAND } from './bands.js';

export interface Line {
  readonly kind: 'reason' | 'stat' | 'total';
  readonly name: string;
  readonly ours: number;
  readonly theirs: number;
  /** ours / theirs; undefined when theirs is 0. */
  readonly ratio: number | undefined;
  readonly band: string;
  /** Undefined when there is no band. */
  readonly ok: boolean | undefined;
  /** What was taken off before judging. */
  readonly note: string;
}

/** Counters of ours at one place. */
export interface OurCounters {
  readonly exits: Readonly<Record<number, number>>;
  readonly kvmStats: Readonly<Record<string, number>>;
  /** MSR exits by kind and number: `read 0x1b`. */
  readonly msr: Readonly<Record<string, number>>;
}

const READS_ONLY_WITH_VMX = (key: string): boolean => {
  const m = /^read 0x([0-9a-f]+)$/.exec(key);
  const n = m === null ? 0 : Number.parseInt(m[1] as string, 16);
  return n >= 0x480 && n <= 0x491;
};
const TIMER_WRITES = (key: string): boolean => key === 'write 0x6e0' || key === 'write 0x80b';
const sumOf = (counts: Readonly<Record<string, number>>, which: (key: string) => boolean): number =>
  Object.entries(counts).reduce((sum, [key, n]) => sum + (which(key) ? n : 0), 0);

const MSR_ADJUST: Readonly<Record<number, { which: (key: string) => boolean; note: string }>> = {
  31: { which: READS_ONLY_WITH_VMX, note: 'without 0x480-0x491' },
  32: { which: TIMER_WRITES, note: 'without 0x6e0, 0x80b' },
};

const line = (
  kind: Line['kind'],
  name: string,
  ours: number,
  theirs: number,
  band: Band | undefined,
  judged: readonly [number, number] = [ours, theirs],
  note = '',
): Line => ({
  kind,
  name,
  ours,
  theirs,
  ratio: theirs === 0 ? undefined : ours / theirs,
  band: band === undefined ? '' : bandText(band),
  ok: band === undefined ? undefined : inBand(band, judged[0], judged[1]),
  note: note === '' ? '' : `${note}: ${judged[0]} / ${judged[1]}`,
});

/** The reference's counters at a place; undefined when the run has none. */
export const markerAt = (run: ReferenceRun, place: Place): ReferenceMarker | undefined =>
  run.markers[place === 'init' ? 0 : 1];

export const compare = (place: Place, ours: OurCounters, theirs: ReferenceMarker): Line[] => {
  const reasons = [...new Set([...Object.keys(ours.exits), ...Object.keys(theirs.exits)])]
    .map(Number)
    .sort((a, b) => a - b);
  const lines = reasons.map((reason) => {
    const mine = ours.exits[reason] ?? 0;
    const real = theirs.exits[String(reason)] ?? 0;
    const name = `${reason} ${reasonName(reason)}`;
    const band = reasonBand(place, reason, real);
    const adjust = MSR_ADJUST[reason];
    if (adjust === undefined) return line('reason', name, mine, real, band);
    const judged = [
      mine - sumOf(ours.msr, adjust.which),
      real - sumOf(theirs.detail['msr'] ?? {}, adjust.which),
    ] as const;
    return line('reason', name, mine, real, band, judged, adjust.note);
  });
  const total = Object.values(ours.exits).reduce((a, b) => a + b, 0);
  lines.push(line('total', 'total', total, theirs.total, TOTAL_BAND[place]));
  const stats = [...new Set([...Object.keys(theirs.kvmStats), ...Object.keys(ours.kvmStats)])]
    .filter((s) => (theirs.kvmStats[s] ?? 0) !== 0 || (ours.kvmStats[s] ?? 0) !== 0)
    .filter((s) => s !== 'exits')
    .sort();
  for (const s of stats)
    lines.push(line('stat', s, ours.kvmStats[s] ?? 0, theirs.kvmStats[s] ?? 0, statBand(s)));
  return lines;
};
