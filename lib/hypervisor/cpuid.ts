/**
 * CPUID as the guest sees it: what the processor reports, filtered as KVM_GET_SUPPORTED_CPUID does, completed by what a
 * monitor sets (hypervisor bit, TSC deadline, one core) and KVM's own leaves 0x40000000 and 0x40000001.
 *
 * The same in both paging modes, except that GBPAGES is always there with ept=0 (KVM-7.1.3; PKU, which KVM hides then,
 * is not offered at all). An unknown leaf answers with the data of the highest basic leaf, as KVM does on Intel.
 */
import { LabError } from '../base/error.js';
import { CR4 } from '../isa/state.js';
import type { VmxPort } from '../vmx/port.js';
import type { CpuidRegisters } from './lab-leaves.js';

export interface GuestCpuidOptions {
  readonly ept: boolean;
  /** Nothing may depend on the mode: GBPAGES as the processor has it. */
  readonly identical: boolean;
  /** UMIP, which the processor has or not. */
  readonly umip: boolean;
  readonly pvEoi: boolean;
  readonly asyncPf: boolean;
  readonly stealTime: boolean;
  /** Features hidden from the guest, by name (`HIDEABLE`). */
  readonly hide: readonly string[];
  /** Answers given by leaf, as KVM_SET_CPUID2 has them, instead of those derived from the processor. */
  readonly table?: readonly CpuidRow[];
}

/** One answer of a given table. */
export interface CpuidRow extends CpuidRegisters {
  readonly leaf: number;
  readonly subleaf: number;
}

type Register = keyof CpuidRegisters;
type Bit = readonly [leaf: number, subleaf: number, register: Register, bit: number];

/** Features that an experiment may hide: the names of /proc/cpuinfo. */
// biome-ignore format: one row per line
export const HIDEABLE = {
  pni: [1, 0, 'ecx', 0], pclmulqdq: [1, 0, 'ecx', 1], ssse3: [1, 0, 'ecx', 9], cx16: [1, 0, 'ecx', 13], pcid: [1, 0, 'ecx', 17],
  sse4_1: [1, 0, 'ecx', 19], sse4_2: [1, 0, 'ecx', 20], x2apic: [1, 0, 'ecx', 21], movbe: [1, 0, 'ecx', 22], popcnt: [1, 0, 'ecx', 23],
  tsc_deadline_timer: [1, 0, 'ecx', 24], aes: [1, 0, 'ecx', 25], xsave: [1, 0, 'ecx', 26], rdrand: [1, 0, 'ecx', 30], hypervisor: [1, 0, 'ecx', 31],
  mtrr: [1, 0, 'edx', 12], pge: [1, 0, 'edx', 13], ss: [1, 0, 'edx', 27],
  fsgsbase: [7, 0, 'ebx', 0], tsc_adjust: [7, 0, 'ebx', 1], bmi1: [7, 0, 'ebx', 3], smep: [7, 0, 'ebx', 7], bmi2: [7, 0, 'ebx', 8], erms: [7, 0, 'ebx', 9],
  invpcid: [7, 0, 'ebx', 10], rdseed: [7, 0, 'ebx', 18], adx: [7, 0, 'ebx', 19], smap: [7, 0, 'ebx', 20], clflushopt: [7, 0, 'ebx', 23], clwb: [7, 0, 'ebx', 24],
  umip: [7, 0, 'ecx', 2], rdpid: [7, 0, 'ecx', 22], arch_capabilities: [7, 0, 'edx', 29],
  xsaveopt: [0xd, 1, 'eax', 0], xsavec: [0xd, 1, 'eax', 1], xgetbv1: [0xd, 1, 'eax', 2], xsaves: [0xd, 1, 'eax', 3],
  lzcnt: [0x80000001, 0, 'ecx', 5], nx: [0x80000001, 0, 'edx', 20], pdpe1gb: [0x80000001, 0, 'edx', 26], rdtscp: [0x80000001, 0, 'edx', 27],
  constant_tsc: [0x80000007, 0, 'edx', 8],
  kvmclock_old: [0x40000001, 0, 'eax', 0], kvmclock: [0x40000001, 0, 'eax', 3], async_pf: [0x40000001, 0, 'eax', 4], steal_time: [0x40000001, 0, 'eax', 5],
  pv_eoi: [0x40000001, 0, 'eax', 6], async_pf_int: [0x40000001, 0, 'eax', 14], kvmclock_stable: [0x40000001, 0, 'eax', 24],
} as const satisfies Record<string, Bit>;
export type HideableFeature = keyof typeof HIDEABLE;

/** KVM's paravirtual feature bits of leaf 0x40000001 EAX. */
export const KVM_FEATURE = {
  clocksource: 1,
  nopIoDelay: 1 << 1,
  clocksource2: 1 << 3,
  asyncPf: 1 << 4,
  stealTime: 1 << 5,
  pvEoi: 1 << 6,
  asyncPfInt: 1 << 14,
  clocksourceStable: 1 << 24,
} as const;

/** Bits that KVM passes on, by register; the rest is hidden. */
const bits = (...n: number[]): number => n.reduce((m, b) => m | (1 << b), 0);
const KEEP = {
  // SSE3 PCLMULQDQ SSSE3 FMA CX16 PCID SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND
  ecx1: bits(0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30),
  // FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFLUSH MMX FXSR SSE SSE2 SS
  edx1: bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27),
  // FSGSBASE BMI1 HLE AVX2 FDP-EXCPTN SMEP BMI2 ERMS INVPCID RTM FCS-FDS RDSEED ADX SMAP CLFLUSHOPT CLWB SHA
  ebx7: bits(0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 18, 19, 20, 23, 24, 29),
  // VAES VPCLMULQDQ RDPID GFNI
  ecx7: bits(8, 9, 10, 22),
  // FSRM, ARCH_CAPABILITIES
  edx7: bits(4),
  // LAHF LZCNT PREFETCHW
  ecxExt: bits(0, 5, 8),
  // SYSCALL NX GBPAGES RDTSCP LM
  edxExt: bits(11, 20, 26, 27, 29),
} as const;

/** What the dynamic bits depend on. */
export interface CpuidState {
  readonly cr4: number;
  readonly xcr0: number;
  readonly apicEnabled: boolean;
}

type Entry = { eax: number; ebx: number; ecx: number; edx: number };
const NONE: CpuidRegisters = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
/** Leaves whose answer depends on ECX. */
const INDEXED = new Set([4, 7, 0xb, 0xd]);
const KVM_BASE = 0x40000000;

export class GuestCpuid {
  readonly #leaves = new Map<number, Entry[]>();
  readonly #highestBasic: number;
  /** XCR0 bits that the guest may set. */
  readonly supportedXcr0: number;

  constructor(port: VmxPort, options: GuestCpuidOptions) {
    if (options.table !== undefined) {
      for (const { leaf, subleaf, eax, ebx, ecx, edx } of options.table) {
        const entries = this.#leaves.get(leaf) ?? [];
        entries[subleaf] = { eax, ebx, ecx, edx };
        this.#leaves.set(leaf, entries);
      }
      this.#highestBasic = this.#entry(0).eax;
      this.supportedXcr0 = this.has('xsave') ? (this.#leaves.get(0xd)?.[0]?.eax ?? 0) : 0;
      for (const name of options.hide) this.#hide(name);
      return;
    }
    const hw = (leaf: number, subleaf = 0): Entry => ({ ...port.cpuid(leaf, subleaf) });
    const xstate = hw(0xd);
    this.supportedXcr0 = (hw(1).ecx & bits(26)) !== 0 ? xstate.eax & 7 : 0;
    this.#highestBasic = Math.min(hw(0).eax, 0x1f);
    for (let leaf = 0; leaf <= this.#highestBasic; leaf++)
      this.#leaves.set(leaf, basicLeaf(leaf, hw, this.supportedXcr0, options.umip));
    this.#entry(0).eax = this.#highestBasic;
    const highestExtended = Math.min(hw(0x80000000).eax >>> 0, 0x80000008);
    for (let leaf = 0x80000000; leaf <= highestExtended; leaf++)
      this.#leaves.set(leaf, [extendedLeaf(leaf, hw, options)]);
    if (this.#leaves.has(0x80000000)) this.#entry(0x80000000).eax = highestExtended;
    // "KVMKVMKVM\0\0\0"
    this.#leaves.set(KVM_BASE, [{ eax: KVM_BASE + 1, ebx: 0x4b4d564b, ecx: 0x564b4d56, edx: 0x4d }]);
    const f = KVM_FEATURE;
    const features =
      f.clocksource |
      f.nopIoDelay |
      f.clocksource2 |
      f.clocksourceStable |
      (options.pvEoi ? f.pvEoi : 0) |
      (options.asyncPf ? f.asyncPf | f.asyncPfInt : 0) |
      (options.stealTime ? f.stealTime : 0);
    this.#leaves.set(KVM_BASE + 1, [{ eax: features, ebx: 0, ecx: 0, edx: 0 }]);
    for (const name of options.hide) this.#hide(name);
  }

  #hide(name: string): void {
    if (!Object.hasOwn(HIDEABLE, name)) {
      throw new LabError(
        'cpuid.hide',
        `'${name}' is no CPUID feature that can be hidden`,
        Object.keys(HIDEABLE).join(', '),
      );
    }
    const [leaf, subleaf, register, bit] = HIDEABLE[name as HideableFeature];
    const entry = this.#leaves.get(leaf)?.[subleaf];
    if (entry !== undefined) entry[register] &= ~(1 << bit);
  }
  #entry(leaf: number): Entry {
    return (this.#leaves.get(leaf) as Entry[])[0] as Entry;
  }

  /** True when the guest has the feature. */
  has(name: HideableFeature): boolean {
    const [leaf, subleaf, register, bit] = HIDEABLE[name];
    const entry = this.#leaves.get(leaf)?.[subleaf];
    return entry !== undefined && (entry[register] & (1 << bit)) !== 0;
  }
  /** Width of physical addresses in bits. */
  get maxPhyAddr(): number {
    return this.#leaves.has(0x80000008) ? this.#entry(0x80000008).eax & 0xff : 36;
  }

  /** The answer to CPUID, with the dynamic bits of the guest's state. */
  query(leaf: number, subleaf: number, state: CpuidState): CpuidRegisters {
    let at = leaf;
    if (!this.#leaves.has(leaf) && this.#outOfRange(leaf)) at = this.#highestBasic;
    const entries = this.#leaves.get(at);
    if (entries === undefined) return NONE;
    const entry = entries[INDEXED.has(at) ? subleaf : 0];
    if (entry === undefined) return NONE;
    if (at === 1) {
      const osxsave = (state.cr4 & CR4.osxsave) !== 0 ? bits(27) : 0;
      const edx = state.apicEnabled ? entry.edx : entry.edx & ~bits(9);
      return unsigned({ eax: entry.eax, ebx: entry.ebx, ecx: (entry.ecx & ~bits(27)) | osxsave, edx });
    }
    if (at === 0xd && subleaf === 0) return unsigned({ ...entry, ebx: this.#xstateSize(state.xcr0) });
    return unsigned(entry);
  }

  /** Whether there is an entry for the leaf itself, and whether the highest basic leaf answers in its place. */
  lookup(leaf: number, subleaf: number): { readonly found: boolean; readonly maxBasic: boolean } {
    const entries = this.#leaves.get(leaf);
    const found = entries?.[INDEXED.has(leaf) ? subleaf : 0] !== undefined;
    return { found, maxBasic: entries === undefined && this.#outOfRange(leaf) };
  }

  /** No range of leaves that the guest has contains the leaf (KVM redirects such a leaf on Intel). */
  #outOfRange(leaf: number): boolean {
    const start =
      leaf >= 0x40000000 && leaf <= 0x4fffffff ? (leaf & 0xffffff00) >>> 0 : (leaf & 0x80000000) >>> 0;
    const first = this.#leaves.get(start)?.[0];
    return first === undefined || leaf > first.eax >>> 0;
  }
  /** Bytes of the XSAVE area for the components enabled in XCR0. */
  #xstateSize(xcr0: number): number {
    let size = 576;
    const components = this.#leaves.get(0xd) ?? [];
    for (let i = 2; i < components.length; i++) {
      const e = components[i];
      if (e !== undefined && (xcr0 & (1 << i)) !== 0) size = Math.max(size, e.eax + e.ebx);
    }
    return size;
  }
}

const unsigned = (e: CpuidRegisters): CpuidRegisters => ({
  eax: e.eax >>> 0,
  ebx: e.ebx >>> 0,
  ecx: e.ecx >>> 0,
  edx: e.edx >>> 0,
});

type Hardware = (leaf: number, subleaf?: number) => Entry;

const basicLeaf = (leaf: number, hw: Hardware, xcr0: number, umip: boolean): Entry[] => {
  const e = hw(leaf);
  switch (leaf) {
    case 0:
    case 2:
      return [e];
    case 1:
      e.ebx = (e.ebx & 0xff00) | 0x1_0000;
      // x2APIC, TSC deadline and the hypervisor bit are there whatever the processor has
      e.ecx = (e.ecx & KEEP.ecx1) | bits(21, 24, 31);
      e.edx &= KEEP.edx1;
      return [e];
    case 4: {
      const out: Entry[] = [];
      for (let i = 0; ; i++) {
        const cache = hw(4, i);
        // one core, one thread
        out.push({ ...cache, eax: cache.eax & 0x3fff });
        if ((cache.eax & 0x1f) === 0 || i === 8) return out;
      }
    }
    case 6:
      // ARAT: the local APIC timer never stops
      return [{ eax: 4, ebx: 0, ecx: 0, edx: 0 }];
    case 7:
      // TSC_ADJUST and ARCH_CAPABILITIES are emulated
      return [
        {
          eax: 0,
          ebx: (e.ebx & KEEP.ebx7) | bits(1),
          ecx: (e.ecx & KEEP.ecx7) | (umip ? bits(2) : 0),
          edx: (e.edx & KEEP.edx7) | bits(29),
        },
      ];
    case 0xd: {
      if (xcr0 === 0) return [{ eax: 0, ebx: 0, ecx: 0, edx: 0 }];
      const out: Entry[] = [{ eax: e.eax & xcr0, ebx: 0, ecx: e.ecx, edx: 0 }];
      // XSAVEOPT, XSAVEC, XGETBV(1), XSAVES as the processor has them
      const features = hw(0xd, 1);
      out.push({ eax: features.eax & 0xf, ebx: features.ebx, ecx: 0, edx: 0 });
      if ((xcr0 & 4) !== 0) out.push(hw(0xd, 2));
      return out;
    }
    default:
      return [{ eax: 0, ebx: 0, ecx: 0, edx: 0 }];
  }
};

const extendedLeaf = (leaf: number, hw: Hardware, options: GuestCpuidOptions): Entry => {
  const e = hw(leaf);
  switch (leaf) {
    case 0x80000001:
      e.ecx &= KEEP.ecxExt;
      e.edx &= KEEP.edxExt;
      if (!options.ept && !options.identical) e.edx |= bits(26);
      return { eax: 0, ebx: 0, ecx: e.ecx, edx: e.edx };
    case 0x80000007:
      return { eax: 0, ebx: 0, ecx: 0, edx: e.edx & bits(8) };
    case 0x80000008:
      // WBNOINVD
      return { eax: e.eax & 0xffff, ebx: e.ebx & bits(9), ecx: 0, edx: 0 };
    default:
      return e;
  }
};
