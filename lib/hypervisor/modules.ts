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

/** Effective parameters of kvm-intel: what remains after the contradictions are resolved. */
const resolve = (
  p: KvmIntelParams,
  given: Readonly<Record<string, unknown>>,
  log: HypervisorLog,
): KvmIntelParams => {
  const needs = (name: 'unrestricted_guest' | 'eptad' | 'pml', other: 'ept' | 'eptad'): void => {
    if (!p[name] || p[other]) return;
    p[name] = false;
    if (given[name] === true) log.print(`kvm_intel: ${name}=Y has no effect with ${other}=N, set to N`);
  };
  needs('unrestricted_guest', 'ept');
  needs('eptad', 'ept');
  needs('pml', 'eptad');
  if (!p.ept) p.vmentry_l1d_flush = 'EPT disabled';
  if (p.ple_gap === 0) {
    p.ple_window = 0;
    p.ple_window_grow = 0;
    p.ple_window_max = 0;
    p.ple_window_shrink = 0;
  }
  return p;
};

export class Hypervisor {
  readonly log: HypervisorLog;
  /** Over all vCPUs of all VMs since the counters were reset. */
  readonly counts = new ExitCounts();
  #kvm: KvmParams | undefined;
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
        this.#kvm = readParams(name, KVM_PARAMS, params);
        break;
      case 'kvm-intel': {
        if (this.#intel !== undefined) throw alreadyLoaded(name);
        const read = readParams(name, KVM_INTEL_PARAMS, params);
        this.#kvm ??= readParams('kvm', KVM_PARAMS, {});
        this.#intel = resolve(read, params, this.log);
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

  /** Parameters as /sys/module shows them, with what each one does. */
  parameters(name: ModuleName): { name: string; value: string; default: string; effect: string }[] {
    const values = name === 'kvm' ? this.#kvm : this.#intel;
    if (values === undefined) throw new LabError('module.not-loaded', `module ${name} is not loaded`);
    const rows: Readonly<Record<string, ParamRow>> = name === 'kvm' ? KVM_PARAMS : KVM_INTEL_PARAMS;
    return Object.entries(rows).map(([n, r]) => ({
      name: n,
      value: paramText((values as Record<string, boolean | number | string>)[n] ?? r.default),
      default: paramText(r.default),
      effect: r.effect,
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
