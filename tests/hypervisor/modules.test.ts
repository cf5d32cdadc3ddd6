import { expect, test } from 'vitest';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { paramFromText } from '../../lib/hypervisor/params.js';
import { exit } from './fake-port.js';
import { machine } from './machine.js';

test('parameters that contradict ept=0 are turned off, and said so when they were asked for', () => {
  const h = new Hypervisor();
  h.loadModule('kvm-intel', { ept: false, unrestricted_guest: true });
  const value = (name: string): string | undefined =>
    h.parameters('kvm-intel').find((p) => p.name === name)?.value;
  expect(['ept', 'unrestricted_guest', 'eptad', 'pml', 'vpid', 'vmentry_l1d_flush'].map(value)).toEqual([
    'N',
    'N',
    'N',
    'N',
    'Y',
    'EPT disabled',
  ]);
  expect(h.log.text()).toBe('kvm_intel: unrestricted_guest=Y has no effect with ept=N, set to N');
});

test.each([
  [{ eptt: false }, /unknown parameter 'eptt'.*valid names: ept, vpid/],
  [{ ept: 0 }, /'ept' is a boolean, not number/],
  [{ ple_gap: 1.5 }, /whole number/],
  [{ ple_gap: -1 }, /'ple_gap' must be from 0 to 4294967295, not -1/],
  [{ vmentry_l1d_flush: 'sometimes' }, /one of auto, never, cond, always/],
  [{ nested: true }, /'nested' can only be N here/],
  [{ enable_apicv: true }, /'enable_apicv' can only be N here.*not modelled/],
])('parameters %j are refused', (params, message) => {
  expect(() => new Hypervisor().loadModule('kvm-intel', params)).toThrow(message);
});

test('ill-typed parameters are answered with the valid names too', () => {
  expect(() => new Hypervisor().loadModule('kvm', { tdp_mmu: 1 })).toThrow(/valid names: ignore_msrs,/);
  expect(() => new Hypervisor().loadModule('kvm', { nx_huge_pages: 'yes' })).toThrow(
    /boolean or one of auto, off, force/,
  );
  expect(() => new Hypervisor().loadModule('kvm', { enable_pmu: true })).toThrow(/can only be N here/);
});

/** Names, types and defaults of KVM 6.1 (modinfo -p, and the sources for the defaults). */
const KVM_INTEL =
  'ept:bool=Y vpid:bool=Y unrestricted_guest:bool=Y eptad:bool=Y flexpriority:bool=Y vnmi:bool=Y enable_apicv:bool=Y enable_ipiv:bool=Y fasteoi:bool=Y emulate_invalid_guest_state:bool=Y nested:bool=Y pml:bool=Y preemption_timer:bool=Y ple_gap:uint=128 ple_window:uint=4096 ple_window_grow:uint=2 ple_window_shrink:uint=0 ple_window_max:uint=4294967295 pt_mode:int=0 vmentry_l1d_flush:charp=auto error_on_inconsistent_vmcs_config:bool=Y dump_invalid_vmcs:bool=N allow_smaller_maxphyaddr:bool=N enlightened_vmcs:bool=Y';
const KVM =
  'ignore_msrs:bool=N report_ignored_msrs:bool=Y force_emulation_prefix:int=0 tdp_mmu:bool=Y nx_huge_pages:bool=auto nx_huge_pages_recovery_ratio:uint=60 mmio_caching:bool=Y flush_on_reuse:bool=N eager_page_split:bool=Y halt_poll_ns:uint=200000 halt_poll_ns_grow:uint=2 halt_poll_ns_grow_start:uint=10000 halt_poll_ns_shrink:uint=0 lapic_timer_advance_ns:int=-1 min_timer_period_us:uint=200 kvmclock_periodic_sync:bool=Y tsc_tolerance_ppm:uint=250 vector_hashing:bool=Y pi_inject_timer:int=-1 enable_pmu:bool=Y enable_vmware_backdoor:bool=N mitigate_smt_rsb:bool=N';
test.each([
  ['kvm-intel', KVM_INTEL],
  ['kvm', KVM],
] as const)('%s knows the parameters of KVM-8.4 with type and default', (module, rows) => {
  const h = new Hypervisor();
  h.loadModule('kvm-intel');
  const known = h.parameters(module).map((p) => `${p.name}:${p.type}=${p.default}`);
  expect(known.join(' ')).toBe(rows);
});

test('what KVM turns off on this processor, or finds unnecessary, reads so', () => {
  const h = new Hypervisor();
  h.loadModule('kvm-intel');
  const odd = (['kvm-intel', 'kvm'] as const).flatMap((m) =>
    h.parameters(m).flatMap((p) => (p.value === p.default ? [] : [`${p.name}=${p.value}`])),
  );
  expect(odd).toEqual([
    'enable_apicv=N',
    'enable_ipiv=N',
    'nested=N',
    'vmentry_l1d_flush=not required',
    'enlightened_vmcs=N',
    'nx_huge_pages=N',
    'enable_pmu=N',
  ]);
  expect(h.log.text()).toBe('');
});

test('parameters without effect here are taken, and the log says that nothing comes of them', () => {
  const h = new Hypervisor();
  h.loadModule('kvm', { vector_hashing: false, tdp_mmu: true });
  h.loadModule('kvm-intel', { ept: false, vnmi: false, pml: true, ple_gap: 0, ple_window: 8192 });
  expect(h.log.text().split('\n')).toEqual([
    'kvm: vector_hashing=N has no effect here: one vCPU gets every interrupt',
    'kvm_intel: vnmi=N has no effect here: the processor has virtual NMIs and they are always used',
    'kvm_intel: pml=Y has no effect here: pages are never logged, so no log fills; needs eptad',
    'kvm_intel: pml=Y has no effect with eptad=N, set to N',
    'kvm_intel: ple_window=8192 has no effect with ple_gap=0, set to 0',
    'kvm: tdp_mmu=Y has no effect with ept=N',
  ]);
});

test.each([
  ['ept', 'N', 'kvm-intel', false],
  ['ple_window', '0x2000', 'kvm-intel', 8192],
  ['lapic_timer_advance_ns', '-1', 'kvm', -1],
  ['nx_huge_pages', 'force', 'kvm', 'force'],
  ['tdp_mmu', '0', 'kvm', false],
])('modprobe text %s=%s', (name, text, module, value) => {
  expect(paramFromText(name, text)).toEqual({ module, value });
});
test.each([
  ['etp', 'N', /unknown parameter 'etp'.*of kvm-intel ept, vpid.*of kvm ignore_msrs/],
  ['ept', 'maybe', /'ept' takes Y or N, not 'maybe'/],
  ['ple_gap', 'Y', /'ple_gap' takes a number \(uint\), not 'Y'/],
  ['nx_huge_pages', 'never', /takes Y or N or auto, off, force, not 'never'/],
])('modprobe text %s=%s is refused', (name, text, message) => {
  expect(() => paramFromText(name, text)).toThrow(message);
});

test('a module is not unloaded while a VM exists, and kvm not while kvm-intel needs it', () => {
  const { hypervisor, vm } = machine();
  expect(() => hypervisor.unloadModule('kvm-intel')).toThrow(/in use by 1 VM/);
  vm.destroy();
  expect(() => hypervisor.unloadModule('kvm')).toThrow(/kvm_intel/);
  hypervisor.unloadModule('kvm-intel');
  hypervisor.unloadModule('kvm');
  expect(hypervisor.loaded('kvm')).toBe(false);
});

test('loading again resets the counters unless they are kept', () => {
  const { hypervisor, run, vm } = machine();
  run(exit(10), exit(10));
  expect(hypervisor.counts.snapshot()).toEqual({ 10: 2 });
  vm.destroy();
  hypervisor.unloadModule('kvm-intel');
  hypervisor.loadModule('kvm-intel', { ept: false }, { keepCounters: true });
  expect(hypervisor.counts.totalExits).toBe(2);
  hypervisor.unloadModule('kvm-intel');
  hypervisor.loadModule('kvm-intel');
  expect(hypervisor.counts.totalExits).toBe(0);
});

test('a VM needs kvm-intel, and has one vCPU', () => {
  expect(() => new Hypervisor().require()).toThrow(/kvm-intel is not loaded/);
  expect(() => machine({}, { vcpus: 2 })).toThrow(/2 vCPUs/);
});
