import { expect, test } from 'vitest';
import { newMsrBitmap } from '../../lib/hypervisor/controls.js';
import { VMCS } from '../../lib/vmx/port.js';
import { machine } from './machine.js';

const rows = [
  // KVM-1.1; XSAVES is dropped because the guest does not have it
  ['pinBasedControls', 0x7f, 0x7f],
  ['procBasedControls', 0xb5a06dfa, 0xb5a1effa],
  ['secondaryControls', 0x000014eb, 0x00001469],
  ['exceptionBitmap', 0x00060042, 0x00064042],
  ['exitControls', 0x002befff, 0x002befff],
  ['entryControls', 0xd3ff, 0xd3ff],
] as const;

test.each(rows)('%s with ept=1 and ept=0', (field, withEpt, without) => {
  expect(machine({ ept: true }).port.vmread32(VMCS[field]).toString(16)).toBe(withEpt.toString(16));
  expect(machine({ ept: false }).port.vmread32(VMCS[field]).toString(16)).toBe(without.toString(16));
});

test('guest-owned bits of CR0 and CR4', () => {
  const masks = (ept: boolean): string[] => {
    const { port } = machine({ ept });
    return [VMCS.cr0GuestHostMask, VMCS.cr4GuestHostMask].map((f) =>
      BigInt.asUintN(32, ~port.vmread(f)).toString(16),
    );
  };
  expect(masks(true)).toEqual(['10008', '1078e']);
  expect(masks(false)).toEqual(['8', '1070e']);
});

test('the real CR0 has paging and write protection forced on without EPT', () => {
  const { port, vm } = machine({ ept: false });
  vm.vcpu.setCr0(0x40000031);
  expect(port.vmread32(VMCS.guestCr0).toString(16)).toBe('80010031');
  expect(port.vmread32(VMCS.cr0ReadShadow).toString(16)).toBe('40000031');
});

test('x2APIC mode exchanges the APIC virtualizations and passes the TPR through', () => {
  const { port, vm } = machine();
  expect(vm.setApicBase(0xfee00d00n)).toBe(true);
  expect(port.vmread32(VMCS.secondaryControls).toString(16)).toBe('14fa');
  const bitmap = port.ram.view(port.vmreadNumber(VMCS.msrBitmap), 4096);
  expect(bitmap[0x808 >> 3] & 1).toBe(0);
});

test('the MSR bitmap intercepts all but the passthrough list', () => {
  const b = newMsrBitmap();
  const clear = (at: number): number =>
    [...b.subarray(at, at + 0x400)].reduce((n, v) => n + (v === 0xff ? 0 : 1), 0);
  expect([clear(0), clear(0x400), clear(0x800), clear(0xc00)]).toEqual([2, 1, 1, 1]);
  expect(b[0x10 >> 3] & 1).toBe(0);
  expect(b[0x800 + (0x10 >> 3)] & 1).toBe(1);
});
