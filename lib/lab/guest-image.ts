/**
 * Which guest a run boots: Debian with the user's files, the built-in `tiny`, or a kernel of the user's that is no Linux.
 */
import { join } from 'node:path';
import { LabError } from '../base/error.js';
import { acpiTables } from '../devices/acpi.js';
import { type FreestandingGuest, freestandingGuest, kernelFormat } from '../guests/freestanding.js';
import type { GuestImage } from '../guests/guest.js';
import type { TinyOptions } from '../guests/tiny/tiny.js';
import { DEFAULT_WORKLOAD } from '../guests/tiny/workload.js';
import { LAB_LAYOUTS, type LabLayout } from '../hypervisor/lab-leaves.js';
import { debianFolder } from './paths.js';
import { type BootOptions, GUESTS } from './run-types.js';

/** Which leaves the guest asks, by layout. */
export const leafNumbers = (layout: LabLayout): { readonly total: number; readonly byReason: number } => {
  const cells = Object.entries(LAB_LAYOUTS[layout]) as [string, string][];
  const find = (...names: string[]): number => Number(cells.find(([, cell]) => names.includes(cell))?.[0]);
  return { total: find('totals', 'total-exits'), byReason: find('exits-of-type') };
};

const LINUX_ONLY = ['workload', 'cmdline', 'append', 'shell', 'kernel', 'initrd', 'pti', 'modules'] as const;
/** The built-in guest; what only means something to Linux is refused. */
const tiny = async (options: BootOptions, machine: TinyOptions): Promise<GuestImage> => {
  const given = LINUX_ONLY.find((name) => options[name] !== undefined && options[name] !== false);
  if (given !== undefined)
    throw new LabError(
      'guest.option',
      `the guest 'tiny' has no ${given}`,
      "its workload is the option 'tiny'",
    );
  const { tinyGuest } = await import('../guests/tiny/tiny.js');
  return tinyGuest({ ...machine, workload: options.tiny ?? DEFAULT_WORKLOAD });
};

/** A kernel file that is no Linux is a guest of its own; undefined for the others. */
export const freestanding = (options: BootOptions, memory: number): FreestandingGuest | undefined => {
  if (options.guest === 'tiny') return undefined;
  if (options.tiny !== undefined)
    throw new LabError('guest.option', "the option 'tiny' belongs to the guest 'tiny'", "add guest: 'tiny'");
  const { kernel, initrd, append, cmdline } = options;
  const found = kernel === undefined ? undefined : kernelFormat(kernel);
  if (kernel === undefined || found === undefined || found.format === 'bzimage' || found.format === 'elf') {
    if (options.modules !== undefined)
      throw new LabError('guest.option', 'modules belong to a Multiboot kernel', 'give one as the kernel');
    return undefined;
  }
  const given = (['workload', 'shell', 'pti'] as const).find(
    (n) => options[n] !== undefined && options[n] !== false,
  );
  if (given !== undefined)
    throw new LabError('guest.option', `${kernel} is a ${found.format} image: it has no ${given}`);
  const line = [cmdline, append].filter((t) => t !== undefined).join(' ');
  const modules = [...(initrd === undefined ? [] : [initrd]), ...(options.modules ?? [])];
  return freestandingGuest(kernel, found.bytes, found.format, {
    memory,
    modules,
    tables: options.acpi === false ? [] : [{ ...acpiTables(), what: 'ACPI tables' }],
    ...(line === '' ? {} : { cmdline: line }),
  });
};

export const image = async (options: BootOptions, memory: number, layout: LabLayout): Promise<GuestImage> => {
  const guest = options.guest ?? 'debian';
  if (!GUESTS.includes(guest))
    throw new LabError('guest.name', `there is no guest '${String(guest)}'`, GUESTS.join(', '));
  if (guest === 'tiny') return tiny(options, { memory, leaves: leafNumbers(layout) });
  const acpi = options.acpi ?? true;
  const { workload, cmdline, shell, kernel, initrd, pti } = options;
  const isolation = pti === undefined || cmdline !== undefined ? [] : [`pti=${pti ? 'on' : 'off'}`];
  const additions = [...isolation, ...(options.append === undefined ? [] : [options.append])];
  const append = additions.length === 0 ? undefined : additions.join(' ');
  const { debianGuest } = await import('../guests/debian/debian.js');
  const folder = debianFolder(guest);
  return await debianGuest(folder, join(folder, 'cache'), {
    name: guest,
    memory,
    leaves: leafNumbers(layout),
    tables: acpi ? [{ ...acpiTables({ emptyDsdt: options.emptyDsdt ?? false }), what: 'ACPI tables' }] : [],
    ...(workload === undefined ? {} : { workload }),
    ...(cmdline === undefined ? {} : { cmdline }),
    ...(append === undefined ? {} : { append }),
    ...(shell === undefined ? {} : { shell }),
    ...(kernel === undefined ? {} : { kernel }),
    ...(initrd === undefined ? {} : { initrd }),
  });
};
