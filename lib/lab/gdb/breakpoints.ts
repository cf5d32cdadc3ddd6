/**
 * Breakpoints that change nothing in the guest: while there are any, the processor asks before every instruction
 * whether its linear address is one of them.
 *
 * The hook costs a slice for each instruction, so it is set only while breakpoints exist. The instruction at which the
 * machine was stopped is not stopped at again when it goes on. A write watchpoint is a comparison of the watched bytes
 * before every instruction: it stops behind the store that changed them, whoever made it, and not at one that stores what
 * was there. Read watchpoints are not offered.
 */
import type { Cpu } from '../../cpu/core.js';
import { S, SEG } from '../../isa/state.js';
import type { Machine } from '../machine.js';
import { linearRip } from './registers.js';
import { readGuest } from './walk.js';

export const MAX_BREAKPOINTS = 1024;
export const MAX_WATCHPOINTS = 16;
/** Bytes of one watchpoint. */
export const MAX_WATCHED = 64;
const RIP = S.rip >>> 2;
const CS_BASE = (S.segBase + 8 * SEG.cs) >>> 2;

interface Watch {
  readonly linear: bigint;
  readonly size: number;
  /** The bytes when last seen; undefined while they are not in memory. */
  last: Uint8Array | undefined;
}

const same = (a: Uint8Array, b: Uint8Array): boolean => a.every((byte, i) => byte === b[i]);

export class Breakpoints {
  readonly #machine: Machine;
  readonly #at = new Set<bigint>();
  /** Their low halves: what the hook looks at first. */
  #low = new Set<number>();
  readonly #watches = new Map<string, Watch>();
  /** Set when the hook stopped the machine. */
  hit = false;
  /** Address of the watchpoint that stopped it. */
  watched: bigint | undefined;
  #skipRetired = -1;
  #skipRip = -1;

  constructor(machine: Machine) {
    this.#machine = machine;
  }
  get size(): number {
    return this.#at.size + this.#watches.size;
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
  /** False when it is too long, or there are too many. */
  watch(linear: bigint, size: number): boolean {
    const key = `${linear},${size}`;
    if (size < 1 || size > MAX_WATCHED) return false;
    if (this.#watches.size >= MAX_WATCHPOINTS && !this.#watches.has(key)) return false;
    this.#watches.set(key, { linear, size, last: this.#read(linear, size) });
    this.#changed();
    return true;
  }
  unwatch(linear: bigint, size: number): void {
    this.#watches.delete(`${linear},${size}`);
    this.#changed();
  }
  #read(linear: bigint, size: number): Uint8Array | undefined {
    const bytes = readGuest(this.#machine.vm, linear, size);
    return bytes === undefined ? undefined : Uint8Array.from(bytes);
  }
  /** Compares the watched bytes with what they were, and notes the first that changed in `watched`. */
  look(): boolean {
    for (const w of this.#watches.values()) {
      const now = this.#read(w.linear, w.size);
      const before = w.last;
      if (now === undefined) continue;
      w.last = now;
      if (before !== undefined && !same(before, now)) this.watched ??= w.linear;
    }
    return this.watched !== undefined;
  }
  clear(): void {
    this.#at.clear();
    this.#watches.clear();
    this.#changed();
  }
  #changed(): void {
    this.#low = new Set([...this.#at].map((a) => Number(a & 0xffff_ffffn)));
    const { processor } = this.#machine.hardware;
    if (this.size === 0) {
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
    // what the client wrote itself is no hit
    this.look();
    this.watched = undefined;
    this.#skipRetired = this.#machine.hardware.port.retired();
    this.#skipRip = Number(linearRip(this.#machine) & 0xffff_ffffn);
  }

  readonly #hook = (cpu: Cpu): boolean => {
    if (this.#watches.size > 0 && this.look()) {
      this.hit = true;
      return true;
    }
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
