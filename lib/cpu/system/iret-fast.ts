/**
 * IRETQ from ring 0 to ring 0 in 64-bit mode with unchanged code and stack selectors: what Linux executes to serialise
 * itself and to leave nested interrupts, a hundred thousand times a boot.
 *
 * It does what `iret` does, without bigints: the frame and both descriptors are read, and only when nothing but RIP,
 * RSP and RFLAGS would change. Everything else, every fault included, is left to `iret`.
 */
import { FLAG, GPR, S, SEG } from '../../isa/state.js';
import { ACCESS, LEFT } from '../../memory/access.js';
import type { Cpu } from '../core.js';
import { DR7_ENABLES } from './breakpoints.js';

const FRAME_BYTES = 40;
const RESTORED =
  FLAG.cf |
  FLAG.pf |
  FLAG.af |
  FLAG.zf |
  FLAG.sf |
  FLAG.tf |
  FLAG.if |
  FLAG.df |
  FLAG.of |
  FLAG.iopl |
  FLAG.nt |
  FLAG.ac |
  FLAG.vif |
  FLAG.vip |
  FLAG.id;
const LAZY = FLAG.cf | FLAG.pf | FLAG.af | FLAG.zf | FLAG.sf | FLAG.of;

/** Linear-memory index (u32) of aligned bytes at a linear address, or -1 when they are not in one piece. */
const words = (cpu: Cpu, lo: number, hi: number, bytes: number): number => {
  if ((lo & 7) !== 0 || (lo & 4095) + bytes > 4096) return -1;
  const p = cpu.mmu.access(lo | 0, hi | 0, bytes, ACCESS.read, 'supervisor');
  return p === LEFT ? -1 : p >>> 2;
};

/** The descriptor of a selector in the GDT is the one that the segment register holds. */
const unchanged = (cpu: Cpu, seg: number): boolean => {
  const { u32 } = cpu;
  const at = cpu.at >>> 2;
  const selector = u32[at + S.segSel / 4 + seg];
  // ring 0 runs with a null SS in 64-bit mode
  if (seg === SEG.ss && selector === 0) return true;
  if ((selector & 7) !== 0 || selector === 0 || (selector | 7) > u32[at + S.gdtrLimit / 4]) return false;
  const base = at + S.gdtrBase / 4;
  const sum = u32[base] + selector;
  const d = words(cpu, sum >>> 0, u32[base + 1] + (sum > 0xffff_ffff ? 1 : 0), 8);
  if (d < 0) return false;
  const hi = u32[d + 1];
  const limit = (u32[d] & 0xffff) | (hi & 0xf_0000);
  const bytes = (hi & 0x80_0000) !== 0 ? ((limit << 12) | 0xfff) >>> 0 : limit;
  const start = ((u32[d] >>> 16) | ((hi & 0xff) << 16) | (hi & 0xff00_0000)) >>> 0;
  return (
    ((hi >>> 8) & 0xf0ff) === u32[at + S.segAttr / 4 + seg] &&
    bytes === u32[at + S.segLimit / 4 + seg] &&
    start === u32[at + S.segBase / 4 + 2 * seg] &&
    u32[at + S.segBase / 4 + 2 * seg + 1] === 0
  );
};

/** True when the return was made; false when `iret` has to do it: nothing has changed then. */
export const iretFast = (cpu: Cpu): boolean => {
  const { u32 } = cpu;
  const at = cpu.at >>> 2;
  const eflags = u32[at + S.eflags / 4];
  // with breakpoints RF matters; without it is dropped
  if ((u32[at + S.dr7 / 4] & DR7_ENABLES) !== 0) return false;
  if (u32[at + S.mode / 4] !== 64 || u32[at + S.cpl / 4] !== 0 || (eflags & FLAG.nt) !== 0) return false;
  const f = words(cpu, u32[at + 2 * GPR.rsp], u32[at + 2 * GPR.rsp + 1], FRAME_BYTES);
  if (f < 0) return false;
  const ripHi = u32[f + 1] | 0;
  const spLo = u32[f + 6];
  const spHi = u32[f + 7];
  const top = ripHi >> 15;
  if (top !== 0 && top !== -1) return false;
  if (
    (u32[f + 2] & 0xffff) !== u32[at + S.segSel / 4 + SEG.cs] ||
    (u32[f + 8] & 0xffff) !== u32[at + S.segSel / 4 + SEG.ss]
  )
    return false;
  const ripLo = u32[f];
  const flags = u32[f + 4];
  if (!unchanged(cpu, SEG.cs) || !unchanged(cpu, SEG.ss)) return false;
  u32[at + S.nextRip / 4] = ripLo;
  u32[at + S.nextRip / 4 + 1] = ripHi;
  u32[at + 2 * GPR.rsp] = spLo;
  u32[at + 2 * GPR.rsp + 1] = spHi;
  u32[at + S.flagKind / 4] = 0;
  u32[at + S.flagA / 4] = flags & LAZY;
  u32[at + S.flagA / 4 + 1] = 0;
  u32[at + S.flagR / 4] = (flags & FLAG.zf) !== 0 ? 0 : 1;
  u32[at + S.flagR / 4 + 1] = 0;
  u32[at + S.eflags / 4] = (flags & RESTORED & ~LAZY) | (eflags & ~RESTORED & ~FLAG.rf) | 2;
  u32[at + S.interruptibility / 4] &= ~8;
  if (((eflags ^ flags) & FLAG.ac) !== 0) cpu.mmu.contextChanged();
  return true;
};
