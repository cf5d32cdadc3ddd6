/**
 * The reset line of the keyboard controller (ports 0x60 and 0x64), and nothing else of it.
 *
 * Command 0xfe on port 0x64 pulses the processor's reset line. There is no keyboard: every read is all ones, which is
 * how software finds the controller absent.
 */
import type { Device } from './device.js';

const PULSE_RESET = 0xfe;

export const createI8042 = (onReset: () => void): Device<null> => ({
  name: 'i8042',
  ports: [
    [0x60, 1],
    [0x64, 1],
  ],
  read: () => 0xff,
  write(port, _size, value) {
    if (port === 0x64 && value === PULSE_RESET) onReset();
  },
  save: () => null,
  load() {},
});
