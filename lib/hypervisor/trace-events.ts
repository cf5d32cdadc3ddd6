/**
 * The tracepoints of KVM 6.1 as types: what each event carries (KVM-8.2).
 *
 * Names and fields are those of the kernel (`/sys/kernel/tracing/events/kvm/.../format`). 64-bit values are bigints,
 * frame numbers and counts numbers. `kvm_exit` and `kvm_entry` also carry `cpu`, which reads the VMCS and the registers
 * at that moment (`trace-cpu.ts`). Not here: tracepoints of nested virtualization, Hyper-V, Xen, AVIC, SMM and of
 * asynchronous page faults.
 */
import type { TracedCpu } from './trace-cpu.js';

/** Of a shadow page: generation, frame, role, users. */
export interface ShadowPageFields {
  readonly mmu_valid_gen: number;
  readonly gfn: number;
  readonly level: number;
  /** Shadows a table of 4-byte entries, and which part of it. */
  readonly has_4_byte_gpte: boolean;
  readonly quadrant: number;
  /** Rights: 1 execute, 2 write, 4 user. */
  readonly access: number;
  readonly direct: boolean;
  readonly invalid: boolean;
  readonly nx: boolean;
  /** Accessed and dirty flags are in the tables. */
  readonly ad: boolean;
  readonly root_count: number;
  readonly unsync: boolean;
}

/** The fields of every event, by its name. */
export interface TraceFields {
  // ---- kvm
  readonly kvm_entry: { readonly vcpu_id: number; readonly rip: bigint; readonly cpu: TracedCpu };
  readonly kvm_exit: {
    readonly vcpu_id: number;
    /** Basic reason; bit 31 of the full one says that the entry failed. */
    readonly exit_reason: number;
    readonly guest_rip: bigint;
    /** Exit qualification. */
    readonly info1: bigint;
    /** IDT-vectoring information. */
    readonly info2: bigint;
    /** VM-exit interruption information. */
    readonly intr_info: number;
    /** VM-exit interruption error code. */
    readonly error_code: number;
    readonly cpu: TracedCpu;
  };
  readonly kvm_page_fault: {
    readonly vcpu_id: number;
    readonly guest_rip: bigint;
    /** Guest-linear under shadow paging, guest-physical under EPT. */
    readonly fault_address: bigint;
    /** Of #PF; of an EPT violation the exit qualification. */
    readonly error_code: number;
  };
  readonly kvm_cr: { readonly rw: 0 | 1; readonly cr: number; readonly val: bigint };
  readonly kvm_msr: {
    readonly write: 0 | 1;
    readonly ecx: number;
    readonly data: bigint;
    readonly exception: boolean;
  };
  readonly kvm_cpuid: {
    readonly function: number;
    readonly index: number;
    readonly rax: number;
    readonly rbx: number;
    readonly rcx: number;
    readonly rdx: number;
    readonly found: boolean;
    readonly used_max_basic: boolean;
  };
  readonly kvm_pio: {
    readonly rw: 0 | 1;
    readonly port: number;
    readonly size: number;
    readonly count: number;
    /** The first value. */
    readonly val: number;
  };
  readonly kvm_mmio: {
    /** 0 a read that user space has to answer, 1 a read, 2 a write. */
    readonly type: 0 | 1 | 2;
    readonly len: number;
    readonly gpa: number;
    readonly val: bigint;
  };
  readonly kvm_fast_mmio: { readonly gpa: number };
  readonly kvm_inj_virq: {
    readonly vector: number;
    readonly soft: boolean;
    readonly reinjected: boolean;
  };
  readonly kvm_inj_exception: {
    readonly exception: number;
    readonly has_error: boolean;
    readonly error_code: number;
    readonly reinjected: boolean;
  };
  readonly kvm_emulate_insn: {
    readonly csbase: bigint;
    readonly rip: bigint;
    /** Bytes of the instruction, hexadecimal. */
    readonly insn: string;
    readonly mode: 'real' | 'vm16' | 'prot16' | 'prot32' | 'prot64';
    readonly failed: boolean;
  };
  readonly kvm_eoi: { readonly apicid: number; readonly vector: number };
  readonly kvm_pv_eoi: { readonly apicid: number; readonly vector: number };
  readonly kvm_apic: { readonly rw: 0 | 1; readonly reg: number; readonly val: number };
  readonly kvm_apic_accept_irq: {
    readonly apicid: number;
    /** Delivery mode, 0 to 7. */
    readonly dm: number;
    /** Level-triggered. */
    readonly tm: boolean;
    readonly vec: number;
  };
  readonly kvm_set_irq: { readonly gsi: number; readonly level: number; readonly irq_source_id: number };
  readonly kvm_ioapic_set_irq: {
    /** Redirection entry. */
    readonly e: bigint;
    readonly pin: number;
    readonly coalesced: boolean;
  };
  readonly kvm_msi_set_irq: { readonly address: bigint; readonly data: bigint };
  readonly kvm_ack_irq: {
    /** 0 the first 8259, 1 the second, 2 the I/O APIC. */
    readonly irqchip: 0 | 1 | 2;
    readonly pin: number;
  };
  readonly kvm_pic_set_irq: {
    readonly chip: number;
    readonly pin: number;
    readonly elcr: number;
    readonly imr: number;
    readonly coalesced: boolean;
  };
  readonly kvm_hypercall: {
    readonly nr: bigint;
    readonly a0: bigint;
    readonly a1: bigint;
    readonly a2: bigint;
    readonly a3: bigint;
  };
  readonly kvm_userspace_exit: { readonly reason: number; readonly errno: number };
  readonly kvm_vcpu_wakeup: {
    /** Nanoseconds of virtual time. */
    readonly ns: number;
    readonly waited: boolean;
    readonly valid: boolean;
  };
  readonly kvm_halt_poll_ns: {
    readonly grow: boolean;
    readonly vcpu_id: number;
    readonly new: number;
    readonly old: number;
  };
  readonly kvm_ple_window_update: { readonly vcpu_id: number; readonly new: number; readonly old: number };
  readonly kvm_hv_timer_state: { readonly vcpu_id: number; readonly hv_timer_in_use: boolean };
  readonly kvm_wait_lapic_expire: { readonly vcpu_id: number; readonly delta: number };
  readonly vcpu_match_mmio: {
    readonly gva: bigint;
    readonly gpa: number;
    readonly write: boolean;
    readonly gpa_match: boolean;
  };
  readonly kvm_pml_full: { readonly vcpu_id: number };
  // ---- kvmmmu
  readonly kvm_mmu_pagetable_walk: { readonly addr: bigint; readonly pferr: number };
  readonly kvm_mmu_paging_element: { readonly pte: bigint; readonly level: number };
  readonly kvm_mmu_walker_error: { readonly pferr: number };
  readonly kvm_mmu_set_accessed_bit: { readonly gpa: number };
  readonly kvm_mmu_set_dirty_bit: { readonly gpa: number };
  readonly kvm_mmu_get_page: ShadowPageFields & { readonly created: boolean };
  readonly kvm_mmu_sync_page: ShadowPageFields;
  readonly kvm_mmu_unsync_page: ShadowPageFields;
  readonly kvm_mmu_prepare_zap_page: ShadowPageFields;
  readonly kvm_mmu_spte_requested: { readonly gfn: number; readonly pfn: number; readonly level: number };
  readonly kvm_mmu_set_spte: {
    readonly gfn: number;
    readonly spte: bigint;
    /** Host-physical address of the entry. */
    readonly sptep: number;
    readonly level: number;
    readonly r: boolean;
    readonly x: boolean;
    /** Undefined in EPT entries, which have no such right. */
    readonly u: boolean | undefined;
  };
  readonly mark_mmio_spte: {
    readonly sptep: number;
    readonly gfn: number;
    readonly access: number;
    readonly gen: number;
  };
  readonly handle_mmio_page_fault: { readonly addr: bigint; readonly gfn: number; readonly access: number };
  readonly fast_page_fault: {
    readonly vcpu_id: number;
    readonly cr2_or_gpa: bigint;
    readonly error_code: number;
    readonly sptep: number;
    readonly old_spte: bigint;
    readonly new_spte: bigint;
    readonly ret: 'spurious' | 'fixed' | 'other';
  };
  readonly kvm_mmu_zap_all_fast: { readonly mmu_valid_gen: number; readonly mmu_used_pages: number };
  readonly check_mmio_spte: { readonly kvm_gen: number; readonly spte_gen: number; readonly spte: bigint };
  readonly kvm_tdp_mmu_spte_changed: {
    readonly gfn: number;
    readonly old_spte: bigint;
    readonly new_spte: bigint;
    readonly level: number;
    readonly as_id: number;
  };
  readonly kvm_mmu_split_huge_page: {
    readonly gfn: number;
    readonly spte: bigint;
    readonly level: number;
    readonly errno: number;
  };
}

export type TraceName = keyof TraceFields;

/** What every event has beside its own fields. */
export interface TraceStamp<N extends TraceName> {
  readonly name: N;
  /** Virtual time: TSC cycles since the machine was made. */
  readonly cycles: number;
  /** Instructions that the guest had executed. */
  readonly instructions: number;
}

/** An event as a listener gets it; `TraceEvent` alone is the union of all, told apart by `name`. */
export type TraceEvent<N extends TraceName = TraceName> = {
  [K in N]: TraceStamp<K> & TraceFields[K];
}[N];

export type TraceListener<N extends TraceName> = (event: TraceEvent<N>) => void;
