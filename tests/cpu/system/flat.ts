/** A processor over flat memory (linear address = physical address) on the reference engine, with tables for every mode. */
import { Cpu } from '../../../lib/cpu/core.js';
import type { Engine } from '../../../lib/cpu/engine.js';
import { FPU_HELPERS } from '../../../lib/cpu/fpu/helpers.js';
import { createInterpreter } from '../../../lib/cpu/interpreter/interpreter.js';
import { createReference } from '../../../lib/cpu/reference.js';
import { SYSTEM_HELPERS } from '../../../lib/cpu/system/helpers.js';
import { resetState } from '../../../lib/cpu/system/reset.js';
import { modeChanged, setSegment } from '../../../lib/cpu/system/segments.js';
import { LEAVE, S, SEG } from '../../../lib/isa/state.js';
import { Mmu } from '../../../lib/memory/mmu.js';
import { Ram } from '../../../lib/memory/ram.js';

const RAM_BYTES = 1 << 20;

/** The MMU, writing down the operations that instructions ask for. */
class LoggingMmu extends Mmu {
  readonly log: string[] = [];
  override loadCr3(keep: boolean): void {
    this.log.push(`cr3 ${keep}`);
    super.loadCr3(keep);
  }
  override invlpg(lo: number, hi: number): void {
    this.log.push(`invlpg ${hi >>> 0}:${lo >>> 0}`);
    super.invlpg(lo, hi);
  }
  override invpcid(type: number, pcid: number, lo: number, hi: number): void {
    this.log.push(`invpcid ${type} ${pcid} ${lo}`);
    super.invpcid(type, pcid, lo, hi);
  }
}

export interface Flat {
  readonly cpu: Cpu;
  readonly mmu: LoggingMmu;
  put(at: number, size: 1 | 2 | 4 | 8, ...values: (number | bigint)[]): void;
  get(at: number, size: 1 | 2 | 4 | 8): bigint;
  /** Executes `n` instructions of `code` placed at `at` (default: CS:RIP) on the reference engine. Returns `S.leave`. */
  run(code: readonly number[] | string, n?: number, at?: number): number;
  /** The recorded fault as text, `#13(0)`, or the way the engine left. */
  outcome(): string;
}

export const AT = {
  gdt: 0x1000,
  idt: 0x2000,
  tss: 0x3000,
  ldt: 0x3800,
  code: 0x8000,
  kernelStack: 0x6000,
  istStack: 0x7000,
  userStack: 0x9000,
  handler: 0xa000,
  pml4: 0x1_0000,
} as const;
export const SEL = {
  kcode: 0x08,
  kdata: 0x10,
  ucode32: 0x1b,
  udata: 0x23,
  ucode: 0x2b,
  tss: 0x30,
  kcode32: 0x40,
  conforming: 0x48,
  absent: 0x53,
  kread: 0x58,
  gate: 0x60,
  task: 0x70,
  code16: 0x78,
  data16: 0x80,
  ucode16: 0x8b,
} as const;

/** A GDT entry: access byte, flags nibble (G D L AVL). */
export const descriptor = (base: number, limit: number, access: number, flags: number): bigint =>
  BigInt(limit & 0xffff) |
  (BigInt(base & 0xff_ffff) << 16n) |
  (BigInt(access) << 40n) |
  (BigInt((limit >> 16) & 15) << 48n) |
  (BigInt(flags) << 52n) |
  (BigInt(base >>> 24) << 56n);

export const ENGINES = ['reference', 'interpreter'] as const;
export type EngineName = (typeof ENGINES)[number];

interface Machine {
  readonly cpu: Cpu;
  readonly mmu: LoggingMmu;
  readonly engine: Engine;
}
/** One machine an engine, reset for each test: generating an interpreter takes a while. */
const machines = new Map<EngineName, Machine>();
const machineOf = (name: EngineName): Machine => {
  let m = machines.get(name);
  if (m === undefined) {
    const cpu = new Cpu(new Ram(RAM_BYTES));
    const mmu = new LoggingMmu(cpu);
    cpu.mmu = mmu;
    const helpers = { ...SYSTEM_HELPERS, ...FPU_HELPERS };
    const engine =
      name === 'reference' ? createReference(cpu, helpers) : createInterpreter(cpu, mmu, helpers);
    m = { cpu, mmu, engine };
    machines.set(name, m);
  }
  return m;
};

let current: EngineName = 'reference';
/** Chooses the engine of the machines that follow. */
export const useEngine = (name: EngineName): void => {
  current = name;
};

export const makeFlat = (): Flat => {
  const { cpu, mmu, engine } = machineOf(current);
  const { ram } = cpu;
  ram.writeBytes(0, new Uint8Array(RAM_BYTES));
  cpu.guest = undefined;
  cpu.ports = undefined;
  cpu.extraCycles = 0;
  resetState(cpu);
  cpu.set32(S.attention, 0);
  mmu.flushAll();
  mmu.log.length = 0;
  const put: Flat['put'] = (at, size, ...values) => {
    const bytes = new Uint8Array(values.length * size);
    values.forEach((v, i) => {
      for (let b = 0; b < size; b++)
        bytes[i * size + b] = Number((BigInt.asUintN(64, BigInt(v)) >> BigInt(8 * b)) & 0xffn);
    });
    ram.writeBytes(at, bytes);
  };
  const get: Flat['get'] = (at, size) => {
    let v = 0n;
    for (let b = size - 1; b >= 0; b--) v = (v << 8n) | BigInt(ram.u8[ram.base + at + b]!);
    return v;
  };
  const run: Flat['run'] = (
    code,
    n = 1,
    at = Number((cpu.get32(S.mode) === 64 ? 0n : cpu.get64(S.segBase + 8 * SEG.cs)) + cpu.rip),
  ) => {
    const bytes = typeof code === 'string' ? code.split(' ').map((b) => Number.parseInt(b, 16)) : code;
    put(at, 1, ...bytes);
    cpu.i32[(cpu.at + S.budget) >>> 2] = n;
    // The run loop's part: one instruction a slice under an interrupt shadow.
    engine.run();
    while (
      cpu.get32(S.activity) === 0 &&
      cpu.get32(S.leave) === LEAVE.attention &&
      cpu.i32[(cpu.at + S.budget) >>> 2]! > 0
    ) {
      cpu.set32(S.interruptibility, cpu.get32(S.interruptibility) & ~3);
      engine.run();
    }
    return cpu.get32(S.leave);
  };
  const outcome = (): string => {
    const leave = cpu.get32(S.leave);
    if (leave !== LEAVE.fault) return Object.entries(LEAVE).find(([, v]) => v === leave)![0];
    const code = cpu.get32(S.faultCode) | 0;
    return `#${cpu.get32(S.faultVector)}${code < 0 ? '' : `(${code.toString(16)})`}`;
  };
  // Tables for every protected mode.
  const G = (sel: number, v: bigint): void => put(AT.gdt + (sel & 0xfff8), 8, v);
  G(SEL.kcode, descriptor(0, 0xfffff, 0x9b, 0xa));
  G(SEL.kdata, descriptor(0, 0xfffff, 0x93, 0xc));
  G(SEL.ucode32, descriptor(0, 0xfffff, 0xfb, 0xc));
  G(SEL.udata, descriptor(0, 0xfffff, 0xf3, 0xc));
  G(SEL.ucode, descriptor(0, 0xfffff, 0xfb, 0xa));
  G(SEL.tss, descriptor(AT.tss, 0x20ff, 0x89, 0));
  G(SEL.kcode32, descriptor(0, 0xfffff, 0x9b, 0xc));
  G(SEL.conforming, descriptor(0, 0xfffff, 0x9f, 0xa));
  G(SEL.absent, descriptor(0, 0xfffff, 0x72, 0xc));
  G(SEL.kread, descriptor(0, 0xfffff, 0x90, 0xc));
  G(SEL.code16, descriptor(0, 0xffff, 0x9b, 0));
  G(SEL.data16, descriptor(0, 0xffff, 0x93, 0));
  G(SEL.ucode16, descriptor(0, 0xffff, 0xfb, 0));
  return { cpu, mmu, put, get, run, outcome };
};

/** Identity page tables for the first 2 MiB, accessible to everybody. */
const tables = (f: Flat): void => {
  const { cpu } = f;
  f.put(AT.pml4, 8, AT.pml4 + 0x1000 + 7);
  f.put(AT.pml4 + 0x1000, 8, AT.pml4 + 0x2000 + 7);
  f.put(AT.pml4 + 0x2000, 8, 0xe7);
  cpu.set64(S.cr3, BigInt(AT.pml4));
  cpu.set64(S.gdtrBase, BigInt(AT.gdt));
  cpu.set32(S.gdtrLimit, 0x8f);
  cpu.set64(S.idtrBase, BigInt(AT.idt));
  cpu.set32(S.idtrLimit, 0xfff);
};

/** 64-bit mode at CPL 0 or 3, interrupts enabled. */
export const enter64 = (f: Flat, cpl: 0 | 3 = 0): void => {
  const { cpu } = f;
  tables(f);
  cpu.set64(S.cr0, 0x8001_0031n);
  cpu.set64(S.cr4, 0x20n);
  cpu.set64(S.efer, 0xd01n);
  cpu.set32(S.eflags, 0x202);
  if (cpl === 0) {
    setSegment(cpu, SEG.cs, SEL.kcode, 0n, 0xffff_ffff, 0xa09b);
    setSegment(cpu, SEG.ss, SEL.kdata, 0n, 0xffff_ffff, 0xc093);
  } else {
    setSegment(cpu, SEG.cs, SEL.ucode, 0n, 0xffff_ffff, 0xa0fb);
    setSegment(cpu, SEG.ss, SEL.udata, 0n, 0xffff_ffff, 0xc0f3);
  }
  setSegment(cpu, SEG.tr, SEL.tss, BigInt(AT.tss), 0x20ff, 0x8b);
  setSegment(cpu, SEG.ldtr, 0, 0n, 0, 0x1_0000);
  for (const seg of [SEG.ds, SEG.es, SEG.fs, SEG.gs]) setSegment(cpu, seg, 0, 0n, 0, 0x1_0000);
  f.put(AT.tss + 4, 8, AT.kernelStack);
  f.put(AT.tss + 0x24, 8, AT.istStack);
  cpu.setGpr(4, BigInt(cpl === 0 ? AT.kernelStack : AT.userStack));
  cpu.set64(S.rip, BigInt(AT.code));
  modeChanged(cpu);
};

/** 32-bit protected mode without paging. */
export const enter32 = (f: Flat, cpl: 0 | 3 = 0): void => {
  const { cpu } = f;
  tables(f);
  cpu.set64(S.cr0, 0x31n);
  cpu.set64(S.efer, 0n);
  cpu.set32(S.eflags, 0x202);
  const d = cpl << 5;
  setSegment(cpu, SEG.cs, cpl === 0 ? SEL.kcode32 : SEL.ucode32, 0n, 0xffff_ffff, 0xc09b | d);
  for (const seg of [SEG.ss, SEG.ds, SEG.es, SEG.fs, SEG.gs])
    setSegment(cpu, seg, cpl === 0 ? SEL.kdata : SEL.udata, 0n, 0xffff_ffff, 0xc093 | d);
  setSegment(cpu, SEG.tr, SEL.tss, BigInt(AT.tss), 0x20ff, 0x8b);
  setSegment(cpu, SEG.ldtr, 0, 0n, 0, 0x1_0000);
  f.put(AT.tss + 4, 4, AT.kernelStack, SEL.kdata);
  cpu.setGpr(4, BigInt(cpl === 0 ? AT.kernelStack : AT.userStack));
  cpu.set64(S.rip, BigInt(AT.code));
  modeChanged(cpu);
};

/** 64-bit IDT gate. @param type 14 interrupt, 15 trap */
export const gate64 = (
  f: Flat,
  vector: number,
  rip: number,
  options: { type?: number; dpl?: number; ist?: number; selector?: number; present?: boolean } = {},
): void => {
  const { type = 14, dpl = 0, ist = 0, selector = SEL.kcode, present = true } = options;
  const word = (rip & 0xffff_0000) | (present ? 0x8000 : 0) | (dpl << 13) | (type << 8) | ist;
  f.put(AT.idt + 16 * vector, 4, (rip & 0xffff) | (selector << 16), word >>> 0, 0, 0);
};
export const gate32 = (
  f: Flat,
  vector: number,
  rip: number,
  options: { type?: number; dpl?: number; selector?: number } = {},
): void => {
  const { type = 14, dpl = 0, selector = SEL.kcode32 } = options;
  f.put(
    AT.idt + 8 * vector,
    4,
    (rip & 0xffff) | (selector << 16),
    ((rip & 0xffff_0000) | 0x8000 | (dpl << 13) | (type << 8)) >>> 0,
  );
};

export const selectors = (cpu: Cpu): string =>
  [0, 1, 2, 3, 4, 5].map((s) => cpu.get32(S.segSel + 4 * s).toString(16)).join(' ');
