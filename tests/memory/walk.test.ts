/** Walks of the processor's own paging: rights, page faults, page sizes, accessed and dirty bits, references. */
import { describe, expect, test } from 'vitest';
import { LEAVE, PF, S } from '../../lib/isa/state.js';
import { ACCESS } from '../../lib/memory/access.js';
import { A, Bench, D, FRAME, G, NX, P, PS, type Setting, U, W } from './fixture.js';

const KINDS = ['read', 'write', 'rmw', 'exec'] as const;
type Kind = (typeof KINDS)[number];
interface Case {
  p: boolean;
  w: boolean;
  u: boolean;
  nx: boolean;
  rsvd: boolean;
  setting: Required<Pick<Setting, 'wp' | 'nxe' | 'smep' | 'smap' | 'ac' | 'cpl'>>;
  implicit: boolean;
  kind: Kind;
}

/** SDM volume 3, "Determination of Access Rights" and "Page-Fault Exceptions", sentence by sentence; -1: allowed. */
const oracle = (c: Case): number => {
  const { setting: s } = c;
  const supervisorMode = c.implicit || s.cpl < 3;
  const write = c.kind === 'write' || c.kind === 'rmw';
  const code = (present: boolean, reserved: boolean): number =>
    (present ? PF.p : 0) |
    (write ? PF.w : 0) |
    (supervisorMode ? 0 : PF.u) |
    (reserved ? PF.rsvd : 0) |
    (c.kind === 'exec' && (s.nxe || s.smep) ? PF.i : 0);
  if (!c.p) return code(false, false);
  // "If IA32_EFER.NXE = 0 and the P flag is 1, the XD flag is reserved."
  if (c.rsvd || (c.nx && !s.nxe)) return code(true, true);
  const denied = code(true, false);
  if (supervisorMode) {
    if (c.kind === 'exec') {
      if (c.u && s.smep) return denied;
      return c.nx ? denied : -1;
    }
    if (c.u && s.smap && (!s.ac || c.implicit)) return denied;
    if (write && !c.w && s.wp) return denied;
    return -1;
  }
  if (!c.u) return denied;
  if (c.kind === 'exec') return c.nx ? denied : -1;
  return write && !c.w ? denied : -1;
};

const FLAGS = [false, true];
function* cases(): Generator<Case> {
  for (let bits = 0; bits < 1 << 12; bits++) {
    const b = (i: number): boolean => FLAGS[(bits >> i) & 1];
    for (const kind of KINDS) {
      if (b(11) && kind === 'exec') continue;
      yield {
        p: b(0),
        w: b(1),
        u: b(2),
        nx: b(3),
        rsvd: b(4),
        setting: { wp: b(5), nxe: b(6), smep: b(7), smap: b(8), ac: b(9), cpl: b(10) ? 3 : 0 },
        implicit: b(11),
        kind,
      };
    }
  }
}

describe('access rights', () => {
  const LIN = 0x7f12_3456_7abcn;
  test.each(['leaf', 'directory'] as const)('with the flags in the %s', (where) => {
    const bench = new Bench();
    const root = bench.page();
    const frame = bench.page();
    bench.map(root, LIN, frame, P | W | U);
    const at = bench.slot(root, LIN, where === 'leaf' ? 12 : 21);
    const target = bench.read(at) & FRAME;
    bench.cr3(root);
    let n = 0;
    for (const c of cases()) {
      const flags =
        (c.p ? P : 0n) | (c.w ? W : 0n) | (c.u ? U : 0n) | (c.nx ? NX : 0n) | (c.rsvd ? 1n << 45n : 0n);
      bench.ram.write64(at, target | flags);
      bench.set(c.setting);
      bench.mmu.flushEverything();
      const got = bench.access(LIN, ACCESS[c.kind], 1, c.implicit ? 'supervisor' : undefined);
      const want = oracle(c);
      if (want === -1) {
        const base = c.kind === 'exec' ? 0 : bench.ram.base;
        if (got !== base + frame + 0xabc) expect.fail(`${JSON.stringify(c)}: ${got}`);
        // Hits in the inline sets must not give more than the walk did.
        expect(bench.read(at) & A).toBe(A);
      } else {
        const code = bench.cpu.get32(S.faultCode);
        if (bench.cpu.get32(S.leave) !== LEAVE.fault || code !== want)
          expect.fail(`${JSON.stringify(c)}: ${got}, not code ${want}`);
        expect(bench.cpu.get64(S.faultAddress)).toBe(LIN);
        expect(bench.read(at) & (A | D)).toBe(0n);
      }
      n++;
    }
    expect(n).toBeGreaterThan(14_000);
  });

  test('a TLB filled under one privilege answers the others as a walk would', () => {
    const bench = new Bench({ smep: true, smap: true });
    const root = bench.page();
    const frame = bench.page();
    bench.cr3(root);
    for (const flags of [P, P | W, P | U, P | W | U, P | NX | W, P | U | NX]) {
      for (const first of [{ cpl: 3 }, { cpl: 0 }, { cpl: 0, ac: true }] as const) {
        for (const second of [{ cpl: 3 }, { cpl: 0 }, { cpl: 0, ac: true }] as const) {
          for (const k1 of KINDS) {
            for (const k2 of KINDS) {
              bench.map(root, LIN, frame, flags | A | D);
              bench.mmu.flushEverything();
              bench.set({ smep: true, smap: true, ...second });
              const fresh = bench.data(LIN, ACCESS[k2]);
              bench.mmu.flushEverything();
              bench.set({ smep: true, smap: true, ...first });
              bench.data(LIN, ACCESS[k1]);
              bench.set({ smep: true, smap: true, ...second });
              expect(bench.data(LIN, ACCESS[k2])).toBe(fresh);
            }
          }
        }
      }
    }
  });
});

describe('page sizes', () => {
  test.each([
    [12, 0xabc, 4],
    [21, 0x12_3abc, 3],
    [30, 0x2_3abc, 2],
  ] as const)('a page of 2^%i bytes takes its references', (shift, offset, references) => {
    const bench = new Bench();
    const root = bench.page();
    const base = shift === 12 ? 0x40_0000 : shift === 21 ? 0x40_0000 : 0;
    bench.map(root, 0xffff_8080_4000_0000n, base, P | W, shift);
    bench.cr3(root);
    const linear = 0xffff_8080_4000_0000n + BigInt(offset);
    expect(bench.data(linear)).toBe(base + offset);
    expect(bench.walks()).toEqual([1, references]);
    expect(bench.mmu.translate(linear)).toBe(base + offset);
    expect(bench.walks()).toEqual([0, 0]);
  });

  test('a cached 2 MiB page serves its whole range', () => {
    const bench = new Bench();
    const root = bench.page();
    bench.map(root, 0x4000_0000n, 0x20_0000, P | W | U, 21);
    bench.cr3(root);
    for (let i = 0; i < 512; i++)
      expect(bench.data(0x4000_0000n + BigInt(i * 4096))).toBe(0x20_0000 + i * 4096);
    expect(bench.walks()).toEqual([1, 3]);
    bench.mmu.invlpg(0x4012_3000, 0);
    expect(bench.inline(0x4000_0000n)).toBeUndefined();
    bench.data(0x4000_0000n);
    expect(bench.walks()).toEqual([1, 3]);
  });

  test.each([
    ['PML4 entry with PS', 39, PS],
    ['1 GiB page with bit 13', 30, PS | 0x2000n],
    ['2 MiB page with bit 20', 21, PS | 0x10_0000n],
    ['bit 40 in a table', 21, 1n << 40n],
    ['bit 51 in a page', 12, 1n << 51n],
  ] as const)('reserved: %s', (_, shift, bits) => {
    const bench = new Bench();
    const root = bench.page();
    bench.map(root, 0x1234_5000n, bench.page(), P | W);
    const at = bench.slot(root, 0x1234_5000n, shift);
    bench.ram.write64(at, (bench.read(at) & (bits & PS ? 7n : ~0n)) | bits);
    bench.cr3(root);
    expect(bench.access(0x1234_5008n, ACCESS.write)).toBe('#PF p w rsvd 0x12345008');
    expect(bench.mmu.translate(0x1234_5008n)).toBeUndefined();
  });

  test('bit 12 of a large page is PAT, bits 62:52 are free', () => {
    const bench = new Bench();
    const root = bench.page();
    bench.map(root, 0x20_0000n, 0x40_0000, P | W | 0x1000n | (0x7ffn << 52n), 21);
    bench.cr3(root);
    expect(bench.data(0x20_1000n)).toBe(0x40_1000);
  });

  test('32-bit paging: 4 KiB and, with PSE, 4 MiB pages', () => {
    const bench = new Bench({ paging: '32', pse: true, nxe: false });
    const directory = bench.page();
    const table = bench.page();
    bench.ram.write32(directory + 4 * 1, table | 7);
    bench.ram.write32(table + 4 * 5, 0x6000 | 3);
    bench.ram.write32(directory + 4 * 0x300, 0x40_0000 | 0x83);
    bench.cr3(directory | 0x18);
    expect(bench.data(0x40_5123n)).toBe(0x6123);
    expect(bench.walks()).toEqual([1, 2]);
    expect(bench.data(0xc023_4567n)).toBe(0x63_4567);
    expect(bench.walks()).toEqual([1, 1]);
    expect(bench.data(0xffff_ffff_c023_4567n)).toBe(0x63_4567);
    bench.set({ paging: '32', cpl: 3, nxe: false });
    expect(bench.access(0x40_5123n, ACCESS.write)).toBe('#PF p w u 0x405123');
  });

  test('PAE paging: page-directory-pointer table, NX, 2 MiB pages', () => {
    const bench = new Bench({ paging: 'pae' });
    const top = bench.page() + 0x20;
    const directory = bench.page();
    const table = bench.page();
    bench.ram.write64(top + 8 * 3, BigInt(directory) | P);
    bench.ram.write64(directory + 8 * 2, BigInt(table) | P | W | U);
    bench.ram.write64(table + 8 * 7, 0x9000n | P | W | NX);
    bench.ram.write64(directory + 8 * 4, 0x20_0000n | P | W | PS);
    bench.cr3(top);
    // MOV to CR3 loads the PDPTEs into registers
    for (let i = 0; i < 4; i++) bench.cpu.set64(S.pdpte + 8 * i, bench.ram.read64(top + 8 * i));
    bench.ram.write64(top + 8 * 3, 0n);
    expect(bench.data(0xc040_7010n)).toBe(0x9010);
    expect(bench.walks()).toEqual([1, 2]);
    expect(bench.access(0xc040_7010n, ACCESS.exec)).toBe('#PF p i 0xc0407010');
    expect(bench.data(0xc09f_fff8n)).toBe(0x3f_fff8);
    expect(bench.access(0x1000n)).toBe('#PF  0x1000');
  });

  test('without paging addresses are physical', () => {
    const bench = new Bench({ paging: 'none', nxe: false });
    expect(bench.data(0x12_3456n, ACCESS.rmw, 4)).toBe(0x12_3456);
    expect(bench.walks()).toEqual([0, 0]);
    expect(bench.inline(0x12_3456n, 'write')).toBe(0x12_3456);
  });
});

describe('accessed and dirty bits', () => {
  const setup = (flags: bigint) => {
    const bench = new Bench();
    const root = bench.page();
    const at = bench.map(root, 0x5000n, bench.page(), flags);
    const uppers = [39, 30, 21].map((s) => bench.slot(root, 0x5000n, s));
    bench.cr3(root);
    return { bench, at, marks: () => [...uppers, at].map((e) => Number((bench.read(e) >> 5n) & 3n)) };
  };
  test('a read sets A at every level, a write D at the leaf', () => {
    const { bench, marks } = setup(P | W);
    bench.data(0x5000n);
    expect(marks()).toEqual([1, 1, 1, 1]);
    expect(bench.inline(0x5000n, 'write')).toBeUndefined();
    bench.data(0x5000n, ACCESS.write);
    expect(marks()).toEqual([1, 1, 1, 3]);
    expect(bench.walks()).toEqual([2, 8]);
    expect(bench.inline(0x5000n, 'write')).toBeDefined();
  });
  test('a read of a dirty page serves writes too', () => {
    const { bench } = setup(P | W | D);
    bench.data(0x5000n);
    expect(bench.inline(0x5000n, 'write')).toBeDefined();
    bench.data(0x5000n, ACCESS.write);
    bench.data(0x5000n, ACCESS.exec);
    expect(bench.walks()).toEqual([1, 4]);
  });
  test('a fault sets none', () => {
    const { bench, marks } = setup(P);
    expect(bench.access(0x5000n, ACCESS.write)).toBe('#PF p w 0x5000');
    expect(marks()).toEqual([0, 0, 0, 0]);
  });
  test('tables in pages with decoded code are reported as written', () => {
    const { bench, at } = setup(P | W);
    bench.ram.codePages[at >>> 12] = 1;
    const writes: number[] = [];
    bench.ram.onCodeWrite = (hpa) => writes.push(hpa);
    bench.data(0x5000n, ACCESS.write);
    expect(writes).toEqual([at]);
  });
});

describe('other events', () => {
  test('non-canonical addresses', () => {
    const bench = new Bench();
    bench.cr3(bench.page());
    expect(bench.access(0x8000_0000_0000n)).toBe('fault 13 0');
    bench.mmu.stackAccess = true;
    expect(bench.access(0xfff0_0000_0000_0000n, ACCESS.write)).toBe('fault 12 0');
    expect(bench.access(0xffff_8000_0000_0000n)).toBe('#PF  0xffff800000000000');
  });
  test('tables outside RAM are full of ones', () => {
    const bench = new Bench();
    bench.cr3(0x4000_0000);
    expect(bench.access(0n)).toBe('#PF p rsvd 0x0');
  });
  test('physical addresses outside RAM read as ones and swallow writes', () => {
    const bench = new Bench();
    const root = bench.page();
    bench.map(root, 0x5000n, 0x4000_0000, P | W | G);
    bench.cr3(root);
    const p = bench.access(0x5000n, ACCESS.rmw, 4) as number;
    expect(p).toBe(bench.cpu.at + S.bounce);
    expect(bench.ram.u32[p >>> 2]).toBe(0xffff_ffff);
    bench.mmu.commit();
    expect(bench.inline(0x5000n)).toBeUndefined();
  });
});
