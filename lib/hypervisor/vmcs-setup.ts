/**
 * Entering VMX operation and filling a new VMCS (KVM's hardware_enable, init_vmcs, vmx_vcpu_reset): host state of a
 * 64-bit Linux, guest state after reset, controls of `controls.ts`.
 */
import { LabError } from '../base/error.js';
import { VMCS, type VmxPort, type VmxResult } from '../vmx/port.js';
import type { Controls } from './controls.js';
import type { KvmIntelParams } from './params.js';

const must = (what: string, result: VmxResult): void => {
  if (result === 'succeed') return;
  throw new LabError(
    'vmx.instruction',
    `${what} failed: ${typeof result === 'string' ? result : `VMfailValid(${result.failValid})`}`,
  );
};

export interface VmcsPages {
  readonly vmxon: number;
  readonly vmcs: number;
  readonly msrBitmap: number;
}

/** VMXON, VMCLEAR, VMPTRLD. */
export const enterVmxOperation = (port: VmxPort, pages: VmcsPages): void => {
  const revision = Number(port.rdmsr(0x480) & 0x7fff_ffffn);
  port.memory.write32(pages.vmxon, revision);
  port.memory.write32(pages.vmcs, revision);
  must('VMXON', port.vmxon(pages.vmxon));
  must('VMCLEAR', port.vmclear(pages.vmcs));
  must('VMPTRLD', port.vmptrld(pages.vmcs));
};

const HOST_CR0 = 0x8005_0033;
const HOST_CR4 = 0x0000_26f0;
const LDTR_UNUSABLE = 0x1_0082;

export const fillVmcs = (
  port: VmxPort,
  controls: Controls,
  pages: VmcsPages,
  params: KvmIntelParams,
  vpid: number,
  hostEfer: number,
): void => {
  controls.writeAll();
  port.vmwriteNumber(VMCS.msrBitmap, pages.msrBitmap);
  port.vmwrite(VMCS.vmcsLinkPointer, 0xffff_ffff_ffff_ffffn);
  for (const count of [VMCS.exitMsrStoreCount, VMCS.exitMsrLoadCount, VMCS.entryMsrLoadCount])
    port.vmwrite32(count, 0);
  if (vpid !== 0) port.vmwrite32(VMCS.virtualProcessorId, vpid);
  if (params.ple_gap !== 0) {
    port.vmwrite32(VMCS.pleGap, params.ple_gap);
    port.vmwrite32(VMCS.pleWindow, params.ple_window);
  }
  port.vmwrite(VMCS.xssExitingBitmap, 0n);

  // host: __KERNEL_CS, __KERNEL_DS and the task-state segment of a 64-bit Linux
  port.vmwriteNumber(VMCS.hostCr0, HOST_CR0);
  port.vmwriteNumber(VMCS.hostCr3, 0);
  port.vmwriteNumber(VMCS.hostCr4, HOST_CR4);
  port.vmwrite32(VMCS.hostCsSelector, 0x10);
  port.vmwrite32(VMCS.hostSsSelector, 0x18);
  for (const s of [VMCS.hostDsSelector, VMCS.hostEsSelector, VMCS.hostFsSelector, VMCS.hostGsSelector])
    port.vmwrite32(s, 0);
  port.vmwrite32(VMCS.hostTrSelector, 0x40);
  const zero = [
    VMCS.hostFsBase,
    VMCS.hostGsBase,
    VMCS.hostTrBase,
    VMCS.hostGdtrBase,
    VMCS.hostIdtrBase,
    VMCS.hostSysenterEsp,
    VMCS.hostSysenterEip,
    VMCS.hostRsp,
    VMCS.hostRip,
  ];
  for (const f of zero) port.vmwriteNumber(f, 0);
  port.vmwrite32(VMCS.hostSysenterCs, 0);
  port.vmwrite(VMCS.hostPat, 0x0407050600070106n);
  port.vmwriteNumber(VMCS.hostEfer, hostEfer);

  // guest: what the entry state does not set
  port.vmwrite(VMCS.guestPat, 0x0007040600070406n);
  port.vmwrite(VMCS.guestDr7, 0x400n);
  port.vmwrite(VMCS.guestDebugctl, 0n);
  port.vmwrite(VMCS.guestPendingDebugExceptions, 0n);
  port.vmwrite32(VMCS.guestInterruptibilityState, 0);
  port.vmwrite32(VMCS.guestActivityState, 0);
  port.vmwrite32(VMCS.guestSysenterCs, 0);
  port.vmwrite(VMCS.guestSysenterEsp, 0n);
  port.vmwrite(VMCS.guestSysenterEip, 0n);
  port.vmwrite32(VMCS.guestLdtrAccessRights, LDTR_UNUSABLE);
  port.vmwrite32(VMCS.entryInterruptionInfo, 0);
};
