/**
 * Delivery through the interrupt table of each mode: one attempt, which may fault itself.
 *
 * SDM volume 3, chapter "Interrupt and Exception Handling", and INT n in volume 2. A failed attempt has recorded a fault
 * or VM exit and changed no register. Not modelled: shadow stacks, the software interrupt redirection map (CR4.VME).
 */
import { FLAG, S, SEG, VECTOR } from '../../isa/state.js';
import type { Cpu, PendingEvent } from '../core.js';
import { readRflags } from '../rflags.js';
import { canonical, readLinear } from './memory.js';
import {
  AR,
  attrOf,
  checkStackSegment,
  type Descriptor,
  descriptorLimit,
  dplOf,
  externalBit,
  isCode,
  limitOf,
  longMode,
  markAccessed,
  modeChanged,
  readDescriptor,
  readTss,
  realMode,
  selectorFault,
  selectorOf,
  setFromDescriptor,
  setNull,
  setRealSegment,
  virtual8086,
} from './segments.js';
import { currentStack, pushAll, type Stack, setStackPointer, stack64, stackOf } from './stack.js';
import { taskSwitch } from './task-switch.js';

/** Exceptions of the fault class: RF is set in the RFLAGS image that they push. */
const FAULTS = new Set([0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19, 20, 21]);

/** General detection (DR6.BD) is the one debug exception that is such a fault. */
const isFault = (event: PendingEvent): boolean =>
  event.type === 3 &&
  (FAULTS.has(event.vector) || (event.vector === VECTOR.db && (event.address & 0x2000n) !== 0n));
const image = (cpu: Cpu, event: PendingEvent): bigint =>
  BigInt(readRflags(cpu) | (isFault(event) ? FLAG.rf : 0));

const gateFault = (cpu: Cpu, vector: number, event: PendingEvent): false =>
  cpu.fault(vector, (event.vector << 3) | 2 | externalBit(cpu));

/** INT n, INT3 and INTO must pass the gate's DPL; INT1 and everything else need not. */
const software = (event: PendingEvent): boolean => event.type === 4 || event.type === 6;

/** The code segment of a handler and the privilege it runs at; its accessed bit is set. */
const handlerCode = (
  cpu: Cpu,
  selector: number,
  fromV86: boolean,
): { d: Descriptor; cpl: number } | undefined => {
  if ((selector & 0xfffc) === 0) {
    cpu.gp(externalBit(cpu));
    return undefined;
  }
  const d = readDescriptor(cpu, selector);
  if (d === undefined) return undefined;
  const cpl = cpu.get32(S.cpl);
  const dpl = dplOf(d.attr);
  const conforming = (d.attr & AR.conforming) !== 0;
  const wrongSize = longMode(cpu) && (d.attr & (AR.l | AR.db)) !== AR.l;
  if (!isCode(d.attr) || dpl > cpl || wrongSize || (fromV86 && (conforming || dpl !== 0))) {
    selectorFault(cpu, VECTOR.gp, selector);
    return undefined;
  }
  if ((d.attr & AR.p) === 0) {
    selectorFault(cpu, VECTOR.np, selector);
    return undefined;
  }
  return markAccessed(cpu, d) ? { d, cpl: conforming ? cpl : dpl } : undefined;
};

/** What delivery does to RFLAGS, CS, RIP and the interruptibility, after the frame has been pushed. */
const enterHandler = (cpu: Cpu, event: PendingEvent, selector: number, rip: bigint, clear: number): true => {
  cpu.set32(S.eflags, cpu.get32(S.eflags) & ~clear);
  cpu.set32(S.segSel + 4 * SEG.cs, selector);
  cpu.nextRip = rip;
  const blocking = cpu.get32(S.interruptibility) & ~3;
  cpu.set32(S.interruptibility, event.type === 2 ? blocking | 8 : blocking);
  modeChanged(cpu);
  return true;
};

const tssFault = (cpu: Cpu): undefined => {
  selectorFault(cpu, VECTOR.ts, selectorOf(cpu, SEG.tr));
  return undefined;
};

/** An 8-byte stack pointer of the 64-bit TSS: RSP0-RSP2 at 4 + 8n, IST1-IST7 at 0x24 + 8(n-1). */
const tssPointer64 = (cpu: Cpu, offset: number): bigint | undefined => {
  if (offset + 7 > limitOf(cpu, SEG.tr)) return tssFault(cpu);
  const base = cpu.get64(S.segBase + 8 * SEG.tr);
  return readLinear(cpu, BigInt.asUintN(64, base + BigInt(offset)), 8, 'supervisor');
};

/** RSP for privilege `cpl` from the 64-bit TSS. */
export const tssStack64 = (cpu: Cpu, cpl: number): bigint | undefined => tssPointer64(cpu, 4 + 8 * cpl);

/** SS:ESP for privilege `cpl` from a legacy TSS, checked (#TS). */
export const tssStack = (
  cpu: Cpu,
  cpl: number,
): { selector: number; d: Descriptor; sp: bigint } | undefined => {
  const wide = (attrOf(cpu, SEG.tr) & 8) !== 0;
  const at = wide ? 4 + 8 * cpl : 2 + 4 * cpl;
  if (at + (wide ? 5 : 3) > limitOf(cpu, SEG.tr)) return tssFault(cpu);
  const sp = readTss(cpu, at, wide ? 4 : 2);
  if (sp === undefined) return undefined;
  const selector = readTss(cpu, at + (wide ? 4 : 2), 2);
  if (selector === undefined) return undefined;
  if ((selector & 0xfffc) === 0) {
    cpu.fault(VECTOR.ts, externalBit(cpu));
    return undefined;
  }
  const d = checkStackSegment(cpu, selector, cpl, VECTOR.ts);
  return d === undefined || !markAccessed(cpu, d) ? undefined : { selector, d, sp: BigInt(sp) };
};

const deliverLong = (cpu: Cpu, event: PendingEvent, returnRip: bigint): boolean => {
  if (event.vector * 16 + 15 > cpu.get32(S.idtrLimit)) return gateFault(cpu, VECTOR.gp, event);
  const at = BigInt.asUintN(64, cpu.get64(S.idtrBase) + BigInt(event.vector * 16));
  const lo = readLinear(cpu, at, 8, 'supervisor');
  if (lo === undefined) return false;
  const hi = readLinear(cpu, BigInt.asUintN(64, at + 8n), 8, 'supervisor');
  if (hi === undefined) return false;
  const word = Number(lo >> 32n);
  const type = (word >>> 8) & 0x1f;
  if (type !== 14 && type !== 15) return gateFault(cpu, VECTOR.gp, event);
  if (software(event) && ((word >>> 13) & 3) < cpu.get32(S.cpl)) return gateFault(cpu, VECTOR.gp, event);
  if ((word & 0x8000) === 0) return gateFault(cpu, VECTOR.np, event);
  const selector = Number((lo >> 16n) & 0xffffn);
  const code = handlerCode(cpu, selector, false);
  if (code === undefined) return false;
  const rip = (lo & 0xffffn) | ((lo >> 32n) & 0xffff_0000n) | ((hi & 0xffff_ffffn) << 32n);
  if (!canonical(rip)) return cpu.gp(externalBit(cpu));

  const cpl = cpu.get32(S.cpl);
  const ist = word & 7;
  let sp: bigint | undefined = cpu.gpr(4);
  if (ist !== 0) sp = tssPointer64(cpu, 0x24 + 8 * (ist - 1));
  else if (code.cpl !== cpl) sp = tssStack64(cpu, code.cpl);
  if (sp === undefined) return false;
  const stack = stack64(sp & ~15n, code.cpl === 3 ? 'user' : 'supervisor');
  const frame = [
    BigInt(selectorOf(cpu, SEG.ss)),
    cpu.gpr(4),
    image(cpu, event),
    BigInt(selectorOf(cpu, SEG.cs)),
    returnRip,
  ];
  if (event.code >= 0) frame.push(BigInt(event.code));
  if (!pushAll(cpu, stack, frame, 8)) return false;

  if (code.cpl !== cpl) setNull(cpu, SEG.ss, code.cpl, code.cpl);
  cpu.setGpr(4, stack.sp);
  setFromDescriptor(cpu, SEG.cs, selector, code.d);
  const clear = FLAG.tf | FLAG.nt | FLAG.rf | FLAG.vm | (type === 14 ? FLAG.if : 0);
  return enterHandler(cpu, event, (selector & 0xfffc) | code.cpl, rip, clear);
};

const deliverReal = (cpu: Cpu, event: PendingEvent, returnRip: bigint): boolean => {
  if (event.vector * 4 + 3 > cpu.get32(S.idtrLimit)) return cpu.gp(0);
  const entry = readLinear(
    cpu,
    (cpu.get64(S.idtrBase) + BigInt(event.vector * 4)) & 0xffff_ffffn,
    4,
    'supervisor',
  );
  if (entry === undefined) return false;
  const stack = currentStack(cpu);
  const frame = [image(cpu, event) & 0xffffn, BigInt(selectorOf(cpu, SEG.cs)), returnRip & 0xffffn];
  if (!pushAll(cpu, stack, frame, 2)) return false;
  setStackPointer(cpu, stack.size, stack.sp);
  const selector = Number(entry >> 16n);
  setRealSegment(cpu, SEG.cs, selector, false);
  return enterHandler(cpu, event, selector, entry & 0xffffn, FLAG.if | FLAG.tf | FLAG.ac | FLAG.rf);
};

const deliverProtected = (cpu: Cpu, event: PendingEvent, returnRip: bigint): boolean => {
  if (event.vector * 8 + 7 > cpu.get32(S.idtrLimit)) return gateFault(cpu, VECTOR.gp, event);
  const gate = readLinear(
    cpu,
    (cpu.get64(S.idtrBase) + BigInt(event.vector * 8)) & 0xffff_ffffn,
    8,
    'supervisor',
  );
  if (gate === undefined) return false;
  const word = Number(gate >> 32n);
  const type = (word >>> 8) & 0x1f;
  if (![5, 6, 7, 14, 15].includes(type)) return gateFault(cpu, VECTOR.gp, event);
  if (software(event) && ((word >>> 13) & 3) < cpu.get32(S.cpl)) return gateFault(cpu, VECTOR.gp, event);
  if ((word & 0x8000) === 0) return gateFault(cpu, VECTOR.np, event);
  const selector = Number((gate >> 16n) & 0xffffn);
  if (type === 5) return taskSwitch(cpu, selector, 3, returnRip, event.code, image(cpu, event));

  const v86 = virtual8086(cpu);
  const code = handlerCode(cpu, selector, v86);
  if (code === undefined) return false;
  const wide = type >= 14;
  const rip = wide ? (gate & 0xffffn) | ((gate >> 32n) & 0xffff_0000n) : gate & 0xffffn;
  const cpl = cpu.get32(S.cpl);
  const inner = code.cpl !== cpl;
  let stack: Stack = currentStack(cpu);
  let ss: { selector: number; d: Descriptor } | undefined;
  const frame: bigint[] = [];
  if (inner) {
    const target = tssStack(cpu, code.cpl);
    if (target === undefined) return false;
    stack = stackOf(target.d, target.selector, target.sp, code.cpl === 3 ? 'user' : 'supervisor');
    ss = target;
    if (v86) for (const seg of [SEG.gs, SEG.fs, SEG.ds, SEG.es]) frame.push(BigInt(selectorOf(cpu, seg)));
    frame.push(BigInt(selectorOf(cpu, SEG.ss)), cpu.gpr(4));
  }
  frame.push(image(cpu, event), BigInt(selectorOf(cpu, SEG.cs)), returnRip);
  if (event.code >= 0) frame.push(BigInt(event.code));
  if (Number(rip) > descriptorLimit(code.d)) return cpu.gp(externalBit(cpu));
  if (!pushAll(cpu, stack, frame, wide ? 4 : 2)) return false;

  if (ss !== undefined) setFromDescriptor(cpu, SEG.ss, ss.selector, ss.d);
  if (v86) for (const seg of [SEG.gs, SEG.fs, SEG.ds, SEG.es]) setNull(cpu, seg, 0);
  setStackPointer(cpu, stack.size, stack.sp);
  setFromDescriptor(cpu, SEG.cs, selector, code.d);
  const clear = FLAG.tf | FLAG.nt | FLAG.rf | FLAG.vm | (type === 6 || type === 14 ? FLAG.if : 0);
  return enterHandler(cpu, event, (selector & 0xfffc) | code.cpl, rip, clear);
};

/** One attempt at delivery; false with a fault or VM exit recorded. */
export const deliverOnce = (cpu: Cpu, event: PendingEvent, returnRip: bigint): boolean => {
  if (realMode(cpu)) return deliverReal(cpu, event, returnRip);
  return longMode(cpu) ? deliverLong(cpu, event, returnRip) : deliverProtected(cpu, event, returnRip);
};
