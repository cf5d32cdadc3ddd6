/**
 * Breakpoints that change nothing in the guest: while there are any, the processor asks before every instruction
 * whether its linear address is one of them.
 *
 * The hook costs a slice for each instruction, so it is set only while breakpoints exist. The instruction at which the
 * machine was stopped is not stopped at again when it goes on.
 */
import type { Cpu } from '../../cpu/core.js';
import { S, SEG } from '../../isa/state.js';
import type { Machine } from '../machine.js';
import { linearRip } from './registers.js';

export const MAX_BREAKPOINTS = 1024;
const RIP = S.rip >>> 2;
const CS_BASE = (S.segBase + 8 * SEG.cs) >>> 2;

export class Breakpoints {
  readonly #machine: Machine;
  readonly #at = new Set<bigint>();
  /** Their low halves: what the hook looks at first. */
  #low = new Set<number>();
  /** Set when the hook stopped the machine. */
  hit = false;
  #skipRetired = -1;
  #skipRip = -1;

  constructor(machine: Machine) {
    this.#machine = machine;
  }
  get size(): number {
    return this.#at.size;
  }
  /** False when there are too many. */
  add(linear: bigint): boolean {
    if (this.#at.size >= MAX_BREAKPOINTS && !this.#at.has(linear)) return false;
    this.#at.add(linear);
    this.#changed();
    return true;
  }
  remove(linear: bigint): void {
    this.#at.delete(linear);
    this.#changed();
  }
  clear(): void {
    this.#at.clear();
    this.#changed();
  }
  #changed(): void {
    this.#low = new Set([...this.#at].map((a) => Number(a & 0xffff_ffffn)));
    const { processor } = this.#machine.hardware;
    if (this.#at.size === 0) {
      processor.onStep = undefined;
      processor.stepRange = [0, 0];
    } else {
      processor.onStep = this.#hook;
      processor.stepRange = [0, Number.POSITIVE_INFINITY];
    }
  }
  /** The machine goes on: the instruction that it stands at is not a hit. */
  resume(): void {
    this.hit = false;
    this.#skipRetired = this.#machine.hardware.port.retired();
    this.#skipRip = Number(linearRip(this.#machine) & 0xffff_ffffn);
  }

  readonly #hook = (cpu: Cpu): boolean => {
    const low = lowRip(cpu);
    if (!this.#low.has(low)) return false;
    if (low === this.#skipRip && cpu.retiredBefore === this.#skipRetired) return false;
    const high = cpu.get32(S.mode) === 64 ? BigInt(cpu.u32[(cpu.at >>> 2) + RIP + 1]) : 0n;
    if (!this.#at.has((high << 32n) | BigInt(low))) return false;
    this.hit = true;
    return true;
  };
}

/** Low half of the linear address of the next instruction. */
const lowRip = (cpu: Cpu): number => {
  const at = cpu.at >>> 2;
  const rip = cpu.u32[at + RIP];
  return cpu.get32(S.mode) === 64 ? rip : (rip + cpu.u32[at + CS_BASE]) >>> 0;
};
