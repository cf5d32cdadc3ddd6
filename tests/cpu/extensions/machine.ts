/** Runs one instruction of a case on an engine, from and to the structure of `tests/hardware/extension-vectors.c`. */
import { Cpu } from '../../../lib/cpu/core.js';
import type { Engine } from '../../../lib/cpu/engine.js';
import { FPU_HELPERS } from '../../../lib/cpu/fpu/helpers.js';
import { createInterpreter } from '../../../lib/cpu/interpreter/interpreter.js';
import { createReference } from '../../../lib/cpu/reference.js';
import { readRflags, writeRflags } from '../../../lib/cpu/rflags.js';
import { SYSTEM_HELPERS } from '../../../lib/cpu/system/helpers.js';
import { decode } from '../../../lib/isa/decoder.js';
import { CR0, CR4, FLAG, LEAVE, S } from '../../../lib/isa/state.js';
import { createMmu } from '../../../lib/memory/mmu.js';
import { Ram } from '../../../lib/memory/ram.js';
import { AT, WINDOW, WINDOW_BYTES } from './cases.js';

export const ENGINES = ['reference', 'interpreter'] as const;
export type EngineName = (typeof ENGINES)[number];

const CODE = 0x180000;
const AREA = 0x1c0000;

export interface Machine {
  readonly cpu: Cpu;
  run(given: Uint8Array): Uint8Array;
}

export const createMachine = (name: EngineName): Machine => {
  const ram = new Ram(0x200000);
  const cpu = new Cpu(ram, { seed: 1 });
  const mmu = createMmu(cpu);
  cpu.mmu = mmu;
  const helpers = { ...SYSTEM_HELPERS, ...FPU_HELPERS };
  const engine: Engine =
    name === 'reference' ? createReference(cpu, helpers) : createInterpreter(cpu, mmu, helpers);
  cpu.set32(S.cr0, CR0.pe | CR0.ne | CR0.et);
  cpu.set32(S.cr4, CR4.osfxsr | CR4.osxmmexcpt | CR4.osxsave);
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
    return cpu.get32(S.leave) === LEAVE.fault ? cpu.get32(S.faultVector) : 0;
  };
  let where = CODE;
  const run = (given: Uint8Array): Uint8Array => {
    const view = new DataView(given.buffer, given.byteOffset);
    ram.writeBytes(AREA, given.subarray(0, 512));
    cpu.setGpr(7, BigInt(AREA));
    // FXRSTOR64 [RDI]
    step(Uint8Array.of(0x48, 0x0f, 0xae, 0x0f), CODE + 0x10000);
    for (let i = 0; i < 16; i++) cpu.setGpr(i, view.getBigUint64(AT.gpr + 8 * i, true));
    writeRflags(cpu, Number(view.getBigUint64(AT.rflags, true)));
    ram.writeBytes(WINDOW, given.subarray(AT.memory, AT.code));
    where = where >= CODE + 0xff00 ? CODE : where + 32;
    const length = given[AT.code];
    const vector = step(given.subarray(AT.code + 1, AT.code + 1 + length), where);
    const out = given.slice();
    out.fill(0, AT.code);
    out[AT.code] = vector;
    const result = new DataView(out.buffer);
    for (let i = 0; i < 16; i++) result.setBigUint64(AT.gpr + 8 * i, cpu.gpr(i), true);
    result.setBigUint64(AT.rflags, BigInt(readRflags(cpu)), true);
    out.set(ram.view(WINDOW, WINDOW_BYTES), AT.memory);
    cpu.setGpr(7, BigInt(AREA));
    // FXSAVE64 [RDI]
    step(Uint8Array.of(0x48, 0x0f, 0xae, 0x07), CODE + 0x10020);
    out.set(ram.view(AREA, 512), 0);
    return out;
  };
  return { cpu, run };
};

/** Bits of a 64-bit word of the state that are compared: not the x87 pointers and opcode, nor reserved bytes. */
export const significant = (at: number): bigint => {
  if (at === 0) return 0x0000_00ff_ffff_ffffn;
  if (at === 8 || at === 16) return 0n;
  if (at === 24) return 0xffff_ffffn;
  if (at >= 32 && at < 160) return (at & 8) === 0 ? 0xffff_ffff_ffff_ffffn : 0xffffn;
  if (at >= 416 && at < 512) return 0n;
  if (at === AT.rflags) return 0x8d5n;
  return at >= AT.code + 16 ? 0n : 0xffff_ffff_ffff_ffffn;
};

const FLAG_LETTERS: Readonly<Record<string, number>> = {
  o: FLAG.of,
  s: FLAG.sf,
  z: FLAG.zf,
  a: FLAG.af,
  p: FLAG.pf,
  c: FLAG.cf,
};
/** Flags that the instruction leaves undefined. */
const undefinedFlags = (row: { readonly flags?: { readonly u?: string } }): bigint =>
  BigInt([...(row.flags?.u ?? '')].reduce((m, letter) => m | FLAG_LETTERS[letter], 0));

/** What differs between what the processor made of a case and what an engine did. */
export const differences = (given: Uint8Array, expected: Uint8Array, actual: Uint8Array): string[] => {
  const code = given.subarray(AT.code + 1, AT.code + 1 + given[AT.code]);
  const insn = decode(code, 0, code.length, 64);
  const hex = [...code].map((b) => b.toString(16).padStart(2, '0')).join(' ');
  if (typeof insn === 'string') return [`${hex} is ${insn}`];
  const e = new DataView(expected.buffer, expected.byteOffset);
  const a = new DataView(actual.buffer, actual.byteOffset);
  const found: string[] = [];
  for (let at = 0; at < AT.size; at += 8) {
    let mask = significant(at);
    if (at === AT.rflags) mask &= ~undefinedFlags(insn.row);
    // MXCSR_MASK of a stored image
    if (/^f?xsave/.test(insn.row.name) && at === AT.memory + 256 + 24) mask = 0xffff_ffffn;
    const x = e.getBigUint64(at, true) & mask;
    const y = a.getBigUint64(at, true) & mask;
    if (x !== y)
      found.push(`${insn.row.name} (${hex}): at ${at} ${y.toString(16)}, hardware ${x.toString(16)}`);
  }
  return found;
};
