/**
 * IN, OUT, INS and OUTS: permission, VM exits, and the ports of the bare machine.
 *
 * SDM volume 1, "I/O Protection Mechanism"; volume 2, INS and OUTS. The permission check precedes the VM exit, which
 * precedes faults of the memory operand. Without a hypervisor and without ports, reads give all ones.
 */
import { S, SEG } from '../../isa/state.js';
import type { Cpu, IoAccess } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { portBreakpoints } from './breakpoints.js';
import { probeWrite, readLinear32, writeLinear } from './memory.js';
import { AR, attrOf, iopl, limitOf, readTss, realMode, virtual8086 } from './segments.js';

/** CPL <= IOPL, or the bits of the TSS's I/O permission map are clear; #GP(0) otherwise. */
const permitted = (cpu: Cpu, port: number, size: number): boolean => {
  if (realMode(cpu) || (cpu.get32(S.cpl) <= iopl(cpu) && !virtual8086(cpu))) return true;
  const attr = attrOf(cpu, SEG.tr);
  const limit = limitOf(cpu, SEG.tr);
  if ((attr & AR.unusable) !== 0 || (attr & 9) !== 9 || limit < 0x67) return cpu.gp();
  const map = readTss(cpu, 0x66, 2);
  if (map === undefined) return false;
  const at = map + (port >> 3);
  if (at + 1 > limit) return cpu.gp();
  const bits = readTss(cpu, at, 2);
  if (bits === undefined) return false;
  return ((bits >> (port & 7)) & ((1 << size) - 1)) === 0 || cpu.gp();
};

const mask = (size: number): number => (size === 4 ? 0xffff_ffff : (1 << (8 * size)) - 1);
const readPort = (cpu: Cpu, port: number, size: 1 | 2 | 4): number =>
  ((cpu.ports?.read(port, size) ?? 0xffff_ffff) & mask(size)) >>> 0;

const plain = (port: number, size: 1 | 2 | 4, input: boolean, immediate: boolean): IoAccess => ({
  port,
  size,
  input,
  immediate,
  string: false,
  rep: false,
  linear: 0n,
  segment: 0,
  addressSize: 64,
});

/** args: port, bytes, 1 for an immediate port; result: value. */
const input: Helper = (cpu) => {
  const port = cpu.arg32(0) & 0xffff;
  const size = cpu.arg32(1) as 1 | 2 | 4;
  if (!permitted(cpu, port, size)) return false;
  if (cpu.guest?.io(plain(port, size, true, cpu.arg32(2) !== 0)) === true) return false;
  cpu.result32(0, readPort(cpu, port, size));
  portBreakpoints(cpu, port, size);
  return true;
};

/** args: port, bytes, 1 for an immediate port, value. */
const output: Helper = (cpu) => {
  const port = cpu.arg32(0) & 0xffff;
  const size = cpu.arg32(1) as 1 | 2 | 4;
  if (!permitted(cpu, port, size)) return false;
  if (cpu.guest?.io(plain(port, size, false, cpu.arg32(2) !== 0)) === true) return false;
  cpu.ports?.write(port, size, (cpu.arg32(3) & mask(size)) >>> 0);
  portBreakpoints(cpu, port, size);
  return true;
};

/** args: port, bytes, linear address, segment, address size, 1 under REP. */
const stringAccess = (cpu: Cpu, inputs: boolean): IoAccess => ({
  port: cpu.arg32(0) & 0xffff,
  size: cpu.arg32(1) as 1 | 2 | 4,
  input: inputs,
  string: true,
  rep: cpu.arg32(5) !== 0,
  immediate: false,
  linear: cpu.arg64(2),
  segment: cpu.arg32(3),
  addressSize: cpu.arg32(4) as 16 | 32 | 64,
});

const inputString: Helper = (cpu) => {
  const a = stringAccess(cpu, true);
  if (!permitted(cpu, a.port, a.size) || cpu.guest?.io(a) === true) return false;
  if (!probeWrite(cpu, a.linear, a.size, 'current')) return false;
  portBreakpoints(cpu, a.port, a.size);
  return writeLinear(cpu, a.linear, a.size, BigInt(readPort(cpu, a.port, a.size)));
};

const outputString: Helper = (cpu) => {
  const a = stringAccess(cpu, false);
  if (!permitted(cpu, a.port, a.size) || cpu.guest?.io(a) === true) return false;
  const value = readLinear32(cpu, a.linear, a.size);
  if (value === undefined) return false;
  cpu.ports?.write(a.port, a.size, value >>> 0);
  portBreakpoints(cpu, a.port, a.size);
  return true;
};

export const IO_HELPERS: HelperTable = { input, output, inputString, outputString };
