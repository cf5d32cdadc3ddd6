/**
 * XZ as the kernel build writes it: LZMA2 behind the x86 branch filter ("The .xz File Format" 1.1).
 *
 * The decoder used here knows LZMA2 only. The container is therefore rewritten without filter and without check, decoded,
 * and the branch filter is undone block by block; a CRC32 check is verified afterwards. Not supported: other
 * filters, concatenated streams. CRC64 and SHA-256 checks are not verified.
 */
import xz from 'xz-decompress';

const STREAM_HEADER_BYTES = 12;
const FOOTER_BYTES = 12;
const HEADER_MAGIC = [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00] as const;
const FILTER = { x86: 0x04, lzma2: 0x21 } as const;
const CHECK_CRC32 = 1;
/** Bytes of the check field by its type. */
const CHECK_BYTES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64] as const;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = (c & 1) !== 0 ? (c >>> 1) ^ 0xedb8_8320 : c >>> 1;
  return c;
});
const crc32 = (bytes: Uint8Array): number => {
  let c = 0xffff_ffff;
  for (let i = 0; i < bytes.length; i++) c = CRC_TABLE[(c ^ bytes[i]) & 0xff] ^ (c >>> 8);
  return ~c >>> 0;
};

const word = (bytes: Uint8Array, at: number): number =>
  (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
const words = (v: number): number[] => [v & 0xff, (v >>> 8) & 0xff, (v >>> 16) & 0xff, v >>> 24];
const aligned = (n: number): number => Math.ceil(n / 4) * 4;
const fail = (rule: string): Error => new Error(rule);

/** Reads numbers of 7 bits a byte. */
const reader = (bytes: Uint8Array, from: number, to: number) => {
  let at = from;
  return {
    at: () => at,
    number(): number {
      let value = 0;
      let scale = 1;
      for (;;) {
        if (at >= to || scale > 2 ** 49) throw fail('a number runs out of its header');
        const b = bytes[at++];
        value += (b & 0x7f) * scale;
        if ((b & 0x80) === 0) return value;
        scale *= 128;
      }
    },
    skip(n: number): void {
      at += n;
      if (at > to) throw fail('a field runs out of its header');
    },
  };
};
const varint = (value: number): number[] => {
  const out: number[] = [];
  let v = value;
  for (; v >= 128; v = Math.floor(v / 128)) out.push((v % 128) | 0x80);
  return [...out, v];
};

interface Block {
  /** Dictionary-size property of LZMA2. */
  readonly dictionary: number;
  readonly x86: boolean;
  /** Compressed data without padding. */
  readonly data: Uint8Array;
  readonly check: Uint8Array;
  /** Bytes when decompressed. */
  readonly bytes: number;
}

const readBlock = (
  input: Uint8Array,
  at: number,
  unpadded: number,
  bytes: number,
  checkBytes: number,
): Block => {
  const headerBytes = (input[at] + 1) * 4;
  const dataBytes = unpadded - headerBytes - checkBytes;
  if (input[at] === 0 || dataBytes <= 0 || at + unpadded > input.length) throw fail('a block does not fit');
  const headerEnd = at + headerBytes - 4;
  if (crc32(input.subarray(at, headerEnd)) !== word(input, headerEnd))
    throw fail('a block header is damaged');
  const flags = input[at + 1];
  const r = reader(input, at + 2, headerEnd);
  if ((flags & 0x40) !== 0) r.number();
  if ((flags & 0x80) !== 0) r.number();
  let dictionary = -1;
  let x86 = false;
  for (let i = 0; i <= (flags & 3); i++) {
    const id = r.number();
    const size = r.number();
    const property = input[r.at()];
    r.skip(size);
    if (id === FILTER.x86 && size === 0) x86 = true;
    else if (id === FILTER.lzma2 && size === 1) dictionary = property;
    else throw fail(`filter 0x${id.toString(16)} is not supported`);
  }
  if (dictionary < 0) throw fail('the block is not compressed with LZMA2');
  const data = input.subarray(at + headerBytes, at + headerBytes + dataBytes);
  const checkAt = at + aligned(headerBytes + dataBytes);
  return { dictionary, x86, data, check: input.subarray(checkAt, checkAt + checkBytes), bytes };
};

/** The blocks of the one stream, found through its index. */
const readStream = (input: Uint8Array): { readonly checkType: number; readonly blocks: readonly Block[] } => {
  const footer = input.length - FOOTER_BYTES;
  if (footer < STREAM_HEADER_BYTES || input[footer + 10] !== 0x59 || input[footer + 11] !== 0x5a) {
    throw fail('the stream footer is missing');
  }
  if (crc32(input.subarray(6, 8)) !== word(input, 8)) throw fail('the stream header is damaged');
  if (crc32(input.subarray(footer + 4, footer + 10)) !== word(input, footer))
    throw fail('the stream footer is damaged');
  const checkType = input[7] & 15;
  // The check field stands after the padding of the data, so its bytes are multiples of 4 themselves.
  const checkBytes = CHECK_BYTES[checkType];
  const indexBytes = (word(input, footer + 4) + 1) * 4;
  const index = footer - indexBytes;
  if (index < STREAM_HEADER_BYTES || input[index] !== 0) throw fail('the index is missing');
  if (crc32(input.subarray(index, footer - 4)) !== word(input, footer - 4))
    throw fail('the index is damaged');
  const r = reader(input, index + 1, footer - 4);
  const count = r.number();
  const blocks: Block[] = [];
  let at = STREAM_HEADER_BYTES;
  for (let i = 0; i < count; i++) {
    const unpadded = r.number();
    blocks.push(readBlock(input, at, unpadded, r.number(), checkBytes));
    at += aligned(unpadded);
  }
  if (at !== index) throw fail('the blocks do not end at the index');
  return { checkType, blocks };
};

/** The same data as a stream of LZMA2 blocks without filter and check. */
const plainStream = (blocks: readonly Block[]): Uint8Array => {
  const flags = [0, 0];
  const parts: Uint8Array[] = [
    Uint8Array.from([...HEADER_MAGIC, ...flags, ...words(crc32(Uint8Array.from(flags)))]),
  ];
  const records: number[] = [];
  for (const block of blocks) {
    const header = Uint8Array.from([2, 0, FILTER.lzma2, 1, block.dictionary, 0, 0, 0]);
    parts.push(header, Uint8Array.from(words(crc32(header))), block.data);
    parts.push(new Uint8Array(aligned(block.data.length) - block.data.length));
    records.push(...varint(12 + block.data.length), ...varint(block.bytes));
  }
  const body = [0, ...varint(blocks.length), ...records];
  while (body.length % 4 !== 0) body.push(0);
  const index = Uint8Array.from(body);
  const footer = Uint8Array.from([...words(index.length / 4), ...flags]);
  parts.push(index, Uint8Array.from(words(crc32(index))), Uint8Array.from(words(crc32(footer))), footer);
  parts.push(Uint8Array.from([0x59, 0x5a]));
  return Uint8Array.from(Buffer.concat(parts));
};

/** How far back the byte to be tested lies, by the history of opcode bytes; 0 bits set means none. */
const HISTORY_BYTES = [0, 1, 2, 2, 3, 3, 3, 3] as const;
/** Histories in which a conversion is possible at all. */
const CONVERTIBLE = [true, true, true, false, true, false, false, false] as const;
const isSignByte = (b: number): boolean => b === 0 || b === 0xff;

/**
 * Undoes the x86 branch filter in place: operands of CALL (e8) and JMP (e9) go back from absolute to relative.
 * `history` remembers which of the three bytes before an opcode looked like opcodes that were not converted.
 */
export const undoX86Filter = (bytes: Uint8Array): void => {
  let history = 0;
  let last = -1;
  const end = bytes.length - 4;
  for (let i = 0; i < end; i++) {
    if ((bytes[i] & 0xfe) !== 0xe8) continue;
    const gap = i - last;
    last = i;
    history = gap > 3 ? 0 : (history << (gap - 1)) & 7;
    const blocked =
      history !== 0 && (!CONVERTIBLE[history] || isSignByte(bytes[i + 4 - HISTORY_BYTES[history]]));
    if (blocked || !isSignByte(bytes[i + 4])) {
      history = (history << 1) | 1;
      continue;
    }
    let operand = word(bytes, i + 1);
    let relative: number;
    for (;;) {
      relative = (operand - (i + 5)) >>> 0;
      if (history === 0) break;
      const bits = HISTORY_BYTES[history] * 8;
      if (!isSignByte((relative >>> (24 - bits)) & 0xff)) break;
      operand = (relative ^ (2 ** (32 - bits) - 1)) >>> 0;
    }
    // Bit 24 is the sign of a 25-bit number.
    bytes.set(words(((relative << 7) >> 7) >>> 0), i + 1);
    i += 4;
  }
};

const decode = async (stream: Uint8Array): Promise<Uint8Array> => {
  const source = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(stream);
      controller.close();
    },
  });
  const chunks: Uint8Array[] = [];
  const from = new xz.XzReadableStream(source).getReader();
  for (;;) {
    const { done, value } = await from.read();
    if (done) return Uint8Array.from(Buffer.concat(chunks));
    chunks.push(value.slice());
  }
};

/** Decompresses one XZ stream; throws an `Error` that says what is wrong with it. */
export const unxz = async (input: Uint8Array): Promise<Uint8Array> => {
  const { checkType, blocks } = readStream(input);
  const out = await decode(plainStream(blocks));
  let at = 0;
  for (const block of blocks) {
    const bytes = out.subarray(at, at + block.bytes);
    at += block.bytes;
    if (block.x86) undoX86Filter(bytes);
    if (checkType === CHECK_CRC32 && crc32(bytes) !== word(block.check, 0))
      throw fail('the data does not match its CRC32');
  }
  return out;
};
