/**
 * Helpers of x87 control: FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW, FLDENV, FNSTENV, FNSAVE, FRSTOR, EMMS and MMX writes.
 *
 * SDM volume 1, "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE" for the four layouts of the
 * environment; volume 3, "Intel MMX Technology System Programming" for the aliasing.
 */
import { CR0, FLAG, S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper } from '../helpers.js';
import { loadImage, openImage, storeImage } from './image.js';
import {
  checkAvailable,
  FCW_RESET,
  FSW,
  moveTop,
  seOf,
  setRegister,
  sigOf,
  summarize,
  top,
} from './x87-state.js';

/** FNINIT without its check; also what FNSAVE leaves. */
export const initX87 = (cpu: Cpu): void => {
  cpu.set32(S.fcw, FCW_RESET);
  cpu.set32(S.fsw, 0);
  cpu.set32(S.ftw, 0xffff);
  cpu.set32(S.fop, 0);
  cpu.set64(S.fip, 0n);
  cpu.set64(S.fdp, 0n);
};

/** The tag word with zero (1) and special (2) registers told apart. */
export const fullTags = (cpu: Cpu): number => {
  const ftw = cpu.get32(S.ftw);
  let tags = 0;
  for (let reg = 0; reg < 8; reg++) {
    let tag = (ftw >>> (2 * reg)) & 3;
    if (tag !== 3) {
      const sig = sigOf(cpu, reg);
      const e = seOf(cpu, reg) & 0x7fff;
      tag = e === 0 && sig === 0n ? 1 : e === 0 || e === 0x7fff || sig >> 63n === 0n ? 2 : 0;
    }
    tags |= tag << (2 * reg);
  }
  return tags;
};
/** Only "empty or not" is kept of a tag word. */
export const setTags = (cpu: Cpu, tags: number): void => {
  let ftw = 0;
  for (let reg = 0; reg < 8; reg++) if (((tags >>> (2 * reg)) & 3) === 3) ftw |= 3 << (2 * reg);
  cpu.set32(S.ftw, ftw);
};
export const setControl = (cpu: Cpu, fcw: number): void => {
  cpu.set32(S.fcw, (fcw & 0x1f3f) | 0x40);
  summarize(cpu);
};

const isReal = (cpu: Cpu): boolean =>
  (cpu.get32(S.cr0) & CR0.pe) === 0 || (cpu.get32(S.eflags) & FLAG.vm) !== 0;
/** Argument 1 is the operand size; 64 acts as 32. */
const isWide = (cpu: Cpu): boolean => cpu.arg32(1) !== 16;

const environment = (cpu: Cpu): Uint8Array => {
  const fip = Number(BigInt.asUintN(32, cpu.get64(S.fip)));
  const fdp = Number(BigInt.asUintN(32, cpu.get64(S.fdp)));
  const fop = cpu.get32(S.fop) & 0x7ff;
  const words = [cpu.get32(S.fcw), cpu.get32(S.fsw), fullTags(cpu)];
  if (!isWide(cpu)) {
    const rest = isReal(cpu)
      ? [fip, ((fip >>> 4) & 0xf000) | fop, fdp, (fdp >>> 4) & 0xf000]
      : [fip, 0, fdp, 0];
    return new Uint8Array(Uint16Array.from([...words, ...rest]).buffer);
  }
  const high = 0xffff_0000;
  const head = words.map((w) => w | high);
  const rest = isReal(cpu)
    ? [fip | high, ((fip >>> 4) & 0x0fff_f000) | fop, fdp | high, (fdp >>> 4) & 0x0fff_f000]
    : [fip, fop << 16, fdp, high];
  return new Uint8Array(Uint32Array.from([...head, ...rest]).buffer);
};

const setEnvironment = (cpu: Cpu, image: Uint8Array): void => {
  const wide = isWide(cpu);
  const view = new DataView(image.buffer);
  const get = (i: number): number => (wide ? view.getUint32(4 * i, true) : view.getUint16(2 * i, true));
  let fip = get(3);
  let fdp = get(5);
  let fop = wide ? get(4) >>> 16 : 0;
  if (isReal(cpu)) {
    fop = get(4);
    fip = (fip & 0xffff) | ((get(4) & 0x0fff_f000) << 4);
    fdp = (fdp & 0xffff) | ((get(6) & 0x0fff_f000) << 4);
  }
  cpu.set32(S.fsw, get(1) & 0xffff);
  setControl(cpu, get(0));
  setTags(cpu, get(2));
  cpu.set32(S.fop, fop & 0x7ff);
  cpu.set64(S.fip, BigInt(fip >>> 0));
  cpu.set64(S.fdp, BigInt(fdp >>> 0));
};

const environmentBytes = (cpu: Cpu): number => (isWide(cpu) ? 28 : 14);

/** Arguments of the next four: linear address, operand size. */
const fnstenv: Helper = (cpu) => {
  if (!checkAvailable(cpu)) return false;
  const target = openImage(cpu, cpu.arg64(0), environmentBytes(cpu));
  if (target === false) return false;
  storeImage(cpu, target, environment(cpu));
  setControl(cpu, cpu.get32(S.fcw) | 0x3f);
  return true;
};
const fldenv: Helper = (cpu) => {
  const image = loadImage(cpu, cpu.arg64(0), environmentBytes(cpu));
  if (image === false) return false;
  setEnvironment(cpu, image);
  return true;
};
const fnsave: Helper = (cpu) => {
  if (!checkAvailable(cpu)) return false;
  const head = environmentBytes(cpu);
  const target = openImage(cpu, cpu.arg64(0), head + 80);
  if (target === false) return false;
  const image = new Uint8Array(head + 80);
  image.set(environment(cpu));
  const view = new DataView(image.buffer);
  for (let i = 0; i < 8; i++) {
    const reg = (top(cpu) + i) & 7;
    view.setBigUint64(head + 10 * i, sigOf(cpu, reg), true);
    view.setUint16(head + 10 * i + 8, seOf(cpu, reg), true);
  }
  storeImage(cpu, target, image);
  initX87(cpu);
  return true;
};
const frstor: Helper = (cpu) => {
  const head = environmentBytes(cpu);
  const image = loadImage(cpu, cpu.arg64(0), head + 80);
  if (image === false) return false;
  setEnvironment(cpu, image);
  const view = new DataView(image.buffer);
  for (let i = 0; i < 8; i++) {
    setRegister(
      cpu,
      (top(cpu) + i) & 7,
      view.getBigUint64(head + 10 * i, true),
      view.getUint16(head + 10 * i + 8, true),
    );
  }
  return true;
};

/** Every MMX instruction but EMMS: TOP = 0 and all registers valid. */
const mmxTouch: Helper = (cpu) => {
  moveTop(cpu, -top(cpu));
  cpu.set32(S.ftw, 0);
  return true;
};

export const X87_CONTROL: Readonly<Record<string, Helper>> = {
  fninit: (cpu) => {
    if (!checkAvailable(cpu)) return false;
    initX87(cpu);
    return true;
  },
  fnclex: (cpu) => {
    if (!checkAvailable(cpu)) return false;
    cpu.set32(S.fsw, cpu.get32(S.fsw) & ~(FSW.busy | FSW.es | FSW.stackFault | 0x3f));
    return true;
  },
  fldcw: (cpu) => {
    setControl(cpu, cpu.arg32(0));
    return true;
  },
  /** The result is the control word; the check of non-waiting instructions is made here. */
  fnstcw: (cpu) => {
    cpu.result32(0, cpu.get32(S.fcw));
    return checkAvailable(cpu);
  },
  fnstsw: (cpu) => {
    cpu.result32(0, cpu.get32(S.fsw));
    return checkAvailable(cpu);
  },
  fnstenv,
  fldenv,
  fnsave,
  frstor,
  mmxTouch,
  /** Arguments: register, value. */
  mmxWrite: (cpu) => {
    setRegister(cpu, cpu.arg32(0) & 7, cpu.arg64(1), 0xffff);
    return mmxTouch(cpu);
  },
  emms: (cpu) => {
    moveTop(cpu, -top(cpu));
    cpu.set32(S.ftw, 0xffff);
    return true;
  },
};
