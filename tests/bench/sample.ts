/** What one run of one configuration gives. Times are seconds since the start of its process, memory is in bytes. */

export const CONFIGURATIONS = ['ept', 'shadow', 'shadow-pti', 'qemu', 'bochs'] as const;
export type Configuration = (typeof CONFIGURATIONS)[number];
/** Those that are vmxlab itself; `shadow-pti` is shadow paging with page-table isolation in the guest. */
export const OURS = ['ept', 'shadow', 'shadow-pti'] as const satisfies readonly Configuration[];
export type Ours = (typeof OURS)[number];

export const TITLE: Readonly<Record<Configuration, string>> = {
  ept: 'vmxlab EPT',
  shadow: 'vmxlab shadow',
  'shadow-pti': 'vmxlab shadow, PTI',
  qemu: 'QEMU TCG',
  bochs: 'Bochs',
};

/**
 * Where a run is read: when the program is loaded and set-up of the machine begins (vmxlab only); at the guest's first instruction (for Bochs, when its boot loader starts the kernel; unknown for
 * QEMU), at the INIT line, and at the end of the workload.
 */
export type MarkName = 'loaded' | 'start' | 'init' | 'end';

export interface Mark {
  readonly wall: number;
  /** User and system time of all threads. */
  readonly cpu: number;
  /** Peak resident memory so far. */
  readonly peak: number;
  /** Guest instructions and VM exits so far; vmxlab only. */
  readonly instructions?: number;
  readonly exits?: number;
}

/** Where the time of a profiled run went, in seconds of wall time from the first instruction to the end. */
export interface Profile {
  /** The processor executed guest instructions. */
  readonly guest: number;
  /** VM entries and VM exits of the virtual processor. */
  readonly switches: number;
  /** In the hypervisor, from the VM exit to the next VM entry, by exit reason. */
  readonly reasons: Readonly<Record<number, ReasonProfile>>;
}

export interface ReasonProfile {
  readonly exits: number;
  readonly seconds: number;
  /** Median time of one exit, in seconds: on a busy host the mean contains waits for the processor. */
  readonly median: number;
}

export interface Sample {
  readonly marks: Partial<Record<MarkName, Mark>>;
  readonly profile?: Profile;
  /** Why the run did not reach its end; the marks are those that it reached. */
  readonly problem?: string;
}
