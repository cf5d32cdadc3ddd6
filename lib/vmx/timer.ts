/**
 * What is timed in VMX non-root operation: preemption timer, monitor trap flag, and the host's local timer interrupt.
 *
 * All times are physical TSC values, so each is a deadline computed once, and nothing counts (SDM volume 3,
 * "VMX-Preemption Timer", "Monitor Trap Flag"). The preemption timer decreases whenever TSC >> shift increases.
 */
import { PREEMPTION_TIMER_SHIFT } from './capabilities.js';

const UNIT = 2 ** PREEMPTION_TIMER_SHIFT;

/** TSC at which a preemption timer of `value`, started at `now`, reaches zero. */
export const timerDeadline = (now: number, value: number): number => (Math.floor(now / UNIT) + value) * UNIT;

/** What is left of a timer with this deadline. */
export const timerLeft = (now: number, deadline: number): number =>
  Math.max(0, deadline / UNIT - Math.floor(now / UNIT));

export class Timers {
  /** TSC at which the preemption timer fires; Infinity while it is not active. */
  preemption = Number.POSITIVE_INFINITY;
  /** TSC at which the monitor-trap-flag exit is due; one instruction is one cycle. */
  monitorTrap = Number.POSITIVE_INFINITY;
  /** TSC at which the host's timer interrupt arrives; Infinity when disarmed or acknowledged. */
  interrupt = Number.POSITIVE_INFINITY;
  vector = 0;
}
