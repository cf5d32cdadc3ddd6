/** The experiment itself: the same boot under nested and under shadow paging, each with counters that start at 0. */
import { Hypervisor } from '../hypervisor/modules.js';
import { type BootOptions, boot, type Paging, type RunResult } from './machine.js';

/** Loads the module for one kind of paging, boots, and unloads it again. */
export const bootUnder = async (paging: Paging, options: BootOptions = {}): Promise<RunResult> => {
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', { ept: paging === 'ept' });
  const result = await boot(hypervisor, options);
  hypervisor.unloadModule('kvm-intel');
  return result;
};

/** Boots the same guest in both modes, EPT first. */
export const bootBoth = async (
  options: BootOptions = {},
): Promise<{ readonly ept: RunResult; readonly shadow: RunResult }> => ({
  ept: await bootUnder('ept', options),
  shadow: await bootUnder('shadow', options),
});
