/** Kernels and initramfs that are missing, cut, damaged or foreign, and too little memory. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LabError } from '../../lib/base/error.js';
import { uncompressedKernel } from '../../lib/guests/debian/debian.js';
import { debianInitramfs, kernelFile } from '../../lib/guests/debian/initramfs.js';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { type BootOptions, boot, type RunResult } from '../../lib/lab/machine.js';
import { DEBIAN } from '../../lib/lab/paths.js';

const ROOT = join(DEBIAN, 'root');
const M = 1_000_000;
const BOOT_LIMIT = 700 * M;

let folder: string;
let bzImage: Uint8Array;
let vmlinux: Uint8Array;
let initramfs: Uint8Array;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'vmxlab-test-'));
  bzImage = readFileSync(kernelFile(ROOT));
  vmlinux = await uncompressedKernel(kernelFile(ROOT), join(DEBIAN, 'cache'));
  initramfs = debianInitramfs(ROOT, '#!/bin/busybox sh\npoweroff -f', '');
});
afterAll(() => {
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

const file = (name: string, bytes: Uint8Array | string): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};
/** Boots in a hypervisor of its own, whose module can be unloaded whatever happened. */
const attempt = async (options: BootOptions, ept = true): Promise<RunResult | LabError> => {
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', { ept });
  let ended: unknown;
  try {
    ended = await boot(hypervisor, options);
  } catch (e) {
    ended = e;
  }
  hypervisor.unloadModule('kvm-intel');
  if (ended instanceof Error) expect(ended).toBeInstanceOf(LabError);
  return ended as RunResult | LabError;
};
const patched = (bytes: Uint8Array, at: number, values: readonly number[]): Uint8Array => {
  const out = Uint8Array.from(bytes);
  out.set(values, at);
  return out;
};

describe('a kernel that is refused with one message that names the file', () => {
  // biome-ignore format: one row per line
  test.each<[string, () => Uint8Array | string]>([
    ['empty', () => ''],
    ['text', () => 'this is no kernel\n'],
    ['header-only', () => bzImage.subarray(0, 0x268)],
    ['cut-in-setup', () => bzImage.subarray(0, 0x230)],
    ['cut-in-payload', () => bzImage.subarray(0, 1 << 20)],
    ['cut-at-the-end', () => bzImage.subarray(0, -(512 << 10))],
    ['no-boot-flag', () => patched(bzImage, 0x1fe, [0, 0])],
    ['old-protocol', () => patched(bzImage, 0x206, [0x07, 0x02])],
    ['payload-length-ones', () => patched(bzImage, 0x24c, [0xff, 0xff, 0xff, 0xff])],
    ['payload-zeros', () => patched(bzImage, bzImage.length >> 2, new Array<number>(4096).fill(0))],
    ['elf-header-only', () => vmlinux.subarray(0, 64)],
    ['elf-cut', () => vmlinux.subarray(0, 1 << 20)],
    ['elf-32-bit', () => patched(vmlinux, 4, [1])],
    ['elf-big-endian', () => patched(vmlinux, 5, [2])],
    ['elf-arm', () => patched(vmlinux, 18, [0xb7])],
    ['elf-entry-outside', () => patched(vmlinux, 24, [0xff, 0xff, 0xff, 0x7f])],
    ['elf-headers-outside', () => patched(vmlinux, 32, [0xff, 0xff, 0xff, 0xff, 0x1f])],
  ])('%s', async (name, bytes) => {
    const error = await attempt({ kernel: file(name, bytes()), maxInstructions: 1000 });
    expect(error).toBeInstanceOf(LabError);
    expect((error as LabError).message).toContain(name);
    expect((error as LabError).message).not.toContain('\n');
  });

  test('missing', async () => {
    const path = join(folder, 'missing');
    expect(await attempt({ kernel: path })).toMatchObject({
      id: 'guest.file',
      message: expect.stringContaining(path),
    });
    expect(await attempt({ initrd: path })).toMatchObject({
      id: 'guest.file',
      message: expect.stringContaining(path),
    });
  });
});

test('an ELF program that is no kernel runs into the ground or is refused', async () => {
  const program = join(ROOT, 'bin', 'busybox');
  const r = await attempt({ kernel: program, maxInstructions: 5 * M });
  if (r instanceof LabError) expect(r.message).toContain('busybox');
  else expect(['triple-fault', 'limit', 'halt', 'emulation-failure']).toContain(r.outcome);
});

test('the uncompressed kernel in place of the bzImage does the same', async () => {
  const [a, b] = [
    await attempt({ maxInstructions: 5 * M }),
    await attempt({ kernel: file('vmlinux', vmlinux), maxInstructions: 5 * M }),
  ] as [RunResult, RunResult];
  expect(b).toEqual({ ...a, wallSeconds: b.wallSeconds, about: b.about });
});

describe('an initramfs that is no use', () => {
  test('foreign: the kernel says so, or it is refused', async () => {
    const r = await attempt({
      initrd: file('foreign', 'x'.repeat(100_000)),
      until: 'nitramfs unpacking failed',
      maxInstructions: BOOT_LIMIT,
    });
    if (r instanceof LabError) return expect(r.message).toContain('foreign');
    expect(r.console).toMatch(/Initramfs unpacking failed: [^\n]*\n$/);
    expect(r.outcome).toBe('until');
  });

  test('truncated, shadow paging: the kernel finds no init, panics and resets the machine', async () => {
    const r = await attempt(
      { initrd: file('truncated', initramfs.subarray(0, 1 << 20)), maxInstructions: BOOT_LIMIT },
      false,
    );
    if (r instanceof LabError) return expect(r.message).toContain('truncated');
    expect(r.console).toContain('Kernel panic');
    expect(r.outcome).toBe('reset');
  });

  test('larger than the memory', async () => {
    const r = await attempt({ initrd: file('large', new Uint8Array(100 << 20)), memory: 128 << 20 });
    expect(r).toMatchObject({ id: 'loader.memory' });
    expect((r as LabError).message).toContain(String(100 << 20));
  });
});

describe('too little memory', () => {
  test('64 MiB do not hold kernel and initramfs: one message, before anything runs', async () => {
    const r = await attempt({ memory: 64 << 20 });
    expect(r).toMatchObject({
      id: 'loader.memory',
      message: expect.stringContaining('give the guest more memory'),
    });
    expect((r as LabError).message).toContain('0x4000000');
  });

  test('70 MiB hold them, but the kernel runs out of memory, panics and resets', async () => {
    const r = await attempt({ memory: 70 << 20, maxInstructions: BOOT_LIMIT });
    expect(r).toMatchObject({ outcome: 'reset', phases: [] });
    expect((r as RunResult).console).toContain('Out of memory');
    expect((r as RunResult).console).toContain('Kernel panic');
  });
});
