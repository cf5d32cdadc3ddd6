import { describe, expect, it } from 'vitest';
import { UART_PORT as B, createUart16550 } from '../../lib/devices/uart16550.js';

const setup = () => {
  const out: number[] = [];
  const edges: boolean[] = [];
  let line = false;
  const irq = {
    set(level: boolean) {
      if (level !== line) edges.push(level);
      line = level;
    },
  };
  const uart = createUart16550({ irq, sink: (b) => out.push(b) });
  return {
    uart,
    out,
    edges,
    line: () => line,
    w: (r: number, v: number) => uart.write(B + r, 1, v),
    r: (r: number) => uart.read(B + r, 1),
  };
};

describe('16550A', () => {
  it('transmits at once and is always empty', () => {
    const { w, r, out } = setup();
    expect(r(5)).toBe(0x60);
    w(0, 0x41);
    expect(out).toEqual([0x41]);
    expect(r(5)).toBe(0x60);
    expect(r(2)).toBe(0x01);
    w(2, 1);
    expect(r(2)).toBe(0xc1);
  });

  it('keeps the divisor behind DLAB and SCR as storage', () => {
    const { w, r, out } = setup();
    w(3, 0x83);
    w(0, 0x34);
    w(1, 0x12);
    expect([r(0), r(1)]).toEqual([0x34, 0x12]);
    w(3, 3);
    expect([r(1), r(3)]).toEqual([0, 3]);
    w(7, 0x5a);
    expect(r(7)).toBe(0x5a);
    expect(out).toEqual([]);
  });

  it('raises THRE when enabled and gated by OUT2; IIR takes it back; a write makes a new edge', () => {
    const { w, r, edges, line } = setup();
    w(1, 2);
    expect(line()).toBe(false);
    w(4, 8);
    expect(line()).toBe(true);
    expect(r(2)).toBe(0x02);
    expect(line()).toBe(false);
    expect(r(2)).toBe(0x01);
    w(0, 1);
    expect(line()).toBe(true);
    w(0, 2);
    expect(edges).toEqual([true, false, true, false, true]);
    w(1, 0);
    expect(line()).toBe(false);
  });

  it('receives while RTS is asserted: trigger level, time-out, priority over THRE', () => {
    const { uart, w, r, line } = setup();
    w(2, 0x81);
    w(1, 3);
    uart.receive([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(r(5) & 1).toBe(0);
    w(4, 0x0b);
    expect(line()).toBe(true);
    expect(r(2)).toBe(0xc4);
    expect(r(0)).toBe(1);
    expect(r(0)).toBe(2);
    expect(r(2)).toBe(0xcc);
    for (let i = 3; i <= 9; i++) expect(r(0)).toBe(i);
    expect(r(5) & 1).toBe(0);
    expect(r(2)).toBe(0xc2);
    expect(r(2)).toBe(0xc1);
  });

  it('loses nothing beyond the FIFO and across save and load', () => {
    const { uart, w, r } = setup();
    w(2, 1);
    w(4, 2);
    uart.receive(Array.from({ length: 40 }, (_, i) => i));
    const other = setup();
    other.uart.load(uart.save());
    for (let i = 0; i < 40; i++) expect(r(0)).toBe(i);
    for (let i = 0; i < 40; i++) expect(other.r(0)).toBe(i);
  });

  it('loops back as the Linux probe expects', () => {
    const { w, r, out } = setup();
    w(4, 0x1a);
    expect(r(6) & 0xf0).toBe(0x90);
    w(0, 0x77);
    expect(out).toEqual([]);
    expect(r(5) & 1).toBe(1);
    expect(r(0)).toBe(0x77);
    w(4, 0);
    expect(r(6) & 0xf0).toBe(0xb0);
  });
});
