/**
 * The virtual-APIC page (TPR shadow) and the APIC-access page, and which of the APIC virtualizations is on (KVM-1.2;
 * KVM's vmx_set_virtual_apic_mode, update_cr8_intercept).
 *
 * The processor keeps the task priority in the page; it is carried to the APIC model after each exit and back after
 * each write to the model.
 */

import type { Board } from '../devices/board.js';
import { PROC, SECONDARY, VMCS, type VmxPort } from '../vmx/port.js';
import type { Controls } from './controls.js';
import { interceptMsr } from './controls.js';
import type { FrameAllocator } from './memslots.js';

const TPR_OFFSET = 0x80;
const X2APIC_TPR_MSR = 0x808;

export class ApicPages {
  readonly #port: VmxPort;
  readonly #board: Board;
  readonly #controls: Controls;
  readonly #msrBitmap: number;
  readonly #page: number;
  readonly #shadow: boolean;
  /** kvm_intel.flexpriority: there is an APIC-access page. */
  readonly #accessPage: boolean;
  #threshold = 0;

  /** @param msrBitmap host-physical address of the MSR bitmap */
  constructor(
    port: VmxPort,
    board: Board,
    controls: Controls,
    frames: FrameAllocator,
    msrBitmap: number,
    flexpriority: boolean,
  ) {
    this.#port = port;
    this.#board = board;
    this.#controls = controls;
    this.#msrBitmap = msrBitmap;
    this.#page = frames.page();
    this.#accessPage = flexpriority;
    this.#shadow = (controls.initial.proc & PROC.useTprShadow) !== 0;
    if (this.#shadow) {
      port.vmwriteNumber(VMCS.virtualApicAddress, this.#page);
      if (flexpriority) port.vmwriteNumber(VMCS.apicAccessAddress, frames.page());
      port.vmwrite32(VMCS.tprThreshold, 0);
    }
  }

  /** After IA32_APIC_BASE changed: xAPIC accesses or x2APIC MSRs are virtualized, or neither. */
  setMode(): void {
    if (!this.#shadow) return;
    const mode = this.#board.lapic.mode();
    this.#controls.setSecondary(SECONDARY.virtualizeApicAccesses, this.#accessPage && mode === 'xapic');
    this.#controls.setSecondary(SECONDARY.virtualizeX2apicMode, mode === 'x2apic');
    const bitmap = this.#port.memory.view(this.#msrBitmap, 4096).slice();
    interceptMsr(bitmap, X2APIC_TPR_MSR, 'read', mode !== 'x2apic');
    interceptMsr(bitmap, X2APIC_TPR_MSR, 'write', mode !== 'x2apic');
    this.#port.memory.writeBytes(this.#msrBitmap, bitmap);
  }
  setCr8(value: number): void {
    this.#board.lapic.setCr8(value);
    this.toPage();
  }
  /** After an exit: what the guest wrote to CR8 or the TPR MSR. */
  fromPage(): void {
    if (!this.#shadow) return;
    const tpr = this.#port.memory.read8(this.#page + TPR_OFFSET);
    if (tpr >> 4 !== this.#board.lapic.cr8()) this.#board.lapic.setCr8(tpr >> 4);
  }
  /** After the model's TPR may have changed. */
  toPage(): void {
    if (!this.#shadow) return;
    const { lapic } = this.#board;
    if (this.#port.memory.read8(this.#page + TPR_OFFSET) >> 4 !== lapic.cr8()) {
      this.#port.memory.write8(this.#page + TPR_OFFSET, lapic.cr8() << 4);
    }
  }
  /** Before an entry: an exit is wanted when the TPR falls below the priority of an interrupt that waits for it. */
  updateThreshold(): void {
    if (!this.#shadow) return;
    const { lapic } = this.#board;
    const irr = lapic.highestIrr();
    const threshold = irr < 0 || lapic.cr8() < irr >> 4 ? 0 : irr >> 4;
    if (threshold !== this.#threshold) {
      this.#threshold = threshold;
      this.#port.vmwrite32(VMCS.tprThreshold, threshold);
    }
  }
}
