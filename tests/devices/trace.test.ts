import { expect, test } from 'vitest';
import { createBoard } from '../../lib/devices/board.js';
import { createEventQueue } from '../../lib/devices/event-queue.js';
import { type BoardTrace, UNTRACED } from '../../lib/devices/trace.js';

test('an interrupt from its line to its end', () => {
  const got: string[] = [];
  const trace = Object.fromEntries(
    Object.keys(UNTRACED).map((name) => [
      name,
      (f: object) => got.push(`${name} ${Object.values(f).map(String).join(' ')}`),
    ]),
  ) as unknown as BoardTrace;
  const board = createBoard({
    clock: createEventQueue(() => 0, 1000),
    onConsole: () => {},
    onReset: () => {},
    onPoweroff: () => {},
    trace,
  });
  // SVR: enabled; pin 5: vector 0x51, edge, to APIC 0; both 8259s masked
  board.lapic.write(0xfee0_00f0, 4, 0x1ff);
  board.ioapic.write(0xfec0_0000, 4, 0x10 + 2 * 5);
  board.ioapic.write(0xfec0_0010, 4, 0x51);
  board.writePort(0x21, 1, 0xff);
  board.irq(5).set(true);
  board.irq(5).set(true);
  expect(board.acknowledge()).toBe(0x51);
  board.lapic.write(0xfee0_00b0, 4, 0);
  board.irq(5).set(false);
  expect(got).toEqual([
    'kvm_apic 1 240 511',
    'kvm_set_irq 5 1 0',
    'kvm_pic_set_irq 0 5 0 255 false',
    'kvm_apic_accept_irq 0 0 false 81',
    `kvm_ioapic_set_irq ${0x51n} 5 false`,
    'kvm_apic 1 176 0',
    'kvm_eoi 0 81',
    'kvm_ack_irq 2 5',
    'kvm_set_irq 5 0 0',
    'kvm_pic_set_irq 0 5 0 255 false',
    `kvm_ioapic_set_irq ${0x51n} 5 false`,
  ]);
});
