/**
 * Where things are in the built-in guest: physical memory, address spaces, kernel structures, system calls. The
 * assembler's source uses these names.
 *
 *   0x200000  kernel: text, data, then tables of its own (one 2 MiB page)
 *   0x400000  page tables, of the kernel and of the processes (512 frames)
 *   0x800000  frames for processes, to the end of memory
 *
 * An address space has user memory in slot 0 of its PML4 and the kernel in slot 511, which all share: physical memory
 * from 0xffffffff80000000 in 2 MiB pages, and devices from 0xffffffffc0000000, both accessed and dirty from the start.
 */
const KERNEL = 0x20_0000;
const DIRECT = 0xffff_ffff_8000_0000n;

export const LAYOUT = {
  kernel: KERNEL,
  /** Kernel memory without contents in the image. */
  bss: 0x30_0000,
  kernelEnd: 0x40_0000,
  tables: 0x40_0000,
  tablesEnd: 0x60_0000,
  frames: 0x80_0000,
  /** Kernel's mapping of physical memory: 1 GiB. */
  direct: DIRECT,
  directBytes: 0x4000_0000,
  /** Tables that the image brings: PML4, PDPT, directory of physical memory, directory of devices. */
  staticTables: 4,
  userCode: 0x40_0000n,
  userData: 0x40_1000n,
  heap: 0x80_0000n,
} as const;

/** Physical addresses of the static tables. */
export const STATIC = {
  pml4: LAYOUT.tables,
  pdpt: LAYOUT.tables + 0x1000,
  direct: LAYOUT.tables + 0x2000,
  devices: LAYOUT.tables + 0x3000,
} as const;

const BSS = LAYOUT.bss;
const at = (physical: number): bigint => DIRECT + BigInt(physical);

export const SELECTOR = { code: 0x08, data: 0x10, userData: 0x1b, userCode: 0x23, task: 0x28 } as const;
export const TIMER_VECTOR = 0x40;
export const SPURIOUS_VECTOR = 0xff;

/** System calls, in the order of the kernel's table. */
export const SYSCALLS = [
  'null',
  'flush',
  'hardware',
  'mmap',
  'munmap',
  'mprotect',
  'scan',
  'fork',
  'wait',
  'exit',
  'spawn',
  'yield',
  'arm',
  'idle',
] as const;

/** What `hardware` does, in the order of the kernel's table. */
export const HARDWARE = ['ioWrites', 'msrReads', 'msrWrites', 'mmioReads', 'cr3Loads', 'invlpgs'] as const;

/** The kernel's only stack, below the end of its memory. */
export const STACK_TOP = at(BSS + 0x4_6000);

/** Names for the assembler. */
export const CONSTANTS: Readonly<Record<string, number | bigint>> = {
  DIRECT,
  KERNEL,
  TABLES: LAYOUT.tables,
  TABLES_FREE: LAYOUT.tables + LAYOUT.staticTables * 4096,
  TABLES_END: LAYOUT.tablesEnd,
  FRAMES: LAYOUT.frames,
  IO_APIC: 0xffff_ffff_fec0_0000n,
  USER_CODE: LAYOUT.userCode,
  USER_DATA: LAYOUT.userData,
  HEAP: LAYOUT.heap,
  // memory without contents: how often each frame is mapped, free tables, processes, text buffer, stack
  FRAME_USES: at(BSS),
  FREE_TABLES: at(BSS + 0x4_0000),
  PROCESSES: at(BSS + 0x4_1000),
  TEXT: at(BSS + 0x4_3000),
  STACK_TOP,
  BSS: at(BSS),
  BSS_QUADS: 0x4_6000 / 8,
  // a process: 128 bytes
  PROCESS_BYTES: 128,
  PROCESSES_END: at(BSS + 0x4_1000 + 64 * 128),
  P_CR3: 0,
  P_STATE: 8,
  P_RIP: 16,
  P_RFLAGS: 24,
  P_RSP: 32,
  P_RAX: 40,
  P_RBX: 48,
  P_RBP: 56,
  P_R12: 64,
  P_R13: 72,
  P_R14: 80,
  P_R15: 88,
  P_HEAP_END: 96,
  READY: 1,
  BLOCKED: 2,
  // page-table entries; COW is a bit that the processor ignores
  PRESENT: 1,
  WRITABLE: 2,
  USER: 4,
  COW: 0x200,
  TABLE: 0x67,
  USER_PAGE: 0x67,
  USER_READ_ONLY: 0x25,
  NOT_COW: -0x201,
  NOT_WRITABLE: -3,
  PAGE_MASK: -4096,
  KERNEL_SLOT: 511 * 8,
  FRAME_MASK: 0x000f_ffff_ffff_f000n,
  NO_EXECUTE: 0x8000_0000_0000_0000n,
  ...Object.fromEntries(SYSCALLS.map((name, i) => [`SYS_${name.toUpperCase()}`, i])),
  TIMER_VECTOR,
  SPURIOUS_VECTOR,
  /** TSC cycles from arming the timer to its interrupt. */
  PERIOD: 20_000,
  SYSCALL_COUNT: SYSCALLS.length,
  ...Object.fromEntries(HARDWARE.map((name, i) => [`DO_${name.toUpperCase()}`, i])),
};
