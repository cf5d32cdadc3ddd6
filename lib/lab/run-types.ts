/**
 * What `boot` takes and gives: the options of a run, its counters, phases and result.
 */

import { DEBIAN_NAMES } from '../guests/debian/flavours.js';
import type { ModuleFile } from '../guests/freestanding.js';
import type { TinyWorkload } from '../guests/tiny/workload.js';
import type { CostOptions } from '../hypervisor/costs.js';
import type { LabLayout } from '../hypervisor/lab-leaves.js';
import type { Backing } from '../hypervisor/memslots.js';
import type { OutcomeKind } from '../hypervisor/next.js';
import type { TimeModel, Vm } from '../hypervisor/vm.js';
import type { EngineName, Hardware } from '../vmx/hardware.js';
import type { MachineListeners, ObservedMachine } from './observe.js';

export type Paging = 'ept' | 'shadow';
/** What the guest's CPUID shows: a model of this processor, or the processor of the runs on real KVM. */
export const GUEST_CPUS = ['lab', 'v2', 'full', 'reference'] as const;
export type GuestCpu = (typeof GUEST_CPUS)[number];
/** Whole numbers and their bounds. */
export const NUMBERS = {
  tscHz: [10_000_000, 100_000_000_000],
  hostTickHz: [0, 10_000],
  seed: [0, 2 ** 32 - 1],
} as const;
export const DEFAULT_MEMORY = 256 * 2 ** 20;
export const GUESTS = [...DEBIAN_NAMES, 'tiny'] as const;
export type GuestName = (typeof GUESTS)[number];

/** Paravirtual features and x2APIC, with what a guest has by default. */
export const GUEST_FEATURES = {
  x2apic: true,
  kvmclock: true,
  pvEoi: true,
  asyncPf: false,
  stealTime: false,
} as const satisfies Record<string, boolean>;
export type GuestFeature = keyof typeof GUEST_FEATURES;
/** Features that `timeModel: 'instructions'` excludes: what they do depends on when exits happen. */
export const PARAVIRTUAL: readonly GuestFeature[] = ['pvEoi', 'asyncPf', 'stealTime'];
export type GuestFeatures = Readonly<Partial<Record<GuestFeature, boolean>>>;

export interface BootOptions {
  readonly guest?: GuestName;
  /** What the built-in guest `tiny` does; default `DEFAULT_WORKLOAD`. */
  readonly tiny?: Readonly<Partial<TinyWorkload>>;
  /** Files that replace what the guest brings. */
  readonly kernel?: string;
  readonly initrd?: string;
  /** Replaces the guest's command line, or adds to it. */
  readonly cmdline?: string;
  readonly append?: string;
  /** Bytes of guest memory; default 256 MiB. */
  readonly memory?: number;
  /** The script that the guest runs between its two readings. */
  readonly workload?: string;
  /** An interactive shell instead of the script. */
  readonly shell?: boolean;
  /** Stops at the newline that ends the console line containing this text. */
  readonly until?: string;
  /** Stops after so many guest instructions. */
  readonly maxInstructions?: number;
  readonly timeModel?: TimeModel;
  readonly leaves?: LabLayout;
  readonly engine?: EngineName;
  readonly backing?: Backing;
  /** ACPI tables for the guest; default true. */
  readonly acpi?: boolean;
  /** Leaves the DSDT empty, so that the guest finds no way to power itself off; default false. */
  readonly emptyDsdt?: boolean;
  /**
   * `lab` (the default), `v2` (x86-64-v2) and `full` are models of this processor, each with more features; `reference`
   * presents the processor of the runs on real KVM (`data/reference`), with every KVM feature it offered.
   */
  readonly cpu?: GuestCpu;
  /** Seed of RDRAND and RDSEED, a whole number below 2^32; default 0. */
  readonly seed?: number;
  /** CPUID features to hide from the guest, by their names in /proc/cpuinfo (`HIDEABLE`). */
  readonly hideCpuid?: readonly string[];
  /** What KVM offers its guest besides the processor's own features. */
  readonly features?: GuestFeatures;
  /** Host timer interrupts a second of virtual time, 0 for none; default 250. */
  readonly hostTickHz?: number;
  /** TSC cycles a second of virtual time; default 400 MHz. */
  readonly tscHz?: number;
  /**
   * Costs of `timeModel: 'cycles'` that replace the defaults: TSC cycles by name (`COSTS`), or by exit reason, as its
   * number or KVM's name for it: what an exit with that reason costs beyond `base`.
   */
  readonly costs?: CostOptions;
  /** Console lines that end a phase: its name and how the line begins. */
  readonly phaseLines?: readonly (readonly [name: string, line: string])[];
  /** Called when the guest writes a dword to port 0x510. */
  readonly onMarker?: (value: number, counters: Counters) => void;
  /** The guest's processor reports Meltdown, so the guest isolates its page tables; default false. */
  readonly meltdown?: boolean;
  /**
   * Page-table isolation of a Linux guest: `meltdown`, and `pti=on` or `pti=off` on its command line unless `cmdline`
   * is given.
   */
  readonly pti?: boolean;
  /** Modules of a Multiboot kernel: a file and its arguments each. `initrd` comes before them. */
  readonly modules?: readonly ModuleFile[];
  /** Port of a QEMU-compatible debug-exit device, like 0xf4. */
  readonly debugExit?: number;
  /** The debug console at port 0xE9, part of `console`; default true for Multiboot kernels and ROMs. */
  readonly debugConsole?: boolean;
  /** QEMU's fw_cfg at ports 0x510 and 0x511. */
  readonly fwCfg?: boolean;
  /** TCP port on the loopback interface for GDB, 0 for a free one; the machine starts stopped. */
  readonly gdb?: number;
  /** Called with the port when GDB can connect. */
  readonly onGdb?: (port: number) => void;
  readonly onConsole?: (bytes: Uint8Array) => void;
  readonly onProgress?: (instructions: number) => void;
  readonly signal?: AbortSignal;
  /** Is given a function that takes bytes for the guest's serial port. */
  readonly input?: (receive: (bytes: Uint8Array) => void) => void;
  /** Writes the state before each instruction of [first, last) in the layout of QEMU's `-d cpu` log. */
  readonly trace?: { readonly first: number; readonly last: number; readonly write: (text: string) => void };
  /** Called with the machine before its first instruction, for tests and tools. */
  readonly onMachine?: (machine: ObservedMachine) => void;
  /** Listeners of tracepoints, by name: `{ kvm_exit: (e, machine) => … }`. They see everything and change nothing. */
  readonly on?: MachineListeners;
  /** Called when a phase has ended: the console line that ends it is complete. */
  readonly onPhase?: (phase: Phase) => void;
}

/** Counters since the start of the machine. */
export interface Counters {
  readonly instructions: number;
  /** Virtual time, in TSC cycles. */
  readonly cycles: number;
  readonly exits: Readonly<Record<number, number>>;
  readonly kvmStats: Readonly<Record<string, number>>;
}

/** Counters at the end of a phase. */
export interface Phase extends Counters {
  readonly name: string;
  /** Cycles charged for exits, by reason. */
  readonly exitCycles: Readonly<Record<number, number>>;
  readonly walks: { readonly count: number; readonly references: number };
}

export interface RunResult {
  readonly paging: Paging;
  readonly outcome: OutcomeKind;
  readonly detail?: string;
  /** Exit status of the outcome `debug-exit`: `(value << 1) | 1`. */
  readonly status?: number;
  readonly instructions: number;
  /** Virtual time, in TSC cycles. */
  readonly cycles: number;
  readonly wallSeconds: number;
  /** By exit reason number. */
  readonly exits: Readonly<Record<number, number>>;
  readonly exitCycles: Readonly<Record<number, number>>;
  readonly walks: { readonly count: number; readonly references: number };
  readonly console: string;
  /** Hypervisor log lines. */
  readonly log: readonly string[];
  readonly kvmStats: Readonly<Record<string, number>>;
  /** Provenance of the guest. */
  readonly about: readonly string[];
  readonly cmdline: string;
  /** VMCS control fields at the end of the run. */
  readonly controls: Readonly<Record<string, bigint>>;
  /** Counters at the INIT line and at the end of the workload. */
  readonly phases: readonly Phase[];
}

export interface Machine {
  readonly hardware: Hardware;
  readonly vm: Vm;
}
