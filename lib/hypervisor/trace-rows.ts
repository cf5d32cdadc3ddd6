/**
 * The tracepoints, one row each: subsystem, how the kernel's trace file writes the fields (Linux 6.1), and, where
 * nothing here can raise the event, why (KVM-8.2).
 */
import { reasonName } from './reasons.js';
import type { ShadowPageFields, TraceFields, TraceName } from './trace-events.js';

export interface TraceRow<N extends TraceName> {
  readonly system: 'kvm' | 'kvmmmu';
  readonly text: (e: TraceFields[N]) => string;
  /** The hook runs with interrupts off, between the last check and the guest. */
  readonly irqsOff?: boolean;
  /** Why the event never happens here. */
  readonly never?: string;
}
type Rows = { readonly [N in TraceName]: TraceRow<N> };

const hex = (v: number | bigint): string => v.toString(16);
const pad = (v: number | bigint, digits: number): string => v.toString(16).padStart(digits, '0');
const when = (condition: boolean, text: string): string => (condition ? text : '');

const EXCEPTIONS: Readonly<Record<number, string>> = {
  0: '#DE',
  1: '#DB',
  3: '#BP',
  4: '#OF',
  5: '#BR',
  6: '#UD',
  7: '#NM',
  8: '#DF',
  10: '#TS',
  11: '#NP',
  12: '#SS',
  13: '#GP',
  14: '#PF',
  16: '#MF',
  17: '#AC',
  18: '#MC',
};
export const exceptionName = (vector: number): string => EXCEPTIONS[vector] ?? `0x${hex(vector)}`;

const DELIVERY = ['Fixed', 'LowPrio', 'SMI', 'Res3', 'NMI', 'INIT', 'SIPI', 'ExtINT'] as const;
const IRQCHIPS = ['PIC master', 'PIC slave', 'IOAPIC'] as const;
const MMIO = ['unsatisfied-read', 'read', 'write'] as const;
const USER_EXITS: Readonly<Record<number, string>> = {
  2: 'KVM_EXIT_IO',
  6: 'KVM_EXIT_MMIO',
  8: 'KVM_EXIT_SHUTDOWN',
  9: 'KVM_EXIT_FAIL_ENTRY',
  17: 'KVM_EXIT_INTERNAL_ERROR',
};

const APIC_REGISTERS: Readonly<Record<number, string>> = {
  32: 'ID',
  48: 'LVR',
  128: 'TASKPRI',
  144: 'ARBPRI',
  160: 'PROCPRI',
  176: 'EOI',
  192: 'RRR',
  208: 'LDR',
  224: 'DFR',
  240: 'SPIV',
  256: 'ISR',
  384: 'TMR',
  512: 'IRR',
  640: 'ESR',
  768: 'ICR',
  784: 'ICR2',
  800: 'LVTT',
  816: 'LVTTHMR',
  832: 'LVTPC',
  848: 'LVT0',
  864: 'LVT1',
  880: 'LVTERR',
  896: 'TMICT',
  912: 'TMCCT',
  992: 'TDCR',
  1008: 'SELF_IPI',
};
export const apicRegisterName = (offset: number): string => {
  const name = APIC_REGISTERS[offset];
  return name === undefined ? `0x${hex(offset)}` : `APIC_${name}`;
};

const FAULT_FLAGS = [
  [1, 'P'],
  [2, 'W'],
  [4, 'U'],
  [8, 'RSVD'],
  [16, 'F'],
] as const;
const faultFlags = (code: number): string =>
  FAULT_FLAGS.filter(([bit]) => (code & bit) !== 0)
    .map(([, name]) => name)
    .join('|');

const RIGHTS = ['---', '--x', 'w--', 'w-x', '-u-', '-ux', 'wu-', 'wux'] as const;
const page = (sp: ShadowPageFields): string =>
  `sp gen ${sp.mmu_valid_gen} gfn ${hex(sp.gfn)} l${sp.level} ${sp.has_4_byte_gpte ? 4 : 8}-byte q${sp.quadrant}${when(sp.direct, ' direct')} ${RIGHTS[sp.access]}` +
  `${when(sp.invalid, ' invalid')} ${when(!sp.nx, '!')}nxe ${when(!sp.ad, '!')}ad root ${sp.root_count} ${sp.unsync ? 'unsync' : 'sync'}`;

const NO_IOEVENTFD = 'no device registers an ioeventfd';

export const TRACEPOINTS: Rows = {
  kvm_entry: {
    system: 'kvm',
    irqsOff: true,
    text: (e) => `vcpu ${e.vcpu_id}, rip 0x${hex(e.rip)}`,
  },
  kvm_exit: {
    system: 'kvm',
    irqsOff: true,
    text: (e) =>
      `vcpu ${e.vcpu_id} reason ${reasonName(e.exit_reason & 0xffff)}${when(e.exit_reason >= 0x8000_0000, ' FAILED_VMENTRY')} rip 0x${hex(e.guest_rip)} ` +
      `info1 0x${pad(e.info1, 16)} info2 0x${pad(e.info2, 16)} intr_info 0x${pad(e.intr_info, 8)} error_code 0x${pad(e.error_code, 8)}`,
  },
  kvm_page_fault: {
    system: 'kvm',
    text: (e) =>
      `vcpu ${e.vcpu_id} rip 0x${hex(e.guest_rip)} address 0x${pad(e.fault_address, 16)} error_code 0x${hex(e.error_code)}`,
  },
  kvm_cr: {
    system: 'kvm',
    text: (e) => `cr_${e.rw === 1 ? 'write' : 'read'} ${hex(e.cr)} = 0x${hex(e.val)}`,
  },
  kvm_msr: {
    system: 'kvm',
    text: (e) =>
      `msr_${e.write === 1 ? 'write' : 'read'} ${hex(e.ecx)} = 0x${hex(e.data)}${when(e.exception, ' (#GP)')}`,
  },
  kvm_cpuid: {
    system: 'kvm',
    text: (e) =>
      `func ${hex(e.function)} idx ${hex(e.index)} rax ${hex(e.rax)} rbx ${hex(e.rbx)} rcx ${hex(e.rcx)} rdx ${hex(e.rdx)}, ` +
      `cpuid entry ${e.found ? 'found' : 'not found'}${when(e.used_max_basic, ', used max basic')}`,
  },
  kvm_pio: {
    system: 'kvm',
    text: (e) =>
      `pio_${e.rw === 1 ? 'write' : 'read'} at 0x${hex(e.port)} size ${e.size} count ${e.count} val 0x${hex(e.val)} ${when(e.count > 1, '(...)')}`,
  },
  kvm_mmio: {
    system: 'kvm',
    text: (e) => `mmio ${MMIO[e.type]} len ${e.len} gpa 0x${hex(e.gpa)} val 0x${hex(e.val)}`,
  },
  kvm_fast_mmio: {
    system: 'kvm',
    text: (e) => `fast mmio at gpa 0x${hex(e.gpa)}`,
    never: NO_IOEVENTFD,
  },
  kvm_inj_virq: {
    system: 'kvm',
    text: (e) => `${e.soft ? 'Soft/INTn' : 'IRQ'} 0x${hex(e.vector)}${when(e.reinjected, ' [reinjected]')}`,
  },
  kvm_inj_exception: {
    system: 'kvm',
    text: (e) =>
      `${exceptionName(e.exception)}${when(e.has_error, ` (0x${hex(e.error_code)})`)}${when(e.reinjected, ' [reinjected]')}`,
  },
  kvm_emulate_insn: {
    system: 'kvm',
    text: (e) => `${hex(e.csbase)}:${hex(e.rip)}: ${e.insn} (${e.mode})${when(e.failed, ' failed')}`,
  },
  kvm_eoi: { system: 'kvm', text: (e) => `apicid ${hex(e.apicid)} vector ${e.vector}` },
  kvm_pv_eoi: { system: 'kvm', text: (e) => `apicid ${hex(e.apicid)} vector ${e.vector}` },
  kvm_apic: {
    system: 'kvm',
    text: (e) => `apic_${e.rw === 1 ? 'write' : 'read'} ${apicRegisterName(e.reg)} = 0x${hex(e.val)}`,
  },
  kvm_apic_accept_irq: {
    system: 'kvm',
    text: (e) => `apicid ${hex(e.apicid)} vec ${e.vec} (${DELIVERY[e.dm]}|${e.tm ? 'level' : 'edge'})`,
  },
  kvm_set_irq: { system: 'kvm', text: (e) => `gsi ${e.gsi} level ${e.level} source ${e.irq_source_id}` },
  kvm_ioapic_set_irq: {
    system: 'kvm',
    text: (e) => {
      const low = Number(BigInt.asUintN(32, e.e));
      return (
        `pin ${e.pin} dst ${hex(Number((e.e >> 56n) & 0xffn))} vec ${low & 0xff} (${DELIVERY[(low >> 8) & 7]}|` +
        `${(low & 0x800) !== 0 ? 'logical' : 'physical'}|${(low & 0x8000) !== 0 ? 'level' : 'edge'}` +
        `${when((low & 0x1_0000) !== 0, '|masked')})${when(e.coalesced, ' (coalesced)')}`
      );
    },
  },
  kvm_msi_set_irq: {
    system: 'kvm',
    text: (e) => {
      const data = Number(BigInt.asUintN(32, e.data));
      const address = Number(BigInt.asUintN(32, e.address));
      return (
        `dst ${hex((address >> 12) & 0xff)} vec ${data & 0xff} (${DELIVERY[(data >> 8) & 7]}|` +
        `${(address & 4) !== 0 ? 'logical' : 'physical'}|${(data & 0x8000) !== 0 ? 'level' : 'edge'}${when((address & 8) !== 0, '|rh')})`
      );
    },
    never: 'no device of the board sends messages (there is no PCI)',
  },
  kvm_ack_irq: { system: 'kvm', text: (e) => `irqchip ${IRQCHIPS[e.irqchip]} pin ${e.pin}` },
  kvm_pic_set_irq: {
    system: 'kvm',
    text: (e) =>
      `chip ${e.chip} pin ${e.pin} (${(e.elcr & (1 << e.pin)) !== 0 ? 'level' : 'edge'}` +
      `${when((e.imr & (1 << e.pin)) !== 0, '|masked')})${when(e.coalesced, ' (coalesced)')}`,
  },
  kvm_hypercall: {
    system: 'kvm',
    text: (e) => `nr 0x${hex(e.nr)} a0 0x${hex(e.a0)} a1 0x${hex(e.a1)} a2 0x${hex(e.a2)} a3 0x${hex(e.a3)}`,
  },
  kvm_userspace_exit: {
    system: 'kvm',
    text: (e) => `reason ${USER_EXITS[e.reason] ?? `0x${hex(e.reason)}`} (${e.reason})`,
  },
  kvm_vcpu_wakeup: {
    system: 'kvm',
    text: (e) => `${e.waited ? 'wait' : 'poll'} time ${e.ns} ns, polling ${e.valid ? 'valid' : 'invalid'}`,
  },
  kvm_halt_poll_ns: {
    system: 'kvm',
    text: (e) => `vcpu ${e.vcpu_id}: halt_poll_ns ${e.new} (${e.grow ? 'grow' : 'shrink'} ${e.old})`,
  },
  kvm_ple_window_update: {
    system: 'kvm',
    text: (e) => `vcpu ${e.vcpu_id} old ${e.old} new ${e.new} (${e.old < e.new ? 'growed' : 'shrinked'})`,
  },
  kvm_hv_timer_state: {
    system: 'kvm',
    text: (e) => `vcpu_id ${hex(e.vcpu_id)} hv_timer ${e.hv_timer_in_use ? 1 : 0}`,
  },
  kvm_wait_lapic_expire: {
    system: 'kvm',
    text: (e) => `vcpu ${e.vcpu_id}: delta ${e.delta} (${e.delta < 0 ? 'early' : 'late'})`,
    never: 'the timer is never advanced, so there is nothing to wait for',
  },
  vcpu_match_mmio: {
    system: 'kvm',
    text: (e) =>
      `gva 0x${hex(e.gva)} gpa 0x${hex(e.gpa)} ${e.write ? 'Write' : 'Read'} ${e.gpa_match ? 'GPA' : 'GVA'}`,
  },
  kvm_pml_full: {
    system: 'kvm',
    text: (e) => `vcpu ${e.vcpu_id}: PML full`,
    never: 'page-modification logging is only used while dirty pages are logged, which nothing asks for',
  },
  kvm_mmu_pagetable_walk: {
    system: 'kvmmmu',
    text: (e) => `addr ${hex(e.addr)} pferr ${hex(e.pferr)} ${faultFlags(e.pferr)}`,
  },
  kvm_mmu_paging_element: { system: 'kvmmmu', text: (e) => `pte ${hex(e.pte)} level ${e.level}` },
  kvm_mmu_walker_error: { system: 'kvmmmu', text: (e) => `pferr ${hex(e.pferr)} ${faultFlags(e.pferr)}` },
  kvm_mmu_set_accessed_bit: { system: 'kvmmmu', text: (e) => `gpa ${hex(e.gpa)}` },
  kvm_mmu_set_dirty_bit: { system: 'kvmmmu', text: (e) => `gpa ${hex(e.gpa)}` },
  kvm_mmu_get_page: { system: 'kvmmmu', text: (e) => `${page(e)} ${e.created ? 'new' : 'existing'}` },
  kvm_mmu_sync_page: { system: 'kvmmmu', text: page },
  kvm_mmu_unsync_page: { system: 'kvmmmu', text: page },
  kvm_mmu_prepare_zap_page: { system: 'kvmmmu', text: page },
  kvm_mmu_spte_requested: {
    system: 'kvmmmu',
    text: (e) => `gfn ${hex(e.gfn)} pfn ${hex(e.pfn)} level ${e.level}`,
  },
  kvm_mmu_set_spte: {
    system: 'kvmmmu',
    text: (e) =>
      `gfn ${hex(e.gfn)} spte ${hex(e.spte)} (${e.r ? 'r' : '-'}${(e.spte & 2n) !== 0n ? 'w' : '-'}${e.x ? 'x' : '-'}` +
      `${e.u === undefined ? '' : e.u ? 'u' : '-'}) level ${e.level} at ${hex(e.sptep)}`,
  },
  mark_mmio_spte: {
    system: 'kvmmmu',
    text: (e) => `sptep:${pad(e.sptep, 16)} gfn ${hex(e.gfn)} access ${hex(e.access)} gen ${hex(e.gen)}`,
  },
  handle_mmio_page_fault: {
    system: 'kvmmmu',
    text: (e) => `addr:${hex(e.addr)} gfn ${hex(e.gfn)} access ${hex(e.access)}`,
  },
  fast_page_fault: {
    system: 'kvmmmu',
    text: (e) =>
      `vcpu ${e.vcpu_id} gva ${hex(e.cr2_or_gpa)} error_code ${faultFlags(e.error_code)} sptep ${pad(e.sptep, 16)} ` +
      `old 0x${hex(e.old_spte)} new 0x${hex(e.new_spte)} spurious ${e.ret === 'spurious' ? 1 : 0} fixed ${e.ret === 'fixed' ? 1 : 0}`,
    never: 'no fault takes the path without the lock (pf_fast is 0)',
  },
  kvm_mmu_zap_all_fast: {
    system: 'kvmmmu',
    text: (e) => `kvm-mmu-valid-gen ${e.mmu_valid_gen} used_pages ${hex(e.mmu_used_pages)}`,
    never: 'the memory slots do not change while a guest runs',
  },
  check_mmio_spte: {
    system: 'kvmmmu',
    text: (e) =>
      `spte ${hex(e.spte)} kvm_gen ${hex(e.kvm_gen)} spte-gen ${hex(e.spte_gen)} valid ${e.kvm_gen === e.spte_gen ? 1 : 0}`,
  },
  kvm_tdp_mmu_spte_changed: {
    system: 'kvmmmu',
    text: (e) =>
      `as id ${e.as_id} gfn ${hex(e.gfn)} level ${e.level} old_spte ${hex(e.old_spte)} new_spte ${hex(e.new_spte)}`,
  },
  kvm_mmu_split_huge_page: {
    system: 'kvmmmu',
    text: (e) => `gfn ${hex(e.gfn)} spte ${hex(e.spte)} level ${e.level} errno ${e.errno}`,
    never: 'large pages are split ahead only for dirty logging, which nothing asks for',
  },
};

export const TRACE_NAMES = Object.keys(TRACEPOINTS) as readonly TraceName[];
