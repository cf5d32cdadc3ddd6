/**
 * MXCSR: the environment of SSE operations, their exceptions, and the checks before an SSE instruction.
 * SDM volume 1, "SIMD Floating-Point Exceptions"; volume 3, "System Programming for Instruction Set Extensions".
 */
import { CR0, CR4, S, VECTOR } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import { FE, type Status } from './softfloat.js';

export const MXCSR_DAZ = 0x40;
export const MXCSR_FTZ = 0x8000;
export const MXCSR_RESET = 0x1f80;
/** Bits that may be set; also the MXCSR_MASK field of FXSAVE. */
export const MXCSR_MASK = 0xffff;

export const sseStatus = (mxcsr: number): Status => ({
  rounding: (mxcsr >>> 13) & 3,
  masks: (mxcsr >>> 7) & 0x3f,
  daz: (mxcsr & MXCSR_DAZ) !== 0,
  // flush to zero has no effect while underflow is unmasked
  ftz: (mxcsr & MXCSR_FTZ) !== 0 && (mxcsr & (FE.underflow << 7)) !== 0,
  wrap: false,
  flags: 0,
  up: false,
});

/** Sets the flags of an operation; #XM (or #UD) for unmasked ones. The result may be stored when this is true. */
export const finishSse = (cpu: Cpu, s: Status): boolean => {
  if (s.flags === 0) return true;
  const unmasked = s.flags & ~s.masks;
  // an unmasked exception found before computing hides those found after
  const flags = (unmasked & 7) !== 0 ? s.flags & 7 : s.flags;
  cpu.set32(S.mxcsr, cpu.get32(S.mxcsr) | flags);
  if (unmasked === 0) return true;
  return cpu.fault((cpu.get32(S.cr4) & CR4.osxmmexcpt) !== 0 ? VECTOR.xm : VECTOR.ud);
};

/** #UD and #NM before every SSE instruction. */
export const checkSse = (cpu: Cpu): boolean => {
  const cr0 = cpu.get32(S.cr0);
  if ((cr0 & CR0.em) !== 0 || (cpu.get32(S.cr4) & CR4.osfxsr) === 0) return cpu.ud();
  return (cr0 & CR0.ts) !== 0 ? cpu.fault(VECTOR.nm) : true;
};

/** LDMXCSR: argument 0 is the new value. */
export const ldmxcsr = (cpu: Cpu): boolean => {
  const v = cpu.arg32(0);
  if ((v & ~MXCSR_MASK) !== 0) return cpu.gp();
  cpu.set32(S.mxcsr, v);
  return true;
};
