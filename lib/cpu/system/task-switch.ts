/**
 * Hardware task switches outside IA-32e mode, through TSS descriptors, task gates and IRET with NT.
 *
 * SDM volume 3, chapter "Task Management". In VMX non-root operation every switch exits before anything is changed.
 * With T set in its TSS the new task begins with a debug trap. Faults in the context of the new task are raised after
 * the switch has been committed, for the first segment that fails, with its selector (#TS, #NP, #SS).
 */
import { CR0, CR4, FLAG, S, SEG, VECTOR } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import { readRflags, writeRflags } from '../rflags.js';
import { DR6 } from './breakpoints.js';
import { loadPdptes } from './control-registers.js';
import { probeWrite, readLinear32, writeLinear } from './memory.js';
import {
  AR,
  attrOf,
  baseOf,
  type Descriptor,
  descriptorBase,
  descriptorLimit,
  dplOf,
  isCode,
  isWritableData,
  limitOf,
  longMode,
  markAccessed,
  modeChanged,
  readDescriptor,
  selectorFault,
  selectorOf,
  setFromDescriptor,
  setNull,
  setRealSegment,
  writeTypeByte,
} from './segments.js';
import { currentStack, pushAll, setStackPointer } from './stack.js';

/** What started the switch, as in the exit qualification of VM exits: 0 CALL, 1 IRET, 2 JMP, 3 task gate in the IDT. */
export type TaskSource = 0 | 1 | 2 | 3;

/** TSS selector in a task gate. */
export const taskGate = (gate: Descriptor): number => gate.lo >>> 16;

const SEGMENTS = [SEG.es, SEG.cs, SEG.ss, SEG.ds, SEG.fs, SEG.gs] as const;
/** Offsets of the dynamic fields: 32-bit TSS, 16-bit TSS. */
const WIDE = { cr3: 0x1c, eip: 0x20, eflags: 0x24, gpr: 0x28, seg: 0x48, ldt: 0x60, end: 0x67 };
const NARROW = { cr3: -1, eip: 0x0e, eflags: 0x10, gpr: 0x12, seg: 0x22, ldt: 0x2a, end: 0x2b };

const at = (base: bigint, offset: number): bigint => (base + BigInt(offset)) & 0xffff_ffffn;

interface TaskImage {
  cr3: number;
  eip: number;
  eflags: number;
  gpr: number[];
  seg: number[];
  ldt: number;
  /** The T bit. */
  trap: boolean;
}

const readImage = (cpu: Cpu, base: bigint, wide: boolean): TaskImage | undefined => {
  const layout = wide ? WIDE : NARROW;
  const step = wide ? 4 : 2;
  const offsets = [wide ? layout.cr3 : layout.eip, layout.eip, layout.eflags, layout.ldt];
  for (let i = 0; i < 8; i++) offsets.push(layout.gpr + i * step);
  for (let i = 0; i < (wide ? 6 : 4); i++) offsets.push(layout.seg + i * step);
  // the T bit is in the word before the I/O map base; 16-bit segments have none
  if (wide) offsets.push(0x64);
  const values: number[] = [];
  for (const offset of offsets) {
    const v = readLinear32(cpu, at(base, offset), step, 'supervisor');
    if (v === undefined) return undefined;
    values.push(v);
  }
  const [cr3 = 0, eip = 0, eflags = 0, ldt = 0] = values;
  const seg = values.slice(12, wide ? 18 : 16).map((v) => v & 0xffff);
  while (seg.length < 6) seg.push(0);
  return {
    cr3,
    eip,
    eflags,
    gpr: values.slice(4, 12),
    seg,
    ldt: ldt & 0xffff,
    trap: wide && (values[18]! & 1) !== 0,
  };
};

/** Stores the state of the old task; its TSS has been probed. */
const saveOld = (cpu: Cpu, returnRip: bigint, flags: bigint): boolean => {
  const wide = (attrOf(cpu, SEG.tr) & 8) !== 0;
  const layout = wide ? WIDE : NARROW;
  const step = wide ? 4 : 2;
  const base = baseOf(cpu, SEG.tr);
  const put = (offset: number, v: bigint, size: number): boolean =>
    writeLinear(cpu, at(base, offset), size, v, 'supervisor');
  if (!put(layout.eip, returnRip, step) || !put(layout.eflags, flags, step)) return false;
  for (let i = 0; i < 8; i++) if (!put(layout.gpr + i * step, cpu.gpr(i), step)) return false;
  for (let i = 0; i < (wide ? 6 : 4); i++) {
    if (!put(layout.seg + i * step, BigInt(selectorOf(cpu, SEGMENTS[i]!)), 2)) return false;
  }
  return true;
};

/** Loads LDTR and the segment registers of the new task; false with the first fault recorded. */
const loadSegments = (cpu: Cpu, task: TaskImage): boolean => {
  if ((task.eflags & FLAG.vm) !== 0) {
    for (let i = 0; i < 6; i++) setRealSegment(cpu, SEGMENTS[i]!, task.seg[i]!, true);
    modeChanged(cpu);
    return true;
  }
  for (let i = 0; i < 6; i++) setNull(cpu, SEGMENTS[i]!, task.seg[i]!, task.seg[1]! & 3);
  setNull(cpu, SEG.ldtr, task.ldt);
  if ((task.ldt & 0xfffc) !== 0) {
    const d = (task.ldt & 4) !== 0 ? undefined : readDescriptor(cpu, task.ldt, VECTOR.ts);
    if (d === undefined) return (task.ldt & 4) !== 0 && selectorFault(cpu, VECTOR.ts, task.ldt);
    if ((d.attr & 0x9f) !== 0x82) return selectorFault(cpu, VECTOR.ts, task.ldt);
    setFromDescriptor(cpu, SEG.ldtr, task.ldt, d);
  }
  const cpl = task.seg[1]! & 3;
  for (const i of [1, 2, 0, 3, 4, 5]) {
    const selector = task.seg[i]!;
    const seg = SEGMENTS[i]!;
    if ((selector & 0xfffc) === 0) {
      if (seg === SEG.cs || seg === SEG.ss) return selectorFault(cpu, VECTOR.ts, selector);
      continue;
    }
    const d = readDescriptor(cpu, selector, VECTOR.ts);
    if (d === undefined) return false;
    const dpl = dplOf(d.attr);
    const conforming = isCode(d.attr) && (d.attr & AR.conforming) !== 0;
    let ok: boolean;
    if (seg === SEG.cs) ok = isCode(d.attr) && (conforming ? dpl <= cpl : dpl === cpl);
    else if (seg === SEG.ss) ok = isWritableData(d.attr) && dpl === cpl && (selector & 3) === cpl;
    else {
      const readable = (d.attr & AR.s) !== 0 && (d.attr & (AR.code | AR.writable)) !== AR.code;
      ok = readable && (conforming || dpl >= Math.max(cpl, selector & 3));
    }
    if (!ok) return selectorFault(cpu, VECTOR.ts, selector);
    if ((d.attr & AR.p) === 0) return selectorFault(cpu, seg === SEG.ss ? VECTOR.ss : VECTOR.np, selector);
    if (!markAccessed(cpu, d)) return false;
    setFromDescriptor(cpu, seg, selector, d);
  }
  modeChanged(cpu);
  return true;
};

/**
 * Switches to the task of TSS `selector`.
 * @param returnRip saved as EIP of the old task
 * @param code error code to push onto the new task's stack, or -1
 * @param flags EFLAGS image saved for the old task
 */
export const taskSwitch = (
  cpu: Cpu,
  selector: number,
  source: TaskSource,
  returnRip: bigint,
  code: number,
  flags: bigint,
): boolean => {
  const vector = source === 1 ? VECTOR.ts : VECTOR.gp;
  if (longMode(cpu)) return cpu.gp(0);
  if ((selector & 4) !== 0 || (selector & 0xfffc) === 0) return selectorFault(cpu, vector, selector);
  const d = readDescriptor(cpu, selector, vector);
  if (d === undefined) return false;
  const type = (d.attr & AR.s) !== 0 ? -1 : d.attr & 15;
  const wanted = source === 1 ? [3, 11] : [1, 9];
  if (!wanted.includes(type)) return selectorFault(cpu, vector, selector);
  if ((d.attr & AR.p) === 0) return selectorFault(cpu, VECTOR.np, selector);
  const wide = (type & 8) !== 0;
  const layout = wide ? WIDE : NARROW;
  if (descriptorLimit(d) < layout.end) return selectorFault(cpu, VECTOR.ts, selector);
  if (cpu.guest?.taskSwitch(selector, source) === true) return false;

  const oldSelector = selectorOf(cpu, SEG.tr);
  const oldBase = baseOf(cpu, SEG.tr);
  const oldWide = (attrOf(cpu, SEG.tr) & 8) !== 0;
  if (limitOf(cpu, SEG.tr) < (oldWide ? WIDE : NARROW).end) return selectorFault(cpu, VECTOR.ts, oldSelector);
  const base = descriptorBase(d);
  const task = readImage(cpu, base, wide);
  if (task === undefined) return false;
  const old = readDescriptor(cpu, oldSelector, VECTOR.ts);
  if (old === undefined || !probeWrite(cpu, oldBase, oldWide ? 0x68 : 0x2c, 'supervisor')) return false;
  const nests = source === 0 || source === 3;
  if (nests && !probeWrite(cpu, base, 2, 'supervisor')) return false;
  const saved = source === 1 ? flags & ~BigInt(FLAG.nt) : flags;
  if (!saveOld(cpu, returnRip, saved)) return false;
  if (!nests && !writeTypeByte(cpu, old, old.attr & 0xff & ~2)) return false;
  if (nests && !writeLinear(cpu, base, 2, BigInt(oldSelector), 'supervisor')) return false;
  if (source !== 1 && !writeTypeByte(cpu, d, (d.attr & 0xff) | 2)) return false;

  // From here on the processor is in the new task.
  setFromDescriptor(cpu, SEG.tr, selector, { ...d, attr: d.attr | 2 });
  cpu.set64(S.cr0, cpu.get64(S.cr0) | BigInt(CR0.ts));
  if (wide && (cpu.get32(S.cr0) & CR0.pg) !== 0) {
    cpu.set64(S.cr3, BigInt(task.cr3));
    if ((cpu.get32(S.cr4) & CR4.pae) !== 0 && !loadPdptes(cpu, task.cr3)) return false;
    cpu.mmu.loadCr3(false);
  }
  const keep = wide ? 0 : readRflags(cpu) & 0xffff_0000;
  writeRflags(cpu, (wide ? task.eflags : (task.eflags & 0xffff) | keep) | (nests ? FLAG.nt : 0));
  for (let i = 0; i < 8; i++) {
    const v = BigInt(task.gpr[i]!);
    cpu.setGpr(i, wide ? v : 0xffff_0000n | (v & 0xffffn));
  }
  cpu.nextRip = BigInt(task.eip);
  cpu.set64(S.dr7, cpu.get64(S.dr7) & ~0x55n);
  cpu.noStepTrap = true;
  if (task.trap) {
    cpu.debugTraps |= DR6.bt;
    cpu.set32(S.attention, 1);
  }
  if (!loadSegments(cpu, task)) return false;
  if (BigInt(task.eip) > BigInt(limitOf(cpu, SEG.cs))) return cpu.gp();
  if (code >= 0) {
    const stack = currentStack(cpu);
    if (!pushAll(cpu, stack, [BigInt(code)], wide ? 4 : 2)) return false;
    setStackPointer(cpu, stack.size, stack.sp);
  }
  return true;
};
