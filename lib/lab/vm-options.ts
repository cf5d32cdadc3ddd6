/**
 * From the options of `boot` to those of the processor and of the virtual machine.
 *
 * A feature that KVM offers is switched off by hiding its CPUID bits, and is then absent whatever the processor is; the
 * paravirtual ones that a guest does not get by default are switched on where the machine is made.
 */
import type { CpuOptions } from '../cpu/core.js';
import type { HideableFeature } from '../hypervisor/cpuid.js';
import { createMmu } from '../hypervisor/mmu/create.js';
import type { VmOptions } from '../hypervisor/vm.js';
import type { VmxPort } from '../vmx/port.js';
import { referenceCpuid } from './reference.js';
import { type BootOptions, GUEST_FEATURES, type GuestFeature, PARAVIRTUAL } from './run-types.js';

/** CPUID bits of each feature. */
const BITS: Readonly<Record<GuestFeature, readonly HideableFeature[]>> = {
  x2apic: ['x2apic'],
  kvmclock: ['kvmclock', 'kvmclock_old', 'kvmclock_stable'],
  pvEoi: ['pv_eoi'],
  asyncPf: ['async_pf', 'async_pf_int'],
  stealTime: ['steal_time'],
};

/** The model and the seed of the processor; the recorded one needs all that this processor has. */
export const cpuOptions = (options: BootOptions): CpuOptions => {
  const { cpu = 'lab', seed = 0 } = options;
  return { model: cpu === 'reference' ? 'lab' : cpu, seed };
};

/** What of a machine's options follows from `options` alone: processor, features, time, backing. */
export const vmOptions = (
  options: BootOptions,
  port: VmxPort,
): Omit<VmOptions, 'memory' | 'labLayout' | 'board' | 'vcpus'> => {
  const recorded = options.cpu === 'reference';
  const { timeModel, tscHz, hostTickHz, costs, backing, features = {} } = options;
  // with `timeModel: 'instructions'` nothing paravirtual that depends on the mode is offered
  const offered = (name: GuestFeature): boolean =>
    timeModel !== 'instructions' || !PARAVIRTUAL.includes(name);
  const on = (name: GuestFeature): boolean =>
    offered(name) && (features[name] ?? (recorded || GUEST_FEATURES[name]));
  const off = (Object.keys(BITS) as GuestFeature[]).filter((name) => !on(name));
  return {
    createMmu,
    meltdown: options.pti ?? options.meltdown ?? false,
    pvEoi: on('pvEoi'),
    asyncPf: on('asyncPf'),
    stealTime: on('stealTime'),
    hideCpuid: [...(options.hideCpuid ?? []), ...off.flatMap((name) => BITS[name])],
    ...(recorded ? { cpuidTable: referenceCpuid(port) } : {}),
    ...(timeModel === undefined ? {} : { timeModel }),
    ...(tscHz === undefined ? {} : { tscHz }),
    ...(hostTickHz === undefined ? {} : { hostTickHz }),
    ...(costs === undefined ? {} : { costs }),
    ...(backing === undefined ? {} : { backing }),
  };
};
