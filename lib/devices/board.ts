/**
 * The board of a machine: the explicit list of its devices, port and MMIO dispatch, and the wiring of interrupt lines.
 *
 * Ports and addresses without a device read all ones and ignore writes. An ISA line reaches both the PIC pair and the
 * I/O APIC, as in KVM's default routing (line n to pin n; with `irq0Override`, line 0 to pin 2, which the MADT then
 * says). The processor asks one combined question before it enters the guest: is there a PIC interrupt that LVT0 lets
 * through (KVM asks this first), or one of the local APIC?
 */
import { createAcpiPm } from './acpi-pm.js';
import { type Cmos, createCmos, type RtcOptions } from './cmos.js';
import type { Clock, Device, IrqLine } from './device.js';
import { createI8042 } from './i8042.js';
import { createIoApic, type IoApic } from './ioapic.js';
import { createLapic, type Lapic } from './lapic.js';
import { createMarker } from './marker.js';
import { createPic8259, type Pic8259 } from './pic8259.js';
import { createPit8254, type Pit8254 } from './pit8254.js';
import { createPort61 } from './port61.js';
import { type BoardTrace, UNTRACED } from './trace.js';
import { createUart16550, type Uart16550 } from './uart16550.js';

export const IRQ = { timer: 0, serial: 4, sci: 9 } as const;
/** Who sets a line, as KVM numbers its sources. */
const USER_SOURCE = 0;
const PIT_SOURCE = 2;
const DEFAULT_RTC_START = '2026-11-22T12:00:00Z';
/** KVM treats the end of interrupts on the RTC's I/O APIC pin specially. */
const RTC_PIN = 8;

/** Ports that KVM's in-kernel devices handle: PIC pair, PIT, port B, ELCR. All others go to user space. */
const KVM_PORTS: readonly (readonly [first: number, count: number])[] = [
  [0x20, 2],
  [0x40, 4],
  [0x61, 1],
  [0xa0, 2],
  [0x4d0, 2],
];
const inKvm = new Set(
  KVM_PORTS.flatMap(([first, count]) => Array.from({ length: count }, (_, i) => first + i)),
);

export interface BoardOptions {
  readonly clock: Clock;
  /** Called with each byte transmitted at COM1. */
  readonly onConsole: (byte: number) => void;
  readonly onReset: () => void;
  readonly onPoweroff: () => void;
  /** An NMI message reached the processor. */
  readonly onNmi?: () => void;
  /** An INIT message reached the processor. */
  readonly onInit?: () => void;
  /** The 8254 raises its interrupt: in KVM a kernel thread of its own does that. */
  readonly onPitWork?: () => void;
  /** A 32-bit write to port 0x510. */
  readonly onMarker?: (value: number) => void;
  readonly rtc?: RtcOptions;
  /** Wires line 0 to I/O APIC pin 2 instead of pin 0; default false, as in KVM's default routing. */
  readonly irq0Override?: boolean;
  /** Guest TSC minus clock cycles. */
  readonly tscOffset?: number;
  readonly physicalBits?: number;
  /** Who listens to the interrupt controllers. */
  readonly trace?: BoardTrace;
  /** More devices, with ports or ranges of their own. */
  readonly extra?: readonly Device[];
}

export type BoardState = Readonly<Record<string, unknown>>;

export interface Board {
  readonly devices: readonly Device[];
  readonly lapic: Lapic;
  readonly ioapic: IoApic;
  readonly pic: Pic8259;
  readonly pit: Pit8254;
  readonly uart: Uart16550;
  readonly cmos: Cmos;
  readPort(port: number, size: 1 | 2 | 4): number;
  writePort(port: number, size: 1 | 2 | 4, value: number): void;
  /** True when KVM handles the port in the kernel, false when the access goes to user space. */
  kernelPort(port: number): boolean;
  /** The device at a guest-physical address, if there is one. */
  mmio(gpa: number): Device | undefined;
  /** An interrupt line of the ISA bus, 0-15, to both controllers. */
  irq(line: number): IrqLine;
  /** Which controller has an interrupt for the processor now. */
  interruptSource(): 'none' | 'pic' | 'apic';
  /** The vector that `acknowledge` would deliver now, or -1; changes nothing. */
  interrupt(): number;
  /** Takes the pending interrupt (INTA cycle, or IRR to ISR); its vector, or -1. */
  acknowledge(): number;
  save(): BoardState;
  load(state: BoardState): void;
}

const ones = (size: number): number => (size === 4 ? 0xffff_ffff : (1 << (8 * size)) - 1);

export const createBoard = (options: BoardOptions): Board => {
  const { clock } = options;
  const trace = options.trace ?? UNTRACED;
  const timerPin = options.irq0Override === true ? 2 : 0;

  const pic: Pic8259 = createPic8259({
    trace,
    onEnd: (irq) => {
      trace.kvm_ack_irq?.({ irqchip: irq < 8 ? 0 : 1, pin: irq });
      if (irq === IRQ.timer) pit.ended();
    },
    onMask: (irq, masked) => {
      if (irq === IRQ.timer && !masked) pit.resetReinject();
    },
  });
  const lapic = createLapic({
    clock,
    trace,
    tscOffset: options.tscOffset ?? 0,
    physicalBits: options.physicalBits ?? 40,
    onEoi: (vector, level) => ioapic.eoi(vector, level),
    onNmi: () => options.onNmi?.(),
    onInit: () => options.onInit?.(),
  });
  const ioapic: IoApic = createIoApic({
    deliver: (message) => lapic.receive(message),
    watched: [timerPin, RTC_PIN],
    trace,
    onEnd: (pin) => {
      trace.kvm_ack_irq?.({ irqchip: 2, pin });
      if (pin === timerPin) pit.ended();
    },
    onMask: (pin, masked) => {
      if (pin === timerPin && !masked) pit.resetReinject();
    },
  });

  /** Lines that are high, for the trace. */
  let high = 0;
  const irq = (line: number): IrqLine => {
    const pin = line === IRQ.timer ? timerPin : line;
    const source = line === IRQ.timer ? PIT_SOURCE : USER_SOURCE;
    return {
      set(level) {
        if (level !== ((high & (1 << line)) !== 0))
          trace.kvm_set_irq?.({ gsi: line, level: level ? 1 : 0, irq_source_id: source });
        if (level) high |= 1 << line;
        else high &= ~(1 << line);
        pic.setIrq(line, level);
        ioapic.setPin(pin, level);
      },
    };
  };

  const timerLine = irq(IRQ.timer);
  const pit = createPit8254(clock, {
    set(level) {
      if (level) options.onPitWork?.();
      timerLine.set(level);
    },
  });
  const uart = createUart16550({ irq: irq(IRQ.serial), sink: options.onConsole });
  const start = Date.parse(options.rtc?.start ?? DEFAULT_RTC_START) / 1000;
  const cmos = createCmos(clock, start, options.rtc?.advancing ?? false);
  const devices: readonly Device[] = [
    pic as Device,
    pit as Device,
    createPort61(clock, pit) as Device,
    cmos as Device,
    createI8042(options.onReset) as Device,
    uart as Device,
    createMarker((value) => options.onMarker?.(value)) as Device,
    createAcpiPm(options.onPoweroff) as Device,
    ioapic as Device,
    lapic as Device,
    ...(options.extra ?? []),
  ];

  /** Device index + 1 by port; 0 for none. */
  const byPort = new Uint8Array(0x1_0000);
  devices.forEach((device, i) => {
    for (const [first, count] of device.ports ?? []) byPort.fill(i + 1, first, first + count);
  });
  const ranges = devices
    .filter((d) => d !== (lapic as Device))
    .flatMap((device) =>
      (device.mmio ?? []).map(([first, bytes]) => ({ device, first, end: first + bytes })),
    );

  const at = (port: number): Device | undefined => {
    const n = byPort[port & 0xffff];
    return n === 0 ? undefined : devices[n - 1];
  };

  const interruptSource = (): 'none' | 'pic' | 'apic' => {
    if (pic.hasInterrupt() && lapic.acceptsExtInt()) return 'pic';
    return lapic.hasInterrupt() >= 0 ? 'apic' : 'none';
  };

  return {
    devices,
    lapic,
    ioapic,
    pic,
    pit,
    uart,
    cmos,
    readPort(port, size) {
      const device = at(port);
      if (size === 1 || device?.wide === true)
        return device === undefined ? ones(size) : device.read(port, size);
      let value = 0;
      for (let i = 0; i < size; i++) value |= (at(port + i)?.read((port + i) & 0xffff, 1) ?? 0xff) << (8 * i);
      return value >>> 0;
    },
    writePort(port, size, value) {
      const device = at(port);
      if (size === 1 || device?.wide === true) device?.write(port, size, size === 1 ? value & 0xff : value);
      else {
        for (let i = 0; i < size; i++) {
          at(port + i)?.write((port + i) & 0xffff, 1, (value >>> (8 * i)) & 0xff);
        }
      }
    },
    kernelPort: (port) => inKvm.has(port),
    mmio(gpa) {
      const apic = lapic.apicBase();
      const page = apic - (apic % 4096);
      if (gpa >= page && gpa < page + 4096) return lapic as Device;
      return ranges.find((r) => gpa >= r.first && gpa < r.end)?.device;
    },
    irq,
    interruptSource,
    interrupt() {
      const source = interruptSource();
      if (source === 'none') return -1;
      return source === 'pic' ? pic.interrupt() : lapic.hasInterrupt();
    },
    acknowledge() {
      const source = interruptSource();
      if (source === 'none') return -1;
      if (source === 'pic') return pic.acknowledge();
      const vector = lapic.hasInterrupt();
      lapic.acknowledge(vector);
      return vector;
    },
    save: () => Object.fromEntries(devices.map((d) => [d.name, d.save()])),
    load(state) {
      for (const device of devices) device.load(state[device.name]);
    },
  };
};
