/**
 * Ranges of guest-physical memory while a guest is put together: overlaps are found, and free places.
 */
import { alignUp, hex } from '../base/bits.js';
import { LabError } from '../base/error.js';

export interface Range {
  readonly gpa: number;
  readonly size: number;
  /** What it is, for messages. */
  readonly what: string;
}

export class Ranges {
  readonly #used: Range[] = [];

  /** @throws LabError `loader.overlap` when it meets an earlier range */
  add(range: Range): void {
    if (range.size === 0) return;
    const other = this.#used.find((r) => range.gpa < r.gpa + r.size && r.gpa < range.gpa + range.size);
    if (other !== undefined) {
      throw new LabError(
        'loader.overlap',
        `${range.what} at ${hex(range.gpa)} + ${range.size} overlaps ${other.what} at ${hex(other.gpa)} + ${other.size}`,
      );
    }
    this.#used.push(range);
  }

  /** The lowest free place of `size` bytes in [from, to), taken at once; undefined when there is none. */
  place(size: number, align: number, from: number, to: number, what: string): number | undefined {
    let gpa = alignUp(from, align);
    for (const r of [...this.#used].sort((a, b) => a.gpa - b.gpa)) {
      if (gpa < r.gpa + r.size && r.gpa < gpa + size) gpa = alignUp(r.gpa + r.size, align);
    }
    if (gpa + size > to) return undefined;
    this.#used.push({ gpa, size, what });
    return gpa;
  }

  /** End of the highest range. */
  get end(): number {
    return Math.max(0, ...this.#used.map((r) => r.gpa + r.size));
  }
}
