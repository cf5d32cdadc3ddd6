import { gzipSync } from 'node:zlib';
import * as lz4 from 'lz4js';
import { describe, expect, it } from 'vitest';
import { decompress } from '../../lib/loaders/decompress.js';

/** Bytes that the x86 branch filter changes: opcodes e8 and e9, near operands, overlapping opcodes. */
const sample = Uint8Array.from({ length: 260 }, (_, i) => {
  const pattern = [0xe8, (i * 7) & 0xff, i >> 3, 0, 0, 0x90, 0xe9, 0xe8, 0xff, 0xff, 0xff, 0x55, i & 0xff];
  return pattern[i % 13];
});
const decode = (base64: string) => Uint8Array.from(Buffer.from(base64, 'base64'));
/** `xz --check=crc32 --x86 --lzma2=preset=6` of the sample. */
const XZ_CRC32 = decode(
  '/Td6WFoAAAFpIt42AgEEACEBFgANhjUf4AEDAItdAHQC/Bk4txjlmK226+vqwefyYMWD7/P4nqSGlWWrdjl207BUly5paFo/' +
    'awjd/JedKL5v6YGCOY2k2dKGfmDaWdBGZEgwb5+qdilqLC+ptpS/LQrVdmLca0/XtRYQuGfzz72WMNdpzo62CTnMmbr9C1Db' +
    'AV3XsIZB/a961YVLNnd6DVklcC04kU0s4gAAAAIHaFUAAaMBhAIAAC9rAgA+MA2LAgAAAAABWVo=',
);
/** The same with `--check=crc64 --block-size=100`. */
const XZ_BLOCKS = decode(
  '/Td6WFoAAATm1rRGAgEEACEBFgANhjUf4ABjAEFdAHQC/Bk4txjlmK226+vqwefyYMWD7/P4nqSGlWWrdjl207BUly5paFo/' +
    'awjd/JedKL5v6YGCOY2k2dKGgN0B3V3RAAAAAPv7LOD4asWNAgEEACEBFgANhjUf4ABjAEFdAH/hUM7ovGkw24E0fNnrBah0' +
    'Ow1zQ5UdaG1MxNml076IGASIROzb7IlXBGd5sZ6/ujwI5z8VjosWw2Pcy8nEFaNgAAAAAO414gkXLfX+AgEEACEBFgANhjUf' +
    '4AA7AC1dAEg6Wc/87DBCIF+6VKiEkGZTLCYbsEZG0MrN+Hp4l+C2lUvF2zcFSVil6iPkAAAAAAB7Cp4x17i3hQADXWRdZEk8' +
    'GDMF8LHEZ/sCAAAAAARZWg==',
);
/** `zstd -19` of the sample. */
const ZSTD = decode(
  'KLUv/WQEAEUDAJQF6AcAAACQ6ej///9VDOhiARnovQMm6BgFM+hzBkDozghN6CkKWuiEC2fo3w106DoOgeiVEI7o8BKb6EsT' +
    'qOimFbXoARfC6FwYz+i3GtzoEhvp6G0d9ujIHwMTpBDm62/w5Qa7g5QCzYqQKg==',
);

const word = (v: number) => [v & 0xff, (v >> 8) & 0xff, (v >> 16) & 0xff, v >>> 24];
const sized = (bytes: Uint8Array, size = sample.length) => Uint8Array.from([...bytes, ...word(size)]);

/** A legacy LZ4 frame, one block for each part, compressed by another implementation. */
const lz4Frame = (parts: readonly Uint8Array[]) => {
  const out = [0x02, 0x21, 0x4c, 0x18];
  for (const part of parts) {
    const target = new Uint8Array(lz4.compressBound(part.length));
    const n = lz4.compressBlock(part, target, 0, part.length, new Uint32Array(65536));
    out.push(...word(n), ...target.subarray(0, n));
  }
  return Uint8Array.from(out);
};
const long = Uint8Array.from({ length: 70_000 }, (_, i) => (i % 97 < 50 ? 7 : (i * i) & 0xff));

describe('decompress', () => {
  it.each([
    ['gzip', gzipSync(sample), sample],
    ['xz', sized(XZ_CRC32), sample],
    ['xz', sized(XZ_BLOCKS), sample],
    ['zstd', sized(ZSTD), sample],
    ['lz4', sized(lz4Frame([long]), long.length), long],
    ['lz4', sized(lz4Frame([long.subarray(0, 30_000), long.subarray(30_000)]), long.length), long],
  ])('%s', async (compression, payload, expected) => {
    const result = await decompress(payload, 'kernel');
    expect(result.compression).toBe(compression);
    expect(Buffer.compare(result.bytes, expected)).toBe(0);
  });

  const flip = (bytes: Uint8Array, at: number) => bytes.map((b, i) => (i === at ? b ^ 1 : b));
  it.each([
    ['nothing', new Uint8Array(0), /not known by its magic/],
    ['zeros', new Uint8Array(64), /not known by its magic/],
    ['bzip2', sized(Uint8Array.from([0x42, 0x5a, 0x68, 0x39])), /compression bzip2 is not supported/],
    ['a bare magic', Uint8Array.from([0x02, 0x21, 0x4c, 0x18, 1, 2]), /cut short/],
    ['a huge size', sized(XZ_CRC32, 0x7fff_ffff), /more than any kernel/],
    ['a wrong size', sized(ZSTD, 261), /size word says 261/],
    ['gzip data', flip(gzipSync(sample), 30), /gzip/],
    ['an XZ block header', flip(sized(XZ_CRC32), 16), /block header is damaged/],
    ['XZ data', flip(sized(XZ_CRC32), 40), /xz/],
    ['an XZ index', flip(sized(XZ_CRC32), XZ_CRC32.length - 20), /index is damaged/],
    ['an XZ footer', sized(XZ_CRC32.subarray(0, 190)), /footer is missing/],
    ['zstd data', sized(ZSTD.subarray(0, 40)), /zstd/],
    [
      'an LZ4 block size',
      sized(Uint8Array.from([2, 0x21, 0x4c, 0x18, ...word(99), 0, 0, 0, 0])),
      /block of 99 bytes does not fit/,
    ],
    [
      'LZ4 literals',
      sized(Uint8Array.from([2, 0x21, 0x4c, 0x18, ...word(4), 0xf0, 5, 1, 1])),
      /literals run out/,
    ],
    [
      'an LZ4 length',
      sized(Uint8Array.from([2, 0x21, 0x4c, 0x18, ...word(4), 0xf0, 255, 255, 255])),
      /length runs out/,
    ],
    [
      'an LZ4 offset',
      sized(Uint8Array.from([2, 0x21, 0x4c, 0x18, ...word(4), 0x10, 1, 2, 0])),
      /offset 2 is outside the 1 bytes/,
    ],
    ['an LZ4 size', sized(lz4Frame([long]), 100), /longer than its size word/],
  ])('refuses damaged input: %s', async (_what, payload, message) => {
    await expect(decompress(payload, 'kernel')).rejects.toThrow(message);
    await expect(decompress(payload, 'kernel')).rejects.toHaveProperty(
      'id',
      expect.stringMatching(/^loader\./),
    );
  });
});
