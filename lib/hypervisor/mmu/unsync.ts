/**
 * Marks of what is out of sync: a level-1 table the guest may have written, and the path of bits above it
 * (KVM-3.1, KVM-3.4; KVM's mark_unsync, mmu_unsync_walk and mmu_pages_clear_parents).
 */
import type { ShadowContext } from './context.js';
import type { ShadowPage } from './pages.js';
import { shadowPageFields } from './trace.js';

const setBit = (m: ShadowContext, parentEntry: number): void => {
  const parent = m.pages.at(parentEntry);
  const bits = parent.unsyncBits as Uint32Array;
  const index = (parentEntry & 0xfff) >>> 3;
  const mask = 1 << (index & 31);
  if ((bits[index >>> 5] & mask) !== 0) return;
  bits[index >>> 5] |= mask;
  if (parent.unsyncChildren++ !== 0) return;
  markParents(m, parent);
};
/** Something below `sp` (or `sp` itself) is unsync: tells everything that points to it. */
const markParents = (m: ShadowContext, sp: ShadowPage): void => {
  for (const entry of sp.parents) setBit(m, entry);
};
export const markEntryUnsync = setBit;

export const clearChildBit = (sp: ShadowPage, index: number): void => {
  const bits = sp.unsyncBits as Uint32Array;
  const mask = 1 << (index & 31);
  if ((bits[index >>> 5] & mask) === 0) return;
  bits[index >>> 5] &= ~mask;
  sp.unsyncChildren--;
};

/** kvm_unsync_page. */
export const markUnsync = (m: ShadowContext, sp: ShadowPage): void => {
  m.trace.sinks.kvm_mmu_unsync_page?.(shadowPageFields(sp));
  m.stats.mmu_unsync = ++m.unsyncPages;
  sp.unsync = true;
  markParents(m, sp);
};
/** kvm_unlink_unsync_page. */
export const markSynced = (m: ShadowContext, sp: ShadowPage): void => {
  m.trace.sinks.kvm_mmu_sync_page?.(shadowPageFields(sp));
  m.stats.mmu_unsync = --m.unsyncPages;
  sp.unsync = false;
};

/** Pages, upper ones included, that one round of a walk collects (KVM's KVM_PAGE_ARRAY_NR); it bounds a round's flushes. */
const ROUND = 16;

/** Unsync leaves below a page, with the path to each. */
export class UnsyncRound {
  #nodes = 0;
  count = 0;
  readonly leaves: ShadowPage[] = [];
  /** For each leaf, from its parent up: table and index. */
  readonly #tables: ShadowPage[][] = [];
  readonly #indexes: number[][] = [];
  readonly #path: ShadowPage[] = [];
  readonly #at: number[] = [];

  /** mmu_unsync_walk: true when something was found. */
  collect(m: ShadowContext, from: ShadowPage): boolean {
    this.count = 0;
    this.#nodes = 1;
    this.#path.length = 0;
    this.#at.length = 0;
    if (from.unsyncChildren === 0) return false;
    return this.#walk(m, from) !== 0;
  }
  /** Leaves found below, or -1 when the round is full. */
  #walk(m: ShadowContext, sp: ShadowPage): number {
    const bits = sp.unsyncBits as Uint32Array;
    let found = 0;
    this.#path.push(sp);
    for (let word = 0; word < 16; word++) {
      if (bits[word] === 0) continue;
      for (let bit = 0; bit < 32; bit++) {
        if ((bits[word] & (1 << bit)) === 0) continue;
        const index = word * 32 + bit;
        const child = m.child(sp.hpa + index * 8, sp.level);
        if (child === undefined) {
          clearChildBit(sp, index);
          continue;
        }
        if (child.unsyncChildren > 0) {
          if (++this.#nodes === ROUND) return -1;
          this.#at.push(index);
          const below = this.#walk(m, child);
          if (below < 0) return -1;
          this.#at.pop();
          if (below === 0) clearChildBit(sp, index);
          found += below;
        } else if (child.unsync) {
          found++;
          if (!this.#has(child)) {
            this.#add(child, index);
            if (++this.#nodes === ROUND) return -1;
          }
        } else {
          clearChildBit(sp, index);
        }
      }
    }
    this.#path.pop();
    return found;
  }
  #has(sp: ShadowPage): boolean {
    for (let i = 0; i < this.count; i++) if (this.leaves[i] === sp) return true;
    return false;
  }
  #add(sp: ShadowPage, index: number): void {
    this.leaves[this.count] = sp;
    this.#tables[this.count] = [...this.#path].reverse();
    this.#indexes[this.count] = [index, ...[...this.#at].reverse()];
    this.count++;
  }
  /** mmu_pages_clear_parents: leaf `i` is done; its bit goes, and those above as far as nothing else is unsync. */
  clearParents(i: number): void {
    const tables = this.#tables[i];
    const indexes = this.#indexes[i];
    for (let up = 0; up < tables.length; up++) {
      clearChildBit(tables[up], indexes[up]);
      if (tables[up].unsyncChildren > 0) return;
    }
  }
}
