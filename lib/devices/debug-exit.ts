/**
 * A port that ends the machine, compatible with QEMU's isa-debug-exit: a write of `value` by byte, word or dword is the
 * exit status `(value << 1) | 1`, so that a status of the guest is always odd. Reads give 0.
 */
import type { Device } from './device.js';

/** Ports that the device takes: an access may start at any of them. */
export const DEBUG_EXIT_PORTS = 4;

/** @param onExit called with the status, 32 bits unsigned */
export const createDebugExit = (port: number, onExit: (status: number) => void): Device<null> => ({
  name: 'debug-exit',
  ports: [[port, DEBUG_EXIT_PORTS]],
  wide: true,
  read: () => 0,
  write(_port, size, value) {
    const written = size === 1 ? value & 0xff : size === 2 ? value & 0xffff : value;
    onExit(((written << 1) | 1) >>> 0);
  },
  save: () => null,
  load() {},
});
