/**
 * LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT and STR.
 *
 * SDM volume 2; volume 3, "Memory-Management Registers". In VMX non-root operation they exit under descriptor-table
 * exiting (reasons 46 and 47), after the privilege check.
 */
import { S, SEG, VECTOR } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { mayStoreSystem } from './control-registers.js';
import { instructionInfo } from './instruction-info.js';
import { canonical } from './memory.js';
import {
  AR,
  type Descriptor,
  longMode,
  readDescriptor,
  selectorFault,
  selectorOf,
  setFromDescriptor,
  setNull,
  widen,
  writeTypeByte,
} from './segments.js';

/** @param identity 0 SGDT/SLDT, 1 SIDT/STR, 2 LGDT/LLDT, 3 LIDT/LTR */
const exits = (cpu: Cpu, reason: 46 | 47, identity: number): boolean => {
  const guest = cpu.guest;
  if (guest === undefined) return false;
  const { displacement, info, insn } = instructionInfo(cpu);
  let word = info;
  if (reason === 46) {
    word &= ~(0xf000_0000 | 0x400);
    if (insn?.w === 32) word |= 1 << 11;
  } else if (insn?.mem !== undefined) word &= ~0xf000_0000;
  return guest.descriptorTable(reason, displacement, (word | (identity << 28)) >>> 0);
};

/** args: 0 GDTR or 1 IDTR, limit, base (cut to 24 bits here when the last argument, the operand size, is 16). */
const loadTable: Helper = (cpu) => {
  const idt = cpu.arg32(0) !== 0;
  const base = cpu.arg64(2) & (cpu.arg32(3) === 16 ? 0xff_ffffn : 0xffff_ffff_ffff_ffffn);
  if (cpu.get32(S.mode) === 64 && !canonical(base)) return cpu.gp();
  cpu.set64(idt ? S.idtrBase : S.gdtrBase, base);
  cpu.set32(idt ? S.idtrLimit : S.gdtrLimit, cpu.arg32(1) & 0xffff);
  return true;
};
/** arg: 0 GDTR or 1 IDTR. Called before the operand is fetched. */
const loadTableExit: Helper = (cpu) => !exits(cpu, 46, cpu.arg32(0) !== 0 ? 3 : 2);

/** arg: 0 GDTR or 1 IDTR; results: limit, base. */
const storeTable: Helper = (cpu) => {
  const idt = cpu.arg32(0) !== 0;
  if (!mayStoreSystem(cpu) || exits(cpu, 46, idt ? 1 : 0)) return false;
  cpu.result32(0, cpu.get32(idt ? S.idtrLimit : S.gdtrLimit));
  cpu.result64(1, cpu.get64(idt ? S.idtrBase : S.gdtrBase));
  return true;
};

/** arg: 0 LDTR or 1 TR; result: selector. */
const storeSelector: Helper = (cpu) => {
  const tr = cpu.arg32(0) !== 0;
  if (!mayStoreSystem(cpu) || exits(cpu, 47, tr ? 1 : 0)) return false;
  cpu.result32(0, selectorOf(cpu, tr ? SEG.tr : SEG.ldtr));
  return true;
};

/** A system descriptor of the GDT with one of the given types; 16 bytes long in IA-32e mode. */
const systemDescriptor = (cpu: Cpu, selector: number, types: readonly number[]): Descriptor | undefined => {
  const fail = (vector: number): undefined => {
    selectorFault(cpu, vector, selector);
    return undefined;
  };
  if ((selector & 4) !== 0) return fail(VECTOR.gp);
  const d = readDescriptor(cpu, selector);
  if (d === undefined) return undefined;
  if ((d.attr & AR.s) !== 0 || !types.includes(d.attr & 15)) return fail(VECTOR.gp);
  if ((d.attr & AR.p) === 0) return fail(VECTOR.np);
  return longMode(cpu) ? widen(cpu, d) : d;
};

/** arg: selector. */
const lldt: Helper = (cpu) => {
  if (exits(cpu, 47, 2)) return false;
  const selector = cpu.arg32(0) & 0xffff;
  if ((selector & 0xfffc) === 0) {
    setNull(cpu, SEG.ldtr, selector);
    return true;
  }
  const d = systemDescriptor(cpu, selector, [2]);
  if (d === undefined) return false;
  setFromDescriptor(cpu, SEG.ldtr, selector, d);
  return true;
};

/** arg: selector. */
const ltr: Helper = (cpu) => {
  if (exits(cpu, 47, 3)) return false;
  const selector = cpu.arg32(0) & 0xffff;
  if ((selector & 0xfffc) === 0) return cpu.gp();
  const d = systemDescriptor(cpu, selector, longMode(cpu) ? [9] : [1, 9]);
  if (d === undefined || !writeTypeByte(cpu, d, (d.attr & 0xff) | 2)) return false;
  setFromDescriptor(cpu, SEG.tr, selector, { ...d, attr: d.attr | 2 });
  return true;
};

export const DESCRIPTOR_TABLE_HELPERS: HelperTable = {
  loadTable,
  loadTableExit,
  storeTable,
  storeSelector,
  lldt,
  ltr,
};
