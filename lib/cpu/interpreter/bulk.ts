/**
 * Many iterations of REP MOVS and REP STOS at once: as far as the TLB, the page, the budget and overlap allow.
 *
 * Returns the number of iterations done, 0 when the plain loop must do the next one (TLB miss, backward direction,
 * overlap). The first iteration has been charged by the block; the others are taken from the budget here. What the
 * guest sees is what the plain loop would have done.
 */
import { FLAG, GPR, S, SEG } from '../../isa/state.js';
import { TLB_INDEX_MASK } from '../../memory/access.js';
import type { Cpu } from '../core.js';
import { R } from './record.js';

/** Linear-memory pointer to the byte at linear address (lo, hi) if the set has it, else 0. */
const lookup = (cpu: Cpu, set: number, lo: number, hi: number): number => {
  const { u32 } = cpu.ram;
  const entry = (cpu.get32(set) + ((lo >>> 8) & TLB_INDEX_MASK)) >>> 2;
  // bits 8..23 of the address are all in `lo`
  if (u32[entry] !== (lo & ~4095) >>> 0 || u32[entry + 1] !== hi >>> 0) return 0;
  return (u32[entry + 2] + (lo >>> 0)) >>> 0;
};

/** Adds `bytes` to a general register. */
const advance = (cpu: Cpu, r: number, bytes: number): void => {
  const i = (cpu.at >>> 2) + 2 * r;
  const lo = cpu.u32[i] + bytes;
  if (lo >= 0x1_0000_0000) cpu.u32[i + 1]++;
  cpu.u32[i] = lo;
};

/** @param which `BULK` number; @param width operand size in bits */
export const bulk = (cpu: Cpu, which: number, width: number, record: number): number => {
  if (cpu.get32(S.mode) !== 64 || (cpu.get32(S.eflags) & FLAG.df) !== 0) return 0;
  const { u32 } = cpu;
  const g = cpu.at >>> 2;
  const size = width / 8;
  const count = u32[g + 2 * GPR.rcx + 1] !== 0 ? 0x7fff_ffff : u32[g + 2 * GPR.rcx];
  const dlo = u32[g + 2 * GPR.rdi];
  const to = lookup(cpu, S.tlbWrite, dlo, u32[g + 2 * GPR.rdi + 1]);
  if (to === 0) return 0;
  let n = Math.min(count, Math.floor((4096 - (dlo & 4095)) / size), cpu.i32[(cpu.at + S.budget) >>> 2] + 1);
  const { ram } = cpu;
  if (which === 0) {
    const segment = ram.u8[record + R.segment];
    if (segment === SEG.fs || segment === SEG.gs) return 0;
    const slo = u32[g + 2 * GPR.rsi];
    const from = lookup(cpu, S.tlbRead, slo, u32[g + 2 * GPR.rsi + 1]);
    if (from === 0) return 0;
    n = Math.min(n, Math.floor((4096 - (slo & 4095)) / size));
    if (to > from && to < from + n * size) return 0;
    if (n < 2) return 0;
    ram.u8.copyWithin(to, from, from + n * size);
    advance(cpu, GPR.rsi, n * size);
  } else {
    if (n < 2) return 0;
    fill(cpu, to, n, size);
  }
  advance(cpu, GPR.rdi, n * size);
  cpu.i32[(cpu.at + S.budget) >>> 2] -= n - 1;
  const left = u32[g + 2 * GPR.rcx] - n;
  if (left < 0) u32[g + 2 * GPR.rcx + 1]--;
  u32[g + 2 * GPR.rcx] = left;
  return n;
};

const fill = (cpu: Cpu, to: number, n: number, size: number): void => {
  const { ram } = cpu;
  const lo = cpu.u32[cpu.at >>> 2];
  const hi = cpu.u32[(cpu.at >>> 2) + 1];
  if (size === 1) ram.u8.fill(lo & 0xff, to, to + n);
  else if (to % size !== 0) {
    for (let i = 0; i < n * size; i++) {
      const byte = i % size;
      ram.u8[to + i] = ((byte < 4 ? lo : hi) >>> (8 * (byte % 4))) & 0xff;
    }
  } else if (size === 2) ram.u16.fill(lo & 0xffff, to >>> 1, (to >>> 1) + n);
  else if (size === 4 || lo === hi) ram.u32.fill(lo, to >>> 2, (to >>> 2) + (n * size) / 4);
  else ram.u64.fill(cpu.gpr(GPR.rax), to / 8, to / 8 + n);
};
