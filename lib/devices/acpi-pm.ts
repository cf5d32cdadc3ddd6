/**
 * ACPI power-management registers at ports 0x600-0x60f: PM1a event block 0x600 (4 bytes), PM1a control 0x604 (2 bytes).
 *
 * Everything reads 0: no event is ever pending and SCI (IRQ 9) never raised. A 16-bit write to PM1a control with SLP_EN
 * set powers the machine off, whatever the sleep type (the tables offer S5 at most).
 */
import type { Device } from './device.js';

export const PM1A_EVENT_PORT = 0x600;
export const PM1A_CONTROL_PORT = 0x604;
const SLP_EN = 1 << 13;

export const createAcpiPm = (onPoweroff: () => void): Device<null> => ({
  name: 'acpi-pm',
  ports: [[PM1A_EVENT_PORT, 16]],
  wide: true,
  read: () => 0,
  write(port, size, value) {
    if (port === PM1A_CONTROL_PORT && size === 2 && (value & SLP_EN) !== 0) onPoweroff();
  },
  save: () => null,
  load() {},
});
