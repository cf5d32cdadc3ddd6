/**
 * How close counts must come to real KVM's: one row for each exit reason or statistic, at the init line and after the
 * workload. A band is a relative difference or five counts, whichever is wider.
 */
/** Where the counters are compared. */
export type Place = 'init' | 'workload';
export const PLACES: readonly Place[] = ['init', 'workload'];

/** `exact`, a relative difference, or a factor for what happens at the rate of time. */
export type Band =
  | { readonly kind: 'exact' }
  | { readonly kind: 'within'; readonly part: number }
  | { readonly kind: 'factor'; readonly factor: number }
  | { readonly kind: 'zero' };

/** Counts that a band always allows. */
export const SLACK = 5;
const EXACT: Band = { kind: 'exact' };
const ZERO: Band = { kind: 'zero' };
const within = (part: number): Band => ({ kind: 'within', part });
const TIME: Band = { kind: 'factor', factor: 1.5 };

/** Reasons that happen at the rate of virtual time. */
export const TIME_DRIVEN: ReadonlySet<number> = new Set([1, 7, 40, 52]);

const REASON_BANDS: Readonly<Record<Place, Readonly<Record<number, Band>>>> = {
  init: {
    0: within(0.05),
    10: within(0.01),
    14: within(0.1),
    28: within(0.01),
    29: within(0.01),
    30: within(0.03),
    31: EXACT,
    32: EXACT,
    48: within(0.01),
    55: within(0.01),
    58: within(0.1),
  },
  workload: {
    0: within(0.08),
    10: within(0.02),
    14: within(0.08),
    28: within(0.02),
    48: within(0.02),
    58: within(0.08),
  },
};
export const TOTAL_BAND: Readonly<Partial<Record<Place, Band>>> = { workload: within(0.04) };
const STAT_BAND = within(0.15);
/** Statistics with a band; the others are shown only. */
export const JUDGED_STATS: ReadonlySet<string> = new Set([
  'mmu_cache_miss',
  'mmu_unsync',
  'mmu_pte_write',
  'mmu_flooded',
  'mmu_shadow_zapped',
  'pf_taken',
  'pf_fixed',
  'pf_guest',
  'pf_emulate',
  'pf_spurious',
  'pages_2m',
  'pages_4k',
  'tlb_flush',
  'invlpg',
]);

/** The band of an exit reason; what is zero on real KVM is zero here and the reverse. */
export const reasonBand = (place: Place, reason: number, theirs: number): Band | undefined => {
  if (TIME_DRIVEN.has(reason)) return TIME;
  if (theirs === 0) return ZERO;
  return REASON_BANDS[place][reason];
};
export const statBand = (name: string): Band | undefined => (JUDGED_STATS.has(name) ? STAT_BAND : undefined);

/** True when `ours` is in the band around `theirs`. */
export const inBand = (band: Band, ours: number, theirs: number): boolean => {
  const off = Math.abs(ours - theirs);
  switch (band.kind) {
    case 'exact':
      return off <= SLACK;
    case 'zero':
      return ours <= SLACK;
    case 'within':
      return off <= Math.max(SLACK, band.part * theirs);
    case 'factor':
      return off <= SLACK || (ours <= theirs * band.factor && ours * band.factor >= theirs);
  }
};

export const bandText = (band: Band): string => {
  switch (band.kind) {
    case 'exact':
      return `exact or ${SLACK}`;
    case 'zero':
      return `zero or ${SLACK}`;
    case 'within':
      return `±${band.part * 100} % or ${SLACK}`;
    case 'factor':
      return `×${band.factor}`;
  }
};
