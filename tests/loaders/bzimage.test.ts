import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { extractVmlinux, isBzImage, parseBzImage } from '../../lib/loaders/bzimage.js';
import { buildBzImage, buildElf } from './elf-builder.js';

const elf = buildElf(0x100_0000, [{ paddr: 0x100_0000, bytes: Uint8Array.from([0xf4, 0xeb, 0xfd]) }]);
const relocations = Uint8Array.from([0, 0, 0, 0, 1, 2, 3, 4]);
const image = buildBzImage(gzipSync(Uint8Array.from([...elf, ...relocations])));

describe('bzImage', () => {
  it('holds the kernel and its relocation table', async () => {
    expect(isBzImage(image)).toBe(true);
    const kernel = await extractVmlinux(image, 'vmlinuz');
    expect([kernel.compression, kernel.version]).toEqual(['gzip', '6.1.0-test']);
    expect([...kernel.bytes]).toEqual([...elf, ...relocations]);
    expect(kernel.imageBytes).toBe(elf.length);
  });

  const changed = (at: number, ...values: number[]) => {
    const out = image.slice();
    out.set(values, at);
    return out;
  };
  it.each([
    ['too short', image.subarray(0, 0x200), /offset 0x0: a setup header has/],
    ['boot flag', changed(0x1fe, 0), /offset 0x1fe: boot flag/],
    ['magic', changed(0x202, 0), /offset 0x202: the magic/],
    ['protocol 2.07', changed(0x206, 7, 2), /offset 0x206: boot protocol 0x207/],
    ['payload beyond the end', changed(0x24c, 0xff, 0xff), /offset 0x248: the payload ends/],
    ['no payload', changed(0x24c, 0, 0), /offset 0x24c: the payload is empty/],
    ['setup sectors', changed(0x1f1, 200), /offset 0x248/],
  ])('is refused: %s', (_what, bytes, message) => {
    expect(() => parseBzImage(bytes, 'vmlinuz')).toThrow(message);
  });

  it('is refused when the payload is no ELF image', async () => {
    const other = buildBzImage(gzipSync(new Uint8Array(100)));
    await expect(extractVmlinux(other, 'vmlinuz')).rejects.toThrow(/decompressed.*magic is not 7f 45 4c 46/);
  });
});
