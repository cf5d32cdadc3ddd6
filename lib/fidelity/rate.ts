/**
 * How fast virtual time ran in the recorded runs: there one instruction of guest *and* hypervisor is one TSC cycle of a
 * 400 MHz processor, so an exit costs as many cycles as instructions were executed to handle it.
 *
 * The rows follow from the recorded time of brackets and phases, never from counts: CR3 with NOFLUSH from
 * `loop20000` of c less b (692 exits in 1.95 M cycles), faults from micro test 3 of b less a (512 faults, half injected
 * and half filled, in 3.5 M), emulation from micro tests 8 to 10 (on average 11 k a fault with one in four emulated),
 * port I/O from the time to init less guest instructions (6.4 k in a, 4.4 k in aA).
 */
import type { CostOptions } from '../hypervisor/costs.js';

export const REFERENCE_TSC_HZ = 400_000_000;
export const REFERENCE_COSTS: CostOptions = {
  base: 2000,
  crAccess: 800,
  cpuid: 1000,
  io: 2500,
  ioDevice: 500,
  rdmsr: 1000,
  wrmsr: 1500,
  externalInterrupt: 4000,
  preemptionTimer: 2500,
  invlpg: 3000,
  invpcid: 3000,
  faultInjected: 3000,
  faultFixed: 6000,
  emulated: 14_000,
  eptFixed2M: 6000,
  eptMisconfiguration: 6000,
  // the recorded processor walks page tables in no time
  walkReference: 0,
};
