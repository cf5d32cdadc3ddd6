/** What a file is taken for, and ROM images. */
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { recogniseImage } from '../../lib/loaders/format.js';
import { loadRom } from '../../lib/loaders/rom.js';
import { elfKernel, flatKernel, header, rom } from '../lab/guest-code.js';
import { buildBzImage, buildElf } from './elf-builder.js';

const linux = buildElf(0x100_0000, [{ paddr: 0x100_0000, bytes: Uint8Array.of(0xf4) }]);
const filled = (bytes: number, value: number, at = 0, ...more: number[]): Uint8Array => {
  const out = new Uint8Array(bytes).fill(value);
  out.set(more, at);
  return out;
};

test.each<[string, Uint8Array, string]>([
  ['a bzImage', buildBzImage(gzipSync(linux)), 'bzimage'],
  ['an ELF kernel of 64 bits', linux, 'elf'],
  ['address fields', flatKernel(Uint8Array.of(0xf4)), 'multiboot'],
  [
    'an ELF of 32 bits with a header',
    elfKernel(32, 0x10_0020, [{ paddr: 0x10_0000, bytes: header(0) }]),
    'multiboot',
  ],
  [
    'an ELF of 64 bits with a header',
    elfKernel(64, 0x10_0020, [{ paddr: 0x10_0000, bytes: header(0) }]),
    'multiboot',
  ],
  ['a ROM', rom(Uint8Array.of(0xf4)), 'rom'],
  ['a ROM that begins with NOP, CLI, WBINVD', filled(4096, 0, 4080, 0x90, 0xfa, 0x0f, 0x09, 0xe9), 'rom'],
])('%s is recognised', (_what, bytes, format) => {
  expect(recogniseImage(bytes, 'k')).toBe(format);
});

test.each<[string, Uint8Array, RegExp]>([
  ['nothing', new Uint8Array(0), /^k: at offset 0x0: the file is empty/],
  [
    'an ELF of 32 bits without a header',
    elfKernel(32, 0, [{ paddr: 0, bytes: [1] }]),
    /^k: at offset 0x4: .* needs a Multiboot header/,
  ],
  [
    'another machine',
    filled(64, 0, 0, 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 183),
    /^k: at offset 0x12: ELF machine 183/,
  ],
  [
    'Multiboot 2',
    filled(100, 0, 8, 0xd6, 0x50, 0x52, 0xe8),
    /^k: at offset 0x8: this is a Multiboot 2 header/,
  ],
  ['gzip', gzipSync(new Uint8Array(10)), /^k: at offset 0x0: this is a gzip file/],
  ['a script', Uint8Array.from(Buffer.from('#!/bin/sh\n')), /this is a script/],
  ['an odd size', filled(5000, 0xcc), /5000 bytes are not the size of a ROM/],
  ['too large for a ROM', filled(17 << 20, 0xcc), /are not the size of a ROM/],
  ['no jump at the reset vector', filled(4096, 0xff), /^k: at offset 0xff0: .*no jump/],
])('%s is refused', (_what, bytes, message) => {
  expect(() => recogniseImage(bytes, 'k')).toThrow(
    expect.objectContaining({ id: 'loader.format', message: expect.stringMatching(message) }),
  );
});

test('a ROM lies below 4 GiB and below 1 MiB, and starts in real mode at its reset vector', () => {
  const image = rom(Uint8Array.of(0xf4), 256 << 10);
  const guest = loadRom({ image, name: 'r', memoryBytes: 64 << 20, signature: 0x50657 });
  expect(guest.slots).toEqual([{ gpa: 0xfffc_0000, bytes: 256 << 10 }]);
  expect(guest.segments.map((s) => [s.gpa, s.bytes.length])).toEqual([
    [0xfffc_0000, 256 << 10],
    [0xe_0000, 128 << 10],
  ]);
  expect(Buffer.compare(guest.segments[1].bytes, image.subarray(128 << 10))).toBe(0);
  const { cs } = guest.entry.segments;
  expect(cs.base + guest.entry.rip).toBe(0xffff_fff0n);
  expect([cs.selector, guest.entry.gprs[2], guest.entry.cr0]).toEqual([0xf000, 0x50657n, 0x6000_0010n]);
});

test.each<[string, number, number, RegExp]>([
  ['an odd size', 4097, 64 << 20, /^r: at offset 0x0: a ROM has a multiple of 4096 bytes, the file has 4097/],
  ['an empty file', 0, 64 << 20, /the file has 0/],
  ['more than 16 MiB', (16 << 20) + 4096, 64 << 20, /^r: at offset 0x1000000: a ROM has at most/],
  ['memory that reaches into it', 4096, 0x1_0000_0000, /does not go with a ROM at 0xfffff000/],
])('a ROM of %s is refused', (_what, bytes, memoryBytes, message) => {
  expect(() => loadRom({ image: new Uint8Array(bytes), name: 'r', memoryBytes })).toThrow(message);
});
