/**
 * A machine as notebooks and tools observe it: tracepoints, the VMCS at this moment, and the end of the run.
 *
 * Observers see everything and change nothing: the guest executes the same instructions and gets the same exits with
 * and without them.
 */
import type { TraceEvent, TraceListener, TraceName } from '../hypervisor/trace-events.js';
import type { Vm } from '../hypervisor/vm.js';
import { FIELDS, type FieldName } from '../vmx/fields.js';
import type { Hardware } from '../vmx/hardware.js';
import { exists } from '../vmx/vmcs.js';
import type { Machine } from './machine.js';

/** All fields of a VMCS that this processor has, by name. */
export type VmcsFields = Readonly<Partial<Record<FieldName, bigint>>>;

/** A listener that also gets the machine. */
export type MachineListener<N extends TraceName> = (event: TraceEvent<N>, machine: ObservedMachine) => void;
export type MachineListeners = { readonly [N in TraceName]?: MachineListener<N> };

export interface ObservedMachine extends Machine {
  /**
   * Calls `listener` at each event of that name; the function returned ends that.
   * @throws LabError for an unknown name, with the list of names
   */
  on<N extends TraceName>(name: N, listener: MachineListener<N>): () => void;
  /** The fields of the VMCS as they are now; in a listener, at the moment of its event. */
  vmcs(): VmcsFields;
  /** Ends the run after the exit that is being handled: its outcome is `interrupted`. */
  stop(): void;
}

const READABLE = FIELDS.filter((f) => exists(f.row));

/** @throws LabError for an unknown name in `listeners` */
export const observe = (hardware: Hardware, vm: Vm, listeners: MachineListeners = {}): ObservedMachine => {
  const machine: ObservedMachine = {
    hardware,
    vm,
    on: (name, listener) => vm.trace.on(name, listenerWith(listener)),
    vmcs: () => Object.fromEntries(READABLE.map((f) => [f.name, hardware.port.vmread(f.encoding)])),
    stop: () => vm.interrupt(),
  };
  const listenerWith = <N extends TraceName>(listener: MachineListener<N>): TraceListener<N> =>
    typeof listener === 'function' ? (event) => listener(event, machine) : listener;
  for (const [name, listener] of Object.entries(listeners))
    vm.trace.on(name as TraceName, listenerWith(listener as MachineListener<TraceName>) as never);
  return machine;
};
