/** How a VM exit is recorded in the processor, for the unit to store into the exit-information fields. */
import type { Cpu } from '../cpu/core.js';
import { EXIT_REASONS } from './exit-reasons.js';

const HAS_LENGTH = Uint8Array.from(EXIT_REASONS, (r) => (r.length ? 1 : 0));

/** Records a VM exit into `cpu.exitInfo`; returns true. */
export const recordExit = (cpu: Cpu, reason: number, qualification = 0n, info = 0): true => {
  const e = cpu.exitInfo;
  e.reason = reason;
  e.qualification = qualification;
  e.linear = 0n;
  e.physical = 0;
  e.interruptionInfo = 0;
  e.interruptionCode = 0;
  e.instructionLength = HAS_LENGTH[reason] !== 0 ? cpu.instructionLength : 0;
  e.instructionInfo = info;
  cpu.leaveForExit();
  return true;
};
