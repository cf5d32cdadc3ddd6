/**
 * Module parameters as text, the way `insmod` and the kernel's command line take them: `NAME=VALUE`, where a name may have
 * its module in front (`kvm_intel.ept=N`), and a flag is Y or N.
 */
import { LabError } from '../base/error.js';
import type { ModuleName } from '../hypervisor/modules.js';
import { KVM_INTEL_PARAMS, KVM_PARAMS, type ParamRow } from '../hypervisor/params.js';

/** Parameters for `loadModule`, by module. */
export type ModuleParams = Readonly<Record<ModuleName, Readonly<Record<string, unknown>>>>;

const ROWS: Readonly<Record<ModuleName, Readonly<Record<string, ParamRow>>>> = {
  'kvm-intel': KVM_INTEL_PARAMS,
  kvm: KVM_PARAMS,
};
/** What the kernel's kstrtobool takes. */
const FLAGS: Readonly<Record<string, boolean>> = {
  ...{ y: true, yes: true, '1': true, on: true, true: true, t: true },
  ...{ n: false, no: false, '0': false, off: false, false: false, f: false },
};

const find = (name: string): readonly [ModuleName, string, ParamRow] => {
  const m = /^(kvm|kvm[-_]intel)\.(.*)$/.exec(name);
  const own = m === null ? name : m[2]!;
  const modules = (Object.keys(ROWS) as ModuleName[]).filter(
    (module) => m === null || module === m[1]!.replace('_', '-'),
  );
  for (const module of modules) {
    const row = Object.hasOwn(ROWS[module], own) ? ROWS[module][own] : undefined;
    if (row !== undefined) return [module, own, row];
  }
  const valid = modules.map((module) => `${module}: ${Object.keys(ROWS[module]).join(', ')}`);
  throw new LabError('module.parameter', `unknown module parameter '${name}'`, valid.join('; '));
};

const wrong = (name: string, text: string, hint: string): LabError =>
  new LabError('module.parameter', `module parameter ${name}: '${text}' is not possible`, hint);

const readValue = (name: string, text: string, row: ParamRow): boolean | number | string => {
  switch (typeof row.default) {
    case 'boolean': {
      const flag = Object.hasOwn(FLAGS, text.toLowerCase()) ? FLAGS[text.toLowerCase()] : undefined;
      if (flag === undefined) throw wrong(name, text, `Y or N: ${row.effect}`);
      return flag;
    }
    case 'number': {
      const n = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
      if (!Number.isSafeInteger(n)) throw wrong(name, text, `a whole number: ${row.effect}`);
      return n;
    }
    case 'string':
      return text;
  }
};

/**
 * Reads `NAME=VALUE` texts; the later of two with the same name counts.
 * @throws LabError `module.parameter` for an unknown name (with the valid ones) and for values of another type
 */
export const readModuleParams = (texts: readonly string[]): ModuleParams => {
  const out: Record<ModuleName, Record<string, unknown>> = { 'kvm-intel': {}, kvm: {} };
  for (const text of texts) {
    const at = text.indexOf('=');
    // a flag's name alone sets it, as for the kernel
    const name = at < 0 ? text : text.slice(0, at);
    const [module, own, row] = find(name);
    if (at < 0 && typeof row.default !== 'boolean') throw wrong(own, '', `${own}=VALUE: ${row.effect}`);
    out[module][own] = readValue(own, at < 0 ? 'Y' : text.slice(at + 1), row);
  }
  return out;
};
