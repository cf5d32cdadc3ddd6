/**
 * Shadow pages: one table of 512 sptes each, kept in a hash by guest frame and role (KVM-3.1, KVM-7.1.6), in order of
 * creation for recycling (KVM-3.7), and by host page so that an entry's address leads to its table.
 */
import type { FrameAllocator } from '../memslots.js';
import type { KvmStats } from '../stats.js';
import { roleAccess, roleDirect, roleLevel, roleNarrow, roleQuadrant } from './roles.js';
import { PAGES_AT } from './spte.js';

export class ShadowPage {
  /** Host-physical address of the table. */
  readonly hpa: number;
  readonly gfn: number;
  readonly role: number;
  readonly level: number;
  readonly direct: boolean;
  readonly access: number;
  /** The guest's entries have 4 bytes, so that this table shadows one part of the guest's: the quadrant. */
  readonly narrow: boolean;
  readonly quadrant: number;
  /** Guest frame of each leaf entry, of tables that shadow a guest's table. */
  readonly gfns: Int32Array | undefined;
  /** Addresses of the entries that point here. */
  readonly parents: number[] = [];
  /** How many current and previous roots this is. */
  rootCount = 0;
  /** Zapped; waits for its last use as a root to end. */
  invalid = false;
  /** The guest may have written its table since the last sync (level 1). */
  unsync = false;
  /** Entries below which something is unsync: how many, and which (upper levels). May be too many, never too few. */
  unsyncChildren = 0;
  readonly unsyncBits: Uint32Array | undefined;
  /** Emulated writes since the last use (KVM's write_flooding_count). */
  floods = 0;
  /** Stands where a large page was split for the NX workaround. */
  splitForNx = false;
  /** Next of the hash chain. */
  next: ShadowPage | undefined;

  constructor(hpa: number, gfn: number, role: number) {
    this.hpa = hpa;
    this.gfn = gfn;
    this.role = role;
    this.level = roleLevel(role);
    this.direct = roleDirect(role);
    this.access = roleAccess(role);
    this.narrow = roleNarrow(role);
    this.quadrant = roleQuadrant(role);
    this.gfns = this.direct ? undefined : new Int32Array(512);
    this.unsyncBits = this.level > 1 ? new Uint32Array(16) : undefined;
  }
  /** Guest frame of the leaf entry at an index. */
  gfnAt(index: number): number {
    return this.gfns === undefined ? this.gfn + index * PAGES_AT[this.level] : this.gfns[index];
  }
}

const BUCKETS = 4096;
const bucket = (gfn: number): number => Math.imul(gfn, 0x61c8_8647) >>> 20;

export class ShadowPages {
  readonly #frames: FrameAllocator;
  readonly #stats: KvmStats;
  readonly #hash: (ShadowPage | undefined)[] = new Array<ShadowPage | undefined>(BUCKETS).fill(undefined);
  readonly #byPage = new Map<number, ShadowPage>();
  /** Not zapped, oldest first (active_mmu_pages). */
  readonly active = new Set<ShadowPage>();
  /** max(64, guest pages / 50). */
  readonly limit: number;
  /** Allocated, zapped roots included (n_used_mmu_pages). */
  used = 0;
  /** Tables that shadow a guest's table (indirect_shadow_pages). */
  indirect = 0;

  constructor(frames: FrameAllocator, stats: KvmStats, guestPages: number) {
    this.#frames = frames;
    this.#stats = stats;
    this.limit = Math.max(64, Math.floor(guestPages / 50));
  }
  get available(): number {
    return Math.max(0, this.limit - this.used);
  }
  /** First of the chain in which tables of `gfn` are; the chain has others too, and no invalid ones. */
  chain(gfn: number): ShadowPage | undefined {
    return this.#hash[bucket(gfn)];
  }
  /** The next table of `gfn` from `sp` on. */
  ofGfn(sp: ShadowPage | undefined, gfn: number): ShadowPage | undefined {
    let at = sp;
    while (at !== undefined && at.gfn !== gfn) at = at.next;
    return at;
  }
  /** The table in which an entry, or a byte, lies. */
  at(hpa: number): ShadowPage {
    return this.#byPage.get(Math.floor(hpa / 4096)) as ShadowPage;
  }
  create(gfn: number, role: number): ShadowPage {
    const sp = new ShadowPage(this.#frames.page(), gfn, role);
    const b = bucket(gfn);
    sp.next = this.#hash[b];
    this.#hash[b] = sp;
    this.#byPage.set(sp.hpa / 4096, sp);
    this.active.add(sp);
    this.used++;
    if (!sp.direct) this.indirect++;
    return sp;
  }
  /** Takes a zapped page out of the hash and the order; it stays allocated until `free`. */
  retire(sp: ShadowPage): void {
    sp.invalid = true;
    this.active.delete(sp);
    if (!sp.direct) this.indirect--;
    const b = bucket(sp.gfn);
    let at = this.#hash[b];
    if (at === sp) {
      this.#hash[b] = sp.next;
      return;
    }
    while (at !== undefined && at.next !== sp) at = at.next;
    if (at !== undefined) at.next = sp.next;
  }
  /** A host page that is no shadow page. */
  extraPage(): number {
    return this.#frames.page();
  }
  free(sp: ShadowPage): void {
    this.#byPage.delete(sp.hpa / 4096);
    this.#frames.freePage(sp.hpa);
  }
  noteCollisions(n: number): void {
    if (n > this.#stats.max_mmu_page_hash_collisions) this.#stats.max_mmu_page_hash_collisions = n;
  }
}
