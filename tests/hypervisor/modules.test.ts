import { expect, test } from 'vitest';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
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
  [{ nested: true }, /'nested' can only be N here/],
])('parameters %j are refused', (params, message) => {
  expect(() => new Hypervisor().loadModule('kvm-intel', params)).toThrow(message);
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
