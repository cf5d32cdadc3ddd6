/**
 * The local APIC timer: one-shot, periodic and TSC-deadline modes with exact deadlines (SDM volume 3, "APIC Timer").
 *
 * As in KVM the APIC bus runs at 1 GHz whatever the TSC rate, periodic timers fire no more often than every 200 µs, and
 * changing between TSC-deadline and the other modes disarms the timer. The count is computed from time, never stepped.
 */
import type { Clock, Timer } from './device.js';
import { cyclesOf, scaleUp, ticksOf } from './timebase.js';

/** Bus ticks a second (KVM: APIC_BUS_CYCLE_NS = 1). */
export const APIC_BUS_HZ = 1_000_000_000;
const MIN_PERIOD_TICKS = 200_000;

export const TIMER_MODE = { oneShot: 0, periodic: 1, tscDeadline: 2 } as const;

export interface LapicTimerState {
  mode: number;
  /** Divide configuration register, bits 3, 1, 0. */
  divideConfig: number;
  initialCount: number;
  /** Bus ticks from start to expiry. */
  period: number;
  startedAt: number;
  /** Periods that have passed since the start. */
  passed: number;
  /** Clock cycle of expiry, or -1. */
  deadline: number;
  /** IA32_TSC_DEADLINE, in guest TSC. */
  tscDeadline: bigint;
}

export interface LapicTimer {
  /** The timer as the clock knows it. */
  readonly timer: Timer;
  /** Clock cycle of the next expiry, or undefined. */
  deadline(): number | undefined;
  setMode(mode: number): void;
  initialCount(): number;
  setInitialCount(value: number): void;
  currentCount(): number;
  divideConfig(): number;
  setDivideConfig(value: number): void;
  tscDeadline(): bigint;
  setTscDeadline(value: bigint): void;
  /** Guest TSC minus clock cycles changed. */
  setTscOffset(offset: number): void;
  stop(): void;
  save(): LapicTimerState;
  load(state: LapicTimerState): void;
}

/** @param expire delivers the timer interrupt @param tscOffset guest TSC minus clock cycles */
export const createLapicTimer = (clock: Clock, expire: () => void, tscOffset: number): LapicTimer => {
  let offset = tscOffset;
  let s: LapicTimerState = {
    mode: TIMER_MODE.oneShot,
    divideConfig: 0,
    initialCount: 0,
    period: 0,
    startedAt: 0,
    passed: 0,
    deadline: -1,
    tscDeadline: 0n,
  };

  const timer: Timer = {
    name: 'lapic',
    fire() {
      s.deadline = -1;
      if (s.mode === TIMER_MODE.tscDeadline) s.tscDeadline = 0n;
      else if (s.mode === TIMER_MODE.periodic) {
        s.passed++;
        arm();
      }
      expire();
    },
  };

  const divisor = (): number => {
    const code = (s.divideConfig & 3) | ((s.divideConfig & 8) >> 1);
    return 1 << ((code + 1) & 7);
  };

  const effectivePeriod = (): number =>
    s.mode === TIMER_MODE.periodic ? Math.max(s.period, MIN_PERIOD_TICKS) : s.period;

  const arm = (): void => {
    if (s.period === 0) return;
    s.deadline = s.startedAt + cyclesOf(effectivePeriod() * (s.passed + 1), APIC_BUS_HZ, clock.rate);
    clock.arm(timer, s.deadline);
  };

  const stop = (): void => {
    s.deadline = -1;
    clock.disarm(timer);
  };

  /** Starts a count of `ticks` bus ticks. */
  const start = (ticks: number): void => {
    stop();
    s.period = ticks;
    s.startedAt = clock.now();
    s.passed = 0;
    arm();
  };

  const armTscDeadline = (): void => {
    stop();
    if (s.tscDeadline === 0n) return;
    s.deadline = Math.max(Number(s.tscDeadline) - offset, clock.now());
    clock.arm(timer, s.deadline);
  };

  return {
    timer,
    deadline: () => (s.deadline < 0 ? undefined : s.deadline),
    setMode(mode) {
      if (mode === s.mode) return;
      if ((mode === TIMER_MODE.tscDeadline) !== (s.mode === TIMER_MODE.tscDeadline)) {
        stop();
        s.initialCount = 0;
        s.period = 0;
        s.tscDeadline = 0n;
      }
      s.mode = mode;
    },
    initialCount: () => s.initialCount,
    setInitialCount(value) {
      if (s.mode === TIMER_MODE.tscDeadline) return;
      s.initialCount = value;
      start(value * divisor());
    },
    currentCount() {
      if (s.initialCount === 0 || s.deadline < 0) return 0;
      const left = s.deadline - clock.now();
      // Ceiling, so that the count reaches 0 only at the deadline.
      return left <= 0 ? 0 : Math.ceil(scaleUp(left, APIC_BUS_HZ, clock.rate) / divisor());
    },
    divideConfig: () => s.divideConfig,
    setDivideConfig(value) {
      const left = s.deadline < 0 || s.mode === TIMER_MODE.tscDeadline ? 0 : s.deadline - clock.now();
      const before = divisor();
      s.divideConfig = value & 0xb;
      const after = divisor();
      if (after === before || left <= 0) return;
      // What is left of the count goes on at the new speed; later periods are whole ones.
      s.period = s.initialCount * after;
      const ticks = Math.floor((ticksOf(left, APIC_BUS_HZ, clock.rate) * after) / before);
      s.startedAt =
        clock.now() +
        cyclesOf(ticks, APIC_BUS_HZ, clock.rate) -
        cyclesOf(effectivePeriod(), APIC_BUS_HZ, clock.rate);
      s.passed = 0;
      arm();
    },
    tscDeadline: () => s.tscDeadline,
    setTscDeadline(value) {
      if (s.mode !== TIMER_MODE.tscDeadline) return;
      s.tscDeadline = value;
      armTscDeadline();
    },
    setTscOffset(value) {
      offset = value;
      if (s.mode === TIMER_MODE.tscDeadline && s.deadline >= 0) armTscDeadline();
    },
    stop,
    save: () => structuredClone(s),
    load(state) {
      s = structuredClone(state);
      if (s.deadline < 0) clock.disarm(timer);
      else clock.arm(timer, s.deadline);
    },
  };
};
