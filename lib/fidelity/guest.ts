/**
 * The guest of the recorded runs: the same initramfs (busybox, `/init` as recorded, the micro-test programs) for the
 * kernel that the recorded runs booted, or for another one, which is then said.
 *
 * `/micro` and `/nop` are built from `tests/fidelity/*.c` with gcc. Without gcc the guest runs without micro tests.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { uncompressedKernel } from '../guests/debian/debian.js';
import { kernelFile } from '../guests/debian/initramfs.js';
import { DATA, DEBIAN, ROOT } from '../lab/paths.js';
import { reference } from '../lab/reference.js';
import { type CpioEntry, writeCpio } from '../loaders/cpio.js';

const CACHE = join(DATA, 'cache', 'fidelity');
const SOURCES = join(ROOT, 'tests', 'fidelity');

export interface FidelityGuest {
  /** File with the initramfs. */
  readonly initrd: string;
  /** The guest has the micro tests. */
  readonly micro: boolean;
  readonly kernelSha256: string;
  /** The kernel is the build of the recorded runs. */
  readonly sameKernel: boolean;
  /** What differs from the recorded guest, a line each. */
  readonly notes: readonly string[];
}

/** Compiles a program of the micro tests. @returns undefined without gcc or a static C library */
const compile = (name: string, ...flags: string[]): Uint8Array | undefined => {
  const out = join(CACHE, name);
  const source = join(SOURCES, `${name}.c`);
  try {
    execFileSync('gcc', ['-static', '-O2', '-s', ...flags, '-o', out, source], { stdio: 'ignore' });
    return readFileSync(out);
  } catch {
    return undefined;
  }
};

export const fidelityGuest = async (): Promise<FidelityGuest> => {
  mkdirSync(CACHE, { recursive: true });
  const root = join(DEBIAN, 'root');
  const kernel = await uncompressedKernel(kernelFile(root), join(DEBIAN, 'cache'));
  const { guestInit, versions } = reference();
  const kernelSha256 = createHash('sha256').update(kernel).digest('hex');
  const notes: string[] = [];

  const bare = ['-nostdlib', '-fno-asynchronous-unwind-tables', '-Wl,--build-id=none'];
  const micro = compile('micro');
  const nop = micro === undefined ? undefined : compile('nop', ...bare);
  const file = (path: string, bytes: Uint8Array): CpioEntry => ({ kind: 'file', path, bytes, mode: 0o755 });
  const busybox = ['bin/busybox', 'usr/bin/busybox'].map((f) => join(root, f)).find((f) => existsSync(f));
  const entries: CpioEntry[] = [
    ...['bin', 'dev', 'proc', 'sys', 'tmp'].map((path): CpioEntry => ({ kind: 'directory', path })),
    file('bin/busybox', readFileSync(busybox as string)),
    file('init', new TextEncoder().encode(guestInit)),
  ];
  if (micro !== undefined && nop !== undefined) entries.push(file('micro', micro), file('nop', nop));
  else notes.push('gcc or a static C library is missing: the guest has no micro tests');
  const archive = writeCpio(entries);
  const initrd = join(CACHE, 'initramfs.cpio');
  writeFileSync(initrd, archive);
  if (archive.length !== versions.innerInitrdBytes)
    notes.push(`the initramfs has ${archive.length} bytes, the recorded one ${versions.innerInitrdBytes}`);
  const sameKernel = kernelSha256 === versions.vmlinuxSha256;
  if (!sameKernel)
    notes.push(
      `the kernel differs from the recorded one (sha256 of vmlinux ${kernelSha256.slice(0, 16)}…, recorded ${versions.vmlinuxSha256.slice(0, 16)}…): ratios are shown, nothing is judged`,
    );
  return { initrd, micro: micro !== undefined && nop !== undefined, kernelSha256, sameKernel, notes };
};
