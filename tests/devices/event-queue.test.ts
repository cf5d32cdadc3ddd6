import { describe, expect, it } from 'vitest';
import type { Timer } from '../../lib/devices/device.js';
import { createEventQueue } from '../../lib/devices/event-queue.js';
import { cyclesOf, scaleDown, ticksOf } from '../../lib/devices/timebase.js';

describe('event queue', () => {
  const setup = () => {
    let now = 0;
    const fired: string[] = [];
    const queue = createEventQueue(() => now, 1000);
    const timer = (name: string): Timer => ({ name, fire: () => void fired.push(name) });
    return {
      queue,
      fired,
      timer,
      at: (t: number) => {
        now = t;
      },
    };
  };

  it('fires in the order of deadlines, then of arming', () => {
    const { queue, fired, timer, at } = setup();
    for (const [name, deadline] of [
      ['c', 30],
      ['a', 10],
      ['b1', 20],
      ['b2', 20],
    ] as const)
      queue.arm(timer(name), deadline);
    expect(queue.next()).toBe(10);
    at(9);
    expect(queue.runDue()).toBe(0);
    at(20);
    expect(queue.runDue()).toBe(3);
    expect(fired).toEqual(['a', 'b1', 'b2']);
    expect(queue.next()).toBe(30);
  });

  it('keeps one pending call a timer, and can leave one out', () => {
    const { queue, fired, timer, at } = setup();
    const a = timer('a');
    const b = timer('b');
    queue.arm(a, 10);
    queue.arm(b, 40);
    queue.arm(a, 20);
    expect(queue.next()).toBe(20);
    expect(queue.next(a)).toBe(40);
    queue.disarm(b);
    expect(queue.armed(b)).toBe(false);
    at(100);
    queue.runDue();
    expect(fired).toEqual(['a']);
    expect(queue.next()).toBeUndefined();
  });

  it('fires a passed deadline in the next run, and timers armed while firing', () => {
    const { queue, fired, timer, at } = setup();
    at(50);
    const again = timer('again');
    queue.arm(
      {
        name: 'first',
        fire: () => {
          fired.push('first');
          queue.arm(again, 50);
        },
      },
      10,
    );
    expect(fired).toEqual([]);
    expect(queue.runDue()).toBe(2);
    expect(fired).toEqual(['first', 'again']);
  });
});

describe('time base', () => {
  it.each([
    [1, 1_193_182, 400_000_000],
    [65_536, 1_193_182, 2_999_999_999],
    [12_345_678_901, 1_000_000_000, 2_100_000_000],
  ])('%d ticks at %d Hz end exactly at their cycle (rate %d)', (n, hz, rate) => {
    const end = cyclesOf(n, hz, rate);
    expect(ticksOf(end, hz, rate)).toBe(n);
    expect(ticksOf(end - 1, hz, rate)).toBe(n - 1);
  });
  it('is exact beyond 2^53 in between', () => {
    expect(scaleDown(9_007_199_254_740, 3_000_000_007, 3_000_000_006)).toBe(9_007_199_257_742);
  });
});
