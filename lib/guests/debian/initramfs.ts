/** The initramfs of the Debian guest: busybox, the `cpuid` tool and its libraries, /init and /workload. */
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import { LabError } from '../../base/error.js';
import { type CpioEntry, writeCpio } from '../../loaders/cpio.js';

/** Where shared libraries are, in the packages and in the guest, by the class of ELF files. */
const LIBRARIES = {
  32: {
    folders: ['lib/i386-linux-gnu', 'usr/lib/i386-linux-gnu', 'lib'],
    loader: 'ld-linux.so.2',
    loaderFolder: 'lib',
  },
  64: {
    folders: ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu', 'lib64'],
    loader: 'ld-linux-x86-64.so.2',
    loaderFolder: 'lib64',
  },
} as const;
type Libraries = (typeof LIBRARIES)[keyof typeof LIBRARIES];

const find = (root: string, candidates: readonly string[]): string => {
  for (const c of candidates) if (existsSync(join(root, c))) return realpathSync(join(root, c));
  throw new LabError(
    'debian.missing',
    `the unpacked packages in ${root} have no ${candidates[0]}`,
    'run `npx vmxlab setup --force`',
  );
};

/** Shared libraries that an ELF file names, its loader included, as found in the unpacked packages. */
const librariesOf = (root: string, file: Uint8Array, libraries: Libraries): string[] => {
  const text = Buffer.from(file).toString('latin1');
  const names = new Set<string>();
  for (const m of text.matchAll(/\0((?:lib[\w+-]+|ld-linux-x86-64|ld-linux)\.so(?:\.\d+)*)(?=\0)/g))
    names.add(m[1]!);
  names.add(libraries.loader);
  return [...names].filter((n) => libraries.folders.some((f) => existsSync(join(root, f, n)))).sort();
};

/**
 * @param root folder that the packages are unpacked in
 * @returns an uncompressed newc archive; equal input gives equal bytes
 */
export const debianInitramfs = (root: string, init: string, workload: string): Uint8Array => {
  const text = new TextEncoder();
  const busybox = readFileSync(find(root, ['bin/busybox', 'usr/bin/busybox']));
  const cpuid = readFileSync(find(root, ['usr/bin/cpuid', 'bin/cpuid']));
  const libraries = LIBRARIES[cpuid[4] === 1 ? 32 : 64];
  const folder = libraries.folders[0];
  const folders = ['bin', 'dev', 'lib64', 'lib', folder, 'proc', 'sys', 'tmp', 'usr', 'usr/bin'];
  const entries: CpioEntry[] = [
    ...folders.map((path) => ({ kind: 'directory' as const, path })),
    { kind: 'character', path: 'dev/console', major: 5, minor: 1, mode: 0o600 },
    { kind: 'character', path: 'dev/null', major: 1, minor: 3, mode: 0o666 },
    { kind: 'file', path: 'bin/busybox', bytes: busybox, mode: 0o755 },
    { kind: 'symlink', path: 'bin/sh', target: 'busybox' },
    { kind: 'file', path: 'usr/bin/cpuid', bytes: cpuid, mode: 0o755 },
  ];
  for (const name of librariesOf(root, cpuid, libraries)) {
    const file = find(
      root,
      libraries.folders.map((f) => `${f}/${name}`),
    );
    entries.push({
      kind: 'file',
      path: `${name === libraries.loader ? libraries.loaderFolder : folder}/${name}`,
      bytes: readFileSync(file),
      mode: 0o755,
    });
  }
  entries.push({ kind: 'file', path: 'init', bytes: text.encode(init), mode: 0o755 });
  entries.push({
    kind: 'file',
    path: 'workload',
    bytes: text.encode(workload.endsWith('\n') ? workload : `${workload}\n`),
    mode: 0o755,
  });
  return writeCpio(entries);
};

/** The kernel image of the unpacked kernel package. */
export const kernelFile = (root: string): string => {
  const boot = join(root, 'boot');
  const images = existsSync(boot) ? readdirSync(boot).filter((n) => n.startsWith('vmlinuz-')) : [];
  if (images.length !== 1)
    throw new LabError(
      'debian.kernel',
      `${boot} holds ${images.length} kernel images (${images.map((i) => basename(i)).join(', ') || 'none'}), not one`,
      'run `npx vmxlab setup --force`',
    );
  return join(boot, images[0]!);
};
