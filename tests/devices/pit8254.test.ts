import { describe, expect, it } from 'vitest';
import { createPit8254, PIT_HZ } from '../../lib/devices/pit8254.js';
import { createPort61 } from '../../lib/devices/port61.js';
import { testClock } from './clock.js';

/** One cycle a PIT tick. */
const setup = (reinject = true) => {
  const clock = testClock(PIT_HZ);
  const rises: number[] = [];
  const pit = createPit8254(
    clock,
    {
      set: (level) => {
        if (level) rises.push(clock.now());
      },
    },
    reinject,
  );
  return {
    clock,
    pit,
    rises,
    w: (p: number, v: number) => pit.write(p, 1, v),
    r: (p: number) => pit.read(p, 1),
  };
};

describe('8254', () => {
  it('interrupts periodically without drift when each tick is ended', () => {
    const clock = testClock(400_000_000);
    const rises: number[] = [];
    const pit = createPit8254(clock, {
      set: (level) => {
        if (level) {
          rises.push(clock.now());
          pit.ended();
        }
      },
    });
    pit.write(0x43, 1, 0x34);
    pit.write(0x40, 1, 4773 & 0xff);
    pit.write(0x40, 1, 4773 >> 8);
    clock.runTo(400_000_000);
    expect(rises.length).toBe(Math.floor(PIT_HZ / 4773));
    expect(rises[99]).toBe(Math.ceil((477_300 * 400_000_000) / PIT_HZ));
  });

  it('holds ticks back until the guest has ended the one before, and loses none', () => {
    const { clock, pit, rises, w } = setup();
    w(0x43, 0x34);
    w(0x40, 0xe8);
    w(0x40, 3);
    clock.runTo(3500);
    expect(rises).toEqual([1000]);
    pit.ended();
    pit.ended();
    pit.ended();
    expect(rises).toEqual([1000, 3500, 3500]);
  });

  it('drops them without reinjection', () => {
    const { clock, rises, w } = setup(false);
    w(0x43, 0x34);
    w(0x40, 0xe8);
    w(0x40, 3);
    clock.runTo(3500);
    expect(rises).toEqual([1000, 2000, 3000]);
  });

  it('fires once in mode 0, and again for a new count', () => {
    const { clock, pit, rises, w } = setup();
    w(0x43, 0x30);
    w(0x40, 100);
    w(0x40, 0);
    clock.runTo(1000);
    expect(rises).toEqual([100]);
    pit.ended();
    w(0x40, 50);
    w(0x40, 0);
    clock.runTo(2000);
    expect(rises).toEqual([100, 1050]);
  });

  it.each([
    [0, 300, 700],
    [2, 300, 700],
    [3, 300, 400],
    [2, 1300, 700],
    [3, 600, 800],
  ])('mode %i reads its count after %i ticks', (mode, after, expected) => {
    const { clock, w, r } = setup();
    w(0x43, 0x80 | 0x30 | (mode << 1));
    w(0x42, 1000 & 0xff);
    w(0x42, 1000 >> 8);
    clock.runTo(after);
    expect(r(0x42) | (r(0x42) << 8)).toBe(expected);
  });

  it('latches count and status, and reads them first', () => {
    const { clock, w, r } = setup();
    w(0x43, 0x34);
    w(0x40, 0);
    w(0x40, 1);
    clock.runTo(10);
    w(0x43, 0xc2);
    clock.runTo(20);
    expect([r(0x40), r(0x40), r(0x40)]).toEqual([0x34, 246, 0]);
    w(0x43, 0x00);
    clock.runTo(30);
    expect([r(0x40), r(0x40)]).toEqual([236, 0]);
  });

  it('shows channel 2 at port 0x61', () => {
    const { clock, pit, w } = setup();
    const port = createPort61(clock, pit);
    w(0x43, 0xb0);
    w(0x42, 100);
    port.write(0x61, 1, 1);
    w(0x42, 0);
    expect(port.read(0x61, 1) & 0x21).toBe(0x01);
    clock.runTo(100);
    expect(port.read(0x61, 1) & 0x21).toBe(0x21);
    port.write(0x61, 1, 2);
    expect(port.read(0x61, 1) & 3).toBe(2);
  });

  it('goes on after save and load', () => {
    const { pit, w } = setup();
    w(0x43, 0x30);
    w(0x40, 100);
    w(0x40, 0);
    const state = pit.save();
    const later = testClock(PIT_HZ);
    const rises: number[] = [];
    createPit8254(later, {
      set: (level) => {
        if (level) rises.push(later.now());
      },
    }).load(state);
    later.runTo(1000);
    expect(rises).toEqual([100]);
  });
});
