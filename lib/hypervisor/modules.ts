/**
 * The host's side of `insmod` and `rmmod`: the modules `kvm` and `kvm-intel`, their parameters, and what lives as long
 * as they do: the exit counters of the lab and the hypervisor's log.
 *
 * Parameters are read once, at load (0444 in KVM). Contradictions are resolved as KVM's hardware_setup does, and
 * logged. A module cannot be unloaded while a VM exists.
 */
import { LabError } from '../base/error.js';
import { ExitCounts } from './counts.js';
import { HypervisorLog } from './log.js';
import {
  KVM_INTEL_PARAMS,
  KVM_PARAMS,
  type KvmIntelParams,
  type KvmParams,
  type ParamRow,
  type ParamType,
  type ParamValue,
  paramText,
  readParams,
} from './params.js';

export type ModuleName = 'kvm' | 'kvm-intel';

export interface LoadOptions {
  /**
   * Keeps the exit counters of the last load, as reloading only kvm-intel does when the counters live in kvm.ko: the
   * numbers of a second boot then contain those of the first.
   */
  readonly keepCounters?: boolean;
}

/** What a VM takes from its modules when it is created. */
export interface LoadedKvm {
  readonly intel: KvmIntelParams;
  readonly kvm: KvmParams;
}

type Given = Readonly<Record<string, unknown>>;

/** Effective parameters of kvm-intel: what remains after the contradictions are resolved (hardware_setup). */
const resolve = (p: KvmIntelParams, given: Given, log: HypervisorLog): KvmIntelParams => {
  const needs = (name: 'unrestricted_guest' | 'eptad' | 'pml', other: 'ept' | 'eptad'): void => {
    if (!p[name] || p[other]) return;
    p[name] = false;
    if (given[name] === true) log.print(`kvm_intel: ${name}=Y has no effect with ${other}=N, set to N`);
  };
  needs('unrestricted_guest', 'ept');
  needs('eptad', 'ept');
  needs('pml', 'eptad');
  p.vmentry_l1d_flush = p.ept ? 'not required' : 'EPT disabled';
  if (p.ple_gap === 0) {
    for (const name of ['ple_window', 'ple_window_grow', 'ple_window_max', 'ple_window_shrink'] as const) {
      p[name] = 0;
      if (given[name] !== undefined)
        log.print(`kvm_intel: ${name}=${String(given[name])} has no effect with ple_gap=0, set to 0`);
    }
  }
  return p;
};

/** Contradictions between the modules: kvm's parameters that only matter with EPT (kvm_mmu_init_tdp_mmu). */
const resolveKvm = (given: Given, intel: KvmIntelParams, log: HypervisorLog): void => {
  const name = 'tdp_mmu' satisfies keyof KvmParams;
  if (!intel.ept && given[name] === true) log.print(`kvm: ${name}=Y has no effect with ept=N`);
};

export class Hypervisor {
  readonly log: HypervisorLog;
  /** Over all vCPUs of all VMs since the counters were reset. */
  readonly counts = new ExitCounts();
  #kvm: KvmParams | undefined;
  #kvmGiven: Given = {};
  #intel: KvmIntelParams | undefined;
  readonly #vms = new Set<object>();

  constructor(log = new HypervisorLog()) {
    this.log = log;
  }

  /**
   * insmod. Loading `kvm-intel` loads `kvm` with its defaults when that is missing.
   * @throws LabError for a module that is loaded already and for wrong parameters; nothing is changed then
   */
  loadModule(
    name: ModuleName,
    params: Readonly<Record<string, unknown>> = {},
    options: LoadOptions = {},
  ): void {
    switch (name) {
      case 'kvm':
        if (this.#kvm !== undefined) throw alreadyLoaded(name);
        this.#kvm = readParams(name, KVM_PARAMS, params, (line) => this.log.print(line));
        this.#kvmGiven = params;
        break;
      case 'kvm-intel': {
        if (this.#intel !== undefined) throw alreadyLoaded(name);
        const read = readParams(name, KVM_INTEL_PARAMS, params, (line) => this.log.print(line));
        if (this.#kvm === undefined) {
          this.#kvm = readParams('kvm', KVM_PARAMS, {});
          this.#kvmGiven = {};
        }
        this.#intel = resolve(read, params, this.log);
        resolveKvm(this.#kvmGiven, this.#intel, this.log);
        break;
      }
      default:
        throw new LabError('module.name', `there is no module '${String(name)}'`, 'kvm, kvm-intel');
    }
    if (options.keepCounters !== true) this.counts.reset();
  }

  /** rmmod. @throws LabError while a VM exists, or when another module needs it, or when it is not loaded */
  unloadModule(name: ModuleName): void {
    if (!this.loaded(name)) throw new LabError('module.not-loaded', `module ${name} is not loaded`);
    if (this.#vms.size > 0) {
      const n = this.#vms.size;
      throw new LabError(
        'module.in-use',
        `module ${name} is in use by ${n} VM${n === 1 ? '' : 's'}`,
        'destroy the VM first',
      );
    }
    if (name === 'kvm') {
      if (this.#intel !== undefined)
        throw new LabError('module.in-use', 'module kvm is in use by: kvm_intel');
      this.#kvm = undefined;
    } else {
      this.#intel = undefined;
    }
  }

  loaded(name: ModuleName): boolean {
    return name === 'kvm' ? this.#kvm !== undefined : this.#intel !== undefined;
  }

  /** The parameters a VM runs with. @throws LabError when kvm-intel is not loaded */
  require(): LoadedKvm {
    if (this.#intel === undefined || this.#kvm === undefined) {
      throw new LabError(
        'module.not-loaded',
        'no VM can be created: kvm-intel is not loaded',
        "loadModule('kvm-intel')",
      );
    }
    return { intel: this.#intel, kvm: this.#kvm };
  }

  /** Parameters as /sys/module shows them, with type, KVM's default, and what each one does here. */
  parameters(
    name: ModuleName,
  ): { name: string; type: ParamType; value: string; default: string; effect: string }[] {
    const values = name === 'kvm' ? this.#kvm : this.#intel;
    if (values === undefined) throw new LabError('module.not-loaded', `module ${name} is not loaded`);
    const rows: Readonly<Record<string, ParamRow>> = name === 'kvm' ? KVM_PARAMS : KVM_INTEL_PARAMS;
    return Object.entries(rows).map(([n, r]) => ({
      name: n,
      type: r.type,
      value: paramText((values as Record<string, ParamValue>)[n] ?? r.initial),
      default: paramText(r.default),
      effect: r.kind === 'effect' ? r.effect : `none here: ${r.effect}`,
    }));
  }

  /** Called by a VM when it is created and destroyed. */
  addVm(vm: object): void {
    this.#vms.add(vm);
  }
  removeVm(vm: object): void {
    this.#vms.delete(vm);
  }
}

const alreadyLoaded = (name: string): LabError =>
  new LabError('module.loaded', `module ${name} is loaded already`, `unloadModule('${name}') first`);
