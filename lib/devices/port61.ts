/**
 * System control port B (0x61): gate and output of timer channel 2, and the speaker bit, which makes no sound.
 *
 * Bit 0 is the gate, bit 1 speaker data, bit 4 toggles like the refresh clock (KVM: bit 14 of the nanosecond clock),
 * bit 5 is the output of channel 2. Not modelled: parity and channel-check NMIs.
 */
import type { Clock, Device } from './device.js';
import type { Pit8254 } from './pit8254.js';
import { scaleDown } from './timebase.js';

export interface Port61State {
  speaker: boolean;
}

export const createPort61 = (clock: Clock, pit: Pit8254): Device<Port61State> => {
  let s: Port61State = { speaker: false };
  return {
    name: 'port61',
    ports: [[0x61, 1]],
    read() {
      const refresh = Math.floor(scaleDown(clock.now(), 1_000_000_000, clock.rate) / 16384) % 2;
      return (s.speaker ? 2 : 0) | (pit.gate(2) ? 1 : 0) | (refresh << 4) | (pit.output(2) ? 0x20 : 0);
    },
    write(_port, _size, value) {
      s.speaker = (value & 2) !== 0;
      pit.setGate(2, (value & 1) !== 0);
    },
    save: () => ({ ...s }),
    load(state) {
      s = { ...state };
    },
  };
};
