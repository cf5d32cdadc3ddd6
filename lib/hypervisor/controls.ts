/**
 * The VMX controls, masks and bitmaps that KVM 6.1 chooses (KVM-1.1 to 1.3), and their current values for one vCPU.
 *
 * Paging changes only: EPT, unrestricted guest, CR3-load, CR3-store and INVLPG
 * exiting, #PF in the exception bitmap, ownership of CR0.WP and CR4.PGE. Words are adjusted to what the processor
 * offers as KVM's adjust_vmx_controls does; a required control that is missing is refused.
 * Not modelled: PML, APICv, TSC scaling, secondary exit controls.
 */
import { LabError } from '../base/error.js';
import { CR0, CR4, VECTOR } from '../isa/state.js';
import { ENTRY_CONTROL, EXIT_CONTROL, PIN, PROC, SECONDARY, VMCS, type VmxPort } from '../vmx/port.js';
import type { KvmIntelParams } from './params.js';

/** What KVM looks at when it chooses controls. */
export interface ControlChoice {
  readonly params: KvmIntelParams;
  /** Guest features whose control is dropped when hidden. */
  readonly rdtscp: boolean;
  readonly invpcid: boolean;
  readonly xsaves: boolean;
}

export interface ControlWords {
  readonly pin: number;
  readonly proc: number;
  readonly secondary: number;
  readonly exit: number;
  readonly entry: number;
  readonly exceptionBitmap: number;
  readonly cr0GuestOwned: number;
  readonly cr4GuestOwned: number;
}

const CAPABILITY = { pin: 0x481, proc: 0x482, exit: 0x483, entry: 0x484, secondary: 0x48b } as const;

/** `wanted` plus what must be 1, within what may be 1. @throws LabError when a bit of `required` is not offered */
const adjust = (port: VmxPort, word: keyof typeof CAPABILITY, required: number, optional: number): number => {
  const msr = port.rdmsr(CAPABILITY[word]);
  const mustBe1 = Number(msr & 0xffffffffn);
  const mayBe1 = Number(msr >> 32n);
  const missing = (required & ~mayBe1) >>> 0;
  if (missing !== 0) {
    throw new LabError(
      'vmx.controls',
      `the processor does not offer ${word} controls 0x${missing.toString(16)} that KVM needs`,
    );
  }
  return (((required | optional) & mayBe1) | mustBe1) >>> 0;
};

const CR4_GUEST_OWNED =
  CR4.pvi | CR4.tsd | CR4.de | CR4.pge | CR4.pce | CR4.osfxsr | CR4.osxmmexcpt | CR4.fsgsbase;
const ALWAYS_EXCEPTIONS = (1 << VECTOR.db) | (1 << VECTOR.ud) | (1 << VECTOR.ac) | (1 << VECTOR.mc);

/** The control words at vCPU creation: 64-bit mode, local APIC in xAPIC mode, no window open. */
export const chooseControls = (port: VmxPort, choice: ControlChoice): ControlWords => {
  const p = choice.params;
  const { ept } = p;
  const pin = adjust(
    port,
    'pin',
    PIN.externalInterruptExiting | PIN.nmiExiting,
    PIN.virtualNmis | (p.preemption_timer ? PIN.activatePreemptionTimer : 0),
  );
  let proc = adjust(
    port,
    'proc',
    PROC.hltExiting |
      PROC.useTscOffsetting |
      PROC.mwaitExiting |
      PROC.monitorExiting |
      PROC.rdpmcExiting |
      PROC.unconditionalIoExiting |
      PROC.movDrExiting |
      PROC.useMsrBitmaps |
      PROC.activateSecondaryControls,
    PROC.useTprShadow,
  );
  if ((proc & PROC.useTprShadow) === 0) proc = (proc | PROC.cr8LoadExiting | PROC.cr8StoreExiting) >>> 0;
  const paging = PROC.invlpgExiting | PROC.cr3LoadExiting | PROC.cr3StoreExiting;
  proc = (ept ? proc & ~paging : proc | paging) >>> 0;
  const secondary = adjust(
    port,
    'secondary',
    ept ? SECONDARY.enableEpt : 0,
    (ept && p.unrestricted_guest ? SECONDARY.unrestrictedGuest : 0) |
      (p.vpid ? SECONDARY.enableVpid : 0) |
      (p.flexpriority ? SECONDARY.virtualizeApicAccesses : 0) |
      (p.ple_gap !== 0 ? SECONDARY.pauseLoopExiting : 0) |
      (choice.rdtscp ? SECONDARY.enableRdtscp : 0) |
      (choice.invpcid ? SECONDARY.enableInvpcid : 0) |
      (choice.xsaves ? SECONDARY.enableXsaves : 0) |
      SECONDARY.wbinvdExiting,
  );
  return {
    pin,
    proc,
    secondary,
    exit: adjust(
      port,
      'exit',
      EXIT_CONTROL.hostAddressSpaceSize | EXIT_CONTROL.acknowledgeInterrupt | EXIT_CONTROL.saveDebugControls,
      EXIT_CONTROL.loadHostPat,
    ),
    entry: adjust(
      port,
      'entry',
      ENTRY_CONTROL.loadDebugControls | ENTRY_CONTROL.ia32eModeGuest,
      ENTRY_CONTROL.loadPat,
    ),
    exceptionBitmap: (ALWAYS_EXCEPTIONS | (ept ? 0 : 1 << VECTOR.pf)) >>> 0,
    cr0GuestOwned: ept ? CR0.ts | CR0.wp : CR0.ts,
    cr4GuestOwned: ept ? CR4_GUEST_OWNED : CR4_GUEST_OWNED & ~CR4.pge,
  };
};

/** The control words in force; a word is written to the VMCS only when it changes (KVM's controls_shadow). */
export class Controls {
  readonly initial: ControlWords;
  readonly #port: VmxPort;
  #proc: number;
  #secondary: number;
  #entry: number;
  #exit: number;
  #exceptionBitmap: number;

  constructor(port: VmxPort, words: ControlWords) {
    this.#port = port;
    this.initial = words;
    this.#proc = words.proc;
    this.#secondary = words.secondary;
    this.#entry = words.entry;
    this.#exit = words.exit;
    this.#exceptionBitmap = words.exceptionBitmap;
  }
  /** Writes every word and mask to the current VMCS. */
  writeAll(): void {
    const p = this.#port;
    const w = this.initial;
    p.vmwrite32(VMCS.pinBasedControls, w.pin);
    p.vmwrite32(VMCS.procBasedControls, w.proc);
    p.vmwrite32(VMCS.secondaryControls, w.secondary);
    p.vmwrite32(VMCS.exitControls, w.exit);
    p.vmwrite32(VMCS.entryControls, w.entry);
    p.vmwrite32(VMCS.exceptionBitmap, w.exceptionBitmap);
    p.vmwrite32(VMCS.pageFaultErrorCodeMask, 0);
    p.vmwrite32(VMCS.pageFaultErrorCodeMatch, 0);
    p.vmwrite32(VMCS.cr3TargetCount, 0);
    p.vmwrite(VMCS.cr0GuestHostMask, BigInt.asUintN(64, ~BigInt(w.cr0GuestOwned)));
    p.vmwrite(VMCS.cr4GuestHostMask, BigInt.asUintN(64, ~BigInt(w.cr4GuestOwned)));
  }
  get proc(): number {
    return this.#proc;
  }
  get secondary(): number {
    return this.#secondary;
  }
  get exceptionBitmap(): number {
    return this.#exceptionBitmap;
  }
  setProc(bit: number, on: boolean): void {
    const word = (on ? this.#proc | bit : this.#proc & ~bit) >>> 0;
    if (word === this.#proc) return;
    this.#proc = word;
    this.#port.vmwrite32(VMCS.procBasedControls, word);
  }
  setSecondary(bit: number, on: boolean): void {
    const word = (on ? this.#secondary | bit : this.#secondary & ~bit) >>> 0;
    if (word === this.#secondary) return;
    this.#secondary = word;
    this.#port.vmwrite32(VMCS.secondaryControls, word);
  }
  setEntry(bit: number, on: boolean): void {
    const word = (on ? this.#entry | bit : this.#entry & ~bit) >>> 0;
    if (word === this.#entry) return;
    this.#entry = word;
    this.#port.vmwrite32(VMCS.entryControls, word);
  }
  setExit(bit: number, on: boolean): void {
    const word = (on ? this.#exit | bit : this.#exit & ~bit) >>> 0;
    if (word === this.#exit) return;
    this.#exit = word;
    this.#port.vmwrite32(VMCS.exitControls, word);
  }
}

/** MSRs that the guest reads and writes without an exit (KVM-1.3), from creation on. */
export const PASSTHROUGH_MSRS = [0xc0000100, 0xc0000101, 0xc0000102, 0x174, 0x175, 0x176] as const;
/** MSRs that the guest only reads without an exit. */
export const READ_PASSTHROUGH_MSRS = [0x10] as const;

/**
 * Sets or clears the interception of one MSR in a 4 KiB bitmap: reads of low and high MSRs, then writes of both.
 * SDM "MSR-Bitmap Address".
 */
export const interceptMsr = (
  bitmap: Uint8Array,
  msr: number,
  kind: 'read' | 'write',
  intercept: boolean,
): void => {
  const high = msr >= 0xc0000000;
  const index = high ? msr - 0xc0000000 : msr;
  const at = (kind === 'read' ? 0 : 0x800) + (high ? 0x400 : 0) + (index >> 3);
  const bit = 1 << (index & 7);
  bitmap[at] = intercept ? bitmap[at] | bit : bitmap[at] & ~bit;
};

/** The bitmap of a new vCPU: everything exits but the passthrough list. */
export const newMsrBitmap = (): Uint8Array => {
  const bitmap = new Uint8Array(4096).fill(0xff);
  for (const msr of PASSTHROUGH_MSRS) {
    interceptMsr(bitmap, msr, 'read', false);
    interceptMsr(bitmap, msr, 'write', false);
  }
  for (const msr of READ_PASSTHROUGH_MSRS) interceptMsr(bitmap, msr, 'read', false);
  return bitmap;
};
