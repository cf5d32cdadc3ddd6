/** VMX instructions, VM entry with injection, VM exit, and what the hypervisor sees through the port. */
import { describe, expect, test } from 'vitest';
import { deliverEvent } from '../../lib/cpu/system/events.js';
import { S } from '../../lib/isa/state.js';
import { REVISION_ID } from '../../lib/vmx/capabilities.js';
import type { FieldName } from '../../lib/vmx/fields.js';
import { ENTRY_CONTROL, EXIT, EXIT_CONTROL, PROC, SECONDARY, VMCS } from '../../lib/vmx/port.js';
import { GUEST_CR3, HANDLER, MSR_AREA, machine, STACK, VALID, VMCS_REGION, VMXON_REGION } from './machine.js';

const cpuidExit = (m: ReturnType<typeof machine>) => (): boolean => m.guest.instruction(EXIT.cpuid);

describe('VMX instructions', () => {
  test('VMPTRLD and VMCLEAR check their region', () => {
    const { vmx, ram } = machine();
    expect(vmx.vmptrld(0x1001)).toEqual({ failValid: 9 });
    expect(vmx.vmptrld(VMXON_REGION)).toEqual({ failValid: 10 });
    expect(vmx.vmptrld(0x1_8000)).toEqual({ failValid: 11 });
    expect(vmx.vmclear(8)).toEqual({ failValid: 2 });
    expect(vmx.vmclear(VMXON_REGION)).toEqual({ failValid: 3 });
    expect(vmx.vmread32(VMCS.vmInstructionError)).toBe(3);
    ram.write32(0x1_8000, REVISION_ID);
    expect(vmx.vmptrld(0x1_8000)).toBe('succeed');
    expect(vmx.vmread(VMCS.guestRip)).toBe(0n);
    expect(vmx.vmptrld(VMCS_REGION)).toBe('succeed');
    expect(vmx.vmread(VMCS.guestRip)).toBe(0x1_0000n);
  });
  test('launch state', () => {
    const m = machine();
    expect(m.vmx.enter('vmresume', 1)).toEqual({ fail: { failValid: 5 } });
    m.run(cpuidExit(m));
    expect(m.vmx.enter('vmlaunch', 1)).toEqual({ fail: { failValid: 4 } });
    m.vmx.vmclear(VMCS_REGION);
    expect(m.vmx.enter('vmlaunch', 1)).toEqual({ fail: 'fail-invalid' });
  });
  test('VMREAD in three forms; fields that do not exist, and read-only ones', () => {
    const { vmx } = machine();
    vmx.vmwriteNumber(VMCS.eptPointer, 0x12_3456_701e);
    expect(vmx.vmread(VMCS.eptPointer)).toBe(0x12_3456_701en);
    expect(vmx.vmread32(VMCS.eptPointer)).toBe(0x3456_701e);
    expect(vmx.vmreadNumber(VMCS.eptPointer)).toBe(0x12_3456_701e);
    vmx.vmwrite32(VMCS.guestCsSelector, 0x12_3456);
    expect(vmx.vmread32(VMCS.guestCsSelector)).toBe(0x3456);
    expect(() => vmx.vmread(VMCS.tscMultiplier)).toThrow('no VMCS field');
    expect(() => vmx.vmwrite32(VMCS.exitReason, 0)).toThrow('read-only');
  });
  test('INVVPID and INVEPT check their operands', () => {
    const { vmx } = machine();
    expect(vmx.invvpid(1, 0, 0n)).toEqual({ failValid: 28 });
    expect(vmx.invvpid(0, 1, 0x8000_0000_0000n)).toEqual({ failValid: 28 });
    expect(vmx.invvpid(0, 1, 0xffff_8000_0000_0000n)).toBe('succeed');
    expect(vmx.invept(1, 0n)).toEqual({ failValid: 28 });
    expect(vmx.invept(2, 0n)).toBe('succeed');
  });
});

describe('VM entry and exit', () => {
  test('the guest state is the processor state while live', () => {
    const m = machine();
    m.run(() => {
      expect([m.cpu.rip, m.cpu.gpr(4), m.cpu.get64(S.cr3)]).toEqual([0x1_0000n, STACK, BigInt(GUEST_CR3)]);
      expect([m.cpu.get32(S.mode), m.cpu.get32(S.cpl), m.cpu.get32(S.stackSize)]).toEqual([64, 0, 64]);
      m.cpu.set64(S.rip, 0x1_0100n);
      return m.guest.instruction(EXIT.cpuid);
    });
    expect(m.read('guestRip')).toBe(0x1_0100n);
    m.vmx.vmwrite(VMCS.guestRip, 0x1_0102n);
    expect(m.cpu.rip).toBe(0x1_0102n);
    expect(m.cpu.guest).toBeUndefined();
    m.ram.write32(0x1_8000, REVISION_ID);
    m.vmx.vmptrld(0x1_8000);
    m.cpu.set64(S.rip, 0n);
    m.vmx.vmptrld(VMCS_REGION);
    expect(m.read('guestRip')).toBe(0x1_0102n);
    m.run(() => {
      expect(m.cpu.rip).toBe(0x1_0102n);
      return m.guest.instruction(EXIT.cpuid);
    });
  });

  test('a linear address goes through both tables, and a missing page exits with 48', () => {
    const m = machine();
    m.ram.write64(0x1_1008, 0x20_0083n); // the second 2 MiB exist for the guest only
    m.run(() => {
      expect(m.mmu.access(0x1_0008, 0, 4, 0)).toBe(m.ram.base + 0x1_0008);
      expect(m.vmx.walks.walks2d).toBeGreaterThan(0);
      return m.mmu.access(0x20_0123, 0, 4, 1) === -1;
    });
    expect(m.read('exitReason')).toBe(48n);
    expect(m.read('guestPhysicalAddress')).toBe(0x20_0123n);
    expect(m.read('guestLinearAddress')).toBe(0x20_0123n);
    expect(m.read('exitQualification') & 0x83n).toBe(0x82n);
  });

  test.each([
    ['external interrupt', 0x8000_0020n, {}, 0x1_0000n, undefined],
    ['#PF with its code', 0x8000_0b0en, { entryExceptionErrorCode: 2n }, 0x1_0000n, 2n],
    ['INT n behind the instruction', 0x8000_0480n, { entryInstructionLength: 2n }, 0x1_0002n, undefined],
    ['INT3 behind the instruction', 0x8000_0603n, { entryInstructionLength: 1n }, 0x1_0001n, undefined],
    ['NMI', 0x8000_0202n, {}, 0x1_0000n, undefined],
  ] as const)('injection: %s', (_, info, more, returnRip, code) => {
    const m = machine();
    m.cpu.set64(S.cr2, 0x77n);
    m.set({ entryInterruptionInfo: info, exceptionBitmap: 0xffff_ffffn, ...more });
    m.run(() => {
      expect(m.cpu.rip).toBe(HANDLER);
      const words = code === undefined ? 5n : 6n;
      expect(m.cpu.gpr(4)).toBe(STACK - 8n * words);
      const frame = Number(STACK - 8n * words);
      if (code !== undefined) expect(m.ram.read64(frame)).toBe(code);
      expect(m.ram.read64(frame + (code === undefined ? 0 : 8))).toBe(returnRip);
      expect(m.cpu.get64(S.cr2)).toBe(0x77n);
      return m.guest.instruction(EXIT.cpuid);
    });
    expect(m.read('entryInterruptionInfo')).toBe(info & 0x7fff_ffffn);
    expect(m.read('idtVectoringInfo')).toBe(0n);
    expect(m.read('guestInterruptibilityState')).toBe(info === 0x8000_0202n ? 8n : 0n);
  });

  test('a fault during injection exits with IDT-vectoring information', () => {
    const m = machine();
    // the stack is not mapped
    m.set({
      entryInterruptionInfo: 0x8000_0b0dn,
      entryExceptionErrorCode: 0x10n,
      exceptionBitmap: 0x4000n,
      guestRsp: 0x4000_0000n,
    });
    expect(m.vmx.enter('vmlaunch', 1)).toEqual({ exit: 0 });
    expect(m.read('exitInterruptionInfo')).toBe(0x8000_0b0en);
    expect(m.read('exitQualification')).toBe(
      0x3fff_fff8n - ((0x3fff_fff8n - m.read('exitQualification')) % 0x1000n),
    );
    expect(m.read('idtVectoringInfo')).toBe(0x8000_0b0dn);
    expect(m.read('idtVectoringErrorCode')).toBe(0x10n);
    expect(m.read('guestRip')).toBe(0x1_0000n);
    expect(m.read('guestRsp')).toBe(0x4000_0000n);
    expect(m.read('entryInterruptionInfo')).toBe(0x0b0dn);
  });

  test('an exit that the event itself causes has none', () => {
    const m = machine();
    m.set({ exceptionBitmap: 0x40n });
    m.run(
      () =>
        !deliverEvent(
          m.cpu,
          { vector: 6, type: 3, code: -1, address: 0n, length: 0, injected: false },
          m.cpu.rip,
        ),
    );
    expect(m.read('idtVectoringInfo')).toBe(0n);
  });

  test('a failed entry names its rule and changes nothing else', () => {
    const m = machine();
    m.set({ guestRip: 0x8000_0000_0000n });
    expect(m.vmx.enter('vmlaunch', 1)).toEqual({ exit: 0x8000_0021 });
    expect(m.read('exitReason')).toBe(0x8000_0021n);
    expect(m.vmx.describeVmcs()).toContain('guestRip.canonical');
    m.set({ guestRip: 0x1_0000n, vmcsLinkPointer: 0x10n });
    expect(m.vmx.enter('vmlaunch', 1)).toEqual({ exit: 0x8000_0021 });
    expect(m.read('exitQualification')).toBe(4n);
    m.set({ vmcsLinkPointer: 0xffff_ffff_ffff_ffffn, hostRip: 0x8000_0000_0000n });
    expect(m.vmx.enter('vmlaunch', 1)).toEqual({ fail: { failValid: 8 } });
    m.set({ hostRip: 0n, virtualProcessorId: 0n });
    expect(m.vmx.enter('vmlaunch', 1)).toEqual({ fail: { failValid: 7 } });
    m.set({ virtualProcessorId: 3n });
    m.run(cpuidExit(m));
    expect(m.vmx.describeVmcs()).not.toContain('failed');
    expect(m.vmx.describeVmcs()).toContain('Unrestricted guest');
  });

  test('MSR lists: load at entry, store at exit, and a bad entry', () => {
    const m = machine();
    m.ram.write64(MSR_AREA, 0xc000_0102n);
    m.ram.write64(MSR_AREA + 8, 0x1234n);
    m.set({ entryMsrLoadCount: 1n, exitMsrStoreAddress: BigInt(MSR_AREA + 0x100), exitMsrStoreCount: 1n });
    m.ram.write64(MSR_AREA + 0x100, 0xc000_0102n);
    m.run(() => {
      expect(m.cpu.get64(S.kernelGsBase)).toBe(0x1234n);
      m.cpu.set64(S.kernelGsBase, 0x5678n);
      return m.guest.instruction(EXIT.cpuid);
    });
    expect(m.ram.read64(MSR_AREA + 0x108)).toBe(0x5678n);
    m.set({ entryMsrLoadCount: 2n });
    m.ram.write64(MSR_AREA + 16, 0xc000_0100n);
    expect(m.vmx.enter('vmresume', 1)).toEqual({ exit: 0x8000_0022 });
    expect(m.read('exitQualification')).toBe(2n);
    expect(m.vmx.describeVmcs()).toContain('msrLoad.bases');
  });

  test('EFER, PAT and debug controls by their load and save controls', () => {
    const m = machine();
    const save = EXIT_CONTROL.saveEfer | EXIT_CONTROL.savePat | EXIT_CONTROL.savePreemptionTimer;
    m.set({
      guestDebugctl: 1n,
      guestDr7: 0x401n,
      exitControls: (VALID.exitControls ?? 0n) | BigInt(save),
      vmxPreemptionTimerValue: 10n,
    });
    m.run(() => {
      expect([m.cpu.get64(S.debugctl), m.cpu.get64(S.dr7)]).toEqual([1n, 0x401n]);
      m.cpu.set64(S.dr7, 0x402n);
      m.cpu.set64(S.efer, 0x501n);
      m.cpu.set64(S.pat, 6n);
      m.cpu.extraCycles += 64;
      return m.guest.instruction(EXIT.cpuid);
    });
    expect(
      ['guestDr7', 'guestEfer', 'guestPat', 'vmxPreemptionTimerValue'].map((f) => m.read(f as FieldName)),
    ).toEqual([0x402n, 0x501n, 6n, 8n]);
    expect(m.vmx.rdmsr(0xc000_0080)).toBe(0xd01n);
    m.set({ entryControls: (VALID.entryControls ?? 0n) & ~BigInt(ENTRY_CONTROL.loadEfer) });
    m.vmx.wrmsr(0xc000_0080, 0x501n);
    m.run(() => {
      expect(m.cpu.get64(S.efer)).toBe(0x501n);
      return m.guest.instruction(EXIT.cpuid);
    });
  });

  test('a limit is no exit: the next call goes on, and an injected event is not injected twice', () => {
    const m = machine();
    m.set({ entryInterruptionInfo: 0x8000_0020n, vmxPreemptionTimerValue: 4n });
    expect(m.run(() => 'limit')).toEqual({ limit: true });
    const rsp = m.cpu.gpr(4);
    const deadline = m.guest.deadline();
    m.cpu.extraCycles += 40;
    m.run(() => {
      expect(m.guest.deadline()).toBe(deadline);
      return 'limit';
    });
    m.set({
      tscOffset: 7n,
      procBasedControls: (VALID.procBasedControls ?? 0n) | BigInt(PROC.useTscOffsetting),
    });
    m.run(() => {
      expect(m.guest.tscOffset).toBe(7n);
      expect(m.cpu.gpr(4)).toBe(rsp);
      return m.guest.instruction(EXIT.cpuid);
    });
  });

  test('without VPIDs each entry starts with an empty TLB', () => {
    const m = machine();
    m.set({ secondaryControls: (VALID.secondaryControls ?? 0n) & ~BigInt(SECONDARY.enableVpid) });
    const touch = (): boolean => {
      m.mmu.access(0x1_0000, 0, 4, 0);
      return m.guest.instruction(EXIT.cpuid);
    };
    m.run(touch);
    m.run(touch);
    expect(m.vmx.walks.walks2d).toBe(2);
    m.set({ secondaryControls: VALID.secondaryControls ?? 0n });
    m.run(touch);
    m.run(touch);
    expect(m.vmx.walks.walks2d).toBe(3);
  });

  test('RFLAGS.RF is seen by the hypervisor and gone in the guest', () => {
    const m = machine();
    m.set({ guestRflags: 0x1_0202n });
    m.run(() => {
      expect(m.cpu.get32(S.eflags)).toBe(0x202);
      return m.guest.instruction(EXIT.cpuid);
    });
    expect(m.read('guestRflags')).toBe(0x202n);
  });
});

test('time and counts', () => {
  const { vmx, cpu } = machine();
  vmx.retire(5);
  vmx.charge(1000);
  expect([vmx.retired(), vmx.rdtsc(), cpu.tsc(), vmx.rdmsr(0x10)]).toEqual([5, 1005, 1005, 1005n]);
  expect(vmx.rdmsr(0x480) & 0xffff_ffffn).toBe(BigInt(REVISION_ID));
  expect(() => vmx.rdmsr(0x1234)).toThrow('does not exist');
});
