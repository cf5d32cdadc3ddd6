/**
 * The run loop of the processor: boundaries between instructions, delivery of faults, single steps, and time.
 *
 * SDM volume 3, "Priority Among Concurrent Events" and "Single-Step Exception Condition". An engine executes slices; a
 * slice ends at the instruction at which something timed is due (`NonRoot.deadline`), after one instruction while an
 * interrupt shadow or a single step asks for it, or at the limit of the run.
 */
import { FLAG, LEAVE, S, VECTOR } from '../isa/state.js';
import type { Cpu, PendingEvent } from './core.js';
import type { Engine } from './engine.js';
import { codeBreakpoints, DR6, DR7_ENABLES, dataBreakpoints } from './system/breakpoints.js';
import { deliverEvent, recordedFault } from './system/events.js';

const MOV_SS = 2;

/** `exit`: a VM exit is recorded. `limit`: the limit was reached. `shutdown`, `halt`: without VMX, the processor stopped. */
export type RunEnd = 'exit' | 'limit' | 'shutdown' | 'halt';

/** Largest slice: the budget is a signed 32-bit number. */
const SLICE = 0x4000_0000;

/** Called before each slice of one instruction while tracing is on; true ends the run there, as its limit does. */
export type StepHook = (cpu: Cpu) => boolean | undefined;

export class Processor {
  readonly cpu: Cpu;
  engine: Engine;
  /** While set, every instruction is a slice of its own, and the hook sees the state before it. */
  onStep: StepHook | undefined;
  /** `onStep` is called for instructions [first, last) counted from the start; others run at full speed. */
  stepRange: readonly [first: number, last: number] = [0, 0];

  constructor(cpu: Cpu, engine: Engine) {
    this.cpu = cpu;
    this.engine = engine;
  }

  /** Delivers an event at the current boundary; true when execution goes on at its handler. */
  deliver(event: PendingEvent, returnRip: bigint): boolean {
    const { cpu } = this;
    if (!deliverEvent(cpu, event, returnRip)) return false;
    cpu.set64(S.rip, cpu.nextRip);
    return true;
  }

  /** Runs until `limit` instructions have retired in total, or until it must stop. */
  run(limit: number): RunEnd {
    const { cpu } = this;
    const budgetAt = (cpu.at + S.budget) >>> 2;
    for (;;) {
      const { guest } = cpu;
      if (cpu.debugTraps !== 0 && (cpu.get32(S.interruptibility) & MOV_SS) === 0 && !this.#debugTrap())
        return cpu.get32(S.leave) === LEAVE.exit ? 'exit' : 'shutdown';
      if (guest?.boundary() === true) return 'exit';
      if (cpu.get32(S.activity) !== 0) {
        if (cpu.get32(S.activity) === 2) return 'shutdown';
        if (guest === undefined) return 'halt';
        // halted inside the guest: time passes up to the next event
        const wake = guest.deadline();
        if (wake === Infinity) return 'shutdown';
        cpu.extraCycles += Math.max(1, wake - cpu.tsc());
        continue;
      }
      const retired = cpu.retiredBefore;
      if (retired >= limit) return 'limit';
      let budget = Math.min(limit - retired, SLICE);
      const deadline = guest === undefined ? Infinity : guest.deadline();
      if (deadline !== Infinity) budget = Math.min(budget, Math.max(1, Math.ceil(deadline - cpu.tsc())));
      const shadow = cpu.get32(S.interruptibility) & 3;
      const step = (cpu.get32(S.eflags) & FLAG.tf) !== 0;
      if (this.onStep !== undefined) {
        budget = this.#traced(budget, retired);
        if (budget === 0) return 'limit';
      }
      const debugging = this.#debugging();
      if (shadow !== 0 || step || debugging) budget = 1;
      if (debugging && (shadow & MOV_SS) === 0 && (cpu.get32(S.eflags) & FLAG.rf) === 0) {
        const hits = codeBreakpoints(cpu);
        if (hits !== 0) {
          if (this.#debugFault(hits)) continue;
          return cpu.get32(S.leave) === LEAVE.exit ? 'exit' : 'shutdown';
        }
      }
      cpu.noStepTrap = false;
      cpu.set32(S.attention, guest?.watching() === true ? 1 : 0);
      cpu.i32[budgetAt] = budget;
      cpu.sliceBudget = budget;
      cpu.set32(S.leave, LEAVE.none);
      // RF holds off code breakpoints for one instruction; where there are none it has no meaning
      const resuming = (cpu.get32(S.eflags) & FLAG.rf) !== 0;
      if (resuming && !debugging) cpu.set32(S.eflags, cpu.get32(S.eflags) & ~FLAG.rf);
      const at = cpu.rip;
      this.engine.run();
      const done = budget - cpu.i32[budgetAt];
      if (resuming && debugging && (done > 0 || cpu.rip !== at) && !cpu.resumeFlagLoaded)
        cpu.set32(S.eflags, cpu.get32(S.eflags) & ~FLAG.rf);
      cpu.resumeFlagLoaded = false;
      cpu.retiredBefore = retired + done;
      cpu.sliceBudget = 0;
      cpu.i32[budgetAt] = 0;
      if (shadow !== 0 && done > 0) cpu.set32(S.interruptibility, cpu.get32(S.interruptibility) & ~shadow);
      this.#endShadow(budget - done);
      const leave = cpu.get32(S.leave);
      if (leave === LEAVE.exit || leave === LEAVE.fault) cpu.debugTraps = 0;
      if (leave === LEAVE.exit) return 'exit';
      if (leave === LEAVE.fault) {
        if (!this.deliver(recordedFault(cpu), cpu.rip)) {
          if (cpu.get32(S.leave) === LEAVE.exit) return 'exit';
          return 'shutdown';
        }
        continue;
      }
      if (step && done > 0 && !cpu.noStepTrap) cpu.debugTraps |= DR6.bs;
    }
  }
  /** Ends a shadow that began inside the slice, if an instruction has retired since. @param left of the budget */
  #endShadow(left: number): void {
    const { cpu } = this;
    const noted = cpu.get32(S.shadowed) | 0;
    if (noted === 0) return;
    cpu.set32(S.shadowed, 0);
    if (noted - 1 > left) cpu.set32(S.interruptibility, cpu.get32(S.interruptibility) & ~3);
  }
  /** Breakpoints are enabled in DR7: each instruction is a slice of its own, and data accesses are looked at. */
  #debugging(): boolean {
    const { cpu } = this;
    const on = (cpu.get32(S.dr7) & DR7_ENABLES) !== 0;
    if (on !== (cpu.mmu.watch !== undefined)) {
      cpu.mmu.watch = on ? (lo, hi, size, kind) => dataBreakpoints(cpu, lo, hi, size, kind) : undefined;
      cpu.mmu.contextChanged();
    }
    return on;
  }
  #debugFault(bits: number): boolean {
    return this.deliver(
      { vector: VECTOR.db, type: 3, code: -1, address: BigInt(bits), length: 0, injected: false },
      this.cpu.rip,
    );
  }
  /** #DB behind an instruction: single step, data and I/O breakpoints, the T bit of a task. */
  #debugTrap(): boolean {
    const bits = this.cpu.debugTraps;
    this.cpu.debugTraps = 0;
    return this.#debugFault(bits);
  }
  /** Cuts a slice at the edges of the traced range, and calls the hook inside it; 0 when that ends the run. */
  #traced(budget: number, retired: number): number {
    const [first, last] = this.stepRange;
    if (retired >= last) return budget;
    if (retired < first) return Math.min(budget, first - retired);
    return this.onStep?.(this.cpu) === true ? 0 : 1;
  }
}
