/**
 * The debug console of Bochs and QEMU: bytes written to port 0xE9 are text for the host; a read gives 0xE9, by which
 * software finds it.
 */
import type { Device } from './device.js';

export const DEBUGCON_PORT = 0xe9;

export const createDebugcon = (onByte: (byte: number) => void): Device<null> => ({
  name: 'debugcon',
  ports: [[DEBUGCON_PORT, 1]],
  read: () => DEBUGCON_PORT,
  write(_port, _size, value) {
    onByte(value & 0xff);
  },
  save: () => null,
  load() {},
});
