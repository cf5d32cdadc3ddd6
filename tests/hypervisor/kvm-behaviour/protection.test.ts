/** KVM-7.1 items 9 to 12: stores to page tables of upper levels and of the last, other stores, and large pages. */
import { describe, expect, test } from 'vitest';
import {
  A,
  CR4_PCIDE,
  CR4_USUAL,
  DATA,
  DIRECT,
  type MicroOptions,
  MODES,
  mark,
  measure,
  micro,
  NOFLUSH,
  OFF,
  P,
  PS,
  TABLE,
  type Tables,
  times,
  W,
} from './micro.js';

/** A region of its own: its page directory is PD, its page table PT; the group of its first page has the tables too. */
const WIN = 0x4000_0000n;
const FRAMES = 0x40_0000;
const region = (t: Tables): Record<string, number | bigint> => {
  t.mapPages(WIN, FRAMES, 8, DATA);
  const PD = t.entry(WIN, 2);
  const PT = Number(t.get(PD) & ~0xfffn);
  const PDPT = Number(t.get(t.root) & ~0xfffn);
  // aliases below WIN, so that the directory is on the way of its own address
  t.map(WIN + 0x1_0000n, PD, DATA);
  t.map(WIN + 0x1_1000n, PT, DATA);
  return { WIN, FRAMES, PD, PT, PDPT, ROOT: t.root, PD_INSIDE: WIN + 0x1_0000n, PT_INSIDE: WIN + 0x1_1000n };
};
/** Shadows the region and maps the identity alias of the two tables. */
const WARM = 'mov rcx, [WIN]\nmov rcx, [PD]\nmov rcx, [PT]\nmov rsi, WIN\n';
const run = (
  ept: boolean,
  measured: string,
  more: Partial<MicroOptions> & { warm?: string; rest?: string } = {},
): ReturnType<typeof measure> =>
  measure({ ept, tables: region, ...more, warm: WARM + (more.warm ?? ''), measured });

describe('7.1 item 9: upper tables are emulated store by store, up to the flood limit', () => {
  const stores = (n: number, at: string): string =>
    `mov rdi, ${at}+0x800\nmov rbx, 0\n${times(n, 'mov [rdi], rbx\nadd rdi, 8')}`;
  test.each([
    [1, 1, 0],
    [2, 2, 0],
    [3, 3, 1],
    [4, 4, 1],
    [50, 4, 1],
  ])(
    '%d stores through an address that the table does not map: %d exits, %d tables zapped',
    (n, exits, flooded) => {
      const r = run(false, stores(n, 'PD'));
      expect(r.exits).toEqual({ 0: exits });
      expect(r.stats.mmu_flooded ?? 0).toBe(flooded);
      expect(r.stats.mmu_pte_write).toBe(Math.min(n, 3));
      expect(run(true, stores(n, 'PD')).exits).toEqual({});
    },
  );
  test('stores through an address that the table maps are never a flood (measured B5)', () => {
    const r = run(false, stores(100, 'PD_INSIDE'), { warm: 'mov rcx, [PD_INSIDE]\n' });
    expect(r.exits).toEqual({ 0: 100 });
    expect([r.stats.mmu_flooded, r.stats.mmu_pte_write, r.stats.mmu_pde_zapped]).toEqual([
      undefined,
      100,
      undefined,
    ]);
  });
  test('using the table in between starts the count again', () => {
    // another page of the region, so that the directory is walked by a fault
    const touch = (i: number): string => `mov rcx, [rsi+${0x20_0000 * i}]\n`;
    const r = run(
      false,
      [1, 2, 3]
        .map((i) => stores(2, 'PD').replaceAll('0x800', `0x${(8 + i).toString(16)}00`) + touch(i))
        .join(''),
      {
        tables: (t) => {
          const constants = region(t);
          for (let i = 1; i <= 3; i++) t.map(WIN + BigInt(0x20_0000 * i), FRAMES, DATA);
          return constants;
        },
      },
    );
    expect(r.exits).toEqual({ 0: 6 + 3 });
    expect(r.stats.mmu_flooded).toBeUndefined();
  });
  test('a store that is not a whole entry zaps at once, one aligned byte does not', () => {
    const word = run(false, 'mov bx, [PD+0x802]\nmov [PD+0x802], bx\nmov [PD+0x806], bx\nmov [PD+0x80a], bx');
    expect([word.exits, word.stats.mmu_flooded]).toEqual([{ 0: 2 }, 1]);
    const byte = run(false, 'mov bl, [PD+0x800]\nmov [PD+0x800], bl\nmov [PD+0x808], bl');
    expect([byte.exits, byte.stats.mmu_flooded]).toEqual([{ 0: 2 }, undefined]);
  });
  test('a store clears the entry: the next use fills it in again', () => {
    const r = run(false, 'mov rbx, [PD]\nmov [PD], rbx\nmov rcx, [rsi]');
    expect(r.exits).toEqual({ 0: 2 });
    expect([r.stats.pf_emulate, r.stats.pf_fixed ?? r.stats.pf_spurious, r.stats.mmu_pde_zapped]).toEqual([
      1, 1, 1,
    ]);
  });
});

describe('7.1 item 10: a last-level table goes out of sync at its first store', () => {
  const store = (n: number): string =>
    `mov rdi, PT+0x800\nmov rbx, 0\n${times(n, 'mov [rdi], rbx\nadd rdi, 8')}`;
  test.each(MODES)('%s: any number of stores is one exit', (_n, ept) => {
    expect(run(ept, store(100)).exits).toEqual(ept ? {} : { 0: 1 });
  });
  test.each(MODES)('%s: until a load of CR3 that flushes', (_n, ept) => {
    const reload = 'mov rax, cr3\nmov cr3, rax\n';
    const r = run(ept, times(5, `${store(10).replaceAll('ebp', 'r8d')}${reload}`));
    expect(r.exits).toEqual(ept ? {} : { 0: 5, 28: 10 });
    expect(r.stats.mmu_unsync ?? 0).toBe(0);
  });
  test.each(MODES)('%s: a load with bit 63 does not sync', (_n, ept) => {
    const measured = times(5, `${store(10).replaceAll('ebp', 'r8d')}mov cr3, r15\n`);
    const r = run(ept, measured, {
      cr4: CR4_USUAL | CR4_PCIDE,
      warm: `mov r15, cr3\nmov rax, ${NOFLUSH}\nor r15, rax\n`,
    });
    expect(r.exits).toEqual(ept ? {} : { 0: 1, 28: 5 });
    expect(r.stats.mmu_unsync ?? 0).toBe(ept ? 0 : 1);
  });
  // biome-ignore format: one row per line
  test.each([
    ['the new entry is there: nothing more', 'mov rbx, [PT]\nadd rbx, 4096\nmov [PT], rbx\ninvlpg [rsi]\nmov rcx, [rsi]', { 0: 1, 14: 1 }, 1],
    ['the entry is cleared at that moment: a fill later', 'mov rbx, [PT]\nmov rcx, 0\nmov [PT], rcx\ninvlpg [rsi]\nadd rbx, 4096\nmov [PT], rbx\nmov rcx, [rsi]', { 0: 2, 14: 1 }, 1],
    ['no INVLPG: the old translation stays', 'mov rbx, [PT]\nadd rbx, 4096\nmov [PT], rbx\nmov rcx, [rsi]', { 0: 1 }, 0],
  ] as const)('INVLPG syncs one address; %s', (_name, measured, exits, page) => {
    const r = run(false, measured, {
      before: (vm) => {
        for (const i of [0, 1]) vm.load(FRAMES + 4096 * i, Uint8Array.of(i));
      },
    });
    expect([r.exits, r.run.gpr(1)]).toEqual([exits, BigInt(page)]);
  });
  test('sync repairs in both directions: rights go up and down without faults (measured B4)', () => {
    // read-only, sync, read-only again; then writable, sync, and written
    const reload = 'mov rax, cr3\nmov cr3, rax\n';
    const set = (flags: bigint): string => `mov rbx, FRAMES+${flags}\nmov [PT], rbx\n`;
    const r = run(false, `${set(P | A)}${reload}${set(DATA)}${reload}mov [rsi], rcx`);
    expect(r.exits).toEqual({ 0: 2, 28: 4 });
  });
});

describe('7.1 item 11: other instructions that write to a shadowed table unshadow it', () => {
  const stos = (at: string, n = 512): string => `mov rdi, ${at}\nmov rcx, ${n}\nmov rax, 0\nrep stosq\n`;
  test.each([
    ['the page directory', 'PD', 2, 0],
    ['the page table', 'PT', 1, 1],
  ])('REP STOS over %s', (_name, at, exits, unsync) => {
    const r = run(false, stos(at));
    expect(r.exits).toEqual({ 0: exits });
    expect(r.stats.mmu_unsync ?? 0).toBe(unsync);
    expect(r.stats.mmu_pte_write).toBeUndefined();
    expect(run(true, stos(at)).exits).toEqual({});
  });
  // biome-ignore format: one row per line
  test.each([
    ['MOV', 'mov [PD+0x800], rbx', 1, 1],
    ['MOV of an immediate', 'mov qword [PD+0x800], 0', 1, 1],
    ['XCHG', 'xchg [PD+0x800], rbx', 1, 1],
    ['AND', 'and [PD+0x800], rbx', 1, 1],
    ['OR', 'or [PD+0x800], rbx', 1, 1],
    ['BTS', '.byte 0x48,0x0f,0xba,0x2c,0x25\n.dword PD+0x800\n.byte 5', 1, 1],
    ['BTC', '.byte 0x48,0x0f,0xba,0x3c,0x25\n.dword PD+0x800\n.byte 5', 1, 1],
    ['CMPXCHG', '.byte 0x48,0x0f,0xb1,0x1c,0x25\n.dword PD+0x800', 1, 1],
    ['BTR', '.byte 0x48,0x0f,0xba,0x34,0x25\n.dword PD+0x800\n.byte 5', 2, 0],
    ['XADD', '.byte 0x48,0x0f,0xc1,0x1c,0x25\n.dword PD+0x800', 2, 0],
    ['ADD', 'add [PD+0x800], rbx', 2, 0],
    ['XOR', 'xor [PD+0x800], rbx', 2, 0],
    ['INC', '.byte 0x48,0xff,0x04,0x25\n.dword PD+0x800', 2, 0],
    ['SSE store', '.byte 0x0f,0x11,0x04,0x25\n.dword PD+0x800', 2, 0],
  ] as const)('%s: %d exits', (_name, code, exits, writes) => {
    const r = run(false, `mov rbx, 0\n${code}`, { cr4: CR4_USUAL | 0x200 });
    expect(r.exits).toEqual({ 0: exits });
    expect(r.stats.mmu_pte_write ?? 0).toBe(writes);
  });
  test('a retry that faults again at the same place is emulated after all: the active root (measured B7, F3)', () => {
    // dwords 2 to 1023 of the root, through its own mapping below WIN; the code comes back through a copy of entry 0
    const r = measure({
      ept: false,
      tables: (t) => ({
        ...region(t),
        ROOT_INSIDE: WIN + 0x1_2000n,
        _: t.map(WIN + 0x1_2000n, t.root, DATA) ?? 0,
      }),
      warm: 'mov rcx, [WIN]\n',
      measured: 'mov rdi, ROOT_INSIDE+8\nmov rcx, 1022\nmov rax, 0\n.byte 0xf3,0xab',
    });
    expect(r.exits).toEqual({ 0: 4 });
    expect(r.faults.map((f) => f.code)).toEqual([2, 0x10, 3, 0x10]);
    expect(r.stats.mmu_pte_write).toBe(1022);
  });
});

describe('7.1 item 12: large pages', () => {
  const touch = (from: string, n: number, access = 'mov rcx, [rdi]'): string =>
    `mov rdi, ${from}\n${times(n, `${access}\nadd rdi, 4096`)}`;
  test.each(MODES)('%s: 2 MiB without a shadowed table is one entry', (_n, ept) => {
    const r = measure({ ept, direct: '2M', measured: touch('DIRECT+0x600000', 512) });
    expect(r.exits).toEqual({ [ept ? 48 : 0]: 1 });
    expect([r.stats.pages_2m, r.stats.pages_4k ?? 0]).toEqual([1, 0]);
  });
  test.each(MODES)('%s: 2 MiB with shadowed tables are pieces, eight at a time', (_n, ept) => {
    const r = measure({ ept, direct: '2M', measured: touch('DIRECT', 512) });
    expect(r.exits).toEqual(ept ? {} : { 0: 64 });
    expect([r.stats.pages_2m ?? 0, r.stats.pages_4k ?? 0]).toEqual([0, ept ? 0 : 512]);
  });
  test('the pieces are tables of their own, and those that hold shadowed tables are read-only', () => {
    const r = measure({
      ept: false,
      direct: '2M',
      tables: region,
      warm: 'mov rcx, [WIN]\n',
      measured: 'mov rsi, DIRECT+PD\nmov rcx, [rsi]\nmov [rsi], rcx',
    });
    expect(r.exits).toEqual({ 0: 2 });
    // directory and pieces at DIRECT
    expect([r.stats.mmu_cache_miss, r.stats.mmu_pte_write]).toEqual([3, 1]);
  });
  test('host pages of 4 KiB: one piece a frame, and eight where the host has the frames', () => {
    const cold = measure({
      ept: false,
      direct: '2M',
      vm: { backing: '4K' },
      measured: touch('DIRECT+0x600000', 512),
    });
    expect([cold.exits, cold.stats.pages_4k]).toEqual([{ 0: 512 }, 512]);
    const warm = measure({
      ept: false,
      direct: '2M',
      vm: { backing: '4K' },
      before: (vm) => vm.load(0x60_0000, new Uint8Array(0x20_0000)),
      measured: touch('DIRECT+0x600000', 512),
    });
    expect([warm.exits, warm.stats.pages_4k]).toEqual([{ 0: 64 }, 512]);
  });
  test('a frame that becomes a table is write-protected in the large page, which a write then breaks up', () => {
    // 6 MiB is mapped large; its first frame becomes the page table of WIN + 2 MiB
    const r = micro({
      ept: false,
      direct: '2M',
      tables: (t) => ({ ...region(t), LARGE: DIRECT + 0x60_0000n }),
      source: `${mark(9)}mov rcx, [WIN]\nmov rsi, WIN\nmov rdi, LARGE\nmov rbx, FRAMES+${DATA}\nmov [rdi], rbx
mov rbx, 0x600000+${TABLE}\nmov [PD+8], rbx\n${mark(1)}mov rcx, [rsi+0x200000]\n${mark(2)}mov [rdi+0x100000], rcx\n${mark(3)}${OFF}`,
    });
    expect(r.between(1, 2).exits).toEqual({ 0: 1 });
    const broken = r.between(2, 3);
    expect(broken.exits).toEqual({ 0: 1 });
    expect(broken.faults.map((f) => f.code)).toEqual([3]);
    expect([broken.stats.pages_2m, broken.stats.pages_4k]).toEqual([-1, 8]);
  });
  test('a clean large page is split into read-only pieces, and again at its first write (measured B12)', () => {
    const r = micro({
      ept: false,
      // the first 2 MiB, which have tables in them
      tables: (t) => {
        t.map(DIRECT, 0, P | W | PS, 2);
        return undefined;
      },
      source: `${mark(9)}mov rsi, DIRECT\n${mark(1)}mov rcx, [rsi]\n${mark(2)}mov [rsi], rcx\n${mark(3)}${OFF}`,
    });
    const [read, write] = [r.between(1, 2), r.between(2, 3)];
    expect([read.exits, write.exits]).toEqual([{ 0: 1 }, { 0: 1 }]);
    expect([read.stats.mmu_cache_miss, write.stats.mmu_cache_miss]).toEqual([3, 1]);
    expect(write.faults.map((f) => f.code)).toEqual([3]);
  });
});
