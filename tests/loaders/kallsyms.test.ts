import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { DEBIAN } from '../../lib/lab/paths.js';
import { parseElf } from '../../lib/loaders/elf.js';
import { kallsyms, kernelSymbols } from '../../lib/loaders/kallsyms.js';
import { listedSymbols, symbolTable } from '../../lib/loaders/symbols.js';

const BASE = 0xffff_ffff_8100_0000n;

/** Tokens of one character at their own index, and two longer ones. */
const TOKENS = Array.from({ length: 256 }, (_, i) => (i > 32 && i < 127 ? String.fromCharCode(i) : ''));
TOKENS[1] = 'Tstart_';
TOKENS[2] = 'kernel';

type Sym = readonly [type: string, name: string, offset: number];

/** The table as scripts/kallsyms lays it out. @param order 3 bytes a name between markers and tokens */
const image = (symbols: readonly Sym[], order: boolean): Buffer => {
  const parts: Buffer[] = [];
  let length = 0;
  const put = (b: Buffer): void => {
    parts.push(b);
    length += b.length;
  };
  const align = (): void => put(Buffer.alloc((8 - (length % 8)) % 8));
  const u32s = (values: readonly number[]): Buffer => {
    const b = Buffer.alloc(4 * values.length);
    values.forEach((v, i) => {
      b.writeInt32LE(v | 0, 4 * i);
    });
    return b;
  };
  put(Buffer.from('some code before, 0123456789, and data\0\0'));
  align();
  put(u32s(symbols.map(([, , offset]) => -1 - offset)));
  align();
  const base = Buffer.alloc(8);
  base.writeBigUInt64LE(BASE);
  put(base);
  put(u32s([symbols.length]));
  align();
  const markers: number[] = [];
  const names: number[] = [];
  symbols.forEach(([type, name], i) => {
    if (i % 256 === 0) markers.push(names.length);
    const text = type + name;
    const tokens = text === 'Tstart_kernel' ? [1, 2] : [...text].map((c) => c.charCodeAt(0));
    if (tokens.length > 127) names.push((tokens.length & 0x7f) | 0x80, tokens.length >> 7);
    else names.push(tokens.length);
    names.push(...tokens);
  });
  put(Buffer.from(names));
  align();
  put(u32s(markers));
  align();
  if (order) {
    const seqs = symbols.flatMap((_, i) => [(i >> 16) & 255, (i >> 8) & 255, i & 255]);
    put(Buffer.from(seqs));
    align();
  }
  const index: number[] = [];
  let at = 0;
  const table = TOKENS.map((t) => {
    index.push(at);
    at += t.length + 1;
    return `${t}\0`;
  }).join('');
  put(Buffer.from(table, 'latin1'));
  align();
  const words = Buffer.alloc(512);
  index.forEach((v, i) => {
    words.writeUInt16LE(v, 2 * i);
  });
  put(words);
  put(Buffer.from('and more behind'));
  return Buffer.concat(parts);
};

const many: Sym[] = [
  ['T', '_text', 0],
  ['T', 'startup_64', 0],
  ...Array.from({ length: 600 }, (_, i): Sym => ['t', `f${i}`, 0x100 + 0x20 * i]),
  ['W', 'x'.repeat(200), 0x9000],
  ['T', 'start_kernel', 0x9100],
  ['D', 'a_variable', 0x10_0000],
];

test.each([false, true])('kallsyms of a made image, order of names between: %s', (order) => {
  const table = symbolTable(kallsyms(image(many, order), 'made'));
  // the variable is no code
  expect(table.count).toBe(many.length - 1);
  expect(table.at(BASE)?.name).toBe('_text');
  expect(table.at(BASE + 0x105n)?.text).toBe('f0+0x5/0x20');
  expect(table.at(BASE + 0x100n + 0x20n * 599n)?.text).toBe('f599');
  expect(table.at(BASE + 0x9001n)?.name).toBe('x'.repeat(200));
  expect(table.at(BASE + 0x9100n)).toEqual({
    name: 'start_kernel',
    address: BASE + 0x9100n,
    offset: 0,
    size: 0x10_0000 - 0x9100,
    text: 'start_kernel',
  });
  expect(table.at(BASE - 1n)).toBeUndefined();
  expect(table.at(BASE + 0x10_0000n)).toBeUndefined();
  expect(table.at(0x40_0000n)).toBeUndefined();
  expect(table.find('f17')).toBe(BASE + 0x100n + 0x20n * 17n);
  expect(table.find('a_variable')).toBeUndefined();
});

test('a kernel that moved itself has all its addresses moved', () => {
  const slide = 0x1a00_0000n;
  const table = symbolTable(kallsyms(image(many, true), 'made'), slide);
  expect(table.at(BASE + slide + 0x105n)?.text).toBe('f0+0x5/0x20');
  expect(table.find('start_kernel')).toBe(BASE + slide + 0x9100n);
  expect(table.at(BASE + 0x105n)).toBeUndefined();
});

test('images without a table are refused by name', () => {
  expect(() => kallsyms(Buffer.from('nothing here'), 'a.bin')).toThrow(
    /a\.bin has no symbol table.*no token table/,
  );
  const cut = image(many, true);
  // the count does not agree with the names any more
  const at = cut.indexOf(Buffer.from([many.length & 255, many.length >> 8, 0, 0, 0, 0, 0, 0]));
  cut[at] = (cut[at] as number) ^ 1;
  expect(() => kallsyms(cut, 'b.bin')).toThrow(/no names before the token table/);
});

test('listed symbols: sorted, one high half', () => {
  const table = listedSymbols(
    [
      { name: 'late', value: BASE + 0x40n },
      { name: 'early', value: BASE },
      { name: 'percpu', value: 0x10n },
    ],
    BASE + 0x80n,
  );
  expect(table.count).toBe(2);
  expect(table.at(BASE + 0x3fn)?.text).toBe('early+0x3f/0x40');
  expect(table.at(BASE + 0x7fn)?.text).toBe('late+0x3f/0x40');
  expect(table.at(BASE + 0x80n)).toBeUndefined();
  expect(listedSymbols([]).at(0n)).toBeUndefined();
});

const cache = join(DEBIAN, 'cache');
const kernel = existsSync(cache) ? readdirSync(cache).find((f) => f.endsWith('.vmlinux')) : undefined;
test.skipIf(kernel === undefined)("Debian's kernel knows its names", () => {
  const table = kernelSymbols(parseElf(readFileSync(join(cache, kernel as string)), 'vmlinux'));
  expect(table.count).toBeGreaterThan(30_000);
  for (const name of ['start_kernel', 'do_syscall_64', 'switch_mm_irqs_off', 'asm_exc_page_fault']) {
    const address = table.find(name);
    expect(address).toBeDefined();
    expect(table.at(address as bigint)?.offset).toBe(0);
  }
  expect(table.at((table.find('do_syscall_64') as bigint) + 3n)?.name).toBe('do_syscall_64');
});
