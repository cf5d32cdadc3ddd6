/**
 * The clock of a machine: pending timers in the order of their deadlines.
 *
 * Virtual time itself is kept elsewhere (`now`); whoever runs the guest stops it at `next()` and calls `runDue()`.
 * Timers of equal deadline fire in the order in which they were armed, so that every run is the same run.
 * Timers are saved by the devices that own them: `load` of a device arms them again.
 */
import { InvariantError } from '../base/error.js';
import type { Clock, Timer } from './device.js';

interface Pending {
  readonly timer: Timer;
  readonly deadline: number;
}

export interface EventQueue extends Clock {
  /** Deadline of the first pending timer, leaving out `except`; undefined when there is none. */
  next(except?: Timer): number | undefined;
  /** Fires, in order, every timer whose deadline has been reached, those armed meanwhile included; how many fired. */
  runDue(): number;
  /** True while `timer` is armed. */
  armed(timer: Timer): boolean;
}

/** More firings than this at one instant mean a timer that arms itself for the past for ever. */
const MAX_AT_ONCE = 1_000_000;

/** @param now TSC cycles since the machine was created @param rate cycles a second */
export const createEventQueue = (now: () => number, rate: number): EventQueue => {
  /** Sorted by deadline, stable; a handful of timers, so a sorted list beats a heap. */
  const pending: Pending[] = [];

  const disarm = (timer: Timer): void => {
    const at = pending.findIndex((p) => p.timer === timer);
    if (at >= 0) pending.splice(at, 1);
  };

  return {
    now,
    rate,
    arm(timer, deadline) {
      if (Number.isNaN(deadline)) throw new InvariantError(`timer ${timer.name} was armed for NaN`);
      disarm(timer);
      let at = pending.length;
      while (at > 0 && pending[at - 1].deadline > deadline) at--;
      pending.splice(at, 0, { timer, deadline });
    },
    disarm,
    armed: (timer) => pending.some((p) => p.timer === timer),
    next(except) {
      for (const p of pending) if (p.timer !== except) return p.deadline;
      return undefined;
    },
    runDue() {
      let fired = 0;
      while (pending.length > 0 && pending[0].deadline <= now()) {
        const [{ timer }] = pending.splice(0, 1);
        timer.fire();
        if (++fired > MAX_AT_ONCE) throw new InvariantError(`timer ${timer.name} does not let time pass`);
      }
      return fired;
    },
  };
};
