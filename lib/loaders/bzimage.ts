/**
 * The Linux bzImage: the setup header (Linux "The Linux/x86 Boot Protocol", 2.08 and later) and the kernel in it.
 *
 * Nothing of the image's own code is run: the payload is decompressed here, to the vmlinux ELF followed by its table of
 * relocations, which only a kernel that is moved needs. Not read: images older than protocol 2.08 (no payload fields).
 */
import { LabError } from '../base/error.js';
import { type Compression, decompress } from './decompress.js';
import { parseElf } from './elf.js';

/** Offsets from the start of the file. */
const AT = {
  setupSectors: 0x1f1,
  bootFlag: 0x1fe,
  magic: 0x202,
  version: 0x206,
  versionText: 0x20e,
  payloadOffset: 0x248,
  payloadBytes: 0x24c,
} as const;
const HEADER_BYTES = 0x268;
const BOOT_FLAG = 0xaa55;
const HDRS = 0x5372_6448;
const MIN_VERSION = 0x208;
const SECTOR = 512;

export interface BzImage {
  readonly name: string;
  /** Boot protocol version, 0x20f for 2.15. */
  readonly protocol: number;
  /** The kernel's version text, such as `6.1.0-…`. */
  readonly version: string;
  readonly compressed: Uint8Array;
}

export interface Vmlinux {
  readonly name: string;
  readonly version: string;
  readonly compression: Compression;
  /** The decompressed payload: the ELF image, then its relocation table. */
  readonly bytes: Uint8Array;
  /** Bytes of the ELF image; the relocation table is the rest. */
  readonly imageBytes: number;
}

const bad = (name: string, offset: number, rule: string): LabError =>
  new LabError('loader.bzimage', `${name}: at offset 0x${offset.toString(16)}: ${rule}`);

/** True when the bytes have the magic of a bzImage. */
export const isBzImage = (bytes: Uint8Array): boolean =>
  bytes.length >= HEADER_BYTES && String.fromCharCode(...bytes.subarray(AT.magic, AT.magic + 4)) === 'HdrS';

export const parseBzImage = (bytes: Uint8Array, name: string): BzImage => {
  if (bytes.length < HEADER_BYTES)
    throw bad(name, 0, `a setup header has ${HEADER_BYTES} bytes, the file has ${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const flag = view.getUint16(AT.bootFlag, true);
  if (flag !== BOOT_FLAG) throw bad(name, AT.bootFlag, `boot flag 0x${flag.toString(16)} is not 0xaa55`);
  if (view.getUint32(AT.magic, true) !== HDRS) throw bad(name, AT.magic, 'the magic is not "HdrS"');
  const protocol = view.getUint16(AT.version, true);
  if (protocol < MIN_VERSION) {
    throw bad(
      name,
      AT.version,
      `boot protocol 0x${protocol.toString(16)} is older than 2.08, which has no payload fields`,
    );
  }
  // A count of 0 means 4, for images of old.
  const sectors = bytes[AT.setupSectors] === 0 ? 4 : bytes[AT.setupSectors];
  const from = (sectors + 1) * SECTOR + view.getUint32(AT.payloadOffset, true);
  const size = view.getUint32(AT.payloadBytes, true);
  if (size === 0) throw bad(name, AT.payloadBytes, 'the payload is empty');
  if (from + size > bytes.length) {
    throw bad(
      name,
      AT.payloadOffset,
      `the payload ends at ${from + size}, outside the file of ${bytes.length} bytes`,
    );
  }
  const textAt = view.getUint16(AT.versionText, true);
  let version = '';
  if (textAt !== 0) {
    for (let i = textAt + SECTOR; i < bytes.length && bytes[i] !== 0 && version.length < 200; i++)
      version += String.fromCharCode(bytes[i]);
  }
  return { name, protocol, version, compressed: bytes.subarray(from, from + size) };
};

/** Decompresses the kernel of a bzImage. Throws `loader.bzimage`, `loader.decompress` or `loader.elf` for damaged input. */
export const extractVmlinux = async (image: Uint8Array, name: string): Promise<Vmlinux> => {
  const bz = parseBzImage(image, name);
  const { compression, bytes } = await decompress(bz.compressed, name);
  const elf = parseElf(bytes, `${name} (decompressed)`);
  return { name, version: bz.version, compression, bytes, imageBytes: elf.imageBytes };
};
