/** What exits in VMX non-root operation, and with which information. */
import { describe, expect, test } from 'vitest';
import type { IoAccess, PendingEvent } from '../../lib/cpu/core.js';
import { LEAVE, S } from '../../lib/isa/state.js';
import type { FieldName } from '../../lib/vmx/fields.js';
import { EXIT, PROC, SECONDARY } from '../../lib/vmx/port.js';
import { IO_BITMAP, type Machine, MSR_BITMAP, machine, VALID, VIRTUAL_APIC } from './machine.js';

const proc = (mask: number): bigint => ((VALID.procBasedControls ?? 0n) | BigInt(mask)) & ~0n;
const without = (name: FieldName, mask: number): bigint => (VALID[name] ?? 0n) & ~BigInt(mask);
const secondary = (mask: number): bigint => (VALID.secondaryControls ?? 0n) | BigInt(mask);
const io = (port: number, rest: Partial<IoAccess> = {}): IoAccess => ({
  port,
  size: 1,
  input: false,
  string: false,
  rep: false,
  immediate: false,
  linear: 0n,
  segment: 3,
  addressSize: 64,
  ...rest,
});
const event = (
  vector: number,
  type: PendingEvent['type'],
  code = -1,
  address = 0n,
  length = 0,
): PendingEvent => ({
  vector,
  type,
  code,
  address,
  length,
  injected: false,
});
type Fields = Partial<Record<FieldName, bigint>>;

interface Row {
  readonly says: string;
  readonly controls?: Fields;
  readonly setup?: (m: Machine) => void;
  readonly does: (m: Machine) => boolean;
  /** Exit reason and the fields checked, or undefined for no exit. */
  readonly exit?: number;
  readonly fields?: Fields;
}

const ROWS: readonly Row[] = [
  {
    says: 'CPUID always',
    does: (m) => m.guest.instruction(EXIT.cpuid),
    exit: 10,
    fields: { exitInstructionLength: 2n },
  },
  { says: 'HLT without the control', does: (m) => m.guest.instruction(EXIT.hlt) },
  {
    says: 'HLT with the control',
    controls: { procBasedControls: proc(PROC.hltExiting) },
    does: (m) => m.guest.instruction(EXIT.hlt),
    exit: 12,
  },
  {
    says: 'INVLPG with its address',
    controls: { procBasedControls: proc(PROC.invlpgExiting) },
    does: (m) => m.guest.instruction(EXIT.invlpg, 0x1234n),
    exit: 14,
    fields: { exitQualification: 0x1234n },
  },
  { says: 'INVLPG without the control', does: (m) => m.guest.instruction(EXIT.invlpg, 0x1234n) },
  {
    says: 'WBINVD',
    controls: { secondaryControls: secondary(SECONDARY.wbinvdExiting) },
    does: (m) => m.guest.instruction(EXIT.wbinvd),
    exit: 54,
  },
  {
    says: 'INVPCID enabled, INVLPG does not exit',
    controls: { secondaryControls: secondary(SECONDARY.enableInvpcid) },
    does: (m) => m.guest.instruction(EXIT.invpcid),
  },
  {
    says: 'INVPCID enabled, INVLPG exits',
    controls: {
      secondaryControls: secondary(SECONDARY.enableInvpcid),
      procBasedControls: proc(PROC.invlpgExiting),
    },
    does: (m) => m.guest.instruction(EXIT.invpcid, 8n, 0x55),
    exit: 58,
    fields: { exitQualification: 8n, exitInstructionInfo: 0x55n },
  },
  {
    says: 'PAUSE exiting',
    controls: { procBasedControls: proc(PROC.pauseExiting) },
    does: (m) => m.guest.instruction(EXIT.pause),
    exit: 40,
  },
  // control registers
  {
    says: 'MOV to CR0 of guest-owned bits',
    controls: { cr0GuestHostMask: 0xffff_fff7n, cr0ReadShadow: 0x8005_0033n },
    does: (m) => m.guest.movToCr(0, 0, 0x8005_003bn),
  },
  {
    says: 'MOV to CR0 of a host-owned bit',
    controls: { cr0GuestHostMask: 0xffff_fff7n, cr0ReadShadow: 0x8005_0033n },
    does: (m) => m.guest.movToCr(0, 2, 0x8004_0033n),
    exit: 28,
    fields: { exitQualification: 0x200n },
  },
  { says: 'MOV to CR3 without the control', does: (m) => m.guest.movToCr(3, 0, 0x1000n) },
  {
    says: 'MOV to CR3',
    controls: { procBasedControls: proc(PROC.cr3LoadExiting) },
    does: (m) => m.guest.movToCr(3, 7, 0x1000n),
    exit: 28,
    fields: { exitQualification: 0x703n },
  },
  {
    says: 'MOV to CR3 of a target value',
    controls: { procBasedControls: proc(PROC.cr3LoadExiting), cr3TargetCount: 2n, cr3Target1: 0x1000n },
    does: (m) => m.guest.movToCr(3, 7, 0x1000n),
  },
  {
    says: 'MOV from CR3',
    controls: { procBasedControls: proc(PROC.cr3StoreExiting) },
    does: (m) => m.guest.movFromCr(3, 0),
    exit: 28,
    fields: { exitQualification: 0x13n },
  },
  {
    says: 'MOV to CR4 of PGE, guest-owned',
    controls: { cr4GuestHostMask: ~0x1078en & 0xffff_ffffn, cr4ReadShadow: 0x20n },
    does: (m) => m.guest.movToCr(4, 0, 0xa0n),
  },
  {
    says: 'MOV to CR4 of PGE, host-owned',
    controls: { cr4GuestHostMask: ~0x1070en & 0xffff_ffffn, cr4ReadShadow: 0x20n },
    does: (m) => m.guest.movToCr(4, 0, 0xa0n),
    exit: 28,
    fields: { exitQualification: 4n },
  },
  {
    says: 'CLTS with TS owned by the host and set',
    controls: { cr0GuestHostMask: 8n, cr0ReadShadow: 8n },
    does: (m) => m.guest.clts(),
    exit: 28,
    fields: { exitQualification: 0x20n },
  },
  {
    says: 'CLTS with TS owned by the host and clear',
    controls: { cr0GuestHostMask: 8n },
    does: (m) => m.guest.clts(),
  },
  {
    says: 'LMSW that changes EM',
    controls: { cr0GuestHostMask: 0xfn, cr0ReadShadow: 1n },
    does: (m) => m.guest.lmsw(5, true, 0x77n),
    exit: 28,
    fields: { exitQualification: 0x5_0070n, guestLinearAddress: 0x77n },
  },
  {
    says: 'LMSW cannot clear PE',
    controls: { cr0GuestHostMask: 1n, cr0ReadShadow: 1n },
    does: (m) => m.guest.lmsw(0, false, 0n),
  },
  {
    says: 'MOV from DR',
    controls: { procBasedControls: proc(PROC.movDrExiting) },
    does: (m) => m.guest.movDr(7, 1, false),
    exit: 29,
    fields: { exitQualification: 0x117n },
  },
  // I/O
  { says: 'OUT with bitmaps all clear', does: (m) => m.guest.io(io(0x3f8)) },
  {
    says: 'OUT to a port of bitmap A',
    setup: (m) => m.ram.write8(IO_BITMAP + (0x3f8 >> 3), 1),
    does: (m) => m.guest.io(io(0x3f8)),
    exit: 30,
    fields: { exitQualification: 0x3f8_0000n },
  },
  {
    says: 'a doubleword that reaches a port of bitmap B',
    setup: (m) => m.ram.write8(IO_BITMAP + 0x1000, 1),
    does: (m) => m.guest.io(io(0x7ffe, { size: 4, input: true })),
    exit: 30,
    fields: { exitQualification: 0x7ffe_000bn },
  },
  { says: 'an access that wraps around', does: (m) => m.guest.io(io(0xffff, { size: 2 })), exit: 30 },
  {
    says: 'REP OUTS without bitmaps',
    controls: { procBasedControls: proc(PROC.unconditionalIoExiting) & ~BigInt(PROC.useIoBitmaps) },
    does: (m) => m.guest.io(io(0x80, { string: true, rep: true, linear: 0xabcn, segment: 5, size: 2 })),
    exit: 30,
    fields: { exitQualification: 0x80_0031n, guestLinearAddress: 0xabcn, exitInstructionInfo: 0x2_8100n },
  },
  // MSRs
  { says: 'RDMSR with a clear bit', does: (m) => m.guest.rdmsr(0xc000_0100) },
  {
    says: 'RDMSR of a high MSR',
    setup: (m) => m.ram.write8(MSR_BITMAP + 1024 + (0x80 >> 3), 1),
    does: (m) => m.guest.rdmsr(0xc000_0080),
    exit: 31,
  },
  {
    says: 'WRMSR of a low MSR',
    setup: (m) => m.ram.write8(MSR_BITMAP + 2048 + (0x6e0 >> 3), 1),
    does: (m) => m.guest.wrmsr(0x6e0),
    exit: 32,
  },
  { says: 'MSRs outside both ranges', does: (m) => m.guest.wrmsr(0x4b56_4d00), exit: 32 },
  {
    says: 'MSRs without bitmaps',
    controls: { procBasedControls: without('procBasedControls', PROC.useMsrBitmaps) },
    does: (m) => m.guest.rdmsr(0x10),
    exit: 31,
  },
  // descriptor tables, tasks
  { says: 'LGDT without the control', does: (m) => m.guest.descriptorTable(46, 0n, 0) },
  {
    says: 'LGDT',
    controls: { secondaryControls: secondary(SECONDARY.descriptorTableExiting) },
    does: (m) => m.guest.descriptorTable(46, 5n, 6),
    exit: 46,
    fields: { exitQualification: 5n, exitInstructionInfo: 6n },
  },
  {
    says: 'task switch by IRET',
    does: (m) => m.guest.taskSwitch(0x28, 1),
    exit: 9,
    fields: { exitQualification: 0x4000_0028n },
  },
  // exceptions
  { says: '#UD not in the bitmap', does: (m) => m.guest.exception(event(6, 3)) },
  {
    says: '#UD in the bitmap',
    controls: { exceptionBitmap: 0x40n },
    does: (m) => m.guest.exception(event(6, 3)),
    exit: 0,
    fields: { exitInterruptionInfo: 0x8000_0306n, guestRflags: 0x1_0202n },
  },
  {
    says: '#PF',
    controls: { exceptionBitmap: 0x4000n },
    does: (m) => m.guest.exception(event(14, 3, 2, 0xdeadn)),
    exit: 0,
    fields: { exitInterruptionInfo: 0x8000_0b0en, exitInterruptionErrorCode: 2n, exitQualification: 0xdeadn },
  },
  {
    says: '#PF that the mask does not match',
    controls: { exceptionBitmap: 0x4000n, pageFaultErrorCodeMask: 1n, pageFaultErrorCodeMatch: 1n },
    does: (m) => m.guest.exception(event(14, 3, 2, 0xdeadn)),
  },
  {
    says: '#PF with the bit clear and a mismatch',
    controls: { pageFaultErrorCodeMask: 1n, pageFaultErrorCodeMatch: 1n },
    does: (m) => m.guest.exception(event(14, 3, 2, 0xdeadn)),
    exit: 0,
  },
  {
    says: '#DB, RF unchanged',
    controls: { exceptionBitmap: 2n },
    does: (m) => m.guest.exception(event(1, 3, -1, 0x4000n)),
    exit: 0,
    fields: { exitInterruptionInfo: 0x8000_0301n, exitQualification: 0x4000n, guestRflags: 0x202n },
  },
  {
    says: 'INT3 by its length',
    controls: { exceptionBitmap: 8n },
    does: (m) => m.guest.exception(event(3, 6, -1, 0n, 1)),
    exit: 0,
    fields: { exitInterruptionInfo: 0x8000_0603n, exitInstructionLength: 1n },
  },
  {
    says: 'INT n is not an exception',
    controls: { exceptionBitmap: 0xffff_ffffn },
    does: (m) => m.guest.exception(event(6, 4, -1, 0n, 2)),
  },
  {
    says: 'NMI',
    does: (m) => m.guest.exception(event(2, 2)),
    exit: 0,
    fields: { exitInterruptionInfo: 0x8000_0202n },
  },
  { says: 'triple fault', does: (m) => m.guest.tripleFault(), exit: 2 },
  // TPR shadow
  { says: 'MOV to CR8 with the TPR shadow', does: (m) => m.guest.movToCr(8, 0, 5n) },
  {
    says: 'MOV to CR8 with the control',
    controls: { procBasedControls: proc(PROC.cr8LoadExiting) },
    does: (m) => m.guest.movToCr(8, 1, 5n),
    exit: 28,
    fields: { exitQualification: 0x108n },
  },
  {
    says: 'a TPR below the threshold, after the instruction',
    controls: {
      secondaryControls: without('secondaryControls', SECONDARY.virtualizeApicAccesses),
      tprThreshold: 4n,
    },
    setup: (m) => m.ram.write8(VIRTUAL_APIC + 0x80, 0x50),
    does: (m) => m.guest.movToCr(8, 1, 3n),
    exit: 43,
    fields: { guestRip: 0x1_0002n },
  },
  {
    says: 'an APIC access',
    does: (m) => m.guest.apicAccess(0xb0, 1, 0xfee0_00b0n),
    exit: 44,
    fields: { exitQualification: 0x10b0n, guestLinearAddress: 0xfee0_00b0n },
  },
];

describe('intercepts', () => {
  test.each(ROWS.map((r) => [r.says, r] as const))('%s', (_, row) => {
    const m = machine();
    row.setup?.(m);
    m.set(row.controls ?? {});
    let exits: boolean | undefined;
    const outcome = m.run(() => {
      m.cpu.set64(S.nextRip, m.cpu.rip + 2n);
      exits = row.does(m);
      return exits || 'limit';
    });
    expect(m.vmx.describeVmcs()).not.toContain('failed:');
    expect(outcome).toEqual(row.exit === undefined ? { limit: true } : { exit: row.exit });
    for (const [name, v] of Object.entries(row.fields ?? {}))
      expect([name, m.read(name as FieldName)]).toEqual([name, v]);
    if (row.exit !== undefined) expect(m.cpu.get32(S.leave)).toBe(LEAVE.none);
  });
});

test('instructions that a secondary control enables are undefined without it', () => {
  const m = machine();
  m.run(() => {
    for (const reason of [EXIT.invpcid, EXIT.xsaves, EXIT.vmfunc, EXIT.umwait]) {
      expect(m.guest.instruction(reason)).toBe(true);
      expect([m.cpu.get32(S.leave), m.cpu.get32(S.faultVector)]).toEqual([LEAVE.fault, 6]);
    }
    return 'limit';
  });
});

test('PAUSE-loop exiting: gaps within PLE_Gap for longer than PLE_Window, at CPL 0', () => {
  const m = machine();
  m.set({ secondaryControls: secondary(SECONDARY.pauseLoopExiting), pleGap: 128n, pleWindow: 4096n });
  m.run(() => {
    const pause = (cycles: number): boolean => {
      m.cpu.extraCycles += cycles;
      return m.guest.instruction(EXIT.pause);
    };
    expect(pause(0)).toBe(false);
    for (let i = 0; i < 32; i++) expect(pause(128)).toBe(false);
    expect(pause(129)).toBe(false); // a new loop
    for (let i = 0; i < 32; i++) expect(pause(128)).toBe(false);
    m.cpu.set32(S.cpl, 3);
    expect(pause(1)).toBe(false);
    m.cpu.set32(S.cpl, 0);
    return pause(1);
  });
  expect(m.read('exitReason')).toBe(40n);
});

test('control registers read through the shadow, and keep host-owned bits', () => {
  const m = machine();
  m.set({
    cr0GuestHostMask: 0x8n,
    cr0ReadShadow: 0x8n,
    cr4GuestHostMask: 0x2000n,
    cr4ReadShadow: 0n,
    tscOffset: 100n,
    procBasedControls: proc(PROC.useTscOffsetting),
  });
  m.run(() => {
    expect(m.guest.readCr0(0x8005_0033n)).toBe(0x8005_003bn);
    expect(m.guest.writeCr0(0x8005_003bn)).toBe(0x8005_0033n);
    expect(m.guest.readCr4(0x2020n)).toBe(0x20n);
    expect(m.guest.writeCr4(0xa0n)).toBe(0x20a0n);
    expect(m.guest.tscOffset).toBe(100n);
    return 'limit';
  });
});

test('the x2APIC TPR is virtualized, other registers are not', () => {
  const m = machine();
  m.set({
    secondaryControls: secondary(SECONDARY.virtualizeX2apicMode) & ~BigInt(SECONDARY.virtualizeApicAccesses),
  });
  m.run(() => {
    expect(m.guest.virtualWrmsr(0x808, 0x40n)).toBe('done');
    expect(m.guest.virtualRdmsr(0x808)).toBe(0x40n);
    expect(m.ram.read8(VIRTUAL_APIC + 0x80)).toBe(0x40);
    expect(m.cpu.get32(S.cr8)).toBe(4);
    expect(m.guest.virtualRdmsr(0x80b)).toBeUndefined();
    expect(m.guest.virtualWrmsr(0x808, 0x100n)).toBe('left');
    expect(m.cpu.get32(S.faultVector)).toBe(13);
    return 'limit';
  });
});
