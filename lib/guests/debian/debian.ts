/**
 * The Debian guests: Debian's own kernel package, unmodified, with an initramfs of busybox and the `cpuid` tool.
 *
 * They boot through the 64-bit or 32-bit entry of the uncompressed kernel, as a micro-VM monitor does: no firmware, no
 * boot loader.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { LabError } from '../../base/error.js';
import { extractVmlinux, isBzImage } from '../../loaders/bzimage.js';
import { isElf } from '../../loaders/elf.js';
import type { Segment } from '../../loaders/entry-state.js';
import { kernelSymbols } from '../../loaders/kallsyms.js';
import { loadLinux } from '../../loaders/linux-boot.js';
import type { GuestImage, LinuxGuestOptions } from '../guest.js';
import type { DebianName } from './flavours.js';
import { initScript, type LeafNumbers } from './init.js';
import { debianInitramfs, kernelFile } from './initramfs.js';
import { readManifest } from './packages.js';
import { DEFAULT_WORKLOAD } from './workload.js';

/** No random addresses, no boot-time self-tests, no waiting: the boot is short and repeatable. */
export const DEBIAN_CMDLINE =
  'console=ttyS0 panic=-1 nokaslr mitigations=off tsc=reliable cryptomgr.notests random.trust_cpu=off 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd pci=off';

export interface DebianOptions extends LinuxGuestOptions {
  /** Default `debian`. */
  readonly name?: DebianName;
  readonly leaves: LeafNumbers;
  /** ACPI and other tables of the machine, placed by the caller. */
  readonly tables?: readonly Segment[];
  /** Files that replace what the guest brings. */
  readonly kernel?: string;
  readonly initrd?: string;
}

const readUserFile = (file: string, what: string): Uint8Array => {
  if (!existsSync(file)) throw new LabError('guest.file', `${what} ${file} does not exist`);
  if (!statSync(file).isFile()) throw new LabError('guest.file', `${what} ${file} is not a file`);
  return readFileSync(file);
};

/** The uncompressed kernel of a bzImage or vmlinux file; kept in `cache` by hash, because decompression takes a second. */
export const uncompressedKernel = async (file: string, cache: string): Promise<Uint8Array> => {
  const image = readUserFile(file, 'kernel');
  if (isElf(image)) return image;
  if (!isBzImage(image)) throw new LabError('guest.kernel', `${file} is neither a bzImage nor an ELF kernel`);
  const kept = join(cache, `${createHash('sha256').update(image).digest('hex').slice(0, 32)}.vmlinux`);
  if (existsSync(kept)) return readFileSync(kept);
  const { bytes } = await extractVmlinux(image, file);
  mkdirSync(cache, { recursive: true });
  const part = `${kept}.${process.pid}`;
  writeFileSync(part, bytes);
  renameSync(part, kept);
  return bytes;
};

/**
 * @param folder what `fetchDebian` filled
 * @param cache folder for the decompressed kernel
 */
export const debianGuest = async (
  folder: string,
  cache: string,
  options: DebianOptions,
): Promise<GuestImage> => {
  const name = options.name ?? 'debian';
  const manifest = readManifest(folder);
  const own = options.kernel === undefined || options.initrd === undefined;
  if (own && manifest === undefined)
    throw new LabError(
      'debian.not-set-up',
      `Debian's packages are not in ${folder}`,
      `run \`npx vmxlab setup${name === 'debian' ? '' : ` --guest ${name}`}\` first`,
    );
  const root = join(folder, 'root');
  const file = options.kernel ?? kernelFile(root);
  const kernel = await uncompressedKernel(file, cache);
  const workload = options.workload ?? DEFAULT_WORKLOAD;
  const initramfs =
    options.initrd !== undefined
      ? readUserFile(options.initrd, 'initramfs')
      : debianInitramfs(root, initScript(options.leaves, options.shell), workload);
  const base = options.cmdline ?? DEBIAN_CMDLINE;
  const cmdline = options.append === undefined ? base : `${base} ${options.append}`;
  const loaded = loadLinux({
    kernel,
    kernelName: basename(file),
    memoryBytes: options.memory,
    commandLine: cmdline,
    initramfs,
    extra: options.tables ?? [],
  });
  const about =
    own && manifest !== undefined
      ? manifest.packages.map((p) => `${p.name} ${p.version} (sha256 ${p.sha256.slice(0, 16)}…)`)
      : [`kernel ${file}`];
  return {
    name,
    about,
    cmdline,
    segments: loaded.segments,
    entry: loaded.entry,
    // the names of a 32-bit kernel are kept in another form
    ...(loaded.elf.bits === 64 ? { symbols: () => kernelSymbols(loaded.elf) } : {}),
  };
};
