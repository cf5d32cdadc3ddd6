import { describe, expect, it } from 'vitest';
import { createBoard } from '../../lib/devices/board.js';
import { IOAPIC_BASE } from '../../lib/devices/ioapic.js';
import { APIC, LAPIC_BASE } from '../../lib/devices/lapic.js';
import { PIT_HZ } from '../../lib/devices/pit8254.js';
import { testClock } from './clock.js';

const setup = (options: { irq0Override?: boolean; advancing?: boolean } = {}) => {
  const clock = testClock(PIT_HZ);
  const log: (string | number)[] = [];
  const board = createBoard({
    clock,
    onConsole: (b) => log.push(String.fromCharCode(b)),
    onReset: () => log.push('reset'),
    onPoweroff: () => log.push('poweroff'),
    onMarker: (v) => log.push(v),
    rtc: { advancing: options.advancing ?? false },
    irq0Override: options.irq0Override ?? false,
  });
  const initPic = () => {
    for (const [port, base] of [
      [0x20, 0x30],
      [0xa0, 0x38],
    ]) {
      board.writePort(port, 1, 0x11);
      board.writePort(port + 1, 1, base);
      board.writePort(port + 1, 1, port === 0x20 ? 4 : 2);
      board.writePort(port + 1, 1, 1);
    }
  };
  const startTimer = () => {
    board.writePort(0x43, 1, 0x34);
    board.writePort(0x40, 1, 0xe8);
    board.writePort(0x40, 1, 3);
  };
  const redirect = (pin: number, low: number) => {
    const ioapic = board.mmio(IOAPIC_BASE)!;
    ioapic.write(IOAPIC_BASE, 4, 0x10 + 2 * pin);
    ioapic.write(IOAPIC_BASE + 0x10, 4, low);
  };
  return { clock, board, log, initPic, startTimer, redirect };
};

describe('ports', () => {
  const { board, log } = setup();
  it.each([
    [0x80, 1, 0xff],
    [0xcfc, 4, 0xffff_ffff],
    [0x64, 1, 0xff],
    [0x60, 1, 0xff],
    [0x70, 1, 0xff],
    [0x2f8, 2, 0xffff],
    [0x600, 4, 0],
    [0x604, 2, 0],
    [0x60f, 1, 0],
    [0x510, 4, 0xffff_ffff],
    [0x3fc, 2, 0x6000],
  ] as const)('0x%s, %i bytes', (port, size, expected) => {
    expect(board.readPort(port, size)).toBe(expected);
  });

  it('reports console, marker, reset and power-off', () => {
    board.writePort(0x3f8, 1, 0x41);
    board.writePort(0x510, 4, 0xdead_beef);
    board.writePort(0x510, 2, 1);
    board.writePort(0x64, 1, 0xfe);
    board.writePort(0x604, 2, 1 << 10);
    board.writePort(0x604, 1, 0xff);
    board.writePort(0x604, 2, 0x3400);
    board.writePort(0xcf8, 4, 0x8000_0000);
    expect(log).toEqual(['A', 0xdead_beef, 'reset', 'poweroff']);
  });

  it('knows what KVM handles itself', () => {
    expect([0x20, 0x21, 0x40, 0x43, 0x61, 0xa1, 0x4d1].every((p) => board.kernelPort(p))).toBe(true);
    expect([0x60, 0x64, 0x70, 0x3f8, 0x80, 0x510, 0x604].some((p) => board.kernelPort(p))).toBe(false);
  });

  it('finds MMIO devices, the local APIC at its base', () => {
    const { board } = setup();
    expect(board.mmio(LAPIC_BASE + 0x20)?.name).toBe('lapic');
    expect(board.mmio(IOAPIC_BASE)?.name).toBe('ioapic');
    expect(board.mmio(0xfed0_0000)).toBeUndefined();
    board.lapic.setApicBase(0xfec8_0900n);
    expect(board.mmio(0xfec8_0000)?.name).toBe('lapic');
    expect(board.mmio(LAPIC_BASE)).toBeUndefined();
  });
});

describe('real-time clock', () => {
  const read = (board: ReturnType<typeof setup>['board']) =>
    [0x32, 9, 8, 7, 6, 4, 2, 0].map((i) => {
      board.writePort(0x70, 1, i);
      return board.readPort(0x71, 1).toString(16);
    });
  it('is frozen by default, in 24-hour BCD, never in update', () => {
    const { board, clock } = setup();
    clock.runTo(PIT_HZ * 100);
    expect(read(board)).toEqual(['20', '26', '11', '22', '1', '12', '0', '0']);
    board.writePort(0x70, 1, 0x0a);
    expect(board.readPort(0x71, 1)).toBe(0x26);
    board.writePort(0x70, 1, 0x0b);
    expect(board.readPort(0x71, 1)).toBe(0x02);
    board.writePort(0x70, 1, 0x0d);
    expect(board.readPort(0x71, 1)).toBe(0x80);
  });
  it('advances with virtual time, and can be set', () => {
    const { board, clock } = setup({ advancing: true });
    clock.runTo(PIT_HZ * 3661);
    expect(read(board).slice(5)).toEqual(['13', '1', '1']);
    for (const [i, v] of [
      [0x0b, 0],
      [4, 0x91],
    ]) {
      board.writePort(0x70, 1, i);
      board.writePort(0x71, 1, v);
    }
    clock.runTo(PIT_HZ * 3662);
    expect(read(board).slice(5)).toEqual(['91', '1', '2']);
    board.writePort(0x70, 1, 0x50);
    board.writePort(0x71, 1, 0x5a);
    expect(board.readPort(0x71, 1)).toBe(0x5a);
  });
});

describe('interrupts', () => {
  it('reach the processor through the PIC in virtual-wire mode', () => {
    const { board, clock, initPic, startTimer } = setup();
    initPic();
    startTimer();
    expect(board.interrupt()).toBe(-1);
    clock.runTo(1000);
    expect([board.interruptSource(), board.interrupt(), board.acknowledge()]).toEqual(['pic', 0x30, 0x30]);
    clock.runTo(3000);
    expect(board.interrupt()).toBe(-1);
    board.writePort(0x20, 1, 0x20);
    expect(board.acknowledge()).toBe(0x30);
  });

  it.each([
    [false, 0],
    [true, 2],
  ])('reach it through the I/O APIC (override %s: pin %i)', (irq0Override, pin) => {
    const { board, clock, startTimer, redirect } = setup({ irq0Override });
    const lapic = board.mmio(LAPIC_BASE)!;
    lapic.write(LAPIC_BASE + APIC.svr, 4, 0x1ff);
    lapic.write(LAPIC_BASE + APIC.lvt0, 4, 0x1_0700);
    redirect(pin, 0x41);
    startTimer();
    clock.runTo(2500);
    expect([board.interruptSource(), board.acknowledge()]).toEqual(['apic', 0x41]);
    expect(board.interrupt()).toBe(-1);
    lapic.write(LAPIC_BASE + APIC.eoi, 4, 0);
    // The second tick was held back until the end of the first.
    expect(board.acknowledge()).toBe(0x41);
  });

  it('prefers the PIC, as KVM does', () => {
    const { board, initPic } = setup();
    initPic();
    board.lapic.write(LAPIC_BASE + APIC.svr, 4, 0x1ff);
    board.lapic.accept(0xf0, false);
    board.irq(4).set(true);
    expect(board.acknowledge()).toBe(0x34);
    expect(board.acknowledge()).toBe(0xf0);
  });

  it('come from the serial port', () => {
    const { board, initPic } = setup();
    initPic();
    board.writePort(0x3fc, 1, 0x0b);
    board.writePort(0x3f9, 1, 1);
    board.uart.receive([0x0d]);
    expect(board.acknowledge()).toBe(0x34);
    expect(board.readPort(0x3fa, 1)).toBe(0x04);
  });

  it('survive save and load of the whole board', () => {
    const { board, clock, initPic, startTimer } = setup();
    initPic();
    startTimer();
    clock.runTo(500);
    const other = setup();
    other.board.load(structuredClone(board.save()));
    other.clock.runTo(1000);
    expect(other.board.acknowledge()).toBe(0x30);
  });
});
