import { expect, test } from 'vitest';
import { STATS } from '../../lib/hypervisor/stats.js';

// debugfs of Linux 6.1, VM and vCPU; the three histograms are in `halt-poll.ts`
const VM =
  'remote_tlb_flush remote_tlb_flush_requests mmu_shadow_zapped mmu_pte_write mmu_pde_zapped mmu_flooded mmu_recycled mmu_cache_miss mmu_unsync pages_4k pages_2m pages_1g nx_lpage_splits max_mmu_rmap_size max_mmu_page_hash_collisions';
const VCPU =
  'halt_successful_poll halt_attempted_poll halt_poll_invalid halt_wakeup halt_poll_success_ns halt_poll_fail_ns halt_wait_ns blocking pf_taken pf_fixed pf_emulate pf_spurious pf_fast pf_mmio_spte_created pf_guest tlb_flush invlpg exits io_exits mmio_exits signal_exits irq_window_exits nmi_window_exits l1d_flush halt_exits request_irq_exits irq_exits host_state_reload fpu_reload insn_emulation insn_emulation_fail hypercalls irq_injections nmi_injections req_event nested_run directed_yield_attempted directed_yield_successful preemption_reported preemption_other guest_mode notify_window_exits';

test('KVM-8.1: every statistic of KVM has a row, and none is made up', () => {
  expect(Object.keys(STATS).sort()).toEqual(`${VM} ${VCPU}`.split(' ').sort());
});
