/**
 * CPUID of the virtual hardware, and what is read beside it: RDTSC, RDTSCP, RDPID, RDPMC, random numbers; XSETBV.
 *
 * SDM volume 2, "CPUID—CPU Identification". Feature bits come from `isa/cpuid.ts`, filtered by the instruction rows and
 * by the processor's model.
 * Not offered: AVX, MONITOR/MWAIT, ERMS, performance monitoring, extended topology beyond one processor.
 */
import {
  advertisedFeatures,
  CPU_MODELS,
  type CpuModel,
  FEATURES,
  implementedFeatures,
} from '../../isa/cpuid.js';
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
const ADVERTISED: ReadonlyMap<CpuModel, ReadonlySet<string>> = new Map(
  CPU_MODELS.map((model) => [model, advertisedFeatures(model, IMPLEMENTED)]),
);
/** True when a processor of a model advertises a feature (names of `isa/cpuid.ts`). */
export const hasFeature = (name: string, model: CpuModel = 'lab'): boolean =>
  ADVERTISED.get(model)?.has(name) === true;

/** Feature bits of a leaf. */
const features = (
  cpu: Cpu,
  leaf: number,
  subleaf = 0,
): { eax: number; ebx: number; ecx: number; edx: number } => {
  const bits = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  for (const f of FEATURES) {
    if (f.leaf === leaf && (f.subleaf ?? 0) === subleaf && hasFeature(f.name, cpu.model))
      bits[f.register] |= 1 << f.bit;
  }
  return bits;
};

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
      const f = features(cpu, 1);
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
      const f = features(cpu, 7);
      return subleaf === 0 ? result(0, f.ebx, f.ecx, f.edx) : result();
    }
    case 0xb:
      if (subleaf === 0) return result(0, 1, 1 << 8, 0);
      return subleaf === 1 ? result(0, 1, 1 | (2 << 8), 0) : result(0, 0, subleaf & 0xff, 0);
    case 0xd:
      if (!hasFeature('xsave', cpu.model)) return result();
      if (subleaf === 0) return result(XCR0_SUPPORTED, XSAVE_BYTES, XSAVE_BYTES, 0);
      if (subleaf === 1) {
        // the size of the compacted area follows where there is one; no bits of IA32_XSS
        const f = features(cpu, 0xd, 1);
        return result(f.eax, hasFeature('xsavec', cpu.model) ? XSAVE_BYTES : 0);
      }
      return result();
    default:
      return result();
  }
};

const brand = (at: number): CpuidResult =>
  result(word(BRAND, at), word(BRAND, at + 4), word(BRAND, at + 8), word(BRAND, at + 12));

const extendedLeaf = (cpu: Cpu, leaf: number): CpuidResult => {
  switch (leaf) {
    case 0x8000_0000:
      return result(HIGHEST_EXTENDED);
    case 0x8000_0001: {
      const f = features(cpu, leaf);
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
      return result(0, 0, 0, features(cpu, leaf).edx);
    case 0x8000_0008:
      return result(MAXPHYADDR | (48 << 8));
    default:
      return result();
  }
};

/** The answer of the processor itself. A leaf above the highest gives that of the highest basic leaf, as on Intel. */
export const hardwareCpuid = (cpu: Cpu, leaf: number, subleaf: number): CpuidResult => {
  const n = leaf >>> 0;
  if (n >= 0x8000_0000 && n <= HIGHEST_EXTENDED) return extendedLeaf(cpu, n);
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
/** Result: IA32_TSC_AUX. */
const rdpid: Helper = (cpu) => {
  if (cpu.guest?.allowsRdpid?.() === false) return cpu.ud();
  cpu.result64(0, cpu.get64(S.tscAux) & 0xffff_ffffn);
  return true;
};

const GOLDEN = 0x9e37_79b9_7f4a_7c15n;
/** The next number of the processor's generator: a mixed counter that starts at the seed (SplitMix64). */
const nextRandom = (cpu: Cpu): bigint => {
  const counter = BigInt.asUintN(64, cpu.get64(S.entropy) + GOLDEN);
  cpu.set64(S.entropy, counter);
  let z = BigInt.asUintN(64, (counter ^ (counter >> 30n)) * 0xbf58_476d_1ce4_e5b9n);
  z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn);
  return z ^ (z >> 31n);
};
/** RDRAND and RDSEED. args: exit reason, general register, its width; result: the number. */
const randomNumber: Helper = (cpu) => {
  const width = cpu.arg32(2);
  const info = (cpu.arg32(1) << 3) | ((width === 16 ? 0 : width === 32 ? 1 : 2) << 11);
  if (cpu.guest?.instruction(cpu.arg32(0), 0n, info) === true) return false;
  cpu.result64(0, nextRandom(cpu));
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

export const CPUID_HELPERS: HelperTable = { cpuid, rdtsc, rdtscp, rdpid, randomNumber, rdpmc, xsetbv };
