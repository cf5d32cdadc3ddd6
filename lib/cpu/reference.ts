/**
 * The reference engine: fetches, decodes and executes one instruction after the other, slow and obvious.
 *
 * It looks the code page up only where the interpreter does (on entry, when RIP reaches another page, after a row that
 * `ends` a block), so that both make the same page walks. SDM volume 3, "Protection", for the checks before `sem`.
 * Not modelled: alignment checking (#AC), RF, and breakpoints; single-stepping is the run loop's.
 */
import { InvariantError } from '../base/error.js';
import { decode } from '../isa/decoder.js';
import type { Insn } from '../isa/rows.js';
import { CR0, FLAG, LEAVE, S, SEG, STATE_BYTES, VECTOR } from '../isa/state.js';
import { ACCESS, LEFT, TLB_INDEX_MASK } from '../memory/access.js';
import type { Cpu } from './core.js';
import type { Engine } from './engine.js';
import type { HelperTable } from './helpers.js';
import { operandOf } from './operands.js';
import {
  type Environment,
  type InsnState,
  Leaving,
  type MemoryPort,
  ReferenceOps,
  recordFault,
} from './reference-ops.js';
import { segmentLinear32 } from './system/segments.js';

export type { Environment, InsnState, MemoryPort } from './reference-ops.js';

/** `left`: a fault or VM exit is recorded; `budget`: a REP instruction stopped between iterations. RIP stays in both. */
export type Outcome = 'done' | 'left' | 'budget';

const sequential = (rip: bigint, insn: Insn): bigint =>
  BigInt.asUintN(insn.mode === 64 ? 64 : 32, rip + BigInt(insn.length));

/**
 * Executes one decoded instruction at `S.rip` of `env.state`, without fetch and privilege checks, and charges it to
 * `S.budget`. On `done`, RIP is where execution continues.
 */
export const executeInsn = (insn: Insn, env: Environment): Outcome => {
  const { state } = env;
  state.set64(S.nextRip, sequential(state.get64(S.rip), insn));
  const o = new ReferenceOps(env, insn);
  const { row } = insn;
  const sem = row.semCc === undefined ? row.sem : row.semCc(insn.cc);
  try {
    sem(o, ...insn.operands.map((op) => operandOf(o, op)));
  } catch (e) {
    if (e instanceof Leaving) return e.why === 'event' ? 'left' : 'budget';
    throw e;
  }
  state.set64(S.rip, state.get64(S.nextRip));
  state.set32(S.budget, (state.get32(S.budget) | 0) - 1);
  return 'done';
};

const UNIT = { x87: 'checkX87', mmx: 'checkMmx', sse: 'checkSse', wait: 'checkWait' } as const;

/** The checks of a row that come before its semantics; false with a fault or exit recorded. */
export const checkInsn = (insn: Insn, env: Environment): boolean => {
  const { state } = env;
  const { row } = insn;
  const fail = (vector: number, code: number): false => {
    recordFault(state, vector, code);
    return false;
  };
  if (row.modes === 'protected') {
    const real = (state.get64(S.cr0) & BigInt(CR0.pe)) === 0n;
    if (real || (state.get32(S.eflags) & FLAG.vm) !== 0) return fail(VECTOR.ud, -1);
  }
  if (row.unit !== undefined && !env.helper(UNIT[row.unit])) return false;
  if (row.cpl !== undefined && state.get32(S.cpl) > row.cpl) return fail(VECTOR.gp, 0);
  return true;
};

/** A state of its own in the layout of `S`, for an emulator that works on a copy of a guest's registers. */
export class StateBlock implements InsnState {
  readonly #u32: Uint32Array;
  readonly #u64: BigUint64Array;
  constructor() {
    const buffer = new ArrayBuffer(STATE_BYTES);
    this.#u32 = new Uint32Array(buffer);
    this.#u64 = new BigUint64Array(buffer);
  }
  get32(offset: number): number {
    return this.#u32[offset >>> 2];
  }
  set32(offset: number, v: number): void {
    this.#u32[offset >>> 2] = v;
  }
  get64(offset: number): bigint {
    return this.#u64[offset >>> 3];
  }
  set64(offset: number, v: bigint): void {
    this.#u64[offset >>> 3] = v;
  }
  gpr(i: number): bigint {
    return this.#u64[i];
  }
  setGpr(i: number, v: bigint): void {
    this.#u64[i] = v;
  }
}

const low = (linear: bigint): number => Number(BigInt.asUintN(32, linear)) | 0;
const high = (linear: bigint): number => Number(BigInt.asUintN(32, linear >> 32n)) | 0;

/** The processor's memory: the inline TLB lookup of the interpreter, then `mmu.access`. */
class CpuMemory implements MemoryPort {
  readonly #cpu: Cpu;
  readonly #view: DataView;
  constructor(cpu: Cpu) {
    this.#cpu = cpu;
    this.#view = new DataView(cpu.ram.memory.buffer);
  }
  #pointer(linear: bigint, bytes: number, set: number, kind: number, stack: boolean): number {
    const cpu = this.#cpu;
    const lin = BigInt.asUintN(64, linear);
    const entry = cpu.get32(set) + (Number((lin >> 8n) & BigInt(TLB_INDEX_MASK)) | 0);
    if (cpu.u64[entry >>> 3] === BigInt.asUintN(64, (lin + BigInt(bytes - 1)) & ~0xfffn)) {
      return (cpu.u32[(entry + 8) >>> 2] + low(lin)) >>> 0;
    }
    cpu.mmu.stackAccess = stack;
    const p = cpu.mmu.access(low(lin), high(lin), bytes, kind);
    cpu.mmu.stackAccess = false;
    return p === LEFT ? LEFT : p >>> 0;
  }
  #read(p: number, bytes: number): bigint {
    let v = 0n;
    for (let i = bytes - 1; i >= 0; i--) v = (v << 8n) | BigInt(this.#view.getUint8(p + i));
    return v;
  }
  #write(p: number, bytes: number, v: bigint): void {
    for (let i = 0; i < bytes; i++) this.#view.setUint8(p + i, Number((v >> BigInt(8 * i)) & 0xffn));
    if (p === this.#cpu.at + S.bounce) this.#cpu.mmu.commit();
  }
  load(linear: bigint, bytes: number, stack: boolean): bigint | typeof LEFT {
    const p = this.#pointer(linear, bytes, S.tlbRead, ACCESS.read, stack);
    return p === LEFT ? LEFT : this.#read(p, bytes);
  }
  store(linear: bigint, bytes: number, v: bigint, stack: boolean): boolean {
    const p = this.#pointer(linear, bytes, S.tlbWrite, ACCESS.write, stack);
    if (p === LEFT) return false;
    this.#write(p, bytes, v);
    return true;
  }
  rmw(linear: bigint, bytes: number, change: (old: bigint) => bigint, stack: boolean): bigint | typeof LEFT {
    const p = this.#pointer(linear, bytes, S.tlbWrite, ACCESS.rmw, stack);
    if (p === LEFT) return LEFT;
    const old = this.#read(p, bytes);
    this.#write(p, bytes, change(old));
    return old;
  }
}

class CpuEnvironment implements Environment {
  readonly state: Cpu;
  readonly memory: MemoryPort;
  readonly #helpers: HelperTable;
  constructor(cpu: Cpu, helpers: HelperTable) {
    this.state = cpu;
    this.memory = new CpuMemory(cpu);
    this.#helpers = helpers;
  }
  helper(name: string): boolean {
    const helper = this.#helpers[name];
    if (helper === undefined) throw new InvariantError(`there is no helper ${name}`);
    return helper(this.state);
  }
  segment(seg: number, offset: number, bytes: number, write: boolean): number {
    return segmentLinear32(this.state, seg, offset, bytes, write);
  }
}

const NO_PAGE = -1n;

class ReferenceEngine implements Engine {
  readonly name = 'reference';
  readonly #cpu: Cpu;
  readonly #env: CpuEnvironment;
  /** Linear address of the page that RIP was last looked up in, and where it lies in host memory. */
  #page = NO_PAGE;
  #pageAt = 0;
  readonly #bytes = new Uint8Array(16);

  constructor(cpu: Cpu, helpers: HelperTable) {
    this.#cpu = cpu;
    this.#env = new CpuEnvironment(cpu, helpers);
  }

  #byte(hpa: number): number {
    return this.#cpu.ram.has(hpa) ? this.#cpu.ram.read8(hpa) : 0xff;
  }
  #fault(vector: number, code = -1): undefined {
    this.#cpu.fault(vector, code);
    return undefined;
  }

  /** The instruction at RIP, or undefined with an event recorded. */
  #fetch(): Insn | undefined {
    const cpu = this.#cpu;
    const mode = cpu.get32(S.mode) as 16 | 32 | 64;
    const rip = cpu.rip;
    const base = mode === 64 ? 0 : cpu.getNumber(S.segBase + 8 * SEG.cs);
    // not a conditional of two 64-bit values: V8 of Node 20 aborts when one is shifted in optimised code
    const linear = BigInt.asUintN(mode === 64 ? 64 : 32, rip + BigInt(base));
    let allowed = 16;
    if (mode !== 64) {
      const beyond = BigInt(cpu.get32(S.segLimit + 4 * SEG.cs)) - rip + 1n;
      if (beyond <= 0n) return this.#fault(VECTOR.gp, 0);
      if (beyond < 16n) allowed = Number(beyond);
    }
    const page = linear & ~0xfffn;
    if (page !== this.#page) {
      const hpa = cpu.mmu.fetch(low(linear), high(linear));
      if (hpa === LEFT) return undefined;
      this.#page = page;
      this.#pageAt = hpa - (hpa % 4096);
    }
    const offset = Number(linear & 0xfffn);
    const bytes = this.#bytes;
    const here = Math.min(allowed, 4096 - offset);
    const count = Math.min(here, 15);
    for (let i = 0; i < count; i++) bytes[i] = this.#byte(this.#pageAt + offset + i);
    let insn = decode(bytes, 0, count, mode);
    if (insn === 'more' && here < allowed) {
      const next = BigInt.asUintN(mode === 64 ? 64 : 32, page + 4096n);
      const hpa = cpu.mmu.fetch(low(next), high(next));
      if (hpa === LEFT) return undefined;
      const total = Math.min(allowed, 15);
      for (let i = count; i < total; i++) bytes[i] = this.#byte(hpa + i - count);
      insn = decode(bytes, 0, total, mode);
    }
    if (insn === 'undefined') return this.#fault(VECTOR.ud);
    if (insn === 'more' || insn === 'too-long') return this.#fault(VECTOR.gp, 0);
    return insn;
  }

  run(): void {
    const cpu = this.#cpu;
    const env = this.#env;
    cpu.set32(S.leave, LEAVE.none);
    cpu.charged = 0;
    this.#page = NO_PAGE;
    for (;;) {
      if ((cpu.get32(S.budget) | 0) <= 0) {
        cpu.set32(S.leave, LEAVE.budget);
        return;
      }
      const insn = this.#fetch();
      if (insn === undefined) return;
      cpu.nextRip = sequential(cpu.rip, insn);
      if (!checkInsn(insn, env)) return;
      const outcome = executeInsn(insn, env);
      if (outcome === 'budget') cpu.set32(S.leave, LEAVE.budget);
      if (outcome !== 'done') return;
      if (insn.row.ends !== true) continue;
      this.#page = NO_PAGE;
      if (cpu.get32(S.leave) === LEAVE.stop) return;
      const shadowed = (cpu.get32(S.eflags) & FLAG.tf) !== 0 || (cpu.get32(S.interruptibility) & 3) !== 0;
      if (cpu.get32(S.attention) !== 0 || shadowed) {
        cpu.set32(S.leave, LEAVE.attention);
        return;
      }
    }
  }
}

/** @param helpers every helper that the instruction rows name */
export const createReference = (cpu: Cpu, helpers: HelperTable): Engine => new ReferenceEngine(cpu, helpers);
