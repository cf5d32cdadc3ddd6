/**
 * The I/O APIC (82093AA) at 0xfec00000: 24 inputs, one redirection entry each, reached through an index and a data
 * register.
 *
 * Behaves as KVM's: a level input is served again after EOI while it is held, Remote IRR clears when an entry becomes
 * edge-triggered, an edge that comes while its entry is masked is lost. Fixed, lowest-priority, NMI and INIT delivery
 * go to the one local APIC; ExtINT and SMI are ignored. Not modelled: interrupt remapping, the EOI register.
 */
import type { Device } from './device.js';
import { type BoardTrace, UNTRACED } from './trace.js';

export const IOAPIC_BASE = 0xfec0_0000;
export const IOAPIC_PINS = 24;
const WINDOW_BYTES = 0x100;
const REG_SELECT = 0x00;
const REG_WINDOW = 0x10;
/** Indirect registers; redirection entries are two words each from 0x10. */
const INDEX = { id: 0, version: 1, arbitration: 2, redirection: 0x10 } as const;
const VERSION = 0x11 | ((IOAPIC_PINS - 1) << 16);
/** Low word of a redirection entry. */
const RTE = {
  vector: 0xff,
  modeShift: 8,
  logical: 1 << 11,
  status: 1 << 12,
  remoteIrr: 1 << 14,
  level: 1 << 15,
  mask: 1 << 16,
  writable: 0x1_afff,
} as const;

export interface IoApicState {
  select: number;
  id: number;
  /** Redirection entries: low words and high words. */
  low: number[];
  high: number[];
  /** Requests by input: levels of level inputs, latched edges of edge inputs until the line falls. */
  irr: number;
}

/** An interrupt message on its way to local APICs. */
export interface ApicMessage {
  readonly vector: number;
  /** 0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 7 ExtINT. */
  readonly mode: number;
  readonly level: boolean;
  readonly logical: boolean;
  readonly destination: number;
}

export interface IoApic extends Device<IoApicState> {
  setPin(pin: number, level: boolean): void;
  /** The local APIC ended `vector`; `level` is its TMR bit. */
  eoi(vector: number, level: boolean): void;
  /** True when an end of `vector` matters to an input (level, or watched by `onEnd`), so it must not be skipped. */
  handlesVector(vector: number): boolean;
  /** The redirection entry of a pin, for reports. */
  entry(pin: number): { readonly low: number; readonly high: number };
}

export interface IoApicOptions {
  /** Sends a message; false when no local APIC accepted it. */
  readonly deliver: (message: ApicMessage) => boolean;
  readonly onEnd?: (pin: number) => void;
  readonly onMask?: (pin: number, masked: boolean) => void;
  /** Inputs whose end must always be heard of. */
  readonly watched?: readonly number[];
  readonly trace?: BoardTrace;
}

export const createIoApic = (options: IoApicOptions): IoApic => {
  const watched = new Set(options.watched ?? []);
  const trace = options.trace ?? UNTRACED;
  /** The level of an input changed. */
  const traceSet = (pin: number): void =>
    trace.kvm_ioapic_set_irq?.({
      e: (BigInt(s.high[pin] >>> 0) << 32n) | BigInt(s.low[pin] >>> 0),
      pin,
      coalesced: false,
    });
  let s: IoApicState = {
    select: 0,
    id: 0,
    low: new Array<number>(IOAPIC_PINS).fill(RTE.mask),
    high: new Array<number>(IOAPIC_PINS).fill(0),
    irr: 0,
  };

  const service = (pin: number): void => {
    const low = s.low[pin];
    const level = (low & RTE.level) !== 0;
    if ((low & RTE.mask) !== 0 || (level && (low & RTE.remoteIrr) !== 0)) return;
    const accepted = options.deliver({
      vector: low & RTE.vector,
      mode: (low >>> RTE.modeShift) & 7,
      level,
      logical: (low & RTE.logical) !== 0,
      destination: s.high[pin] >>> 24,
    });
    if (accepted && level) s.low[pin] |= RTE.remoteIrr;
  };

  const writeEntry = (pin: number, high: boolean, value: number): void => {
    if (high) {
      s.high[pin] = (value & 0xff00_0000) >>> 0;
      return;
    }
    const before = s.low[pin];
    let after = (value & RTE.writable) | (before & (RTE.remoteIrr | RTE.status));
    if ((after & RTE.level) === 0) after &= ~RTE.remoteIrr;
    s.low[pin] = after;
    if (((before ^ after) & RTE.mask) !== 0) options.onMask?.(pin, (after & RTE.mask) !== 0);
    if ((after & RTE.level) !== 0 && (s.irr & (1 << pin)) !== 0) service(pin);
  };

  const readIndirect = (index: number): number => {
    if (index === INDEX.id || index === INDEX.arbitration) return (s.id << 24) >>> 0;
    if (index === INDEX.version) return VERSION;
    const pin = (index - INDEX.redirection) >> 1;
    if (pin < 0 || pin >= IOAPIC_PINS) return 0xffff_ffff;
    return ((index & 1) !== 0 ? s.high[pin] : s.low[pin]) >>> 0;
  };

  return {
    name: 'ioapic',
    mmio: [[IOAPIC_BASE, WINDOW_BYTES]],
    wide: true,
    read(address) {
      const offset = (address - IOAPIC_BASE) & 0xf0;
      if (offset === REG_SELECT) return s.select;
      return offset === REG_WINDOW ? readIndirect(s.select) : 0;
    },
    write(address, _size, value) {
      const offset = (address - IOAPIC_BASE) & 0xf0;
      if (offset === REG_SELECT) s.select = value & 0xff;
      else if (offset === REG_WINDOW) {
        const pin = (s.select - INDEX.redirection) >> 1;
        if (s.select === INDEX.id) s.id = (value >>> 24) & 0xf;
        else if (pin >= 0 && pin < IOAPIC_PINS) writeEntry(pin, (s.select & 1) !== 0, value);
      }
    },
    setPin(pin, level) {
      const bit = 1 << pin;
      if (!level) {
        const fell = (s.irr & bit) !== 0;
        s.irr &= ~bit;
        if (fell) traceSet(pin);
        return;
      }
      const risen = (s.irr & bit) === 0;
      s.irr |= bit;
      if (risen || (s.low[pin] & RTE.level) !== 0) service(pin);
      if (risen) traceSet(pin);
    },
    eoi(vector, level) {
      for (let pin = 0; pin < IOAPIC_PINS; pin++) {
        if ((s.low[pin] & RTE.vector) !== vector) continue;
        options.onEnd?.(pin);
        if (!level || (s.low[pin] & RTE.level) === 0) continue;
        s.low[pin] &= ~RTE.remoteIrr;
        if ((s.irr & (1 << pin)) !== 0) service(pin);
      }
    },
    handlesVector(vector) {
      return s.low.some(
        (low, pin) => (low & RTE.vector) === vector && ((low & RTE.level) !== 0 || watched.has(pin)),
      );
    },
    entry: (pin) => ({ low: s.low[pin] >>> 0, high: s.high[pin] }),
    save: () => structuredClone(s),
    load(state) {
      s = structuredClone(state);
    },
  };
};
