/** A VM on the fake port with an MMU that records what it is asked: linear = guest-physical. */

import type { EntryState } from '../../lib/hypervisor/entry-state.js';
import type { KvmMmu, PageFaultResult } from '../../lib/hypervisor/mmu/mmu.js';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { createVm, type Vm, type VmOptions } from '../../lib/hypervisor/vm.js';
import { FakePort, type Visit } from './fake-port.js';

export interface RecordingMmu extends KvmMmu {
  readonly calls: string[];
  result: PageFaultResult;
  mmio: number | undefined;
  retry: boolean;
}

export const recordingMmu = (): RecordingMmu => {
  const calls: string[] = [];
  const mmu: RecordingMmu = {
    calls,
    result: 'fixed',
    mmio: undefined,
    retry: false,
    reload: () => true,
    pageFault(address, code) {
      calls.push(`pageFault ${address.toString(16)} ${code}`);
      return mmu.result;
    },
    mmioAddress: () => mmu.mmio,
    newCr3: (flush) => calls.push(`newCr3 ${flush}`),
    invlpg: (gva) => calls.push(`invlpg ${gva.toString(16)}`),
    invpcid: (type, pcid, gva) => calls.push(`invpcid ${type} ${pcid} ${gva.toString(16)}`),
    contextReset: () => calls.push('contextReset'),
    flushGuestTlb: () => calls.push('flushGuestTlb'),
    unload: () => calls.push('unload'),
    pteWrite: (gpa, value, bytes) =>
      calls.push(`pteWrite ${gpa.toString(16)} ${value.toString(16)} ${bytes}`),
    unprotectAndRetry(gva) {
      calls.push(`unprotect ${gva.toString(16)}`);
      return mmu.retry;
    },
    faultDuringDelivery: (gva) => calls.push(`faultDuringDelivery ${gva.toString(16)}`),
    gvaToGpa: (gva) => Number(gva),
    pdptesLoaded: () => {},
    zapAll: () => {},
    pages: { shadow: 0, unsync: 0, p4k: 0, p2m: 0, p1g: 0 },
  };
  return mmu;
};

const flat = (
  selector: number,
  attr: number,
): { selector: number; base: bigint; limit: number; attr: number } => ({
  selector,
  base: 0n,
  limit: 0xffffffff,
  attr,
});

export const entryState: EntryState = {
  gprs: new Array<bigint>(16).fill(0n),
  rip: 0x1000n,
  rflags: 2,
  cr0: 0x80050033n,
  cr3: 0x9000n,
  cr4: 0x20n,
  efer: 0x500n,
  segments: {
    es: flat(0x18, 0xc093),
    cs: flat(0x10, 0xa09b),
    ss: flat(0x18, 0xc093),
    ds: flat(0x18, 0xc093),
    fs: flat(0x18, 0xc093),
    gs: flat(0x18, 0xc093),
    ldtr: flat(0, 0x10082),
    tr: { ...flat(0x20, 0x8b), limit: 0x67 },
  },
  gdtr: { base: 0x500n, limit: 0x2f },
  idtr: { base: 0n, limit: 0 },
  msrs: [],
};

export interface TestMachine {
  readonly port: FakePort;
  readonly vm: Vm;
  readonly mmu: RecordingMmu;
  readonly hypervisor: Hypervisor;
  /** Runs the given visits, then stops at the limit. */
  run(...script: Visit[]): ReturnType<Vm['run']>;
}

export const machine = (
  params: Record<string, unknown> = {},
  options: Partial<VmOptions> = {},
): TestMachine => {
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', params);
  const port = new FakePort();
  const mmu = recordingMmu();
  const vm = createVm(hypervisor, port, {
    memory: 16 << 20,
    backing: '4K',
    hostTickHz: 0,
    createMmu: () => mmu,
    ...options,
  });
  vm.loadEntry(entryState);
  mmu.calls.length = 0;
  return {
    port,
    vm,
    mmu,
    hypervisor,
    run(...script) {
      port.script = script;
      return vm.run();
    },
  };
};
