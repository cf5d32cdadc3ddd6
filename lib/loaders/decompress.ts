/**
 * The compressed formats that a Linux kernel image may hold: LZ4 (legacy frame), gzip, XZ and Zstandard.
 *
 * The build appends the size of the decompressed data as a little-endian word to every format but gzip, whose own last
 * word is just that. The size is checked. Refused by name: bzip2, LZMA, LZO.
 */
import { gunzipSync } from 'node:zlib';
import { decompress as unzstd } from 'fzstd';
import { LabError } from '../base/error.js';
import { unxz } from './xz.js';

export type Compression = 'lz4' | 'gzip' | 'xz' | 'zstd';

const MAGIC: readonly (readonly [name: string, bytes: readonly number[]])[] = [
  ['lz4', [0x02, 0x21, 0x4c, 0x18]],
  ['gzip', [0x1f, 0x8b]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['bzip2', [0x42, 0x5a, 0x68]],
  ['lzma', [0x5d, 0x00, 0x00]],
  ['lzo', [0x89, 0x4c, 0x5a, 0x4f]],
];
const SUPPORTED: readonly string[] = ['lz4', 'gzip', 'xz', 'zstd'];
/** No kernel is larger; a damaged size word must not ask for gigabytes. */
const MAX_BYTES = 512 << 20;
const LZ4_MIN_MATCH = 4;

const bad = (name: string, offset: number, rule: string): LabError =>
  new LabError(
    'loader.decompress',
    `${name}: at offset 0x${offset.toString(16)} of the compressed data: ${rule}`,
  );

const word = (bytes: Uint8Array, at: number): number =>
  (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;

/** The format by its magic, supported or not; undefined when unknown. */
export const compressionOf = (bytes: Uint8Array): string | undefined =>
  MAGIC.find(([, magic]) => magic.every((b, i) => bytes[i] === b))?.[0];

/** Decodes one LZ4 block [from, to) to `out` at `at`; the new end of the output. Matches may reach into earlier blocks. */
const lz4Block = (
  input: Uint8Array,
  from: number,
  to: number,
  out: Uint8Array,
  at: number,
  name: string,
): number => {
  let i = from;
  let o = at;
  const length = (nibble: number): number => {
    let n = nibble;
    if (nibble === 15) {
      let more: number;
      do {
        if (i >= to) throw bad(name, i, 'an LZ4 length runs out of its block');
        more = input[i++];
        n += more;
      } while (more === 255);
    }
    return n;
  };
  while (i < to) {
    const token = input[i++];
    const literals = length(token >> 4);
    if (i + literals > to) throw bad(name, i, `${literals} LZ4 literals run out of their block`);
    if (o + literals > out.length) throw bad(name, i, 'the data is longer than its size word says');
    out.set(input.subarray(i, i + literals), o);
    i += literals;
    o += literals;
    if (i === to) break;
    if (i + 2 > to) throw bad(name, i, 'an LZ4 offset runs out of its block');
    const distance = input[i] | (input[i + 1] << 8);
    i += 2;
    if (distance === 0 || distance > o)
      throw bad(name, i - 2, `LZ4 offset ${distance} is outside the ${o} bytes so far`);
    const match = length(token & 15) + LZ4_MIN_MATCH;
    if (o + match > out.length) throw bad(name, i, 'the data is longer than its size word says');
    if (distance >= match) out.copyWithin(o, o - distance, o - distance + match);
    else for (let k = 0; k < match; k++) out[o + k] = out[o + k - distance];
    o += match;
  }
  return o;
};

/** The legacy LZ4 frame: magic, then blocks of a size word and data, up to the end. */
const unlz4 = (input: Uint8Array, size: number, name: string): Uint8Array => {
  const out = new Uint8Array(size);
  let at = 4;
  let end = 0;
  while (at + 4 <= input.length) {
    const bytes = word(input, at);
    at += 4;
    // A second frame may follow the first.
    if (bytes === word(Uint8Array.from(MAGIC[0][1]), 0)) continue;
    if (bytes === 0 || at + bytes > input.length) {
      throw bad(
        name,
        at - 4,
        `an LZ4 block of ${bytes} bytes does not fit into the ${input.length - at} left`,
      );
    }
    end = lz4Block(input, at, at + bytes, out, end, name);
    at += bytes;
  }
  return out.subarray(0, end);
};

/**
 * Decompresses a kernel payload. Throws `loader.decompress` for an unknown or unsupported format and for damaged data.
 * @param payload the compressed data with its size word at the end
 * @param name the file, for messages
 */
export const decompress = async (
  payload: Uint8Array,
  name: string,
): Promise<{ readonly compression: Compression; readonly bytes: Uint8Array }> => {
  const compression = compressionOf(payload);
  if (compression === undefined) throw bad(name, 0, 'the compression is not known by its magic');
  if (!SUPPORTED.includes(compression)) {
    throw new LabError(
      'loader.compression',
      `${name}: compression ${compression} is not supported`,
      'use an image compressed with lz4, gzip, xz or zstd, or a vmlinux',
    );
  }
  if (payload.length < 16) throw bad(name, payload.length, 'the data is cut short');
  const size = word(payload, payload.length - 4);
  if (size > MAX_BYTES)
    throw bad(name, payload.length - 4, `the size word says ${size} bytes, more than any kernel has`);
  const body = payload.subarray(0, payload.length - 4);
  let bytes: Uint8Array;
  try {
    if (compression === 'lz4') bytes = unlz4(body, size, name);
    else if (compression === 'gzip') bytes = gunzipSync(payload, { maxOutputLength: size + 1 });
    else if (compression === 'zstd') bytes = unzstd(body);
    else bytes = await unxz(body);
  } catch (e) {
    if (e instanceof LabError) throw e;
    throw bad(name, 0, `${compression}: ${e instanceof Error ? e.message : String(e)}`);
  }
  if (bytes.length !== size)
    throw bad(name, payload.length - 4, `the size word says ${size} bytes, the data has ${bytes.length}`);
  return { compression: compression as Compression, bytes };
};
