/**
 * Module parameters as text, the way `insmod` and the kernel's command line take them: `NAME=VALUE`, where a name may have
 * its module in front (`kvm_intel.ept=N`), and a flag's name alone sets it.
 */
import { LabError } from '../base/error.js';
import type { ModuleName } from '../hypervisor/modules.js';
import { paramFromText } from '../hypervisor/params.js';

/** Parameters for `loadModule`, by module. */
export type ModuleParams = Readonly<Record<ModuleName, Readonly<Record<string, unknown>>>>;

/**
 * Reads such texts; the later of two with the same name counts.
 * @throws LabError `module.parameter` for an unknown name (with the valid ones) and for values of another type
 */
export const readModuleParams = (texts: readonly string[]): ModuleParams => {
  const out: Record<ModuleName, Record<string, unknown>> = { 'kvm-intel': {}, kvm: {} };
  for (const text of texts) {
    const at = text.indexOf('=');
    const full = at < 0 ? text : text.slice(0, at);
    const m = /^(kvm|kvm[-_]intel)\.(.*)$/.exec(full);
    const name = m?.[2] ?? full;
    const { module, value } = paramFromText(name, at < 0 ? 'Y' : text.slice(at + 1));
    if (m !== null && m[1]!.replace('_', '-') !== module)
      throw new LabError('module.parameter', `'${full}': ${name} is a parameter of ${module}`);
    out[module][name] = value;
  }
  return out;
};
