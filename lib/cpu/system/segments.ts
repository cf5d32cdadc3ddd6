/**
 * Segment descriptors and the hidden parts of segment registers.
 *
 * SDM volume 3, "Segment Descriptors", "Loading Segment Descriptors in IA-32e Mode", and MOV in volume 2. Access rights are kept in the VMX format: type, S, DPL, P in bits 7:0, AVL L D/B G in bits 15:12,
 * bit 16 = unusable. An unusable SS keeps its DPL, because SS.DPL is the CPL.
 */
import { CR0, EFER, FLAG, S, SEG, VECTOR } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { canonical, readLinear, readLinear32, writeLinear } from './memory.js';

/** Bits of the access rights. */
export const AR = {
  accessed: 1,
  writable: 2,
  conforming: 4,
  expandDown: 4,
  code: 8,
  s: 0x10,
  dpl: 0x60,
  p: 0x80,
  l: 0x2000,
  db: 0x4000,
  g: 0x8000,
  unusable: 0x1_0000,
} as const;

export interface Descriptor {
  readonly selector: number;
  /** Linear address of the descriptor. */
  readonly at: bigint;
  readonly lo: number;
  readonly hi: number;
  /** Bits 63:32 of the base of a 16-byte system descriptor, else 0. */
  readonly baseHigh: number;
  /** Access rights in the VMX format. */
  readonly attr: number;
}

export const descriptorBase = (d: Descriptor): bigint =>
  (BigInt(d.baseHigh) << 32n) | BigInt(((d.lo >>> 16) | ((d.hi & 0xff) << 16) | (d.hi & 0xff00_0000)) >>> 0);
export const descriptorLimit = (d: Descriptor): number => {
  const raw = (d.lo & 0xffff) | (d.hi & 0xf_0000);
  return (d.attr & AR.g) !== 0 ? ((raw << 12) | 0xfff) >>> 0 : raw;
};
export const dplOf = (attr: number): number => (attr >> 5) & 3;
export const isCode = (attr: number): boolean => (attr & (AR.s | AR.code)) === (AR.s | AR.code);
export const isWritableData = (attr: number): boolean =>
  (attr & (AR.s | AR.code | AR.writable)) === (AR.s | AR.writable);

export const longMode = (cpu: Cpu): boolean => (cpu.get32(S.efer) & EFER.lma) !== 0;
export const realMode = (cpu: Cpu): boolean => (cpu.get32(S.cr0) & CR0.pe) === 0;
export const virtual8086 = (cpu: Cpu): boolean => (cpu.get32(S.eflags) & FLAG.vm) !== 0 && !realMode(cpu);
/** Protected mode proper: neither real nor virtual-8086 mode. */
export const protectedMode = (cpu: Cpu): boolean => !realMode(cpu) && (cpu.get32(S.eflags) & FLAG.vm) === 0;
export const iopl = (cpu: Cpu): number => (cpu.get32(S.eflags) >> 12) & 3;

export const selectorOf = (cpu: Cpu, seg: number): number => cpu.get32(S.segSel + 4 * seg);
export const attrOf = (cpu: Cpu, seg: number): number => cpu.get32(S.segAttr + 4 * seg);
export const baseOf = (cpu: Cpu, seg: number): bigint => cpu.get64(S.segBase + 8 * seg);
export const limitOf = (cpu: Cpu, seg: number): number => cpu.get32(S.segLimit + 4 * seg);

export const setSegment = (
  cpu: Cpu,
  seg: number,
  selector: number,
  base: bigint,
  limit: number,
  attr: number,
): void => {
  cpu.set32(S.segSel + 4 * seg, selector);
  cpu.set64(S.segBase + 8 * seg, base);
  cpu.set32(S.segLimit + 4 * seg, limit);
  cpu.set32(S.segAttr + 4 * seg, attr);
};
/** Puts a descriptor into a segment register, with the accessed bit set for code and data. */
export const setFromDescriptor = (cpu: Cpu, seg: number, selector: number, d: Descriptor): void =>
  setSegment(
    cpu,
    seg,
    selector,
    descriptorBase(d),
    descriptorLimit(d),
    (d.attr & AR.s) !== 0 ? d.attr | AR.accessed : d.attr,
  );
/** A null selector; `dpl` matters for SS only. */
export const setNull = (cpu: Cpu, seg: number, selector: number, dpl = 0): void =>
  setSegment(cpu, seg, selector, 0n, 0, AR.unusable | (dpl << 5));
/** Base only in real mode (limit and rights stay); all of it in virtual-8086 mode. */
export const setRealSegment = (cpu: Cpu, seg: number, selector: number, v86: boolean): void => {
  const base = BigInt(selector << 4);
  if (v86) setSegment(cpu, seg, selector, base, 0xffff, 0xf3);
  else {
    const attr = attrOf(cpu, seg);
    setSegment(cpu, seg, selector, base, limitOf(cpu, seg), (attr & AR.unusable) !== 0 ? 0x93 : attr);
  }
};

/** Brings `mode`, `cpl` and `stackSize` in line with CR0.PE, RFLAGS.VM, EFER.LMA, CS and SS, and tells the MMU. */
export const modeChanged = (cpu: Cpu): void => {
  const cs = attrOf(cpu, SEG.cs);
  const ss = attrOf(cpu, SEG.ss);
  const long = longMode(cpu) && (cs & AR.l) !== 0;
  cpu.set32(S.mode, long ? 64 : (cs & AR.db) !== 0 ? 32 : 16);
  cpu.set32(S.stackSize, long ? 64 : (ss & AR.db) !== 0 ? 32 : 16);
  cpu.set32(S.cpl, realMode(cpu) ? 0 : virtual8086(cpu) ? 3 : dplOf(ss));
  cpu.mmu.contextChanged();
};

/** EXT bit of an error code: an event other than a software interrupt is being delivered. */
export const externalBit = (cpu: Cpu): 0 | 1 => {
  const event = cpu.delivering;
  return event === undefined || event.type === 4 || event.type === 6 ? 0 : 1;
};
/** Raises `vector` with a selector as its error code. */
export const selectorFault = (cpu: Cpu, vector: number, selector: number): false =>
  cpu.fault(vector, (selector & 0xfffc) | externalBit(cpu));

/** Linear address of a selector's descriptor, or undefined when it is outside its table. */
export const descriptorAddress = (cpu: Cpu, selector: number, bytes: number): bigint | undefined => {
  const index = selector & 0xfff8;
  if ((selector & 4) === 0) {
    return index + bytes - 1 > cpu.get32(S.gdtrLimit)
      ? undefined
      : BigInt.asUintN(64, cpu.get64(S.gdtrBase) + BigInt(index));
  }
  if ((attrOf(cpu, SEG.ldtr) & AR.unusable) !== 0 || index + bytes - 1 > limitOf(cpu, SEG.ldtr))
    return undefined;
  return BigInt.asUintN(64, baseOf(cpu, SEG.ldtr) + BigInt(index));
};

const wrap = (cpu: Cpu, lin: bigint): bigint => BigInt.asUintN(longMode(cpu) ? 64 : 32, lin);

/** Reads 8 bytes of a descriptor table. A `wide` system descriptor's upper half is read by `widen`. */
export const fetchDescriptor = (cpu: Cpu, selector: number, at: bigint): Descriptor | undefined => {
  const raw = readLinear(cpu, wrap(cpu, at), 8, 'supervisor');
  if (raw === undefined) return undefined;
  const lo = Number(raw & 0xffff_ffffn);
  const hi = Number(raw >> 32n);
  return { selector, at: wrap(cpu, at), lo, hi, baseHigh: 0, attr: (hi >>> 8) & 0xf0ff };
};

/**
 * Reads the descriptor that a non-null selector names.
 * @param vector raised with the selector when it is outside its table (#GP, #TS or #NP)
 */
export const readDescriptor = (
  cpu: Cpu,
  selector: number,
  vector: number = VECTOR.gp,
): Descriptor | undefined => {
  const at = descriptorAddress(cpu, selector, 8);
  if (at === undefined) {
    selectorFault(cpu, vector, selector);
    return undefined;
  }
  return fetchDescriptor(cpu, selector, at);
};

/** The second half of a 16-byte system descriptor in IA-32e mode; #GP(selector) when it is outside or malformed. */
export const widen = (cpu: Cpu, d: Descriptor): (Descriptor & { readonly upper: number }) | undefined => {
  if (descriptorAddress(cpu, d.selector, 16) === undefined) {
    selectorFault(cpu, VECTOR.gp, d.selector);
    return undefined;
  }
  const raw = readLinear(cpu, wrap(cpu, d.at + 8n), 8, 'supervisor');
  if (raw === undefined) return undefined;
  const upper = Number(raw >> 32n);
  if ((upper & 0x1f00) !== 0) {
    selectorFault(cpu, VECTOR.gp, d.selector);
    return undefined;
  }
  return { ...d, baseHigh: Number(raw & 0xffff_ffffn), upper };
};

/** Sets the accessed bit of a code or data descriptor in memory, if it is clear. */
export const markAccessed = (cpu: Cpu, d: Descriptor): boolean =>
  (d.attr & AR.accessed) !== 0 ||
  writeLinear(cpu, wrap(cpu, d.at + 5n), 1, BigInt(((d.hi >>> 8) & 0xff) | AR.accessed), 'supervisor');
/** Replaces the type byte of a system descriptor (busy bit of a TSS). */
export const writeTypeByte = (cpu: Cpu, d: Descriptor, byte: number): boolean =>
  writeLinear(cpu, wrap(cpu, d.at + 5n), 1, BigInt(byte & 0xff), 'supervisor');

/** The stack segment that a selector names, checked for use at privilege `cpl`. @param vector of the checks: #GP or #TS */
export const checkStackSegment = (
  cpu: Cpu,
  selector: number,
  cpl: number,
  vector: number,
): Descriptor | undefined => {
  const d = readDescriptor(cpu, selector, vector);
  if (d === undefined) return undefined;
  if ((selector & 3) !== cpl || !isWritableData(d.attr) || dplOf(d.attr) !== cpl) {
    selectorFault(cpu, vector, selector);
    return undefined;
  }
  if ((d.attr & AR.p) === 0) {
    selectorFault(cpu, VECTOR.ss, selector);
    return undefined;
  }
  return d;
};

const loadStackSegment = (cpu: Cpu, selector: number): boolean => {
  const cpl = cpu.get32(S.cpl);
  if ((selector & 0xfffc) === 0) {
    if (cpu.get32(S.mode) !== 64 || cpl === 3 || (selector & 3) !== cpl) return cpu.gp();
    setNull(cpu, SEG.ss, selector, cpl);
    return true;
  }
  const d = checkStackSegment(cpu, selector, cpl, VECTOR.gp);
  if (d === undefined || !markAccessed(cpu, d)) return false;
  setFromDescriptor(cpu, SEG.ss, selector, d);
  if (cpu.get32(S.mode) !== 64) cpu.set32(S.stackSize, (d.attr & AR.db) !== 0 ? 32 : 16);
  return true;
};

/** MOV, POP or a far-pointer load into DS, ES, FS, GS or SS, in every mode. */
export const loadSegment = (cpu: Cpu, seg: number, selector: number): boolean => {
  if (!protectedMode(cpu)) {
    setRealSegment(cpu, seg, selector, virtual8086(cpu));
    if (seg === SEG.ss) cpu.set32(S.stackSize, (attrOf(cpu, seg) & AR.db) !== 0 ? 32 : 16);
    return true;
  }
  if (seg === SEG.ss) return loadStackSegment(cpu, selector);
  if ((selector & 0xfffc) === 0) {
    setNull(cpu, seg, selector);
    return true;
  }
  const d = readDescriptor(cpu, selector);
  if (d === undefined) return false;
  // Data or readable code.
  if ((d.attr & AR.s) === 0 || (d.attr & (AR.code | AR.writable)) === AR.code)
    return selectorFault(cpu, VECTOR.gp, selector);
  const conforming = (d.attr & (AR.code | AR.conforming)) === (AR.code | AR.conforming);
  if (!conforming && Math.max(selector & 3, cpu.get32(S.cpl)) > dplOf(d.attr))
    return selectorFault(cpu, VECTOR.gp, selector);
  if ((d.attr & AR.p) === 0) return selectorFault(cpu, VECTOR.np, selector);
  if (!markAccessed(cpu, d)) return false;
  setFromDescriptor(cpu, seg, selector, d);
  return true;
};

/** args: segment, selector, 1 when MOV SS / POP SS blocking follows. */
const loadSegmentHelper: Helper = (cpu) => {
  const seg = cpu.arg32(0);
  if (!loadSegment(cpu, seg, cpu.arg32(1) & 0xffff)) return false;
  if (seg === SEG.ss && cpu.arg32(2) !== 0) {
    cpu.set32(S.interruptibility, cpu.get32(S.interruptibility) | 2);
    cpu.set32(S.shadowed, 0);
  }
  return true;
};

const segmentFault = (cpu: Cpu, seg: number): -1 => {
  cpu.fault(seg === SEG.ss ? VECTOR.ss : VECTOR.gp, 0);
  return -1;
};

/** Linear address (below 2^32) of a checked access outside 64-bit mode, or -1 with #SS(0) or #GP(0) recorded. */
export const segmentLinear32 = (
  cpu: Cpu,
  seg: number,
  offset: number,
  bytes: number,
  write: boolean,
): number => {
  const attr = attrOf(cpu, seg);
  if ((attr & AR.unusable) !== 0) return segmentFault(cpu, seg);
  if (!realMode(cpu) && (attr & AR.writable) === 0 && (write || (attr & AR.code) !== 0))
    return segmentFault(cpu, seg);
  if (!realMode(cpu) && write && (attr & AR.code) !== 0) return segmentFault(cpu, seg);
  const start = offset >>> 0;
  const last = start + bytes - 1;
  const limit = limitOf(cpu, seg);
  if ((attr & (AR.code | AR.expandDown)) === AR.expandDown) {
    if (start <= limit || last > ((attr & AR.db) !== 0 ? 0xffff_ffff : 0xffff)) return segmentFault(cpu, seg);
  } else if (last > limit && !(limit === 0xffff_ffff && start <= limit)) return segmentFault(cpu, seg);
  return (cpu.get32(S.segBase + 8 * seg) + start) >>> 0;
};

/** Linear address of an access through a segment in any mode, or undefined with #SS(0) or #GP(0) recorded. */
export const segmentLinear = (
  cpu: Cpu,
  seg: number,
  offset: bigint,
  bytes: number,
  write: boolean,
): bigint | undefined => {
  if (cpu.get32(S.mode) === 64) {
    const lin = BigInt.asUintN(64, offset + (seg === SEG.fs || seg === SEG.gs ? baseOf(cpu, seg) : 0n));
    if (canonical(lin) && canonical(lin + BigInt(bytes - 1))) return lin;
    segmentFault(cpu, seg);
    return undefined;
  }
  const lin = segmentLinear32(cpu, seg, Number(offset & 0xffff_ffffn), bytes, write);
  return lin < 0 ? undefined : BigInt(lin);
};

/** args: segment, offset, bytes, 1 for a write; result: linear address. */
const segmentCheck: Helper = (cpu) => {
  const lin = segmentLinear32(cpu, cpu.arg32(0), cpu.arg32(1), cpu.arg32(2), cpu.arg32(3) !== 0);
  if (lin < 0) return false;
  cpu.result32(0, lin);
  return true;
};

/** A field of the current TSS. */
export const readTss = (cpu: Cpu, offset: number, size: 1 | 2 | 4): number | undefined =>
  readLinear32(cpu, wrap(cpu, baseOf(cpu, SEG.tr) + BigInt(offset)), size, 'supervisor');

export const SEGMENT_HELPERS: HelperTable = { loadSegment: loadSegmentHelper, segmentCheck };
