/** Runs one instruction of a case on an engine, from and to the structure that `tests/hardware/fpu-vectors.c` uses. */

import { Cpu } from '../../../lib/cpu/core.js';
import type { Engine } from '../../../lib/cpu/engine.js';
import { createInterpreter } from '../../../lib/cpu/interpreter/interpreter.js';
import { createReference } from '../../../lib/cpu/reference.js';
import { readRflags, writeRflags } from '../../../lib/cpu/rflags.js';
import { CR0, CR4, LEAVE, S, VECTOR } from '../../../lib/isa/state.js';
import { createMmu } from '../../../lib/memory/mmu.js';
import { Ram } from '../../../lib/memory/ram.js';
import { HELPERS } from '../../../lib/vmx/hardware.js';

/** Offsets and size of `struct state`. */
export const AT = {
  fx: 0,
  rax: 512,
  rcx: 520,
  rdx: 528,
  rflags: 536,
  memory: 544,
  code: 672,
  size: 704,
} as const;
/** POSIX number of SIGFPE, by which an unmasked SSE exception shows. */
const SIGFPE = 8;

const CODE = 0x1000;
const DATA = 0x2000;
const AREA = 0x3000;

export interface Machine {
  readonly cpu: Cpu;
  /** The state after the case, in the layout of the C structure. */
  run(given: Uint8Array): Uint8Array;
}

export const createMachine = (name: 'reference' | 'interpreter'): Machine => {
  const ram = new Ram(0x10000);
  const cpu = new Cpu(ram);
  const mmu = createMmu(cpu);
  cpu.mmu = mmu;
  const engine: Engine =
    name === 'reference' ? createReference(cpu, HELPERS) : createInterpreter(cpu, mmu, HELPERS);
  cpu.set32(S.cr0, CR0.pe | CR0.ne | CR0.et);
  cpu.set32(S.cr4, CR4.osfxsr | CR4.osxmmexcpt);
  cpu.set32(S.mode, 64);
  cpu.set32(S.stackSize, 64);
  cpu.set64(S.xcr0, 3n);
  mmu.contextChanged();

  const step = (code: Uint8Array, at: number): number => {
    // a jump to itself ends the block that the interpreter decodes
    ram.writeBytes(at, Uint8Array.of(...code, 0xeb, 0xfe));
    cpu.set64(S.rip, BigInt(at));
    cpu.set32(S.budget, 1);
    cpu.sliceBudget = 1;
    engine.run();
    const leave = cpu.get32(S.leave);
    return leave === LEAVE.fault ? cpu.get32(S.faultVector) : -1;
  };
  let where = CODE;
  const run = (given: Uint8Array): Uint8Array => {
    const view = new DataView(given.buffer, given.byteOffset);
    // FXRSTOR [RDI], the instruction, FXSAVE [RDI]
    ram.u8.set(given.subarray(0, 512), ram.base + AREA);
    cpu.setGpr(7, BigInt(AREA));
    step(Uint8Array.of(0x48, 0x0f, 0xae, 0x0f), 0x4000);
    cpu.setGpr(0, view.getBigUint64(AT.rax, true));
    cpu.setGpr(1, view.getBigUint64(AT.rcx, true));
    cpu.setGpr(2, view.getBigUint64(AT.rdx, true));
    cpu.setGpr(7, BigInt(DATA));
    writeRflags(cpu, Number(view.getBigUint64(AT.rflags, true)));
    ram.u8.set(given.subarray(AT.memory, AT.code), ram.base + DATA);
    const length = given[AT.code];
    where = where >= 0x1f00 ? CODE : where + 32;
    const fault = step(given.subarray(AT.code + 1, AT.code + 1 + length), where);
    const out = given.slice();
    out.fill(0, AT.code);
    if (fault >= 0) out[AT.code] = fault === VECTOR.xm ? SIGFPE : 128 + fault;
    const result = new DataView(out.buffer);
    result.setBigUint64(AT.rax, cpu.gpr(0), true);
    result.setBigUint64(AT.rcx, cpu.gpr(1), true);
    result.setBigUint64(AT.rdx, cpu.gpr(2), true);
    result.setBigUint64(AT.rflags, BigInt(readRflags(cpu)), true);
    out.set(ram.u8.subarray(ram.base + DATA, ram.base + DATA + 128), AT.memory);
    cpu.setGpr(7, BigInt(AREA));
    step(Uint8Array.of(0x48, 0x0f, 0xae, 0x07), 0x4020);
    out.set(ram.u8.subarray(ram.base + AREA, ram.base + AREA + 512), 0);
    return out;
  };
  return { cpu, run };
};

const COMPARES = /^f(u?com|tst)/;
/**
 * Where the recording processor (AMD) does not do what the SDM says, by name, result and offset: it sets the condition
 * codes, EFLAGS and C1 of comparisons also for unmasked exceptions, keeps C1 in FCOMI, makes MMX registers of the x87's
 * although a conversion traps, and does not for CVTPI2PS from memory.
 */
const ignored = (name: string, expected: Uint8Array, at: number): boolean => {
  const trapped = expected[AT.code] !== 0;
  const pending = (expected[2] & 0x80) !== 0;
  if (name.startsWith('cvt') && name.includes('pi') && (trapped || name === 'cvtpi2ps m'))
    return at < 24 || (at >= 32 && at < 160);
  if (!COMPARES.test(name)) return false;
  return (at === 0 && (pending || name.includes('comi'))) || (pending && at === AT.rflags);
};

/** What of two results is compared: everything but the x87 pointers and opcode, and reserved bytes. */
export const differences = (name: string, expected: Uint8Array, actual: Uint8Array): string[] => {
  const found: string[] = [];
  const e = new DataView(expected.buffer, expected.byteOffset);
  const a = new DataView(actual.buffer, actual.byteOffset);
  const hex = (v: bigint): string => v.toString(16);
  const compare = (label: string, at: number, mask = 0xffff_ffff_ffff_ffffn): void => {
    const x = e.getBigUint64(at, true) & mask;
    const y = a.getBigUint64(at, true) & mask;
    if (x !== y && !ignored(name, expected, at))
      found.push(`${name}: ${label} is ${hex(y)}, hardware has ${hex(x)}`);
  };
  compare('fcw, fsw, ftw', 0, 0x0000_00ff_ffff_ffffn);
  compare('mxcsr', 24, 0xffff_ffffn);
  for (let i = 0; i < 8; i++) {
    compare(`st${i}`, 32 + 16 * i);
    compare(`st${i} exponent`, 40 + 16 * i, 0xffffn);
  }
  for (let i = 0; i < 16; i++) {
    compare(`xmm${i} low`, 160 + 16 * i);
    compare(`xmm${i} high`, 168 + 16 * i);
  }
  compare('rax', AT.rax);
  compare('rcx', AT.rcx);
  compare('rdx', AT.rdx);
  compare('flags', AT.rflags, 0x8d5n);
  for (let i = 0; i < 16; i++) compare(`memory ${8 * i}`, AT.memory + 8 * i);
  compare('trap', AT.code, 0xffn);
  return found;
};
