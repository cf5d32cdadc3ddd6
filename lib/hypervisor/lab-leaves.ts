/**
 * The CPUID leaves of the lab: exit counters for the guest, in the three layouts in which they were set.
 *
 * Each layout is four cells, one a leaf. An undefined reason is checked first (EDX all ones), then one without a
 * handler in KVM (all zero), then the counter. A leaf that the layout lacks is an unknown leaf to KVM.
 */
import { LabError } from '../base/error.js';
import { EXIT_REASONS } from '../vmx/port.js';
import type { ExitCounts } from './counts.js';
import type { HypervisorLog } from './log.js';

export interface CpuidRegisters {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** What one leaf returns. */
type Cell = 'totals' | 'total-exits' | 'total-cycles' | 'exits-of-type' | 'cycles-of-type';

export const LAB_LAYOUTS = {
  F2020: { 1342177279: 'totals', 1342177278: 'exits-of-type' },
  F2021: {
    1342177279: 'total-exits',
    1342177278: 'total-cycles',
    1342177277: 'exits-of-type',
    1342177276: 'cycles-of-type',
  },
  F2022: {
    1342177279: 'cycles-of-type',
    1342177278: 'exits-of-type',
    1342177277: 'total-cycles',
    1342177276: 'total-exits',
  },
} as const satisfies Record<string, Readonly<Record<number, Cell>>>;
export type LabLayout = keyof typeof LAB_LAYOUTS;

/** @throws LabError for a name that is no layout */
export const checkLabLayout = (name: string): LabLayout => {
  if (Object.hasOwn(LAB_LAYOUTS, name)) return name as LabLayout;
  throw new LabError(
    'lab.layout',
    `unknown layout '${name}' of the lab leaves`,
    Object.keys(LAB_LAYOUTS).join(', '),
  );
};

const ZERO: CpuidRegisters = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
const UNDEFINED: CpuidRegisters = { eax: 0, ebx: 0, ecx: 0, edx: 0xffffffff };
const high = (n: number): number => Math.floor(n / 0x1_0000_0000) >>> 0;
const low = (n: number): number => (n % 0x1_0000_0000) >>> 0;

/**
 * The registers of a lab leaf, or undefined when the layout does not have it.
 * @param log  gets the line that the assignment prints
 * @param hide the guest reads 0 for every counter (`timeModel: 'instructions'`)
 */
export const labLeaf = (
  layout: LabLayout,
  leaf: number,
  subleaf: number,
  counts: ExitCounts,
  log: HypervisorLog,
  hide = false,
): CpuidRegisters | undefined => {
  const cell = (LAB_LAYOUTS[layout] as Readonly<Record<number, Cell | undefined>>)[leaf];
  if (cell === undefined) return undefined;
  const cpuid = `CPUID(0x${leaf.toString(16).toUpperCase()})`;
  const shown = (exits: number, cycles: number | undefined, line: string): CpuidRegisters => {
    log.print(`${cpuid}, ${line}`);
    if (hide) return ZERO;
    return {
      eax: low(exits),
      ebx: cycles === undefined ? 0 : high(cycles),
      ecx: cycles === undefined ? 0 : low(cycles),
      edx: 0,
    };
  };
  switch (cell) {
    case 'totals':
      return shown(
        counts.totalExits,
        counts.totalCycles,
        `exits=${counts.totalExits}, cycles spent in exit=${counts.totalCycles}`,
      );
    case 'total-exits':
      return shown(counts.totalExits, undefined, `exits=${counts.totalExits}`);
    case 'total-cycles':
      return shown(0, counts.totalCycles, `cycles spent in exit=${counts.totalCycles}`);
    case 'exits-of-type':
    case 'cycles-of-type': {
      const row = EXIT_REASONS[subleaf];
      if (row === undefined || !row.defined) {
        log.print(`${cpuid}, exit number ${subleaf} is not defined in the SDM`);
        return UNDEFINED;
      }
      if (!row.handled) {
        log.print(`${cpuid}, exit number ${subleaf} is not enabled in KVM`);
        return ZERO;
      }
      if (cell === 'exits-of-type') {
        return shown(
          counts.exits[subleaf],
          undefined,
          `exit number ${subleaf} exits=${counts.exits[subleaf]}`,
        );
      }
      return shown(
        0,
        counts.cycles[subleaf],
        `exit number ${subleaf} cycles spent in exit=${counts.cycles[subleaf]}`,
      );
    }
  }
};
