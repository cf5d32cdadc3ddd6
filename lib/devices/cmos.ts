/**
 * MC146818 real-time clock and CMOS memory at ports 0x70 (index) and 0x71 (data).
 *
 * The date is frozen by default, so that a boot reads the same time whenever it happens; it can advance with virtual
 * time. Registers A-D, BCD and binary, 24- and 12-hour forms, the century byte 0x32, and 128 bytes of memory.
 * An update is never in progress. Not modelled: alarm, periodic and update interrupts (the alarm registers are memory),
 * daylight saving.
 */
import type { Clock, Device } from './device.js';
import { ticksOf } from './timebase.js';

/** Register indices. */
const REG = {
  seconds: 0,
  minutes: 2,
  hours: 4,
  weekday: 6,
  day: 7,
  month: 8,
  year: 9,
  a: 0x0a,
  b: 0x0b,
  c: 0x0c,
  d: 0x0d,
  century: 0x32,
} as const;
const B = { set: 0x80, binary: 4, hours24: 2 } as const;
/** 32.768 kHz time base, 1024 Hz periodic rate, no update in progress. */
const A_DEFAULT = 0x26;
const D_VALID = 0x80;
const BYTES = 128;

export interface CmosState {
  index: number;
  /** Seconds since 1970 at cycle `since`, or for ever when frozen. */
  seconds: number;
  since: number;
  memory: number[];
}

export interface RtcOptions {
  /** Date and time at the start, UTC, `YYYY-MM-DDThh:mm:ssZ`; default 2026-11-22T12:00:00Z. */
  readonly start?: string;
  /** Lets the date advance with virtual time; default false. */
  readonly advancing?: boolean;
}

export type Cmos = Device<CmosState>;

const bcd = (n: number): number => (Math.floor(n / 10) << 4) | (n % 10);
const fromBcd = (n: number): number => (n >> 4) * 10 + (n & 15);

/** @param start seconds since 1970 */
export const createCmos = (clock: Clock, start: number, advancing: boolean): Cmos => {
  const memory = new Array<number>(BYTES).fill(0);
  memory[REG.a] = A_DEFAULT;
  memory[REG.b] = B.hours24;
  let s: CmosState = { index: 0, seconds: start, since: clock.now(), memory };

  const seconds = (): number =>
    advancing && (s.memory[REG.b] & B.set) === 0
      ? s.seconds + ticksOf(clock.now() - s.since, 1, clock.rate)
      : s.seconds;

  const hold = (value: number): void => {
    s.seconds = value;
    s.since = clock.now();
  };

  const encode = (n: number): number => ((s.memory[REG.b] & B.binary) !== 0 ? n : bcd(n));
  const decode = (n: number): number => ((s.memory[REG.b] & B.binary) !== 0 ? n : fromBcd(n));

  const encodeHours = (hours: number): number => {
    if ((s.memory[REG.b] & B.hours24) !== 0) return encode(hours);
    return encode(hours % 12 === 0 ? 12 : hours % 12) | (hours >= 12 ? 0x80 : 0);
  };
  const decodeHours = (value: number): number => {
    if ((s.memory[REG.b] & B.hours24) !== 0) return decode(value);
    return (decode(value & 0x7f) % 12) + ((value & 0x80) !== 0 ? 12 : 0);
  };

  /** The value of a date register, or undefined when the index is no date register. */
  const dateRegister = (index: number): number | undefined => {
    const date = new Date(seconds() * 1000);
    switch (index) {
      case REG.seconds:
        return encode(date.getUTCSeconds());
      case REG.minutes:
        return encode(date.getUTCMinutes());
      case REG.hours:
        return encodeHours(date.getUTCHours());
      case REG.weekday:
        return encode(date.getUTCDay() + 1);
      case REG.day:
        return encode(date.getUTCDate());
      case REG.month:
        return encode(date.getUTCMonth() + 1);
      case REG.year:
        return encode(date.getUTCFullYear() % 100);
      case REG.century:
        return encode(Math.floor(date.getUTCFullYear() / 100));
      default:
        return undefined;
    }
  };

  /** Moves the date by one register; days beyond the month roll over. */
  const setDate = (index: number, value: number): void => {
    const date = new Date(seconds() * 1000);
    const year = date.getUTCFullYear();
    if (index === REG.seconds) date.setUTCSeconds(decode(value));
    else if (index === REG.minutes) date.setUTCMinutes(decode(value));
    else if (index === REG.hours) date.setUTCHours(decodeHours(value));
    else if (index === REG.day) date.setUTCDate(decode(value));
    else if (index === REG.month) date.setUTCMonth(decode(value) - 1);
    else if (index === REG.year) date.setUTCFullYear(year - (year % 100) + decode(value));
    else if (index === REG.century) date.setUTCFullYear(decode(value) * 100 + (year % 100));
    hold(date.getTime() / 1000);
  };

  return {
    name: 'cmos',
    ports: [[0x70, 2]],
    read(port) {
      if (port === 0x70) return 0xff;
      const date = dateRegister(s.index);
      if (date !== undefined) return date;
      if (s.index === REG.c) return 0;
      if (s.index === REG.d) return D_VALID;
      return s.memory[s.index];
    },
    write(port, _size, value) {
      // Bit 7 of the index port masks NMIs on a PC; nothing raises them here.
      if (port === 0x70) s.index = value & 0x7f;
      else if (dateRegister(s.index) !== undefined) setDate(s.index, value);
      else if (s.index === REG.a) s.memory[REG.a] = value & 0x7f;
      else if (s.index === REG.b) {
        hold(seconds());
        s.memory[REG.b] = value;
      } else if (s.index !== REG.c && s.index !== REG.d) s.memory[s.index] = value;
    },
    save: () => structuredClone(s),
    load(state) {
      s = structuredClone(state);
    },
  };
};
