/**
 * What an exit costs in `timeModel: 'cycles'`: rows of TSC cycles with their source (KVM-6). A design input, all of it
 * configurable: direction and order of magnitude are meant, not the last digit.
 *
 * `base` is charged for every exit (hardware round trip and KVM's common path), a reason's own cost on top of it, and
 * events inside a handler (a page fault injected, an entry filled in, a device in user space) by name.
 */
import { LabError } from '../base/error.js';
import { EXIT, EXIT_REASONS } from '../vmx/port.js';
import { REASON_COUNT } from './reasons.js';

export interface CostRow {
  /** TSC cycles. */
  readonly cycles: number;
  readonly what: string;
  readonly source: string;
  /** Charged on every exit with this reason. */
  readonly reason?: number;
}

/** Largest cost, in cycles: seconds of virtual time. */
const MOST = 1_000_000_000;

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
/**
 * TSC cycles by name; or by exit reason, as its number or KVM's name, what an exit with that reason costs beyond `base`.
 */
export type CostOptions = Readonly<Record<string, number>>;

export interface CostTable extends Readonly<Record<CostName, number>> {
  /** `base` and the reason's own cost, by reason. */
  readonly byReason: Float64Array;
}

/** The exit reason that a key names, as a number (`28`) or as KVM does (`CR_ACCESS`). */
const reasonOf = (key: string): number | undefined =>
  EXIT_REASONS.find((r) => r.defined && (r.kvm === key || String(r.number) === key))?.number;

const checkCycles = (name: string, cycles: number): void => {
  if (!Number.isSafeInteger(cycles) || cycles < 0 || cycles > MOST)
    throw new LabError(
      'cost.value',
      `cost '${name}' must be a whole number of cycles from 0 to ${MOST}, not ${cycles}`,
    );
};

/** The cost table with some values replaced. @throws LabError for an unknown name or an impossible value */
export const costTable = (given: CostOptions = {}): CostTable => {
  const rows = Object.entries(COSTS) as [CostName, CostRow][];
  const out = Object.fromEntries(rows.map(([name, r]) => [name, r.cycles])) as Record<CostName, number>;
  const own = new Float64Array(REASON_COUNT);
  const ofReason = new Map<number, CostName>();
  for (const [name, r] of rows) if (r.reason !== undefined) ofReason.set(r.reason, name);
  for (const [key, cycles] of Object.entries(given)) {
    checkCycles(key, cycles);
    if (Object.hasOwn(COSTS, key)) {
      out[key as CostName] = cycles;
      continue;
    }
    const reason = reasonOf(key);
    if (reason === undefined)
      throw new LabError(
        'cost.name',
        `unknown cost '${key}'`,
        `an exit reason, as its number or KVM's name, or one of ${Object.keys(COSTS).join(', ')}`,
      );
    const name = ofReason.get(reason);
    if (name === undefined) own[reason] = cycles;
    else out[name] = cycles;
  }
  const byReason = own.map((n) => n + out.base);
  for (const [reason, name] of ofReason) byReason[reason] += out[name];
  return { ...out, byReason };
};
