/**
 * The symbol table that a Linux kernel carries for its own messages (kallsyms), read out of the uncompressed image: a
 * distribution's vmlinux is stripped, but its kernel knows its names (CONFIG_KALLSYMS, kernel/kallsyms_internal.h).
 *
 * Layout of Linux 4.6 to 6.3, found from its end: offsets (32 bits each), relative base, number of symbols, names
 * (length, then indexes of tokens), markers (where every 256th name begins), in later kernels the order of the names
 * (3 bytes each), token table, token index. The first character of a name is its type letter. Only code is kept: per-CPU
 * and absolute symbols are no addresses of instructions. The other order of Linux 6.4 is refused.
 */
import { LabError } from '../base/error.js';
import type { ElfImage } from './elf.js';
import { listedSymbols, type SymbolSource, type SymbolTable, symbolTable } from './symbols.js';

const TOKENS = 256;
/** Names between two markers. */
const STRIDE = 256;
const KERNEL_HIGH = 0xffff_ffff;
/** Of an entry in the order of the names. */
const ORDER_BYTES = 3;
const MAX_SYMBOLS = 1 << 20;
/** No 256 names are longer together. */
const LAST_NAMES = 0x1_0000;
/** Weak symbols too. */
const CODE = new Set([...'tTwW'].map((c) => c.charCodeAt(0)));

const unreadable = (name: string, why: string): LabError =>
  new LabError('loader.kallsyms', `${name} has no symbol table that can be read: ${why}`);

interface Tokens {
  /** Where the token table begins. */
  readonly at: number;
  readonly text: readonly string[];
}

/** `0` to `9`, each a string: tokens of single characters lie at the character's own index. */
const DIGITS = Uint8Array.from([...'0123456789'].flatMap((c) => [c.charCodeAt(0), 0]));

const align8 = (at: number): number => (at + 7) & ~7;

class Image {
  readonly bytes: Buffer;
  readonly name: string;
  constructor(bytes: Uint8Array, name: string) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.name = name;
  }
  u16(at: number): number {
    return this.bytes.readUInt16LE(at);
  }
  u32(at: number): number {
    return this.bytes.readUInt32LE(at);
  }
}

/** The token table whose entry for '0' is at `zero`, if the index behind it agrees. */
const tokensAround = (image: Image, zero: number): Tokens | undefined => {
  const { bytes } = image;
  let at = zero;
  for (let i = 0; i < 0x30; i++) {
    if (at < 2) return undefined;
    at = bytes.lastIndexOf(0, at - 2) + 1;
  }
  const text: string[] = [];
  const starts: number[] = [];
  let end = at;
  for (let i = 0; i < TOKENS; i++) {
    const stop = bytes.indexOf(0, end);
    if (stop < 0 || stop - end > 1024) return undefined;
    starts.push(end - at);
    text.push(bytes.toString('latin1', end, stop));
    end = stop + 1;
  }
  const index = align8(end);
  if (index + 2 * TOKENS > bytes.length) return undefined;
  return starts.every((start, i) => image.u16(index + 2 * i) === start) ? { at, text } : undefined;
};

const findTokens = (image: Image): Tokens => {
  for (let zero = image.bytes.indexOf(DIGITS); zero >= 0; zero = image.bytes.indexOf(DIGITS, zero + 1)) {
    const tokens = tokensAround(image, zero);
    if (tokens !== undefined) return tokens;
  }
  throw unreadable(image.name, 'there is no token table (CONFIG_KALLSYMS is off, or it is no kernel)');
};

interface Markers {
  readonly at: number;
  readonly count: number;
}

/** Markers that end at `end`: ascending from 0, and as many as the caller wants, if it wants a number. */
const markersBefore = (image: Image, end: number, wanted?: number): Markers | undefined => {
  let last = end - 4;
  // alignment
  if (image.u32(last) === 0) last -= 4;
  const least = wanted === undefined ? 0 : last - 4 * (wanted - 1);
  if (least < 0 || (wanted !== undefined && image.u32(least) !== 0)) return undefined;
  for (let at = last, above = Number.POSITIVE_INFINITY; at >= least; at -= 4) {
    const value = image.u32(at);
    if (value >= above) return undefined;
    if (value === 0)
      return wanted === undefined || at === least ? { at, count: (last - at) / 4 + 1 } : undefined;
    above = value;
  }
  return undefined;
};

/** Length of a name in tokens, and where they begin; long names have a second length byte. */
const nameAt = (image: Image, at: number): { readonly length: number; readonly from: number } => {
  const first = image.bytes[at] as number;
  if (first < 0x80) return { length: first, from: at + 1 };
  return { length: (first & 0x7f) | ((image.bytes[at + 1] as number) << 7), from: at + 2 };
};

interface Names {
  readonly at: number;
  readonly count: number;
}

/** The names, searched backward from the markers: their number stands before them, and the chain of lengths ends at the markers. */
const namesBefore = (image: Image, markers: Markers, wanted?: number): Names | undefined => {
  const most = markers.count * STRIDE;
  const lastMarker = image.u32(markers.at + 4 * (markers.count - 1));
  const firstMarker = markers.count > 1 ? image.u32(markers.at + 4) : undefined;
  const first = (markers.at - lastMarker) & ~7;
  for (let at = first; at >= 24 && at > first - LAST_NAMES; at -= 8) {
    const count = image.u32(at - 8);
    if (count > most || count <= most - STRIDE || image.u32(at - 4) !== 0) continue;
    if (wanted !== undefined && count !== wanted) continue;
    let name = at;
    let i = 0;
    for (; i < count && name < markers.at; i++) {
      if (i === STRIDE && name - at !== firstMarker) break;
      const { length, from } = nameAt(image, name);
      name = from + length;
    }
    if (i === count && align8(name) === markers.at) return { at, count };
  }
  return undefined;
};

/** Markers and names: directly before the token table, or with the order of the names between. */
const findNames = (image: Image, end: number): Names => {
  const direct = markersBefore(image, end);
  const found = direct === undefined ? undefined : namesBefore(image, direct);
  if (found !== undefined) return found;
  for (let count = 1; count < MAX_SYMBOLS; count++) {
    const order = (end - ORDER_BYTES * count) & ~7;
    if (order < 8) break;
    const markers = markersBefore(image, order, Math.ceil(count / STRIDE));
    const names = markers === undefined ? undefined : namesBefore(image, markers, count);
    if (names !== undefined) return names;
  }
  throw unreadable(
    image.name,
    'there are no names before the token table (Linux 6.4 and later have another order)',
  );
};

/** Reads the code symbols of an uncompressed kernel. @param name the file, for messages. @throws LabError */
export const kallsyms = (bytes: Uint8Array, name: string): SymbolSource => {
  const image = new Image(bytes, name);
  const tokens = findTokens(image);
  const names = findNames(image, tokens.at);
  const baseAt = names.at - 16;
  const base = image.bytes.readBigUInt64LE(baseAt);
  if (Number(base >> 32n) !== KERNEL_HIGH)
    throw unreadable(name, `the base of its addresses, 0x${base.toString(16)}, is no kernel address`);
  const offsets = (baseAt - 4 * names.count) & ~7;

  const lows = new Uint32Array(names.count);
  const starts = new Uint32Array(names.count);
  let kept = 0;
  let end = 0;
  for (let i = 0, at = names.at; i < names.count; i++) {
    const { length, from } = nameAt(image, at);
    const offset = image.bytes.readInt32LE(offsets + 4 * i);
    // negative: relative to the base; others are absolute, which no code is
    if (offset < 0) {
      const low = Number((base - 1n - BigInt(offset)) & 0xffff_ffffn);
      const type = (tokens.text[image.bytes[from] as number] as string).charCodeAt(0);
      if (CODE.has(type)) {
        lows[kept] = low;
        starts[kept++] = at;
        end = 0;
      } else if (end === 0) end = low;
    }
    at = from + length;
  }
  for (let i = 1; i < kept; i++)
    if ((lows[i] as number) < (lows[i - 1] as number))
      throw unreadable(name, 'its addresses are not in order');
  if (end === 0) end = 2 ** 32;

  const text = (at: number): string => {
    const { length, from } = nameAt(image, at);
    let out = '';
    for (let i = 0; i < length; i++) out += tokens.text[image.bytes[from + i] as number];
    // without the type
    return out.slice(1);
  };
  return { high: KERNEL_HIGH, lows: lows.slice(0, kept), name: (i) => text(starts[i] as number), end };
};

/** Names of a kernel's code: from the ELF symbol table where the image has one, else from its kallsyms. @throws LabError */
export const kernelSymbols = (elf: ElfImage, slide = 0n): SymbolTable => {
  const listed = elf.symbols().filter((s) => Number(BigInt.asUintN(64, s.value) >> 32n) === KERNEL_HIGH);
  if (listed.length > 0) return listedSymbols(listed, undefined, slide);
  return symbolTable(kallsyms(elf.bytes, elf.name), slide);
};
