/**
 * The TLB contexts of a processor and the operations that invalidate them.
 *
 * SDM volume 3, "Process-Context Identifiers (PCIDs)", "Invalidation of TLBs and Paging-Structure Caches", "Operations
 * that Invalidate Cached Mappings" (VMX). A context is keyed by VPID, EPT root and PCID as the hardware's mappings are,
 * and by the role (paging mode and access-right controls), because cached rights are stated for one role.
 */
import { InvariantError } from '../base/error.js';
import { TLB_CONTEXTS } from './access.js';
import { CACHED } from './paging.js';
import { LAYOUT, type Ram } from './ram.js';
import { CONTEXT_BYTES, TlbContext } from './tlb.js';

if (LAYOUT.tlb + TLB_CONTEXTS * CONTEXT_BYTES > LAYOUT.emptySet)
  throw new InvariantError('the TLB overlaps decoded code');

const CONTEXTS = TLB_CONTEXTS;
/** EPT root of contexts without EPT. */
export const NO_EPT = -1;

export class TlbContexts {
  readonly all: readonly TlbContext[];
  current: TlbContext;
  #clock = 0;

  constructor(ram: Ram) {
    this.all = Array.from(
      { length: TLB_CONTEXTS },
      (_, i) => new TlbContext(ram, LAYOUT.tlb + i * CONTEXT_BYTES),
    );
    this.current = this.all[0];
  }

  /** Makes the context of a key current, in place of the one least recently used if need be. */
  select(vpid: number, ept: number, pcid: number, role: number): TlbContext {
    let oldest = this.all[0];
    for (let i = 0; i < CONTEXTS; i++) {
      const c = this.all[i];
      if (c.pcid === pcid && c.role === role && c.ept === ept && c.vpid === vpid) {
        c.stamp = ++this.#clock;
        this.current = c;
        return c;
      }
      if (c.stamp < oldest.stamp) oldest = c;
    }
    oldest.flush();
    oldest.vpid = vpid;
    oldest.ept = ept;
    oldest.pcid = pcid;
    oldest.role = role;
    oldest.stamp = ++this.#clock;
    this.current = oldest;
    return oldest;
  }

  /** A global translation that another PCID of the current address space has cached, or 0. */
  lookupGlobal(lo: number, hi: number): number {
    const { current } = this;
    for (let i = 0; i < CONTEXTS; i++) {
      const c = this.all[i];
      if (c === current || c.vpid !== current.vpid || c.ept !== current.ept || c.role !== current.role)
        continue;
      const word = c.lookup(lo, hi);
      if ((word & CACHED.g) !== 0) return word;
    }
    return 0;
  }

  /** Drops a page, whatever its size, from the contexts of a VPID, globals included. */
  dropAddress(vpid: number, lo: number, hi: number): void {
    for (const c of this.all) if (c.vpid === vpid) c.invalidate(lo, hi, false);
  }
  /** Drops a page of one PCID, but no global translation. */
  dropAddressOfPcid(vpid: number, pcid: number, lo: number, hi: number): void {
    for (const c of this.all) if (c.vpid === vpid && c.pcid === pcid) c.invalidate(lo, hi, true);
  }
  flushPcid(vpid: number, pcid: number): void {
    for (const c of this.all) if (c.vpid === vpid && c.pcid === pcid) c.flushNonGlobal();
  }
  flushVpid(vpid: number, keepGlobal: boolean): void {
    for (const c of this.all) {
      if (c.vpid !== vpid) continue;
      if (keepGlobal) c.flushNonGlobal();
      else c.flush();
    }
  }
  /** Every VPID but 0000H, as INVVPID type 2. */
  flushGuests(): void {
    for (const c of this.all) if (c.vpid > 0) c.flush();
  }
  /** Mappings through one EPT root, or with `undefined` through any. */
  flushEpt(root: number | undefined): void {
    for (const c of this.all) if (c.ept !== NO_EPT && (root === undefined || c.ept === root)) c.flush();
  }
  flushEverything(): void {
    for (const c of this.all) c.flush();
  }
}
