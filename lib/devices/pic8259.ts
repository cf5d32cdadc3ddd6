/**
 * The pair of 8259A interrupt controllers with ELCR, as in a PC: master at 0x20, slave at 0xa0 on input 2, edge/level
 * control at 0x4d0 and 0x4d1 (Intel 8259A data sheet).
 *
 * All four ICWs and three OCWs: rotation, automatic EOI, special mask, special fully nested mode, poll.
 * As in KVM, an initialisation keeps requests of level inputs only, and spurious interrupts arrive as input 7.
 * Not modelled: MCS-80/85 mode, buffered mode.
 */
import type { Device } from './device.js';
import type { BoardTrace } from './trace.js';

const ICW1 = { init: 0x10, icw4: 0x01 } as const;
const ICW4 = { autoEoi: 0x02, fullyNested: 0x10 } as const;
const OCW3 = {
  select: 0x08,
  poll: 0x04,
  readRegister: 0x02,
  readIsr: 0x01,
  setMask: 0x40,
  mask: 0x20,
} as const;
/** OCW2 commands, bits 7:5. */
const OCW2 = {
  clearRotateAuto: 0,
  eoi: 1,
  specificEoi: 3,
  setRotateAuto: 4,
  rotateEoi: 5,
  setPriority: 6,
  rotateSpecificEoi: 7,
} as const;
const CASCADE = 2;
const SPURIOUS = 7;
/** Inputs that may be level-triggered: not 0, 1, 2, 8 and 13. */
const ELCR_MASK = [0xf8, 0xde] as const;

export interface PicChipState {
  /** Input levels, for edges. */
  lines: number;
  irr: number;
  isr: number;
  imr: number;
  elcr: number;
  base: number;
  /** The next ICW expected at the odd port: 0 none, 2, 3, 4. */
  icw: 0 | 2 | 3 | 4;
  needIcw4: boolean;
  autoEoi: boolean;
  rotateOnAutoEoi: boolean;
  specialMask: boolean;
  fullyNested: boolean;
  poll: boolean;
  readIsr: boolean;
  /** The input with the highest priority. */
  first: number;
}

export interface PicState {
  chips: [PicChipState, PicChipState];
}

export interface Pic8259 extends Device<PicState> {
  /** Level of input 0-15; an edge input latches the rise. */
  setIrq(irq: number, level: boolean): void;
  /** The INT output of the master. */
  hasInterrupt(): boolean;
  /** The vector that `acknowledge` would deliver now, or -1; changes nothing. */
  interrupt(): number;
  /** The INTA cycles: puts the request in service and returns its vector. */
  acknowledge(): number;
}

export interface PicOptions {
  /** An input left service (EOI, or automatic EOI). */
  readonly onEnd?: (irq: number) => void;
  readonly onMask?: (irq: number, masked: boolean) => void;
  readonly trace?: BoardTrace;
}

const newChip = (): PicChipState => ({
  lines: 0,
  irr: 0,
  isr: 0,
  imr: 0,
  elcr: 0,
  base: 0,
  icw: 0,
  needIcw4: false,
  autoEoi: false,
  rotateOnAutoEoi: false,
  specialMask: false,
  fullyNested: false,
  poll: false,
  readIsr: false,
  first: 0,
});

/** Distance of the first set input from the one of highest priority; 8 when none is set. */
const priority = (chip: PicChipState, inputs: number): number => {
  for (let i = 0; i < 8; i++) if ((inputs & (1 << ((chip.first + i) & 7))) !== 0) return i;
  return 8;
};

/** The input that requests service now, or -1. */
const requested = (chip: PicChipState, master: boolean): number => {
  const wanted = priority(chip, chip.irr & ~chip.imr);
  if (wanted === 8) return -1;
  let blocking = chip.isr;
  if (chip.specialMask) blocking &= ~chip.imr;
  if (chip.fullyNested && master) blocking &= ~(1 << CASCADE);
  return wanted < priority(chip, blocking) ? (wanted + chip.first) & 7 : -1;
};

export const createPic8259 = (options: PicOptions = {}): Pic8259 => {
  let s: PicState = { chips: [newChip(), newChip()] };

  /** The slave's output is the master's input 2, held while it requests. */
  const cascade = (): void => setInput(0, CASCADE, requested(s.chips[1], false) >= 0);

  const setInput = (n: 0 | 1, input: number, level: boolean): void => {
    const chip = s.chips[n];
    const bit = 1 << input;
    const cascaded = n === 0 && input === CASCADE;
    if (level) {
      if ((chip.elcr & bit) !== 0 || cascaded || (chip.lines & bit) === 0) chip.irr |= bit;
      chip.lines |= bit;
    } else {
      if ((chip.elcr & bit) !== 0 || cascaded) chip.irr &= ~bit;
      chip.lines &= ~bit;
    }
  };

  const end = (n: 0 | 1, input: number): void => {
    s.chips[n].isr &= ~(1 << input);
    cascade();
    options.onEnd?.(n * 8 + input);
  };

  /** One INTA cycle of one chip; the input served. */
  const serve = (n: 0 | 1): number => {
    const chip = s.chips[n];
    const input = requested(chip, n === 0);
    if (input < 0) return -1;
    const bit = 1 << input;
    chip.isr |= bit;
    if ((chip.elcr & bit) === 0) chip.irr &= ~bit;
    if (chip.autoEoi) {
      if (chip.rotateOnAutoEoi) chip.first = (input + 1) & 7;
      end(n, input);
    }
    return input;
  };

  const ocw2 = (n: 0 | 1, value: number): void => {
    const chip = s.chips[n];
    const command = value >> 5;
    const input = value & 7;
    const highest = priority(chip, chip.isr);
    switch (command) {
      case OCW2.clearRotateAuto:
      case OCW2.setRotateAuto:
        chip.rotateOnAutoEoi = command === OCW2.setRotateAuto;
        break;
      case OCW2.eoi:
      case OCW2.rotateEoi: {
        if (highest === 8) break;
        const served = (highest + chip.first) & 7;
        if (command === OCW2.rotateEoi) chip.first = (served + 1) & 7;
        end(n, served);
        break;
      }
      case OCW2.specificEoi:
        end(n, input);
        break;
      case OCW2.setPriority:
        chip.first = (input + 1) & 7;
        break;
      case OCW2.rotateSpecificEoi:
        chip.first = (input + 1) & 7;
        end(n, input);
        break;
      default:
        break;
    }
  };

  const icw1 = (n: 0 | 1, value: number): void => {
    const chip = s.chips[n];
    chip.irr &= chip.elcr;
    chip.lines &= chip.elcr;
    chip.isr = 0;
    chip.first = 0;
    chip.specialMask = false;
    chip.readIsr = false;
    chip.poll = false;
    chip.needIcw4 = (value & ICW1.icw4) !== 0;
    if (!chip.needIcw4) {
      chip.autoEoi = false;
      chip.fullyNested = false;
    }
    chip.icw = 2;
    setMask(n, 0);
  };

  const setMask = (n: 0 | 1, value: number): void => {
    const changed = s.chips[n].imr ^ value;
    s.chips[n].imr = value;
    if (options.onMask === undefined) return;
    for (let i = 0; i < 8; i++) {
      if ((changed & (1 << i)) !== 0) options.onMask(n * 8 + i, (value & (1 << i)) !== 0);
    }
  };

  const writeEven = (n: 0 | 1, value: number): void => {
    const chip = s.chips[n];
    if ((value & ICW1.init) !== 0) icw1(n, value);
    else if ((value & OCW3.select) !== 0) {
      if ((value & OCW3.poll) !== 0) chip.poll = true;
      if ((value & OCW3.readRegister) !== 0) chip.readIsr = (value & OCW3.readIsr) !== 0;
      if ((value & OCW3.setMask) !== 0) chip.specialMask = (value & OCW3.mask) !== 0;
    } else ocw2(n, value);
  };

  const writeOdd = (n: 0 | 1, value: number): void => {
    const chip = s.chips[n];
    switch (chip.icw) {
      case 0:
        setMask(n, value);
        break;
      case 2:
        chip.base = value & 0xf8;
        chip.icw = 3;
        break;
      case 3:
        chip.icw = chip.needIcw4 ? 4 : 0;
        break;
      case 4:
        chip.fullyNested = (value & ICW4.fullyNested) !== 0;
        chip.autoEoi = (value & ICW4.autoEoi) !== 0;
        chip.icw = 0;
        break;
    }
  };

  /** A poll acknowledges like INTA and answers with the input in bits 2:0, bit 7 set when there was one. */
  const poll = (n: 0 | 1): number => {
    s.chips[n].poll = false;
    const input = serve(n);
    cascade();
    return input < 0 ? SPURIOUS : 0x80 | input;
  };

  return {
    name: 'pic8259',
    ports: [
      [0x20, 2],
      [0xa0, 2],
      [0x4d0, 2],
    ],
    read(port) {
      if (port >= 0x4d0) return s.chips[port === 0x4d0 ? 0 : 1].elcr;
      const n = port < 0xa0 ? 0 : 1;
      const chip = s.chips[n];
      if (chip.poll) return poll(n);
      if ((port & 1) !== 0) return chip.imr;
      return chip.readIsr ? chip.isr : chip.irr;
    },
    write(port, _size, value) {
      if (port >= 0x4d0) {
        const n = port === 0x4d0 ? 0 : 1;
        s.chips[n].elcr = value & ELCR_MASK[n];
        return;
      }
      const n = port < 0xa0 ? 0 : 1;
      if ((port & 1) === 0) writeEven(n, value);
      else writeOdd(n, value);
      cascade();
    },
    setIrq(irq, level) {
      if (irq === CASCADE) return;
      const n = irq < 8 ? 0 : 1;
      const hook = options.trace?.kvm_pic_set_irq;
      if (hook !== undefined) {
        const { irr, imr, elcr, lines } = s.chips[n];
        const bit = 1 << (irq & 7);
        const changes = level !== ((lines & bit) !== 0);
        // a request that had not been served yet
        const coalesced = level && (irr & bit) !== 0 && (imr & bit) === 0;
        if (changes) hook({ chip: n, pin: irq & 7, elcr, imr, coalesced });
      }
      setInput(n, irq & 7, level);
      cascade();
    },
    hasInterrupt: () => requested(s.chips[0], true) >= 0,
    interrupt() {
      const input = requested(s.chips[0], true);
      if (input !== CASCADE) return input < 0 ? -1 : s.chips[0].base + input;
      const behind = requested(s.chips[1], false);
      return s.chips[1].base + (behind < 0 ? SPURIOUS : behind);
    },
    acknowledge() {
      const input = serve(0);
      if (input !== CASCADE) return s.chips[0].base + (input < 0 ? SPURIOUS : input);
      const behind = serve(1);
      cascade();
      return s.chips[1].base + (behind < 0 ? SPURIOUS : behind);
    },
    save: () => structuredClone(s),
    load(state) {
      s = structuredClone(state);
    },
  };
};
