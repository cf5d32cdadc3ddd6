/** Exit counts of single operations under shadow paging: KVM-7.3 and measured B and F. */
import { describe, expect, it } from 'vitest';
import { A, CODE, D, DATA, DIRECT, Guest, NX, P, PS, TABLE, U, W } from './fixture.js';

const USER = 0x40_0000n;
const PAGE = 4096n;

/** A guest of 2048 pages, everything mapped by 4 KiB, running. */
const running = (pages = 2048): { g: Guest; root: number } => {
  const g = new Guest(pages);
  const root = g.space(pages);
  g.loadCr3(root + 1);
  g.fetch(CODE);
  return { g, root };
};
/** Touches every direct-map page once for reading, so that later faults are about rights only. */
const warm = (g: Guest, pages = 2048): void => {
  for (let p = 0; p < pages; p++) g.load(DIRECT + BigInt(p) * PAGE);
};

describe('fills', () => {
  it('P pages of present, accessed, dirty entries cost P/8 (KVM-7.1.8)', () => {
    const { g, root } = running();
    warm(g);
    for (let i = 0; i < 64; i++) g.map(root, USER + BigInt(i) * PAGE, i * 4096, DATA | U);
    expect(
      g.count(() => {
        for (let i = 0; i < 64; i++) g.store(USER + BigInt(i) * PAGE, 1n);
      }),
    ).toBe(8);
    expect(g.mmu.pages.p4k).toBeGreaterThanOrEqual(64);
  });
  it('the group is filled up to the first entry that is not present and accessed', () => {
    const { g, root } = running();
    warm(g);
    for (let i = 0; i < 8; i++) g.map(root, USER + BigInt(i) * PAGE, i * 4096, i === 4 ? DATA & ~A : DATA);
    expect(
      g.count(() => {
        for (let i = 0; i < 8; i++) g.load(USER + BigInt(i) * PAGE);
      }),
    ).toBe(2);
    expect(g.mmu.pages.p4k).toBeGreaterThan(8);
  });
  it('a clean page is mapped read-only: the first write costs one more', () => {
    const { g, root } = running();
    g.map(root, USER, 0x1000, P | W | A);
    expect(g.count(() => g.load(USER))).toBe(1);
    expect(g.read(g.entry(root, USER)) & D).toBe(0n);
    expect(g.count(() => g.store(USER, 1n))).toBe(1);
    expect(g.read(g.entry(root, USER)) & D).toBe(D);
    expect(g.count(() => g.store(USER, 2n))).toBe(0);
  });
  it('first touch of a page is 2: the fault and the fill', () => {
    const { g, root } = running();
    warm(g);
    const pte = g.entry(root, USER);
    g.map(root, USER + PAGE, 0x3000, DATA | U);
    g.load(USER + PAGE, { user: true });
    g.store(g.direct(pte), 0n);
    const exits = g.count(() => {
      expect(g.store(USER, 1n, 8, { user: true })).toBe('fault');
      g.store(g.direct(pte), 0x2000n | DATA | U);
      expect(g.store(USER, 1n, 8, { user: true })).toBe('done');
    });
    expect(exits).toBe(2);
    expect(g.vcpu.faults).toEqual([{ code: 6, address: USER }]);
  });
  it('the guest gets the error code of its own walk (measured B8)', () => {
    const { g, root } = running();
    g.map(root, USER, 0x2000, P | U | A);
    expect(g.store(USER, 1n, 8, { user: true })).toBe('fault');
    expect(g.vcpu.faults).toEqual([{ code: 7, address: USER }]);
    expect(g.exits.fixed + g.exits.emulate + g.exits.guest + g.exits.spurious).toBe(g.stats.pf_taken);
  });
});

describe('page tables of level 1', () => {
  it('K stores cost 1 until the next flushing load of CR3', () => {
    const { g, root } = running();
    warm(g);
    const pte = g.entry(root, USER);
    g.map(root, USER, 0x1000, DATA);
    g.load(USER);
    expect(
      g.count(() => {
        for (let i = 1; i < 20; i++) g.store(g.direct(pte + 8 * i), 0x5000n | DATA);
      }),
    ).toBe(1);
    expect(g.mmu.pages.unsync).toBe(1);
    g.loadCr3(root + 1, false);
    expect(g.count(() => g.store(g.direct(pte + 8), 0n))).toBe(0);
    g.loadCr3(root + 1);
    expect(g.mmu.pages.unsync).toBe(0);
    expect(g.count(() => g.store(g.direct(pte + 8), 0n))).toBe(1);
  });
  it('a sync lowers and raises rights without faults (measured B4)', () => {
    const { g, root } = running();
    warm(g);
    const at = g.entry(root, USER);
    for (let i = 0; i < 8; i++) g.map(root, USER + BigInt(i) * PAGE, 0x1000 * (i + 1), DATA);
    for (let i = 0; i < 8; i++) g.store(USER + BigInt(i) * PAGE, 1n);
    const protect = (flags: bigint) => {
      for (let i = 0; i < 8; i++) g.store(g.direct(at + 8 * i), BigInt(0x1000 * (i + 1)) | flags);
      g.loadCr3(root + 1);
    };
    expect(g.count(() => protect(P | A | D))).toBe(1);
    expect(g.store(USER, 1n)).toBe('fault');
    expect(g.count(() => protect(DATA))).toBe(1);
    expect(
      g.count(() => {
        for (let i = 0; i < 8; i++) expect(g.store(USER + BigInt(i) * PAGE, 1n)).toBe('done');
      }),
    ).toBe(0);
  });
  it('text pokes: one fault at the clear, no refill while the target frame stays (measured B1, B2; F1)', () => {
    const { g, root } = running();
    warm(g);
    const poke = g.newTable();
    for (let i = 256; i < 512; i++) g.write(poke + 8 * i, g.read(root + 8 * i));
    const window = 0x7f00_0000_0000n;
    const pte = g.entry(poke, window);
    const once = (frame: number) => {
      g.store(g.direct(pte), BigInt(frame) | DATA);
      g.loadCr3(poke + 2);
      g.store(window, 0x90n);
      g.store(g.direct(pte), 0n);
      g.loadCr3(root + 1, false);
    };
    once(0x6000);
    once(0x6000);
    const before = g.stats.remote_tlb_flush_requests;
    for (let i = 0; i < 5; i++) expect(g.count(() => once(0x6000))).toBe(1);
    expect(g.stats.remote_tlb_flush_requests - before).toBe(2 * 5);
    expect(g.count(() => once(0x7000))).toBe(2);
    expect(g.count(() => once(0x7000))).toBe(1);
  });
  it('INVLPG refreshes one address; COW of a present page is 2 or 3 faults (measured B14; F6)', () => {
    const { g, root } = running();
    warm(g);
    const pte = g.entry(root, USER);
    g.map(root, USER, 0x1000, P | U | A | D);
    g.map(root, USER + PAGE, 0x2000, P | U | A | D);
    g.load(USER, { user: true });
    const cow = (i: number) => {
      const gva = USER + BigInt(i) * PAGE;
      expect(g.store(gva, 1n, 8, { user: true })).toBe('fault');
      g.store(g.direct(pte + 8 * i), 0n);
      g.invlpg(gva);
      g.store(g.direct(pte + 8 * i), BigInt(0x10_0000 + 0x1000 * i) | DATA | U);
      expect(g.store(gva, 1n, 8, { user: true })).toBe('done');
    };
    expect(g.count(() => cow(0))).toBe(3);
    expect(g.count(() => cow(1))).toBe(2);
    expect(g.exits.invlpg).toBe(2);
  });
  it('rep stos over one costs 1 (KVM-7.3)', () => {
    const { g, root } = running();
    warm(g);
    const pte = g.entry(root, USER);
    g.map(root, USER, 0x1000, DATA);
    g.load(USER);
    expect(g.count(() => g.repStos(g.direct(pte - (pte % 4096)), 512, 8))).toBe(1);
  });
});

describe('upper tables', () => {
  const withPmd = (): { g: Guest; pmd: number } => {
    const { g, root } = running();
    warm(g);
    for (let i = 0; i < 16; i++) g.map(root, USER + BigInt(i) * 0x20_0000n, 0x1000, DATA);
    g.load(USER);
    return { g, pmd: g.entry(root, USER, 2) };
  };
  it.each([1, 2, 3, 4, 8])('%i stores through an alias the table does not map', (k) => {
    const { g, pmd } = withPmd();
    expect(
      g.count(() => {
        for (let i = 0; i < k; i++) g.store(g.direct(pmd + 8 * i), 0n);
      }),
    ).toBe(Math.min(k, 4));
    expect(g.stats.mmu_flooded).toBe(k < 3 ? 0 : 1);
  });
  it('491 stores through an address the table maps cost 491 (measured B5; F2)', () => {
    const { g, root } = running();
    warm(g);
    const image = 0xffff_ffff_8800_0000n;
    for (let i = 0; i < 4; i++) g.map(root, image + BigInt(i) * 0x20_0000n, 0x1000, DATA);
    const pmd = g.entry(root, image, 2);
    const alias = image + 0x20_0000n;
    g.map(root, alias, pmd - (pmd % 4096), DATA);
    g.load(alias);
    const page = pmd - (pmd % 4096);
    const spare = Array.from({ length: 491 }, (_, i) => i).filter((i) => g.read(page + 8 * i) === 0n);
    expect(
      g.count(() => {
        for (const i of spare) g.store(alias + BigInt(8 * i), 0n);
      }),
    ).toBe(spare.length);
    expect(g.stats.mmu_flooded).toBe(0);
  });
  it('rep stos over one costs 2: unshadow, then make the alias writable (measured B7)', () => {
    const { g, pmd } = withPmd();
    const page = pmd - (pmd % 4096);
    expect(g.count(() => g.repStos(g.direct(page), 512, 8))).toBe(2);
    expect(g.stats.mmu_pte_write).toBe(0);
  });
  it('1022 dwords of the active root cost 4, and are emulated at once (measured B7; F3)', () => {
    const { g, root } = running();
    // the entries of the code and of the alias itself are the last ones: only the others are cleared
    const high = 0xffff_ffff_9000_0000n;
    g.map(root, high, root, DATA);
    const entry = g.entry(root, CODE);
    g.load(CODE);
    expect(entry).toBeGreaterThan(0);
    const spare = g.stats.mmu_pte_write;
    expect(g.count(() => g.repStos(high, 1022, 4))).toBe(4);
    expect(g.stats.mmu_pte_write - spare).toBe(1022);
  });
  it('a store of half an entry counts as the entry, other sizes unshadow at once', () => {
    const { g, pmd } = withPmd();
    expect(g.count(() => g.store(g.direct(pmd + 4), 0n, 4))).toBe(1);
    expect(g.stats.mmu_pde_zapped).toBe(1);
    g.mmu.pteWrite(pmd + 2, 0n, 2);
    expect(g.stats.mmu_flooded).toBe(1);
  });
});

describe('roots', () => {
  it('a known CR3 costs nothing, a new one only links (KVM-3.1)', () => {
    const { g, root } = running();
    warm(g);
    const fills = g.exits.total;
    const other = g.newTable();
    for (let i = 256; i < 512; i++) g.write(other + 8 * i, g.read(root + 8 * i));
    g.loadCr3(other + 2);
    expect(
      g.count(() => {
        g.fetch(CODE);
        warm(g);
      }),
    ).toBe(2);
    g.loadCr3(root + 1, false);
    expect(
      g.count(() => {
        g.fetch(CODE);
        warm(g);
      }),
    ).toBe(0);
    expect(fills).toBeGreaterThan(0);
    expect(g.exits.spurious).toBe(1);
  });
  it('three previous roots are kept; a fourth is found again in the hash', () => {
    const { g, root } = running();
    const roots = [root];
    for (let i = 0; i < 5; i++) {
      const other = g.newTable();
      for (let j = 256; j < 512; j++) g.write(other + 8 * j, g.read(root + 8 * j));
      roots.push(other);
      g.loadCr3(other + i + 2);
      g.fetch(CODE);
    }
    const made = g.stats.mmu_cache_miss;
    expect(
      g.count(() => {
        for (let i = 0; i < roots.length; i++) {
          g.loadCr3(roots[i] + i + 1, false);
          g.fetch(CODE);
        }
      }),
    ).toBe(0);
    expect(g.stats.mmu_cache_miss).toBe(made);
    g.mmu.contextReset();
    expect(g.count(() => g.fetch(CODE))).toBe(0);
  });
  it('CR3 outside memory is refused at entry, tables outside memory are not present', () => {
    const { g, root } = running();
    g.write(g.entry(root, USER, 3), 0x7f00_0000n | TABLE);
    expect(g.load(USER)).toBe('fault');
    g.vcpu.cr3 = 0x7000_0000;
    g.mmu.newCr3(true);
    expect(g.enter()).toBe(false);
  });
  it('a changed role makes other tables, the old ones stay for later', () => {
    const { g } = running();
    const made = g.stats.mmu_cache_miss;
    g.vcpu.cr0 &= ~0x1_0000;
    g.mmu.contextReset();
    g.load(CODE);
    expect(g.stats.mmu_cache_miss).toBeGreaterThan(made);
    g.vcpu.cr0 |= 0x1_0000;
    g.mmu.contextReset();
    expect(g.count(() => g.load(CODE))).toBe(0);
  });
});

describe('large pages (KVM-3.5, measured B12)', () => {
  const large = (): { g: Guest; root: number } => {
    const g = new Guest(4096, '2M');
    // tables in the last 2 MiB; the others are free of tables
    const root = g.space(4096, true);
    g.loadCr3(root);
    g.fetch(CODE);
    return { g, root };
  };
  it('a region without tables is one entry, one with tables is filled by eights', () => {
    const { g } = large();
    expect(
      g.count(() => {
        for (let p = 0; p < 512; p++) g.store(DIRECT + 0x20_0000n + BigInt(p) * PAGE, 1n);
      }),
    ).toBe(1);
    expect(g.mmu.pages.p2m).toBe(1);
    const top = BigInt(4096 - 512) * PAGE;
    expect(
      g.count(() => {
        for (let p = 0; p < 256; p++) g.store(DIRECT + top + BigInt(p) * PAGE, 1n);
      }),
    ).toBe(32);
    expect(g.mmu.pages.p2m).toBe(1);
  });
  it('a new table in the region breaks it up at the next write', () => {
    const { g, root } = large();
    const inside = 0x20_0000;
    g.store(DIRECT + BigInt(inside), 0n);
    g.write(g.entry(root, USER, 2), BigInt(inside + 0x5000) | TABLE);
    g.write(inside + 0x5000, 0x1000n | DATA);
    g.load(USER);
    expect(g.count(() => g.load(DIRECT + BigInt(inside)))).toBe(0);
    expect(g.count(() => g.store(DIRECT + BigInt(inside), 1n))).toBe(1);
    expect(g.mmu.pages.p2m).toBe(0);
    expect(
      g.count(() => {
        for (let p = 0; p < 512; p++) g.store(DIRECT + BigInt(inside) + BigInt(p) * PAGE, 0x1000n | DATA);
      }),
    ).toBe(64);
  });
  it('pieces of a clean page are read-only tables, replaced when it becomes dirty', () => {
    const { g, root } = large();
    const gva = 0xffff_9000_0000_0000n;
    const top = (4096 - 512) * 4096;
    g.map(root, gva, top, P | W | PS | NX, 2);
    expect(g.count(() => g.load(gva))).toBe(1);
    const made = g.stats.mmu_cache_miss;
    expect(g.count(() => g.store(gva, 1n))).toBe(1);
    expect(g.stats.mmu_cache_miss).toBe(made + 1);
    expect(
      g.count(() => {
        for (let p = 0; p < 16; p++) g.store(gva + BigInt(p) * PAGE, 1n);
      }),
    ).toBe(1);
  });
});

describe('MMIO (KVM-7.1.14, measured C2, C3; F5)', () => {
  it('the first access installs an entry, later ones fault with RSVD', () => {
    const { g, root } = running();
    const gva = 0xffff_ffff_ff50_0000n;
    g.map(root, gva, 0xfec0_0000, DATA | NX);
    for (let i = 0; i < 10; i++) expect(g.load(gva + 0x10n)).toBe('mmio');
    expect(g.exits.rsvd).toBe(9);
    expect(g.stats.pf_mmio_spte_created).toBe(1);
    expect(g.mmu.mmioAddress(gva + 0x10n)).toBe(0xfec0_0010);
    g.mmu.zapAll();
    expect(g.mmu.mmioAddress(gva)).toBeUndefined();
    expect(g.mmu.pages).toEqual({ shadow: 0, unsync: 0, p4k: 0, p2m: 0, p1g: 0 });
  });
  it('the local APIC page is never cached', () => {
    const { g, root } = running();
    const gva = 0xffff_ffff_ff50_0000n;
    g.map(root, gva, 0xfee0_0000, DATA | NX);
    const before = g.exits.total;
    for (let i = 0; i < 10; i++) expect(g.load(gva)).toBe('mmio');
    expect(g.exits.total - before).toBe(10);
    expect(g.exits.rsvd).toBe(0);
  });
});

describe('limits', () => {
  it('shadow pages stay below the limit, the oldest go first (KVM-7.1.13)', () => {
    const g = new Guest(2048);
    const root = g.space(64);
    g.loadCr3(root);
    for (let i = 0; i < 300; i++) g.map(root, BigInt(i) * 0x20_0000n, 0x1000, DATA);
    for (let i = 0; i < 300; i++) g.load(BigInt(i) * 0x20_0000n);
    expect(g.mmu.context.pages.limit).toBe(64);
    expect(g.mmu.pages.shadow).toBeLessThanOrEqual(64);
    expect(g.stats.mmu_recycled).toBeGreaterThan(200);
  });
  it('a delivery fault unshadows the page it hit (KVM-7.1.16)', () => {
    const { g, root } = running();
    const pmd = g.entry(root, CODE, 2);
    const zapped = g.stats.mmu_shadow_zapped;
    g.mmu.faultDuringDelivery(g.direct(pmd));
    expect(g.stats.mmu_shadow_zapped).toBe(zapped + 1);
  });
  it('a guest with 5-level paging is refused clearly', () => {
    const g = new Guest(64);
    g.vcpu.cr4 |= 0x1000;
    g.mmu.contextReset();
    expect(() => g.enter()).toThrow(/5-level paging/);
  });
});
