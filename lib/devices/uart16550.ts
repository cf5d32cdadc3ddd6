/**
 * COM1: a 16550A UART at ports 0x3f8-0x3ff, interrupt line 4 (National Semiconductor PC16550D data sheet).
 *
 * The line is infinitely fast: a byte written to THR is out at once, so THRE and TEMT are always set and the THRE
 * interrupt comes back with every write. The host sends only while the guest asserts RTS, so nothing is lost before the
 * port is opened or when the FIFO is full. The character time-out is due as soon as the FIFO holds less than its trigger
 * level. OUT2 gates the interrupt line, as on a PC. Not modelled: baud timing, errors, break, DMA modes.
 */
import type { Device, IrqLine } from './device.js';

export const UART_PORT = 0x3f8;

/** Register offsets from the base port. */
const REG = { data: 0, ier: 1, iirFcr: 2, lcr: 3, mcr: 4, lsr: 5, msr: 6, scr: 7 } as const;
const IER = { rx: 1, thre: 2, lineStatus: 4, modemStatus: 8 } as const;
/** Interrupt identification, highest priority first. */
const IIR = { none: 0x01, rx: 0x04, timeout: 0x0c, thre: 0x02, modemStatus: 0x00, fifo: 0xc0 } as const;
const FCR = { enable: 1, clearRx: 2 } as const;
const LCR_DLAB = 0x80;
const MCR = { dtr: 1, rts: 2, out1: 4, out2: 8, loop: 0x10 } as const;
const LSR = { dataReady: 1, thre: 0x20, temt: 0x40 } as const;
const MSR = { dcts: 1, ddsr: 2, teri: 4, ddcd: 8, cts: 0x10, dsr: 0x20, ri: 0x40, dcd: 0x80 } as const;
const FIFO_BYTES = 16;
const TRIGGER = [1, 4, 8, 14] as const;

export interface UartState {
  ier: number;
  fcr: number;
  lcr: number;
  mcr: number;
  /** Delta bits of MSR; the level bits follow from MCR. */
  msrDelta: number;
  scr: number;
  divisor: number;
  threPending: boolean;
  /** Receiver FIFO (one byte when the FIFOs are off), oldest first. */
  received: number[];
  /** Bytes that the host has not sent yet. */
  waiting: number[];
}

export interface Uart16550 extends Device<UartState> {
  /** Bytes from the host (standard input), for the guest to read. */
  receive(bytes: Iterable<number>): void;
}

export interface UartOptions {
  readonly irq: IrqLine;
  /** Called with each byte that the guest transmits. */
  readonly sink: (byte: number) => void;
  readonly base?: number;
}

export const createUart16550 = (options: UartOptions): Uart16550 => {
  const { irq, sink } = options;
  const base = options.base ?? UART_PORT;
  let s: UartState = {
    ier: 0,
    fcr: 0,
    lcr: 0,
    mcr: 0,
    msrDelta: 0,
    scr: 0,
    divisor: 12,
    threPending: false,
    received: [],
    waiting: [],
  };

  /** CTS, DSR and DCD of a connected line, or the looped-back modem outputs. */
  const msrLevels = (): number => {
    if ((s.mcr & MCR.loop) === 0) return MSR.cts | MSR.dsr | MSR.dcd;
    return (
      ((s.mcr & MCR.rts) !== 0 ? MSR.cts : 0) |
      ((s.mcr & MCR.dtr) !== 0 ? MSR.dsr : 0) |
      ((s.mcr & MCR.out1) !== 0 ? MSR.ri : 0) |
      ((s.mcr & MCR.out2) !== 0 ? MSR.dcd : 0)
    );
  };

  const identification = (): number => {
    if ((s.ier & IER.rx) !== 0 && s.received.length > 0) {
      const trigger = (s.fcr & FCR.enable) !== 0 ? TRIGGER[(s.fcr >> 6) & 3] : 1;
      return s.received.length >= trigger ? IIR.rx : IIR.timeout;
    }
    if ((s.ier & IER.thre) !== 0 && s.threPending) return IIR.thre;
    if ((s.ier & IER.modemStatus) !== 0 && s.msrDelta !== 0) return IIR.modemStatus;
    return IIR.none;
  };

  const capacity = (): number => ((s.fcr & FCR.enable) !== 0 ? FIFO_BYTES : 1);

  const update = (): void => {
    if ((s.mcr & (MCR.rts | MCR.loop)) === MCR.rts && s.waiting.length > 0) {
      s.received.push(...s.waiting.splice(0, Math.max(0, capacity() - s.received.length)));
    }
    raise();
  };

  const raise = (): void => irq.set((s.mcr & MCR.out2) !== 0 && identification() !== IIR.none);

  const writeMcr = (value: number): void => {
    const before = msrLevels();
    s.mcr = value & 0x1f;
    const after = msrLevels();
    const changed = before ^ after;
    s.msrDelta |= (changed >> 4) & (MSR.dcts | MSR.ddsr | MSR.ddcd);
    if ((before & ~after & MSR.ri) !== 0) s.msrDelta |= MSR.teri;
  };

  const transmit = (byte: number): void => {
    if ((s.mcr & MCR.loop) !== 0) {
      if (s.received.length < capacity()) s.received.push(byte);
    } else {
      sink(byte);
    }
    // Full for no time at all: the interrupt line falls with the write and rises with the empty register.
    s.threPending = false;
    update();
    s.threPending = true;
  };

  return {
    name: 'uart16550',
    ports: [[base, 8]],
    read(port) {
      let value = 0xff;
      switch (port - base) {
        case REG.data:
          if ((s.lcr & LCR_DLAB) !== 0) return s.divisor & 0xff;
          value = s.received.shift() ?? 0;
          update();
          return value;
        case REG.ier:
          return (s.lcr & LCR_DLAB) !== 0 ? s.divisor >> 8 : s.ier;
        case REG.iirFcr:
          value = identification();
          if (value === IIR.thre) {
            s.threPending = false;
            update();
          }
          return value | ((s.fcr & FCR.enable) !== 0 ? IIR.fifo : 0);
        case REG.lcr:
          return s.lcr;
        case REG.mcr:
          return s.mcr;
        case REG.lsr:
          return LSR.thre | LSR.temt | (s.received.length > 0 ? LSR.dataReady : 0);
        case REG.msr:
          value = msrLevels() | s.msrDelta;
          s.msrDelta = 0;
          update();
          return value;
        default:
          return s.scr;
      }
    },
    write(port, _size, value) {
      switch (port - base) {
        case REG.data:
          if ((s.lcr & LCR_DLAB) !== 0) s.divisor = (s.divisor & 0xff00) | value;
          else transmit(value);
          break;
        case REG.ier:
          if ((s.lcr & LCR_DLAB) !== 0) {
            s.divisor = (s.divisor & 0xff) | (value << 8);
            break;
          }
          // Enabling the THRE interrupt while THR is empty raises it.
          if ((value & ~s.ier & IER.thre) !== 0) s.threPending = true;
          s.ier = value & 0x0f;
          break;
        case REG.iirFcr:
          if (((value ^ s.fcr) & FCR.enable) !== 0 || (value & FCR.clearRx) !== 0) s.received = [];
          s.fcr = (value & FCR.enable) !== 0 ? value & 0xc9 : 0;
          break;
        case REG.lcr:
          s.lcr = value;
          break;
        case REG.mcr:
          writeMcr(value);
          break;
        case REG.scr:
          s.scr = value;
          break;
        default:
          return;
      }
      update();
    },
    receive(bytes) {
      for (const byte of bytes) s.waiting.push(byte);
      update();
    },
    save: () => structuredClone(s),
    load(state) {
      s = structuredClone(state);
      update();
    },
  };
};
