/** Runs one instruction on an engine, from and to a structure of FPU state, some registers and memory. */

import { Cpu } from '../../../lib/cpu/core.js';
import type { Engine } from '../../../lib/cpu/engine.js';
import { createInterpreter } from '../../../lib/cpu/interpreter/interpreter.js';
import { createReference } from '../../../lib/cpu/reference.js';
import { readRflags, writeRflags } from '../../../lib/cpu/rflags.js';
import { CR0, CR4, LEAVE, S, VECTOR } from '../../../lib/isa/state.js';
import { createMmu } from '../../../lib/memory/mmu.js';
import { Ram } from '../../../lib/memory/ram.js';
import { HELPERS } from '../../../lib/vmx/hardware.js';

/** Offsets and size of the structure; the code's first byte is its length, and in results the trap. */
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
  /** The state after the case. */
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
