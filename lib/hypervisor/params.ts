/**
 * Parameters of the modules `kvm` and `kvm-intel` (KVM-8.4): one row each, with KVM's name, type and default, what it
 * does here, or why it does nothing.
 *
 * A parameter without effect here takes any value of its type and says in the log that nothing comes of it. Parameters
 * of things that this model does not have at all (`nested`, APICv, the PMU) take no other value than the one in force.
 * What contradicts another parameter is resolved in `modules.ts`, as KVM's hardware_setup does.
 */
import { LabError } from '../base/error.js';

export type ParamValue = boolean | number | string;
export type ParamType = 'bool' | 'int' | 'uint' | 'charp';

export interface ParamRow<T extends ParamValue = ParamValue> {
  readonly type: ParamType;
  /** KVM's default. */
  readonly default: ParamValue;
  /** What is in force when nothing is given; differs from the default where KVM's set-up decides by the processor. */
  readonly initial: T;
  /** What it changes here, or why it changes nothing. */
  readonly effect: string;
  /** `none`: nothing comes of it here. `fixed`: it has no other value than `initial` here. */
  readonly kind: 'effect' | 'none' | 'fixed';
  /** Words that it takes beside its type's values, and what they mean. */
  readonly words?: Readonly<Record<string, T>>;
}

const bool = (value: boolean, effect: string): ParamRow<boolean> => ({
  type: 'bool',
  default: value,
  initial: value,
  effect,
  kind: 'effect',
});
const uint = (value: number, effect: string): ParamRow<number> => ({
  type: 'uint',
  default: value,
  initial: value,
  effect,
  kind: 'effect',
});
const int = (value: number, effect: string): ParamRow<number> => ({ ...uint(value, effect), type: 'int' });
const none = <T extends ParamValue>(row: ParamRow<T>): ParamRow<T> => ({ ...row, kind: 'none' });
const fixed = (kvm: boolean, value: boolean, effect: string): ParamRow<boolean> => ({
  ...bool(value, effect),
  default: kvm,
  kind: 'fixed',
});

const L1D_FLUSH = { auto: 'auto', never: 'never', cond: 'cond', always: 'always' } as const;

// biome-ignore format: one row per line
export const KVM_INTEL_PARAMS = {
  ept: bool(true, 'nested paging; N: shadow paging'),
  vpid: bool(true, 'TLB entries tagged by VPID; N: every entry and exit flushes'),
  unrestricted_guest: bool(true, 'the guest itself runs without paging; N: on an identity map, with CR3 exits while it does; needs ept'),
  eptad: bool(true, 'accessed and dirty bits in EPT entries: guest page walks count as writes; needs ept'),
  flexpriority: bool(true, 'APIC-access page: every xAPIC access goes to the emulator by a violation; N: plain MMIO'),
  vnmi: none(bool(true, 'the processor has virtual NMIs and they are always used')),
  enable_apicv: fixed(true, false, 'APIC register virtualization and posted interrupts are not modelled; KVM reads N on such a processor'),
  enable_ipiv: fixed(true, false, 'IPI virtualization needs APICv, which is not modelled'),
  fasteoi: bool(true, 'decode EOI writes on APIC-access exits without the emulator'),
  emulate_invalid_guest_state: bool(true, 'without unrestricted guest: emulate while the segments cannot be entered; N: the entry fails'),
  nested: fixed(true, false, 'VMX for guests is not modelled: their VMX instructions are #UD'),
  pml: none(bool(true, 'pages are never logged, so no log fills; needs eptad')),
  preemption_timer: bool(true, 'VMX-preemption timer for the local APIC timer; N: a host timer interrupt'),
  ple_gap: uint(128, 'PAUSE-loop exiting: longest gap, in TSC cycles; 0 turns it off'),
  ple_window: uint(4096, 'PAUSE-loop exiting: window, in TSC cycles'),
  ple_window_grow: uint(2, 'factor by which the window grows on an exit; 0: back to ple_window'),
  ple_window_shrink: uint(0, 'divisor when a vCPU is scheduled in; 0: back to ple_window'),
  ple_window_max: uint(4294967295, 'largest window'),
  pt_mode: none(int(0, 'the processor has no Processor Trace')),
  vmentry_l1d_flush: none({ type: 'charp', default: 'auto', initial: 'auto', words: L1D_FLUSH, effect: 'the processor is not vulnerable, nothing is flushed', kind: 'none' } as ParamRow<string>),
  error_on_inconsistent_vmcs_config: none(bool(true, 'there is one processor to agree with')),
  dump_invalid_vmcs: bool(false, 'print the VMCS to the log when an entry fails'),
  allow_smaller_maxphyaddr: none(bool(false, 'guests have the processor\'s MAXPHYADDR')),
  enlightened_vmcs: none({ ...bool(true, 'only under Hyper-V; KVM reads N elsewhere'), initial: false }),
} as const satisfies Record<string, ParamRow>;

// biome-ignore format: one row per line
export const KVM_PARAMS = {
  ignore_msrs: bool(false, 'unknown MSRs read 0 and ignore writes instead of #GP'),
  report_ignored_msrs: bool(true, 'log unknown MSRs'),
  force_emulation_prefix: none(int(0, 'UD2 with a prefix is #UD like any other')),
  tdp_mmu: bool(true, 'one EPT leaf a violation; N: the older direct MMU, which fills aligned groups of 8; needs ept'),
  nx_huge_pages: { ...bool(false, 'iTLB-multihit workaround: large pages are not executable; auto: N on this processor'), default: 'auto', words: { auto: false, off: false, force: true } },
  nx_huge_pages_recovery_ratio: none(uint(60, 'split pages stay split')),
  mmio_caching: bool(true, 'MMIO entries in the page tables; N: each access is looked up again'),
  flush_on_reuse: none(bool(false, 'a shadow page that is used again is brought up to date anyway')),
  eager_page_split: none(bool(true, 'pages are never logged')),
  halt_poll_ns: uint(200000, 'how long a halt may poll, in the halt statistics; 0: none does'),
  halt_poll_ns_grow: uint(2, 'factor by which polling grows after a short halt; 0: it never begins'),
  halt_poll_ns_grow_start: uint(10000, 'shortest polling'),
  halt_poll_ns_shrink: uint(0, 'divisor after a long halt; 0: polling ends'),
  lapic_timer_advance_ns: none(int(-1, 'timers fire at their deadline')),
  min_timer_period_us: none(uint(200, 'periods are as the guest sets them')),
  kvmclock_periodic_sync: none(bool(true, 'kvmclock does not drift')),
  tsc_tolerance_ppm: none(uint(250, 'TSC rates agree')),
  vector_hashing: none(bool(true, 'one vCPU gets every interrupt')),
  pi_inject_timer: none(int(-1, 'timer interrupts are never posted')),
  enable_pmu: fixed(true, false, 'performance counters are not modelled'),
  enable_vmware_backdoor: none(bool(false, 'port 0x5658 is an absent device')),
  mitigate_smt_rsb: none(bool(false, 'the processor is not affected')),
} as const satisfies Record<string, ParamRow>;

type Rows = Readonly<Record<string, ParamRow>>;
type Values<R extends Rows> = { -readonly [K in keyof R]: R[K]['initial'] };
export type KvmIntelParams = Values<typeof KVM_INTEL_PARAMS>;
export type KvmParams = Values<typeof KVM_PARAMS>;

/** The text that /sys/module/…/parameters shows. */
export const paramText = (value: ParamValue): string =>
  typeof value === 'boolean' ? (value ? 'Y' : 'N') : String(value);

const LIMITS = { int: [-0x8000_0000, 0x7fff_ffff], uint: [0, 0xffff_ffff] } as const;
const TYPE_TEXT = {
  bool: 'a boolean',
  int: 'a whole number (int)',
  uint: 'a whole number (uint)',
  charp: 'a word',
} as const;

/** The value of a parameter as given, or why it is none. */
const readValue = (
  r: ParamRow,
  value: unknown,
): { readonly value: ParamValue } | { readonly wrong: string } => {
  const words = r.words ?? {};
  if (typeof value === 'string' && Object.hasOwn(words, value)) return { value: words[value] as ParamValue };
  const or = r.words === undefined ? '' : ` or one of ${Object.keys(words).join(', ')}`;
  const given = `${typeof value} (${String(value)})`;
  switch (r.type) {
    case 'charp':
      return { wrong: `is one of ${Object.keys(words).join(', ')}, not ${given}` };
    case 'bool':
      return typeof value === 'boolean' ? { value } : { wrong: `is a boolean${or}, not ${given}` };
    default: {
      const [least, most] = LIMITS[r.type];
      if (typeof value !== 'number') return { wrong: `is ${TYPE_TEXT[r.type]}${or}, not ${given}` };
      if (!Number.isInteger(value)) return { wrong: `must be a whole number, not ${value}` };
      return value >= least && value <= most
        ? { value }
        : { wrong: `must be from ${least} to ${most}, not ${value}` };
    }
  }
};

const refusal = (says: string, hint: string): LabError => new LabError('module.parameter', says, hint);

/**
 * Checks given parameters against the rows and completes them with what is in force without them.
 * @param log gets a line for each parameter that is given and has no effect here
 * @throws LabError `module.parameter` for an unknown name, a wrong type, or something that is not modelled
 */
export const readParams = <R extends Rows>(
  module: string,
  rows: R,
  given: Readonly<Record<string, unknown>>,
  log?: (line: string) => void,
): Values<R> => {
  const out: Record<string, ParamValue> = {};
  for (const [name, r] of Object.entries(rows)) out[name] = r.initial;
  for (const [name, raw] of Object.entries(given)) {
    if (raw === undefined) continue;
    const r = Object.hasOwn(rows, name) ? rows[name] : undefined;
    if (r === undefined)
      throw refusal(`${module}: unknown parameter '${name}'`, `valid names: ${Object.keys(rows).join(', ')}`);
    const read = readValue(r, raw);
    if ('wrong' in read)
      throw refusal(
        `${module}: parameter '${name}' ${read.wrong}`,
        `${r.effect}; valid names: ${Object.keys(rows).join(', ')}`,
      );
    if (r.kind === 'fixed' && read.value !== r.initial)
      throw refusal(`${module}: parameter '${name}' can only be ${paramText(r.initial)} here`, r.effect);
    out[name] = read.value;
  }
  for (const name of Object.keys(given)) {
    const r = rows[name];
    if (given[name] !== undefined && r?.kind === 'none')
      log?.(
        `${module.replace('-', '_')}: ${name}=${paramText(out[name] as ParamValue)} has no effect here: ${r.effect}`,
      );
  }
  return out as Values<R>;
};

const BOOLEANS: Readonly<Record<string, boolean>> = {
  Y: true,
  y: true,
  1: true,
  on: true,
  N: false,
  n: false,
  0: false,
  off: false,
};

/**
 * A parameter as `modprobe` takes it: `paramFromText('ept', 'N')` is `{ module: 'kvm-intel', value: false }`.
 * @throws LabError `module.parameter` for a name that no module has, or text that is no value of its type
 */
export const paramFromText = (
  name: string,
  text: string,
): { readonly module: 'kvm' | 'kvm-intel'; readonly value: ParamValue } => {
  const inIntel = Object.hasOwn(KVM_INTEL_PARAMS, name);
  if (!inIntel && !Object.hasOwn(KVM_PARAMS, name))
    throw refusal(
      `unknown parameter '${name}'`,
      `valid names: of kvm-intel ${Object.keys(KVM_INTEL_PARAMS).join(', ')}; of kvm ${Object.keys(KVM_PARAMS).join(', ')}`,
    );
  const rows: Rows = inIntel ? KVM_INTEL_PARAMS : KVM_PARAMS;
  const r = rows[name] as ParamRow;
  const module = inIntel ? 'kvm-intel' : 'kvm';
  if (r.words !== undefined && Object.hasOwn(r.words, text)) return { module, value: text };
  if (r.type === 'bool') {
    const value = BOOLEANS[text];
    if (value !== undefined) return { module, value };
  } else if (r.type !== 'charp' && /^-?(\d+|0x[0-9a-f]+)$/i.test(text)) {
    return { module, value: text.startsWith('-') ? -Number(text.slice(1)) : Number(text) };
  }
  const takes = r.type === 'bool' ? 'Y or N' : r.type === 'charp' ? 'a word' : `a number (${r.type})`;
  const words = r.words === undefined ? '' : ` or ${Object.keys(r.words).join(', ')}`;
  throw refusal(`${module}: parameter '${name}' takes ${takes}${words}, not '${text}'`, r.effect);
};
