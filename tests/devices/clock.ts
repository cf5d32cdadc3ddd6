/** A clock for device tests: time moves only when told to. */
import { createEventQueue, type EventQueue } from '../../lib/devices/event-queue.js';

export interface TestClock extends EventQueue {
  /** Moves to `cycle`, firing each timer exactly at its deadline. */
  runTo(cycle: number): void;
}

export const testClock = (rate = 1_000_000_000): TestClock => {
  let now = 0;
  const queue = createEventQueue(() => now, rate);
  return {
    ...queue,
    runTo(cycle) {
      for (;;) {
        const next = queue.next();
        if (next === undefined || next > cycle) break;
        now = Math.max(now, next);
        queue.runDue();
      }
      now = cycle;
    },
  };
};
