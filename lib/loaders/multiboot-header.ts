/**
 * The Multiboot header of an OS image (Multiboot Specification 0.6.96, "OS image format").
 *
 * It lies 4-byte aligned within the first 8192 bytes, and its magic, flags and checksum sum to 0 modulo 2^32. Bits 15:0
 * of the flags are requirements: a loader that does not know one must refuse the image; bits 31:16 are optional.
 */
import { hex } from '../base/bits.js';
import { LabError } from '../base/error.js';

export const MULTIBOOT_MAGIC = 0x1bad_b002;
export const MULTIBOOT2_MAGIC = 0xe852_50d6;
const SEARCHED_BYTES = 8192;

export const HEADER_FLAG = { pageAlign: 1, memoryInfo: 2, videoMode: 4, addresses: 0x1_0000 } as const;
const KNOWN_REQUIREMENTS = HEADER_FLAG.pageAlign | HEADER_FLAG.memoryInfo | HEADER_FLAG.videoMode;
/** Offsets of the fields from the start of the header. */
const AT = { flags: 4, checksum: 8, header: 12, load: 16, loadEnd: 20, bssEnd: 24, entry: 28 } as const;
const ADDRESSES_END = 32;

/** The address fields of an image that is not, or not only, ELF (flag bit 16). */
export interface MultibootAddresses {
  /** File offset of the first byte loaded. */
  readonly offset: number;
  readonly fileBytes: number;
  readonly load: number;
  /** Bytes of text, data and bss from `load`. */
  readonly memoryBytes: number;
  readonly entry: number;
}

export interface MultibootHeader {
  /** File offset. */
  readonly offset: number;
  readonly flags: number;
  readonly addresses: MultibootAddresses | undefined;
}

export const badMultiboot = (name: string, offset: number, rule: string): LabError =>
  new LabError('loader.multiboot', `${name}: at offset 0x${offset.toString(16)}: ${rule}`);

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** File offset of the header, or undefined. Only a header with a right checksum is one. */
export const findMultibootHeader = (bytes: Uint8Array): number | undefined => {
  const view = viewOf(bytes);
  for (let at = 0; at + 12 <= Math.min(bytes.length, SEARCHED_BYTES); at += 4) {
    if (view.getUint32(at, true) !== MULTIBOOT_MAGIC) continue;
    const sum =
      MULTIBOOT_MAGIC + view.getUint32(at + AT.flags, true) + view.getUint32(at + AT.checksum, true);
    if (sum % 0x1_0000_0000 === 0) return at;
  }
  return undefined;
};

const readAddresses = (bytes: Uint8Array, name: string, at: number): MultibootAddresses => {
  if (at + ADDRESSES_END > bytes.length)
    throw badMultiboot(name, at + AT.header, 'the address fields (flag bit 16) are outside the file');
  const view = viewOf(bytes);
  const field = (offset: number): number => view.getUint32(at + offset, true);
  const header = field(AT.header);
  const load = field(AT.load);
  const loadEnd = field(AT.loadEnd);
  const bssEnd = field(AT.bssEnd);
  if (load > header)
    throw badMultiboot(name, at + AT.load, `load_addr ${hex(load)} is above header_addr ${hex(header)}`);
  const offset = at - (header - load);
  if (offset < 0) {
    throw badMultiboot(
      name,
      at + AT.header,
      `header_addr ${hex(header)} - load_addr ${hex(load)} is more than the header's offset in the file`,
    );
  }
  if (loadEnd !== 0 && loadEnd < load)
    throw badMultiboot(
      name,
      at + AT.loadEnd,
      `load_end_addr ${hex(loadEnd)} is below load_addr ${hex(load)}`,
    );
  const fileBytes = loadEnd === 0 ? bytes.length - offset : loadEnd - load;
  if (offset + fileBytes > bytes.length) {
    throw badMultiboot(
      name,
      at + AT.loadEnd,
      `load_end_addr ${hex(loadEnd)} needs ${offset + fileBytes} bytes, the file has ${bytes.length}`,
    );
  }
  if (bssEnd !== 0 && bssEnd < load + fileBytes) {
    throw badMultiboot(
      name,
      at + AT.bssEnd,
      `bss_end_addr ${hex(bssEnd)} is below the end of the data ${hex(load + fileBytes)}`,
    );
  }
  const memoryBytes = bssEnd === 0 ? fileBytes : bssEnd - load;
  const entry = field(AT.entry);
  if (entry < load || entry >= load + memoryBytes) {
    throw badMultiboot(
      name,
      at + AT.entry,
      `entry_addr ${hex(entry)} is outside the loaded range ${hex(load)}-${hex(load + memoryBytes)}`,
    );
  }
  return { offset, fileBytes, load, memoryBytes, entry };
};

/** @throws LabError `loader.multiboot` for a missing or malformed header, with offset and rule */
export const parseMultibootHeader = (bytes: Uint8Array, name: string): MultibootHeader => {
  const at = findMultibootHeader(bytes);
  if (at === undefined) {
    throw badMultiboot(
      name,
      0,
      'no Multiboot header: magic 0x1badb002, flags and checksum that sum to 0, aligned, in the first 8192 bytes',
    );
  }
  const flags = viewOf(bytes).getUint32(at + AT.flags, true);
  const unknown = flags & 0xffff & ~KNOWN_REQUIREMENTS;
  if (unknown !== 0)
    throw badMultiboot(name, at + AT.flags, `required feature bits ${hex(unknown)} are not known`);
  const addresses = (flags & HEADER_FLAG.addresses) !== 0 ? readAddresses(bytes, name, at) : undefined;
  return { offset: at, flags, addresses };
};
