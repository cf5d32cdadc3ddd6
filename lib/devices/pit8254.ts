/**
 * The 8254 interval timer at ports 0x40-0x43, channel 0 on IRQ 0, as KVM models it (arch/x86/kvm/i8254.c).
 *
 * Counters are functions of time: a load notes the cycle, reads compute. Modes 0-5 of the data sheet with KVM's
 * simplifications: one-shot modes run on after their end, the gate of modes 0 and 4 does not stop the count, a new
 * count takes effect at once, and counting is binary (the BCD bit is stored and ignored). Ticks are not lost ("reinject"): one is
 * held back until the guest has ended the one before, and a backlog is delivered tick by tick.
 */
import type { Clock, Device, IrqLine, Timer } from './device.js';
import { cyclesOf, ticksOf } from './timebase.js';

export const PIT_HZ = 1_193_182;

/** Access modes of the control word, bits 5:4; 0 is the latch command. */
const ACCESS = { latch: 0, low: 1, high: 2, both: 3 } as const;
/** KVM's min_timer_period_us: periodic interrupts come no faster. */
const MIN_PERIOD_US = 200;

export interface PitChannelState {
  mode: number;
  bcd: number;
  access: number;
  /** 1..65536 */
  count: number;
  loadedAt: number;
  gate: boolean;
  /** The next byte of a 16-bit access is the high one. */
  readHigh: boolean;
  writeHigh: boolean;
  writeLatch: number;
  /** Latched count bytes still to be read, low first. */
  latched: number[];
  /** Latched status, or -1. */
  status: number;
}

export interface PitState {
  channels: PitChannelState[];
  /** Running interrupt timer of channel 0. */
  timer: { startedAt: number; ticks: number; fired: number; periodic: boolean } | null;
  /** Ticks that have happened but are not ended by the guest. */
  pending: number;
  acknowledged: boolean;
}

export interface Pit8254 extends Device<PitState> {
  gate(channel: number): boolean;
  setGate(channel: number, level: boolean): void;
  output(channel: number): boolean;
  /** IRQ 0 was ended at an interrupt controller: the next tick of a backlog may go out. */
  ended(): void;
  /** IRQ 0 was unmasked at an interrupt controller: the backlog is dropped. */
  resetReinject(): void;
}

const newChannel = (now: number): PitChannelState => ({
  mode: 0xff,
  bcd: 0,
  access: ACCESS.both,
  count: 0x1_0000,
  loadedAt: now,
  gate: true,
  readHigh: false,
  writeHigh: false,
  writeLatch: 0,
  latched: [],
  status: -1,
});

/** @param reinject false drops the ticks that the guest did not end in time */
export const createPit8254 = (clock: Clock, irq: IrqLine, reinject = true): Pit8254 => {
  let s: PitState = {
    channels: [newChannel(clock.now()), newChannel(clock.now()), newChannel(clock.now())],
    timer: null,
    pending: 0,
    acknowledged: true,
  };
  // The gate of channel 2 is bit 0 of port 0x61, low after reset.
  s.channels[2].gate = false;

  const elapsed = (c: PitChannelState): number => ticksOf(clock.now() - c.loadedAt, PIT_HZ, clock.rate);

  const counter = (c: PitChannelState): number => {
    const d = elapsed(c);
    switch (c.mode) {
      case 0:
      case 1:
      case 4:
      case 5:
        return (((c.count - d) % 0x1_0000) + 0x1_0000) % 0x1_0000;
      case 3:
        return (c.count - ((2 * d) % c.count)) & 0xffff;
      default:
        return (c.count - (d % c.count)) & 0xffff;
    }
  };

  const output = (c: PitChannelState): boolean => {
    const d = elapsed(c);
    switch (c.mode) {
      case 1:
        return d < c.count;
      case 2:
        return d !== 0 && d % c.count === 0;
      case 3:
        return d % c.count < (c.count + 1) >> 1;
      case 4:
      case 5:
        return d === c.count;
      default:
        return d >= c.count;
    }
  };

  const pulse = (): void => {
    if (reinject) {
      if (!s.acknowledged) return;
      s.acknowledged = false;
    }
    irq.set(true);
    irq.set(false);
  };

  const timer: Timer = {
    name: 'pit',
    fire() {
      const t = s.timer;
      if (t === null) return;
      t.fired++;
      if (t.periodic) armTimer();
      else s.timer = null;
      if (reinject) s.pending++;
      pulse();
    },
  };

  const armTimer = (): void => {
    const t = s.timer;
    if (t === null) clock.disarm(timer);
    else clock.arm(timer, t.startedAt + cyclesOf(t.ticks * (t.fired + 1), PIT_HZ, clock.rate));
  };

  /** Starts the interrupt timer of channel 0 for its mode. */
  const startTimer = (c: PitChannelState): void => {
    const periodic = c.mode === 2 || c.mode === 3;
    if (!periodic && c.mode !== 0 && c.mode !== 1 && c.mode !== 4) {
      s.timer = null;
    } else {
      const least = periodic ? Math.ceil((MIN_PERIOD_US * PIT_HZ) / 1_000_000) : 1;
      s.timer = { startedAt: clock.now(), ticks: Math.max(c.count, least), fired: 0, periodic };
      s.pending = 0;
      s.acknowledged = true;
    }
    armTimer();
  };

  const loadCount = (channel: number, value: number): void => {
    const c = s.channels[channel];
    c.count = value === 0 ? 0x1_0000 : value;
    c.loadedAt = clock.now();
    if (channel === 0) startTimer(c);
  };

  const latchCount = (c: PitChannelState): void => {
    if (c.latched.length > 0) return;
    const value = counter(c);
    if (c.access === ACCESS.low) c.latched = [value & 0xff];
    else if (c.access === ACCESS.high) c.latched = [value >> 8];
    else c.latched = [value & 0xff, value >> 8];
  };

  const latchStatus = (c: PitChannelState): void => {
    if (c.status >= 0) return;
    c.status = (output(c) ? 0x80 : 0) | (c.access << 4) | ((c.mode & 7) << 1) | c.bcd;
  };

  const control = (value: number): void => {
    const select = value >> 6;
    if (select === 3) {
      for (let i = 0; i < 3; i++) {
        if ((value & (2 << i)) === 0) continue;
        if ((value & 0x20) === 0) latchCount(s.channels[i]);
        if ((value & 0x10) === 0) latchStatus(s.channels[i]);
      }
      return;
    }
    const c = s.channels[select];
    const access = (value >> 4) & 3;
    if (access === ACCESS.latch) {
      latchCount(c);
      return;
    }
    c.access = access;
    c.readHigh = false;
    c.writeHigh = false;
    c.mode = (value >> 1) & 7;
    // The data sheet ignores bit 2 of modes 2 and 3.
    if (c.mode > 5) c.mode &= 3;
    c.bcd = value & 1;
  };

  return {
    name: 'pit8254',
    ports: [[0x40, 4]],
    read(port) {
      if (port === 0x43) return 0;
      const c = s.channels[port - 0x40];
      if (c.status >= 0) {
        const status = c.status;
        c.status = -1;
        return status;
      }
      const latched = c.latched.shift();
      if (latched !== undefined) return latched;
      const value = counter(c);
      if (c.access === ACCESS.high) return value >> 8;
      if (c.access === ACCESS.low) return value & 0xff;
      c.readHigh = !c.readHigh;
      return c.readHigh ? value & 0xff : value >> 8;
    },
    write(port, _size, value) {
      if (port === 0x43) {
        control(value);
        return;
      }
      const channel = port - 0x40;
      const c = s.channels[channel];
      if (c.access === ACCESS.low) loadCount(channel, value);
      else if (c.access === ACCESS.high) loadCount(channel, value << 8);
      else if (c.writeHigh) {
        c.writeHigh = false;
        loadCount(channel, c.writeLatch | (value << 8));
      } else {
        c.writeLatch = value;
        c.writeHigh = true;
      }
    },
    gate: (channel) => s.channels[channel].gate,
    setGate(channel, level) {
      const c = s.channels[channel];
      if (level && !c.gate && c.mode !== 0 && c.mode !== 4) c.loadedAt = clock.now();
      c.gate = level;
    },
    output: (channel) => output(s.channels[channel]),
    ended() {
      s.acknowledged = true;
      if (s.pending > 0 && --s.pending > 0) pulse();
    },
    resetReinject() {
      s.pending = 0;
      s.acknowledged = true;
    },
    save: () => structuredClone(s),
    load(state) {
      s = structuredClone(state);
      armTimer();
    },
  };
};
