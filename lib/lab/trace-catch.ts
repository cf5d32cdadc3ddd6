/**
 * One VM exit from its cause to the next VM entry, kept: the VMCS and the registers at the exit, the events of its
 * handling, and the VMCS at the entry. For notebooks that follow an exit through its fields.
 */
import { LabError } from '../base/error.js';
import type { GuestControl } from '../hypervisor/trace-cpu.js';
import type { TraceEvent } from '../hypervisor/trace-events.js';
import { TRACE_NAMES } from '../hypervisor/trace-rows.js';
import type { ObservedMachine, VmcsFields } from './observe.js';
import { type ExitExplanation, explainExit } from './trace-explain.js';

export interface CaughtExit {
  readonly exit: TraceEvent<'kvm_exit'>;
  readonly explanation: ExitExplanation;
  /** Where the guest was, by name: see `ObservedMachine.symbolOf`. */
  readonly symbol: string | undefined;
  /** The VMCS when the guest had just left. */
  readonly vmcs: VmcsFields;
  /** General registers at the exit, in the processor's numbering (4 is RSP). */
  readonly gprs: readonly bigint[];
  /** CR0, CR3, CR4 and EFER as the guest believed them to be at the exit. */
  readonly guest: GuestControl;
  /** What the hypervisor did, in order, up to the entry. */
  readonly steps: readonly TraceEvent[];
  readonly entry: TraceEvent<'kvm_entry'>;
  /** The VMCS as the guest is entered again. */
  readonly vmcsAtEntry: VmcsFields;
  readonly guestAtEntry: GuestControl;
}

export interface CatchOptions {
  /** Which of the exits that are wanted, from 1; default 1. */
  readonly nth?: number;
  /** Ends the run when it is caught; default false. */
  readonly stop?: boolean;
}

export interface ExitCatch {
  /** Undefined until it is caught. */
  readonly caught: CaughtExit | undefined;
  /** @throws LabError when no such exit came */
  take(): CaughtExit;
}

/**
 * Waits for an exit: `wanted` is asked at each one, in the listener (so it may read `e.cpu`).
 * With `stop`, the run ends as `interrupted` after the first exit that follows.
 */
export const catchExit = (
  machine: ObservedMachine,
  wanted: (e: TraceEvent<'kvm_exit'>) => boolean,
  options: CatchOptions = {},
): ExitCatch => {
  const nth = options.nth ?? 1;
  if (!Number.isInteger(nth) || nth < 1)
    throw new LabError('trace.nth', `nth: ${String(nth)} is not possible`, 'a whole number from 1 up');
  let seen = 0;
  let caught: CaughtExit | undefined;
  const offExit = machine.on('kvm_exit', (exit) => {
    if (!wanted(exit) || ++seen < nth) return;
    offExit();
    const { cpu } = exit;
    const before = {
      exit,
      explanation: explainExit(exit),
      symbol: machine.symbolOf(exit),
      vmcs: machine.vmcs(),
      gprs: Array.from({ length: 16 }, (_, i) => cpu.gpr(i)),
      guest: cpu.guest,
    };
    const steps: TraceEvent[] = [];
    const offs = TRACE_NAMES.filter((n) => n !== 'kvm_exit' && n !== 'kvm_entry').map((name) =>
      machine.on(name, (e) => {
        steps.push(e as TraceEvent);
      }),
    );
    offs.push(
      machine.on('kvm_entry', (entry) => {
        for (const off of offs) off();
        caught = { ...before, steps, entry, vmcsAtEntry: machine.vmcs(), guestAtEntry: entry.cpu.guest };
        if (options.stop === true) machine.stop();
      }),
    );
  });
  return {
    get caught() {
      return caught;
    },
    take() {
      if (caught === undefined)
        throw new LabError(
          'trace.none',
          `the run had ${seen} of the exits that were waited for, and ${nth} ${nth === 1 ? 'is' : 'are'} needed`,
        );
      return caught;
    },
  };
};
