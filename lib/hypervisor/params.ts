/**
 * Parameters of the modules `kvm` and `kvm-intel` (KVM-8.4): one row each, with KVM's type and default, what it does
 * here, and what happens when it contradicts another one.
 *
 * A parameter whose effect lies outside this model is accepted with its default only: setting it to another value is
 * refused rather than ignored.
 */
import { LabError } from '../base/error.js';

export type ParamValue = boolean | number | string;

export interface ParamRow<T extends ParamValue = ParamValue> {
  readonly default: T;
  /** What it changes here. */
  readonly effect: string;
  /** Absent: any value of the type. `default`: only the default is accepted, for the reason given. */
  readonly only?: string;
}

const flag = (value: boolean, effect: string, only?: string): ParamRow<boolean> =>
  only === undefined ? { default: value, effect } : { default: value, effect, only };
const number = (value: number, effect: string, only?: string): ParamRow<number> =>
  only === undefined ? { default: value, effect } : { default: value, effect, only };

const NOT_MODELLED = 'its effect is not modelled';

// biome-ignore format: one row per line
export const KVM_INTEL_PARAMS = {
  ept: flag(true, 'nested paging; false: shadow paging'),
  vpid: flag(true, 'TLB entries tagged by VPID; false: every entry and exit flushes'),
  unrestricted_guest: flag(true, 'no CR3 exits while the guest does not page; needs ept'),
  eptad: flag(true, 'accessed and dirty bits in EPT entries; needs ept'),
  flexpriority: flag(true, 'TPR shadow and APIC-access page'),
  vnmi: flag(true, 'virtual NMIs and the NMI window', NOT_MODELLED),
  enable_apicv: flag(false, 'APIC register virtualization and posted interrupts', 'the processor offers none; KVM reads N then'),
  enable_ipiv: flag(false, 'IPI virtualization', 'needs APICv'),
  fasteoi: flag(true, 'decode EOI writes on APIC-access exits without the emulator'),
  emulate_invalid_guest_state: flag(true, 'emulate while the state cannot be entered', NOT_MODELLED),
  nested: flag(false, 'VMX for the guest (KVM: Y)', 'guests that run guests are not modelled'),
  pml: flag(true, 'page-modification logging; only used while pages are logged, which never happens here; needs eptad'),
  preemption_timer: flag(true, 'VMX-preemption timer for the local APIC timer; false: a host timer interrupt'),
  ple_gap: number(128, 'PAUSE-loop exiting: longest gap, in TSC cycles; 0 turns it off'),
  ple_window: number(4096, 'PAUSE-loop exiting: window, in TSC cycles'),
  ple_window_grow: number(2, 'factor by which the window grows on an exit; 0: back to ple_window'),
  ple_window_shrink: number(0, 'divisor when a vCPU is scheduled in; 0: back to ple_window'),
  ple_window_max: number(4294967295, 'largest window'),
  pt_mode: number(0, 'Intel Processor Trace', NOT_MODELLED),
  vmentry_l1d_flush: { default: 'never', effect: 'L1D flush at entry; the processor is not vulnerable', only: NOT_MODELLED },
  error_on_inconsistent_vmcs_config: flag(true, 'refuse processors that differ', NOT_MODELLED),
  dump_invalid_vmcs: flag(false, 'print the VMCS to the log when an entry fails'),
  allow_smaller_maxphyaddr: flag(false, 'guest MAXPHYADDR below the host\'s', NOT_MODELLED),
  enlightened_vmcs: flag(false, 'Hyper-V eVMCS (KVM: Y, without effect outside Hyper-V)', NOT_MODELLED),
} as const satisfies Record<string, ParamRow>;

// biome-ignore format: one row per line
export const KVM_PARAMS = {
  ignore_msrs: flag(false, 'unknown MSRs read 0 and ignore writes instead of #GP'),
  report_ignored_msrs: flag(true, 'log unknown MSRs'),
  force_emulation_prefix: number(0, 'UD2 "kvm" prefix', NOT_MODELLED),
  tdp_mmu: flag(true, 'no prefetch of neighbours in EPT tables', NOT_MODELLED),
  nx_huge_pages: flag(false, 'iTLB-multihit workaround (KVM: auto, off on this processor)', NOT_MODELLED),
  nx_huge_pages_recovery_ratio: number(60, 'part of split pages recovered a minute', NOT_MODELLED),
  mmio_caching: flag(true, 'MMIO entries in the page tables', NOT_MODELLED),
  flush_on_reuse: flag(false, 'flush when a shadow page is reused', NOT_MODELLED),
  eager_page_split: flag(true, 'split huge pages when logging starts', NOT_MODELLED),
  halt_poll_ns: number(200000, 'longest poll on HLT; polling has no effect in virtual time', NOT_MODELLED),
  halt_poll_ns_grow: number(2, 'factor of growth', NOT_MODELLED),
  halt_poll_ns_grow_start: number(10000, 'first poll time', NOT_MODELLED),
  halt_poll_ns_shrink: number(0, 'divisor', NOT_MODELLED),
  lapic_timer_advance_ns: number(-1, 'fire the local APIC timer early (KVM tunes it itself)', NOT_MODELLED),
  min_timer_period_us: number(200, 'shortest period of guest timers', NOT_MODELLED),
  kvmclock_periodic_sync: flag(true, 'refresh kvmclock every 300 s', NOT_MODELLED),
  tsc_tolerance_ppm: number(250, 'tolerated difference of TSC rates', NOT_MODELLED),
  vector_hashing: flag(true, 'lowest-priority interrupts by hash', NOT_MODELLED),
  pi_inject_timer: number(-1, 'timer interrupts from a housekeeping CPU', NOT_MODELLED),
  enable_pmu: flag(false, 'virtual performance counters (KVM: Y)', 'the processor has none'),
  enable_vmware_backdoor: flag(false, 'VMware port 0x5658', NOT_MODELLED),
  mitigate_smt_rsb: flag(false, 'RSB stuffing', NOT_MODELLED),
} as const satisfies Record<string, ParamRow>;

type Widen<T> = T extends boolean ? boolean : T extends number ? number : string;
export type KvmIntelParams = {
  -readonly [K in keyof typeof KVM_INTEL_PARAMS]: Widen<(typeof KVM_INTEL_PARAMS)[K]['default']>;
};
export type KvmParams = {
  -readonly [K in keyof typeof KVM_PARAMS]: Widen<(typeof KVM_PARAMS)[K]['default']>;
};

/** The text that /sys/module/…/parameters shows. */
export const paramText = (value: ParamValue): string =>
  typeof value === 'boolean' ? (value ? 'Y' : 'N') : String(value);

/**
 * Checks given parameters against the rows and completes them with the defaults.
 * @throws LabError `module.parameter` for an unknown name, a wrong type, or a value that is not modelled
 */
export const readParams = <R extends Readonly<Record<string, ParamRow>>>(
  module: string,
  rows: R,
  given: Readonly<Record<string, unknown>>,
): { [K in keyof R]: Widen<R[K]['default']> } => {
  const out: Record<string, ParamValue> = {};
  for (const [name, r] of Object.entries(rows)) out[name] = r.default;
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    const r = Object.hasOwn(rows, name) ? rows[name] : undefined;
    if (r === undefined) {
      throw new LabError(
        'module.parameter',
        `${module}: unknown parameter '${name}'`,
        `valid names: ${Object.keys(rows).join(', ')}`,
      );
    }
    if (typeof value !== typeof r.default) {
      throw new LabError(
        'module.parameter',
        `${module}: parameter '${name}' is a ${typeof r.default}, not ${typeof value} (${String(value)})`,
        r.effect,
      );
    }
    if (typeof value === 'number' && !Number.isInteger(value)) {
      throw new LabError(
        'module.parameter',
        `${module}: parameter '${name}' must be a whole number, not ${value}`,
        r.effect,
      );
    }
    if (r.only !== undefined && value !== r.default) {
      throw new LabError(
        'module.parameter',
        `${module}: parameter '${name}' can only be ${paramText(r.default)} here`,
        r.only,
      );
    }
    out[name] = value as ParamValue;
  }
  return out as { [K in keyof R]: Widen<R[K]['default']> };
};
