/**
 * The virtual processor as a listener of `kvm_exit` and `kvm_entry` sees it: VMCS fields by name, registers, and the
 * control registers as the guest believes them to be.
 *
 * Everything is read when asked, so an event costs nothing for what nobody reads; after the listener has returned, the
 * hypervisor goes on and the values are others: reading then is refused. Reading changes nothing.
 */
import { LabError } from '../base/error.js';
import { type FieldName, VMCS, type VmxPort } from '../vmx/port.js';

/** Control registers as the guest reads them. */
export interface GuestControl {
  readonly cr0: number;
  readonly cr3: number;
  readonly cr4: number;
  readonly efer: number;
}

export class TracedCpu {
  readonly #port: VmxPort;
  readonly #guest: GuestControl;
  #open = true;

  constructor(port: VmxPort, guest: GuestControl) {
    this.#port = port;
    this.#guest = guest;
  }
  #check(): void {
    if (this.#open) return;
    throw new LabError(
      'trace.over',
      'the event is over and its VMCS has changed',
      'read it in the listener, and keep the values',
    );
  }
  /** A field of the VMCS. @throws InvariantError for one that the processor does not have */
  field(name: FieldName): bigint {
    this.#check();
    return this.#port.vmread(VMCS[name]);
  }
  /** A general register, 0 RAX to 15 R15 in the processor's numbering; 4 is RSP. */
  gpr(i: number): bigint {
    this.#check();
    return i === 4 ? this.#port.vmread(VMCS.guestRsp) : this.#port.registers.gpr(i);
  }
  get cr2(): bigint {
    this.#check();
    return this.#port.registers.cr2;
  }
  /** CR0, CR3, CR4 and EFER as the guest believes them to be; the VMCS has what the processor uses. */
  get guest(): GuestControl {
    this.#check();
    const { cr0, cr3, cr4, efer } = this.#guest;
    return { cr0, cr3, cr4, efer };
  }
  /** The listeners have returned. */
  close(): void {
    this.#open = false;
  }
}
