/** What KVM's tools call the basic exit reasons; the rows are the hardware's (`vmx/exit-reasons.ts`). */
import { EXIT_REASONS } from '../vmx/port.js';

/** Size of every per-reason table: reasons 0..79. */
export const REASON_COUNT = EXIT_REASONS.length;

/** KVM's macro without prefix, as `perf kvm stat` prints it, else the SDM's name. */
export const reasonName = (reason: number): string => {
  const row = EXIT_REASONS[reason];
  if (row === undefined) return `reason ${reason}`;
  return row.kvm ?? (row.sdm === '' ? `reason ${reason}` : row.sdm);
};
