/**
 * CPUID of the virtual hardware, and the counters that are read beside it: RDTSC, RDTSCP, RDPMC, XSETBV.
 *
 * SDM volume 2, "CPUID—CPU Identification". Feature bits come from `isa/cpuid.ts`, filtered by the instruction rows.
 * Not offered: AVX, MONITOR/MWAIT, ERMS, performance monitoring, extended topology beyond one processor.
 */
import { FEATURES, implementedFeatures } from '../../isa/cpuid.js';
import { ROWS } from '../../isa/insns/all.js';
import { CR4, S } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { MAXPHYADDR } from './control-registers.js';
import { readTsc } from './msrs.js';

export interface CpuidResult {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

const VENDOR = 'GenuineIntel';
const BRAND = 'vmxlab virtual CPU';
/** Family 6, model 0x3d, stepping 4. */
const SIGNATURE = 0x000306d4;
const HIGHEST_BASIC = 0xd;
const HIGHEST_EXTENDED = 0x8000_0008;
/** XCR0 components: x87 and SSE. */
export const XCR0_SUPPORTED = 3;
/** Bytes of the XSAVE area of x87 and SSE: legacy region and header. */
const XSAVE_BYTES = 576;

/** Four characters of `text` as a register value. */
const word = (text: string, at: number): number => {
  let v = 0;
  for (let i = 3; i >= 0; i--) v = v * 256 + (at + i < text.length ? text.charCodeAt(at + i) : 0);
  return v;
};

const result = (eax = 0, ebx = 0, ecx = 0, edx = 0): CpuidResult => ({
  eax: eax >>> 0,
  ebx: ebx >>> 0,
  ecx: ecx >>> 0,
  edx: edx >>> 0,
});

const IMPLEMENTED = implementedFeatures(ROWS);
const MNEMONICS = new Set(ROWS.map((row) => row.name));

/** Feature bits of a leaf. */
const features = (leaf: number): { eax: number; ebx: number; ecx: number; edx: number } => {
  const bits = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  for (const f of FEATURES) if (f.leaf === leaf && IMPLEMENTED.has(f.name)) bits[f.register] |= 1 << f.bit;
  return bits;
};
/** True when the processor advertises a feature (names of `isa/cpuid.ts`). */
export const hasFeature = (name: string): boolean => IMPLEMENTED.has(name);

/** Deterministic cache parameters of leaf 4: type (1 data, 2 code, 3 unified), level, ways, sets of 64-byte lines. */
const CACHES = [
  { type: 1, level: 1, ways: 8, sets: 64 },
  { type: 2, level: 1, ways: 8, sets: 64 },
  { type: 3, level: 2, ways: 8, sets: 512 },
  { type: 3, level: 3, ways: 16, sets: 2048 },
] as const;

const cache = (subleaf: number): CpuidResult => {
  const c = CACHES[subleaf];
  return c === undefined
    ? result()
    : result(c.type | (c.level << 5) | (1 << 8), 63 | ((c.ways - 1) << 22), c.sets - 1);
};

const basicLeaf = (cpu: Cpu, leaf: number, subleaf: number): CpuidResult => {
  switch (leaf) {
    case 0:
      return result(HIGHEST_BASIC, word(VENDOR, 0), word(VENDOR, 8), word(VENDOR, 4));
    case 1: {
      const f = features(1);
      const osxsave = (f.ecx & (1 << 26)) !== 0 && (cpu.get32(S.cr4) & CR4.osxsave) !== 0 ? 1 << 27 : 0;
      // 64-byte CLFLUSH lines, one logical processor, APIC ID 0
      return result(SIGNATURE, (8 << 8) | (1 << 16), f.ecx | osxsave, f.edx);
    }
    case 2:
      // One descriptor: caches are described by leaf 4.
      return result(0x0000_ff01);
    case 4:
      return cache(subleaf);
    case 6:
      // The APIC timer always runs.
      return result(4);
    case 7: {
      const f = features(7);
      return subleaf === 0 ? result(0, f.ebx, f.ecx, f.edx) : result();
    }
    case 0xb:
      if (subleaf === 0) return result(0, 1, 1 << 8, 0);
      return subleaf === 1 ? result(0, 1, 1 | (2 << 8), 0) : result(0, 0, subleaf & 0xff, 0);
    case 0xd:
      if (!IMPLEMENTED.has('xsave')) return result();
      if (subleaf === 0) return result(XCR0_SUPPORTED, XSAVE_BYTES, XSAVE_BYTES, 0);
      return subleaf === 1 && MNEMONICS.has('xsaveopt') ? result(1) : result();
    default:
      return result();
  }
};

const brand = (at: number): CpuidResult =>
  result(word(BRAND, at), word(BRAND, at + 4), word(BRAND, at + 8), word(BRAND, at + 12));

const extendedLeaf = (leaf: number): CpuidResult => {
  switch (leaf) {
    case 0x8000_0000:
      return result(HIGHEST_EXTENDED);
    case 0x8000_0001: {
      const f = features(leaf);
      return result(0, 0, f.ecx, f.edx);
    }
    case 0x8000_0002:
    case 0x8000_0003:
    case 0x8000_0004:
      return brand((leaf - 0x8000_0002) * 16);
    case 0x8000_0006:
      // 256 KiB, 8 ways, 64-byte lines
      return result(0, 0, (256 << 16) | (6 << 12) | 64);
    case 0x8000_0007:
      return result(0, 0, 0, features(leaf).edx);
    case 0x8000_0008:
      return result(MAXPHYADDR | (48 << 8));
    default:
      return result();
  }
};

/** The answer of the processor itself. A leaf above the highest gives that of the highest basic leaf, as on Intel. */
export const hardwareCpuid = (cpu: Cpu, leaf: number, subleaf: number): CpuidResult => {
  const n = leaf >>> 0;
  if (n >= 0x8000_0000 && n <= HIGHEST_EXTENDED) return extendedLeaf(n);
  return basicLeaf(cpu, n <= HIGHEST_BASIC ? n : HIGHEST_BASIC, subleaf >>> 0);
};

const cpuid: Helper = (cpu) => {
  if (cpu.guest?.instruction(10) === true) return false;
  const r = hardwareCpuid(cpu, Number(cpu.gpr(0) & 0xffff_ffffn), Number(cpu.gpr(1) & 0xffff_ffffn));
  cpu.setGpr(0, BigInt(r.eax));
  cpu.setGpr(3, BigInt(r.ebx));
  cpu.setGpr(1, BigInt(r.ecx));
  cpu.setGpr(2, BigInt(r.edx));
  return true;
};

const mayReadTsc = (cpu: Cpu): boolean =>
  (cpu.get32(S.cr4) & CR4.tsd) === 0 || cpu.get32(S.cpl) === 0 || cpu.gp();
const loadTsc = (cpu: Cpu): void => {
  const tsc = readTsc(cpu);
  cpu.setGpr(0, tsc & 0xffff_ffffn);
  cpu.setGpr(2, tsc >> 32n);
};
const rdtsc: Helper = (cpu) => {
  if (!mayReadTsc(cpu) || cpu.guest?.instruction(16) === true) return false;
  loadTsc(cpu);
  return true;
};
const rdtscp: Helper = (cpu) => {
  if (!mayReadTsc(cpu) || cpu.guest?.instruction(51) === true) return false;
  loadTsc(cpu);
  cpu.setGpr(1, cpu.get64(S.tscAux) & 0xffff_ffffn);
  return true;
};
/** There are no performance counters: #GP(0). */
const rdpmc: Helper = (cpu) => {
  if ((cpu.get32(S.cr4) & CR4.pce) === 0 && cpu.get32(S.cpl) !== 0) return cpu.gp();
  return cpu.guest?.instruction(15) === true ? false : cpu.gp();
};
const xsetbv: Helper = (cpu) => {
  if ((cpu.get32(S.cr4) & CR4.osxsave) === 0) return cpu.ud();
  if (cpu.get32(S.cpl) !== 0) return cpu.gp();
  if (cpu.guest?.instruction(55) === true) return false;
  const value = ((cpu.gpr(2) & 0xffff_ffffn) << 32n) | (cpu.gpr(0) & 0xffff_ffffn);
  if ((cpu.gpr(1) & 0xffff_ffffn) !== 0n || (value & 1n) === 0n || (value & ~BigInt(XCR0_SUPPORTED)) !== 0n)
    return cpu.gp();
  cpu.set64(S.xcr0, value);
  return true;
};

export const CPUID_HELPERS: HelperTable = { cpuid, rdtsc, rdtscp, rdpmc, xsetbv };
