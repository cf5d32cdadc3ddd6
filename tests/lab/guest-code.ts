/** Small freestanding guests as bytes: a Multiboot kernel by address fields or as ELF, a ROM, and pieces of code. */

export const dword = (v: number): number[] => [v & 0xff, (v >>> 8) & 0xff, (v >>> 16) & 0xff, v >>> 24];
export const word = (v: number): number[] => [v & 0xff, (v >>> 8) & 0xff];
const quad = (v: number): number[] => [...dword(v), ...dword(0)];
export const text = (s: string): number[] => [...s].map((c) => c.charCodeAt(0));

/** Code with labels: numbers are bytes, `@name` the address of a label, `name:` defines one. */
export const assemble = (
  base: number,
  items: readonly (number | string | readonly number[])[],
): Uint8Array => {
  const at = new Map<string, number>();
  let address = base;
  for (const item of items) {
    if (typeof item === 'string' && item.endsWith(':')) at.set(item.slice(0, -1), address);
    else address += typeof item === 'number' ? 1 : typeof item === 'string' ? 4 : item.length;
  }
  const out: number[] = [];
  for (const item of items) {
    if (typeof item === 'number') out.push(item);
    else if (typeof item !== 'string') out.push(...item);
    else if (item.startsWith('@')) out.push(...dword(at.get(item.slice(1))!));
  }
  return Uint8Array.from(out);
};

export const MAGIC = 0x1bad_b002;
export const LOAD = 0x10_0000;
export const HEADER_BYTES = 32;

/** A header of 32 bytes. @param flags without bit 16 the address fields are there, but mean nothing */
export const header = (flags: number, fields: readonly number[] = []): number[] => {
  const words = [MAGIC, flags, -(MAGIC + flags) | 0, ...fields];
  while (words.length < 8) words.push(0);
  return words.flatMap(dword);
};

/** A kernel by address fields, the code behind its header. @param more fields that differ */
export const flatKernel = (
  code: Uint8Array,
  more: {
    flags?: number;
    load?: number;
    loadEnd?: number;
    bssEnd?: number;
    header?: number;
    entry?: number;
  } = {},
): Uint8Array => {
  const h = header((more.flags ?? 0) | 0x1_0000, [
    more.header ?? LOAD,
    more.load ?? LOAD,
    more.loadEnd ?? 0,
    more.bssEnd ?? 0,
    more.entry ?? LOAD + HEADER_BYTES,
  ]);
  return Uint8Array.from([...h, ...code]);
};

export interface ElfSegment {
  readonly vaddr?: number;
  readonly paddr: number;
  readonly bytes: readonly number[];
  readonly memory?: number;
}
/** An executable of 32 or 64 bits with the given segments. */
export const elfKernel = (bits: 32 | 64, entry: number, segments: readonly ElfSegment[]): Uint8Array => {
  const wide = bits === 64;
  const n = (v: number): number[] => (wide ? quad(v) : dword(v));
  const headerBytes = wide ? 64 : 52;
  const entryBytes = wide ? 56 : 32;
  let offset = headerBytes + entryBytes * segments.length;
  const table = segments.flatMap((s) => {
    const { vaddr = s.paddr, memory = s.bytes.length } = s;
    const fields = wide
      ? [dword(1), dword(7), n(offset), n(vaddr), n(s.paddr), n(s.bytes.length), n(memory), n(4)]
      : [dword(1), n(offset), n(vaddr), n(s.paddr), n(s.bytes.length), n(memory), dword(7), n(4)];
    offset += s.bytes.length;
    return fields.flat();
  });
  return Uint8Array.from([
    ...[0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ...word(2),
    ...word(wide ? 62 : 3),
    ...dword(1),
    ...n(entry),
    ...n(headerBytes),
    ...n(0),
    ...dword(0),
    ...word(headerBytes),
    ...word(entryBytes),
    ...word(segments.length),
    ...word(0),
    ...word(0),
    ...word(0),
    ...table,
    ...segments.flatMap((s) => s.bytes),
  ]);
};

/** Prints the string at ESI (SI) on port 0xE9; position-independent, the same bytes in 16- and 32-bit code. */
export const PRINT = [0xac, 0x84, 0xc0, 0x74, 0x04, 0xe6, 0xe9, 0xeb, 0xf7]; // 1: lodsb; test al,al; jz 2; out 0e9h,al; jmp 1; 2:
/** mov eax, value; out 0f4h, eax; hlt (32-bit code). */
export const exitWith = (value: number): number[] => [0xb8, ...dword(value), 0xe7, 0xf4, 0xf4];
/** mov al, c; out 0e9h, al. */
export const put = (c: string): number[] => [0xb0, c.charCodeAt(0), 0xe6, 0xe9];

/** A ROM: the code at its start, and at the reset vector a far jump to it through the copy below 1 MiB. */
export const rom = (code: Uint8Array, bytes = 0x1_0000): Uint8Array => {
  const out = new Uint8Array(bytes);
  out.set(code);
  const segment = (0x10_0000 - bytes) >>> 4;
  out.set([0xea, ...word(0), ...word(segment)], bytes - 16);
  return out;
};
