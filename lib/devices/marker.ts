/**
 * A port for measurements: a 32-bit write to 0x510 tells the host which part of a workload begins or ends.
 *
 * The micro tests bracket themselves with it (100 × test + 2 × round, + 1 after). Reads are all ones, as of no device.
 */
import type { Device } from './device.js';

export const MARKER_PORT = 0x510;

export const createMarker = (onMarker: (value: number) => void): Device<null> => ({
  name: 'marker',
  ports: [[MARKER_PORT, 4]],
  wide: true,
  read: (_port, size) => (size === 4 ? 0xffff_ffff : (1 << (8 * size)) - 1),
  write(port, size, value) {
    if (port === MARKER_PORT && size === 4) onMarker(value >>> 0);
  },
  save: () => null,
  load() {},
});
