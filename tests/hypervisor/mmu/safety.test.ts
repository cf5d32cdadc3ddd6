/**
 * Whatever a guest does with its tables, the shadow tables permit nothing that the guest's own tables, at some moment
 * since the last flush the guest was owed, do not; they reach no host frame outside the slots; and counts stay true.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ShadowContext } from '../../../lib/hypervisor/mmu/context.js';
import { MMU_PRESENT, PT } from '../../../lib/hypervisor/mmu/spte.js';
import { PF } from '../../../lib/isa/state.js';
import { A, CODE, D, DATA, DIRECT, Guest, NX, P, PS, TABLE, U, W } from './fixture.js';

const PAGES = 1024;
const GVAS: bigint[] = [];
for (const pmd of [0, 1, 2])
  for (const pte of [0, 1, 9]) GVAS.push(BigInt(pmd) * 0x20_0000n + BigInt(pte) * 0x1000n);

/** Guest frame and rights of one address under one root, as the tables say now; rights 0 when nothing is mapped. */
interface Version {
  readonly gfn: number;
  readonly rights: number;
}
const NONE: Version = { gfn: -1, rights: 0 };
const guestWalk = (g: Guest, root: number, gva: bigint): Version => {
  let table = root;
  let rights = 7;
  for (let level = 4; ; level--) {
    if (g.slots.frame(table / 4096) === undefined) return NONE;
    const e = g.read(table + Number((gva >> BigInt(12 + 9 * (level - 1))) & 511n) * 8);
    if ((e & P) === 0n || ((e >> 40n) & 0xfffn) !== 0n) return NONE;
    rights &= Number(e & 6n) | ((e & NX) === 0n ? 1 : 0);
    table = Number(e & 0xff_ffff_f000n);
    if (level === 1) return { gfn: table / 4096, rights };
    if ((e & PS) === 0n) continue;
    const span = 512 ** (level - 1);
    if ((table / 4096) % span !== 0) return NONE;
    return { gfn: table / 4096 + (Number(gva >> 12n) % span), rights };
  }
};

class World {
  readonly g: Guest;
  readonly roots: number[] = [];
  readonly tables: number[];
  readonly pmd: number;
  /** By root and address: what a TLB may hold. */
  readonly seen: Version[][][] = [];
  readonly pteValues: bigint[];
  readonly pmdValues: bigint[];
  current = 0;
  readonly slotFrames = new Map<number, number>();

  constructor(backing: '4K' | '2M') {
    const g = new Guest(PAGES, backing);
    this.g = g;
    const first = g.space(PAGES);
    const pud = g.newTable();
    this.pmd = g.newTable();
    this.tables = [g.newTable(), g.newTable()];
    const [t0, t1] = this.tables.map(BigInt);
    const frame = (n: number): bigint => BigInt(n * 4096);
    this.pteValues = [
      0n,
      frame(3) | P | W | U | A | D,
      frame(3) | P | U | A | D,
      frame(4) | P | W | A,
      frame(4) | P | W | U | NX | A | D,
      frame(5) | P | W | U,
      t1 | P | W | A | D,
      BigInt(this.pmd) | P | W | U | A | D,
      0xfec0_0000n | P | W | A | D,
      frame(6) | (1n << 45n) | P | A,
      0xff_f000_0000n | P | W | U | A | D,
    ];
    this.pmdValues = [
      0n,
      t0 | TABLE,
      t1 | P | U | A,
      t0 | P | W | A | NX,
      DATA | PS | U,
      P | W | PS | U,
      BigInt(this.pmd) | TABLE,
      0x3_0000_0000n | TABLE,
    ];
    g.write(pud, BigInt(this.pmd) | TABLE);
    g.write(this.pmd, t0 | TABLE);
    g.write(this.pmd + 8, t1 | TABLE);
    for (const table of this.tables)
      for (const i of [0, 1, 9]) g.write(table + 8 * i, this.pteValues[1 + (i % 3)]);
    for (let i = 0; i < 3; i++) {
      const root = i === 0 ? first : g.newTable();
      if (i > 0) for (let j = 256; j < 512; j++) g.write(root + 8 * j, g.read(first + 8 * j));
      g.write(root, BigInt(pud) | (i === 2 ? P | U | A : TABLE));
      this.roots.push(root);
    }
    for (const root of this.roots) this.seen.push(GVAS.map((gva) => [guestWalk(g, root, gva)]));
    g.loadCr3(this.cr3(0));
    g.fetch(CODE);
  }
  cr3(i: number): number {
    return this.roots[i] + i + 1;
  }
  /** The guest's tables may have changed: everything seen since the last flush stays allowed. */
  changed(): void {
    this.roots.forEach((root, r) => {
      GVAS.forEach((gva, i) => {
        const v = guestWalk(this.g, root, gva);
        const seen = this.seen[r][i];
        if (!seen.some((s) => s.gfn === v.gfn && s.rights === v.rights)) seen.push(v);
      });
    });
  }
  flushed(r: number, only?: number): void {
    GVAS.forEach((gva, i) => {
      if (only === undefined || only === i) this.seen[r][i] = [guestWalk(this.g, this.roots[r], gva)];
    });
  }
  /** Nothing reachable now is more than was ever allowed. */
  check(): void {
    const { g } = this;
    g.enter();
    for (let i = 0; i < GVAS.length; i++) {
      for (const [wants, needs] of [
        [0, 0],
        [PF.w, 2],
        [PF.i, 1],
        [PF.u, 4],
        [PF.u | PF.w, 6],
      ] as const) {
        const hpa = g.walk(GVAS[i], wants, false);
        if (hpa < 0) continue;
        const ok = this.seen[this.current][i].some(
          (v) => (v.rights & needs) === needs && v.gfn >= 0 && g.slots.backed(v.gfn) === hpa - (hpa % 4096),
        );
        if (!ok) expect.fail(`0x${GVAS[i].toString(16)} wants ${wants} reaches 0x${hpa.toString(16)}`);
      }
    }
    consistent(g.mmu.context);
  }
}

/** Gauges, parents and marks agree with the tables, and nothing writable is a table in sync. */
const consistent = (m: ShadowContext): void => {
  let small = 0;
  let large = 0;
  let unsync = 0;
  const wrong: string[] = [];
  for (const sp of m.pages.active) {
    if (sp.unsync) unsync++;
    for (let i = 0; i < 512; i++) {
      const at = sp.hpa + 8 * i;
      const lo = m.lo(at);
      if ((lo & MMU_PRESENT) === 0) continue;
      const child = m.child(at, sp.level);
      if (child !== undefined) {
        if (!child.parents.includes(at)) wrong.push('a table does not know its parent');
        const marked = ((sp.unsyncBits as Uint32Array)[i >>> 5] & (1 << (i & 31))) !== 0;
        if ((child.unsync || child.unsyncChildren > 0) && !marked)
          wrong.push('an unsync table is not marked above');
        continue;
      }
      if (sp.level === 1) small++;
      else large++;
      if ((lo & PT.w) === 0) continue;
      const first = sp.gfnAt(i);
      for (let gfn = first; gfn < first + (sp.level === 1 ? 1 : 512); gfn++) {
        if (m.frames.tracked(gfn)) wrong.push('an upper table is writable');
        for (
          let t = m.pages.ofGfn(m.pages.chain(gfn), gfn);
          t !== undefined;
          t = m.pages.ofGfn(t.next, gfn)
        ) {
          if (!t.direct && !t.unsync) wrong.push('a table in sync is writable');
        }
      }
    }
  }
  if (m.pages.used > m.pages.limit) wrong.push('too many shadow pages');
  expect(wrong).toEqual([]);
  expect([m.p4k, m.p2m, m.unsyncPages]).toEqual([small, large, unsync]);
};

/** Mostly sensible tables: what is mapped stays mapped long enough to be used. */
const pteValue = fc.oneof({ weight: 3, arbitrary: fc.nat(5) }, { weight: 1, arbitrary: fc.nat(10) });
const pmdValue = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 3 }) },
  { weight: 1, arbitrary: fc.nat(7) },
);
const index = fc.constantFrom(0, 1, 9);
const gva = fc.nat(GVAS.length - 1);
const op = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({ kind: fc.constant('pte' as const), table: fc.nat(1), index, value: pteValue }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('pmd' as const), index: fc.nat(2), value: pmdValue }),
  },
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant('cr3' as const), root: fc.nat(2), flush: fc.boolean() }),
  },
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('invlpg' as const), gva }) },
  {
    weight: 30,
    arbitrary: fc.record({
      kind: fc.constant('access' as const),
      gva,
      wants: fc.constantFrom(0, PF.w, PF.i),
      user: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('write' as const), gva, index, value: pteValue }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('stos' as const), table: fc.nat(2) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('global' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unshadow' as const), table: fc.nat(2) }) },
);
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never;

const perform = (w: World, o: Op): void => {
  const { g } = w;
  switch (o.kind) {
    case 'pte':
      g.store(g.direct(w.tables[o.table] + 8 * o.index), w.pteValues[o.value]);
      break;
    case 'pmd':
      g.store(g.direct(w.pmd + 8 * o.index), w.pmdValues[o.value]);
      break;
    case 'cr3':
      w.current = o.root;
      w.changed();
      g.loadCr3(w.cr3(o.root), o.flush);
      if (o.flush) w.flushed(o.root);
      break;
    case 'invlpg':
      g.invlpg(GVAS[o.gva]);
      w.changed();
      w.flushed(w.current, o.gva);
      break;
    case 'access':
      g.access(GVAS[o.gva], o.wants, { user: o.user });
      break;
    case 'write':
      g.store(GVAS[o.gva] + BigInt(8 * o.index), w.pteValues[o.value]);
      break;
    case 'stos':
      g.repStos(g.direct([...w.tables, w.pmd][o.table]), 512, 8);
      break;
    case 'global':
      g.mmu.flushGuestTlb();
      g.enter();
      w.changed();
      for (let r = 0; r < w.roots.length; r++) w.flushed(r);
      break;
    case 'unshadow':
      g.mmu.faultDuringDelivery(g.direct([...w.tables, w.pmd][o.table]));
      break;
  }
  w.changed();
};

describe('shadow tables', () => {
  it.each(['4K', '2M'] as const)(
    'permit no more than the guest, %s backing',
    (backing) => {
      fc.assert(
        fc.property(fc.array(op, { minLength: 20, maxLength: 60 }), (ops) => {
          const w = new World(backing);
          for (const o of ops) {
            perform(w, o);
            w.check();
          }
          expect(w.g.exits.total).toBe(w.g.stats.pf_taken + w.g.exits.rsvd);
        }),
        { numRuns: 40, seed: 20 },
      );
    },
    60_000,
  );
  it('maps the direct map of every address it was given', () => {
    const w = new World('2M');
    for (let p = 0; p < PAGES; p += 7) {
      expect(w.g.load(DIRECT + BigInt(p) * 4096n)).toBe('done');
      expect(w.g.hpa).toBe(w.g.slots.backed(p));
    }
  });
});
