/**
 * IRET, IRETD and IRETQ: returns within and between privilege levels, to virtual-8086 mode, and to a nested task.
 *
 * SDM volume 2, "IRET/IRETD/IRETQ". IRET ends NMI blocking. Not modelled: shadow stacks.
 */
import { FLAG, S, SEG, VECTOR } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { HelperTable } from '../helpers.js';
import { readRflags, writeRflags } from '../rflags.js';
import { DR7_ENABLES } from './breakpoints.js';
import { bytesOf, checkTarget, commitReturn, type OperandSize, returnCode, returnStack } from './far.js';
import { iretFast } from './iret-fast.js';
import {
  iopl,
  limitOf,
  longMode,
  markAccessed,
  modeChanged,
  readTss,
  realMode,
  selectorFault,
  setRealSegment,
  virtual8086,
} from './segments.js';
import { currentStack, peekAll, setStackPointer } from './stack.js';
import { taskSwitch } from './task-switch.js';

const LOW = FLAG.cf | FLAG.pf | FLAG.af | FLAG.zf | FLAG.sf | FLAG.tf | FLAG.df | FLAG.of | FLAG.nt;
const HIGH = FLAG.rf | FLAG.ac | FLAG.id;

/** Flags that IRET restores at a privilege level and operand size. */
const restored = (cpu: Cpu, w: OperandSize): number => {
  const cpl = cpu.get32(S.cpl);
  let mask = LOW | (w === 16 ? 0 : HIGH);
  if (cpl <= iopl(cpu)) mask |= FLAG.if;
  if (cpl === 0) mask |= FLAG.iopl | (w === 16 ? 0 : FLAG.vif | FLAG.vip);
  return mask;
};

/** What follows every return: NMIs are open again, and RF stays for one instruction if a code breakpoint could ask for it. */
const unblockNmi = (cpu: Cpu): true => {
  cpu.resumeFlagLoaded = true;
  if ((cpu.get32(S.dr7) & DR7_ENABLES) === 0) cpu.set32(S.eflags, cpu.get32(S.eflags) & ~FLAG.rf);

  cpu.set32(S.interruptibility, cpu.get32(S.interruptibility) & ~8);
  return true;
};

const iretReal = (cpu: Cpu, w: OperandSize): boolean => {
  const v86 = virtual8086(cpu);
  if (v86 && iopl(cpu) !== 3) return cpu.gp();
  const stack = currentStack(cpu);
  const size = bytesOf(w);
  const frame = peekAll(cpu, stack, 3, size);
  if (frame === undefined) return false;
  const [rip = 0n, cs = 0n, flags = 0n] = frame;
  if (rip > BigInt(limitOf(cpu, SEG.cs))) return cpu.gp();
  const mask = LOW | FLAG.if | (v86 ? 0 : FLAG.iopl) | (w === 16 ? 0 : HIGH);
  writeRflags(cpu, Number(flags & 0x3f_ffffn), mask);
  setStackPointer(cpu, stack.size, stack.sp + BigInt(3 * size));
  setRealSegment(cpu, SEG.cs, Number(cs & 0xffffn), v86);
  cpu.nextRip = rip;
  modeChanged(cpu);
  return unblockNmi(cpu);
};

/** The popped flags have VM set and CPL is 0: ESP, SS, ES, DS, FS and GS follow on the stack. */
const iretToV86 = (cpu: Cpu): boolean => {
  const frame = peekAll(cpu, currentStack(cpu), 9, 4);
  if (frame === undefined) return false;
  const [rip = 0n, cs = 0n, flags = 0n, sp = 0n, ss = 0n, es = 0n, ds = 0n, fs = 0n, gs = 0n] = frame;
  if (rip > 0xffffn) return cpu.gp();
  writeRflags(cpu, Number(flags & 0x3f_ffffn));
  const selectors: readonly [number, bigint][] = [
    [SEG.cs, cs],
    [SEG.ss, ss],
    [SEG.es, es],
    [SEG.ds, ds],
    [SEG.fs, fs],
    [SEG.gs, gs],
  ];
  for (const [seg, v] of selectors) setRealSegment(cpu, seg, Number(v & 0xffffn), true);
  cpu.setGpr(4, sp);
  cpu.nextRip = rip;
  modeChanged(cpu);
  return unblockNmi(cpu);
};

const iretTask = (cpu: Cpu): boolean => {
  if (longMode(cpu)) return cpu.gp();
  const link = readTss(cpu, 0, 2);
  if (link === undefined) return false;
  if ((link & 4) !== 0) return selectorFault(cpu, VECTOR.ts, link);
  return taskSwitch(cpu, link, 1, cpu.nextRip, -1, BigInt(readRflags(cpu))) && unblockNmi(cpu);
};

/** IRET of operand size `w`. Nothing has changed when it returns false. */
export const iret = (cpu: Cpu, w: OperandSize): boolean => {
  if (realMode(cpu) || virtual8086(cpu)) return iretReal(cpu, w);
  if ((cpu.get32(S.eflags) & FLAG.nt) !== 0) return iretTask(cpu);
  const long = cpu.get32(S.mode) === 64;
  const stack = currentStack(cpu);
  const size = bytesOf(w);
  const frame = peekAll(cpu, stack, 3, size);
  if (frame === undefined) return false;
  const [rip = 0n, csValue = 0n, flagsValue = 0n] = frame;
  const flags = Number(flagsValue & 0x3f_ffffn);
  const before = cpu.get32(S.cpl);
  if ((flags & FLAG.vm) !== 0 && w === 32 && before === 0 && !longMode(cpu)) return iretToV86(cpu);
  const cs = returnCode(cpu, Number(csValue & 0xffffn));
  if (cs === undefined) return false;
  const cpl = cs.selector & 3;
  const mask = restored(cpu, w);
  if (!long && cpl === before) {
    if (!checkTarget(cpu, cs, rip) || !markAccessed(cpu, cs)) return false;
    setStackPointer(cpu, stack.size, stack.sp + BigInt(3 * size));
    writeRflags(cpu, flags, mask);
    commitReturn(cpu, cs, rip, undefined);
    return unblockNmi(cpu);
  }
  const rest = peekAll(cpu, stack, 2, size, 3 * size);
  if (rest === undefined) return false;
  const [sp = 0n, ssValue = 0n] = rest;
  const selector = Number(ssValue & 0xffffn);
  const ss = returnStack(cpu, selector, cs, cpl);
  if (ss === undefined || !checkTarget(cpu, cs, rip) || !markAccessed(cpu, cs)) return false;
  writeRflags(cpu, flags, mask);
  commitReturn(cpu, cs, rip, { ss, selector, sp });
  return unblockNmi(cpu);
};

export const IRET_HELPERS: HelperTable = {
  /** arg: operand size. */
  iret: (cpu) => (cpu.arg32(0) === 64 && iretFast(cpu)) || iret(cpu, cpu.arg32(0) as OperandSize),
};
