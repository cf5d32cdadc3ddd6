/** Multiboot kernels: where things are put, what the kernel is told, and every rule that damaged input breaks. */
import { describe, expect, test } from 'vitest';
import type { LabError } from '../../lib/base/error.js';
import { loadMultiboot, type MultibootOptions } from '../../lib/loaders/multiboot.js';
import { elfKernel, flatKernel, HEADER_BYTES, header, LOAD } from '../lab/guest-code.js';

const MIB = 2 ** 20;
const CODE = Uint8Array.from([0xf4, 0xeb, 0xfd]);
const load = (kernel: Uint8Array, more: Partial<MultibootOptions> = {}) =>
  loadMultiboot({ kernel, kernelName: 'k', commandLine: 'k', memoryBytes: 64 * MIB, ...more });

/** The information structure by name, read back from the loaded segments. */
const information = (guest: ReturnType<typeof load>) => {
  const memory = (gpa: number, n: number): DataView => {
    const s = guest.segments.find((x) => gpa >= x.gpa && gpa + n <= x.gpa + x.bytes.length)!;
    return new DataView(s.bytes.buffer, s.bytes.byteOffset + gpa - s.gpa, n);
  };
  const u32 = (gpa: number): number => memory(gpa, 4).getUint32(0, true);
  const string = (gpa: number): string => {
    let out = '';
    for (let c = memory(gpa, 1).getUint8(0); c !== 0; c = memory(++gpa, 1).getUint8(0))
      out += String.fromCharCode(c);
    return out;
  };
  const at = guest.info;
  const map: string[] = [];
  for (let e = u32(at + 48); e < u32(at + 48) + u32(at + 44); e += u32(e) + 4)
    map.push(`${u32(e + 4).toString(16)}+${u32(e + 12).toString(16)}:${u32(e + 20)}`);
  const modules = Array.from({ length: u32(at + 20) }, (_, i) => {
    const m = u32(at + 24) + 16 * i;
    return `${u32(m).toString(16)}-${u32(m + 4).toString(16)} ${string(u32(m + 8))}`;
  });
  return {
    flags: u32(at),
    lower: u32(at + 4),
    upper: u32(at + 8),
    line: string(u32(at + 16)),
    map,
    modules,
    loader: string(u32(at + 64)),
  };
};

describe('a kernel by address fields', () => {
  const guest = load(flatKernel(CODE, { bssEnd: LOAD + 0x3000 }), {
    commandLine: 'k one two',
    modules: [
      { text: 'first x=1', bytes: new Uint8Array(5000) },
      { text: 'second', bytes: Uint8Array.from([1]) },
    ],
  });
  test('starts in protected mode without paging', () => {
    const { entry } = guest;
    expect(guest.payload).toBe('addresses');
    expect(entry.gprs[0]).toBe(0x2bad_b002n);
    expect(entry.gprs[3]).toBe(BigInt(guest.info));
    expect([entry.rip, entry.cr0, entry.cr4, entry.efer, entry.rflags]).toEqual([
      0x10_0020n,
      0x11n,
      0n,
      0n,
      2,
    ]);
    expect(entry.segments.cs).toMatchObject({ base: 0n, limit: 0xffff_ffff, attr: 0xc09b });
    expect(entry.segments.ds).toMatchObject({ base: 0n, limit: 0xffff_ffff, attr: 0xc093 });
  });
  test('is told about memory, modules and its command line', () => {
    expect(information(guest)).toEqual({
      flags: 0x24d,
      lower: 639,
      upper: 63 * 1024,
      line: 'k one two',
      map: ['0+9fc00:1', '9fc00+60400:2', '100000+3f00000:1'],
      modules: ['103000-104388 first x=1', '105000-105001 second'],
      loader: 'vmxlab',
    });
  });
  test('loads what lies before the header, and not what lies behind load_end_addr', () => {
    const bytes = Uint8Array.from([
      ...new Uint8Array(16).fill(7),
      ...flatKernel(CODE, { load: LOAD - 16, loadEnd: LOAD + HEADER_BYTES + 1 }),
    ]);
    expect(load(bytes).segments[0]).toMatchObject({
      gpa: LOAD - 16,
      bytes: bytes.subarray(0, 16 + HEADER_BYTES + 1),
    });
  });
});

describe('an ELF kernel', () => {
  const payload = [...header(3), ...CODE];
  test.each([32, 64] as const)('of %i bits: physical addresses, entry by virtual address', (bits) => {
    const virtual = 0xc000_0000;
    const guest = load(
      elfKernel(bits, virtual + HEADER_BYTES, [
        { vaddr: virtual, paddr: 0x20_0000, bytes: payload },
        { vaddr: virtual + 0x1000, paddr: 0x20_1000, bytes: [9], memory: 0x2000 },
      ]),
      { modules: [{ text: 'm', bytes: Uint8Array.of(1) }] },
    );
    expect([guest.payload, guest.entry.rip]).toEqual([`elf${bits}`, 0x20_0020n]);
    expect(guest.segments.slice(0, 2).map((s) => s.gpa)).toEqual([0x20_0000, 0x20_1000]);
    expect(guest.modules).toEqual([{ gpa: 0x20_3000, bytes: 1 }]);
  });
  test('in low memory pushes the information out of the way', () => {
    const guest = load(
      elfKernel(32, 0x9000 + HEADER_BYTES, [{ paddr: 0x9000, bytes: payload, memory: 0x1000 }]),
    );
    expect(guest.info).toBe(0xa000);
  });
});

const elf = (
  entry = LOAD + HEADER_BYTES,
  more = {},
  ...others: { paddr: number; bytes: number[]; memory?: number }[]
) => elfKernel(32, entry, [{ paddr: LOAD, bytes: [...header(0), ...CODE], ...more }, ...others]);
/** With some bytes changed. */
const patched = (bytes: Uint8Array, at: number, ...values: number[]): Uint8Array => {
  const out = bytes.slice();
  out.set(values, at);
  return out;
};

test.each<[string, Uint8Array, RegExp]>([
  ['no header', new Uint8Array(8192), /^k: at offset 0x0: no Multiboot header/],
  ['wrong checksum', patched(flatKernel(CODE), 8, 0), /^k: at offset 0x0: no Multiboot header/],
  ['not aligned', Uint8Array.from([0, 0, ...flatKernel(CODE)]), /no Multiboot header/],
  [
    'behind 8192 bytes',
    Uint8Array.from([...new Uint8Array(8192), ...flatKernel(CODE)]),
    /no Multiboot header/,
  ],
  [
    'unknown requirement',
    flatKernel(CODE, { flags: 0x8010 }),
    /^k: at offset 0x4: required feature bits 0x8010/,
  ],
  [
    'address fields cut off',
    flatKernel(CODE).subarray(0, 30),
    /^k: at offset 0xc: the address fields .* outside the file/,
  ],
  [
    'load_addr above header_addr',
    flatKernel(CODE, { load: LOAD + 4 }),
    /^k: at offset 0x10: load_addr 0x100004 is above/,
  ],
  ['header_addr beyond the file', flatKernel(CODE, { header: LOAD + 64 }), /^k: at offset 0xc: header_addr/],
  [
    'load_end_addr below load_addr',
    flatKernel(CODE, { loadEnd: 4 }),
    /^k: at offset 0x14: load_end_addr 0x4 is below/,
  ],
  [
    'load_end_addr beyond the file',
    flatKernel(CODE, { loadEnd: LOAD + 99 }),
    /^k: at offset 0x14: .* needs 99 bytes, the file has 35/,
  ],
  ['bss_end_addr below the data', flatKernel(CODE, { bssEnd: LOAD + 8 }), /^k: at offset 0x18: bss_end_addr/],
  ['entry_addr outside', flatKernel(CODE, { entry: 0 }), /^k: at offset 0x1c: entry_addr 0x0 is outside/],
  [
    'larger than memory',
    flatKernel(CODE, { bssEnd: 65 * MIB }),
    /^k: at offset 0x0: .* ends beyond guest memory of 67108864/,
  ],
  ['neither address fields nor ELF', Uint8Array.from(header(0)), /^k: at offset 0x0: neither address fields/],
  ['ELF class', patched(elf(), 4, 3), /^k: at offset 0x4: ELF class 3/],
  ['ELF of the other byte order', patched(elf(), 5, 2), /^k: at offset 0x5: data encoding 2/],
  ['ELF shared object', patched(elf(), 16, 3), /^k: at offset 0x10: ELF type 3/],
  ['ELF machine', patched(elf(), 18, 40), /^k: at offset 0x12: ELF machine 40/],
  ['no program headers', patched(elf(), 44, 0), /^k: at offset 0x2c: there are no program headers/],
  ['size of program headers', patched(elf(), 42, 56), /^k: at offset 0x2a: program headers of 56 bytes/],
  [
    'program headers outside',
    patched(elf(), 28, 0, 9),
    /^k: at offset 0x1c: the program headers are outside/,
  ],
  ['no segment', patched(elf(), 52, 2), /^k: at offset 0x34: there is no segment to load/],
  [
    'segment outside the file',
    patched(elf(), 52 + 16, 0, 0, 0, 1),
    /^k: at offset 0x34: segment 0 ends at 16777300, outside the file/,
  ],
  [
    'segment smaller in memory',
    elf(undefined, { memory: 3 }),
    /^k: at offset 0x34: segment 0 has more bytes in the file \(35\)/,
  ],
  [
    'segment beyond memory',
    elf(undefined, {}, { paddr: 0x800_0000, bytes: [1] }),
    /^k: at offset 0x54: .* ends beyond guest memory/,
  ],
  ['entry outside', elf(0x5000), /^k: at offset 0x18: the entry 0x5000 is in no loaded segment/],
])('is refused: %s', (_what, bytes, message) => {
  expect(() => load(bytes)).toThrow(
    expect.objectContaining({ id: 'loader.multiboot', message: expect.stringMatching(message) }),
  );
});

test.each<[string, string, () => unknown, RegExp]>([
  [
    'overlapping segments',
    'loader.overlap',
    () => load(elf(undefined, { memory: 0x2000 }, { paddr: LOAD + 0x1000, bytes: [1] })),
    /k, segment 1 at 0x101000 \+ 1 overlaps k, segment 0 at 0x100000 \+ 8192/,
  ],
  [
    'a kernel over the tables of the machine',
    'loader.overlap',
    () => load(flatKernel(CODE), { extra: [{ gpa: LOAD, bytes: Uint8Array.of(1), what: 'ACPI tables' }] }),
    /ACPI tables at 0x100000 \+ 1 overlaps k/,
  ],
  [
    'a module larger than memory',
    'loader.memory',
    () =>
      load(flatKernel(CODE), { memoryBytes: 2 * MIB, modules: [{ text: 'm', bytes: new Uint8Array(MIB) }] }),
    /module 0 \(m\) of 1048576 bytes does not fit behind 0x100023/,
  ],
  [
    'impossible memory',
    'loader.memory',
    () => load(flatKernel(CODE), { memoryBytes: 12345 }),
    /12345 bytes is not possible/,
  ],
  [
    'NUL in the command line',
    'loader.cmdline',
    () => load(flatKernel(CODE), { commandLine: 'a\0b' }),
    /command line contains a NUL/,
  ],
])('is refused: %s', (_what, id, run, message) => {
  expect(run).toThrow(
    expect.objectContaining<Partial<LabError>>({ id, message: expect.stringMatching(message) }),
  );
});
