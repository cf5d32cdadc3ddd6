/**
 * What the built-in guest is asked to do: counts, in the order in which its first process does them. Everything is 0 by
 * default; the guest's image differs only in these numbers.
 */
import { LabError } from '../../base/error.js';

/** One row a parameter: what the guest does once for each unit. */
export const WORKLOAD = {
  syscalls: 'SYSCALL into the kernel and SYSRET back',
  cpuids: 'CPUID by the user program',
  ioWrites: 'OUT to port 0x80 by the kernel',
  msrReads: 'RDMSR of IA32_MISC_ENABLE',
  msrWrites: 'WRMSR to IA32_MISC_ENABLE, of the value read',
  mmioReads: 'a read of the I/O APIC',
  cr3Loads: 'MOV to CR3 of the same value',
  invlpgs: 'INVLPG of an address that is not mapped',
  touchPages: 'a first write to a new page, in an mmap of that many pages',
  protects: 'mprotect read-only, mprotect writable, one write to each of the touched pages',
  unmaps: 'of the touched pages, how many are unmapped again by one munmap, from the end',
  passes: 'a read of each page that stayed mapped, in order',
  kernelPasses:
    'a flush, then a read of each touched frame by the kernel, through its mapping in 2 MiB pages',
  forks: 'fork, a child that writes `forkWrites` pages and exits, wait',
  forkWrites: 'pages that each child of `forks` writes (copy on write), from the start of the touched ones',
  parentWrites: 'pages that the parent writes after each child, from the start of the touched ones',
  processes: 'a process with an address space of its own that writes one page, yields, and exits',
  workerPages: 'more pages that each of `processes` writes before each yield',
  switches: 'a switch from one of `processes` to the next by yield',
  ticks: 'arming the local APIC timer, then waiting for its interrupt in a loop of the user program',
  idles: 'arming the local APIC timer, then waiting for its interrupt in HLT',
} as const;
export type WorkloadName = keyof typeof WORKLOAD;
export type TinyWorkload = Readonly<Record<WorkloadName, number>>;
export const WORKLOAD_NAMES = Object.keys(WORKLOAD) as readonly WorkloadName[];

/** Upper bounds that are not those of memory. */
const LIMITS: Readonly<Partial<Record<WorkloadName, number>>> = {
  processes: 32,
  touchPages: 32_768,
  workerPages: 511,
};
const MOST = 10_000_000;

/** What `--guest tiny` does when nothing is said. */
export const DEFAULT_WORKLOAD: Readonly<Partial<TinyWorkload>> = {
  syscalls: 1000,
  cpuids: 10,
  ioWrites: 100,
  mmioReads: 10,
  touchPages: 1024,
  protects: 4,
  unmaps: 256,
  forks: 10,
  forkWrites: 64,
  parentWrites: 32,
  processes: 4,
  switches: 200,
  ticks: 5,
  idles: 5,
};

/** All parameters, with 0 for what is left out. @throws LabError for a workload that the guest cannot do */
export const checkWorkload = (workload: Readonly<Partial<TinyWorkload>>): TinyWorkload => {
  for (const name of Object.keys(workload)) {
    if (!Object.hasOwn(WORKLOAD, name))
      throw new LabError(
        'tiny.workload',
        `'${name}' is no parameter of the tiny guest`,
        WORKLOAD_NAMES.join(', '),
      );
  }
  const all = Object.fromEntries(WORKLOAD_NAMES.map((n) => [n, workload[n] ?? 0])) as Record<
    WorkloadName,
    number
  >;
  for (const name of WORKLOAD_NAMES) {
    const most = LIMITS[name] ?? MOST;
    if (!Number.isInteger(all[name]) || all[name] < 0 || all[name] > most)
      throw new LabError(
        'tiny.workload',
        `${name}: ${String(all[name])} is not possible`,
        `a whole number from 0 to ${most}`,
      );
  }
  const atMost = (name: WorkloadName, limit: number, what: string): void => {
    if (all[name] > limit)
      throw new LabError('tiny.workload', `${name}: ${all[name]} is more than ${what} (${limit})`);
  };
  atMost('unmaps', all.touchPages, 'touchPages');
  atMost('forkWrites', all.touchPages - all.unmaps, 'the pages that stay mapped');
  atMost('parentWrites', all.touchPages - all.unmaps, 'the pages that stay mapped');
  if (all.switches > 0 && all.processes < 2)
    throw new LabError('tiny.workload', `switches: ${all.switches} needs at least two processes`);
  return all;
};

/** Frames of data memory in use at once, at most: what `predict` and the check of memory need. */
export const peakFrames = (w: TinyWorkload): number => {
  const mapped = w.touchPages - w.unmaps;
  // a process to which nobody switches back has given its frames up before the next one needs any
  const workers = Math.min(w.processes, w.switches + 1) * (1 + w.workerPages);
  return Math.max(w.touchPages, mapped + (w.forks > 0 ? w.forkWrites : 0), mapped + workers);
};
