import { describe, expect, it } from 'vitest';
import { createPic8259 } from '../../lib/devices/pic8259.js';

const setup = (icw4 = 1) => {
  const ended: number[] = [];
  const pic = createPic8259({ onEnd: (irq) => ended.push(irq) });
  const w = (port: number, v: number) => pic.write(port, 1, v);
  const r = (port: number) => pic.read(port, 1);
  for (const [port, base, icw3] of [
    [0x20, 0x30, 4],
    [0xa0, 0x38, 2],
  ]) {
    w(port, 0x11);
    w(port + 1, base);
    w(port + 1, icw3);
    w(port + 1, icw4);
  }
  const pulse = (irq: number) => {
    pic.setIrq(irq, true);
    pic.setIrq(irq, false);
  };
  return { pic, w, r, pulse, ended };
};

describe('8259A pair', () => {
  it('latches edges, orders by priority, ends by EOI', () => {
    const { pic, w, r, pulse, ended } = setup();
    pulse(4);
    pulse(1);
    expect(pic.interrupt()).toBe(0x31);
    expect(pic.acknowledge()).toBe(0x31);
    expect(pic.hasInterrupt()).toBe(false);
    w(0x20, 0x0b);
    expect(r(0x20)).toBe(0x02);
    w(0x20, 0x0a);
    expect(r(0x20)).toBe(0x10);
    w(0x20, 0x20);
    expect(ended).toEqual([1]);
    expect(pic.acknowledge()).toBe(0x34);
    w(0x20, 0x64);
    expect(ended).toEqual([1, 4]);
    expect(pic.interrupt()).toBe(-1);
  });

  it('cascades the slave and keeps its further requests', () => {
    const { pic, w, pulse, ended } = setup();
    pulse(8);
    pulse(12);
    expect(pic.acknowledge()).toBe(0x38);
    expect(pic.hasInterrupt()).toBe(false);
    w(0xa0, 0x20);
    w(0x20, 0x20);
    expect(pic.acknowledge()).toBe(0x3c);
    w(0xa0, 0x20);
    w(0x20, 0x20);
    expect(ended).toEqual([8, 2, 12, 2]);
    expect(pic.hasInterrupt()).toBe(false);
  });

  it('masks, and delivers what was latched meanwhile', () => {
    const { pic, w, r, pulse } = setup();
    w(0x21, 0x10);
    expect(r(0x21)).toBe(0x10);
    pulse(4);
    expect(pic.hasInterrupt()).toBe(false);
    w(0x21, 0);
    expect(pic.interrupt()).toBe(0x34);
  });

  it('answers a vanished request with input 7', () => {
    const { pic } = setup();
    expect(pic.acknowledge()).toBe(0x37);
    expect(pic.interrupt()).toBe(-1);
  });

  it('holds level inputs by ELCR, which protects the system inputs', () => {
    const { pic, w, r } = setup();
    w(0x4d0, 0xff);
    w(0x4d1, 0xff);
    expect([r(0x4d0), r(0x4d1)]).toEqual([0xf8, 0xde]);
    pic.setIrq(5, true);
    expect(pic.acknowledge()).toBe(0x35);
    w(0x20, 0x20);
    expect(pic.interrupt()).toBe(0x35);
    pic.setIrq(5, false);
    expect(pic.interrupt()).toBe(-1);
  });

  it.each([
    ['automatic EOI', 3, [] as number[], 0x34],
    ['special mask', 1, [0x68, 0x02], 0x34],
  ])('%s lets a lower input through', (_name, icw4, ocws, expected) => {
    const { pic, w, pulse } = setup(icw4);
    pulse(1);
    pulse(4);
    pic.acknowledge();
    if (ocws.length > 0) {
      w(0x20, ocws[0]);
      w(0x21, ocws[1]);
    }
    expect(pic.interrupt()).toBe(expected);
  });

  it('rotates', () => {
    const { pic, w, pulse } = setup();
    pulse(1);
    pic.acknowledge();
    w(0x20, 0xa0);
    pulse(1);
    pulse(2 + 3);
    expect(pic.acknowledge()).toBe(0x35);
    w(0x20, 0xc0);
    w(0x20, 0x65);
    expect(pic.acknowledge()).toBe(0x31);
  });

  it('polls', () => {
    const { pic, w, r, pulse } = setup();
    w(0x20, 0x0c);
    expect(r(0x20)).toBe(0x07);
    pulse(3);
    w(0x20, 0x0c);
    expect(r(0x20)).toBe(0x83);
    expect(pic.hasInterrupt()).toBe(false);
  });

  it('saves and loads', () => {
    const { pic, pulse } = setup();
    pulse(9);
    const other = createPic8259();
    other.load(pic.save());
    expect(other.acknowledge()).toBe(0x39);
  });
});
