/** A processor with its real memory unit, a VMX unit, a run loop that a test plays, and a valid 64-bit VMCS. */
import { Cpu } from '../../lib/cpu/core.js';
import { resetState } from '../../lib/cpu/system/reset.js';
import { createMmu } from '../../lib/memory/mmu.js';
import { Ram } from '../../lib/memory/ram.js';
import { REVISION_ID } from '../../lib/vmx/capabilities.js';
import { CHECKS } from '../../lib/vmx/check-rows.js';
import { CheckRunner, CheckView } from '../../lib/vmx/checks.js';
import { CONTROL_WORDS } from '../../lib/vmx/controls.js';
import { FIELDS, type FieldName, VMCS } from '../../lib/vmx/fields.js';
import { ENTRY_CONTROL, EXIT_CONTROL, PIN, PROC, SECONDARY } from '../../lib/vmx/port.js';
import { createVmx, type ProcessorRun } from '../../lib/vmx/unit.js';
import { CurrentVmcs, Vmcs } from '../../lib/vmx/vmcs.js';

export const VMXON_REGION = 0x2000;
export const VMCS_REGION = 0x1000;
export const MSR_BITMAP = 0x3000;
export const VIRTUAL_APIC = 0x4000;
export const IO_BITMAP = 0x5000; // and 0x6000
export const EPT_ROOT = 0x7000;
export const MSR_AREA = 0x8000;
export const GUEST_CR3 = 0x9000;
export const IDT = 0xc000;
export const HANDLER = 0xd000n;
export const STACK = 0xf000n;
const GDT = 0xb000;

/** Fields of a valid 64-bit guest at CPL 0 under EPT, with most optional controls on. */
export const VALID: Readonly<Partial<Record<FieldName, bigint>>> = {
  pinBasedControls: BigInt(
    CONTROL_WORDS.pin.default1 |
      PIN.externalInterruptExiting |
      PIN.nmiExiting |
      PIN.virtualNmis |
      PIN.activatePreemptionTimer,
  ),
  procBasedControls: BigInt(
    (0x0400_6172 |
      PROC.useTprShadow |
      PROC.useMsrBitmaps |
      PROC.useIoBitmaps |
      PROC.activateSecondaryControls) >>>
      0,
  ),
  secondaryControls: BigInt(
    SECONDARY.enableEpt |
      SECONDARY.enableVpid |
      SECONDARY.unrestrictedGuest |
      SECONDARY.virtualizeApicAccesses |
      SECONDARY.enableRdtscp,
  ),
  exitControls: BigInt(
    CONTROL_WORDS.exit.default1 |
      EXIT_CONTROL.hostAddressSpaceSize |
      EXIT_CONTROL.acknowledgeInterrupt |
      EXIT_CONTROL.loadHostPat |
      EXIT_CONTROL.loadHostEfer,
  ),
  entryControls: BigInt(
    CONTROL_WORDS.entry.default1 |
      ENTRY_CONTROL.ia32eModeGuest |
      ENTRY_CONTROL.loadDebugControls |
      ENTRY_CONTROL.loadPat |
      ENTRY_CONTROL.loadEfer,
  ),
  virtualProcessorId: 1n,
  eptPointer: BigInt(EPT_ROOT) | 0x5en,
  msrBitmap: BigInt(MSR_BITMAP),
  virtualApicAddress: BigInt(VIRTUAL_APIC),
  apicAccessAddress: 0xe000n,
  ioBitmapA: BigInt(IO_BITMAP),
  ioBitmapB: BigInt(IO_BITMAP) + 0x1000n,
  exitMsrStoreAddress: BigInt(MSR_AREA),
  exitMsrLoadAddress: BigInt(MSR_AREA),
  entryMsrLoadAddress: BigInt(MSR_AREA),
  vmcsLinkPointer: 0xffff_ffff_ffff_ffffn,
  vmxPreemptionTimerValue: 0xffff_ffffn,
  hostCr0: 0x8005_0033n,
  hostCr4: 0x2020n,
  hostCr3: 0x1000n,
  hostCsSelector: 0x10n,
  hostTrSelector: 0x40n,
  hostPat: 0x0007_0406_0007_0406n,
  hostEfer: 0xd01n,
  guestCr0: 0x8005_0033n,
  guestCr3: BigInt(GUEST_CR3),
  guestCr4: 0x2020n,
  guestDr7: 0x400n,
  guestPat: 0x0007_0406_0007_0406n,
  guestEfer: 0xd01n,
  guestRflags: 0x202n,
  guestRip: 0x1_0000n,
  guestRsp: STACK,
  guestCsSelector: 0x10n,
  guestCsAccessRights: 0xa09bn,
  guestCsLimit: 0xffff_ffffn,
  guestSsSelector: 0x18n,
  guestSsAccessRights: 0xc093n,
  guestSsLimit: 0xffff_ffffn,
  guestDsAccessRights: 0x1_0000n,
  guestEsAccessRights: 0x1_0000n,
  guestFsAccessRights: 0x1_0000n,
  guestGsAccessRights: 0x1_0000n,
  guestLdtrAccessRights: 0x1_0000n,
  guestTrSelector: 0x40n,
  guestTrAccessRights: 0x8bn,
  guestTrLimit: 0x67n,
  guestGdtrBase: BigInt(GDT),
  guestGdtrLimit: 0xffn,
  guestIdtrBase: BigInt(IDT),
  guestIdtrLimit: 0xfffn,
};

/** The rules, over a VMCS that is not in a processor. */
export const checker = () => {
  const ram = new Ram(0x2_0000);
  const cpu = new Cpu(ram);
  ram.write32(VMCS_REGION, REVISION_ID);
  const fields = new CurrentVmcs(cpu);
  fields.select(new Vmcs(VMCS_REGION));
  const view = new CheckView(fields, ram);
  const set = (values: Readonly<Partial<Record<FieldName, bigint>>>): void => {
    for (const f of FIELDS) {
      const v = values[f.name];
      if (v !== undefined) fields.write(f.row, Number(v & 0xffff_ffffn), Number(v >> 32n));
    }
  };
  set(VALID);
  return { cpu, fields, view, set, runner: new CheckRunner(view, CHECKS) };
};

/** Identity-mapped guest: 2 MiB page, present, writable; EPT with one 2 MiB page. An IDT whose gates lead to `HANDLER`. */
export const buildTables = (ram: Ram): void => {
  ram.write64(GUEST_CR3, 0xa003n);
  ram.write64(0xa000, 0x1_1003n);
  ram.write64(0x1_1000, 0x83n);
  ram.write64(EPT_ROOT, 0x1_2007n);
  ram.write64(0x1_2000, 0x1_3007n);
  ram.write64(0x1_3000, 0xb7n);
  ram.write64(GDT + 0x10, 0x00af_9b00_0000_ffffn);
  ram.write64(GDT + 0x18, 0x00cf_9300_0000_ffffn);
  for (let v = 0; v < 256; v++) ram.write64(IDT + 16 * v, (0x8en << 40n) | (0x10n << 16n) | HANDLER);
};

export const machine = () => {
  const ram = new Ram(0x20_0000);
  const cpu = new Cpu(ram);
  const mmu = createMmu(cpu);
  cpu.mmu = mmu;
  resetState(cpu);
  buildTables(ram);
  ram.write32(VMXON_REGION, REVISION_ID);
  ram.write32(VMCS_REGION, REVISION_ID);
  const state: { play: ProcessorRun['run'] } = {
    play: () => {
      throw new Error('the test does not expect the guest to run');
    },
  };
  const vmx = createVmx(cpu, mmu, { run: (limit) => state.play(limit) });
  vmx.vmxon(VMXON_REGION);
  vmx.vmclear(VMCS_REGION);
  vmx.vmptrld(VMCS_REGION);
  const set = (values: Readonly<Partial<Record<FieldName, bigint>>>): void => {
    for (const [name, v] of Object.entries(values)) vmx.vmwrite(VMCS[name as FieldName], v as bigint);
  };
  set(VALID);
  let launched = false;
  /** Enters, lets `guest` play the run loop until it reports an exit, and returns the outcome. */
  const run = (guest: () => boolean | 'limit') => {
    state.play = () => {
      const r = guest();
      if (r === 'limit') return 'limit';
      if (!r) throw new Error('no exit was recorded');
      return 'exit';
    };
    const outcome = vmx.enter(launched ? 'vmresume' : 'vmlaunch', Number.POSITIVE_INFINITY);
    if ('exit' in outcome && outcome.exit < 0x8000_0000) launched = true;
    if ('limit' in outcome) launched = true;
    return outcome;
  };
  return {
    ram,
    cpu,
    mmu,
    vmx,
    set,
    run,
    guest: vmx.nonRoot,
    read: (name: FieldName) => vmx.vmread(VMCS[name]),
  };
};
export type Machine = ReturnType<typeof machine>;
