/**
 * A machine as notebooks and tools observe it: tracepoints, the VMCS at this moment, and the end of the run.
 *
 * Observers see everything and change nothing: the guest executes the same instructions and gets the same exits with
 * and without them.
 */
import { LabError } from '../base/error.js';
import type { TraceEvent, TraceListener, TraceName } from '../hypervisor/trace-events.js';
import type { Vm } from '../hypervisor/vm.js';
import type { SymbolTable } from '../loaders/symbols.js';
import { FIELDS, type FieldName } from '../vmx/fields.js';
import type { Hardware } from '../vmx/hardware.js';
import { exists } from '../vmx/vmcs.js';
import type { Counters, Machine } from './run-types.js';

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
  /** What has been counted until now. */
  counters(): Counters;
  /** Names of the guest's code; undefined where its image has none. */
  readonly symbols: SymbolTable | undefined;
  /**
   * The name of the place where the guest was: `native_write_cr4+0x1c/0x60`, `user` in user mode, undefined without a
   * name. To be asked in the listener of an exit or entry.
   */
  symbolOf(event: TraceEvent<'kvm_exit' | 'kvm_entry'>): string | undefined;
  /** Ends the run after the exit that is being handled: its outcome is `interrupted`. */
  stop(): void;
}

const READABLE = FIELDS.filter((f) => exists(f.row));

/** Where Linux has its image: an early boot runs it at the physical address, without this. */
const KERNEL_MAP = 0xffff_ffff_8000_0000n;
const KERNEL_MAP_BYTES = 1n << 30n;

/** The name of a place in the guest. @param user the guest was at privilege level 3 */
export const placeName = (
  symbols: SymbolTable | undefined,
  rip: bigint,
  user: boolean,
): string | undefined => {
  if (user) return 'user';
  return symbols?.at(rip < KERNEL_MAP_BYTES ? rip + KERNEL_MAP : rip)?.text;
};

/** A table that may not be there: read once. */
const lazily = (read: (() => SymbolTable) | undefined): (() => SymbolTable | undefined) => {
  let known: { readonly table: SymbolTable | undefined } | undefined;
  return () => {
    if (known === undefined) {
      try {
        known = { table: read?.() };
      } catch (e) {
        if (!(e instanceof LabError)) throw e;
        known = { table: undefined };
      }
    }
    return known.table;
  };
};

/** @throws LabError for an unknown name in `listeners` */
export const observe = (
  hardware: Hardware,
  vm: Vm,
  listeners: MachineListeners = {},
  symbols?: () => SymbolTable,
): ObservedMachine => {
  const table = lazily(symbols);
  const machine: ObservedMachine = {
    hardware,
    vm,
    on: (name, listener) => vm.trace.on(name, listenerWith(listener)),
    vmcs: () => Object.fromEntries(READABLE.map((f) => [f.name, hardware.port.vmread(f.encoding)])),
    counters: () => ({
      instructions: hardware.port.retired(),
      cycles: vm.clock.now(),
      exits: vm.hypervisor.counts.snapshot(),
      kvmStats: { ...vm.stats },
    }),
    get symbols() {
      return table();
    },
    symbolOf: (e) =>
      placeName(
        table(),
        e.name === 'kvm_exit' ? e.guest_rip : e.rip,
        (e.cpu.field('guestSsAccessRights') & 0x60n) === 0x60n,
      ),
    stop: () => vm.interrupt(),
  };
  const listenerWith = <N extends TraceName>(listener: MachineListener<N>): TraceListener<N> =>
    typeof listener === 'function' ? (event) => listener(event, machine) : listener;
  for (const [name, listener] of Object.entries(listeners))
    vm.trace.on(name as TraceName, listenerWith(listener as MachineListener<TraceName>) as never);
  return machine;
};
