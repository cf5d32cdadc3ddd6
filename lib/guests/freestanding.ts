/**
 * A guest of the user's own that is no Linux: a Multiboot 1 kernel with its modules, or a ROM image.
 *
 * It brings no initramfs and no workload. The kernel sees the name of a module's file and its arguments as one text.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { LabError } from '../base/error.js';
import type { Segment } from '../loaders/entry-state.js';
import { type ImageFormat, recogniseImage } from '../loaders/format.js';
import { loadMultiboot, type MultibootModule } from '../loaders/multiboot.js';
import { loadRom } from '../loaders/rom.js';
import type { GuestImage } from './guest.js';

/** A file and its arguments: as one text, separated by the first space, or apart. */
export type ModuleFile = string | { readonly file: string; readonly args?: string };

export interface FreestandingOptions {
  /** Bytes of guest memory. */
  readonly memory: number;
  /** What follows the kernel's name on its command line. */
  readonly cmdline?: string;
  readonly modules?: readonly ModuleFile[];
  /** ACPI tables of the machine. */
  readonly tables?: readonly Segment[];
}

export interface FreestandingGuest extends GuestImage {
  readonly format: ImageFormat;
  /** Guest-physical memory beyond the slot at 0. */
  readonly slots: readonly { readonly gpa: number; readonly bytes: number }[];
}

const readFile = (file: string, what: string): Uint8Array => {
  if (!existsSync(file) || !statSync(file).isFile())
    throw new LabError('guest.file', `${what} ${file} does not exist`);
  return readFileSync(file);
};

/** The format of the user's kernel file. @throws LabError `guest.file`, `loader.format` */
export const kernelFormat = (file: string): { readonly format: ImageFormat; readonly bytes: Uint8Array } => {
  const bytes = readFile(file, 'kernel');
  return { format: recogniseImage(bytes, file), bytes };
};

const readModule = (given: ModuleFile): MultibootModule => {
  const [file, args] =
    typeof given === 'string'
      ? [given.split(' ', 1)[0]!, given.slice(given.split(' ', 1)[0]!.length)]
      : [given.file, given.args === undefined ? '' : ` ${given.args}`];
  return { text: basename(file) + args, bytes: readFile(file, 'module') };
};

const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex').slice(0, 16);

/** @throws LabError for damaged images, and options that the format has no place for */
export const freestandingGuest = (
  file: string,
  bytes: Uint8Array,
  format: 'multiboot' | 'rom',
  options: FreestandingOptions,
): FreestandingGuest => {
  const name = basename(file);
  const about = [`${format} image ${name} (sha256 ${hash(bytes)}…)`];
  const tables = options.tables ?? [];
  if (format === 'rom') {
    if (options.cmdline !== undefined || (options.modules ?? []).length > 0)
      throw new LabError('guest.option', `${file} is a ROM image: it has no command line and no modules`);
    const rom = loadRom({ image: bytes, name: file, memoryBytes: options.memory });
    // a ROM brings its own tables
    return {
      name: 'rom',
      format,
      about,
      cmdline: '',
      segments: rom.segments,
      entry: rom.entry,
      slots: rom.slots,
    };
  }
  const cmdline =
    options.cmdline === undefined || options.cmdline === '' ? name : `${name} ${options.cmdline}`;
  const modules = (options.modules ?? []).map(readModule);
  const guest = loadMultiboot({
    kernel: bytes,
    kernelName: file,
    commandLine: cmdline,
    memoryBytes: options.memory,
    modules,
    extra: tables,
  });
  about.push(...modules.map((m) => `module ${m.text} (sha256 ${hash(m.bytes)}…)`));
  return {
    name: 'multiboot',
    format,
    about,
    cmdline,
    segments: guest.segments,
    entry: guest.entry,
    slots: [],
  };
};
