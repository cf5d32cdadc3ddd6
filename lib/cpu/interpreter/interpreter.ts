/**
 * The interpreter: decoded blocks of records, executed by generated WebAssembly handlers.
 *
 * `run` finds the block at RIP (exec TLB, page table of decoded code, else decode), enters it, and comes back when a
 * handler has left: `S.leave` says why. When a block is left in the middle, the instructions that were charged at its
 * entry and did not retire are given back.
 */
import { isCanonical } from '../../base/bits.js';
import { InvariantError } from '../../base/error.js';
import { decode } from '../../isa/decoder.js';
import type { Insn } from '../../isa/rows.js';
import { LEAVE, S, SEG } from '../../isa/state.js';
import { LEFT, TLB_INDEX_MASK } from '../../memory/access.js';
import type { Mmu } from '../../memory/mmu.js';
import type { Cpu } from '../core.js';
import type { Engine } from '../engine.js';
import type { Helper, HelperTable } from '../helpers.js';
import { segmentLinear } from '../system/segments.js';
import { bulk } from './bulk.js';
import { CodeCache } from './code-cache.js';
import { COMMON, HOT } from './common.js';
import { type Arm, coreModule } from './core-module.js';
import { Handlers } from './handlers.js';
import { ALIGNED_ACCESS, STACK_ACCESS } from './memory-verbs.js';
import { R } from './record.js';

/**
 * Size of the handler table. Ordinary software needs about a thousand handlers; code of random bytes asks for ever new
 * ones, each a module of its own, and is held to this number.
 */
const HANDLER_LIMIT = 4096;

export interface Interpreter extends Engine {
  readonly code: CodeCache;
  readonly handlers: Handlers;
}

const divide128: Helper = (cpu) => {
  const signed = cpu.arg32(3) !== 0;
  const u = ((cpu.arg64(1) << 64n) | cpu.arg64(0)) & ((1n << 128n) - 1n);
  const n = signed ? BigInt.asIntN(128, u) : u;
  const d = signed ? BigInt.asIntN(64, cpu.arg64(2)) : cpu.arg64(2);
  const q = n / d;
  if (signed ? BigInt.asIntN(64, q) !== q : BigInt.asUintN(64, q) !== q) return cpu.fault(0);
  cpu.result64(0, BigInt.asUintN(64, q));
  cpu.result64(1, BigInt.asUintN(64, n - q * d));
  return true;
};

const instructions = (list: string): Insn[] =>
  list
    .trim()
    .split(/\s+/)
    .map((text) => {
      const bytes = Uint8Array.from(Buffer.from(text, 'hex'));
      const insn = decode(bytes, 0, bytes.length, 64);
      if (typeof insn === 'string') throw new InvariantError(`${text} is ${insn}`);
      return insn;
    });

/** Builds the common handlers, in one module; gives the most frequent ones as arms of the run loop. */
const prepare = (handlers: Handlers): Arm[] => {
  const arms: Arm[] = [];
  for (const insn of instructions(HOT)) {
    const before = handlers.count;
    const arm = handlers.arm(insn);
    if (handlers.count !== before) arms.push(arm);
  }
  for (const insn of instructions(COMMON)) handlers.of(insn);
  handlers.keep();
  return arms;
};

export const createInterpreter = (cpu: Cpu, mmu: Mmu, helpers: HelperTable): Interpreter => {
  const { ram } = cpu;
  const { u8, u16, u32, i32 } = ram;
  const AT = cpu.at;
  const RECORD = (AT + S.record) >>> 2;
  const LEAVE_AT = (AT + S.leave) >>> 2;
  const BUDGET = (AT + S.budget) >>> 2;
  const pages = ram.memory.buffer.byteLength / 65536;

  const names = new Map<string, number>();
  const list: Helper[] = [];
  const crossing: Helper = () => {
    const record = u32[RECORD];
    const rip = cpu.rip;
    const mode = cpu.get32(S.mode);
    const lin = mode === 64 ? rip : (rip + cpu.get64(S.segBase + 8 * SEG.cs)) & 0xffff_ffffn;
    const next = (lin & ~4095n) + 4096n;
    const hpa = mmu.fetch(Number(next & 0xffff_ffffn) | 0, Number(BigInt.asUintN(32, next >> 32n)) | 0);
    if (hpa === LEFT) return false;
    if (hpa === u32[(record + R.imm) >>> 2]) return true;
    code.dropBlockAt(record);
    u32[LEAVE_AT] = LEAVE.stale;
    return false;
  };
  const number = (name: string): number => {
    let n = names.get(name);
    if (n !== undefined) return n;
    const helper = name === 'crossing' ? crossing : name === 'divide128' ? divide128 : helpers[name];
    if (helper === undefined) throw new InvariantError(`no helper is called ${name}`);
    n = list.length;
    list.push(helper);
    names.set(name, n);
    return n;
  };

  /** The RIP of the record being executed, into the state. */
  const noteRip = (): void => {
    const record = u32[RECORD];
    const field = u16[(record + R.offset) >>> 1];
    let rip = cpu.get64(S.pageRip) + BigInt(field & 4095);
    let next = rip + BigInt(field >>> 12);
    if (cpu.get32(S.mode) !== 64) {
      rip &= 0xffff_ffffn;
      next &= 0xffff_ffffn;
    }
    cpu.set64(S.rip, rip);
    cpu.set64(S.nextRip, next);
  };
  const charged = (): void => {
    const record = u32[RECORD];
    cpu.charged = u8[record + R.count] - u8[record + R.done];
  };
  const env = {
    memory: ram.memory,
    table: new WebAssembly.Table({ initial: HANDLER_LIMIT, maximum: HANDLER_LIMIT, element: 'anyfunc' }),
    slow: (lo: number, hi: number, word: number): number => {
      const size = word & 0xff;
      charged();
      if ((word & ALIGNED_ACCESS) !== 0 && (lo & (size - 1)) !== 0) {
        cpu.gp(0);
        return LEFT;
      }
      // an operand based on RSP or RBP may come here through its linear address alone
      mmu.stackAccess = (word & STACK_ACCESS) !== 0 || u8[u32[RECORD] + R.segment] === SEG.ss;
      const pointer = mmu.access(lo, hi, size, (word >>> 8) & 3);
      mmu.stackAccess = false;
      return pointer;
    },
    commit: () => mmu.commit(),
    helper: (n: number): number => {
      charged();
      return list[n](cpu) ? 1 : 0;
    },
    fault: (vector: number, code: number): void => {
      cpu.fault(vector, code);
    },
    segmentSlow: (segment: number, offset: number, word: number): number => {
      charged();
      const lin = segmentLinear(cpu, segment, BigInt(offset >>> 0), word & 0xff, (word & 0x100) !== 0);
      if (lin === undefined) return 0;
      cpu.result64(0, lin);
      return 1;
    },
    bulk: (which: number, width: number): number => bulk(cpu, which, width, u32[RECORD]),
  };
  const handlers = new Handlers(env.table, { env }, pages, number);
  const arms = prepare(handlers);
  const core = new WebAssembly.Instance(new WebAssembly.Module(coreModule(pages, HANDLER_LIMIT, arms)), {
    env,
  });
  const runRecords = core.exports['run'] as (record: number) => void;
  const code = new CodeCache(cpu, handlers);
  code.onFlush = () => mmu.renewCodeTables();
  code.onCodePage = (hpa) => mmu.codePageAdded(hpa);
  mmu.codeTable = (hpa, mode) => code.table(hpa, mode);

  /** First record of the block at RIP, or LEFT with a fault or exit recorded. Sets `pageRip`. */
  const find = (): number => {
    const at = (AT + S.rip) >>> 2;
    let lo = u32[at];
    let hi = u32[at + 1];
    if (cpu.get32(S.mode) !== 64) {
      lo = (lo + u32[(AT + S.segBase + 8 * SEG.cs) >>> 2]) >>> 0;
      hi = 0;
    } else if (!isCanonical(lo, hi)) {
      cpu.gp(0);
      return LEFT;
    }
    const offset = lo & 4095;
    const entry = (cpu.get32(S.tlbExec) + ((lo >>> 8) & TLB_INDEX_MASK)) >>> 2;
    let record = 0;
    if (u32[entry] === (lo & ~4095) >>> 0 && u32[entry + 1] === hi)
      record = u32[(u32[entry + 2] >>> 2) + offset];
    if (record === 0) {
      const hpa = mmu.fetch(lo | 0, hi | 0);
      if (hpa === LEFT) return LEFT;
      const page = hpa - (hpa % 4096);
      record = u32[(code.table(page, cpu.get32(S.mode)) >>> 2) + offset];
      if (record === 0) record = code.decode(page, offset, (lo & ~4095) | 0, hi | 0);
      if (record === LEFT) return LEFT;
    }
    cpu.set64(S.pageRip, BigInt.asUintN(64, cpu.get64(S.rip) - BigInt(offset)));
    return record;
  };

  const run = (): void => {
    for (;;) {
      u32[LEAVE_AT] = LEAVE.none;
      const budget = i32[BUDGET];
      if (budget <= 0) {
        u32[LEAVE_AT] = LEAVE.budget;
        return;
      }
      let record = find();
      if (record === LEFT) return;
      let count = u8[record + R.count];
      if (count > budget) {
        record = code.partial(record, budget);
        count = budget;
      }
      i32[BUDGET] = budget - count;
      runRecords(record);
      cpu.charged = 0;
      const leave = u32[LEAVE_AT];
      switch (leave) {
        case LEAVE.lookup:
          break;
        case LEAVE.budget:
          if (i32[BUDGET] <= 0) return;
          break;
        case LEAVE.attention:
          return;
        default: {
          // left in the middle of a block
          const at = u32[RECORD];
          if (leave !== LEAVE.stale) noteRip();
          i32[BUDGET] += u8[at + R.count] - u8[at + R.done];
          if (leave !== LEAVE.stale) return;
        }
      }
    }
  };
  return { name: 'interpreter', run, code, handlers };
};
