import { expect, test } from 'vitest';
import { PROC, VMCS } from '../../lib/vmx/port.js';
import { exit, type Visit } from './fake-port.js';
import { machine, type TestMachine } from './machine.js';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const GP = 0x80000b0d;
const UD = 0x80000306;
const rip = (m: TestMachine): number => m.port.vmreadNumber(VMCS.guestRip);
/** The event written for the next entry. */
const injected = (m: TestMachine): number => {
  let info = 0;
  m.port.script = [
    (port) => {
      info = port.vmread32(VMCS.entryInterruptionInfo);
      return { limit: true };
    },
  ];
  m.vm.run();
  return info;
};
const after = (
  visit: Visit,
  setup: (m: TestMachine) => void = () => {},
  params = {},
  options = {},
): TestMachine & { info: number } => {
  const m = machine(params, options);
  setup(m);
  let info = 0;
  m.run(visit, (port) => {
    info = port.vmread32(VMCS.entryInterruptionInfo);
    return { limit: true };
  });
  return { ...m, info };
};
const cr = (number: number, access: number, gpr = 0): Record<number, number> => ({
  [VMCS.exitQualification]: number | (access << 4) | (gpr << 8),
});
const set = (gpr: number, value: bigint) => (m: TestMachine) => m.port.registers.setGpr(gpr, value);

test.each([
  ['a plain load flushes', { ept: false }, 0x5000n, 'newCr3 true', 0x5000],
  ['bit 63 without PCIDE is an address bit', { ept: false }, 0x8000000000005000n, undefined, 0x9000],
])('MOV to CR3: %s', (_name, params, value, call, cr3) => {
  const m = after(exit(28, cr(3, 0)), set(RAX, value), params);
  expect(m.mmu.calls).toEqual(call === undefined ? [] : [call]);
  expect(m.vm.vcpu.cr3).toBe(cr3);
  expect(m.info).toBe(call === undefined ? GP : 0);
  expect(rip(m)).toBe(call === undefined ? 0x1000 : 0x1002);
});

test('MOV to CR3 with PCIDE: bit 63 keeps the TLB and is not part of the value', () => {
  const m = after(
    exit(28, cr(3, 0)),
    (t) => {
      t.vm.vcpu.setCr4(0x20020);
      t.port.registers.setGpr(RAX, 0x8000000000005001n);
    },
    { ept: false },
  );
  expect(m.mmu.calls).toEqual(['newCr3 false']);
  expect(m.vm.vcpu.cr3).toBe(0x5001);
});

test('MOV from CR3 gives the guest value', () => {
  const m = after(exit(28, cr(3, 1, RDX)), () => {}, { ept: false });
  expect(m.port.registers.gpr(RDX)).toBe(0x9000n);
});

test.each([
  ['toggling PGE flushes', 0x20n | 0x80n, ['flushGuestTlb'], true],
  ['setting PCIDE drops all roots', 0x20n | 0x20000n, ['unload'], true],
  ['setting SMEP changes the role', 0x20n | 0x100000n, ['contextReset'], true],
  ['clearing PAE in long mode is refused', 0n, [], false],
  ['VMXE is not offered', 0x20n | 0x2000n, [], false],
])('MOV to CR4: %s', (_name, value, calls, ok) => {
  const m = after(exit(28, cr(4, 0)), set(RAX, value), { ept: false });
  expect(m.mmu.calls).toEqual(calls);
  expect(m.info).toBe(ok ? 0 : GP);
});

test.each([
  ['CD alone does nothing to the MMU', 0xc0050033n, [], true],
  ['clearing WP changes the role', 0x80040033n, ['contextReset'], true],
  ['NW without CD', 0xa0050033n, [], false],
  ['a bit above 31', 0x180050033n, [], false],
  ['clearing PG in 64-bit code', 0x50033n, [], false],
])('MOV to CR0: %s', (_name, value, calls, ok) => {
  const m = after(exit(28, cr(0, 0)), set(RAX, value), { ept: false });
  expect(m.mmu.calls).toEqual(calls);
  expect(m.info).toBe(ok ? 0 : GP);
});

test('CLTS and LMSW', () => {
  const clts = after(exit(28, cr(0, 2)), (m) => m.vm.vcpu.setCr0(0x8005003b));
  expect(clts.vm.vcpu.cr0.toString(16)).toBe('80050033');
  const lmsw = after(exit(28, { [VMCS.exitQualification]: (3 << 4) | (0xa << 16) }));
  expect(lmsw.vm.vcpu.cr0.toString(16)).toBe('8005003b');
});

test('MOV DR: the first access stops exiting, the next exit takes the registers back (KVM-1.2)', () => {
  const exits = (port: TestMachine['port']): boolean =>
    (port.vmread32(VMCS.procBasedControls) & PROC.movDrExiting) !== 0;
  const seen: boolean[] = [];
  const m = machine();
  const watch =
    (visit: Visit): Visit =>
    (port) => {
      seen.push(exits(port));
      return visit(port);
    };
  m.run(watch(exit(29)), watch(exit(10)), watch(exit(10)));
  expect(seen).toEqual([true, false, true]);
  expect(rip(m)).toBe(0x1004);
});

test.each([
  ['RDMSR of EFER', 31, 0xc0000080, [0x500, 0]],
  ['RDMSR of MTRRcap', 31, 0xfe, [0x508, 0]],
  ['RDMSR of IA32_BIOS_SIGN_ID', 31, 0x8b, [0, 1]],
])('%s', (_name, reason, msr, value) => {
  const m = after(exit(reason), set(RCX, BigInt(msr)));
  expect([m.port.registers.gpr32(RAX), m.port.registers.gpr32(RDX)]).toEqual(value);
});

test('an unknown MSR is #GP and a line in the log; with ignore_msrs it reads 0', () => {
  const m = after(exit(31), set(RCX, 0x492n));
  expect(m.info).toBe(GP);
  expect(m.hypervisor.log.text()).toBe('kvm: vcpu0, guest rIP: 0x1000 unhandled rdmsr: 0x492');
  expect(rip(m)).toBe(0x1000);
});

test('paravirtual MSRs exist while their feature is offered', () => {
  const steal = (m: TestMachine): void => {
    m.port.registers.setGpr(RCX, 0x4b564d03n);
    m.port.registers.setGpr(RAX, 0x8001n);
    m.port.registers.setGpr(RDX, 0n);
  };
  expect(after(exit(32), steal).info).toBe(GP);
  expect(after(exit(32), steal, {}, { stealTime: true }).info).toBe(0);
  expect(after(exit(32), steal, {}, { stealTime: true, timeModel: 'instructions' }).info).toBe(GP);
});

test('kvmclock: the page holds TSC, time, scale and the stable bit', () => {
  const m = after(exit(32), (t) => {
    t.port.registers.setGpr(RCX, 0x4b564d01n);
    t.port.registers.setGpr(RAX, 0x8001n);
  });
  const page = new DataView(m.vm.slots.bytes(0x8000, 32).buffer);
  const tsc = page.getBigUint64(8, true);
  expect(tsc).toBe(10n + 1600n);
  expect(page.getBigUint64(16, true)).toBe((tsc * 5n) / 2n);
  expect([page.getUint32(24, true), page.getInt8(28), page.getUint8(29)]).toEqual([0xa0000000, 2, 1]);
});

test.each([
  [0x3f8, 1, 1],
  [0x21, 1, 0],
])('OUT to port 0x%s: user space %i', (port, size, user) => {
  const m = after(exit(30, { [VMCS.exitQualification]: (port << 16) | (size - 1) }));
  expect(m.vm.stats).toMatchObject({ io_exits: 1, fpu_reload: user });
  expect(rip(m)).toBe(0x1002);
});

test('IN keeps the rest of RAX, REP OUTSB goes through the string', () => {
  const input = after(
    exit(30, { [VMCS.exitQualification]: (0x80 << 16) | 8 }),
    set(RAX, 0x1122334455667700n),
  );
  expect(input.port.registers.gpr(RAX)).toBe(0x11223344556677ffn);

  const text: number[] = [];
  const m = machine({}, { board: { onConsole: (b) => text.push(b) } });
  m.vm.load(0x2000, new TextEncoder().encode('hello'));
  m.port.registers.setGpr(6, 0x2000n);
  m.port.registers.setGpr(RCX, 5n);
  m.run(
    exit(
      30,
      { [VMCS.exitQualification]: (0x3f8 << 16) | 0x30, [VMCS.exitInstructionInfo]: (2 << 7) | (3 << 15) },
      0,
    ),
  );
  expect(String.fromCharCode(...text)).toBe('hello');
  expect([m.port.registers.gpr(6), m.port.registers.gpr(RCX), m.port.instructions]).toEqual([0x2005n, 0n, 5]);
});

test('power-off and reset end the run, and the guest state is behind the instruction', () => {
  const m = machine();
  m.port.registers.setGpr(RAX, 0x3400n);
  expect(m.run(exit(30, { [VMCS.exitQualification]: (0x604 << 16) | 1 }))).toEqual({ kind: 'poweroff' });
  expect(rip(m)).toBe(0x1002);
  m.port.registers.setGpr(RAX, 0xfen);
  expect(m.run(exit(30, { [VMCS.exitQualification]: 0x64 << 16 }))).toEqual({ kind: 'reset' });
});

test.each([
  ['fixed', ['pageFault 7000 2'], { pf_taken: 1, pf_fixed: 1, pf_emulate: 0 }],
  ['spurious', ['pageFault 7000 2'], { pf_taken: 1, pf_spurious: 1, pf_fixed: 0 }],
  ['retry', ['pageFault 7000 2'], { pf_taken: 1, pf_fixed: 0 }],
] as const)('a #PF exit that is %s', (result, calls, stats) => {
  const pf = exit(0, {
    [VMCS.exitInterruptionInfo]: 0x80000b0e,
    [VMCS.exitInterruptionErrorCode]: 2,
    [VMCS.exitQualification]: 0x7000,
  });
  const m = after(
    pf,
    (t) => {
      t.mmu.result = result;
    },
    { ept: false },
  );
  expect(m.mmu.calls).toEqual(calls);
  expect(m.vm.stats).toMatchObject(stats);
  expect(rip(m)).toBe(0x1000);
});

/** mov [rdi], rax */
const STORE = [0x48, 0x89, 0x07];
const storeFault = exit(0, {
  [VMCS.exitInterruptionInfo]: 0x80000b0e,
  [VMCS.exitInterruptionErrorCode]: 3,
  [VMCS.exitQualification]: 0x7000,
});

test('a store to a page table is emulated and reported to the MMU', () => {
  const m = after(
    storeFault,
    (t) => {
      t.mmu.result = 'emulate';
      t.vm.load(0x1000, new Uint8Array(STORE));
      t.port.registers.setGpr(7, 0x7000n);
      t.port.registers.setGpr(RAX, 0x1122334455667788n);
    },
    { ept: false },
  );
  expect(m.mmu.calls).toEqual(['pageFault 7000 3', 'pteWrite 7000 1122334455667788 8']);
  expect(m.vm.readPhysical(0x7000, 8)).toBe(0x1122334455667788n);
  expect([rip(m), m.vm.stats.insn_emulation, m.port.instructions]).toEqual([0x1003, 1, 11]);
});

test('rep stosq is no page-table write: unshadow and retry; when that is refused, one iteration after the other', () => {
  const setup =
    (retry: boolean) =>
    (t: TestMachine): void => {
      t.mmu.result = 'emulate';
      t.mmu.retry = retry;
      t.vm.load(0x1000, new Uint8Array([0xf3, 0x48, 0xab]));
      t.port.registers.setGpr(7, 0x7000n);
      t.port.registers.setGpr(RCX, 3n);
    };
  const retried = after(storeFault, setup(true), { ept: false });
  expect(retried.mmu.calls).toEqual(['pageFault 7000 3', 'unprotect 7000']);
  expect([rip(retried), retried.vm.stats.insn_emulation]).toEqual([0x1000, 1]);
  const emulated = after(storeFault, setup(false), { ept: false });
  expect(emulated.mmu.calls.slice(2)).toEqual([
    'pteWrite 7000 0 8',
    'pteWrite 7008 0 8',
    'pteWrite 7010 0 8',
  ]);
  expect([rip(emulated), emulated.port.registers.gpr(RCX), emulated.port.instructions]).toEqual([
    0x1003,
    0n,
    13,
  ]);
});

test('MMIO through a misconfiguration reads the I/O APIC', () => {
  const m = after(exit(49, { [VMCS.guestPhysicalAddress]: 0xfec00010 }), (t) => {
    t.mmu.mmio = 0xfec00010;
    // mov eax, [rdi]
    t.vm.load(0x1000, new Uint8Array([0x8b, 0x07]));
    t.port.registers.setGpr(7, 0xfec00010n);
    t.port.registers.setGpr(RAX, -1n);
  });
  expect(m.port.registers.gpr(RAX)).toBe(0n);
  expect(m.mmu.calls).toEqual([]);
  expect(m.vm.stats).toMatchObject({ pf_taken: 0, insn_emulation: 1, mmio_exits: 0 });
});

test('an EPT violation carries its access in the error code', () => {
  const m = after(exit(48, { [VMCS.guestPhysicalAddress]: 0x7123, [VMCS.exitQualification]: 0x182 }));
  expect(m.mmu.calls).toEqual(['pageFault 7123 2']);
});

test.each([
  ['type 4', 4n, 0n, 0n, GP],
  ['reserved descriptor bits', 0n, 0x1000n, 0n, GP],
  ['a PCID without PCIDE', 1n, 5n, 0n, GP],
  ['a non-canonical address', 0n, 0n, 1n << 50n, GP],
  ['all contexts', 2n, 0n, 0n, 0],
])('INVPCID: %s', (_name, type, low, linear, info) => {
  const m = after(
    exit(58, { [VMCS.exitInstructionInfo]: (2 << 28) | (1 << 22) | (7 << 23) | (2 << 7) }),
    (t) => {
      t.vm.writePhysical(0x7000, 8, low);
      t.vm.writePhysical(0x7008, 8, linear);
      t.mmu.calls.length = 0;
      t.port.registers.setGpr(RDX, type);
      t.port.registers.setGpr(7, 0x7000n);
    },
    { ept: false },
  );
  expect(m.info).toBe(info);
  expect(m.mmu.calls).toEqual(info === 0 ? ['invpcid 2 0 0'] : []);
});

test('INVLPG tells the MMU the address', () => {
  const m = after(exit(14, { [VMCS.exitQualification]: 0xffff888000001000n }), () => {}, { ept: false });
  expect(m.mmu.calls).toEqual(['invlpg ffff888000001000']);
  expect(m.vm.stats.invlpg).toBe(1);
});

test.each([
  ['VMXON', 27, UD],
  ['VMFUNC', 59, UD],
  ['RDPMC', 15, GP],
  ['WBINVD', 54, 0],
  ['MWAIT', 36, 0],
])('%s', (_name, reason, info) => {
  expect(after(exit(reason)).info).toBe(info);
});

test('XSETBV takes what CPUID offers', () => {
  const x = (value: bigint): TestMachine & { info: number } => after(exit(55), set(RAX, value));
  expect([x(7n).port.registers.xcr0, x(7n).info, x(6n).info, x(9n).info]).toEqual([7n, 0, GP, GP]);
});

test('VMCALL answers -KVM_ENOSYS', () => {
  expect(after(exit(18)).port.registers.gpr(RAX)).toBe(BigInt.asUintN(64, -1000n));
});

test('PAUSE doubles the window up to its limit', () => {
  const m = machine({ ple_window_max: 10000 });
  m.run(exit(40));
  expect(m.port.vmread32(VMCS.pleWindow)).toBe(8192);
  m.run(exit(40), exit(40));
  expect(m.port.vmread32(VMCS.pleWindow)).toBe(10000);
});

test('a triple fault and an exit without handler end the run', () => {
  expect(machine().run(exit(2)).kind).toBe('triple-fault');
  expect(machine().run(exit(64))).toMatchObject({
    kind: 'emulation-failure',
    detail: expect.stringContaining('XRSTORS'),
  });
});

test('a failed entry ends the run with the VMCS as text', () => {
  const m = machine();
  expect(m.run(() => ({ exit: 0x80000021 }))).toEqual({ kind: 'entry-failure', detail: 'the VMCS' });
  expect(m.hypervisor.counts.snapshot()).toEqual({ 33: 1 });
  expect(machine().run(() => ({ fail: { failValid: 7 } })).kind).toBe('entry-failure');
});

test('nothing is injected twice', () => {
  const m = machine();
  m.run(exit(27));
  expect(injected(m) & 0x80000000).toBe(0);
});
