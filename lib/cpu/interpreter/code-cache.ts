/**
 * Decoded code: blocks of records by host page and mode.
 *
 * A block is a straight run of instructions within one page; it is found through the page's table (record address by
 * offset). Blocks whose bytes are overwritten are dropped: their records are turned into `stale` ones, so that a block
 * that overwrites itself leaves right after the writing instruction, and the first into an `entry` one, so that links to
 * it look the target up again. A page that is overwritten often is dropped as a whole: it holds data now. An instruction
 * that crosses into the next page is a block of its own behind a `crossing` record, which checks the second page.
 */
import { isCanonical } from '../../base/bits.js';
import { decode } from '../../isa/decoder.js';
import { S, SEG } from '../../isa/state.js';
import { LEFT } from '../../memory/access.js';
import { CODE_TABLES_AT, LAYOUT, RAM_AT } from '../../memory/ram.js';
import type { Cpu } from '../core.js';
import { type Handlers, PSEUDO } from './handlers.js';
import { BLOCK_LIMIT, R, RECORD_BYTES } from './record.js';
import { writeRecord } from './write-record.js';

type Mode = 16 | 32 | 64;

interface Block {
  readonly first: number;
  readonly records: number;
  readonly offset: number;
  /** Behind its last byte in the page. */
  readonly end: number;
  readonly page: CodePage;
}

interface CodePage {
  readonly hpa: number;
  readonly mode: Mode;
  readonly table: number;
  readonly blocks: Block[];
  /** One bit a byte that some decoded instruction covers. */
  readonly covered: Int32Array;
  /** Writes that have hit blocks since the page was last dropped as a whole. */
  hits: number;
  /** Crossing blocks of other pages whose second half is here. */
  readonly crossers: Block[];
}

/** A page that has been written to this often is dropped as a whole. */
const HITS_LIMIT = 16;
/** Bytes of a page in which the second half of an instruction can lie. */
const CROSSING_BYTES = 14;

/** Records for blocks that are cut short by the budget. */
const SCRATCH = LAYOUT.records;
const FIRST_RECORD = SCRATCH + 2 * BLOCK_LIMIT * RECORD_BYTES;
const RECORDS_END = LAYOUT.records + LAYOUT.recordsBytes;

export class CodeCache {
  readonly #cpu: Cpu;
  readonly #handlers: Handlers;
  /** By host page × 4 + mode / 32. */
  readonly #pages = new Map<number, CodePage>();
  #nextRecord = FIRST_RECORD;
  #nextTable = 0;
  /** Called when every table pointer handed out becomes invalid. */
  onFlush: () => void = () => {};
  /** Called with the encoding of the first instruction that needed a handler; `common.ts` is made from it. */
  onNewHandler: ((bytes: Uint8Array, mode: Mode) => void) | undefined;
  /** Called when a page starts to hold decoded code. */
  onCodePage: (hpa: number) => void = () => {};
  /** Blocks decoded and dropped so far. */
  readonly counters = { blocks: 0, instructions: 0, dropped: 0, flushes: 0 };
  readonly #crossing = new Uint8Array(32);

  constructor(cpu: Cpu, handlers: Handlers) {
    this.#cpu = cpu;
    this.#handlers = handlers;
    cpu.ram.onCodeWrite = (hpa, size) => this.written(hpa, size);
  }

  /** The table of a page, for the exec TLB. @param hpa any address in it */
  table(hpa: number, mode: number): number {
    return this.#page(hpa - (hpa % 4096), mode as Mode).table;
  }
  #page(hpa: number, mode: Mode): CodePage {
    const key = (hpa / 4096) * 4 + (mode >> 5);
    let page = this.#pages.get(key);
    if (page === undefined) {
      if (this.#nextTable >= LAYOUT.codeTables) this.flush();
      page = {
        hpa,
        mode,
        table: CODE_TABLES_AT + 16384 * this.#nextTable++,
        blocks: [],
        covered: new Int32Array(128),
        hits: 0,
        crossers: [],
      };
      this.#pages.set(key, page);
    }
    return page;
  }
  /** Forgets everything. */
  flush(): void {
    const { ram } = this.#cpu;
    for (const page of this.#pages.values()) {
      ram.u32.fill(0, page.table >>> 2, (page.table + 16384) >>> 2);
      ram.codePages[page.hpa / 4096] = 0;
    }
    this.#pages.clear();
    this.#nextTable = 0;
    this.#nextRecord = FIRST_RECORD;
    this.counters.flushes++;
    this.onFlush();
  }

  /** Physical bytes of a code page are about to change. */
  written(hpa: number, size: number): void {
    const page = hpa - (hpa % 4096);
    let live = false;
    for (let m = 0; m < 3; m++) {
      const p = this.#pages.get((page / 4096) * 4 + m);
      if (p === undefined) continue;
      if (overlaps(p.covered, hpa - page, size)) this.#overwritten(p, hpa - page, size);
      if (p.blocks.length + p.crossers.length > 0) live = true;
    }
    if (!live) this.#cpu.ram.codePages[page / 4096] = 0;
  }
  #overwritten(p: CodePage, from: number, size: number): void {
    const all = ++p.hits > HITS_LIMIT;
    const keep = (b: Block, at: number, end: number): boolean => {
      if (!all && (end <= from || at >= from + size)) return true;
      this.#forget(b);
      return false;
    };
    const blocks = p.blocks.filter((b) => keep(b, b.offset, b.end));
    const crossers = p.crossers.filter((b) => keep(b, 0, CROSSING_BYTES));
    p.blocks.length = 0;
    p.crossers.length = 0;
    p.covered.fill(0);
    for (const b of blocks) {
      p.blocks.push(b);
      cover(p.covered, b.offset, b.end);
    }
    for (const b of crossers) {
      p.crossers.push(b);
      cover(p.covered, 0, CROSSING_BYTES);
    }
    if (all) p.hits = 0;
    // a cut-short copy may be running
    const { u32 } = this.#cpu.ram;
    for (let r = SCRATCH; r < FIRST_RECORD; r += RECORD_BYTES) u32[r >>> 2] = PSEUDO.stale;
  }
  #forget(b: Block): void {
    const { u32 } = this.#cpu.ram;
    const entry = (b.page.table >>> 2) + b.offset;
    if (u32[entry] === b.first) u32[entry] = 0;
    u32[b.first >>> 2] = PSEUDO.entry;
    for (let i = 1, r = b.first + RECORD_BYTES; i < b.records; i++, r += RECORD_BYTES)
      u32[r >>> 2] = PSEUDO.stale;
    this.counters.dropped++;
  }
  /** Drops one crossing block whose second page is mapped elsewhere now. */
  dropBlockAt(record: number): void {
    for (const p of this.#pages.values()) {
      const i = p.blocks.findIndex((b) => b.first === record);
      if (i < 0) continue;
      this.#forget(p.blocks[i]);
      p.blocks.splice(i, 1);
      return;
    }
  }

  /**
   * Decodes the block at offset `offset` of the page at `hpa`, running at linear page address (lo, hi).
   * @returns its first record, or LEFT with a fault recorded
   */
  decode(hpa: number, offset: number, lo: number, hi: number): number {
    if (
      this.#nextRecord + 2 * BLOCK_LIMIT * RECORD_BYTES > RECORDS_END ||
      this.#nextTable + 2 > LAYOUT.codeTables
    )
      this.flush();
    if (this.#handlers.room < BLOCK_LIMIT) {
      this.flush();
      this.#handlers.forget();
    }
    const cpu = this.#cpu;
    const mode = cpu.get32(S.mode) as Mode;
    const page = this.#page(hpa, mode);
    const bytes = cpu.ram.u8;
    const base = RAM_AT + hpa;
    const limit = mode === 64 ? 4096 : this.#limit(lo);
    const first = this.#nextRecord;
    let at = offset;
    let n = 0;
    let record = first;
    let ended = false;
    while (n < BLOCK_LIMIT && at < limit) {
      const insn = decode(bytes, base + at, limit - at, mode);
      if (typeof insn === 'string') {
        if (insn === 'more' && n === 0) {
          if (limit < 4096) break;
          return this.#decodeCrossing(page, at, lo, hi, mode);
        }
        if (insn === 'more') break;
        this.#plain(
          record,
          insn === 'undefined' ? PSEUDO.undefined : PSEUDO.tooLong,
          at,
          insn === 'undefined' ? 2 : 15,
          n,
        );
        record += RECORD_BYTES;
        n++;
        at = Math.min(at + 1, 4096);
        ended = true;
        break;
      }
      if (insn.row.string !== undefined && insn.rep !== 'none' && n > 0) break;
      const known = this.#handlers.count;
      const handler = this.#handlers.of(insn);
      if (this.#handlers.count !== known)
        this.onNewHandler?.(bytes.slice(base + at, base + at + insn.length), mode);
      writeRecord(cpu, record, insn, handler.index, at, n);
      record += RECORD_BYTES;
      n++;
      at += insn.length;
      if (handler.ends) {
        ended = true;
        break;
      }
    }
    if (n === 0) {
      // the code segment ends here
      this.#plain(record, PSEUDO.tooLong, at, 1, n);
      record += RECORD_BYTES;
      n = 1;
      ended = true;
    }
    if (!ended) {
      this.#plain(record, PSEUDO.next, at === 4096 ? 4095 : at, at === 4096 ? 1 : 0, n);
      record += RECORD_BYTES;
    }
    this.#install(page, first, record, offset, at, n);
    this.#markCode(hpa);
    return first;
  }
  /** End of the code segment within this page, in legacy modes. @param lo linear page address */
  #limit(lo: number): number {
    const cpu = this.#cpu;
    const base = cpu.getNumber(S.segBase + 8 * SEG.cs);
    const end = base + cpu.get32(S.segLimit + 4 * SEG.cs) + 1 - (lo >>> 0);
    return end < 0 ? 0 : Math.min(end, 4096);
  }
  #decodeCrossing(page: CodePage, offset: number, lo: number, hi: number, mode: Mode): number {
    const cpu = this.#cpu;
    const nextLo = (lo + 4096) | 0;
    const nextHi = nextLo === 0 ? (mode === 64 ? (hi + 1) | 0 : 0) : hi;
    if (mode === 64 && !isCanonical(nextLo, nextHi)) {
      cpu.gp(0);
      return LEFT;
    }
    const second = cpu.mmu.fetch(nextLo, nextHi);
    if (second === LEFT) return LEFT;
    const head = 4096 - offset;
    this.#crossing.set(cpu.ram.view(page.hpa + offset, head));
    this.#crossing.set(cpu.ram.view(second, 16), head);
    const insn = decode(this.#crossing, 0, head + 15, mode);
    const first = this.#nextRecord;
    this.#plain(first, PSEUDO.crossing, offset, 1, 0);
    cpu.ram.u32[(first + R.imm) >>> 2] = second;
    const at = first + RECORD_BYTES;
    let end = at + RECORD_BYTES;
    let length = 15;
    if (typeof insn === 'string')
      this.#plain(at, insn === 'undefined' ? PSEUDO.undefined : PSEUDO.tooLong, offset, 2, 0);
    else {
      length = insn.length;
      const handler = this.#handlers.of(insn);
      writeRecord(cpu, at, insn, handler.index, offset, 0);
      if (!handler.ends) {
        this.#plain(end, PSEUDO.next, offset, length, 1);
        end += RECORD_BYTES;
      }
    }
    const block = this.#install(page, first, end, offset, 4096, 1);
    const other = this.#page(second - (second % 4096), mode);
    other.crossers.push(block);
    cover(other.covered, 0, CROSSING_BYTES);
    this.#markCode(page.hpa);
    this.#markCode(other.hpa);
    return first;
  }
  #install(page: CodePage, first: number, end: number, offset: number, last: number, count: number): Block {
    const { u8, u32 } = this.#cpu.ram;
    for (let r = first; r < end; r += RECORD_BYTES) u8[r + R.count] = count;
    this.#nextRecord = end;
    const block = { first, records: (end - first) / RECORD_BYTES, offset, end: last, page };
    page.blocks.push(block);
    cover(page.covered, offset, last);
    this.#handlers.flush();
    u32[(page.table >>> 2) + offset] = first;
    this.counters.blocks++;
    this.counters.instructions += count;
    return block;
  }
  #markCode(hpa: number): void {
    const { codePages } = this.#cpu.ram;
    if (codePages[hpa / 4096] !== 0) return;
    codePages[hpa / 4096] = 1;
    this.onCodePage(hpa);
  }
  #plain(record: number, handler: number, offset: number, length: number, done: number): void {
    const { u8, u16, u32 } = this.#cpu.ram;
    u32.fill(0, record >>> 2, (record + RECORD_BYTES) >>> 2);
    u32[record >>> 2] = handler;
    u16[(record + R.offset) >>> 1] = offset | (length << 12);
    u8[record + R.done] = done;
  }
  /** A copy of the first `budget` instructions of the block at `record`, ending with a stop. */
  partial(record: number, budget: number): number {
    const { u8, u16, u32 } = this.#cpu.ram;
    let from = record;
    let to = SCRATCH;
    while (u8[from + R.done] < budget) {
      u8.copyWithin(to, from, from + RECORD_BYTES);
      u8[to + R.count] = budget;
      from += RECORD_BYTES;
      to += RECORD_BYTES;
    }
    u32.fill(0, to >>> 2, (to + RECORD_BYTES) >>> 2);
    u32[to >>> 2] = PSEUDO.stop;
    u16[(to + R.offset) >>> 1] = u16[(from + R.offset) >>> 1];
    u8[to + R.done] = budget;
    u8[to + R.count] = budget;
    return SCRATCH;
  }
}

const cover = (map: Int32Array, from: number, to: number): void => {
  for (let i = from; i < to; ) {
    const bit = i & 31;
    const n = Math.min(32 - bit, to - i);
    map[i >>> 5] |= (n === 32 ? -1 : (1 << n) - 1) << bit;
    i += n;
  }
};
const overlaps = (map: Int32Array, from: number, size: number): boolean => {
  for (let i = from; i < from + size; i++) if ((map[i >>> 5] & (1 << (i & 31))) !== 0) return true;
  return false;
};
