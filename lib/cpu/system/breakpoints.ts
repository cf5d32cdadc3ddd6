/**
 * Breakpoints of the debug registers: which of DR0-DR3 an instruction fetch, a data access or a port access hits.
 *
 * SDM volume 3, "Debug Registers", "Breakpoint Field Recognition". A breakpoint on instructions is a fault before the
 * instruction, the others are traps behind it. DR6 also shows breakpoints that match but are not enabled, as long as
 * one that matches is. While any is enabled the run loop takes instructions one by one (`processor.ts`).
 */
import { CR4, S, SEG } from '../../isa/state.js';
import { ACCESS } from '../../memory/access.js';
import type { Cpu } from '../core.js';

/** Bits of DR6. */
export const DR6 = { bd: 0x2000, bs: 0x4000, bt: 0x8000 } as const;
/** L0 to G3. */
export const DR7_ENABLES = 0xff;

const KIND = { execute: 0, write: 1, io: 2, readWrite: 3 } as const;
const kindOf = (dr7: number, i: number): number => (dr7 >>> (16 + 4 * i)) & 3;
/** LEN: 1, 2, 8 or 4 bytes. */
const BYTES = [1, 2, 8, 4] as const;
const bytesOf = (dr7: number, i: number): number => BYTES[(dr7 >>> (18 + 4 * i)) & 3] as number;
const enabled = (dr7: number, i: number): boolean => ((dr7 >>> (2 * i)) & 3) !== 0;

/** Breakpoints that `matches` says are hit, as bits of DR6; 0 when none of them is enabled. */
const hits = (cpu: Cpu, matches: (dr7: number, i: number) => boolean): number => {
  const dr7 = cpu.get32(S.dr7);
  let bits = 0;
  let any = false;
  for (let i = 0; i < 4; i++) {
    if (!matches(dr7, i)) continue;
    bits |= 1 << i;
    any ||= enabled(dr7, i);
  }
  return any ? bits : 0;
};

/** Breakpoints on the instruction at RIP. */
export const codeBreakpoints = (cpu: Cpu): number => {
  const long = cpu.get32(S.mode) === 64;
  const linear = BigInt.asUintN(long ? 64 : 32, cpu.rip + (long ? 0n : cpu.get64(S.segBase + 8 * SEG.cs)));
  return hits(cpu, (dr7, i) => kindOf(dr7, i) === KIND.execute && cpu.get64(S.dr + 8 * i) === linear);
};

/** [a, a + n) and the breakpoint's aligned range have a byte in common. */
const overlaps = (cpu: Cpu, dr7: number, i: number, a: bigint, n: number): boolean => {
  const bytes = bytesOf(dr7, i);
  const first = cpu.get64(S.dr + 8 * i) & ~BigInt(bytes - 1);
  return a < first + BigInt(bytes) && first < a + BigInt(n);
};

/** Notes the data breakpoints that an access hits. @param kind `ACCESS` */
export const dataBreakpoints = (cpu: Cpu, lo: number, hi: number, size: number, kind: number): void => {
  const at = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
  cpu.debugTraps |= hits(cpu, (dr7, i) => {
    const wanted = kindOf(dr7, i);
    const asked = wanted === KIND.readWrite || (wanted === KIND.write && kind !== ACCESS.read);
    return asked && overlaps(cpu, dr7, i, at, size);
  });
};

/** Notes the I/O breakpoints that a port access hits; they need CR4.DE. */
export const portBreakpoints = (cpu: Cpu, port: number, size: number): void => {
  if ((cpu.get32(S.dr7) & DR7_ENABLES) === 0 || (cpu.get32(S.cr4) & CR4.de) === 0) return;
  cpu.debugTraps |= hits(
    cpu,
    (dr7, i) => kindOf(dr7, i) === KIND.io && overlaps(cpu, dr7, i, BigInt(port), size),
  );
};
