/**
 * Which kind of image a file is: a bzImage, a Multiboot 1 kernel, an ELF kernel for the 64-bit Linux entry, or a ROM.
 *
 * Asked in this order, because a bzImage may be a PE file and a Multiboot kernel is mostly an ELF file. A ROM has no
 * magic: its size is a multiple of 4 KiB and a jump stands at the reset vector, 16 bytes before its end.
 */
import { LabError } from '../base/error.js';
import { isBzImage } from './bzimage.js';
import { isElf } from './elf.js';
import { findMultibootHeader, MULTIBOOT2_MAGIC } from './multiboot-header.js';
import { RESET_VECTOR_BYTES, ROM_MAX_BYTES, ROM_UNIT } from './rom.js';

export const IMAGE_FORMATS = ['bzimage', 'elf', 'multiboot', 'rom'] as const;
export type ImageFormat = (typeof IMAGE_FORMATS)[number];

const EM_386 = 3;
const EM_X86_64 = 62;
const KNOWN = 'vmxlab boots bzImage, ELF x86-64 Linux, Multiboot 1 and flat ROM images';

/** Files that are taken for a kernel by mistake, by their first bytes. */
const OTHERS: readonly (readonly [magic: readonly number[], what: string])[] = [
  [[0x1f, 0x8b], 'a gzip file'],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], 'an xz file'],
  [[0x28, 0xb5, 0x2f, 0xfd], 'a zstd file'],
  [[0x30, 0x37, 0x30, 0x37], 'a cpio archive'],
  [[0x21, 0x3c, 0x61, 0x72, 0x63, 0x68, 0x3e], 'an ar archive'],
  [[0x4d, 0x5a], 'a PE file'],
  [[0x23, 0x21], 'a script'],
];

const unknown = (name: string, offset: number, rule: string): LabError =>
  new LabError('loader.format', `${name}: at offset 0x${offset.toString(16)}: ${rule}`, KNOWN);

/** Bytes that may stand before the jump of a reset vector: NOP, CLI, CLD, and prefixes. */
const BEFORE_JUMP = new Set([0x90, 0xfa, 0xfc, 0x66, 0x67, 0x2e]);

/** True when the 16 bytes at the reset vector begin with a jump (EA, E9, EB), or WBINVD and one. */
const jumpsAtReset = (bytes: Uint8Array): boolean => {
  let at = bytes.length - RESET_VECTOR_BYTES;
  while (at < bytes.length && BEFORE_JUMP.has(bytes[at])) at++;
  if (bytes[at] === 0x0f && bytes[at + 1] === 0x09) at += 2;
  return bytes[at] === 0xea || bytes[at] === 0xe9 || bytes[at] === 0xeb;
};

const elfFormat = (bytes: Uint8Array, name: string): ImageFormat => {
  const machine = bytes.length >= 20 ? bytes[18] | (bytes[19] << 8) : -1;
  if (machine === EM_X86_64 && bytes[4] === 2) return 'elf';
  if (machine === EM_386 || machine === EM_X86_64) {
    throw unknown(name, 4, 'an ELF image of 32 bits needs a Multiboot header in its first 8192 bytes');
  }
  throw unknown(name, 18, `ELF machine ${machine} is neither 3 (i386) nor 62 (x86-64)`);
};

/**
 * The format of an image. Damage inside a format is found by its loader.
 * @param name the file, for messages
 * @throws LabError `loader.format` for a file that is none of them, with the reason
 */
export const recogniseImage = (bytes: Uint8Array, name: string): ImageFormat => {
  if (bytes.length === 0) throw unknown(name, 0, 'the file is empty');
  if (isBzImage(bytes)) return 'bzimage';
  if (findMultibootHeader(bytes) !== undefined) return 'multiboot';
  if (isElf(bytes)) return elfFormat(bytes, name);
  if (bytes.length % ROM_UNIT === 0 && bytes.length <= ROM_MAX_BYTES && jumpsAtReset(bytes)) return 'rom';
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 16 <= Math.min(bytes.length, 32768); at += 8) {
    if (view.getUint32(at, true) === MULTIBOOT2_MAGIC)
      throw unknown(name, at, 'this is a Multiboot 2 header, which is not supported');
  }
  for (const [magic, what] of OTHERS) {
    if (magic.every((b, i) => bytes[i] === b)) throw unknown(name, 0, `this is ${what}, not a kernel`);
  }
  if (bytes.length % ROM_UNIT !== 0 || bytes.length > ROM_MAX_BYTES) {
    throw unknown(
      name,
      0,
      `no known magic, and ${bytes.length} bytes are not the size of a ROM (a multiple of 4 KiB up to 16 MiB)`,
    );
  }
  throw unknown(
    name,
    bytes.length - RESET_VECTOR_BYTES,
    'no known magic, and no jump stands at the reset vector of a ROM',
  );
};
