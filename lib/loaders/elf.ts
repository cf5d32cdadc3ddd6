/**
 * ELF kernels, little-endian: x86-64 in 64-bit files and i386 in 32-bit files: header, program headers, and the symbol
 * table if there is one (System V ABI, "Object Files"). Damaged input is a `LabError` that names the file, the offset and the rule.
 *
 * Not read: relocations, dynamic linking information, section contents other than symbols.
 */
import { LabError } from '../base/error.js';

export const PT_LOAD = 1;
const SHT_SYMTAB = 2;
const MAX_ADDRESS = 2 ** 52;

/** Sizes of the structures and places of their fields, by class. */
const LAYOUTS = {
  32: {
    machine: 3,
    ehdr: { bytes: 52, entry: 24, phoff: 28, shoff: 32, phentsize: 42, phnum: 44, shentsize: 46, shnum: 48 },
    phdr: { bytes: 32, flags: 24, offset: 4, vaddr: 8, paddr: 12, filesz: 16, memsz: 20 },
    shdr: { bytes: 40, offset: 16, size: 20, link: 24 },
    sym: { bytes: 16, value: 4, size: 8 },
  },
  64: {
    machine: 62,
    ehdr: { bytes: 64, entry: 24, phoff: 32, shoff: 40, phentsize: 54, phnum: 56, shentsize: 58, shnum: 60 },
    phdr: { bytes: 56, flags: 4, offset: 8, vaddr: 16, paddr: 24, filesz: 32, memsz: 40 },
    shdr: { bytes: 64, offset: 24, size: 32, link: 40 },
    sym: { bytes: 24, value: 8, size: 16 },
  },
} as const;

export interface ProgramHeader {
  readonly type: number;
  /** Bit 0 execute, 1 write, 2 read. */
  readonly flags: number;
  readonly offset: number;
  readonly vaddr: bigint;
  /** Physical address. */
  readonly paddr: number;
  readonly fileBytes: number;
  readonly memoryBytes: number;
}

export interface ElfSymbol {
  readonly name: string;
  readonly value: bigint;
  readonly size: number;
}

export interface ElfImage {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly bits: 32 | 64;
  /** 2 executable, 3 shared object. */
  readonly type: number;
  readonly entry: bigint;
  readonly programs: readonly ProgramHeader[];
  /** Bytes up to the end of what the headers describe; a bzImage payload has its relocation table after that. */
  readonly imageBytes: number;
  /** Read when first asked for; empty in a stripped image. */
  symbols(): readonly ElfSymbol[];
}

const bad = (name: string, offset: number, rule: string): LabError =>
  new LabError('loader.elf', `${name}: at offset 0x${offset.toString(16)}: ${rule}`);

/** True when the bytes begin like an ELF file. */
export const isElf = (bytes: Uint8Array): boolean =>
  bytes.length >= 4 && bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;

/** @param name the file, for messages */
export const parseElf = (bytes: Uint8Array, name: string): ElfImage => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u16 = (at: number): number => view.getUint16(at, true);
  const u32 = (at: number): number => view.getUint32(at, true);
  const bits = bytes[4] === 1 ? 32 : 64;
  const l = LAYOUTS[bits];
  const word = (at: number): bigint => (bits === 64 ? view.getBigUint64(at, true) : BigInt(u32(at)));
  /** A file offset, size or physical address. */
  const number = (at: number, what: string): number => {
    const value = word(at);
    if (value >= BigInt(MAX_ADDRESS)) throw bad(name, at, `${what} 0x${value.toString(16)} is 2^52 or more`);
    return Number(value);
  };

  if (bytes.length < l.ehdr.bytes)
    throw bad(name, 0, `an ELF header has ${l.ehdr.bytes} bytes, the file has ${bytes.length}`);
  if (!isElf(bytes)) throw bad(name, 0, 'the magic is not 7f 45 4c 46');
  if (bytes[4] !== 1 && bytes[4] !== 2)
    throw bad(name, 4, `class ${bytes[4]} is neither 1 (32-bit) nor 2 (64-bit)`);
  if (bytes[5] !== 1) throw bad(name, 5, `data encoding ${bytes[5]} is not 1 (little-endian)`);
  const type = u16(16);
  if (type !== 2 && type !== 3)
    throw bad(name, 16, `type ${type} is not 2 (executable) or 3 (shared object)`);
  if (u16(18) !== l.machine)
    throw bad(
      name,
      18,
      `machine ${u16(18)} of a ${bits}-bit file is not ${bits === 64 ? '62 (x86-64)' : '3 (i386)'}`,
    );

  const phoff = number(l.ehdr.phoff, 'the program-header offset');
  const phnum = u16(l.ehdr.phnum);
  const phentsize = u16(l.ehdr.phentsize);
  if (phnum > 0 && phentsize !== l.phdr.bytes)
    throw bad(name, l.ehdr.phentsize, `program headers of ${phentsize} bytes are not ${l.phdr.bytes}`);
  if (phnum === 0) throw bad(name, l.ehdr.phnum, 'there are no program headers');
  if (phoff + phnum * l.phdr.bytes > bytes.length)
    throw bad(name, l.ehdr.phoff, 'the program headers are outside the file');

  let imageBytes = phoff + phnum * l.phdr.bytes;
  const programs: ProgramHeader[] = [];
  for (let i = 0; i < phnum; i++) {
    const at = phoff + i * l.phdr.bytes;
    const program: ProgramHeader = {
      type: u32(at),
      flags: u32(at + l.phdr.flags),
      offset: number(at + l.phdr.offset, 'the offset of a segment'),
      vaddr: word(at + l.phdr.vaddr),
      paddr: number(at + l.phdr.paddr, 'the physical address of a segment'),
      fileBytes: number(at + l.phdr.filesz, 'the file size of a segment'),
      memoryBytes: number(at + l.phdr.memsz, 'the memory size of a segment'),
    };
    if (program.type === PT_LOAD) {
      if (program.offset + program.fileBytes > bytes.length) {
        throw bad(
          name,
          at,
          `segment ${i} ends at ${program.offset + program.fileBytes}, outside the file of ${bytes.length} bytes`,
        );
      }
      if (program.fileBytes > program.memoryBytes) {
        throw bad(
          name,
          at,
          `segment ${i} has more bytes in the file (${program.fileBytes}) than in memory (${program.memoryBytes})`,
        );
      }
      imageBytes = Math.max(imageBytes, program.offset + program.fileBytes);
    }
    programs.push(program);
  }
  if (!programs.some((p) => p.type === PT_LOAD)) throw bad(name, phoff, 'there is no segment to load');

  const shoff = number(l.ehdr.shoff, 'the section-header offset');
  const shnum = shoff === 0 ? 0 : u16(l.ehdr.shnum);
  const shentsize = u16(l.ehdr.shentsize);
  if (shnum > 0 && shentsize !== l.shdr.bytes)
    throw bad(name, l.ehdr.shentsize, `section headers of ${shentsize} bytes are not ${l.shdr.bytes}`);
  if (shoff + shnum * l.shdr.bytes > bytes.length)
    throw bad(name, l.ehdr.shoff, 'the section headers are outside the file');
  if (shnum > 0) imageBytes = Math.max(imageBytes, shoff + shnum * l.shdr.bytes);

  const readSymbols = (): ElfSymbol[] => {
    const out: ElfSymbol[] = [];
    for (let i = 0; i < shnum; i++) {
      const at = shoff + i * l.shdr.bytes;
      if (u32(at + 4) !== SHT_SYMTAB) continue;
      const first = number(at + l.shdr.offset, 'the offset of the symbols');
      const size = number(at + l.shdr.size, 'the size of the symbols');
      const link = u32(at + l.shdr.link);
      if (link >= shnum) throw bad(name, at + l.shdr.link, `string section ${link} does not exist`);
      const strings = number(shoff + link * l.shdr.bytes + l.shdr.offset, 'the offset of the strings');
      const stringBytes = number(shoff + link * l.shdr.bytes + l.shdr.size, 'the size of the strings');
      if (first + size > bytes.length) throw bad(name, at, 'the symbols are outside the file');
      if (strings + stringBytes > bytes.length) throw bad(name, at, 'the symbol names are outside the file');
      for (let s = first; s + l.sym.bytes <= first + size; s += l.sym.bytes) {
        const from = u32(s);
        if (from >= stringBytes) throw bad(name, s, `name ${from} is outside the string section`);
        let to = strings + from;
        while (to < strings + stringBytes && bytes[to] !== 0) to++;
        const text = String.fromCharCode(...bytes.subarray(strings + from, to));
        out.push({ name: text, value: word(s + l.sym.value), size: Number(word(s + l.sym.size)) });
      }
    }
    return out;
  };
  let symbols: readonly ElfSymbol[] | undefined;

  return {
    name,
    bytes,
    bits,
    type,
    entry: word(l.ehdr.entry),
    programs,
    imageBytes,
    symbols() {
      symbols ??= readSymbols();
      return symbols;
    },
  };
};
