/** A boot under one kind of paging, with counters that start at 0. */
import { Hypervisor } from '../hypervisor/modules.js';
import { boot } from './machine.js';
import type { ModuleParams } from './module-params.js';
import type { BootOptions, Paging, RunResult } from './run-types.js';

/**
 * Loads the modules for one kind of paging, boots, and unloads them again.
 * @param params parameters of the modules; `ept` is that of `paging`
 * @returns the run; its log begins with what the modules said when they were loaded
 */
export const bootUnder = async (
  paging: Paging,
  options: BootOptions = {},
  params: Partial<ModuleParams> = {},
): Promise<RunResult> => {
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm', params.kvm);
  hypervisor.loadModule('kvm-intel', { ...params['kvm-intel'], ept: paging === 'ept' });
  const loading = hypervisor.log.lines.map((l) => l.text);
  const result = await boot(hypervisor, options);
  hypervisor.unloadModule('kvm-intel');
  return loading.length === 0 ? result : { ...result, log: [...loading, ...result.log] };
};
