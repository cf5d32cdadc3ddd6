/**
 * What is known of each guest frame: how many upper tables it holds (write tracking, KVM-3.1) and how many shadowed
 * tables lie in each 2 MiB region, which forbids a large page there (KVM-3.5). 1 GiB regions are never backed as such.
 */
import type { MemorySlots } from '../memslots.js';

export class GuestFrames {
  /** Frame numbers below this may be in a slot. */
  readonly end: number;
  readonly #slots: MemorySlots;
  readonly #tracked: Uint16Array;
  readonly #disallowLarge: Uint16Array;

  constructor(slots: MemorySlots) {
    this.#slots = slots;
    const last = slots.slots.at(-1);
    this.end = last === undefined ? 0 : (last.gpa + last.bytes) / 4096;
    this.#tracked = new Uint16Array(this.end);
    this.#disallowLarge = new Uint16Array((this.end >>> 9) + 1);
  }
  /** Writes to the frame are emulated: it holds an upper table. */
  tracked(gfn: number): boolean {
    return gfn < this.end && this.#tracked[gfn] !== 0;
  }
  /** account_shadowed and unaccount_shadowed, without the write protection. @param by 1 or -1 */
  account(gfn: number, level: number, by: number): void {
    if (level > 1) this.#tracked[gfn] += by;
    this.#disallowLarge[gfn >>> 9] += by;
  }
  /** kvm_mmu_max_mapping_level: the largest page, up to `most`, that the host and the shadowed tables allow. */
  largestLevel(gfn: number, most: number): 1 | 2 {
    return most > 1 && this.#disallowLarge[gfn >>> 9] === 0 && this.#slots.canMap2M(gfn) ? 2 : 1;
  }
}
