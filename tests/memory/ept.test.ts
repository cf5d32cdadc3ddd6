/** Two-dimensional walks: references, EPT violations and misconfigurations with their exit information, A/D flags. */
import { describe, expect, test } from 'vitest';
import { S } from '../../lib/isa/state.js';
import { ACCESS } from '../../lib/memory/access.js';
import { A, Bench, D, NX, P, PS, U, W } from './fixture.js';

const R = 1n;
const X = 4n;
const RWX = 7n;
const WB = 6n << 3n;
const EPT_A = 0x100n;
const EPT_D = 0x200n;

/** Guest-physical memory lies 4 MiB higher in host RAM; EPT tables are taken from the bottom of host RAM. */
const OFFSET = 0x40_0000;
const LIN = 0xffff_8000_1234_5678n;

class Nested extends Bench {
  readonly eptRoot: number;
  readonly shift: 12 | 21;
  /** Next free guest page, and the guest's root table. */
  guestNext = 0x1000;
  readonly guestRoot: number;

  constructor(shift: 12 | 21 = 12, ad = false, guestShift = 12) {
    super();
    this.shift = shift;
    this.eptRoot = this.page();
    for (let gpa = 0; gpa < 0x40_0000; gpa += 2 ** shift) this.eptMap(gpa, gpa + OFFSET, RWX | WB);
    this.guestRoot = this.guestPage();
    this.guest(LIN, 0x20_0000, P | W, guestShift);
    this.mmu.ept = { root: this.eptRoot, ad };
    this.mmu.vpid = 1;
    this.cr3(this.guestRoot);
  }
  eptMap(gpa: number, hpa: number, flags: bigint): number {
    return this.map(this.eptRoot, BigInt(gpa), hpa, flags, this.shift, RWX);
  }
  eptSlot(gpa: number, shift: number = this.shift): number {
    return this.slot(this.eptRoot, BigInt(gpa), shift, RWX);
  }
  guestPage(): number {
    const p = this.guestNext;
    this.guestNext += 4096;
    return p;
  }
  /** Guest-physical address of the guest's entry. */
  guestSlot(linear: bigint, shift = 12): number {
    let table = this.guestRoot;
    for (let s = 39; ; s -= 9) {
      const at = table + Number((linear >> BigInt(s)) & 511n) * 8;
      if (s === shift) return at;
      if (this.read(at + OFFSET) === 0n) this.ram.write64(at + OFFSET, BigInt(this.guestPage()) | P | W | U);
      table = Number(this.read(at + OFFSET) & 0xff_f000n);
    }
  }
  guest(linear: bigint, gpa: number, flags: bigint, shift = 12): void {
    this.ram.write64(this.guestSlot(linear, shift) + OFFSET, BigInt(gpa) | flags | (shift > 12 ? PS : 0n));
  }
}

describe('references of a walk', () => {
  test.each([
    [12, 12, 24],
    [12, 21, 19],
    [21, 21, 15],
    [21, 12, 19],
    [30, 21, 11],
  ] as const)('guest pages of 2^%i, EPT pages of 2^%i: %i', (guestShift, shift, references) => {
    const bench = new Nested(shift, false, guestShift);
    if (guestShift === 30) bench.guest(LIN, 0, P | W, 30);
    const page = 2n ** BigInt(guestShift);
    const offset = guestShift === 30 ? 0x20_0678n : LIN % page;
    expect(bench.data(LIN - (LIN % page) + offset)).toBe(
      Number(offset) + (guestShift === 30 ? 0 : 0x20_0000) + OFFSET,
    );
    expect(bench.walks()).toEqual([1, references]);
    expect(bench.mmu.walks1d).toBe(0);
  });
  test('a guest without paging makes only EPT references', () => {
    const bench = new Nested(21);
    bench.set({ paging: 'none', nxe: false });
    expect(bench.data(0x12_3456n)).toBe(0x12_3456 + OFFSET);
    expect(bench.walks()).toEqual([1, 3]);
  });
});

describe('violations', () => {
  const kinds = [
    ['read', 1, R],
    ['write', 2, W],
    ['rmw', 3, W],
    ['exec', 4, X],
  ] as const;
  for (const rights of [0n, R, R | W, R | X, RWX, X]) {
    test.each(kinds)(`final address with rights ${rights}: %s`, (kind, bits) => {
      const bench = new Nested();
      bench.eptMap(0x20_0000, 0x60_0000, rights === 0n ? 0n : rights | WB);
      const need = kind === 'rmw' ? 3 : bits;
      const got = bench.access(LIN, ACCESS[kind]);
      if ((need & ~Number(rights)) === 0) expect(typeof got).toBe('number');
      else {
        const q = bits | (Number(rights) << 3) | 0x180;
        expect(got).toBe(`exit 48 0x${q.toString(16)} 0x200678`);
        expect(bench.cpu.exitInfo.linear).toBe(LIN);
      }
    });
  }
  test.each([
    [39, 0],
    [30, 1],
    [21, 2],
    [12, 3],
  ] as const)('guest table of level 2^%i not mapped', (shift, _) => {
    const bench = new Nested();
    const gpa = bench.guestSlot(LIN, shift);
    bench.eptMap(gpa & ~0xfff, 0, 0n);
    expect(bench.access(LIN, ACCESS.write)).toBe(`exit 48 0x81 0x${gpa.toString(16)}`);
  });
  test('rights are the product of all levels, and nothing is marked', () => {
    const bench = new Nested();
    const at = bench.eptSlot(0x20_0000, 21);
    bench.ram.write64(at, bench.read(at) & ~W);
    expect(bench.access(LIN, ACCESS.write)).toBe('exit 48 0x1aa 0x200678');
    expect(bench.read(bench.guestSlot(LIN) + OFFSET) & (A | D)).toBe(0n);
  });
  test('accessed bits of the guest need a writable table', () => {
    const bench = new Nested();
    const gpa = bench.guestSlot(LIN);
    bench.eptMap(gpa & ~0xfff, OFFSET + (gpa & ~0xfff), R | X | WB);
    expect(bench.access(LIN)).toBe(`exit 48 0xab 0x${gpa.toString(16)}`);
    for (const s of [12, 21, 30, 39]) {
      const at = bench.guestSlot(LIN, s) + OFFSET;
      bench.ram.write64(at, bench.read(at) | A);
    }
    expect(bench.data(LIN)).toBe(0x20_0678 + OFFSET);
    expect(bench.access(LIN, ACCESS.write)).toBe(`exit 48 0xab 0x${gpa.toString(16)}`);
  });
  test('the guest’s page fault comes first', () => {
    const bench = new Nested();
    bench.eptMap(0x20_0000, 0, 0n);
    bench.guest(LIN, 0x20_0000, P | NX);
    expect(bench.access(LIN, ACCESS.write)).toBe('#PF p w 0xffff800012345678');
    expect(bench.access(LIN, ACCESS.exec)).toBe('#PF p i 0xffff800012345678');
    expect(bench.access(LIN)).toBe('exit 48 0x181 0x200678');
  });
  test('a physical address beyond the guest’s memory', () => {
    const bench = new Nested();
    bench.guest(LIN, 0xfe_0000_0000, P | W);
    expect(bench.access(LIN)).toBe('exit 48 0x181 0xfe00000678');
  });
});

describe('misconfigurations', () => {
  test.each([
    ['write without read', 12, W],
    ['write and execute without read', 12, W | X],
    ['memory type 2', 12, RWX | (2n << 3n)],
    ['memory type 7', 12, RWX | (7n << 3n)],
    ['address bit 40', 12, RWX | WB | (1n << 40n)],
    ['bits 6:3 of a table entry', 21, RWX | (1n << 5n)],
    ['bit 7 of a PML4 entry', 39, RWX | 0x80n],
    ['bit 12 of a 2 MiB page', 21, RWX | WB | 0x80n | 0x1000n],
    ['bit 13 of a 1 GiB page', 30, RWX | WB | 0x80n | 0x2000n],
  ] as const)('%s', (_, shift, entry) => {
    const bench = new Nested();
    bench.guest(LIN, 0x80_0000_0000, P | W);
    const at = bench.slot(bench.eptRoot, 0x80_0000_0000n, shift, RWX);
    bench.ram.write64(at, entry);
    expect(bench.access(LIN)).toBe('exit 49 0x0 0x8000000678');
  });
  test('execute-only is a misconfiguration where it is not supported', () => {
    const bench = new Nested();
    bench.eptMap(0x20_0000, 0x60_0000, X | WB);
    expect(typeof bench.access(LIN, ACCESS.exec)).toBe('number');
    bench.mmu.flushEverything();
    bench.mmu.eptExecuteOnly = false;
    expect(bench.access(LIN, ACCESS.exec)).toBe('exit 49 0x0 0x200678');
  });
});

describe('accessed and dirty flags for EPT', () => {
  test('set on the way, dirty by writes only', () => {
    const bench = new Nested(12, true);
    const page = bench.eptSlot(0x20_0000);
    const table = bench.eptSlot(bench.guestRoot);
    bench.data(LIN);
    expect(bench.read(page) & (EPT_A | EPT_D)).toBe(EPT_A);
    // Accesses to the guest's tables count as writes.
    expect(bench.read(table) & (EPT_A | EPT_D)).toBe(EPT_A | EPT_D);
    expect(bench.read(bench.eptSlot(0x20_0000, 39)) & EPT_A).toBe(EPT_A);
    expect(bench.inline(LIN, 'write')).toBeUndefined();
    bench.data(LIN, ACCESS.write);
    expect(bench.read(page) & (EPT_A | EPT_D)).toBe(EPT_A | EPT_D);
    expect(bench.inline(LIN, 'write')).toBeDefined();
  });
  test('off: not touched', () => {
    const bench = new Nested();
    bench.data(LIN, ACCESS.write);
    expect(bench.read(bench.eptSlot(0x20_0000)) & (EPT_A | EPT_D)).toBe(0n);
  });
  test('a read-only table violates as a write', () => {
    const bench = new Nested(12, true);
    const gpa = bench.guestSlot(LIN, 39);
    bench.eptMap(gpa & ~0xfff, OFFSET + (gpa & ~0xfff), R | WB);
    expect(bench.access(LIN)).toBe(`exit 48 0x8b 0x${gpa.toString(16)}`);
  });
});

test('the TLB caches the combined translation, tagged by VPID and EPT root', () => {
  const bench = new Nested();
  bench.data(LIN);
  bench.walks();
  bench.eptMap(0x20_0000, 0x61_0000, RWX | WB);
  expect(bench.data(LIN)).toBe(0x20_0678 + OFFSET);
  bench.mmu.invept(1, bench.eptRoot + 4096);
  expect(bench.walks()).toEqual([0, 0]);
  bench.mmu.invept(1, bench.eptRoot);
  expect(bench.data(LIN)).toBe(0x61_0678);
  bench.mmu.vpid = 2;
  bench.mmu.contextChanged();
  bench.eptMap(0x20_0000, 0x62_0000, RWX | WB);
  expect(bench.data(LIN)).toBe(0x62_0678);
  bench.mmu.invvpid(1, 2);
  bench.mmu.vpid = 1;
  bench.mmu.contextChanged();
  expect(bench.data(LIN)).toBe(0x61_0678);
  bench.mmu.invvpid(0, 1, Number(BigInt.asIntN(32, LIN)), Number(LIN >> 32n));
  expect(bench.data(LIN)).toBe(0x62_0678);
  bench.eptMap(0x20_0000, 0x63_0000, RWX | WB);
  bench.mmu.invvpid(2, 0);
  expect(bench.data(LIN)).toBe(0x63_0678);
  bench.mmu.invept(2);
  bench.walks();
  bench.data(LIN);
  expect(bench.walks()).toEqual([1, 24]);
  expect(bench.mmu.translate(LIN)).toBe(0x63_0678);
  expect(bench.cpu.get32(S.leave)).toBe(0);
});
