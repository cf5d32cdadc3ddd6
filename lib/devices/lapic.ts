/**
 * The local APIC of the one virtual processor: xAPIC registers at 0xfee00000 and the x2APIC MSRs 0x800-0x83f
 * (SDM volume 3, "Advanced Programmable Interrupt Controller").
 *
 * Acceptance, priorities, EOI and mode changes follow KVM (arch/x86/kvm/lapic.c): LVT0 is ExtINT and unmasked after
 * reset (virtual wire), reading an all-zero ESR never finds an error, a disabled APIC lets ExtINT through, xAPIC
 * registers read all ones in x2APIC mode. INIT and NMI are handed to callbacks; SMI, start-up and remote-read messages
 * are ignored. Not modelled: a second processor, APICv, performance and thermal interrupts (their LVTs are storage).
 */
import type { Clock, Device } from './device.js';
import type { ApicMessage } from './ioapic.js';
import { createLapicTimer, type LapicTimer, type LapicTimerState } from './lapic-timer.js';
import { type BoardTrace, UNTRACED } from './trace.js';

export const LAPIC_BASE = 0xfee0_0000;

/** Register offsets; x2APIC MSR = 0x800 + offset / 16. */
export const APIC = {
  id: 0x020,
  version: 0x030,
  tpr: 0x080,
  apr: 0x090,
  ppr: 0x0a0,
  eoi: 0x0b0,
  ldr: 0x0d0,
  dfr: 0x0e0,
  svr: 0x0f0,
  isr: 0x100,
  tmr: 0x180,
  irr: 0x200,
  esr: 0x280,
  icrLow: 0x300,
  icrHigh: 0x310,
  lvtTimer: 0x320,
  lvtThermal: 0x330,
  lvtPerformance: 0x340,
  lvt0: 0x350,
  lvt1: 0x360,
  lvtError: 0x370,
  timerInitial: 0x380,
  timerCurrent: 0x390,
  timerDivide: 0x3e0,
  selfIpi: 0x3f0,
} as const;
const X2APIC_MSR = 0x800;

/** IA32_APIC_BASE. */
export const APIC_BASE_BIT = { bsp: 0x100, x2apic: 0x400, enable: 0x800 } as const;
const APIC_BASE_RESERVED = 0x2ff;

/** Version 0x14, six LVT entries. */
const VERSION = 0x0005_0014;
const SVR_ENABLE = 0x100;
const SVR_WRITABLE = 0x3ff;
const LVT_MASKED = 0x1_0000;
/** Writable bits of the LVT entries, timer first. */
const LVT_WRITABLE = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff] as const;
const LVT = { timer: 0, thermal: 1, performance: 2, lint0: 3, lint1: 4, error: 5 } as const;
const MODE = { fixed: 0, lowest: 1, smi: 2, nmi: 4, init: 5, startup: 6, extInt: 7 } as const;
const ICR = { logical: 1 << 11, busy: 1 << 12, assert: 1 << 14, level: 1 << 15 } as const;
const SHORTHAND = { none: 0, self: 1, all: 2, others: 3 } as const;
const DFR_FLAT = 0xf;

export interface LapicState {
  base: number;
  id: number;
  tpr: number;
  ldr: number;
  dfr: number;
  svr: number;
  icrLow: number;
  icrHigh: number;
  lvt: number[];
  isr: number[];
  tmr: number[];
  irr: number[];
  timer: LapicTimerState;
}

export interface Lapic extends Device<LapicState> {
  /** What IA32_APIC_BASE reads. */
  apicBase(): number;
  /** Writes IA32_APIC_BASE; false means #GP(0): reserved bits or a forbidden change of mode. */
  setApicBase(value: bigint): boolean;
  mode(): 'disabled' | 'xapic' | 'x2apic';
  /** RDMSR of 0x800-0x8ff; undefined means #GP(0). */
  readMsr(msr: number): bigint | undefined;
  /** WRMSR of 0x800-0x8ff; false means #GP(0). */
  writeMsr(msr: number, value: bigint): boolean;
  /** IA32_TSC_DEADLINE. Writes are ignored outside TSC-deadline mode. */
  tscDeadline(): bigint;
  setTscDeadline(value: bigint): void;
  /** Guest TSC minus clock cycles, for TSC deadlines. */
  setTscOffset(offset: number): void;
  /** Clock cycle at which the timer expires, or undefined. */
  timerDeadline(): number | undefined;
  readonly timer: LapicTimer;
  /** CR8, the upper half of TPR. */
  cr8(): number;
  setCr8(value: number): void;
  /** The vector to be delivered now (above PPR), or -1. */
  hasInterrupt(): number;
  /** Puts `vector` from IRR into service. */
  acknowledge(vector: number): void;
  /** Highest vector requested or in service, or -1, whatever the priorities say. */
  highestIrr(): number;
  highestIsr(): number;
  eoi(): void;
  /** True when the PIC's INT output reaches the processor (APIC off, or LVT0 unmasked ExtINT). */
  acceptsExtInt(): boolean;
  /** Sets a vector in IRR; false when the APIC is off. */
  accept(vector: number, level: boolean): boolean;
  /** A message from the I/O APIC or an MSI; true when it was for this APIC and accepted. */
  receive(message: ApicMessage): boolean;
  /** An edge on the LINT1 pin. */
  lint1(): void;
  reset(): void;
}

export interface LapicOptions {
  readonly clock: Clock;
  readonly id?: number;
  readonly tscOffset?: number;
  /** Width of guest-physical addresses, for the reserved bits of IA32_APIC_BASE; default 40. */
  readonly physicalBits?: number;
  /** An interrupt left service; `level` is its TMR bit. */
  readonly onEoi?: (vector: number, level: boolean) => void;
  readonly onNmi?: () => void;
  readonly onInit?: () => void;
  readonly trace?: BoardTrace;
}

const highest = (words: readonly number[]): number => {
  for (let i = 7; i >= 0; i--) if (words[i] !== 0) return 32 * i + 31 - Math.clz32(words[i]);
  return -1;
};
const setBit = (words: number[], vector: number): void => {
  words[vector >> 5] |= 1 << (vector & 31);
};
const clearBit = (words: number[], vector: number): void => {
  words[vector >> 5] &= ~(1 << (vector & 31));
};
const testBit = (words: readonly number[], vector: number): boolean =>
  (words[vector >> 5] & (1 << (vector & 31))) !== 0;

export const createLapic = (options: LapicOptions): Lapic => {
  const apicId = options.id ?? 0;
  const trace = options.trace ?? UNTRACED;
  const physicalBits = BigInt(options.physicalBits ?? 40);
  const zeros = (): number[] => new Array<number>(8).fill(0);
  const timer = createLapicTimer(options.clock, () => deliverLocal(LVT.timer), options.tscOffset ?? 0);
  const fresh = (): Omit<LapicState, 'timer'> => ({
    base: LAPIC_BASE + APIC_BASE_BIT.enable + (apicId === 0 ? APIC_BASE_BIT.bsp : 0),
    id: apicId,
    tpr: 0,
    ldr: 0,
    dfr: 0xffff_ffff,
    svr: 0xff,
    icrLow: 0,
    icrHigh: 0,
    lvt: [LVT_MASKED, LVT_MASKED, LVT_MASKED, MODE.extInt << 8, LVT_MASKED, LVT_MASKED],
    isr: zeros(),
    tmr: zeros(),
    irr: zeros(),
  });
  let s = fresh();

  const enabled = (): boolean => (s.base & APIC_BASE_BIT.enable) !== 0;
  const x2apic = (): boolean => (s.base & APIC_BASE_BIT.x2apic) !== 0;
  const softwareEnabled = (): boolean => (s.svr & SVR_ENABLE) !== 0;
  const logicalX2apicId = (): number => ((apicId >> 4) << 16) | (1 << (apicId & 15));

  const ppr = (): number => {
    const serving = Math.max(0, highest(s.isr));
    return (s.tpr & 0xf0) >= (serving & 0xf0) ? s.tpr : serving & 0xf0;
  };

  const accept = (vector: number, level: boolean): boolean => {
    if (!enabled() || !softwareEnabled()) return false;
    if (level) setBit(s.tmr, vector);
    else clearBit(s.tmr, vector);
    setBit(s.irr, vector);
    return true;
  };

  const deliver = (mode: number, vector: number, level: boolean): boolean => {
    trace.kvm_apic_accept_irq?.({ apicid: apicId, dm: mode, tm: level, vec: vector });
    switch (mode) {
      case MODE.fixed:
      case MODE.lowest:
        return accept(vector, level);
      case MODE.nmi:
        options.onNmi?.();
        return true;
      case MODE.init:
        options.onInit?.();
        return true;
      default:
        return false;
    }
  };

  const deliverLocal = (entry: number): void => {
    const lvt = s.lvt[entry];
    if (!enabled() || (lvt & LVT_MASKED) !== 0) return;
    // The timer and error entries have no delivery-mode field.
    deliver((lvt >> 8) & 7, lvt & 0xff, false);
  };

  /** "Logical Destination Mode" and "Physical Destination Mode"; 8-bit broadcasts reach an x2APIC too. */
  const addressed = (destination: number, logical: boolean): boolean => {
    const broadcast = x2apic() ? destination === 0xffff_ffff || destination === 0xff : destination === 0xff;
    if (broadcast) return true;
    if (!logical) return destination === (x2apic() ? apicId : s.id);
    if (x2apic()) {
      const ldr = logicalX2apicId();
      return destination >>> 16 === ldr >>> 16 && (destination & ldr & 0xffff) !== 0;
    }
    const ldr = s.ldr >>> 24;
    if (s.dfr >>> 28 === DFR_FLAT) return (destination & ldr) !== 0;
    return destination >> 4 === ldr >> 4 && (destination & ldr & 15) !== 0;
  };

  const sendIpi = (low: number, destination: number): void => {
    const shorthand = (low >> 18) & 3;
    const toSelf =
      shorthand === SHORTHAND.none
        ? addressed(destination, (low & ICR.logical) !== 0)
        : shorthand !== SHORTHAND.others;
    const mode = (low >> 8) & 7;
    const deassert = mode === MODE.init && (low & ICR.level) !== 0 && (low & ICR.assert) === 0;
    if (toSelf && !deassert) deliver(mode, low & 0xff, false);
  };

  const eoi = (): void => {
    const vector = highest(s.isr);
    trace.kvm_eoi?.({ apicid: apicId, vector });
    if (vector < 0) return;
    clearBit(s.isr, vector);
    options.onEoi?.(vector, testBit(s.tmr, vector));
  };

  const writeSvr = (value: number): void => {
    s.svr = value & SVR_WRITABLE;
    if (!softwareEnabled()) s.lvt = s.lvt.map((entry) => entry | LVT_MASKED);
  };

  const writeLvt = (entry: number, value: number): void => {
    s.lvt[entry] = (value & LVT_WRITABLE[entry]) | (softwareEnabled() ? 0 : LVT_MASKED);
    if (entry === LVT.timer) timer.setMode((s.lvt[entry] >> 17) & 3);
  };

  /** Undefined for a register that does not exist. */
  const readRegister = (offset: number): number | undefined => {
    if (offset >= APIC.isr && offset < APIC.esr) {
      const words = offset < APIC.tmr ? s.isr : offset < APIC.irr ? s.tmr : s.irr;
      return words[(offset >> 4) & 7] >>> 0;
    }
    if (offset >= APIC.lvtTimer && offset <= APIC.lvtError) return s.lvt[(offset - APIC.lvtTimer) >> 4];
    switch (offset) {
      case APIC.id:
        return x2apic() ? apicId : (s.id << 24) >>> 0;
      case APIC.version:
        return VERSION;
      case APIC.tpr:
        return s.tpr;
      case APIC.ppr:
        return ppr();
      case APIC.ldr:
        return x2apic() ? logicalX2apicId() : s.ldr;
      case APIC.dfr:
        return x2apic() ? undefined : s.dfr;
      case APIC.svr:
        return s.svr;
      case APIC.esr:
        return 0;
      case APIC.icrLow:
        return s.icrLow;
      case APIC.icrHigh:
        return x2apic() ? undefined : s.icrHigh;
      case APIC.timerInitial:
        return timer.initialCount();
      case APIC.timerCurrent:
        return timer.currentCount();
      case APIC.timerDivide:
        return timer.divideConfig();
      case APIC.apr:
      case APIC.eoi:
        return x2apic() ? undefined : 0;
      default:
        return undefined;
    }
  };

  /** False when the register does not exist or cannot be written in this mode. */
  const writeRegister = (offset: number, value: number): boolean => {
    trace.kvm_apic?.({ rw: 1, reg: offset, val: value >>> 0 });
    if (offset >= APIC.lvtTimer && offset <= APIC.lvtError) {
      writeLvt((offset - APIC.lvtTimer) >> 4, value);
      return true;
    }
    switch (offset) {
      case APIC.tpr:
        s.tpr = value & 0xff;
        return true;
      case APIC.eoi:
        eoi();
        return true;
      case APIC.svr:
        writeSvr(value);
        return true;
      case APIC.esr:
        return !x2apic() || value === 0;
      case APIC.icrLow:
        s.icrLow = value & ~ICR.busy;
        sendIpi(s.icrLow, s.icrHigh >>> 24);
        return true;
      case APIC.timerInitial:
        timer.setInitialCount(value);
        return true;
      case APIC.timerDivide:
        timer.setDivideConfig(value);
        return true;
      case APIC.selfIpi:
        if (x2apic()) deliver(MODE.fixed, value & 0xff, false);
        return x2apic();
      default:
        break;
    }
    if (x2apic()) return false;
    if (offset === APIC.id) s.id = value >>> 24;
    else if (offset === APIC.ldr) s.ldr = (value & 0xff00_0000) >>> 0;
    else if (offset === APIC.dfr) s.dfr = (value | 0x0fff_ffff) >>> 0;
    else if (offset === APIC.icrHigh) s.icrHigh = (value & 0xff00_0000) >>> 0;
    else return false;
    return true;
  };

  const tracedRead = (offset: number): number | undefined => {
    const value = readRegister(offset);
    if (value !== undefined) trace.kvm_apic?.({ rw: 0, reg: offset, val: value >>> 0 });
    return value;
  };

  const lapic: Lapic = {
    name: 'lapic',
    mmio: [[LAPIC_BASE, 4096]],
    wide: true,
    timer,
    read(address, size) {
      const ones = size === 1 ? 0xff : size === 2 ? 0xffff : 0xffff_ffff;
      if (!enabled() || x2apic()) return ones;
      const offset = address & 0xfff;
      const value = tracedRead(offset & 0xff0) ?? 0;
      return offset % 16 < 4 ? ((value >>> (8 * (offset & 3))) & ones) >>> 0 : 0;
    },
    write(address, size, value) {
      // Registers are written as aligned words; anything else is ignored.
      if (!enabled() || x2apic() || size !== 4 || (address & 15) !== 0) return;
      writeRegister(address & 0xff0, value >>> 0);
    },
    apicBase: () => s.base,
    setApicBase(value) {
      const low = Number(BigInt.asUintN(32, value));
      const next = low & (APIC_BASE_BIT.x2apic | APIC_BASE_BIT.enable);
      if (value >> physicalBits !== 0n || (low & APIC_BASE_RESERVED) !== 0 || next === APIC_BASE_BIT.x2apic)
        return false;
      const leavesX2apic = x2apic() && next === APIC_BASE_BIT.enable;
      const skipsXapic = !enabled() && (next & APIC_BASE_BIT.x2apic) !== 0;
      if (leavesX2apic || skipsXapic) return false;
      if (!enabled() && (next & APIC_BASE_BIT.enable) !== 0) s.id = apicId;
      s.base = Number(value);
      return true;
    },
    mode: () => (!enabled() ? 'disabled' : x2apic() ? 'x2apic' : 'xapic'),
    readMsr(msr) {
      if (!enabled() || !x2apic()) return undefined;
      const offset = (msr - X2APIC_MSR) << 4;
      if (offset === APIC.icrLow) return (BigInt(s.icrHigh >>> 0) << 32n) | BigInt(s.icrLow >>> 0);
      const value = tracedRead(offset);
      return value === undefined ? undefined : BigInt(value >>> 0);
    },
    writeMsr(msr, value) {
      if (!enabled() || !x2apic()) return false;
      const offset = (msr - X2APIC_MSR) << 4;
      const low = Number(BigInt.asUintN(32, value));
      if (offset === APIC.icrLow) {
        trace.kvm_apic?.({ rw: 1, reg: offset, val: low });
        s.icrHigh = Number(BigInt.asUintN(64, value) >> 32n);
        s.icrLow = low & ~ICR.busy;
        sendIpi(s.icrLow, s.icrHigh);
        return true;
      }
      return value >> 32n === 0n && writeRegister(offset, low);
    },
    tscDeadline: () => timer.tscDeadline(),
    setTscDeadline(value) {
      if (enabled()) timer.setTscDeadline(value);
    },
    setTscOffset: (offset) => timer.setTscOffset(offset),
    timerDeadline: () => timer.deadline(),
    cr8: () => s.tpr >> 4,
    setCr8(value) {
      s.tpr = (value & 15) << 4;
    },
    hasInterrupt() {
      if (!enabled()) return -1;
      const vector = highest(s.irr);
      return vector >= 0 && (vector & 0xf0) > (ppr() & 0xf0) ? vector : -1;
    },
    acknowledge(vector) {
      clearBit(s.irr, vector);
      setBit(s.isr, vector);
    },
    highestIrr: () => highest(s.irr),
    highestIsr: () => highest(s.isr),
    eoi,
    acceptsExtInt: () => !enabled() || (s.lvt[LVT.lint0] & 0x1_0700) === MODE.extInt << 8,
    accept: (vector, level) => deliver(MODE.fixed, vector, level),
    receive: (m) => addressed(m.destination, m.logical) && deliver(m.mode, m.vector, m.level),
    lint1: () => deliverLocal(LVT.lint1),
    reset() {
      s = fresh();
      timer.stop();
      timer.setMode(0);
    },
    save: () => structuredClone({ ...s, timer: timer.save() }),
    load(state) {
      const { timer: saved, ...rest } = structuredClone(state);
      s = rest;
      timer.load(saved);
    },
  };
  return lapic;
};
