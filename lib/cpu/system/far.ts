/**
 * Far JMP, CALL and RET in every mode, through call gates (16, 32 and 64 bits) with stack switches, and to tasks.
 *
 * SDM volume 2, JMP, CALL, RET; volume 3, "Privilege Checking When Transferring Program Control Between Code Segments".
 */
import { S, SEG, VECTOR } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { readRflags } from '../rflags.js';
import { tssStack, tssStack64 } from './gates.js';
import { canonical } from './memory.js';
import {
  AR,
  attrOf,
  checkStackSegment,
  type Descriptor,
  descriptorLimit,
  dplOf,
  isCode,
  limitOf,
  longMode,
  markAccessed,
  modeChanged,
  protectedMode,
  readDescriptor,
  selectorFault,
  selectorOf,
  setFromDescriptor,
  setNull,
  setRealSegment,
  virtual8086,
  widen,
} from './segments.js';
import { currentStack, peek, peekAll, pushAll, setStackPointer, stack64, stackOf } from './stack.js';
import { taskGate, taskSwitch } from './task-switch.js';

export type OperandSize = 16 | 32 | 64;
export const bytesOf = (w: OperandSize): 2 | 4 | 8 => (w / 8) as 2 | 4 | 8;
const truncate = (v: bigint, w: OperandSize): bigint => BigInt.asUintN(w, v);

/** Is `rip` inside the code segment `d`? #GP(0) otherwise. In 64-bit code it must be canonical. */
export const checkTarget = (cpu: Cpu, d: Descriptor, rip: bigint): boolean => {
  const inside = longMode(cpu) && (d.attr & AR.l) !== 0 ? canonical(rip) : rip <= BigInt(descriptorLimit(d));
  return inside || cpu.gp();
};

/** Code descriptor of a direct transfer at unchanged privilege. */
const sameLevelCode = (cpu: Cpu, selector: number, d: Descriptor, rpl: number): boolean => {
  const cpl = cpu.get32(S.cpl);
  const dpl = dplOf(d.attr);
  const allowed = (d.attr & AR.conforming) !== 0 ? dpl <= cpl : rpl <= cpl && dpl === cpl;
  if (!allowed || (longMode(cpu) && (d.attr & (AR.l | AR.db)) === (AR.l | AR.db)))
    return selectorFault(cpu, VECTOR.gp, selector);
  return (d.attr & AR.p) !== 0 || selectorFault(cpu, VECTOR.np, selector);
};

const commitCode = (cpu: Cpu, selector: number, d: Descriptor, cpl: number, rip: bigint): true => {
  setFromDescriptor(cpu, SEG.cs, (selector & 0xfffc) | cpl, d);
  cpu.nextRip = rip;
  modeChanged(cpu);
  return true;
};

const farReal = (cpu: Cpu, selector: number, offset: bigint, w: OperandSize, call: boolean): boolean => {
  const rip = truncate(offset, w);
  if (rip > BigInt(limitOf(cpu, SEG.cs))) return cpu.gp();
  if (call) {
    const stack = currentStack(cpu);
    if (!pushAll(cpu, stack, [BigInt(selectorOf(cpu, SEG.cs)), truncate(cpu.nextRip, w)], bytesOf(w)))
      return false;
    setStackPointer(cpu, stack.size, stack.sp);
  }
  setRealSegment(cpu, SEG.cs, selector, virtual8086(cpu));
  cpu.nextRip = rip;
  modeChanged(cpu);
  return true;
};

/** CALL through a gate to a more privileged segment: the frame goes to the stack of the TSS. */
const callInner = (
  cpu: Cpu,
  selector: number,
  d: Descriptor,
  rip: bigint,
  size: 2 | 4 | 8,
  parameters: number,
): boolean => {
  const cpl = dplOf(d.attr);
  const old = [BigInt(selectorOf(cpu, SEG.ss)), cpu.gpr(4)];
  const back = [BigInt(selectorOf(cpu, SEG.cs)), cpu.nextRip];
  if (size === 8) {
    const sp = tssStack64(cpu, cpl);
    if (sp === undefined) return false;
    const stack = stack64(sp, 'supervisor');
    if (!markAccessed(cpu, d) || !pushAll(cpu, stack, [...old, ...back], 8)) return false;
    setNull(cpu, SEG.ss, cpl, cpl);
    cpu.setGpr(4, stack.sp);
    return commitCode(cpu, selector, d, cpl, rip);
  }
  const target = tssStack(cpu, cpl);
  if (target === undefined) return false;
  const copied = peekAll(cpu, currentStack(cpu), parameters, size);
  if (copied === undefined) return false;
  const stack = stackOf(target.d, target.selector, target.sp, 'supervisor');
  if (!checkTarget(cpu, d, rip) || !markAccessed(cpu, d)) return false;
  if (!pushAll(cpu, stack, [...old, ...copied.reverse(), ...back], size)) return false;
  setFromDescriptor(cpu, SEG.ss, target.selector, target.d);
  setStackPointer(cpu, stack.size, stack.sp);
  return commitCode(cpu, selector, d, cpl, rip);
};

const throughGate = (cpu: Cpu, narrow: Descriptor, call: boolean): boolean => {
  const selector = narrow.selector;
  const gate = longMode(cpu) ? widen(cpu, narrow) : narrow;
  if (gate === undefined) return false;
  if (dplOf(gate.attr) < Math.max(cpu.get32(S.cpl), selector & 3))
    return selectorFault(cpu, VECTOR.gp, selector);
  if ((gate.attr & AR.p) === 0) return selectorFault(cpu, VECTOR.np, selector);
  const size = longMode(cpu) ? 8 : (gate.attr & 8) !== 0 ? 4 : 2;
  const code = gate.lo >>> 16;
  if ((code & 0xfffc) === 0) return cpu.gp();
  const d = readDescriptor(cpu, code);
  if (d === undefined) return false;
  const cpl = cpu.get32(S.cpl);
  const dpl = dplOf(d.attr);
  const wrongSize = longMode(cpu) && (d.attr & (AR.l | AR.db)) !== AR.l;
  const conforming = (d.attr & AR.conforming) !== 0;
  if (!isCode(d.attr) || dpl > cpl || wrongSize || (!call && !conforming && dpl !== cpl))
    return selectorFault(cpu, VECTOR.gp, code);
  if ((d.attr & AR.p) === 0) return selectorFault(cpu, VECTOR.np, code);
  const offset = size === 2 ? gate.lo & 0xffff : ((gate.lo & 0xffff) | (gate.hi & 0xffff_0000)) >>> 0;
  const rip = (BigInt(gate.baseHigh) << 32n) | BigInt(offset);
  if (call && !conforming && dpl < cpl)
    return callInner(cpu, code, d, rip, size, size === 8 ? 0 : gate.hi & 31);
  if (!checkTarget(cpu, d, rip) || !markAccessed(cpu, d)) return false;
  if (call) {
    const stack = currentStack(cpu);
    if (!pushAll(cpu, stack, [BigInt(selectorOf(cpu, SEG.cs)), cpu.nextRip], size)) return false;
    setStackPointer(cpu, stack.size, stack.sp);
  }
  return commitCode(cpu, code, d, cpl, rip);
};

const farTransfer = (cpu: Cpu, selector: number, offset: bigint, w: OperandSize, call: boolean): boolean => {
  if (!protectedMode(cpu)) return farReal(cpu, selector, offset, w, call);
  if ((selector & 0xfffc) === 0) return cpu.gp();
  const d = readDescriptor(cpu, selector);
  if (d === undefined) return false;
  if (isCode(d.attr)) {
    if (!sameLevelCode(cpu, selector, d, selector & 3)) return false;
    const rip = truncate(offset, longMode(cpu) && (d.attr & AR.l) !== 0 ? w : w === 16 ? 16 : 32);
    if (!checkTarget(cpu, d, rip) || !markAccessed(cpu, d)) return false;
    if (call) {
      const stack = currentStack(cpu);
      if (!pushAll(cpu, stack, [BigInt(selectorOf(cpu, SEG.cs)), truncate(cpu.nextRip, w)], bytesOf(w)))
        return false;
      setStackPointer(cpu, stack.size, stack.sp);
    }
    return commitCode(cpu, selector, d, cpu.get32(S.cpl), rip);
  }
  const type = (d.attr & AR.s) !== 0 ? -1 : d.attr & 15;
  if (type === 12 || (type === 4 && !longMode(cpu))) return throughGate(cpu, d, call);
  if (longMode(cpu) || ![1, 5, 9].includes(type)) return selectorFault(cpu, VECTOR.gp, selector);
  if (dplOf(d.attr) < Math.max(cpu.get32(S.cpl), selector & 3))
    return selectorFault(cpu, VECTOR.gp, selector);
  if ((d.attr & AR.p) === 0) return selectorFault(cpu, VECTOR.np, selector);
  const source = call ? 0 : 2;
  const target = type === 5 ? taskGate(d) : selector;
  return taskSwitch(cpu, target, source, cpu.nextRip, -1, BigInt(readRflags(cpu)));
};

/** The code segment that RET or IRET goes back to. */
export const returnCode = (cpu: Cpu, selector: number): Descriptor | undefined => {
  if ((selector & 0xfffc) === 0) {
    cpu.gp();
    return undefined;
  }
  const d = readDescriptor(cpu, selector);
  if (d === undefined) return undefined;
  const rpl = selector & 3;
  const dpl = dplOf(d.attr);
  const level = (d.attr & AR.conforming) !== 0 ? dpl <= rpl : dpl === rpl;
  const both = longMode(cpu) && (d.attr & (AR.l | AR.db)) === (AR.l | AR.db);
  if (!isCode(d.attr) || rpl < cpu.get32(S.cpl) || !level || both) {
    selectorFault(cpu, VECTOR.gp, selector);
    return undefined;
  }
  if ((d.attr & AR.p) === 0) {
    selectorFault(cpu, VECTOR.np, selector);
    return undefined;
  }
  return d;
};

/** The stack segment that comes with it: 'null' where a null SS is allowed (64-bit code below CPL 3). */
export const returnStack = (
  cpu: Cpu,
  selector: number,
  cs: Descriptor,
  cpl: number,
): Descriptor | 'null' | undefined => {
  if ((selector & 0xfffc) === 0) {
    if (longMode(cpu) && (cs.attr & AR.l) !== 0 && cpl !== 3 && (selector & 3) === cpl) return 'null';
    cpu.gp();
    return undefined;
  }
  const d = checkStackSegment(cpu, selector, cpl, VECTOR.gp);
  return d === undefined || !markAccessed(cpu, d) ? undefined : d;
};

/** Commits a return: CS, RIP, and with `ss` the outer stack. Data segments too privileged for it become null. */
export const commitReturn = (
  cpu: Cpu,
  cs: Descriptor,
  rip: bigint,
  outer: { readonly ss: Descriptor | 'null'; readonly selector: number; readonly sp: bigint } | undefined,
): true => {
  const before = cpu.get32(S.cpl);
  const cpl = cs.selector & 3;
  setFromDescriptor(cpu, SEG.cs, cs.selector, cs);
  cpu.nextRip = rip;
  if (outer !== undefined) {
    if (outer.ss === 'null') setNull(cpu, SEG.ss, outer.selector, cpl);
    else setFromDescriptor(cpu, SEG.ss, outer.selector, outer.ss);
  }
  modeChanged(cpu);
  if (outer !== undefined) setStackPointer(cpu, cpu.get32(S.stackSize) as OperandSize, outer.sp);
  if (cpl > before) {
    for (const seg of [SEG.es, SEG.ds, SEG.fs, SEG.gs]) {
      const attr = attrOf(cpu, seg);
      const conforming = isCode(attr) && (attr & AR.conforming) !== 0;
      if ((attr & AR.unusable) === 0 && !conforming && dplOf(attr) < cpl) setNull(cpu, seg, 0);
    }
  }
  return true;
};

/** @param release bytes of parameters that RET n removes */
const farReturn = (cpu: Cpu, w: OperandSize, release: number): boolean => {
  const size = bytesOf(w);
  const stack = currentStack(cpu);
  const frame = peekAll(cpu, stack, 2, size);
  if (frame === undefined) return false;
  const [rip, cs] = frame as [bigint, bigint];
  const selector = Number(cs & 0xffffn);
  const after = stack.sp + BigInt(2 * size + release);
  if (!protectedMode(cpu)) {
    if (rip > BigInt(limitOf(cpu, SEG.cs))) return cpu.gp();
    setStackPointer(cpu, stack.size, after);
    setRealSegment(cpu, SEG.cs, selector, virtual8086(cpu));
    cpu.nextRip = rip;
    modeChanged(cpu);
    return true;
  }
  const d = returnCode(cpu, selector);
  if (d === undefined) return false;
  const cpl = selector & 3;
  if (cpl === cpu.get32(S.cpl)) {
    if (!checkTarget(cpu, d, rip) || !markAccessed(cpu, d)) return false;
    setStackPointer(cpu, stack.size, after);
    return commitReturn(cpu, d, rip, undefined);
  }
  const sp = peek(cpu, stack, 2, size, release);
  if (sp === undefined) return false;
  const ssValue = peek(cpu, stack, 3, size, release);
  if (ssValue === undefined) return false;
  const ss = returnStack(cpu, Number(ssValue & 0xffffn), d, cpl);
  if (ss === undefined || !checkTarget(cpu, d, rip) || !markAccessed(cpu, d)) return false;
  return commitReturn(cpu, d, rip, { ss, selector: Number(ssValue & 0xffffn), sp: sp + BigInt(release) });
};

/** args: selector, offset, operand size. */
const jmpFar: Helper = (cpu) =>
  farTransfer(cpu, cpu.arg32(0) & 0xffff, cpu.arg64(1), cpu.arg32(2) as OperandSize, false);
const callFar: Helper = (cpu) =>
  farTransfer(cpu, cpu.arg32(0) & 0xffff, cpu.arg64(1), cpu.arg32(2) as OperandSize, true);
/** args: operand size, bytes to release. */
const retFar: Helper = (cpu) => farReturn(cpu, cpu.arg32(0) as OperandSize, cpu.arg32(1) & 0xffff);

export const FAR_HELPERS: HelperTable = { jmpFar, callFar, retFar };
