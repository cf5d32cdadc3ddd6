/**
 * The TLB of one address-space context: translations as walks found them, and the inline sets made from them.
 *
 * SDM volume 3, "Caching Translation Information". Translations are kept for all privileges together, 1024 × 2 ways of
 * 4 KiB pages and 128 × 2 ways of 2 MiB pages, replaced in turn. The inline sets (`access.ts`), one for each privilege
 * and access kind, hold only what is also here: so the walks a program makes do not depend on the engine that runs it.
 * There is no paging-structure cache.
 */
import { TLB_ENTRIES, TLB_INDEX_MASK, TLB_PRIVILEGES, TLB_SET_BYTES } from './access.js';
import { CACHED } from './paging.js';
import type { Ram } from './ram.js';

/** Inline sets of a context: 3 kinds × 3 privileges; set number = kind × 3 + privilege. */
export const SETS = 3 * TLB_PRIVILEGES;
export const SET = { read: 0, write: TLB_PRIVILEGES, exec: 2 * TLB_PRIVILEGES } as const;
/** Bytes of inline sets of one context. */
export const CONTEXT_BYTES = SETS * TLB_SET_BYTES;

const LARGE_SETS = 128;
// Constants of the hot loops.
const ENTRIES = TLB_ENTRIES;
const SET_BYTES = TLB_SET_BYTES;
const INDEX_MASK = TLB_INDEX_MASK;
const { g: GLOBAL, page: PAGE, part2m: PART_2M, part1g: PART_1G } = CACHED;
const NONE = -1;

/** Number of a linear page of 4 KiB, and of 2 MiB. */
const pageNumber = (lo: number, hi: number): number => (hi >>> 0) * 0x10_0000 + (lo >>> 12);
const largeNumber = (lo: number, hi: number): number => (hi >>> 0) * 0x800 + (lo >>> 21);
/** log2 of how many numbers a 1 GiB page spans. */
const GIB = { small: 2 ** 18, large: 2 ** 9 } as const;

export class TlbContext {
  readonly #ram: Ram;
  readonly #u32: Uint32Array;
  /** Linear-memory address of set 0. */
  readonly at: number;
  // the key
  vpid = -1;
  ept = NONE;
  pcid = 0;
  role = 0;
  /** When it was last selected. */
  stamp = 0;
  /** Code size for which the exec sets of user and supervisor were filled. */
  readonly execMode = new Uint8Array(2);

  readonly #tags = new Float64Array(2 * ENTRIES).fill(NONE);
  readonly #words = new Uint32Array(2 * ENTRIES);
  readonly #turn = new Uint8Array(ENTRIES);
  readonly #largeTags = new Float64Array(2 * LARGE_SETS).fill(NONE);
  readonly #largeWords = new Uint32Array(2 * LARGE_SETS);
  readonly #largeTurn = new Uint8Array(LARGE_SETS);
  /** Anything cached at all; any 2 MiB page or part of one; any part of a page of more than 2 MiB. */
  #used = false;
  #parts2m = false;
  #parts1g = false;
  /** Slots filled in each inline set since it was empty; a count of ENTRIES says nothing about which. */
  readonly #slots = new Uint16Array(SETS * ENTRIES);
  readonly #counts = new Uint16Array(SETS);

  constructor(ram: Ram, at: number) {
    this.#ram = ram;
    this.#u32 = ram.u32;
    this.at = at;
    for (let i = 0; i < SETS * ENTRIES; i++) this.#empty((at >>> 2) + 4 * i);
  }

  #empty(i: number): void {
    this.#u32[i] = 1;
    this.#u32[i + 1] = 0;
  }

  /** The cached translation of a page as a 4 KiB `CACHED` word, or 0. */
  lookup(lo: number, hi: number): number {
    const n = pageNumber(lo, hi);
    const i = (n & (ENTRIES - 1)) * 2;
    if (this.#tags[i] === n) return this.#words[i];
    if (this.#tags[i + 1] === n) return this.#words[i + 1];
    const l = largeNumber(lo, hi);
    const j = (l & (LARGE_SETS - 1)) * 2;
    if (this.#largeTags[j] === l) return this.#largeWords[j] + ((lo >>> 12) & 511);
    if (this.#largeTags[j + 1] === l) return this.#largeWords[j + 1] + ((lo >>> 12) & 511);
    return 0;
  }

  /** Enters a translation of 2^shift bytes in place of any older one of the page. `word` is for the start of it. */
  insert(lo: number, hi: number, word: number, shift: number): void {
    this.dropPage(lo, hi);
    this.#used = true;
    if ((word & PART_1G) !== 0) this.#parts1g = true;
    if (shift === 21) {
      this.#parts2m = true;
      const l = largeNumber(lo, hi);
      const set = l & (LARGE_SETS - 1);
      let j = set * 2;
      if (this.#largeTags[j] !== NONE) {
        if (this.#largeTags[j + 1] === NONE) j++;
        else {
          this.#largeTurn[set] ^= 1;
          j += this.#largeTurn[set];
          this.#dropLargeEntry(j);
        }
      }
      this.#largeTags[j] = l;
      this.#largeWords[j] = word;
      return;
    }
    if ((word & PART_2M) !== 0) this.#parts2m = true;
    const n = pageNumber(lo, hi);
    const set = n & (ENTRIES - 1);
    let i = set * 2;
    if (this.#tags[i] !== NONE) {
      if (this.#tags[i + 1] === NONE) i++;
      else {
        this.#turn[set] ^= 1;
        i += this.#turn[set];
        this.#dropEntry(i);
      }
    }
    this.#tags[i] = n;
    this.#words[i] = word;
  }

  #dropEntry(i: number): void {
    const n = this.#tags[i];
    this.#tags[i] = NONE;
    this.#dropInline((n % 0x10_0000) << 12, Math.floor(n / 0x10_0000) | 0);
  }
  #dropLargeEntry(j: number): void {
    const l = this.#largeTags[j];
    this.#largeTags[j] = NONE;
    this.#dropInlineLarge((l % 0x800) << 21, Math.floor(l / 0x800) | 0);
  }
  /** Empties one page's entries in every inline set. */
  #dropInline(lo: number, hi: number): void {
    const tag = (lo & ~0xfff) >>> 0;
    const high = hi >>> 0;
    let i = (this.at + ((lo >>> 8) & INDEX_MASK)) >>> 2;
    for (let s = 0; s < SETS; s++, i += SET_BYTES / 4) {
      if (this.#u32[i] === tag && this.#u32[i + 1] === high) this.#empty(i);
    }
  }
  /** Empties the inline entries of all pages within 2 MiB. */
  #dropInlineLarge(lo: number, hi: number): void {
    const tag = (lo & ~0x1f_ffff) >>> 0;
    const high = hi >>> 0;
    const first = (this.at + ((tag >>> 8) & INDEX_MASK)) >>> 2;
    for (let s = 0; s < SETS; s++) {
      for (let i = first + (s * SET_BYTES) / 4, k = 0; k < 512; k++, i += 4) {
        if ((this.#u32[i] & 0xffe0_0fff) >>> 0 === tag && this.#u32[i + 1] === high) this.#empty(i);
      }
    }
  }

  /** Drops what is cached for the 4 KiB around an address, with the 2 MiB entry that gives it. */
  dropPage(lo: number, hi: number): void {
    if (!this.#used) return;
    const n = pageNumber(lo, hi);
    const i = (n & (ENTRIES - 1)) * 2;
    if (this.#tags[i] === n) this.#dropEntry(i);
    else if (this.#tags[i + 1] === n) this.#dropEntry(i + 1);
    if (!this.#parts2m) return;
    const l = largeNumber(lo, hi);
    const j = (l & (LARGE_SETS - 1)) * 2;
    if (this.#largeTags[j] === l) this.#dropLargeEntry(j);
    else if (this.#largeTags[j + 1] === l) this.#dropLargeEntry(j + 1);
  }

  /**
   * Drops what is cached for the page, of whatever size the guest's page is, that holds an address.
   * @param keepGlobal global translations stay
   */
  invalidate(lo: number, hi: number, keepGlobal: boolean): void {
    if (!this.#used) return;
    if (!keepGlobal || (this.lookup(lo, hi) & GLOBAL) === 0) this.dropPage(lo, hi);
    if (this.#parts2m) this.#dropParts(largeNumber(lo, hi) * 512, 512, PART_2M, keepGlobal);
    if (this.#parts1g) {
      const gib = Math.floor(pageNumber(lo, hi) / GIB.small);
      this.#dropParts(gib * GIB.small, GIB.small, PART_1G, keepGlobal);
      for (let j = 0; j < 2 * LARGE_SETS; j++) {
        if (Math.floor(this.#largeTags[j] / GIB.large) !== gib || (this.#largeWords[j] & PART_1G) === 0)
          continue;
        if (!keepGlobal || (this.#largeWords[j] & GLOBAL) === 0) this.#dropLargeEntry(j);
      }
    }
  }
  /** Drops the 4 KiB parts that carry `mark` among `count` pages from page number `first`. */
  #dropParts(first: number, count: number, mark: number, keepGlobal: boolean): void {
    const from = count < ENTRIES ? (first & (ENTRIES - 1)) * 2 : 0;
    const to = count < ENTRIES ? from + 2 * count : 2 * ENTRIES;
    for (let i = from; i < to; i++) {
      const n = this.#tags[i];
      if (n < first || n >= first + count || (this.#words[i] & mark) === 0) continue;
      if (!keepGlobal || (this.#words[i] & GLOBAL) === 0) this.#dropEntry(i);
    }
  }

  /** Drops everything. */
  flush(): void {
    if (!this.#used) return;
    this.#used = false;
    this.#parts2m = false;
    this.#parts1g = false;
    this.#tags.fill(NONE);
    this.#largeTags.fill(NONE);
    for (let s = 0; s < SETS; s++) this.#emptySet(s);
  }
  /** Drops everything but global translations. */
  flushNonGlobal(): void {
    if (!this.#used) return;
    for (let i = 0; i < 2 * ENTRIES; i++) if ((this.#words[i] & GLOBAL) === 0) this.#tags[i] = NONE;
    for (let j = 0; j < 2 * LARGE_SETS; j++) {
      if ((this.#largeWords[j] & GLOBAL) === 0) this.#largeTags[j] = NONE;
    }
    for (let s = 0; s < SETS; s++) {
      const base = (this.at + s * SET_BYTES) >>> 2;
      const count = this.#counts[s];
      const list = s * ENTRIES;
      if (count === ENTRIES) {
        for (let k = 0; k < ENTRIES; k++) this.#emptyUnlessGlobal(base + 4 * k);
        continue;
      }
      let kept = 0;
      for (let k = 0; k < count; k++) {
        const slot = this.#slots[list + k];
        if (this.#emptyUnlessGlobal(base + 4 * slot)) this.#slots[list + kept++] = slot;
      }
      this.#counts[s] = kept;
    }
  }
  #emptyUnlessGlobal(i: number): boolean {
    if ((this.#u32[i] & 1) !== 0) return false;
    if ((this.#u32[i + 3] & GLOBAL) !== 0) return true;
    this.#empty(i);
    return false;
  }
  #emptySet(s: number): void {
    const base = (this.at + s * SET_BYTES) >>> 2;
    const count = this.#counts[s];
    const list = s * ENTRIES;
    if (count === ENTRIES) for (let k = 0; k < ENTRIES; k++) this.#empty(base + 4 * k);
    else for (let k = 0; k < count; k++) this.#empty(base + 4 * this.#slots[list + k]);
    this.#counts[s] = 0;
  }

  /** Fills an inline entry. @param addend as the set's kind asks */
  fill(set: number, lo: number, hi: number, word: number, addend: number): void {
    const offset = (lo >>> 8) & INDEX_MASK;
    const i = (this.at + set * SET_BYTES + offset) >>> 2;
    if ((this.#u32[i] & 1) !== 0 && this.#counts[set] < ENTRIES) {
      this.#slots[set * ENTRIES + this.#counts[set]++] = offset >>> 4;
    }
    this.#u32[i] = lo & ~0xfff;
    this.#u32[i + 1] = hi;
    this.#u32[i + 2] = addend;
    this.#u32[i + 3] = word;
  }
  /** Fills a read or write entry: the addend leads from the linear address to host RAM. */
  fillData(set: number, lo: number, hi: number, word: number): void {
    const to = this.#ram.base + (word & PAGE) * 4096;
    this.fill(set, lo, hi, word, to - ((lo & ~0xfff) >>> 0));
  }

  /** Empties the exec set of user (0) or supervisor (1) code when it was filled for another code size. */
  useExecMode(privilege: 0 | 1, mode: number): void {
    if (this.execMode[privilege] === mode) return;
    this.execMode[privilege] = mode;
    this.#emptySet(SET.exec + privilege);
  }
  /** Calls `visit` with the index (into `ram.u32`) of every filled entry of a set. */
  #each(s: number, visit: (i: number) => void): void {
    const base = (this.at + s * SET_BYTES) >>> 2;
    const count = this.#counts[s];
    for (let k = 0; k < count; k++) {
      const i = base + 4 * (count === ENTRIES ? k : this.#slots[s * ENTRIES + k]);
      if ((this.#u32[i] & 1) === 0) visit(i);
    }
  }
  /** Empties the inline write entries of a host page; its translations stay. */
  dropWrites(page: number): void {
    for (let p = 0; p < TLB_PRIVILEGES; p++) {
      this.#each(SET.write + p, (i) => {
        if ((this.#u32[i + 3] & PAGE) === page) this.#empty(i);
      });
    }
  }
  /** Asks anew for the code table of every page in the exec sets. */
  renewExec(codeTable: (hpa: number, mode: number) => number): void {
    for (const p of [0, 1] as const) {
      this.#each(SET.exec + p, (i) => {
        this.#u32[i + 2] = codeTable((this.#u32[i + 3] & PAGE) * 4096, this.execMode[p]);
      });
    }
  }
}
