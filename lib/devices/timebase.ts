/**
 * Exact conversion between TSC cycles and the ticks of a device's own clock.
 *
 * A timer of n ticks that was started at cycle s fires at s + cyclesOf(n); at that cycle ticksOf(now - s) is n and one
 * cycle earlier it is n - 1. Deadlines are computed from the start, never by adding up, so nothing drifts.
 */

/** floor(n × numerator / denominator) for whole numbers; exact for results below 2^53. */
export const scaleDown = (n: number, numerator: number, denominator: number): number => {
  if (n * numerator <= Number.MAX_SAFE_INTEGER) return Math.floor((n * numerator) / denominator);
  return Number((BigInt(n) * BigInt(numerator)) / BigInt(denominator));
};

/** ceil(n × numerator / denominator) for whole numbers; exact for results below 2^53. */
export const scaleUp = (n: number, numerator: number, denominator: number): number => {
  const product = BigInt(n) * BigInt(numerator);
  const by = BigInt(denominator);
  return Number((product + by - 1n) / by);
};

/** Whole ticks of a `hz` clock that have passed after `cycles`. */
export const ticksOf = (cycles: number, hz: number, rate: number): number => scaleDown(cycles, hz, rate);

/** The first cycle at which `ticks` ticks of a `hz` clock have passed. */
export const cyclesOf = (ticks: number, hz: number, rate: number): number => scaleUp(ticks, rate, hz);
