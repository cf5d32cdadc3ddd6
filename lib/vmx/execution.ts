/**
 * The execution controls of the entered VMCS as plain numbers, for the intercepts.
 *
 * Read again from the VMCS at a VM entry after a control field changed. Secondary controls count as 0 while they are
 * not activated.
 */
import type { Ram } from '../memory/ram.js';
import { PROC, SECONDARY } from './controls.js';
import { ROW } from './fields.js';
import type { CurrentVmcs } from './vmcs.js';

export class ExecutionControls {
  pin = 0;
  proc = 0;
  secondary = 0;
  exit = 0;
  entry = 0;
  exceptionBitmap = 0;
  pageFaultMask = 0;
  pageFaultMatch = 0;
  cr0Mask = 0n;
  cr0Shadow = 0n;
  cr4Mask = 0n;
  cr4Shadow = 0n;
  cr3Targets: readonly bigint[] = [];
  tscOffset = 0n;
  /** Host-physical addresses. */
  msrBitmap = 0;
  ioBitmapA = 0;
  ioBitmapB = 0;
  virtualApic = 0;
  /** Page that APIC accesses are virtualized for, or -1. */
  apicAccessPage = -1;
  tprThreshold = 0;
  pleGap = 0;
  pleWindow = 0;
  xssBitmap = 0n;
  /** EPTP, or 0 without EPT. */
  eptp = 0;
  /** VPID, or 0 without VPIDs. */
  vpid = 0;

  read(fields: CurrentVmcs): void {
    this.pin = fields.lo32(ROW.pinBasedControls);
    this.proc = fields.lo32(ROW.procBasedControls);
    this.secondary = this.has(PROC.activateSecondaryControls) ? fields.lo32(ROW.secondaryControls) : 0;
    this.exit = fields.lo32(ROW.exitControls);
    this.entry = fields.lo32(ROW.entryControls);
    this.exceptionBitmap = fields.lo32(ROW.exceptionBitmap);
    this.pageFaultMask = fields.lo32(ROW.pageFaultErrorCodeMask);
    this.pageFaultMatch = fields.lo32(ROW.pageFaultErrorCodeMatch);
    this.cr0Mask = fields.big(ROW.cr0GuestHostMask);
    this.cr0Shadow = fields.big(ROW.cr0ReadShadow);
    this.cr4Mask = fields.big(ROW.cr4GuestHostMask);
    this.cr4Shadow = fields.big(ROW.cr4ReadShadow);
    const targets: bigint[] = [];
    for (let i = 0; i < fields.lo32(ROW.cr3TargetCount); i++) targets.push(fields.big(ROW.cr3Target0 + i));
    this.cr3Targets = targets;
    this.tscOffset = this.has(PROC.useTscOffsetting) ? fields.big(ROW.tscOffset) : 0n;
    this.msrBitmap = fields.number(ROW.msrBitmap);
    this.ioBitmapA = fields.number(ROW.ioBitmapA);
    this.ioBitmapB = fields.number(ROW.ioBitmapB);
    this.virtualApic = fields.number(ROW.virtualApicAddress);
    this.apicAccessPage = this.has2(SECONDARY.virtualizeApicAccesses)
      ? fields.number(ROW.apicAccessAddress)
      : -1;
    this.tprThreshold = fields.lo32(ROW.tprThreshold);
    this.pleGap = fields.lo32(ROW.pleGap);
    this.pleWindow = fields.lo32(ROW.pleWindow);
    this.xssBitmap = fields.big(ROW.xssExitingBitmap);
    this.eptp = this.has2(SECONDARY.enableEpt) ? fields.number(ROW.eptPointer) : 0;
    this.vpid = this.has2(SECONDARY.enableVpid) ? fields.lo32(ROW.virtualProcessorId) : 0;
  }

  /** A bit of the primary processor-based controls. */
  has(mask: number): boolean {
    return (this.proc & mask) !== 0;
  }
  /** A bit of the secondary processor-based controls. */
  has2(mask: number): boolean {
    return (this.secondary & mask) !== 0;
  }

  /** The virtual TPR, bits 7:0. */
  virtualTpr(ram: Ram): number {
    return ram.has(this.virtualApic + 0x80) ? ram.read8(this.virtualApic + 0x80) : 0;
  }
}
