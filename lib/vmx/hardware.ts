/**
 * The whole machine a hypervisor runs on: host RAM, one processor with its memory unit and engine, and the VMX unit.
 * After this the processor is in the state of RESET, and `port` is all that a hypervisor needs.
 */
import { LabError } from '../base/error.js';
import { Cpu, type CpuOptions } from '../cpu/core.js';
import { ENGINES, type Engine, type EngineName } from '../cpu/engine.js';
import { FPU_HELPERS } from '../cpu/fpu/helpers.js';
import type { HelperTable } from '../cpu/helpers.js';
import { createInterpreter } from '../cpu/interpreter/interpreter.js';
import { Processor } from '../cpu/processor.js';
import { createReference } from '../cpu/reference.js';
import { SYSTEM_HELPERS } from '../cpu/system/helpers.js';
import { resetState } from '../cpu/system/reset.js';
import { createMmu, type Mmu } from '../memory/mmu.js';
import { Ram } from '../memory/ram.js';
import { createVmx, type VmxUnit } from './unit.js';

export { ENGINES, type EngineName } from '../cpu/engine.js';

/** Every helper that an instruction row names. */
export const HELPERS: HelperTable = { ...SYSTEM_HELPERS, ...FPU_HELPERS };

export interface Hardware {
  readonly ram: Ram;
  readonly cpu: Cpu;
  readonly mmu: Mmu;
  readonly processor: Processor;
  readonly port: VmxUnit;
}

export const createEngine = (name: EngineName, cpu: Cpu, mmu: Mmu): Engine => {
  if (name === 'interpreter') return createInterpreter(cpu, mmu, HELPERS);
  if (name === 'reference') return createReference(cpu, HELPERS);
  throw new LabError('engine.name', `there is no engine '${String(name)}'`, ENGINES.join(', '));
};

/** @param bytes host RAM, a multiple of 4096 */
export const createHardware = (
  bytes: number,
  engine: EngineName = 'interpreter',
  options: CpuOptions = {},
): Hardware => {
  const ram = new Ram(bytes);
  const cpu = new Cpu(ram, options);
  const mmu = createMmu(cpu);
  cpu.mmu = mmu;
  resetState(cpu);
  const processor = new Processor(cpu, createEngine(engine, cpu, mmu));
  return { ram, cpu, mmu, processor, port: createVmx(cpu, mmu, processor) };
};
