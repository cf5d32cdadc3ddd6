/**
 * Model-specific registers of the guest: one row each, with KVM's answer (kvm_get_msr_common, vmx_get_msr and their
 * setters). `undefined` and `false` mean #GP(0). A register without a row is unknown: #GP and a line in the log, or 0
 * with `ignore_msrs`. Not modelled: performance counters, machine-check recovery, VMX for the guest.
 */
import type { VmxPort } from '../vmx/port.js';
import { VMCS } from '../vmx/port.js';
import { enableAsyncPf } from './async-pf.js';
import { setEfer } from './cr.js';
import { writeStealTime, writeSystemTime, writeWallClock } from './pv.js';
import type { Vcpu } from './vcpu.js';

export interface MsrRow {
  readonly name: string;
  readonly read: (vcpu: Vcpu, msr: number) => bigint | undefined;
  readonly write: (vcpu: Vcpu, value: bigint, msr: number) => boolean;
}

/** A write that is always taken. */
const takes =
  (write: (vcpu: Vcpu, value: bigint) => void): MsrRow['write'] =>
  (vcpu, value) => {
    write(vcpu, value);
    return true;
  };
const rejected = (): false => false;
const ignored = (): true => true;
const fixed = (name: string, value: bigint, write: MsrRow['write'] = rejected): MsrRow => ({
  name,
  read: () => value,
  write,
});
/** Storage without an effect, restricted to `mask`. */
const stored = (name: string, initial = 0n, mask = 0xffff_ffff_ffff_ffffn): MsrRow => ({
  name,
  read: (vcpu, msr) => vcpu.storedMsrs.get(msr) ?? initial,
  write: (vcpu, value, msr) => {
    if ((value & ~mask) !== 0n) return false;
    vcpu.storedMsrs.set(msr, value);
    return true;
  },
});
const canonical = (v: bigint): boolean => BigInt.asUintN(64, BigInt.asIntN(48, v)) === v;
/** Kept in the processor's own register, which nothing else uses while the VM lives. */
const hardware = (name: string, msr: number, valid: (v: bigint, vcpu: Vcpu) => boolean): MsrRow => ({
  name,
  read: (vcpu) => vcpu.port.rdmsr(msr),
  write: (vcpu, value) => {
    if (!valid(value, vcpu)) return false;
    vcpu.port.wrmsr(msr, value);
    return true;
  },
});
type NaturalField = 'guestFsBase' | 'guestGsBase' | 'guestSysenterEsp' | 'guestSysenterEip';
const inVmcs = (name: string, field: NaturalField): MsrRow => ({
  name,
  read: (vcpu) => vcpu.port.vmread(VMCS[field]),
  write: (vcpu, value) => {
    if (!canonical(value)) return false;
    vcpu.port.vmwrite(VMCS[field], value);
    return true;
  },
});

const PAT_TYPES = new Set([0, 1, 4, 5, 6, 7]);
const validPat = (v: bigint): boolean => {
  for (let i = 0n; i < 64n; i += 8n) if (!PAT_TYPES.has(Number((v >> i) & 0xffn))) return false;
  return true;
};

/** IA32_ARCH_CAPABILITIES: the processor has none of the known flaws, except Meltdown when asked for. */
const ARCH_CAPABILITIES = {
  rdclNo: 1n,
  others: [3, 4, 5, 6, 8, 13, 14, 15, 24, 26, 27].reduce((v, b) => v | (1n << BigInt(b)), 0n),
} as const;
export const archCapabilities = (meltdown: boolean): bigint =>
  ARCH_CAPABILITIES.others | (meltdown ? 0n : ARCH_CAPABILITIES.rdclNo);

const MISC_ENABLE_WRITABLE = 0xffff_ffffn;
const CPUID_FAULTING = 1n;
const PLATFORM_INFO = 1n << 31n;

/** Paravirtual rows exist only while their feature is offered. */
const offered = (feature: (vcpu: Vcpu) => boolean, row: MsrRow): MsrRow => ({
  name: row.name,
  read: (vcpu, msr) => (feature(vcpu) ? row.read(vcpu, msr) : undefined),
  write: (vcpu, value, msr) => feature(vcpu) && row.write(vcpu, value, msr),
});
const asyncPf = (vcpu: Vcpu): boolean => vcpu.vm.options.asyncPf;

const systemTime: MsrRow = {
  name: 'KVM_SYSTEM_TIME',
  read: (v) => v.systemTimeMsr,
  write: takes((v, value) => writeSystemTime(v, value)),
};
const wallClock: MsrRow = {
  name: 'KVM_WALL_CLOCK',
  read: () => 0n,
  write: takes((v, value) => writeWallClock(v, value)),
};

// biome-ignore format: one row per line
const ROWS: readonly (readonly [msr: number, row: MsrRow])[] = [
  [0x0, fixed('IA32_P5_MC_ADDR', 0n)],
  [0x1, fixed('IA32_P5_MC_TYPE', 0n)],
  [0x10, { name: 'IA32_TIME_STAMP_COUNTER', read: (v) => v.guestTsc(), write: takes((v, value) => v.vm.setGuestTscOffset(value - BigInt(v.port.rdtsc()))) }],
  [0x11, wallClock],
  [0x12, systemTime],
  [0x17, fixed('IA32_PLATFORM_ID', 0n)],
  [0x1b, { name: 'IA32_APIC_BASE', read: (v) => BigInt(v.vm.board.lapic.apicBase()), write: (v, value) => v.vm.setApicBase(value) }],
  [0x2a, fixed('EBL_CR_POWERON', 0n)],
  [0x34, fixed('MSR_SMI_COUNT', 0n)],
  [0x3a, stored('IA32_FEATURE_CONTROL', 0n, 1n)],
  [0x3b, { name: 'IA32_TSC_ADJUST', read: (v) => v.tscAdjust, write: (v, value) => {
    v.vm.setGuestTscOffset(v.tscOffset + value - v.tscAdjust);
    v.tscAdjust = value;
    return true;
  } }],
  [0x79, fixed('IA32_BIOS_UPDT_TRIG', 0n, ignored)],
  [0x8b, fixed('IA32_BIOS_SIGN_ID', 0x1_0000_0000n, ignored)],
  [0xc1, fixed('IA32_PMC0', 0n, (_v, value) => value === 0n)],
  [0xc2, fixed('IA32_PMC1', 0n, (_v, value) => value === 0n)],
  [0xcd, fixed('MSR_FSB_FREQ', 3n)],
  [0xce, fixed('MSR_PLATFORM_INFO', PLATFORM_INFO)],
  [0xfe, fixed('IA32_MTRRCAP', 0x508n)],
  [0x10a, { name: 'IA32_ARCH_CAPABILITIES', read: (v) => (v.vm.cpuid.has('arch_capabilities') ? archCapabilities(v.vm.options.meltdown) : undefined), write: rejected }],
  [0x140, stored('MISC_FEATURE_ENABLES', 0n, CPUID_FAULTING)],
  [0x174, { name: 'IA32_SYSENTER_CS', read: (v) => BigInt(v.port.vmread32(VMCS.guestSysenterCs)), write: takes((v, value) => v.port.vmwrite32(VMCS.guestSysenterCs, Number(BigInt.asUintN(32, value)))) }],
  [0x175, inVmcs('IA32_SYSENTER_ESP', 'guestSysenterEsp')],
  [0x176, inVmcs('IA32_SYSENTER_EIP', 'guestSysenterEip')],
  [0x179, fixed('IA32_MCG_CAP', 0n)],
  [0x17a, stored('IA32_MCG_STATUS')],
  [0x186, fixed('IA32_PERFEVTSEL0', 0n, (_v, value) => value === 0n)],
  [0x187, fixed('IA32_PERFEVTSEL1', 0n, (_v, value) => value === 0n)],
  [0x198, fixed('IA32_PERF_STATUS', 0x10_0000_03e8n)],
  [0x199, fixed('IA32_PERF_CTL', 0n)],
  [0x1a0, { name: 'IA32_MISC_ENABLE', read: (v) => BigInt(v.miscEnable), write: (v, value) => {
    if ((value & ~MISC_ENABLE_WRITABLE) !== 0n) return false;
    v.miscEnable = Number(value);
    return true;
  } }],
  [0x1d9, { name: 'IA32_DEBUGCTL', read: (v) => v.port.vmread(VMCS.guestDebugctl), write: (v, value) => {
    if ((value & ~3n) !== 0n) return false;
    if (value !== 0n) v.vm.log.print(`kvm: vcpu0 unhandled DEBUGCTL bits 0x${value.toString(16)}`);
    return true;
  } }],
  [0x1fc, stored('MSR_POWER_CTL')],
  [0x277, { name: 'IA32_PAT', read: (v) => v.pat, write: (v, value) => {
    if (!validPat(value)) return false;
    v.pat = value;
    v.port.vmwrite(VMCS.guestPat, value);
    return true;
  } }],
  [0x2ff, stored('IA32_MTRR_DEF_TYPE', 0n, 0xcffn)],
  [0x606, fixed('MSR_RAPL_POWER_UNIT', 0n)],
  [0x611, fixed('MSR_PKG_ENERGY_STATUS', 0n)],
  [0x619, fixed('MSR_DRAM_ENERGY_STATUS', 0n)],
  [0x639, fixed('MSR_PP0_ENERGY_STATUS', 0n)],
  [0x641, fixed('MSR_PP1_ENERGY_STATUS', 0n)],
  [0x6e0, { name: 'IA32_TSC_DEADLINE', read: (v) => v.vm.board.lapic.tscDeadline(), write: takes((v, value) => v.vm.board.lapic.setTscDeadline(value)) }],
  [0xda0, { name: 'IA32_XSS', read: (v) => (v.vm.xsaves ? 0n : undefined), write: (v, value) => v.vm.xsaves && value === 0n }],
  [0x4b564d00, wallClock],
  [0x4b564d01, systemTime],
  [0x4b564d02, offered(asyncPf, { name: 'KVM_ASYNC_PF_EN', read: (v, msr) => v.storedMsrs.get(msr) ?? 0n, write: enableAsyncPf })],
  [0x4b564d03, offered((v) => v.vm.options.stealTime, { name: 'KVM_STEAL_TIME', read: (v, msr) => v.storedMsrs.get(msr) ?? 0n, write: (v, value, msr) => {
    if ((value & 0x3en) !== 0n) return false;
    v.storedMsrs.set(msr, value);
    writeStealTime(v, value);
    return true;
  } })],
  [0x4b564d04, offered((v) => v.vm.options.pvEoi, { name: 'KVM_PV_EOI_EN', read: (v) => v.pvEoiMsr, write: (v, value) => {
    if ((value & 2n) !== 0n) return false;
    v.pvEoiMsr = value;
    return true;
  } })],
  [0x4b564d06, offered(asyncPf, stored('KVM_ASYNC_PF_INT', 0n, 0xffn))],
  [0x4b564d07, offered(asyncPf, fixed('KVM_ASYNC_PF_ACK', 0n, ignored))],
  [0xc0000080, { name: 'IA32_EFER', read: (v) => BigInt(v.efer), write: setEfer }],
  [0xc0000081, hardware('IA32_STAR', 0xc0000081, () => true)],
  [0xc0000082, hardware('IA32_LSTAR', 0xc0000082, canonical)],
  [0xc0000083, hardware('IA32_CSTAR', 0xc0000083, canonical)],
  [0xc0000084, hardware('IA32_FMASK', 0xc0000084, (v) => v >> 32n === 0n)],
  [0xc0000100, inVmcs('IA32_FS_BASE', 'guestFsBase')],
  [0xc0000101, inVmcs('IA32_GS_BASE', 'guestGsBase')],
  [0xc0000102, hardware('IA32_KERNEL_GS_BASE', 0xc0000102, canonical)],
  [0xc0000103, hardware('IA32_TSC_AUX', 0xc0000103, (v, vcpu) => vcpu.vm.cpuid.has('rdtscp') && v >> 32n === 0n)],
  [0xc0010010, fixed('SYSCFG', 0n, ignored)],
  [0xc0010015, stored('K7_HWCR', 0n)],
];

/** [first, count] of MTRR storage: variable ranges, fixed 64K, 16K and 4K. */
const MTRRS = [
  [0x200, 16],
  [0x250, 1],
  [0x258, 2],
  [0x268, 8],
] as const;
const validMtrr = (value: bigint, msr: number): boolean => msr < 0x250 || validPat(value);
const mtrr: MsrRow = {
  name: 'MTRR',
  read: (vcpu, msr) => vcpu.storedMsrs.get(msr) ?? 0n,
  write: (vcpu, value, msr) => {
    if (!validMtrr(value, msr)) return false;
    vcpu.storedMsrs.set(msr, value);
    return true;
  },
};

export const MSRS: ReadonlyMap<number, MsrRow> = new Map<number, MsrRow>([
  ...ROWS,
  ...MTRRS.flatMap(([first, count]) =>
    Array.from({ length: count }, (_, i): [number, MsrRow] => [first + i, mtrr]),
  ),
]);

const isX2apic = (msr: number): boolean => msr >= 0x800 && msr <= 0x8ff;
const hex = (v: number | bigint): string => `0x${v.toString(16)}`;

/** RDMSR: the value, or undefined for #GP(0). */
export const readMsr = (vcpu: Vcpu, msr: number): bigint | undefined => {
  if (isX2apic(msr)) return vcpu.vm.board.lapic.readMsr(msr);
  const row = MSRS.get(msr);
  if (row !== undefined) return row.read(vcpu, msr);
  const { vm } = vcpu;
  const ignore = vm.kvm.ignore_msrs;
  if (vm.kvm.report_ignored_msrs) {
    vm.log.print(
      `kvm: vcpu0, guest rIP: ${hex(vcpu.rip)} ${ignore ? 'ignored' : 'unhandled'} rdmsr: ${hex(msr)}`,
    );
  }
  return ignore ? 0n : undefined;
};

/** WRMSR; false for #GP(0). */
export const writeMsr = (vcpu: Vcpu, msr: number, value: bigint): boolean => {
  if (isX2apic(msr)) {
    vcpu.eventRequested = true;
    return vcpu.vm.board.lapic.writeMsr(msr, value);
  }
  const row = MSRS.get(msr);
  if (row !== undefined) return row.write(vcpu, value, msr);
  const { vm } = vcpu;
  const ignore = vm.kvm.ignore_msrs;
  if (vm.kvm.report_ignored_msrs) {
    vm.log.print(
      `kvm: vcpu0, guest rIP: ${hex(vcpu.rip)} ${ignore ? 'ignored' : 'unhandled'} wrmsr: ${hex(msr)} data ${hex(value)}`,
    );
  }
  return ignore;
};

/** What the monitor sets before the first entry: as WRMSR by the host, without the guest's limits. */
export const setMsrFromHost = (vcpu: Vcpu, msr: number, value: bigint): boolean => {
  const row = MSRS.get(msr);
  return row?.write(vcpu, value, msr) ?? false;
};

/** The processor's IA32_EFER. */
export const hostEferOf = (port: VmxPort): number => Number(port.rdmsr(0xc0000080));
