import { describe, expect, it } from 'vitest';
import { parseElf } from '../../lib/loaders/elf.js';
import { buildElf } from './elf-builder.js';

const good = buildElf(0x20_0000, [
  { paddr: 0x20_0000, bytes: new Uint8Array(100), memoryBytes: 300 },
  { paddr: 0x40_0000, bytes: new Uint8Array(8) },
]);

describe('ELF', () => {
  it('gives segments and entry', () => {
    const elf = parseElf(good, 'k');
    expect(elf.entry).toBe(0x20_0000n);
    expect(elf.programs.map((p) => [p.paddr, p.offset, p.fileBytes, p.memoryBytes])).toEqual([
      [0x20_0000, 176, 100, 300],
      [0x40_0000, 276, 8, 8],
    ]);
    expect(elf.imageBytes).toBe(good.length);
    expect(elf.symbols()).toEqual([]);
  });

  it('reads symbols', () => {
    const names = new TextEncoder().encode('\0start\0end\0');
    const bytes = new Uint8Array(good.length + names.length + 3 * 24 + 3 * 64);
    bytes.set(good);
    const view = new DataView(bytes.buffer);
    const strings = good.length;
    const table = strings + names.length;
    const sections = table + 3 * 24;
    bytes.set(names, strings);
    [
      [1, 0x20_0000, 4],
      [7, 0x20_0010, 0],
    ].forEach(([name, value, size], i) => {
      const at = table + 24 * (i + 1);
      view.setUint32(at, name, true);
      view.setBigUint64(at + 8, BigInt(value), true);
      view.setBigUint64(at + 16, BigInt(size), true);
    });
    view.setBigUint64(40, BigInt(sections), true);
    view.setUint16(58, 64, true);
    view.setUint16(60, 3, true);
    const section = (i: number, type: number, offset: number, size: number, link: number) => {
      view.setUint32(sections + 64 * i + 4, type, true);
      view.setBigUint64(sections + 64 * i + 24, BigInt(offset), true);
      view.setBigUint64(sections + 64 * i + 32, BigInt(size), true);
      view.setUint32(sections + 64 * i + 40, link, true);
    };
    section(1, 2, table, 3 * 24, 2);
    section(2, 3, strings, names.length, 0);
    expect(parseElf(bytes, 'k').symbols().slice(1)).toEqual([
      { name: 'start', value: 0x20_0000n, size: 4 },
      { name: 'end', value: 0x20_0010n, size: 0 },
    ]);
    view.setUint32(sections + 64 + 40, 9, true);
    expect(() => parseElf(bytes, 'k').symbols()).toThrow(/string section 9 does not exist/);
  });

  const changed = (at: number, ...values: number[]) => {
    const out = good.slice();
    out.set(values, at);
    return out;
  };
  it.each([
    ['empty', new Uint8Array(0), /k: at offset 0x0: an ELF header has 64 bytes/],
    ['magic', changed(0, 0), /offset 0x0: the magic/],
    ['32-bit header of a 64-bit machine', changed(4, 1), /offset 0x12: machine 62 of a 32-bit file is not 3/],
    ['no class', changed(4, 3), /offset 0x4: class 3/],
    ['big-endian', changed(5, 2), /offset 0x5: data encoding 2/],
    ['relocatable', changed(16, 1), /offset 0x10: type 1/],
    ['ARM', changed(18, 183), /offset 0x12: machine 183/],
    ['no program headers', changed(56, 0), /offset 0x38: there are no program headers/],
    ['program headers outside', changed(32, 0xff, 0xff), /offset 0x20: the program headers are outside/],
    ['huge offset', changed(64 + 8 + 7, 0xff), /offset 0x48: the offset of a segment/],
    ['segment outside', changed(64 + 8, 0xff, 0xff), /offset 0x40: segment 0 ends at/],
    [
      'more in the file than in memory',
      changed(64 + 40, 10, 0),
      /more bytes in the file \(100\) than in memory \(10\)/,
    ],
    ['nothing to load', changed(64, 4).map((b, i) => (i === 120 ? 4 : b)), /no segment to load/],
    [
      'sections outside',
      changed(40, 0xff, 0xff).map((b, i) => (i === 58 ? 64 : i === 60 ? 1 : b)),
      /section headers are outside/,
    ],
  ])('is refused: %s', (_what, bytes, message) => {
    expect(() => parseElf(bytes, 'k')).toThrow(message);
  });
});
