/**
 * Helpers of FXSAVE, FXRSTOR, the XSAVE family and XGETBV for the x87 and SSE components, which lie at the same place in
 * the standard and the compacted format.
 *
 * SDM volume 1, "Managing State Using the XSAVE Feature Set" and volume 2, "FXSAVE". Every component counts as in use,
 * and there are no supervisor components (IA32_XSS is 0).
 */
import { CR0, CR4, S, VECTOR } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper } from '../helpers.js';
import { instructionInfo } from '../system/instruction-info.js';
import { loadImage, ofStack, openImage, storeImage } from './image.js';
import { MXCSR_MASK, MXCSR_RESET } from './sse-status.js';
import { initX87, setControl } from './x87-env.js';
import { seOf, setRegister, sigOf, top } from './x87-state.js';

const LEGACY_BYTES = 512;
const HEADER_BYTES = 64;
/** State components of XCR0 and XSTATE_BV. */
export const XFEATURE = { x87: 1, sse: 2 } as const;
const KNOWN = XFEATURE.x87 | XFEATURE.sse;

/** 16 XMM registers in 64-bit mode, 8 elsewhere. */
const vectors = (cpu: Cpu): number => (cpu.get32(S.mode) === 64 ? 16 : 8);

const saveX87 = (cpu: Cpu, view: DataView, wide: boolean): void => {
  const ftw = cpu.get32(S.ftw);
  let full = 0;
  for (let reg = 0; reg < 8; reg++) if (((ftw >>> (2 * reg)) & 3) !== 3) full |= 1 << reg;
  view.setUint16(0, cpu.get32(S.fcw), true);
  view.setUint16(2, cpu.get32(S.fsw), true);
  view.setUint16(4, full, true);
  view.setUint16(6, cpu.get32(S.fop), true);
  // without REX.W the upper halves are FCS and FDS, which read 0
  view.setBigUint64(8, wide ? cpu.get64(S.fip) : BigInt.asUintN(32, cpu.get64(S.fip)), true);
  view.setBigUint64(16, wide ? cpu.get64(S.fdp) : BigInt.asUintN(32, cpu.get64(S.fdp)), true);
  for (let i = 0; i < 8; i++) {
    const reg = (top(cpu) + i) & 7;
    view.setBigUint64(32 + 16 * i, sigOf(cpu, reg), true);
    view.setBigUint64(40 + 16 * i, BigInt(seOf(cpu, reg)), true);
  }
};
const saveMxcsr = (cpu: Cpu, view: DataView): void => {
  view.setUint32(24, cpu.get32(S.mxcsr), true);
  view.setUint32(28, MXCSR_MASK, true);
};
const saveXmm = (cpu: Cpu, image: Uint8Array): void => {
  const at = cpu.at + S.xmm;
  image.set(cpu.ram.u8.subarray(at, at + 16 * vectors(cpu)), 160);
};

const restoreX87 = (cpu: Cpu, view: DataView, wide: boolean): void => {
  const full = view.getUint8(4);
  let ftw = 0;
  for (let reg = 0; reg < 8; reg++) if ((full & (1 << reg)) === 0) ftw |= 3 << (2 * reg);
  cpu.set32(S.fsw, view.getUint16(2, true));
  setControl(cpu, view.getUint16(0, true));
  cpu.set32(S.ftw, ftw);
  cpu.set32(S.fop, view.getUint16(6, true) & 0x7ff);
  cpu.set64(S.fip, wide ? view.getBigUint64(8, true) : BigInt(view.getUint32(8, true)));
  cpu.set64(S.fdp, wide ? view.getBigUint64(16, true) : BigInt(view.getUint32(16, true)));
  for (let i = 0; i < 8; i++) {
    setRegister(
      cpu,
      (top(cpu) + i) & 7,
      view.getBigUint64(32 + 16 * i, true),
      view.getUint16(40 + 16 * i, true),
    );
  }
};
const restoreXmm = (cpu: Cpu, image: Uint8Array): void => {
  cpu.ram.u8.set(image.subarray(160, 160 + 16 * vectors(cpu)), cpu.at + S.xmm);
};

/** #GP(0), unless the address is not canonical either. */
const misaligned = (cpu: Cpu): false => {
  cpu.gp();
  return ofStack(cpu, cpu.arg64(0));
};
/** Alignment and CR0 checks. Arguments of all: linear address, operand size. */
const legacyCheck = (cpu: Cpu): boolean => {
  if ((cpu.get32(S.cr0) & (CR0.em | CR0.ts)) !== 0) return cpu.fault(VECTOR.nm);
  return (cpu.arg64(0) & 15n) !== 0n ? misaligned(cpu) : true;
};

const fxsave: Helper = (cpu) => {
  if (!legacyCheck(cpu)) return false;
  const linear = cpu.arg64(0);
  const target = openImage(cpu, linear, LEGACY_BYTES);
  if (target === false) return false;
  // bytes 416 to 511, and in legacy modes those of XMM8 to XMM15, are not written
  const before = loadImage(cpu, linear, LEGACY_BYTES);
  if (before === false) return false;
  const view = new DataView(before.buffer);
  saveX87(cpu, view, cpu.arg32(1) === 64);
  saveMxcsr(cpu, view);
  saveXmm(cpu, before);
  storeImage(cpu, target, before);
  return true;
};
const fxrstor: Helper = (cpu) => {
  if (!legacyCheck(cpu)) return false;
  const image = loadImage(cpu, cpu.arg64(0), LEGACY_BYTES);
  if (image === false) return false;
  const view = new DataView(image.buffer);
  const mxcsr = view.getUint32(24, true);
  if ((mxcsr & ~MXCSR_MASK) !== 0) return cpu.gp();
  restoreX87(cpu, view, cpu.arg32(1) === 64);
  cpu.set32(S.mxcsr, mxcsr);
  restoreXmm(cpu, image);
  return true;
};

/** Arguments of the XSAVE family: linear address, operand size, EAX, EDX. */
const extendedCheck = (cpu: Cpu): boolean => {
  if ((cpu.get32(S.cr4) & CR4.osxsave) === 0) return cpu.ud();
  if ((cpu.get32(S.cr0) & CR0.ts) !== 0) return cpu.fault(VECTOR.nm);
  return (cpu.arg64(0) & 63n) !== 0n ? cpu.gp() : true;
};
/** The requested-feature bitmap; XCR0 has no bits beyond `KNOWN`, IA32_XSS none. */
const requested = (cpu: Cpu): number => cpu.arg32(2) & cpu.get32(S.xcr0) & KNOWN;

/** XCOMP_BV of the compacted format. */
const COMPACTED = 1n << 63n;
/** Offsets of XSTATE_BV, XCOMP_BV and the reserved rest of the header. */
const HEADER = { present: 512, format: 520, rest: 528 } as const;

const save = (cpu: Cpu, compacted: boolean): boolean => {
  const linear = cpu.arg64(0);
  const size = LEGACY_BYTES + HEADER_BYTES;
  const target = openImage(cpu, linear, size);
  if (target === false) return false;
  const image = loadImage(cpu, linear, size);
  if (image === false) return false;
  const rfbm = requested(cpu);
  const view = new DataView(image.buffer);
  if ((rfbm & XFEATURE.x87) !== 0) saveX87(cpu, view, cpu.arg32(1) === 64);
  if ((rfbm & XFEATURE.sse) !== 0) {
    saveMxcsr(cpu, view);
    saveXmm(cpu, image);
  }
  const saved = BigInt(rfbm);
  if (compacted) {
    view.setBigUint64(HEADER.present, saved, true);
    view.setBigUint64(HEADER.format, saved | COMPACTED, true);
  } else view.setBigUint64(HEADER.present, view.getBigUint64(HEADER.present, true) | saved, true);
  storeImage(cpu, target, image);
  return true;
};
const xsave: Helper = (cpu) => extendedCheck(cpu) && save(cpu, false);
const xsavec: Helper = (cpu) => extendedCheck(cpu) && save(cpu, true);

/** Whether a header is one that may be restored. */
const validHeader = (cpu: Cpu, view: DataView): boolean => {
  const present = view.getBigUint64(HEADER.present, true);
  const format = view.getBigUint64(HEADER.format, true);
  const enabled = cpu.get64(S.xcr0) | cpu.get64(S.xss);
  if ((format & COMPACTED) === 0n)
    return format === 0n && view.getBigUint64(HEADER.rest, true) === 0n && (present & ~enabled) === 0n;
  for (let at: number = HEADER.rest; at < LEGACY_BYTES + HEADER_BYTES; at += 8)
    if (view.getBigUint64(at, true) !== 0n) return false;
  return (format & ~COMPACTED & ~enabled) === 0n && (present & ~format) === 0n;
};

/** @param needsCompacted the standard format is #GP (XRSTORS) */
const restore = (cpu: Cpu, needsCompacted: boolean): boolean => {
  const image = loadImage(cpu, cpu.arg64(0), LEGACY_BYTES + HEADER_BYTES);
  if (image === false) return false;
  const view = new DataView(image.buffer);
  if (!validHeader(cpu, view)) return cpu.gp();
  const compacted = (view.getBigUint64(HEADER.format, true) & COMPACTED) !== 0n;
  if (needsCompacted && !compacted) return cpu.gp();
  const rfbm = requested(cpu);
  const loaded = rfbm & Number(view.getBigUint64(HEADER.present, true) & BigInt(KNOWN));
  // the standard format has MXCSR whether or not the SSE component is there
  const mxcsr = compacted && (loaded & XFEATURE.sse) === 0 ? MXCSR_RESET : view.getUint32(24, true);
  if ((rfbm & XFEATURE.sse) !== 0 && (mxcsr & ~MXCSR_MASK) !== 0) return cpu.gp();
  if ((rfbm & XFEATURE.x87) !== 0) {
    if ((loaded & XFEATURE.x87) !== 0) restoreX87(cpu, view, cpu.arg32(1) === 64);
    else {
      initX87(cpu);
      for (let reg = 0; reg < 8; reg++) setRegister(cpu, reg, 0n, 0);
    }
  }
  if ((rfbm & XFEATURE.sse) !== 0) {
    cpu.set32(S.mxcsr, mxcsr);
    if ((loaded & XFEATURE.sse) !== 0) restoreXmm(cpu, image);
    else cpu.ram.u8.fill(0, cpu.at + S.xmm, cpu.at + S.xmm + 16 * vectors(cpu));
  }
  return true;
};

const xrstor: Helper = (cpu) => extendedCheck(cpu) && restore(cpu, false);

/** Exits of XSAVES and XRSTORS, and #UD where the controls do not enable them. */
const EXIT = { xsaves: 63, xrstors: 64 } as const;
const leaves = (cpu: Cpu, reason: number): boolean => {
  if ((cpu.get32(S.cr4) & CR4.osxsave) === 0) return !cpu.ud();
  // only supervisor components can make them exit
  const info = cpu.guest === undefined || cpu.get64(S.xss) === 0n ? 0 : instructionInfo(cpu).info;
  return cpu.guest?.instruction(reason, 0n, info) === true;
};
const xsaves: Helper = (cpu) => !leaves(cpu, EXIT.xsaves) && xsavec(cpu);
const xrstors: Helper = (cpu) => !leaves(cpu, EXIT.xrstors) && extendedCheck(cpu) && restore(cpu, true);

/** XGETBV of XCR0 or, with ECX 1, of the components in use. Argument: ECX. Results: EAX, EDX. */
const xgetbv: Helper = (cpu) => {
  if ((cpu.get32(S.cr4) & CR4.osxsave) === 0) return cpu.ud();
  if (cpu.arg32(0) > 1) return cpu.gp();
  const xcr0 = cpu.get64(S.xcr0);
  cpu.result64(0, BigInt.asUintN(32, xcr0));
  cpu.result64(1, xcr0 >> 32n);
  return true;
};

export const AREA_HELPERS: Readonly<Record<string, Helper>> = {
  fxsave,
  fxrstor,
  xsave,
  xsaveopt: xsave,
  xsavec,
  xsaves,
  xrstor,
  xrstors,
  xgetbv,
};
