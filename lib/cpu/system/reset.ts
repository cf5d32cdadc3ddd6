/**
 * The state of the processor after power-up or RESET.
 *
 * SDM volume 3, "Processor State After Reset". General registers but RDX (the processor signature) are zero.
 */
import { S, SEG, STATE_BYTES } from '../../isa/state.js';
import type { Cpu } from '../core.js';
import { hardwareCpuid } from './cpuid.js';
import { resetMsrs } from './msrs.js';
import { modeChanged, setSegment } from './segments.js';

/** @param cpu its memory unit must be there; the engine's fields (budget, TLB sets) are not touched */
export const resetState = (cpu: Cpu): void => {
  const kept = [S.budget, S.leave, S.record, S.attention, S.tlbRead, S.tlbWrite, S.tlbExec].map(
    (o) => [o, cpu.get32(o)] as const,
  );
  cpu.ram.u8.fill(0, cpu.at, cpu.at + STATE_BYTES);
  for (const [offset, v] of kept) cpu.set32(offset, v);
  cpu.setGpr(2, BigInt(hardwareCpuid(cpu, 1, 0).eax));
  resetMsrs(cpu);
  cpu.set64(S.cr0, 0x6000_0010n);
  cpu.set32(S.eflags, 2);
  cpu.set64(S.flagR, 1n);
  cpu.set64(S.dr6, 0xffff_0ff0n);
  cpu.set64(S.dr7, 0x400n);
  cpu.set64(S.xcr0, 1n);
  cpu.set64(S.entropy, BigInt.asUintN(64, BigInt(Math.trunc(cpu.seed))));
  cpu.set64(S.rip, 0xfff0n);
  cpu.set64(S.nextRip, 0xfff0n);
  cpu.set32(S.gdtrLimit, 0xffff);
  cpu.set32(S.idtrLimit, 0xffff);
  for (const seg of [SEG.es, SEG.ss, SEG.ds, SEG.fs, SEG.gs]) setSegment(cpu, seg, 0, 0n, 0xffff, 0x93);
  setSegment(cpu, SEG.cs, 0xf000, 0xffff_0000n, 0xffff, 0x9b);
  setSegment(cpu, SEG.ldtr, 0, 0n, 0xffff, 0x82);
  setSegment(cpu, SEG.tr, 0, 0n, 0xffff, 0x8b);
  cpu.set32(S.fcw, 0x40);
  cpu.set32(S.ftw, 0x5555);
  cpu.set32(S.mxcsr, 0x1f80);
  cpu.delivering = undefined;
  modeChanged(cpu);
};
