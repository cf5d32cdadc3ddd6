import { expect, test } from 'vitest';
import { TRACE_NAMES, TRACEPOINTS } from '../../lib/hypervisor/trace-rows.js';
import { Tracer } from '../../lib/hypervisor/tracer.js';
import { EXIT, VMCS } from '../../lib/vmx/port.js';
import { machine } from './machine.js';

test('KVM-8.2: every tracepoint of KVM and its MMU has a row', () => {
  expect(TRACE_NAMES.filter((n) => TRACEPOINTS[n].system === 'kvm')).toHaveLength(30);
  expect(TRACE_NAMES.filter((n) => TRACEPOINTS[n].system === 'kvmmmu')).toHaveLength(18);
});

test('a sink exists only while somebody listens', () => {
  const trace = new Tracer({ cycles: () => 7, instructions: () => 3 });
  expect(Object.values(trace.sinks).every((s) => s === undefined)).toBe(true);
  const got: unknown[] = [];
  const off = trace.on('kvm_cr', (e) => got.push(e));
  const second = trace.on('kvm_cr', () => got.push('second'));
  trace.sinks.kvm_cr?.({ rw: 1, cr: 3, val: 5n });
  expect(got).toEqual([{ name: 'kvm_cr', cycles: 7, instructions: 3, rw: 1, cr: 3, val: 5n }, 'second']);
  off();
  off();
  trace.sinks.kvm_cr?.({ rw: 0, cr: 3, val: 5n });
  expect(got).toHaveLength(3);
  second();
  expect(trace.sinks.kvm_cr).toBeUndefined();
});

test('one function may listen twice, and each is taken off by itself', () => {
  const trace = new Tracer();
  let n = 0;
  const count = (): void => {
    n++;
  };
  const off = trace.on('kvm_eoi', count);
  trace.on('kvm_eoi', count);
  trace.sinks.kvm_eoi?.({ apicid: 0, vector: 48 });
  off();
  trace.sinks.kvm_eoi?.({ apicid: 0, vector: 48 });
  expect(n).toBe(3);
});

test('an unknown event is refused with the list, a listener that is none by name', () => {
  const trace = new Tracer();
  expect(() => trace.on('kvm_exits' as never, () => {})).toThrow(
    /no event 'kvm_exits' \(one of kvm_entry, kvm_exit, .*kvm_mmu_split_huge_page\)/,
  );
  expect(() => trace.on('toString' as never, () => {})).toThrow(/no event 'toString'/);
  expect(() => trace.on('kvm_exit', 5 as never)).toThrow('the listener of kvm_exit is not a function');
});

test('kvm_exit and kvm_entry carry what KVM gives them', () => {
  const m = machine({ ept: false });
  const lines: string[] = [];
  m.vm.trace.on('kvm_exit', (e) => {
    expect(e.cpu.field('exitReason')).toBe(0n);
    lines.push(`${e.name}: ${TRACEPOINTS.kvm_exit.text(e)}`);
  });
  m.vm.trace.on('kvm_entry', (e) => lines.push(`${e.name}: ${TRACEPOINTS.kvm_entry.text(e)}`));
  m.vm.trace.on('kvm_page_fault', (e) => lines.push(`${e.name}: ${TRACEPOINTS.kvm_page_fault.text(e)}`));
  m.run((p) => {
    p.vmwrite(VMCS.exitReason, 0n);
    p.vmwrite(VMCS.exitInterruptionInfo, 0x80000b0en);
    p.vmwrite(VMCS.exitInterruptionErrorCode, 6n);
    p.vmwrite(VMCS.exitQualification, 0x7fffdeadn);
    p.vmwrite(VMCS.idtVectoringInfo, 0x80000030n);
    return { exit: EXIT.exceptionOrNmi };
  });
  expect(lines).toEqual([
    'kvm_entry: vcpu 0, rip 0x1000',
    'kvm_exit: vcpu 0 reason EXCEPTION_NMI rip 0x1000 info1 0x000000007fffdead info2 0x0000000080000030 intr_info 0x80000b0e error_code 0x00000006',
    'kvm_page_fault: vcpu 0 rip 0x1000 address 0x000000007fffdead error_code 0x6',
    'kvm_entry: vcpu 0, rip 0x1000',
  ]);
});

test('the processor of an event can be read in its listener only', () => {
  const m = machine();
  const kept: { rip: bigint; late: () => bigint }[] = [];
  m.vm.trace.on('kvm_exit', (e) => {
    kept.push({ rip: e.cpu.field('guestRip'), late: () => e.cpu.gpr(0) });
    expect(e.cpu.guest.cr3).toBe(0x9000);
  });
  m.run(() => ({ exit: EXIT.wbinvd }));
  expect(kept[0]?.rip).toBe(0x1000n);
  expect(() => kept[0]?.late()).toThrow('read it in the listener, and keep the values');
});

test('what a listener throws reaches the caller of run', () => {
  const m = machine();
  m.vm.trace.on('kvm_exit', () => {
    throw new Error('mine');
  });
  expect(() => m.run(() => ({ exit: EXIT.wbinvd }))).toThrow('mine');
});
