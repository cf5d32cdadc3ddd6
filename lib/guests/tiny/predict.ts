/**
 * How many VM exits a workload of the built-in guest adds to an empty one, by reason, with the mechanism behind each
 * term. The numbers in `because` are those of KVM's behaviour: sections (KVM-3.3), decisions (KVM-7.1.9), measurements.
 *
 * Left out are the reasons that time drives: host timer interrupts (1), interrupt windows (7), PAUSE (40). The timer's
 * own exits (52) hold as long as no host interrupt comes at the very moment of a deadline. The guest never turns PCID on
 * and does not isolate its page tables, so that the processor's offer of either changes nothing; the kernel's memory, its
 * page tables and the leaves' reading are the same for every workload and cancel out.
 */
import { checkWorkload, peakFrames, type TinyWorkload } from './workload.js';

export type PredictionMode = 'ept' | 'shadow';

export interface PredictionOptions {
  /** Host pages behind guest memory; default 2M. */
  readonly backing?: '4K' | '2M';
  /** Parameter `preemption_timer` of kvm-intel; default true. */
  readonly preemptionTimer?: boolean;
  /** Parameter `mmio_caching` of kvm; default true. */
  readonly mmioCaching?: boolean;
}

export interface PredictionTerm {
  /** Exit reason number. */
  readonly reason: number;
  readonly count: number;
  /** What the count is of, and why each one exits. */
  readonly because: string;
}

export interface Prediction {
  /** By exit reason; reasons that are not there are expected not to change. */
  readonly exits: Readonly<Record<number, number>>;
  readonly terms: readonly PredictionTerm[];
}

/** Reasons whose number depends on time, and which no prediction covers. */
export const TIME_DRIVEN: readonly number[] = [1, 7, 40];

const R = {
  exception: 0,
  cpuid: 10,
  hlt: 12,
  invlpg: 14,
  cr: 28,
  io: 30,
  rdmsr: 31,
  wrmsr: 32,
  eptViolation: 48,
  eptMisconfiguration: 49,
  preemptionTimer: 52,
} as const;

/** Pages that one leaf table maps. */
const PER_TABLE = 512;
/** Leaf tables that the first `pages` pages of the heap need. */
const tables = (pages: number): number => Math.ceil(pages / PER_TABLE);
/** How often something happens at all. */
const any = (n: number): number => (n > 0 ? 1 : 0);

/** Terms that are the same in both modes. */
const common = (w: TinyWorkload, preemptionTimer: boolean): PredictionTerm[] => [
  { reason: R.cpuid, count: w.cpuids, because: 'CPUID always exits' },
  { reason: R.io, count: w.ioWrites, because: 'every OUT exits: unconditional I/O exiting (KVM-7.1.2)' },
  { reason: R.rdmsr, count: w.msrReads, because: 'IA32_MISC_ENABLE is intercepted (KVM-1.3)' },
  { reason: R.wrmsr, count: w.msrWrites, because: 'IA32_MISC_ENABLE is intercepted (KVM-1.3)' },
  {
    reason: R.wrmsr,
    count: w.ticks + w.idles,
    because: 'the timer is armed by WRMSR of IA32_TSC_DEADLINE (KVM-7.1.19)',
  },
  {
    reason: R.wrmsr,
    count: w.ticks + w.idles,
    because: 'each interrupt is ended by WRMSR of the x2APIC EOI register (KVM-1.3)',
  },
  {
    reason: R.preemptionTimer,
    count: preemptionTimer ? w.ticks : 0,
    because: 'the deadline passes while the guest runs: preemption timer (KVM-7.1.19)',
  },
  {
    reason: R.hlt,
    count: w.idles,
    because: 'HLT exits; the deadline then passes on the host, without an exit (KVM-7.1.19)',
  },
];

const ept = (w: TinyWorkload, backing: '4K' | '2M', mmioCaching: boolean): PredictionTerm[] => {
  const peak = peakFrames(w);
  const first = mmioCaching ? any(w.mmioReads) : w.mmioReads;
  return [
    {
      reason: R.eptViolation,
      count: backing === '2M' ? Math.ceil(peak / PER_TABLE) : peak,
      because: `first touch of each host page (${backing}) behind the ${peak} frames in use at most; one leaf a violation, no prefetch (KVM-7.1.17)`,
    },
    {
      reason: R.eptViolation,
      count: first,
      because:
        'the first MMIO access installs the entry and emulates (KVM-7.1.18); each, with mmio_caching=N',
    },
    {
      reason: R.eptMisconfiguration,
      count: w.mmioReads - first,
      because: 'every later MMIO access (KVM-7.1.18)',
    },
  ];
};

/** One process that comes and goes, apart from its memory. */
const LINK = 1;
const CODE = 1;
/** Freeing its tables: the code's leaf table, then directory, directory pointers and PML4. */
const TEARDOWN = 1 + 3 * 2;

const shadow = (w: TinyWorkload, backing: '4K' | '2M'): PredictionTerm[] => {
  const e = R.exception;
  const peak = peakFrames(w);
  const mapped = w.touchPages - w.unmaps;
  const rounds = w.forks;
  // leaf tables that hold at least two of the pages touched
  const secondEntries = Math.floor((w.touchPages + PER_TABLE - 2) / PER_TABLE);
  const worker = 1 + w.workerPages;
  // nobody switched back to these, which would have synchronised the table that their second page made unsync
  const unsyncAtExit = worker > 1 ? Math.max(0, w.processes - w.switches) : 0;
  const unmapped = w.unmaps === 0 ? 0 : tables(w.touchPages) - Math.floor(mapped / PER_TABLE);
  return [
    {
      reason: e,
      count: w.mmioReads,
      because:
        'each MMIO access: the first finds nothing, later ones a reserved bit (KVM-7.1.14, measured C3)',
    },
    { reason: R.cr, count: w.cr3Loads, because: 'MOV to CR3 exits, once each (KVM-3.2)' },
    { reason: R.invlpg, count: w.invlpgs, because: 'INVLPG exits (KVM-1.2)' },

    {
      reason: e,
      count: backing === '2M' ? tables(peak) : peak,
      because: `the kernel's mapping of fresh frames: a 2 MiB entry for each region without page tables, or, with 4 KiB backing, an entry each (KVM-3.5)`,
    },
    {
      reason: e,
      count: w.touchPages,
      because: "demand paging: the fault is the guest's and is injected (KVM-3.3 item 2)",
    },
    {
      reason: e,
      count: tables(w.touchPages),
      because: 'the store of a new leaf table into the directory, an upper table: emulated (KVM-7.1.9)',
    },
    {
      reason: e,
      count: secondEntries,
      because:
        'the second entry stored into a leaf table, the first since it is shadowed: unsync (KVM-7.1.10)',
    },
    {
      reason: e,
      count: w.touchPages,
      because:
        'the access is tried again: fill (KVM-3.3 item 7); neighbours are not present, so nothing is prefetched (measured B9)',
    },

    {
      reason: e,
      count: 2 * w.protects * tables(w.touchPages),
      because:
        'each mprotect: one unsync a leaf table since the last flush (measured B4); the rewrites cost nothing, sync repairs the rights',
    },
    {
      reason: R.cr,
      count: 4 * w.protects,
      because: 'each of two mprotects flushes: a read and a write of CR3 (KVM-3.9)',
    },
    {
      reason: e,
      count: unmapped,
      because: 'munmap: one unsync for each leaf table that loses pages (KVM-7.1.10)',
    },
    { reason: R.invlpg, count: w.unmaps, because: 'munmap: one INVLPG a page' },

    {
      reason: R.cr,
      count: 2 * w.kernelPasses,
      because:
        'before each pass of the kernel the flush reads and writes CR3; the passes themselves find everything mapped',
    },

    {
      reason: R.cr,
      count: 4 * rounds,
      because: 'fork: the flush reads and writes CR3; a write each to the child and back',
    },
    {
      reason: e,
      count: any(rounds) * tables(mapped),
      because:
        'the first fork takes write access from the parent: one unsync a leaf table; later ones find those tables unsync or nothing to take',
    },
    {
      reason: e,
      count: rounds * LINK,
      because: "the child's new root: link of the kernel's slot, spurious otherwise (measured B11)",
    },
    {
      reason: e,
      count: rounds * CODE,
      because: "the child's code: fill, with the shared data page beside it (KVM-7.1.8)",
    },
    {
      reason: e,
      count: 2 * rounds * w.forkWrites,
      because:
        'the child writes shared pages: inject, then fill, as the entry was cleared at INVLPG (measured B14, F6)',
    },
    { reason: R.invlpg, count: rounds * w.forkWrites, because: 'copy on write replaces an entry: INVLPG' },
    {
      reason: e,
      count: rounds * tables(w.forkWrites),
      because:
        "one unsync for each of the child's leaf tables in use: at its second copy, or when it is zeroed at exit",
    },
    {
      reason: e,
      count: rounds * TEARDOWN,
      because:
        "exit zeroes the child's tables with REP STOS: 1 (unsync) for the code's leaf table, 2 (unshadow, then write access) for each of three upper ones (KVM-7.1.11, measured B7)",
    },
    {
      reason: e,
      count: 2 * rounds * w.parentWrites,
      because: 'the parent writes pages that are its own again: inject, then write access',
    },
    {
      reason: e,
      count: rounds * tables(w.parentWrites),
      because: 'one unsync for each leaf table it does that in, since the switch back flushed',
    },

    {
      reason: R.cr,
      count: w.processes === 0 ? 0 : w.processes + w.switches + 1,
      because: 'a write of CR3 to the first process, at each switch, and at each exit',
    },
    {
      reason: e,
      count: w.processes * (LINK + CODE),
      because: "each process: link of the kernel's slot, fill of its code",
    },
    {
      reason: e,
      count: (2 * worker + 1) * w.processes,
      because:
        'each process writes its pages for the first time: inject and fill each, and one store into its directory',
    },
    {
      reason: e,
      count: worker > 1 ? w.processes : 0,
      because: 'the second entry in the leaf table of each process: unsync (KVM-7.1.10)',
    },
    {
      reason: e,
      count: w.processes * (1 + TEARDOWN) - unsyncAtExit,
      because:
        'each exit zeroes two leaf tables (unsync, where that is not so already) and three upper ones (2 each)',
    },
  ];
};

/**
 * Exits that the workload adds to those of an empty workload.
 * @throws LabError for a workload that the guest cannot do
 */
export const predict = (
  workload: Readonly<Partial<TinyWorkload>>,
  mode: PredictionMode,
  options: PredictionOptions = {},
): Prediction => {
  const w = checkWorkload(workload);
  const { backing = '2M', preemptionTimer = true, mmioCaching = true } = options;
  const own = mode === 'ept' ? ept(w, backing, mmioCaching) : shadow(w, backing);
  const terms = [...common(w, preemptionTimer), ...own].filter((t) => t.count > 0);
  const exits: Record<number, number> = {};
  for (const t of terms) exits[t.reason] = (exits[t.reason] ?? 0) + t.count;
  return { exits, terms };
};
