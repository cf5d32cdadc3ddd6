/**
 * Reverse maps: from a guest frame to the leaf entries that map it, by level (KVM-3.1; KVM's pte_list).
 *
 * The first entry lies in a typed array, more in a list: most frames have one. Entries are host-physical addresses of
 * sptes; 0 is none.
 */
export class Rmap {
  readonly #first: Float64Array;
  readonly #more = new Map<number, number[]>();

  constructor(frames: number) {
    this.#first = new Float64Array(frames);
  }

  /** Returns the number of entries that were there before. */
  add(frame: number, spte: number): number {
    if (this.#first[frame] === 0) {
      this.#first[frame] = spte;
      return 0;
    }
    const more = this.#more.get(frame);
    if (more === undefined) {
      this.#more.set(frame, [spte]);
      return 1;
    }
    more.push(spte);
    return more.length;
  }
  remove(frame: number, spte: number): void {
    const more = this.#more.get(frame);
    if (this.#first[frame] === spte) {
      this.#first[frame] = more === undefined ? 0 : (more.pop() as number);
    } else if (more !== undefined) {
      const i = more.indexOf(spte);
      more[i] = more[more.length - 1];
      more.pop();
    }
    if (more !== undefined && more.length === 0) this.#more.delete(frame);
  }
  first(frame: number): number {
    return this.#first[frame];
  }
  /** Entries beyond the first. */
  more(frame: number): readonly number[] | undefined {
    return this.#more.get(frame);
  }
}
