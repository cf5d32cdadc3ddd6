/**
 * Multiboot 1 kernels (Multiboot Specification 0.6.96): loads the image, the modules, and the information structure,
 * and gives the machine state of its section "Machine state".
 *
 * Information: memory sizes and map, command line (the file's name first, as QEMU and GRUB legacy write it), modules,
 * boot loader name. A GDT with the two flat segments is there, though a kernel may not rely on it. Not provided: boot
 * device, symbols, drives, APM and video information (a kernel that asks for a video mode is told so by flag bit 12
 * being 0, as by QEMU).
 */
import { alignUp, hex } from '../base/bits.js';
import { LabError } from '../base/error.js';
import type { EntrySegment, EntryState, LoadedGuest, Segment } from './entry-state.js';
import { BOOT_LAYOUT } from './linux-boot.js';
import { parseKernelElf } from './multiboot-elf.js';
import { badMultiboot, parseMultibootHeader } from './multiboot-header.js';
import { Ranges } from './ranges.js';

export const MULTIBOOT_BOOT_MAGIC = 0x2bad_b002;
const LOADER_NAME = 'vmxlab';
/** Information goes here, or to the first free place behind it. */
const INFO_AT = 0x9000;
const INFO_BYTES = 120;
const INFO_FLAG = { memory: 1, commandLine: 4, modules: 8, memoryMap: 0x40, loaderName: 0x200 } as const;
/** Offsets in the information structure. */
const INFO = {
  flags: 0,
  memoryLower: 4,
  memoryUpper: 8,
  commandLine: 16,
  moduleCount: 20,
  modules: 24,
  mapBytes: 44,
  map: 48,
  loaderName: 64,
} as const;
const MODULE_ENTRY = 16;
const MAP_ENTRY = 24;
const RAM = 1;
const RESERVED = 2;
const SELECTOR = { code: 0x08, data: 0x10 } as const;
const MISC_ENABLE = 0x1a0;
const MTRR_DEF_TYPE = 0x2ff;
/** Above this lie the APICs. */
const MAX_MEMORY = 0xc000_0000;

export interface MultibootModule {
  /** Text that the kernel gets with the module: its file name and arguments. */
  readonly text: string;
  readonly bytes: Uint8Array;
}

export interface MultibootOptions {
  readonly kernel: Uint8Array;
  /** The file, for messages. */
  readonly kernelName: string;
  /** The whole command line, the kernel's name included. */
  readonly commandLine: string;
  readonly modules?: readonly MultibootModule[];
  /** One slot of guest memory from 0, a multiple of 4096. */
  readonly memoryBytes: number;
  /** More bytes to place, such as ACPI tables. */
  readonly extra?: readonly Segment[];
}

export interface MultibootGuest extends LoadedGuest {
  /** How the image was laid out: by its address fields, or as an ELF image. */
  readonly payload: 'addresses' | 'elf32' | 'elf64';
  /** Guest-physical address of the information structure. */
  readonly info: number;
  readonly modules: readonly { readonly gpa: number; readonly bytes: number }[];
}

/** A piece of the kernel: bytes of the file, and the memory that they and the bss behind them take. */
interface Piece {
  readonly header: number;
  readonly offset: number;
  readonly fileBytes: number;
  readonly gpa: number;
  readonly memoryBytes: number;
}

const layOut = (
  bytes: Uint8Array,
  name: string,
): { payload: MultibootGuest['payload']; entry: number; pieces: readonly Piece[] } => {
  const header = parseMultibootHeader(bytes, name);
  const a = header.addresses;
  if (a !== undefined) {
    const { offset, fileBytes, memoryBytes } = a;
    const piece = { header: header.offset, offset, fileBytes, gpa: a.load, memoryBytes };
    return { payload: 'addresses', entry: a.entry, pieces: [piece] };
  }
  const elf = parseKernelElf(bytes, name);
  return { payload: elf.bits === 32 ? 'elf32' : 'elf64', entry: elf.entry, pieces: elf.segments };
};

const flat = (selector: number, attr: number): EntrySegment => ({
  selector,
  base: 0n,
  limit: 0xffff_ffff,
  attr,
});

/** 32-bit protected mode without paging: EAX has the magic, EBX points at the information. */
export const multibootEntry = (eip: number, info: number, gdt: number): EntryState => {
  const data = flat(SELECTOR.data, 0xc093);
  const gprs = new Array<bigint>(16).fill(0n);
  gprs[0] = BigInt(MULTIBOOT_BOOT_MAGIC);
  gprs[3] = BigInt(info);
  return {
    gprs,
    rip: BigInt(eip),
    rflags: 2,
    cr0: 0x11n, // PE, ET
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    segments: {
      cs: flat(SELECTOR.code, 0xc09b),
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      ldtr: { selector: 0, base: 0n, limit: 0, attr: 0x1_0000 },
      tr: { selector: 0, base: 0n, limit: 0x67, attr: 0x8b },
    },
    gdtr: { base: BigInt(gdt), limit: 3 * 8 - 1 },
    idtr: { base: 0n, limit: 0 },
    msrs: [
      [MISC_ENABLE, 1n],
      [MTRR_DEF_TYPE, 0x806n],
    ],
  };
};

/** NUL-terminated text. */
const cString = (text: string, what: string): Uint8Array => {
  const bytes = new TextEncoder().encode(text);
  if (bytes.includes(0)) throw new LabError('loader.cmdline', `the ${what} contains a NUL character`);
  return Uint8Array.from([...bytes, 0]);
};

interface Info {
  readonly memoryBytes: number;
  readonly commandLine: Uint8Array;
  readonly moduleTexts: readonly Uint8Array[];
}

/** The block of information: structure, memory map, module list, strings, GDT; its size does not depend on its place. */
const infoBlock = (
  at: number,
  info: Info,
  modules: readonly { gpa: number; bytes: number }[],
): { bytes: Uint8Array; gdt: number } => {
  const map = [
    [0, BOOT_LAYOUT.lowEnd, RAM],
    [BOOT_LAYOUT.lowEnd, BOOT_LAYOUT.highStart - BOOT_LAYOUT.lowEnd, RESERVED],
    [BOOT_LAYOUT.highStart, info.memoryBytes - BOOT_LAYOUT.highStart, RAM],
  ] as const;
  const name = cString(LOADER_NAME, 'loader name');
  const gdtAt = 128;
  const mapAt = gdtAt + 24;
  const modulesAt = mapAt + map.length * MAP_ENTRY;
  let next = modulesAt + info.moduleTexts.length * MODULE_ENTRY;
  const strings = [info.commandLine, name, ...info.moduleTexts].map((bytes) => {
    const offset = next;
    next += bytes.length;
    return { offset, bytes };
  });
  const bytes = new Uint8Array(alignUp(next, 16));
  const view = new DataView(bytes.buffer);
  for (const s of strings) bytes.set(s.bytes, s.offset);
  const put = (offset: number, value: number): void => view.setUint32(offset, value, true);
  put(
    INFO.flags,
    Object.values(INFO_FLAG).reduce((v, bit) => v | bit, 0),
  );
  put(INFO.memoryLower, Math.floor(BOOT_LAYOUT.lowEnd / 1024));
  put(INFO.memoryUpper, Math.floor((info.memoryBytes - BOOT_LAYOUT.highStart) / 1024));
  put(INFO.commandLine, at + strings[0].offset);
  put(INFO.moduleCount, modules.length);
  put(INFO.modules, modules.length === 0 ? 0 : at + modulesAt);
  put(INFO.mapBytes, map.length * MAP_ENTRY);
  put(INFO.map, at + mapAt);
  put(INFO.loaderName, at + strings[1].offset);
  map.forEach(([start, size, type], i) => {
    const entry = mapAt + i * MAP_ENTRY;
    put(entry, MAP_ENTRY - 4); // the size does not count itself
    view.setBigUint64(entry + 4, BigInt(start), true);
    view.setBigUint64(entry + 12, BigInt(size), true);
    put(entry + 20, type);
  });
  modules.forEach((m, i) => {
    const entry = modulesAt + i * MODULE_ENTRY;
    put(entry, m.gpa);
    put(entry + 4, m.gpa + m.bytes);
    put(entry + 8, at + strings[2 + i].offset);
  });
  view.setBigUint64(gdtAt + SELECTOR.code, 0x00cf_9b00_0000_ffffn, true);
  view.setBigUint64(gdtAt + SELECTOR.data, 0x00cf_9300_0000_ffffn, true);
  return { bytes, gdt: at + gdtAt };
};
if (INFO_BYTES > 128) throw new Error('the information structure overlaps what follows it');

/**
 * What to copy into guest memory, and the state of the first instruction.
 * @throws LabError `loader.multiboot`, `loader.memory`, `loader.overlap` or `loader.cmdline`
 */
export const loadMultiboot = (options: MultibootOptions): MultibootGuest => {
  const { kernel, kernelName, memoryBytes } = options;
  if (memoryBytes % 4096 !== 0 || memoryBytes <= BOOT_LAYOUT.highStart || memoryBytes > MAX_MEMORY) {
    throw new LabError(
      'loader.memory',
      `guest memory of ${memoryBytes} bytes is not possible`,
      'give a multiple of 4096 between 1 MiB and 3 GiB',
    );
  }
  const { payload, entry, pieces } = layOut(kernel, kernelName);
  const ranges = new Ranges();
  const segments: Segment[] = [];
  pieces.forEach((p, i) => {
    const what = pieces.length === 1 ? kernelName : `${kernelName}, segment ${i}`;
    if (p.gpa + p.memoryBytes > memoryBytes) {
      const rule = `the image's memory ${hex(p.gpa)}-${hex(p.gpa + p.memoryBytes)} ends beyond guest memory of ${memoryBytes} bytes`;
      throw badMultiboot(kernelName, p.header, rule);
    }
    ranges.add({ gpa: p.gpa, size: p.memoryBytes, what });
    if (p.fileBytes > 0)
      segments.push({ gpa: p.gpa, bytes: kernel.subarray(p.offset, p.offset + p.fileBytes), what });
  });
  for (const e of options.extra ?? []) {
    ranges.add({ gpa: e.gpa, size: e.bytes.length, what: e.what });
    segments.push(e);
  }

  const given = options.modules ?? [];
  const modules = given.map((m, i) => {
    const what = `module ${i} (${m.text})`;
    const from = Math.max(BOOT_LAYOUT.highStart, ranges.end);
    const gpa = ranges.place(m.bytes.length, 4096, from, memoryBytes, what);
    if (gpa === undefined) {
      throw new LabError(
        'loader.memory',
        `${what} of ${m.bytes.length} bytes does not fit behind ${hex(from)} in guest memory of ${memoryBytes} bytes`,
        'give the guest more memory',
      );
    }
    segments.push({ gpa, bytes: m.bytes, what });
    return { gpa, bytes: m.bytes.length };
  });

  const texts: Info = {
    memoryBytes,
    commandLine: cString(options.commandLine, 'command line'),
    moduleTexts: given.map((m) => cString(m.text, 'text of a module')),
  };
  const size = infoBlock(0, texts, modules).bytes.length;
  const info =
    ranges.place(size, 16, INFO_AT, BOOT_LAYOUT.lowEnd, 'information') ??
    ranges.place(size, 16, BOOT_LAYOUT.highStart, memoryBytes, 'information');
  if (info === undefined)
    throw new LabError('loader.memory', `there is no room for ${size} bytes of Multiboot information`);
  const block = infoBlock(info, texts, modules);
  segments.push({ gpa: info, bytes: block.bytes, what: 'Multiboot information' });
  return { segments, entry: multibootEntry(entry, info, block.gdt), payload, info, modules };
};
