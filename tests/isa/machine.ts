/** One instruction on the reference engine, over a state block and a small window of memory, or on the interpreter. */

import { InvariantError } from '../../lib/base/error.js';
import { createInterpreter } from '../../lib/cpu/interpreter/interpreter.js';
import { type Environment, executeInsn, type Outcome, StateBlock } from '../../lib/cpu/reference.js';
import { readRflags, writeRflags } from '../../lib/cpu/rflags.js';
import { decode } from '../../lib/isa/decoder.js';
import { arithmeticFlags } from '../../lib/isa/flags.js';
import type { Insn } from '../../lib/isa/rows.js';
import { ARITHMETIC_FLAGS, LEAVE, S, SEG } from '../../lib/isa/state.js';
import { LEFT } from '../../lib/memory/access.js';
import { HELPERS } from '../../lib/vmx/hardware.js';
import { Bench, P, U, W } from '../memory/fixture.js';

export type Mode = 16 | 32 | 64;

/** The window of memory, at the end of a page. */
export const WINDOW = 0x1000_0f80n;
export const WINDOW_BYTES = 128;
export interface MachineState {
  readonly gpr: bigint[];
  flags: number;
  readonly memory: Uint8Array;
}
export const RIP = 0x40_0000n;

export const decoded = (code: Uint8Array, mode: Mode): Insn => {
  const insn = decode(code, 0, code.length, mode);
  if (typeof insn === 'string') throw new InvariantError(`${code.join()} decodes as ${insn}`);
  if (insn.length !== code.length) throw new InvariantError(`${code.join()} has ${insn.length} bytes`);
  return insn;
};

export interface Ran {
  readonly outcome: Outcome;
  readonly after: MachineState;
  readonly rip: bigint;
  /** Vector of the fault, when `left`. */
  readonly fault: number;
}

/** Executes `code` in `before`, which is left as it is; legacy modes have flat segments. */
export const runOne = (code: Uint8Array, before: MachineState, mode: Mode = 64): Ran => {
  const state = new StateBlock();
  const memory = before.memory.slice();
  before.gpr.forEach((v, i) => {
    state.setGpr(i, v);
  });
  state.set32(S.mode, mode);
  state.set32(S.stackSize, mode);
  state.set32(S.budget, 1000);
  state.set32(S.eflags, (before.flags & ~ARITHMETIC_FLAGS) | 2);
  state.set64(S.flagA, BigInt(before.flags & ARITHMETIC_FLAGS));
  state.set64(S.flagR, (before.flags & 0x40) !== 0 ? 0n : 1n);
  for (let s = 0; s < 8; s++) state.set32(S.segLimit + 4 * s, 0xffff_ffff);
  state.set64(S.rip, RIP);
  const inside = (linear: bigint, bytes: number): boolean => {
    const good = linear >= WINDOW && linear + BigInt(bytes) <= WINDOW + BigInt(WINDOW_BYTES);
    if (!good) state.set32(S.faultVector, 14);
    return good;
  };
  const read = (linear: bigint, bytes: number): bigint => {
    let v = 0n;
    for (let i = bytes - 1; i >= 0; i--) v = (v << 8n) | BigInt(memory[Number(linear - WINDOW) + i]);
    return v;
  };
  const write = (linear: bigint, bytes: number, v: bigint): void => {
    for (let i = 0; i < bytes; i++)
      memory[Number(linear - WINDOW) + i] = Number((v >> BigInt(8 * i)) & 0xffn);
  };
  const env: Environment = {
    state,
    memory: {
      load: (linear, bytes) => (inside(linear, bytes) ? read(linear, bytes) : LEFT),
      store: (linear, bytes, v) => {
        if (!inside(linear, bytes)) return false;
        write(linear, bytes, v);
        return true;
      },
      rmw: (linear, bytes, change) => {
        if (!inside(linear, bytes)) return LEFT;
        const old = read(linear, bytes);
        write(linear, bytes, change(old));
        return old;
      },
    },
    helper: (name) => {
      if (name === 'probeStack') return inside(state.get64(S.arg), state.get32(S.arg + 8));
      throw new InvariantError(`no helper ${name} here`);
    },
    segment: (_seg, offset) => offset,
  };
  const outcome = executeInsn(decoded(code, mode), env);
  const flags = arithmeticFlags(state.get32(S.flagKind), state.get64(S.flagA), state.get64(S.flagR));
  const gpr = before.gpr.map((_, i) => state.gpr(i));
  const after = { gpr, flags: (state.get32(S.eflags) & ~ARITHMETIC_FLAGS) | flags, memory };
  return { outcome, after, rip: state.get64(S.rip), fault: state.get32(S.faultVector) };
};

const CODE_FRAMES = 0x10_0000;
const CODE_PAGES = 64;
const WINDOW_FRAME = 0x40_0000;
const RIP_FRAME = 0x30_0000;
const CODE_BASE = 0x50_0000n;

/**
 * A processor with the interpreter in 64-bit mode, the window's page mapped, that runs one instruction after the other.
 * @param fixed always at `RIP`, over the instruction before
 */
export const interpreterMachine = (fixed = false): ((code: Uint8Array, before: MachineState) => Ran) => {
  const bench = new Bench();
  const { cpu, ram, mmu } = bench;
  const root = bench.page();
  for (let i = 0; i < CODE_PAGES; i++)
    bench.map(root, CODE_BASE + BigInt(i * 4096), CODE_FRAMES + i * 4096, P | W | U);
  for (const page of [-4096, 0]) bench.map(root, RIP + BigInt(page), RIP_FRAME + page, P | W | U);
  bench.map(root, WINDOW & ~0xfffn, WINDOW_FRAME, P | W | U);
  bench.cr3(root);
  for (let s = 0; s < 6; s++) {
    cpu.set32(S.segLimit + 4 * s, 0xffff_ffff);
    cpu.set32(S.segAttr + 4 * s, s === SEG.cs ? 0xa09b : 0xc093);
  }
  cpu.set32(S.stackSize, 64);
  const engine = createInterpreter(cpu, mmu, HELPERS);
  const windowAt = WINDOW_FRAME + Number(WINDOW & 0xfffn);
  let used = 0;
  return (code, before) => {
    if (decoded(code, 64).length + (used % 4096) > 4096) used += 4096 - (used % 4096);
    const offset = used;
    used += 16;
    const rip = fixed ? RIP : CODE_BASE + BigInt(offset);
    const frame = fixed ? RIP_FRAME : CODE_FRAMES + offset;
    ram.writeBytes(frame, code);
    ram.writeBytes(frame + code.length, Uint8Array.of(0x90));
    ram.writeBytes(windowAt, before.memory);
    before.gpr.forEach((v, i) => {
      cpu.setGpr(i, v);
    });
    writeRflags(cpu, before.flags);
    cpu.set64(S.rip, rip);
    // a REP instruction takes one of the budget an iteration; it is run again until it is done
    const insn = decoded(code, 64);
    do {
      cpu.set32(S.budget, 1);
      cpu.sliceBudget = 1;
      engine.run();
    } while (insn.rep !== 'none' && cpu.get32(S.leave) === LEAVE.budget && cpu.rip === rip);
    const left = cpu.get32(S.leave) === LEAVE.fault;
    const after = {
      gpr: before.gpr.map((_, i) => cpu.gpr(i)),
      flags: readRflags(cpu),
      memory: ram.view(windowAt, WINDOW_BYTES).slice(),
    };
    return { outcome: left ? 'left' : 'done', after, rip: cpu.rip, fault: cpu.get32(S.faultVector) };
  };
};
