/** Port input and output and MSR accesses in words, with the names of ports and MSRs. */
import type { TraceEvent } from '../hypervisor/trace-events.js';
import { apicRegisterName } from '../hypervisor/trace-rows.js';
import { type Because, hex } from './trace-explain-memory.js';

/** Ports of the board: first, how many, whose. */
const PORTS: readonly (readonly [first: number, count: number, name: string])[] = [
  [0x20, 2, 'the first 8259 interrupt controller'],
  [0x40, 4, 'the 8254 timer'],
  [0x60, 1, 'the keyboard controller'],
  [0x61, 1, 'system control port B'],
  [0x64, 1, 'the keyboard controller'],
  [0x70, 2, 'the real-time clock'],
  [0x80, 1, 'the POST port, which Linux uses as a delay'],
  [0x92, 1, 'system control port A'],
  [0xa0, 2, 'the second 8259 interrupt controller'],
  [0xe9, 1, 'the debug console'],
  [0xed, 1, 'a port that Linux uses as a delay'],
  [0x2e8, 8, 'serial port COM4'],
  [0x2f8, 8, 'serial port COM2'],
  [0x3e8, 8, 'serial port COM3'],
  [0x3f8, 8, 'serial port COM1, the console'],
  [0x4d0, 2, 'the edge/level control of the 8259s'],
  [0x510, 4, "the lab's marker or fw_cfg"],
  [0x600, 0x40, 'ACPI power management'],
  [0xcf8, 8, 'PCI configuration, which is not there'],
];
/** Whose port it is, or undefined. */
export const portName = (port: number): string | undefined =>
  PORTS.find(([first, count]) => port >= first && port < first + count)?.[2];

const SIZES: Readonly<Record<number, string>> = { 0: 'a byte', 1: 'a word', 3: 'a dword' };

/** SDM volume 3, "Exit Qualification for I/O Instructions". */
export const explainIo = (e: TraceEvent<'kvm_exit'>): Because => {
  const q = Number(BigInt.asUintN(32, e.info1));
  const port = q >>> 16;
  const input = (q & 8) !== 0;
  const string = (q & 0x10) !== 0;
  const rep = (q & 0x20) !== 0;
  const name = portName(port);
  const count = rep ? `${hex(e.cpu.gpr(1))} (hexadecimal) times ` : '';
  const mask = [0xffn, 0xffffn, 0n, 0xffff_ffffn][q & 3] as bigint;
  const value = input || string ? '' : `, 0x${hex(e.cpu.gpr(0) & mask)},`;
  return {
    what: `the guest ${input ? 'read' : 'wrote'} ${count}${SIZES[q & 7] ?? 'something'}${value} ${input ? 'from' : 'to'} port 0x${hex(port)}${name === undefined ? '' : ` (${name})`}${string ? ' with a string instruction' : ''}`,
    why: 'ports belong to virtual devices: KVM or the monitor answers (unconditional I/O exiting)',
  };
};

interface Named {
  readonly name: string;
}

export const msrName = (msr: number, rows: ReadonlyMap<number, Named>): string => {
  const row = rows.get(msr);
  if (row !== undefined) return `${row.name} (0x${hex(msr)})`;
  if (msr >= 0x800 && msr <= 0x83f)
    return `x2APIC register ${apicRegisterName((msr - 0x800) * 16)} (MSR 0x${hex(msr)})`;
  return `MSR 0x${hex(msr)}`;
};

export const explainMsr = (
  e: TraceEvent<'kvm_exit'>,
  rows: ReadonlyMap<number, Named>,
  write: boolean,
): Because => {
  const msr = Number(BigInt.asUintN(32, e.cpu.gpr(1)));
  const value = (BigInt.asUintN(32, e.cpu.gpr(2)) << 32n) | BigInt.asUintN(32, e.cpu.gpr(0));
  const known = rows.has(msr) || (msr >= 0x800 && msr <= 0x8ff);
  return {
    what: `the guest ${write ? `wrote 0x${hex(value)} to` : 'read'} ${msrName(msr, rows)}`,
    why: known
      ? "the MSR bitmap has its bit set: KVM keeps the guest's value or acts on it"
      : 'the MSR bitmap has its bit set, and KVM does not know the MSR: the guest gets #GP, unless ignore_msrs is set',
  };
};
