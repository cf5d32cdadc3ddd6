/**
 * Random bytes in page tables, under random operations, for as many steps as wanted: whatever the guest does, what the
 * hardware would walk reaches no host frame but those that its slots give it, and the hypervisor's memory is bounded.
 *
 * Some random entries are noise, most look like entries and point to tables, to memory, to MMIO, and beyond all
 * memory. CR3 does too. A guest that KVM would end (CR3 outside memory) is started again.
 */
import { seededRandom } from '../../../lib/base/random.js';
import type { Backing } from '../../../lib/hypervisor/memslots.js';
import { MMU_PRESENT, PT } from '../../../lib/hypervisor/mmu/spte.js';
import { CR0, CR4, EFER, PF } from '../../../lib/isa/state.js';
import { EPTE } from '../../../lib/memory/paging.js';
import { EptGuest } from './ept-guest.js';
import { CODE, Guest, TABLE } from './fixture.js';

export interface FuzzReport {
  readonly steps: number;
  /** Accesses that ended in memory, and how the others ended. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** #PF exits or violations. */
  readonly exits: number;
  /** Most shadow pages or extended tables at a time. */
  readonly most: number;
}

class Violation extends Error {}
const count = (outcomes: Record<string, number>, name: string): void => {
  outcomes[name] = (outcomes[name] ?? 0) + 1;
};

/** Between two looks at every entry of every table. */
const LOOK = 500;
const PAGES = 1024;
const TABLES = 12;
/** Where in a table most of the guest's addresses lead. */
const INDEXES = [0, 1, 2, 9, 511] as const;

/** Shadow paging. @throws Error when the guest reaches a foreign frame or the hypervisor grows */
export const fuzzShadow = (seed: number, steps: number, backing: Backing): FuzzReport => {
  const r = seededRandom(seed);
  const g = new Guest(PAGES, backing, {}, 24);
  const { context } = g.mmu;
  const home = g.space(PAGES);
  const tables = Array.from({ length: TABLES }, () => g.newTable());
  const outcomes: Record<string, number> = {};
  const frameOf = new Map<number, number>();
  let most = 0;

  const pick = <T>(list: readonly T[]): T => list[r.below(list.length)] as T;
  const noise = (): bigint => (BigInt(r.u32()) << 32n) | BigInt(r.u32());
  /** A guest-physical page: a table mostly, else memory, MMIO, or nowhere. */
  const target = (): number => {
    switch (r.below(8)) {
      case 0:
        return r.below(PAGES) * 4096;
      case 1:
        return 0xfec0_0000;
      case 2:
        return 0xfee0_0000;
      case 3:
        return PAGES * 4096 + r.below(1 << 20) * 4096;
      case 4:
        return 0xff_ffff_f000;
      default:
        return pick(tables);
    }
  };
  const entry = (): bigint => {
    if (r.below(16) === 0) return 0n;
    if (r.below(16) === 0) return noise();
    const flags = r.below(4) === 0 ? BigInt(r.u32() & 0xf7f) | 1n : 0x67n;
    return BigInt(target()) | flags | (r.below(16) === 0 ? 0x80n : 0n) | (r.below(16) === 0 ? 1n << 63n : 0n);
  };
  const index = (): number => (r.below(4) === 0 ? r.below(512) : pick(INDEXES));
  /** Somewhere in the lower half, at few indexes of each table, so that walks meet. */
  const address = (): bigint => {
    if (r.below(64) === 0) return noise();
    let gva = 0n;
    for (let level = 0; level < 4; level++) gva = (gva << 9n) | BigInt(pick(INDEXES));
    gva = (gva << 12n) | BigInt(r.below(512) * 8);
    return BigInt.asUintN(64, BigInt.asIntN(48, gva));
  };
  const restart = (): void => {
    g.vcpu.cr3 = home;
    g.mmu.contextReset();
    if (!g.enter()) throw new Violation('the guest cannot be started again');
  };
  const look = (): void => {
    const { pages } = context;
    frameOf.clear();
    for (let gfn = 0; gfn < PAGES; gfn++) {
      const hpa = g.slots.backed(gfn);
      if (hpa !== undefined) frameOf.set(hpa, gfn);
    }
    for (const sp of pages.active)
      for (let i = 0; i < 512; i++) {
        const at = sp.hpa + 8 * i;
        const lo = context.lo(at);
        if ((lo & PT.p) === 0 || (lo & MMU_PRESENT) === 0) continue;
        const hpa = (context.hi(at) & 0xff) * 0x1_0000_0000 + ((lo & 0xffff_f000) >>> 0);
        if (sp.level > 1 && (lo & PT.ps) === 0) {
          if (pages.at(hpa)?.hpa !== hpa) throw new Violation('an entry points to what is no table');
          continue;
        }
        const gfn = sp.gfnAt(i);
        for (let p = 0; p < (sp.level === 1 ? 1 : 512); p++)
          if (frameOf.get(hpa + p * 4096) !== gfn + p)
            throw new Violation(
              `an entry for frame ${gfn + p} maps host page 0x${(hpa + p * 4096).toString(16)}`,
            );
      }
  };

  for (const table of tables) for (let i = 0; i < 512; i++) g.write(table + 8 * i, entry());
  // the lower half of the first root is random too
  for (const i of INDEXES.slice(0, -1)) g.write(home + 8 * i, BigInt(pick(tables)) | TABLE);
  g.loadCr3(home);
  g.fetch(CODE);
  const step = (): void => {
    switch (r.below(16)) {
      case 0: {
        const cr3 = r.below(3) === 0 ? home : target() + r.below(4);
        g.loadCr3(cr3, r.below(2) === 0);
        if (g.vcpu.root < 0 || !g.enter()) {
          count(outcomes, 'ended');
          restart();
        }
        return;
      }
      case 1:
        g.invlpg(address());
        return;
      case 2:
        g.mmu.invpcid(r.below(4) as 0, r.below(4), address());
        return;
      case 3:
        if (r.below(8) === 0) {
          g.vcpu.cr0 ^= pick([0, CR0.wp]);
          g.vcpu.cr4 ^= pick([0, CR4.smep, CR4.smap]);
          g.vcpu.efer ^= pick([0, EFER.nxe]);
          g.mmu.contextReset();
        } else if (r.below(2) === 0) g.mmu.flushGuestTlb();
        else g.mmu.faultDuringDelivery(address());
        if (!g.enter()) restart();
        return;
      case 4:
      case 5:
      case 6:
      case 7: {
        // a table, through the direct map of the guest's own tables
        const back = g.vcpu.cr3;
        g.loadCr3(home, false);
        const at = g.direct(pick(tables) + 8 * index());
        if (r.below(64) === 0) g.repStos(g.direct(pick(tables)), 512, 8);
        else count(outcomes, `table ${g.store(at, entry(), r.below(8) === 0 ? 4 : 8)}`);
        if (r.below(16) !== 0) {
          g.loadCr3(back, false);
          if (!g.enter()) restart();
        }
        return;
      }
      default: {
        const gva = address();
        const wants = pick([0, PF.w, PF.i]);
        g.hpa = -1;
        const end = g.access(gva, wants, { user: r.below(2) === 0, tableWriting: r.below(2) === 0 });
        count(outcomes, end);
        if (end === 'triple') restart();
        if (end !== 'done' || g.hpa < 0) return;
        const page = g.hpa - (g.hpa % 4096);
        for (let gfn = 0; ; gfn++) {
          if (gfn === PAGES)
            throw new Violation(`0x${gva.toString(16)} reaches host page 0x${page.toString(16)}`);
          if (g.slots.backed(gfn) === page) return;
        }
      }
    }
  };
  for (let n = 1; n <= steps; n++) {
    step();
    most = Math.max(most, context.pages.used);
    if (context.pages.used > context.pages.limit)
      throw new Violation(`${context.pages.used} shadow pages, the limit is ${context.pages.limit}`);
    if (n % LOOK === 0 || n === steps) look();
  }
  return { steps, outcomes, exits: g.exits.total, most };
};

/** EPT. @throws Error when an entry maps a foreign frame */
export const fuzzEpt = (seed: number, steps: number, backing: Backing, nxHugePages: boolean): FuzzReport => {
  const r = seededRandom(seed);
  const g = new EptGuest(backing, { nxHugePages, tdpMmu: r.below(2) === 0 });
  const outcomes: Record<string, number> = {};
  let most = 0;
  const page = (): number => {
    switch (r.below(4)) {
      case 0:
        return r.below(1 << 28);
      case 1:
        return 0xfe000 + r.below(0x2000);
      default:
        return r.below(28 << 8);
    }
  };
  for (let n = 1; n <= steps; n++) {
    if (r.below(20_000) === 0) g.mmu.zapAll();
    const gpa = page() * 4096 + r.below(4096);
    // fetches are rarer: with the workaround they make large pages small
    const need = [EPTE.r, EPTE.w, EPTE.r | EPTE.w, r.below(50) === 0 ? EPTE.x : EPTE.r][r.below(4)] as number;
    const hpa = g.access(gpa, need);
    count(outcomes, hpa === 'mmio' ? 'mmio' : 'done');
    const wants = g.slots.slotOf(Math.floor(gpa / 4096)) === undefined ? 'mmio' : g.slots.hpa(gpa);
    if (hpa !== wants) throw new Violation(`0x${gpa.toString(16)} reaches ${hpa}, not ${wants}`);
    most = Math.max(most, g.mmu.pages.shadow);
    // 17 MiB of small pages, MMIO, and the upper levels
    if (most > 12 + 256 + 4) throw new Violation(`${most} extended tables`);
  }
  return { steps, outcomes, exits: g.exits.violations + g.exits.misconfigurations, most };
};
