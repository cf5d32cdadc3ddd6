/**
 * The loadable segments of a Multiboot kernel's ELF image, 32- or 64-bit (System V ABI, "Object Files"; Multiboot
 * Specification: segments go to their physical addresses, the entry may be given as a virtual address).
 *
 * Not read: sections and symbols, relocations.
 */
import { hex } from '../base/bits.js';
import { isElf } from './elf.js';
import { badMultiboot } from './multiboot-header.js';

const PT_LOAD = 1;
const EM_386 = 3;
const EM_X86_64 = 62;
const ET_EXEC = 2;

/** Where the fields are, by class. */
const LAYOUTS = {
  1: {
    header: 52,
    phoff: 28,
    phentsize: 42,
    phnum: 44,
    phdr: 32,
    word: 4,
    offset: 4,
    vaddr: 8,
    paddr: 12,
    filesz: 16,
    memsz: 20,
  },
  2: {
    header: 64,
    phoff: 32,
    phentsize: 54,
    phnum: 56,
    phdr: 56,
    word: 8,
    offset: 8,
    vaddr: 16,
    paddr: 24,
    filesz: 32,
    memsz: 40,
  },
} as const;

export interface LoadSegment {
  /** File offset of its program header, for messages. */
  readonly header: number;
  readonly offset: number;
  readonly fileBytes: number;
  readonly vaddr: bigint;
  readonly gpa: number;
  readonly memoryBytes: number;
}

export interface KernelElf {
  /** 32 or 64. */
  readonly bits: 32 | 64;
  /** Physical address of the first instruction. */
  readonly entry: number;
  readonly segments: readonly LoadSegment[];
}

/** @throws LabError `loader.multiboot` naming file, offset and rule */
export const parseKernelElf = (bytes: Uint8Array, name: string): KernelElf => {
  if (!isElf(bytes))
    throw badMultiboot(
      name,
      0,
      'neither address fields (flag bit 16) nor an ELF image: the magic is not 7f 45 4c 46',
    );
  const kind = bytes[4];
  if (kind !== 1 && kind !== 2)
    throw badMultiboot(name, 4, `ELF class ${kind} is neither 1 (32-bit) nor 2 (64-bit)`);
  const l = LAYOUTS[kind];
  if (bytes.length < l.header)
    throw badMultiboot(name, 0, `an ELF header has ${l.header} bytes, the file has ${bytes.length}`);
  if (bytes[5] !== 1) throw badMultiboot(name, 5, `data encoding ${bytes[5]} is not 1 (little-endian)`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u16 = (at: number): number => view.getUint16(at, true);
  const word = (at: number): bigint =>
    l.word === 8 ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true));
  const number = (at: number, what: string): number => {
    const value = word(at);
    if (value >= 0x1_0000_0000n) throw badMultiboot(name, at, `${what} ${hex(value)} is 4 GiB or more`);
    return Number(value);
  };
  if (u16(16) !== ET_EXEC) throw badMultiboot(name, 16, `ELF type ${u16(16)} is not 2 (executable)`);
  const machine = u16(18);
  if (machine !== EM_386 && machine !== EM_X86_64)
    throw badMultiboot(name, 18, `ELF machine ${machine} is neither 3 (i386) nor 62 (x86-64)`);
  const phoff = number(l.phoff, 'the program-header offset');
  const phnum = u16(l.phnum);
  if (phnum === 0) throw badMultiboot(name, l.phnum, 'there are no program headers');
  if (u16(l.phentsize) !== l.phdr)
    throw badMultiboot(name, l.phentsize, `program headers of ${u16(l.phentsize)} bytes are not ${l.phdr}`);
  if (phoff + phnum * l.phdr > bytes.length)
    throw badMultiboot(name, l.phoff, 'the program headers are outside the file');

  const segments: LoadSegment[] = [];
  for (let i = 0; i < phnum; i++) {
    const at = phoff + i * l.phdr;
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    const segment: LoadSegment = {
      header: at,
      offset: number(at + l.offset, 'the offset of a segment'),
      fileBytes: number(at + l.filesz, 'the file size of a segment'),
      vaddr: word(at + l.vaddr),
      gpa: number(at + l.paddr, 'the physical address of a segment'),
      memoryBytes: number(at + l.memsz, 'the memory size of a segment'),
    };
    if (segment.memoryBytes === 0 && segment.fileBytes === 0) continue;
    if (segment.offset + segment.fileBytes > bytes.length) {
      throw badMultiboot(
        name,
        at,
        `segment ${i} ends at ${segment.offset + segment.fileBytes}, outside the file of ${bytes.length} bytes`,
      );
    }
    if (segment.fileBytes > segment.memoryBytes) {
      throw badMultiboot(
        name,
        at,
        `segment ${i} has more bytes in the file (${segment.fileBytes}) than in memory (${segment.memoryBytes})`,
      );
    }
    segments.push(segment);
  }
  if (segments.length === 0) throw badMultiboot(name, phoff, 'there is no segment to load');
  return { bits: kind === 1 ? 32 : 64, entry: physicalEntry(word(24), segments, name), segments };
};

/** The entry as a physical address: an address in a segment's virtual range is moved with the segment. */
const physicalEntry = (entry: bigint, segments: readonly LoadSegment[], name: string): number => {
  for (const s of segments) {
    if (entry >= s.vaddr && entry < s.vaddr + BigInt(s.memoryBytes)) return s.gpa + Number(entry - s.vaddr);
  }
  const physical = Number(entry);
  if (segments.some((s) => physical >= s.gpa && physical < s.gpa + s.memoryBytes)) return physical;
  throw badMultiboot(name, 24, `the entry ${hex(entry)} is in no loaded segment`);
};
