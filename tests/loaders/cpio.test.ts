import { describe, expect, it } from 'vitest';
import { type CpioEntry, writeCpio } from '../../lib/loaders/cpio.js';

/** Reads an archive back, by the format's description. */
const read = (bytes: Uint8Array) => {
  const out: { name: string; fields: number[]; data: string }[] = [];
  const text = (from: number, to: number) => new TextDecoder().decode(bytes.subarray(from, to));
  for (let at = 0; ; ) {
    expect(text(at, at + 6)).toBe('070701');
    const fields = Array.from({ length: 13 }, (_, i) =>
      Number.parseInt(text(at + 6 + 8 * i, at + 14 + 8 * i), 16),
    );
    const name = text(at + 110, at + 110 + fields[11] - 1);
    at = (at + 110 + fields[11] + 3) & ~3;
    if (name === 'TRAILER!!!') return out;
    out.push({ name, fields, data: text(at, at + fields[6]) });
    at = (at + fields[6] + 3) & ~3;
  }
};
const entries: CpioEntry[] = [
  { path: 'dev', kind: 'directory' },
  { path: 'dev/console', kind: 'character', major: 5, minor: 1 },
  { path: 'init', kind: 'file', bytes: new TextEncoder().encode('#!/bin/sh\n'), mode: 0o700 },
  { path: 'sh', kind: 'symlink', target: 'busybox' },
];

describe('cpio', () => {
  it('writes newc records', () => {
    const archive = writeCpio(entries);
    expect(archive.length % 512).toBe(0);
    expect(
      read(archive).map(({ name, fields: f, data }) => [
        name,
        f[0],
        f[1].toString(8),
        f[4],
        f[9],
        f[10],
        data,
      ]),
    ).toEqual([
      ['dev', 1, '40755', 2, 0, 0, ''],
      ['dev/console', 2, '20600', 1, 5, 1, ''],
      ['init', 3, '100700', 1, 0, 0, '#!/bin/sh\n'],
      ['sh', 4, '120777', 1, 0, 0, 'busybox'],
    ]);
  });
  it('gives the same bytes for the same entries', () => {
    expect(Buffer.compare(writeCpio(entries), writeCpio(entries))).toBe(0);
    expect(read(writeCpio(entries)).every((r) => r.fields[5] === 0)).toBe(true);
  });
  it.each(['', '/init', 'a//b', './a', 'a/..'])('refuses path %j', (path) => {
    expect(() => writeCpio([{ path, kind: 'directory' }])).toThrow(/not a plain relative path/);
  });
  it('refuses a path given twice', () => {
    expect(() => writeCpio([entries[0], entries[0]])).toThrow(/given twice/);
  });
});
