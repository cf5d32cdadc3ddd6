/**
 * Starts an uncompressed Linux kernel through its 64-bit entry, or a 32-bit kernel through its 32-bit entry (Linux "The
 * Linux/x86 Boot Protocol", "64-bit Boot Protocol", "32-bit Boot Protocol"), as a micro-VM monitor does: no BIOS, no boot
 * loader, no real mode.
 *
 *   0x00500  GDT               0x20000  command line
 *   0x07000  zero page         0xe0000  ACPI tables, if any
 *   0x09000  page tables       top      initramfs, page-aligned
 *
 * For 64 bits paging is on with an identity map of 4 GiB in 2 MiB pages; for 32 bits it is off. RSI points to the zero
 * page; the IDT is empty.
 * Not done: moving the kernel (its relocation table is ignored), memory above the 32-bit hole, EFI.
 */
import { alignDown, hex } from '../base/bits.js';
import { LabError } from '../base/error.js';
import { type ElfImage, PT_LOAD, parseElf } from './elf.js';
import type { EntrySegment, EntryState, LoadedGuest, Segment } from './entry-state.js';

export const BOOT_LAYOUT = {
  gdt: 0x500,
  zeroPage: 0x7000,
  pageTables: 0x9000,
  commandLine: 0x2_0000,
  /** End of usable low memory. */
  lowEnd: 0x9_fc00,
  highStart: 0x10_0000,
} as const;
/** Above this lie the APICs; memory there would need a second slot. */
const MAX_MEMORY = 0xc000_0000;
const MAX_COMMAND_LINE = 2047;
/** A 32-bit kernel reaches its initramfs through its direct map of low memory (`initrd_addr_max` of such kernels). */
const MAX_INITRAMFS_32 = 0x3800_0000;
const SELECTOR = { code: 0x10, data: 0x18, task: 0x20 } as const;

/** Offsets in the zero page (`struct boot_params`). */
const ZERO_PAGE = {
  e820Entries: 0x1e8,
  bootFlag: 0x1fe,
  magic: 0x202,
  loaderType: 0x210,
  ramdiskImage: 0x218,
  ramdiskBytes: 0x21c,
  commandLine: 0x228,
  kernelAlignment: 0x230,
  commandLineBytes: 0x238,
  e820: 0x2d0,
} as const;
const E820_RAM = 1;
const CR0 = 0x8001_0031n; // PG WP NE ET PE
const CR0_UNPAGED = 0x31n; // NE ET PE
const CR4_PAE = 1n << 5n;
const EFER = 0x500n; // LME LMA
const PAGE = { present: 1n, writable: 2n, large: 0x80n } as const;
const MISC_ENABLE = 0x1a0;
const MTRR_DEF_TYPE = 0x2ff;

export interface LinuxBootOptions {
  /** A vmlinux, or the decompressed payload of a bzImage. */
  readonly kernel: Uint8Array;
  /** The file, for messages. */
  readonly kernelName: string;
  readonly commandLine: string;
  readonly initramfs?: Uint8Array;
  /** One slot of guest memory from 0, a multiple of 4096. */
  readonly memoryBytes: number;
  /** More bytes to place, such as ACPI tables. */
  readonly extra?: readonly { readonly gpa: number; readonly bytes: Uint8Array; readonly what?: string }[];
}

export interface LinuxGuest extends LoadedGuest {
  readonly elf: ElfImage;
  /** Guest-physical range of the initramfs; 0 bytes without one. */
  readonly initramfs: { readonly gpa: number; readonly bytes: number };
}

const u64Table = (gpa: number, entries: readonly bigint[], what: string): Segment => ({
  gpa,
  bytes: new Uint8Array(BigUint64Array.from(entries).buffer),
  what,
});

/** PML4, PDPT and four page directories: 4 GiB, 2 MiB pages, identity. */
const pageTables = (): Segment => {
  const at = BOOT_LAYOUT.pageTables;
  const table = PAGE.present | PAGE.writable;
  const entries = new Array<bigint>(6 * 512).fill(0n);
  entries[0] = BigInt(at + 0x1000) | table;
  for (let i = 0; i < 4; i++) entries[512 + i] = BigInt(at + 0x2000 + i * 0x1000) | table;
  for (let i = 0; i < 4 * 512; i++) entries[1024 + i] = (BigInt(i) << 21n) | table | PAGE.large;
  return u64Table(at, entries, 'page tables');
};

const gdt = (bits: 32 | 64): Segment =>
  u64Table(
    BOOT_LAYOUT.gdt,
    [
      0n,
      0n,
      bits === 64 ? 0x00af_9b00_0000_ffffn : 0x00cf_9b00_0000_ffffn, // code: execute and read, accessed
      0x00cf_9300_0000_ffffn, // data: read and write, accessed
      0x0000_8b00_0000_0067n, // task: busy TSS at 0
      0n,
    ],
    'GDT',
  );

const segmentOf = (selector: number, limit: number, attr: number): EntrySegment => ({
  selector,
  base: 0n,
  limit,
  attr,
});

/** The state at a 64-bit entry point with the tables of this file. */
export const longModeEntry = (rip: bigint, rsi: bigint): EntryState => {
  const data = segmentOf(SELECTOR.data, 0xffff_ffff, 0xc093);
  const gprs = new Array<bigint>(16).fill(0n);
  gprs[6] = rsi;
  return {
    gprs,
    rip,
    rflags: 2,
    cr0: CR0,
    cr3: BigInt(BOOT_LAYOUT.pageTables),
    cr4: CR4_PAE,
    efer: EFER,
    segments: {
      cs: segmentOf(SELECTOR.code, 0xffff_ffff, 0xa09b),
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      ldtr: segmentOf(0, 0, 0x1_0000),
      tr: segmentOf(SELECTOR.task, 0x67, 0x8b),
    },
    gdtr: { base: BigInt(BOOT_LAYOUT.gdt), limit: 6 * 8 - 1 },
    idtr: { base: 0n, limit: 0 },
    msrs: [
      [MISC_ENABLE, 1n],
      [MTRR_DEF_TYPE, 0x806n],
    ],
  };
};

/** The tables that `longModeEntry` relies on, for guests that are not Linux. */
export const longModeTables = (): readonly Segment[] => [gdt(64), pageTables()];

/** The state at a 32-bit entry point: flat segments, no paging. */
const protectedModeEntry = (rip: bigint, rsi: bigint): EntryState => {
  const long = longModeEntry(rip, rsi);
  return {
    ...long,
    cr0: CR0_UNPAGED,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    segments: { ...long.segments, cs: segmentOf(SELECTOR.code, 0xffff_ffff, 0xc09b) },
  };
};

const zeroPage = (
  memoryBytes: number,
  commandLineBytes: number,
  ramdisk: { gpa: number; bytes: number },
): Segment => {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  view.setUint16(ZERO_PAGE.bootFlag, 0xaa55, true);
  view.setUint32(ZERO_PAGE.magic, 0x5372_6448, true);
  view.setUint8(ZERO_PAGE.loaderType, 0xff);
  view.setUint32(ZERO_PAGE.ramdiskImage, ramdisk.gpa, true);
  view.setUint32(ZERO_PAGE.ramdiskBytes, ramdisk.bytes, true);
  view.setUint32(ZERO_PAGE.commandLine, BOOT_LAYOUT.commandLine, true);
  view.setUint32(ZERO_PAGE.kernelAlignment, 0x100_0000, true);
  view.setUint32(ZERO_PAGE.commandLineBytes, commandLineBytes, true);
  const ranges = [
    [0, BOOT_LAYOUT.lowEnd],
    [BOOT_LAYOUT.highStart, memoryBytes - BOOT_LAYOUT.highStart],
  ];
  view.setUint8(ZERO_PAGE.e820Entries, ranges.length);
  ranges.forEach(([start, size], i) => {
    const at = ZERO_PAGE.e820 + 20 * i;
    view.setBigUint64(at, BigInt(start), true);
    view.setBigUint64(at + 8, BigInt(size), true);
    view.setUint32(at + 16, E820_RAM, true);
  });
  return { gpa: BOOT_LAYOUT.zeroPage, bytes, what: 'zero page' };
};

/** Throws `loader.overlap` when two ranges of guest memory meet. */
const checkOverlaps = (ranges: readonly { gpa: number; size: number; what: string }[]): void => {
  const sorted = ranges.filter((r) => r.size > 0).sort((a, b) => a.gpa - b.gpa);
  for (let i = 1; i < sorted.length; i++) {
    const [a, b] = [sorted[i - 1], sorted[i]];
    if (a.gpa + a.size > b.gpa) {
      throw new LabError(
        'loader.overlap',
        `${a.what} at ${hex(a.gpa)} + ${a.size} overlaps ${b.what} at ${hex(b.gpa)}`,
      );
    }
  }
};

/**
 * What to copy into guest memory, and the state of the first instruction.
 * Throws `loader.memory` (too little, or not placeable), `loader.cmdline`, `loader.overlap`, `loader.elf`.
 */
export const loadLinux = (options: LinuxBootOptions): LinuxGuest => {
  const { kernelName, memoryBytes } = options;
  if (memoryBytes % 4096 !== 0 || memoryBytes <= BOOT_LAYOUT.highStart || memoryBytes > MAX_MEMORY) {
    throw new LabError(
      'loader.memory',
      `guest memory of ${memoryBytes} bytes is not possible`,
      'give a multiple of 4096 between 1 MiB and 3 GiB',
    );
  }
  const text = new TextEncoder().encode(options.commandLine);
  if (text.length > MAX_COMMAND_LINE || text.includes(0)) {
    throw new LabError(
      'loader.cmdline',
      `a command line of ${text.length} bytes is not possible`,
      `at most ${MAX_COMMAND_LINE} bytes, none of them 0`,
    );
  }

  const elf = parseElf(options.kernel, kernelName);
  const used: { gpa: number; size: number; what: string }[] = [];
  const segments: Segment[] = [];
  elf.programs.forEach((p, i) => {
    if (p.type !== PT_LOAD || p.memoryBytes === 0) return;
    const what = `${kernelName} segment ${i}`;
    if (p.paddr < BOOT_LAYOUT.highStart) {
      throw new LabError(
        'loader.memory',
        `${what} at ${hex(p.paddr)} is below 1 MiB`,
        'the kernel must be linked for physical memory above it',
      );
    }
    if (p.paddr + p.memoryBytes > memoryBytes) {
      throw new LabError(
        'loader.memory',
        `${what} ends at ${hex(p.paddr + p.memoryBytes)}, beyond guest memory of ${memoryBytes} bytes`,
        'give the guest more memory',
      );
    }
    used.push({ gpa: p.paddr, size: p.memoryBytes, what });
    segments.push({ gpa: p.paddr, bytes: options.kernel.subarray(p.offset, p.offset + p.fileBytes), what });
  });
  const entryInside = elf.programs.some(
    (p) => p.type === PT_LOAD && elf.entry >= BigInt(p.paddr) && elf.entry < BigInt(p.paddr + p.fileBytes),
  );
  if (!entryInside) {
    throw new LabError(
      'loader.entry',
      `${kernelName}: entry ${hex(elf.entry)} is in no loaded segment`,
      'the entry of a kernel is a physical address',
    );
  }

  const ramdisk = { gpa: 0, bytes: options.initramfs?.length ?? 0 };
  if (options.initramfs !== undefined && ramdisk.bytes > 0) {
    const end = elf.bits === 32 ? Math.min(memoryBytes, MAX_INITRAMFS_32) : memoryBytes;
    ramdisk.gpa = alignDown(end - ramdisk.bytes, 4096);
    const kernelEnd = Math.max(...used.map((u) => u.gpa + u.size));
    if (ramdisk.gpa < kernelEnd) {
      throw new LabError(
        'loader.memory',
        `an initramfs of ${ramdisk.bytes} bytes does not fit between the kernel's end ${hex(kernelEnd)} and the end of guest memory ${hex(end)}`,
        'give the guest more memory',
      );
    }
    segments.push({ gpa: ramdisk.gpa, bytes: options.initramfs, what: 'initramfs' });
  }
  const commandLine = Uint8Array.from([...text, 0]);
  segments.push(
    ...(elf.bits === 64 ? longModeTables() : [gdt(32)]),
    zeroPage(memoryBytes, commandLine.length, ramdisk),
    { gpa: BOOT_LAYOUT.commandLine, bytes: commandLine, what: 'command line' },
    ...(options.extra ?? []).map((e) => ({
      gpa: e.gpa,
      bytes: e.bytes,
      what: e.what ?? `bytes at ${hex(e.gpa)}`,
    })),
  );
  for (const s of segments) {
    if (s.gpa + s.bytes.length > memoryBytes) {
      throw new LabError(
        'loader.memory',
        `${s.what} ends at ${hex(s.gpa + s.bytes.length)}, beyond guest memory of ${memoryBytes} bytes`,
      );
    }
  }
  const kernelWhats = new Set(used.map((u) => u.what));
  checkOverlaps([
    ...used,
    ...segments
      .filter((s) => !kernelWhats.has(s.what))
      .map((s) => ({ gpa: s.gpa, size: s.bytes.length, what: s.what })),
  ]);
  const start = elf.bits === 64 ? longModeEntry : protectedModeEntry;
  return { segments, entry: start(elf.entry, BigInt(BOOT_LAYOUT.zeroPage)), elf, initramfs: ramdisk };
};
