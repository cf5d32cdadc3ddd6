/**
 * The MSR areas of VM entry and exit: lists of 16-byte entries (index, reserved, value) in host-physical memory.
 *
 * SDM volume 3, "Loading MSRs" (VM entries, VM exits), "Saving MSRs", "VMX Aborts". A bad entry of the entry list is
 * exit 34 with its number as qualification; one of an exit list is a VMX abort, which stops the machine.
 */
import { LabError } from '../base/error.js';
import type { Cpu } from '../cpu/core.js';
import { readMsr, writeMsr } from '../cpu/system/msrs.js';
import { ROW } from './fields.js';
import type { CurrentVmcs } from './vmcs.js';

interface Entry {
  readonly msr: number;
  readonly reserved: number;
  readonly value: bigint;
}

/** Rules for an entry of the VM-entry MSR-load area. */
export const MSR_LOAD_RULES: readonly {
  readonly id: string;
  readonly says: string;
  readonly fails: (entry: Entry) => boolean;
}[] = [
  {
    id: 'msrLoad.reserved',
    says: 'bits 63:32 of an MSR-load entry must be 0',
    fails: (e) => e.reserved !== 0,
  },
  {
    id: 'msrLoad.bases',
    says: 'IA32_FS_BASE and IA32_GS_BASE must not be loaded: the segment fields load them',
    fails: (e) => e.msr === 0xc000_0100 || e.msr === 0xc000_0101,
  },
  { id: 'msrLoad.x2apic', says: 'no x2APIC register may be loaded', fails: (e) => e.msr >>> 8 === 8 },
  {
    id: 'msrLoad.smm',
    says: 'no MSR that can be written only in SMM may be loaded',
    fails: (e) => e.msr === 0x9b || e.msr === 0x9e,
  },
  { id: 'msrLoad.microcode', says: 'IA32_BIOS_UPDT_TRIG must not be loaded', fails: (e) => e.msr === 0x79 },
];
/** The remaining rule: WRMSR of the value must not fault. */
const WRMSR_RULE = {
  id: 'msrLoad.wrmsr',
  says: 'an MSR-load entry must name an MSR and a value that WRMSR accepts',
};

const at = (cpu: Cpu, address: number): Entry => {
  const { ram } = cpu;
  if (!ram.has(address, 16)) return { msr: 0xffff_ffff, reserved: 0xffff_ffff, value: 0n };
  return { msr: ram.read32(address), reserved: ram.read32(address + 4), value: ram.read64(address + 8) };
};

/** The outcome of loading a list: the number (from 1) of the entry that failed, and the rule it broke. */
export interface LoadFailure {
  readonly entry: number;
  readonly id: string;
  readonly says: string;
}

/** Loads the VM-entry MSR-load area. */
export const loadEntryMsrs = (cpu: Cpu, fields: CurrentVmcs): LoadFailure | undefined => {
  const count = fields.lo32(ROW.entryMsrLoadCount);
  if (count === 0) return undefined;
  return load(cpu, fields.number(ROW.entryMsrLoadAddress), count);
};

const load = (cpu: Cpu, address: number, count: number): LoadFailure | undefined => {
  for (let i = 0; i < count; i++) {
    const entry = at(cpu, address + 16 * i);
    const broken = MSR_LOAD_RULES.find((r) => r.fails(entry));
    if (broken !== undefined) return { entry: i + 1, id: broken.id, says: broken.says };
    if (!writeMsr(cpu, entry.msr, entry.value)) return { entry: i + 1, ...WRMSR_RULE };
  }
  return undefined;
};

/** Stores the VM-exit MSR-store area, while the guest's values are in the registers. */
export const storeExitMsrs = (cpu: Cpu, fields: CurrentVmcs): void => {
  const count = fields.lo32(ROW.exitMsrStoreCount);
  const address = fields.number(ROW.exitMsrStoreAddress);
  for (let i = 0; i < count; i++) {
    const entry = at(cpu, address + 16 * i);
    const value = entry.reserved === 0 && entry.msr >>> 8 !== 8 ? readMsr(cpu, entry.msr) : undefined;
    if (value === undefined) throw abort(1, `entry ${i + 1} of the VM-exit MSR-store area is not valid`);
    cpu.ram.write64(address + 16 * i + 8, value);
  }
};

/** Loads the VM-exit MSR-load area. */
export const loadExitMsrs = (cpu: Cpu, fields: CurrentVmcs): void => {
  const count = fields.lo32(ROW.exitMsrLoadCount);
  if (count === 0) return;
  const failure = load(cpu, fields.number(ROW.exitMsrLoadAddress), count);
  if (failure !== undefined)
    throw abort(4, `entry ${failure.entry} of the VM-exit MSR-load area: ${failure.says}`);
};

const abort = (indicator: number, why: string): LabError =>
  new LabError('vmx.abort', `VMX abort ${indicator}: ${why}`, 'the hypervisor set up its MSR areas wrongly');
