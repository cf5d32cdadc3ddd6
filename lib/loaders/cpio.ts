/**
 * A writer of `newc` cpio archives, the format of an initramfs (Linux "initramfs buffer format").
 *
 * The same entries give the same bytes: modification times are 0, owners root, inode numbers count from 1 in the order
 * given. Parent directories are not invented; list them first. No compression, hard links or checksums.
 */
import { LabError } from '../base/error.js';

export type CpioEntry =
  | { readonly path: string; readonly kind: 'file'; readonly bytes: Uint8Array; readonly mode?: number }
  | { readonly path: string; readonly kind: 'directory'; readonly mode?: number }
  | { readonly path: string; readonly kind: 'symlink'; readonly target: string }
  | {
      readonly path: string;
      readonly kind: 'character' | 'block';
      readonly major: number;
      readonly minor: number;
      readonly mode?: number;
    };

const TYPE = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  character: 0o020000,
  block: 0o060000,
} as const;
const DEFAULT_MODE = {
  file: 0o755,
  directory: 0o755,
  symlink: 0o777,
  character: 0o600,
  block: 0o600,
} as const;
const HEADER_BYTES = 110;
const TRAILER = 'TRAILER!!!';

const padded = (n: number): number => (n + 3) & ~3;
const field = (v: number): string => (v >>> 0).toString(16).toUpperCase().padStart(8, '0');

interface Record {
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
  readonly major: number;
  readonly minor: number;
  readonly name: Uint8Array;
  readonly data: Uint8Array;
}

const encoder = new TextEncoder();

const record = (entry: CpioEntry, inode: number): Record => {
  const { path, kind } = entry;
  if (
    path === '' ||
    path.startsWith('/') ||
    path.split('/').some((p) => p === '' || p === '.' || p === '..')
  ) {
    throw new LabError('loader.cpio.path', `archive path '${path}' is not a plain relative path`);
  }
  const mode = TYPE[kind] | (('mode' in entry ? entry.mode : undefined) ?? DEFAULT_MODE[kind]);
  const device = kind === 'character' || kind === 'block';
  return {
    inode,
    mode,
    links: kind === 'directory' ? 2 : 1,
    major: device ? entry.major : 0,
    minor: device ? entry.minor : 0,
    name: encoder.encode(`${path}\0`),
    data:
      kind === 'file' ? entry.bytes : kind === 'symlink' ? encoder.encode(entry.target) : new Uint8Array(0),
  };
};

/** The archive, with its trailer, padded to a multiple of 512 bytes. Throws `loader.cpio.*` for bad or repeated paths. */
export const writeCpio = (entries: readonly CpioEntry[]): Uint8Array => {
  const seen = new Set<string>();
  for (const { path } of entries) {
    if (seen.has(path)) throw new LabError('loader.cpio.repeated', `archive path '${path}' is given twice`);
    seen.add(path);
  }
  const records = entries.map((entry, i) => record(entry, i + 1));
  records.push({
    inode: 0,
    mode: 0,
    links: 1,
    major: 0,
    minor: 0,
    name: encoder.encode(`${TRAILER}\0`),
    data: new Uint8Array(0),
  });

  let size = 0;
  for (const r of records) size = padded(padded(size + HEADER_BYTES + r.name.length) + r.data.length);
  const out = new Uint8Array(Math.ceil(size / 512) * 512);
  let at = 0;
  for (const r of records) {
    const fields = [
      r.inode,
      r.mode,
      0,
      0,
      r.links,
      0,
      r.data.length,
      0,
      0,
      r.major,
      r.minor,
      r.name.length,
      0,
    ];
    out.set(encoder.encode(`070701${fields.map(field).join('')}`), at);
    out.set(r.name, at + HEADER_BYTES);
    at = padded(at + HEADER_BYTES + r.name.length);
    out.set(r.data, at);
    at = padded(at + r.data.length);
  }
  return out;
};
