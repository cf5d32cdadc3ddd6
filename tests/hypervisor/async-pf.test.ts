import { expect, test } from 'vitest';
import { writeMsr } from '../../lib/hypervisor/msr.js';
import { VMCS } from '../../lib/vmx/port.js';
import { exit } from './fake-port.js';
import { machine } from './machine.js';

const ENABLE = 0x4b564d02;
const INTERRUPT = 0x4b564d06;
const AREA = 0x8000;
const X2APIC_SPURIOUS = 0x80f;

test('without an enabled local APIC the event is never taken, and HLT never blocks', () => {
  const m = machine({}, { asyncPf: true });
  expect(writeMsr(m.vm.vcpu, ENABLE, BigInt(AREA | 9))).toBe(true);
  m.run(exit(12), exit(12), exit(12), () => ({ limit: true }));
  expect(m.vm.stats.halt_exits).toBe(3);
  expect(m.vm.vcpu.asyncPfDone).toBe(true);
});

test('with one, it is an interrupt and a token, once', () => {
  const m = machine({}, { asyncPf: true });
  const { vcpu, board } = m.vm;
  writeMsr(vcpu, 0x1b, BigInt(board.lapic.apicBase()) | 0xc00n);
  writeMsr(vcpu, X2APIC_SPURIOUS, 0x1ffn);
  writeMsr(vcpu, INTERRUPT, 0xf3n);
  writeMsr(vcpu, ENABLE, BigInt(AREA | 9));
  m.port.vmwrite32(VMCS.guestRflags, 0x202);
  const events: string[] = [];
  m.run((port) => {
    events.push(port.vmread32(VMCS.entryInterruptionInfo).toString(16));
    return { limit: true };
  });
  expect(events).toEqual(['800000f3']);
  expect([...m.vm.slots.bytes(AREA, 8)]).toEqual([0, 0, 0, 0, 255, 255, 255, 255]);
  expect(vcpu.asyncPfDone).toBe(false);
});

test.each([
  ['reserved bits', 0x30n, false],
  ['switched off', 0n, true],
])('%s', (_name, value, ok) => {
  const m = machine({}, { asyncPf: true });
  expect(writeMsr(m.vm.vcpu, ENABLE, value)).toBe(ok);
  expect(m.vm.vcpu.asyncPfDone).toBe(false);
});
