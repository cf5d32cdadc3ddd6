/**
 * What the interrupt controllers tell an observer: KVM's tracepoints of them, with the kernel's names. A field is
 * undefined while nobody listens.
 */
type Hook<F> = ((fields: F) => void) | undefined;

export interface BoardTrace {
  /** An ISA line changed. */
  readonly kvm_set_irq: Hook<{
    readonly gsi: number;
    readonly level: number;
    readonly irq_source_id: number;
  }>;
  readonly kvm_pic_set_irq: Hook<{
    readonly chip: number;
    readonly pin: number;
    readonly elcr: number;
    readonly imr: number;
    readonly coalesced: boolean;
  }>;
  readonly kvm_ioapic_set_irq: Hook<{
    readonly e: bigint;
    readonly pin: number;
    readonly coalesced: boolean;
  }>;
  /** An interrupt left service. */
  readonly kvm_ack_irq: Hook<{ readonly irqchip: 0 | 1 | 2; readonly pin: number }>;
  readonly kvm_apic: Hook<{ readonly rw: 0 | 1; readonly reg: number; readonly val: number }>;
  readonly kvm_apic_accept_irq: Hook<{
    readonly apicid: number;
    readonly dm: number;
    readonly tm: boolean;
    readonly vec: number;
  }>;
  readonly kvm_eoi: Hook<{ readonly apicid: number; readonly vector: number }>;
}

export const UNTRACED: BoardTrace = {
  kvm_set_irq: undefined,
  kvm_pic_set_irq: undefined,
  kvm_ioapic_set_irq: undefined,
  kvm_ack_irq: undefined,
  kvm_apic: undefined,
  kvm_apic_accept_irq: undefined,
  kvm_eoi: undefined,
};
