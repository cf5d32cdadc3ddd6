/** The TLB: staleness until invalidated, every invalidation, contexts, page-crossing accesses, code pages. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { S } from '../../lib/isa/state.js';
import { ACCESS } from '../../lib/memory/access.js';
import { Bench, D, G, NX, P, U, W } from './fixture.js';

const LIN = 0x5000n;
const GLOBAL = 0xffff_ffff_8000_0000n;

/** Two address spaces with PCIDs 1 and 2, each with a page of its own at LIN and a shared global one. */
const two = () => {
  const bench = new Bench({ pcide: true });
  const roots = [bench.page(), bench.page()];
  const frames = [0x10_0000, 0x20_0000];
  roots.forEach((root, i) => {
    bench.map(root, LIN, frames[i], P | W | U);
    bench.map(root, GLOBAL, 0x30_0000, P | W | G);
  });
  const go = (i: number, keep: boolean): void => bench.cr3(roots[i] | (i + 1), keep);
  /** Moves both pages of address space `i`, without invalidating. */
  const move = (i: number): void => {
    bench.map(roots[i], LIN, frames[i] + 0x1000, P | W | U);
    bench.map(roots[i], GLOBAL, 0x30_1000, P | W | G);
  };
  go(0, false);
  bench.data(LIN);
  bench.data(GLOBAL);
  return { bench, go, move, seen: () => [bench.data(LIN), bench.data(GLOBAL)] as const };
};
const low = (v: bigint): number => Number(BigInt.asIntN(32, v));
const high = (v: bigint): number => Number(BigInt.asIntN(32, v >> 32n));

describe('invalidation', () => {
  const OLD = [0x10_0000, 0x30_0000];
  const NEW = [0x10_1000, 0x30_1000];
  test('a changed entry has no effect until invalidated', () => {
    const { move, seen } = two();
    move(0);
    expect(seen()).toEqual(OLD);
  });
  test.each([
    ['INVLPG of the page', (b: Bench) => b.mmu.invlpg(low(LIN), high(LIN)), [NEW[0], OLD[1]]],
    ['INVLPG of the global page', (b: Bench) => b.mmu.invlpg(low(GLOBAL), high(GLOBAL)), [OLD[0], NEW[1]]],
    ['INVPCID 0', (b: Bench) => b.mmu.invpcid(0, 1, low(LIN), 0), [NEW[0], OLD[1]]],
    ['INVPCID 0 of a global page', (b: Bench) => b.mmu.invpcid(0, 1, low(GLOBAL), high(GLOBAL)), OLD],
    ['INVPCID 0 of another PCID', (b: Bench) => b.mmu.invpcid(0, 2, low(LIN), 0), OLD],
    ['INVPCID 1', (b: Bench) => b.mmu.invpcid(1, 1, 0, 0), [NEW[0], OLD[1]]],
    ['INVPCID 1 of another PCID', (b: Bench) => b.mmu.invpcid(1, 2, 0, 0), OLD],
    ['INVPCID 2', (b: Bench) => b.mmu.invpcid(2, 0, 0, 0), NEW],
    ['INVPCID 3', (b: Bench) => b.mmu.invpcid(3, 0, 0, 0), [NEW[0], OLD[1]]],
    ['flushAll', (b: Bench) => b.mmu.flushAll(), NEW],
    ['INVVPID 3', (b: Bench) => b.mmu.invvpid(3, 0), [NEW[0], OLD[1]]],
    ['INVVPID of another VPID', (b: Bench) => b.mmu.invvpid(1, 7), OLD],
    ['INVVPID 2 spares VPID 0', (b: Bench) => b.mmu.invvpid(2, 0), OLD],
    ['INVEPT without EPT', (b: Bench) => b.mmu.invept(2), OLD],
  ] as const)('%s', (_, act, want) => {
    const { bench, move, seen } = two();
    move(0);
    act(bench);
    expect(seen()).toEqual(want);
    expect(bench.inline(LIN)).toBe(want[0]);
  });
  test('MOV to CR3 flushes its PCID but no globals, bit 63 keeps all', () => {
    const { bench, go, move, seen } = two();
    move(0);
    go(0, true);
    expect(seen()).toEqual(OLD);
    go(1, true);
    // Globals are shared by all PCIDs.
    bench.walks();
    expect(seen()).toEqual([0x20_0000, 0x30_0000]);
    expect(bench.walks()).toEqual([1, 4]);
    go(0, true);
    expect(seen()).toEqual(OLD);
    go(0, false);
    expect(seen()).toEqual([NEW[0], OLD[1]]);
    bench.mmu.invlpg(low(GLOBAL), high(GLOBAL));
    expect(seen()).toEqual(NEW);
  });
  test('a page fault drops the translation', () => {
    const { bench, move, seen } = two();
    move(0);
    bench.set({ pcide: true, cpl: 3 });
    expect(bench.access(GLOBAL)).toBe('#PF p u 0xffffffff80000000');
    bench.set({ pcide: true });
    expect(seen()).toEqual([OLD[0], NEW[1]]);
  });
  test('the least recently used of more than eight contexts is lost', () => {
    const bench = new Bench({ pcide: true });
    const root = bench.page();
    bench.map(root, LIN, 0x10_0000, P | W);
    for (let pcid = 0; pcid < 9; pcid++) {
      bench.cr3(root | pcid, true);
      bench.data(LIN);
    }
    bench.walks();
    bench.cr3(root | 8, true);
    bench.data(LIN);
    bench.cr3(root | 1, true);
    bench.data(LIN);
    expect(bench.walks()).toEqual([0, 0]);
    bench.cr3(root, true);
    bench.data(LIN);
    expect(bench.walks()).toEqual([1, 4]);
  });
});

test('two pages with the same index are both kept, a third replaces', () => {
  const bench = new Bench();
  const root = bench.page();
  const lins = [0x1000n, 0x40_1000n, 0x80_1000n];
  for (const lin of lins) bench.map(root, lin, 0x10_0000, P | W);
  bench.cr3(root);
  for (const i of [0, 1, 0, 1]) bench.data(lins[i]);
  expect(bench.walks()[0]).toBe(2);
  bench.data(lins[2]);
  expect(bench.inline(lins[2])).toBeDefined();
  for (const i of [0, 1, 2]) bench.data(lins[i]);
  expect(bench.walks()[0]).toBeGreaterThan(1);
});

describe('page-crossing accesses', () => {
  const setup = () => {
    const bench = new Bench();
    const root = bench.page();
    bench.map(root, 0x7000n, 0x10_0000, P | W | U);
    bench.map(root, 0x8000n, 0x20_0000, P | W | U);
    bench.cr3(root);
    for (let i = 0; i < 8; i++) bench.ram.write8(i < 3 ? 0x10_0ffd + i : 0x20_0000 + i - 3, 0xa0 + i);
    return { bench, root };
  };
  const bytes = (bench: Bench) => [...bench.ram.view(0x10_0ffd, 3), ...bench.ram.view(0x20_0000, 5)];

  test('reads are assembled, writes are scattered by commit', () => {
    const { bench } = setup();
    const p = bench.access(0x7ffdn, ACCESS.rmw, 8) as number;
    expect(p).toBe(bench.cpu.at + S.bounce);
    expect(bench.ram.u64[p / 8]).toBe(0xa7a6_a5a4_a3a2_a1a0n);
    bench.ram.u64[p / 8] = 0x0807_0605_0403_0201n;
    expect(bytes(bench)[0]).toBe(0xa0);
    bench.mmu.commit();
    expect(bytes(bench)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    bench.ram.u64[p / 8] = 0n;
    bench.mmu.commit();
    expect(bytes(bench)[0]).toBe(1);
  });
  test('a fault on the second page reports its first byte, and nothing is written', () => {
    const { bench, root } = setup();
    bench.map(root, 0x8000n, 0x20_0000, P);
    expect(bench.access(0x7ffdn, ACCESS.write, 8)).toBe('#PF p w 0x8000');
    bench.mmu.commit();
    expect(bytes(bench)[0]).toBe(0xa0);
    bench.map(root, 0x7000n, 0x10_0000, P);
    bench.mmu.flushAll();
    expect(bench.access(0x7ffdn, ACCESS.write, 8)).toBe('#PF p w 0x7ffd');
  });
  test('at the edge of the canonical addresses, and of 32-bit ones', () => {
    const { bench, root } = setup();
    bench.map(root, 0x7fff_ffff_f000n, 0x10_0000, P);
    expect(bench.access(0x7fff_ffff_fffcn, ACCESS.read, 8)).toBe('fault 13 0');
    bench.map(root, 0xffff_f000n, 0x10_0000, P);
    bench.map(root, 0n, 0x20_0000, P);
    bench.cpu.set32(S.mode, 32);
    bench.mmu.contextChanged();
    const p = bench.access(0xffff_fffdn, ACCESS.read, 8) as number;
    expect(bench.ram.u64[p / 8]).toBe(0xa7a6_a5a4_a3a2_a1a0n);
  });
});

describe('code', () => {
  const setup = () => {
    const bench = new Bench();
    const root = bench.page();
    bench.map(root, LIN, 0x10_0000, P | W | D);
    bench.cr3(root);
    return bench;
  };
  test('pages with decoded code are never in the write sets', () => {
    const bench = setup();
    const writes: number[] = [];
    bench.ram.onCodeWrite = (hpa, size) => writes.push(hpa, size);
    bench.data(LIN, ACCESS.write, 4);
    expect(bench.inline(LIN, 'write')).toBe(0x10_0000);
    bench.ram.codePages[0x100] = 1;
    bench.mmu.codePageAdded(0x10_0000);
    expect(bench.inline(LIN, 'write')).toBeUndefined();
    bench.walks();
    expect(bench.data(LIN + 8n, ACCESS.write, 4)).toBe(0x10_0008);
    expect(writes).toEqual([0x10_0008, 4]);
    expect(bench.inline(LIN, 'write')).toBeUndefined();
    expect(bench.inline(LIN)).toBe(0x10_0000);
    expect(bench.walks()).toEqual([0, 0]);
  });
  test('exec sets hold the code table of the page and the code size', () => {
    const bench = setup();
    let base = 0x1_0000;
    bench.mmu.codeTable = (hpa, mode) => base + hpa / 4096 + mode;
    const table = (): number | undefined => {
      const at = bench.inline(LIN, 'exec');
      return at === undefined ? undefined : at + bench.ram.base - Number(LIN);
    };
    expect(bench.access(LIN, ACCESS.exec)).toBe(0x10_0000);
    expect(table()).toBe(0x1_0000 + 0x100 + 64);
    base = 0x2_0000;
    bench.mmu.renewCodeTables();
    expect(table()).toBe(0x2_0000 + 0x100 + 64);
    bench.cpu.set32(S.mode, 32);
    bench.mmu.contextChanged();
    expect(table()).toBeUndefined();
    bench.walks();
    bench.access(LIN, ACCESS.exec);
    expect(table()).toBe(0x2_0000 + 0x100 + 32);
    expect(bench.walks()).toEqual([0, 0]);
  });
});

test('1 GiB pages: INVLPG anywhere drops all of it, but no others', () => {
  const bench = new Bench();
  const root = bench.page();
  bench.map(root, 0x1_0000_0000n, 0, P | W, 30);
  bench.map(root, 0x2_0000_0000n, 0, P | W, 30);
  bench.cr3(root);
  bench.data(0x1_0010_0000n);
  bench.data(0x1_0040_0000n);
  bench.data(0x2_0000_0000n);
  expect(bench.walks()).toEqual([3, 6]);
  bench.mmu.invlpg(0x3000_0000, 1);
  bench.data(0x2_0000_0000n);
  expect(bench.walks()).toEqual([0, 0]);
  bench.data(0x1_0010_0000n);
  bench.data(0x1_0040_0000n);
  expect(bench.walks()).toEqual([2, 4]);
});

/** What a program may do; every change of an entry is followed by the invalidation that the SDM asks for. */
type Step =
  | {
      readonly do: 'access';
      readonly page: number;
      readonly kind: 0 | 1 | 2 | 3;
      readonly size: number;
      readonly offset: number;
    }
  | {
      readonly do: 'map';
      readonly page: number;
      readonly frame: number;
      readonly flags: number;
      readonly by: 'invlpg' | 'invpcid' | 'all';
    }
  | { readonly do: 'switch'; readonly space: number; readonly keep: boolean }
  | { readonly do: 'privilege'; readonly cpl: 0 | 3; readonly ac: boolean; readonly wp: boolean };

// Pages that share an index of the TLB push each other out.
const PAGES = [
  0x1000n,
  0x2000n,
  0x40_1000n,
  0x40_2000n,
  0x80_1000n,
  0x4000_1000n,
  0x4000_2000n,
  0xffff_8000_0000_1000n,
];
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('access' as const),
      page: fc.nat(PAGES.length - 1),
      kind: fc.constantFrom(0, 1, 2, 3),
      size: fc.constantFrom(1, 2, 4, 8),
      offset: fc.constantFrom(0, 8, 0xff8, 0xffd),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('map' as const),
      page: fc.nat(PAGES.length - 1),
      frame: fc.nat(7),
      flags: fc.nat(63),
      by: fc.constantFrom('invlpg', 'invpcid', 'all'),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('switch' as const), space: fc.nat(2), keep: fc.boolean() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('privilege' as const),
      cpl: fc.constantFrom(0, 3),
      ac: fc.boolean(),
      wp: fc.boolean(),
    }),
  },
) as fc.Arbitrary<Step>;

class Program {
  readonly bench = new Bench({ pcide: true, smap: true, smep: true });
  readonly cached: boolean;
  readonly roots: readonly number[];
  #value = 1n;
  #space = 0;
  constructor(cached: boolean) {
    this.cached = cached;
    this.roots = [this.bench.page(), this.bench.page(), this.bench.page()];
    for (const root of this.roots) for (const p of PAGES) this.bench.map(root, p, 0x20_0000, 0n);
    this.bench.cr3(this.roots[0] | 1);
  }
  run(s: Step): string | undefined {
    const { bench } = this;
    const { mmu } = bench;
    if (!this.cached) mmu.flushEverything();
    switch (s.do) {
      case 'switch':
        this.#space = s.space;
        bench.cr3(this.roots[s.space] | (s.space + 1), s.keep);
        return undefined;
      case 'privilege':
        bench.set({ pcide: true, smap: true, smep: true, cpl: s.cpl, ac: s.ac, wp: s.wp });
        return undefined;
      case 'map': {
        const f = s.flags;
        const global = (f & 16) !== 0;
        const flags =
          ((f & 1) !== 0 ? P : 0n) |
          ((f & 2) !== 0 ? W : 0n) |
          ((f & 4) !== 0 ? U : 0n) |
          ((f & 8) !== 0 ? NX : 0n) |
          (global ? G : 0n);
        const lin = PAGES[s.page];
        // A global page must be the same in all address spaces; the same page may not be global in one only.
        for (const root of this.roots) bench.map(root, lin, 0x20_0000 + s.frame * 4096, flags);
        if (s.by === 'all') mmu.invpcid(2, 0, 0, 0);
        else if (s.by === 'invlpg') {
          mmu.invlpg(low(lin), high(lin));
        } else {
          mmu.invpcid(3, 0, 0, 0);
          mmu.invlpg(low(lin), high(lin));
        }
        return undefined;
      }
      default: {
        const r = bench.access(PAGES[s.page] + BigInt(s.offset), s.kind, s.size);
        if (typeof r === 'string') return r;
        if (s.kind === ACCESS.exec) return `at ${r}`;
        if (s.kind === ACCESS.read || s.kind === ACCESS.rmw) {
          const bytes = [...bench.ram.u8.subarray(r, r + s.size)].join();
          if (s.kind === ACCESS.read) return bytes;
        }
        const v = this.#value++;
        for (let i = 0; i < s.size; i++) bench.ram.u8[r + i] = Number((v >> BigInt(8 * i)) & 0xffn);
        mmu.commit();
        return `space ${this.#space}`;
      }
    }
  }
  memory(): Uint8Array {
    return this.bench.ram.view(0, 0x21_0000);
  }
}

test('with a TLB and proper invalidation, programs behave as without one', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 100, maxLength: 300 }), (steps) => {
      const a = new Program(true);
      const b = new Program(false);
      for (const s of steps) expect(a.run(s)).toBe(b.run(s));
      expect(Buffer.compare(a.memory(), b.memory())).toBe(0);
    }),
    { numRuns: 16, seed: 7 },
  );
});
