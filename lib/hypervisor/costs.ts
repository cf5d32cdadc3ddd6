/**
 * What an exit costs in `timeModel: 'cycles'`: rows of TSC cycles with their source (KVM-6). A design input, all of it
 * configurable: direction and order of magnitude are meant, not the last digit.
 *
 * `base` is charged for every exit (hardware round trip and KVM's common path), a reason's own cost on top of it, and
 * events inside a handler (a page fault injected, an entry filled in, a device in user space) by name.
 */
import { LabError } from '../base/error.js';
import { EXIT } from '../vmx/port.js';
import { REASON_COUNT } from './reasons.js';

export interface CostRow {
  /** TSC cycles. */
  readonly cycles: number;
  readonly what: string;
  readonly source: string;
  /** Charged on every exit with this reason. */
  readonly reason?: number;
}

const DESIGN = 'KVM-6, design value';
const c = (cycles: number, what: string, reason?: number, source = DESIGN): CostRow =>
  reason === undefined ? { cycles, what, source } : { cycles, what, source, reason };

// biome-ignore format: one row per line
export const COSTS = {
  base: c(1200, 'any exit: VM exit, save, dispatch, restore, VM entry', undefined, 'KVM-6: 1 200-2 000 through current KVM'),
  cpuid: c(300, 'CPUID: leaf lookup', EXIT.cpuid),
  externalInterrupt: c(1500, 'external interrupt: the host handles it', EXIT.externalInterrupt),
  preemptionTimer: c(500, 'preemption timer: expire the local APIC timer', EXIT.preemptionTimer),
  hlt: c(1000, 'HLT: block and wake', EXIT.hlt),
  crAccess: c(400, 'control-register access, cached root', EXIT.crAccess),
  invlpg: c(800, 'INVLPG', EXIT.invlpg),
  invpcid: c(800, 'INVPCID', EXIT.invpcid),
  rdmsr: c(400, 'RDMSR', EXIT.rdmsr),
  wrmsr: c(400, 'WRMSR', EXIT.wrmsr),
  io: c(800, 'I/O handled in the kernel', EXIT.ioInstruction),
  ioDevice: c(6000, 'a device in user space, on top'),
  faultInjected: c(1000, 'a #PF given to the guest'),
  faultFixed: c(3000, 'a shadow entry filled in, or a table unsynchronised'),
  emulated: c(6000, 'an instruction emulated'),
  eptFixed4K: c(2500, 'an EPT leaf of 4 KiB installed'),
  eptFixed2M: c(4000, 'an EPT leaf of 2 MiB installed'),
  eptMisconfiguration: c(3500, 'MMIO through a misconfigured entry', EXIT.eptMisconfiguration),
  walkReference: c(15, 'one memory reference of a page walk', undefined, 'KVM-6: 10-30'),
} as const satisfies Record<string, CostRow>;
export type CostName = keyof typeof COSTS;
export type CostOptions = Partial<Record<CostName, number>>;

export interface CostTable extends Readonly<Record<CostName, number>> {
  /** `base` and the reason's own cost, by reason. */
  readonly byReason: Float64Array;
}

/** The cost table with some values replaced. @throws LabError for an unknown name or a negative value */
export const costTable = (given: CostOptions = {}): CostTable => {
  const out: Record<string, number> = {};
  for (const [name, r] of Object.entries(COSTS)) out[name] = r.cycles;
  for (const [name, cycles] of Object.entries(given)) {
    if (!Object.hasOwn(COSTS, name))
      throw new LabError(
        'cost.name',
        `unknown cost '${name}'`,
        `valid names: ${Object.keys(COSTS).join(', ')}`,
      );
    if (!Number.isInteger(cycles) || cycles < 0)
      throw new LabError('cost.value', `cost '${name}' must be a whole number of cycles, not ${cycles}`);
    out[name] = cycles;
  }
  const byReason = new Float64Array(REASON_COUNT).fill(given.base ?? COSTS.base.cycles);
  for (const [name, r] of Object.entries(COSTS) as [string, CostRow][])
    if (r.reason !== undefined) byReason[r.reason] += out[name];
  return { ...(out as Record<CostName, number>), byReason };
};
