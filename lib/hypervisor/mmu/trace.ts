/** What the MMU's tracepoints carry: entries as 64-bit values, and the fields of a shadow page (KVM-8.2, kvmmmu). */
import type { ShadowPageFields } from '../trace-events.js';
import type { Tracer } from '../tracer.js';
import type { ShadowPage } from './pages.js';
import { ACC, PT, PT_NX } from './spte.js';

/** Both halves of an entry. */
export const entryOf = (lo: number, hi: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);

/** EFER.NX is forced under shadow paging, and the tables have accessed and dirty flags. */
export const shadowPageFields = (sp: ShadowPage): ShadowPageFields => ({
  mmu_valid_gen: 0,
  gfn: sp.gfn,
  level: sp.level,
  has_4_byte_gpte: sp.narrow,
  quadrant: sp.quadrant,
  access: sp.access,
  direct: sp.direct,
  invalid: sp.invalid,
  nx: true,
  ad: true,
  root_count: sp.rootCount,
  unsync: sp.unsync,
});

/** An EPT table: nobody's but the hypervisor's. */
export const eptPageFields = (gfn: number, level: number, ad: boolean): ShadowPageFields => ({
  mmu_valid_gen: 0,
  gfn,
  level,
  has_4_byte_gpte: false,
  quadrant: 0,
  access: ACC.all,
  direct: true,
  invalid: false,
  nx: true,
  ad,
  root_count: level === 4 ? 1 : 0,
  unsync: false,
});

/** kvm_mmu_set_spte of an entry in 4-level format. */
export const traceSpte = (
  trace: Tracer,
  at: number,
  level: number,
  gfn: number,
  lo: number,
  hi: number,
): void =>
  trace.sinks.kvm_mmu_set_spte?.({
    gfn,
    spte: entryOf(lo, hi),
    sptep: at,
    level,
    r: (lo & PT.p) !== 0,
    x: hi < PT_NX,
    u: (lo & PT.u) !== 0,
  });
