/**
 * The runs of one guest on real KVM that this project compares itself with (`data/reference/real-kvm-exits.json`): the
 * types of that file, and the processor that its guest saw.
 *
 * The guest's CPUID is presented as it was recorded, less the features that this processor does not have (AVX and its
 * companions, VMX for the guest, and whatever instructions `isa/` lacks): a processor never advertises what it lacks.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from '../base/error.js';
import type { CpuidRow } from '../hypervisor/cpuid.js';
import type { VmxPort } from '../vmx/port.js';
import { DATA } from './paths.js';

export type RunId = 'a' | 'b' | 'c' | 'd' | 'aA' | 'bA';

export interface ReferenceMarker {
  readonly marker: string;
  readonly exits: Readonly<Record<string, number>>;
  readonly total: number;
  readonly kvmStats: Readonly<Record<string, number>>;
  readonly detail: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** Counters of one round of a micro test, the marker's own exit taken off. */
export interface ReferenceMicro {
  readonly test: number;
  readonly name: string;
  readonly round: number;
  readonly exits: Readonly<Record<string, number>>;
  readonly kvmStats: Readonly<Record<string, number>>;
}

export interface ReferenceRun {
  readonly id: RunId;
  readonly description: string;
  readonly mode: 'ept' | 'shadow';
  readonly pti: 'on' | 'off';
  readonly memoryMiB: number;
  readonly acpiTables: boolean;
  readonly guestCmdline: string;
  readonly markers: readonly ReferenceMarker[];
  readonly micro?: readonly ReferenceMicro[];
}

export interface Reference {
  readonly what: string;
  readonly guestInit: string;
  readonly guestCpuid: readonly (Readonly<Record<'leaf' | 'eax' | 'ebx' | 'ecx' | 'edx', string>> & {
    readonly subleaf: number;
  })[];
  readonly versions: { readonly vmlinuxSha256: string; readonly innerInitrdBytes: number };
  readonly runs: readonly ReferenceRun[];
}

let loaded: Reference | undefined;
/** The file, read once. @throws LabError when it is not there */
export const reference = (): Reference => {
  if (loaded !== undefined) return loaded;
  const file = join(DATA, 'reference', 'real-kvm-exits.json');
  if (!existsSync(file))
    throw new LabError('reference.file', `${file} does not exist`, 'restore it from git');
  loaded = JSON.parse(readFileSync(file, 'utf8')) as Reference;
  return loaded;
};

const bits = (...n: number[]): number => n.reduce((m, b) => m | (1 << b), 0);

/**
 * Features of the recorded table that KVM provides whatever the processor has: x2APIC, TSC deadline, hypervisor;
 * TSC_ADJUST, FCS/FDS deprecated; UMIP; ARCH_CAPABILITIES; prefetch hints.
 */
const EMULATED = {
  ecx1: bits(21, 24, 31),
  ebx7: bits(1, 13),
  ecx7: bits(2),
  edx7: bits(29),
  ecxExtended: bits(8),
} as const;
const VMX = bits(5);
const X87_SSE = 3;
const LEGACY_XSAVE_BYTES = 0x240;

/** The recorded table as this processor can present it. */
export const presentable = (
  rows: readonly CpuidRow[],
  hardware: (leaf: number, subleaf: number) => CpuidRow,
) => {
  const and = (mine: number, theirs: number, emulated = 0): number => (mine & (theirs | emulated)) >>> 0;
  return rows
    .map((row): CpuidRow => {
      const hw = hardware(row.leaf, row.subleaf);
      switch (row.leaf) {
        case 1:
          return {
            ...row,
            ecx: and(row.ecx, hw.ecx, EMULATED.ecx1) & ~VMX,
            edx: and(row.edx, hw.edx),
          };
        case 7:
          return {
            ...row,
            ebx: and(row.ebx, hw.ebx, EMULATED.ebx7),
            ecx: and(row.ecx, hw.ecx, EMULATED.ecx7),
            edx: and(row.edx, hw.edx, EMULATED.edx7),
          };
        case 0xd:
          if (row.subleaf === 0)
            return { ...row, eax: row.eax & X87_SSE, ebx: LEGACY_XSAVE_BYTES, ecx: LEGACY_XSAVE_BYTES };
          return { ...row, eax: and(row.eax, hw.eax) };
        case 0x80000001:
          return { ...row, ecx: and(row.ecx, hw.ecx, EMULATED.ecxExtended), edx: and(row.edx, hw.edx) };
        default:
          return row;
      }
    })
    .filter((row) => row.leaf !== 0xd || row.subleaf < 2);
};

/** The recorded table, as numbers. */
export const recordedCpuid = (): readonly CpuidRow[] =>
  reference().guestCpuid.map((r) => ({
    leaf: Number(r.leaf),
    subleaf: r.subleaf,
    eax: Number(r.eax),
    ebx: Number(r.ebx),
    ecx: Number(r.ecx),
    edx: Number(r.edx),
  }));

/** What the guest of `cpu: 'reference'` sees. */
export const referenceCpuid = (port: VmxPort): readonly CpuidRow[] =>
  presentable(recordedCpuid(), (leaf, subleaf) => ({ leaf, subleaf, ...port.cpuid(leaf, subleaf) }));
