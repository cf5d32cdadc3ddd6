import { describe, expect, it } from 'vitest';
import { loadLinux } from '../../lib/loaders/linux-boot.js';
import { buildElf } from './elf-builder.js';

const MiB = 1 << 20;
const kernel = buildElf(16 * MiB + 4, [
  { paddr: 16 * MiB, bytes: new Uint8Array(4096).fill(0x90), memoryBytes: 8192 },
  { paddr: 17 * MiB, bytes: new Uint8Array(100) },
]);
const base = { kernel, kernelName: 'vmlinux', commandLine: 'console=ttyS0', memoryBytes: 256 * MiB };

describe('Linux 64-bit boot', () => {
  const guest = loadLinux({
    ...base,
    initramfs: new Uint8Array(5000),
    extra: [{ gpa: 0xe_0000, bytes: new Uint8Array(64), what: 'ACPI tables' }],
  });
  const segment = (what: string) => {
    const found = guest.segments.find((s) => s.what === what);
    if (found === undefined) throw new Error(`no segment ${what}`);
    return { ...found, view: new DataView(found.bytes.buffer, found.bytes.byteOffset, found.bytes.length) };
  };

  it('places everything as the reference machine does', () => {
    expect(guest.segments.map((s) => [s.what, s.gpa, s.bytes.length])).toEqual([
      ['vmlinux segment 0', 16 * MiB, 4096],
      ['vmlinux segment 1', 17 * MiB, 100],
      ['initramfs', 256 * MiB - 8192, 5000],
      ['GDT', 0x500, 48],
      ['page tables', 0x9000, 6 * 4096],
      ['zero page', 0x7000, 4096],
      ['command line', 0x2_0000, 14],
      ['ACPI tables', 0xe_0000, 64],
    ]);
  });

  it('enters in 64-bit mode', () => {
    const { entry } = guest;
    expect([entry.rip, entry.rflags, entry.gprs[6]]).toEqual([BigInt(16 * MiB + 4), 2, 0x7000n]);
    expect([entry.cr0, entry.cr3, entry.cr4, entry.efer]).toEqual([0x8001_0031n, 0x9000n, 0x20n, 0x500n]);
    const { cs, ds, tr, ldtr } = entry.segments;
    expect([cs.selector, cs.attr, ds.selector, ds.attr]).toEqual([0x10, 0xa09b, 0x18, 0xc093]);
    expect([tr.selector, tr.attr, ldtr.attr]).toEqual([0x20, 0x8b, 0x1_0000]);
    expect([entry.gdtr, entry.idtr]).toEqual([
      { base: 0x500n, limit: 47 },
      { base: 0n, limit: 0 },
    ]);
    expect(entry.msrs).toEqual([
      [0x1a0, 1n],
      [0x2ff, 0x806n],
    ]);
  });

  it('has descriptors that say the same as the segment registers', () => {
    const { view } = segment('GDT');
    for (const name of ['cs', 'ds', 'tr'] as const) {
      const { selector, attr, limit } = guest.entry.segments[name];
      const d = view.getBigUint64(selector, true);
      expect(Number((d >> 40n) & 0xf0ffn)).toBe(attr);
      const raw = Number((d & 0xffffn) | ((d >> 32n) & 0xf_0000n));
      expect((attr & 0x8000) !== 0 ? raw * 4096 + 4095 : raw).toBe(limit);
    }
  });

  it('maps 4 GiB one to one', () => {
    const { view } = segment('page tables');
    const walk = (address: bigint) => {
      const entry = (table: bigint, shift: bigint) =>
        view.getBigUint64(Number(table - 0x9000n + 8n * ((address >> shift) & 511n)), true);
      const pdpt = entry(0x9000n, 39n);
      const pd = entry(pdpt & ~0xfffn, 30n);
      return entry(pd & ~0xfffn, 21n);
    };
    for (const at of [0n, 0x20_0000n, 0x4000_0000n, 0xffe0_0000n]) expect(walk(at)).toBe(at | 0x83n);
  });

  it('fills the zero page', () => {
    const { view } = segment('zero page');
    expect([view.getUint16(0x1fe, true), view.getUint32(0x202, true), view.getUint8(0x210)]).toEqual([
      0xaa55, 0x5372_6448, 0xff,
    ]);
    expect([view.getUint32(0x218, true), view.getUint32(0x21c, true)]).toEqual([256 * MiB - 8192, 5000]);
    expect([view.getUint32(0x228, true), view.getUint32(0x230, true), view.getUint32(0x238, true)]).toEqual([
      0x2_0000, 0x100_0000, 14,
    ]);
    expect(view.getUint8(0x1e8)).toBe(2);
    const e820 = (i: number) => [0, 8].map((o) => Number(view.getBigUint64(0x2d0 + 20 * i + o, true)));
    expect([e820(0), e820(1)]).toEqual([
      [0, 0x9_fc00],
      [MiB, 255 * MiB],
    ]);
  });

  const low = buildElf(0x8000, [{ paddr: 0x8000, bytes: new Uint8Array(16) }]);
  const crossing = buildElf(16 * MiB, [
    { paddr: 16 * MiB, bytes: new Uint8Array(16), memoryBytes: 4096 },
    { paddr: 16 * MiB + 4095, bytes: new Uint8Array(16) },
  ]);
  it.each([
    ['loader.memory', { memoryBytes: 1000 }, /1000 bytes is not possible/],
    ['loader.memory', { memoryBytes: 4096 * MiB }, /not possible/],
    ['loader.memory', { memoryBytes: 16 * MiB }, /segment 0 ends at .*beyond guest memory/],
    [
      'loader.memory',
      { memoryBytes: 18 * MiB, initramfs: new Uint8Array(2 * MiB) },
      /initramfs of 2097152 bytes does not fit/,
    ],
    ['loader.memory', { kernel: low }, /below 1 MiB/],
    ['loader.memory', { extra: [{ gpa: 256 * MiB - 4, bytes: new Uint8Array(8) }] }, /beyond guest memory/],
    ['loader.overlap', { kernel: crossing }, /segment 0 at 0x1000000 \+ 4096 overlaps vmlinux segment 1/],
    [
      'loader.overlap',
      { extra: [{ gpa: 0xafff, bytes: new Uint8Array(8), what: 'tables' }] },
      /page tables .* overlaps tables/,
    ],
    ['loader.cmdline', { commandLine: 'x'.repeat(2048) }, /2048 bytes is not possible/],
    ['loader.cmdline', { commandLine: 'a\0b' }, /not possible/],
    [
      'loader.entry',
      { kernel: buildElf(MiB, [{ paddr: 16 * MiB, bytes: new Uint8Array(16) }]) },
      /entry 0x100000 is in no loaded segment/,
    ],
    ['loader.elf', { kernel: new Uint8Array(100) }, /magic/],
  ])('refuses with %s: %j', (id, change, message) => {
    const attempt = () => loadLinux({ ...base, ...change });
    expect(attempt).toThrow(message);
    expect(attempt).toThrow(expect.objectContaining({ id }));
  });
});
