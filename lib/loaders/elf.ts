/**
 * ELF64 little-endian x86-64 images: header, program headers, and the symbol table if there is one
 * (System V ABI, "Object Files"). Damaged input is a `LabError` that names the file, the offset and the rule.
 *
 * Not read: relocations, dynamic linking information, section contents other than symbols.
 */
import { LabError } from '../base/error.js';

export const PT_LOAD = 1;
const EHDR_BYTES = 64;
const PHDR_BYTES = 56;
const SHDR_BYTES = 64;
const SYM_BYTES = 24;
const SHT_SYMTAB = 2;
const EM_X86_64 = 62;
const MAX_ADDRESS = 2 ** 52;

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
  const u64 = (at: number): bigint => view.getBigUint64(at, true);
  /** A file offset, size or physical address. */
  const number = (at: number, what: string): number => {
    const value = u64(at);
    if (value >= BigInt(MAX_ADDRESS)) throw bad(name, at, `${what} 0x${value.toString(16)} is 2^52 or more`);
    return Number(value);
  };

  if (bytes.length < EHDR_BYTES)
    throw bad(name, 0, `an ELF header has 64 bytes, the file has ${bytes.length}`);
  if (!isElf(bytes)) throw bad(name, 0, 'the magic is not 7f 45 4c 46');
  if (bytes[4] !== 2) throw bad(name, 4, `class ${bytes[4]} is not 2 (64-bit)`);
  if (bytes[5] !== 1) throw bad(name, 5, `data encoding ${bytes[5]} is not 1 (little-endian)`);
  const type = u16(16);
  if (type !== 2 && type !== 3)
    throw bad(name, 16, `type ${type} is not 2 (executable) or 3 (shared object)`);
  if (u16(18) !== EM_X86_64) throw bad(name, 18, `machine ${u16(18)} is not 62 (x86-64)`);

  const phoff = number(32, 'the program-header offset');
  const phnum = u16(56);
  if (phnum > 0 && u16(54) !== PHDR_BYTES)
    throw bad(name, 54, `program headers of ${u16(54)} bytes are not 56`);
  if (phnum === 0) throw bad(name, 56, 'there are no program headers');
  if (phoff + phnum * PHDR_BYTES > bytes.length)
    throw bad(name, 32, 'the program headers are outside the file');

  let imageBytes = phoff + phnum * PHDR_BYTES;
  const programs: ProgramHeader[] = [];
  for (let i = 0; i < phnum; i++) {
    const at = phoff + i * PHDR_BYTES;
    const program: ProgramHeader = {
      type: u32(at),
      flags: u32(at + 4),
      offset: number(at + 8, 'the offset of a segment'),
      vaddr: u64(at + 16),
      paddr: number(at + 24, 'the physical address of a segment'),
      fileBytes: number(at + 32, 'the file size of a segment'),
      memoryBytes: number(at + 40, 'the memory size of a segment'),
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

  const shoff = number(40, 'the section-header offset');
  const shnum = shoff === 0 ? 0 : u16(60);
  if (shnum > 0 && u16(58) !== SHDR_BYTES)
    throw bad(name, 58, `section headers of ${u16(58)} bytes are not 64`);
  if (shoff + shnum * SHDR_BYTES > bytes.length)
    throw bad(name, 40, 'the section headers are outside the file');
  if (shnum > 0) imageBytes = Math.max(imageBytes, shoff + shnum * SHDR_BYTES);

  const readSymbols = (): ElfSymbol[] => {
    const out: ElfSymbol[] = [];
    for (let i = 0; i < shnum; i++) {
      const at = shoff + i * SHDR_BYTES;
      if (u32(at + 4) !== SHT_SYMTAB) continue;
      const first = number(at + 24, 'the offset of the symbols');
      const size = number(at + 32, 'the size of the symbols');
      const link = u32(at + 40);
      if (link >= shnum) throw bad(name, at + 40, `string section ${link} does not exist`);
      const strings = number(shoff + link * SHDR_BYTES + 24, 'the offset of the strings');
      const stringBytes = number(shoff + link * SHDR_BYTES + 32, 'the size of the strings');
      if (first + size > bytes.length) throw bad(name, at, 'the symbols are outside the file');
      if (strings + stringBytes > bytes.length) throw bad(name, at, 'the symbol names are outside the file');
      for (let s = first; s + SYM_BYTES <= first + size; s += SYM_BYTES) {
        const from = u32(s);
        if (from >= stringBytes) throw bad(name, s, `name ${from} is outside the string section`);
        let to = strings + from;
        while (to < strings + stringBytes && bytes[to] !== 0) to++;
        const text = String.fromCharCode(...bytes.subarray(strings + from, to));
        out.push({ name: text, value: u64(s + 8), size: Number(u64(s + 16)) });
      }
    }
    return out;
  };
  let symbols: readonly ElfSymbol[] | undefined;

  return {
    name,
    bytes,
    type,
    entry: u64(24),
    programs,
    imageBytes,
    symbols() {
      symbols ??= readSymbols();
      return symbols;
    },
  };
};
