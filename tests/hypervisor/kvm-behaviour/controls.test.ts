/** KVM-7.1 items 1 to 5: controls, unconditional exits, CPUID, and the knobs of the guest's processor. */
import { describe, expect, test } from 'vitest';
import { KVM_FEATURE } from '../../../lib/hypervisor/cpuid.js';
import type { VmOptions } from '../../../lib/hypervisor/vm.js';
import { CR0, CR4, EFER } from '../../../lib/isa/state.js';
import { VMCS } from '../../../lib/vmx/port.js';
import { CR4_USUAL, MODES, mark, measure, micro, OFF, SCRATCH, times } from './micro.js';

/** Turns the local APIC to x2APIC mode. */
const X2APIC = 'mov ecx, 0x1b\nrdmsr\nor eax, 0x400\nwrmsr\n';

describe('7.1 item 1: controls, masks and read shadows', () => {
  const words = (ept: boolean, source: string): Record<string, number> => {
    const { vm } = micro({ ept, source: `${source}${OFF}` });
    const p = vm.port;
    return {
      pin: p.vmread32(VMCS.pinBasedControls),
      proc: p.vmread32(VMCS.procBasedControls),
      // XSAVES (bit 20) goes with the processor
      secondary: p.vmread32(VMCS.secondaryControls) & ~(vm.xsaves ? 0x10_0000 : 0),
      exceptions: p.vmread32(VMCS.exceptionBitmap),
      pfecMask: p.vmread32(VMCS.pageFaultErrorCodeMask),
      pfecMatch: p.vmread32(VMCS.pageFaultErrorCodeMatch),
      cr3Targets: p.vmread32(VMCS.cr3TargetCount),
      cr0Owned: ~p.vmread32(VMCS.cr0GuestHostMask) >>> 0,
      cr4Owned: ~p.vmread32(VMCS.cr4GuestHostMask) >>> 0,
    };
  };
  const usual = { pin: 0x7f, pfecMask: 0, pfecMatch: 0, cr3Targets: 0 };
  const owned = CR4.pvi | CR4.tsd | CR4.de | CR4.pce | CR4.osfxsr | CR4.osxmmexcpt | CR4.fsgsbase;
  test.each([
    ['EPT, xAPIC', true, '', 0x14eb],
    ['EPT, x2APIC', true, X2APIC, 0x14fa],
    ['shadow, xAPIC', false, '', 0x1469],
    ['shadow, x2APIC', false, X2APIC, 0x1478],
  ] as const)('%s', (_name, ept, source, secondary) => {
    expect(words(ept, source)).toEqual({
      ...usual,
      proc: ept ? 0xb5a0_6dfa : 0xb5a1_effa,
      secondary,
      exceptions: ept ? 0x6_0042 : 0x6_4042,
      cr0Owned: ept ? CR0.ts | CR0.wp : CR0.ts,
      cr4Owned: ept ? owned | CR4.pge : owned,
    });
  });

  test.each(MODES)(
    '%s: what the guest sees of CR0, CR4, CR3 and EFER, and what the hardware has',
    (_n, ept) => {
      // CD and NW on, then CR4.PGE: both stay visible
      const source = `mov rax, cr0\nor eax, 0x60000000\nmov cr0, rax\nmov rax, cr4\nor eax, 0x80\nmov cr4, rax
mov rbx, cr0\nmov rsi, cr4\nmov rdi, cr3\nmov ecx, 0xc0000080\nrdmsr\nmov r8, rax\n${OFF}`;
      // without NX of its own
      const { vm, gpr, tables } = micro({ ept, source, efer: 0x501 });
      const guest = { cr0: 0xe005_0033n, cr4: BigInt(CR4_USUAL | 0x80) };
      expect([gpr(3), gpr(6), gpr(7), gpr(8)]).toEqual([guest.cr0, guest.cr4, BigInt(tables.root), 0x501n]);
      const p = vm.port;
      expect(p.vmread(VMCS.cr0ReadShadow)).toBe(guest.cr0);
      expect(p.vmread32(VMCS.guestCr0)).toBe(0x8005_0033);
      expect(p.vmread32(VMCS.guestCr4)).toBe(CR4_USUAL | 0x80 | CR4.vmxe | CR4.mce);
      expect(p.vmread32(VMCS.guestEfer)).toBe(ept ? 0x501 : 0x501 | EFER.nxe);
      const cr3 = p.vmreadNumber(VMCS.guestCr3);
      expect(cr3 === tables.root).toBe(ept);
    },
  );
});

describe('7.1 item 2: what exits unconditionally, and what does not', () => {
  const msr = (n: number, op: string): string => `mov ecx, ${n}\nrdmsr\n${op === 'wrmsr' ? 'wrmsr' : ''}`;
  // biome-ignore format: one row per line
  const rows: readonly (readonly [name: string, source: string, exits: Readonly<Record<number, number>>])[] = [
    ['IN of an absent device', 'mov edx, 0x1234\nin al, dx', { 30: 1 }],
    ['OUT to port 0x80', 'out 0x80, al', { 30: 1 }],
    ['OUTS without REP', 'mov esi, SCRATCH\nmov edx, 0x80\n.byte 0x6e', { 30: 1 }],
    ['CPUID', 'cpuid', { 10: 1 }],
    ['XSETBV', 'mov rax, cr4\nor eax, 0x40000\nmov cr4, rax\nmov eax, 1\nmov edx, 0\nmov ecx, 0\n.byte 0x0f,0x01,0xd1', { 28: 1, 55: 1 }],
    ['WBINVD', '.byte 0x0f,0x09', { 54: 1 }],
    ['INVD', '.byte 0x0f,0x08', { 13: 1 }],
    ['RDPMC', 'mov ecx, 0\n.byte 0x0f,0x33', { 15: 1 }],
    ['MONITOR', 'mov eax, SCRATCH\nmov ecx, 0\nmov edx, 0\n.byte 0x0f,0x01,0xc8', { 39: 1 }],
    ['MWAIT', 'mov eax, 0\nmov ecx, 0\n.byte 0x0f,0x01,0xc9', { 36: 1 }],
    ['VMCALL', '.byte 0x0f,0x01,0xc1', { 18: 1 }],
    ['RDTSC', 'rdtsc', {}],
    ['RDTSCP', '.byte 0x0f,0x01,0xf9', {}],
    ['PAUSE', '.byte 0xf3,0x90', {}],
    ['CLTS', '.byte 0x0f,0x06', {}],
    ['reads of CR0 and CR4', 'mov rax, cr0\nmov rax, cr4', {}],
    ['reads of CR8', '.byte 0x44,0x0f,0x20,0xc0', {}],
    ['LGDT, SGDT', '.byte 0x0f,0x01,0x04,0x25\n.dword SCRATCH\n.byte 0x0f,0x01,0x14,0x25\n.dword SCRATCH', {}],
    ['RDMSR of EFER', msr(0xc000_0080, ''), { 31: 1 }],
    ['WRMSR of EFER', msr(0xc000_0080, 'wrmsr'), { 31: 1, 32: 1 }],
    ['STAR, LSTAR, FMASK', [0xc000_0081, 0xc000_0082, 0xc000_0084].map((n) => msr(n, 'wrmsr')).join('\n'), { 31: 3, 32: 3 }],
    ['TSC_DEADLINE', 'mov ecx, 0x6e0\nmov eax, 0\nmov edx, 0\nwrmsr', { 32: 1 }],
    ['FS, GS and kernel GS base', [0xc000_0100, 0xc000_0101, 0xc000_0102].map((n) => msr(n, 'wrmsr')).join('\n'), {}],
    ['SYSENTER_CS, ESP, EIP', [0x174, 0x175, 0x176].map((n) => msr(n, 'wrmsr')).join('\n'), {}],
    ['RDMSR of the TSC', msr(0x10, ''), {}],
    ['WRMSR of the TSC', msr(0x10, 'wrmsr'), { 32: 1 }],
  ];
  // an exception steps over the two bytes of RDPMC
  const rest = 'on_gp:\nadd rsp, 8\nadd qword [rsp], 2\niretq';
  test.each(MODES)('%s', (_n, ept) => {
    const source = rows.map(([, code], i) => `${mark(2 * i)}${code}\n${mark(2 * i + 1)}`).join('');
    const r = micro({ ept, source: `${mark(999)}${source}hlt\n${rest}` });
    const counted = rows.map(([name], i) => [name, r.between(2 * i, 2 * i + 1).exits]);
    expect(counted).toEqual(rows.map(([name, , exits]) => [name, exits]));
    // HLT: nothing wakes this guest
    expect([r.outcome.kind, r.exits[12]]).toEqual(['halt', 1]);
  });
  test.each(MODES)('%s: a loop of PAUSE exits when its window is over, each time later', (_n, ept) => {
    const r = measure({ ept, measured: times(20_000, '.byte 0xf3,0x90'), vm: { timeModel: 'instructions' } });
    // three instructions a round: windows of 4096, 8192, 16384 and 32768 cycles
    expect(r.exits).toEqual({ 40: 3 });
    expect(r.run.vm.vcpu.pleWindow).toBe(0x8000);
  });
});

describe('7.1 item 3: CPUID', () => {
  const LEAVES = [0, 1, 2, 4, 6, 7, 0xd, 0x4000_0000, 0x4000_0001, 0x8000_0001, 0x8000_0008];
  const cpuid = (ept: boolean, vm: Partial<VmOptions> = {}): number[][] => {
    const source = LEAVES.map(
      (leaf, i) =>
        `mov eax, ${leaf}\nmov ecx, 0\ncpuid\nmov dword [SCRATCH+${16 * i}], eax\nmov dword [SCRATCH+${16 * i + 4}], ebx
mov dword [SCRATCH+${16 * i + 8}], ecx\nmov dword [SCRATCH+${16 * i + 12}], edx`,
    ).join('\n');
    const r = micro({ ept, vm, source: `${source}\n${OFF}` });
    expect(r.exits[10]).toBe(LEAVES.length);
    const words = new Uint32Array(r.vm.slots.bytes(SCRATCH, 16 * LEAVES.length).buffer);
    return LEAVES.map((_, i) => [...words.subarray(4 * i, 4 * i + 4)]);
  };
  const register = (rows: number[][], leaf: number, i: number): number =>
    (rows[LEAVES.indexOf(leaf)] as number[])[i] as number;
  test('is the same in both modes, but for 1 GiB pages', () => {
    const [nested, shadow] = [cpuid(true), cpuid(false)];
    const GBPAGES = 1 << 26;
    expect(register(shadow, 0x8000_0001, 3) & GBPAGES).toBe(GBPAGES);
    for (const rows of [nested, shadow]) (rows[LEAVES.indexOf(0x8000_0001)] as number[])[3]! &= ~GBPAGES;
    expect(shadow).toEqual(nested);
  });
  test("has KVM's signature and clock, x2APIC, TSC deadline, and no protection keys", () => {
    const rows = cpuid(false);
    expect(rows[LEAVES.indexOf(0x4000_0000)]).toEqual([0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]);
    const f = KVM_FEATURE;
    const clock = f.clocksource2 | f.nopIoDelay | f.clocksourceStable;
    expect(register(rows, 0x4000_0001, 0) & clock).toBe(clock);
    // x2APIC, TSC deadline, hypervisor
    const ecx1 = (1 << 21) | (1 << 24) | (1 << 31);
    expect(register(rows, 1, 2) & ecx1).toBe(ecx1);
    expect(register(rows, 7, 2) & 8).toBe(0);
  });
  test('offers the paravirtual end of interrupt as an option', () => {
    const features = [true, false].map((pvEoi) => register(cpuid(true, { pvEoi }), 0x4000_0001, 0));
    expect((features[0] as number) ^ (features[1] as number)).toBe(KVM_FEATURE.pvEoi);
  });
});

describe('7.1 item 4: the processor does not leak, unless the experiment wants it to', () => {
  test.each([
    ['EPT', true, {}, 1],
    ['EPT, meltdown', true, { meltdown: true }, 0],
    ['shadow', false, {}, 1],
    ['shadow, meltdown', false, { meltdown: true }, 0],
  ] as const)('%s: RDCL_NO is %j', (_n, ept, vm, rdclNo) => {
    const r = micro({ ept, vm, source: `mov ecx, 0x10a\nrdmsr\nmov rbx, rax\n${OFF}` });
    expect([Number(r.gpr(3) & 1n), r.exits[31]]).toEqual([rdclNo, 1]);
  });
});

describe('7.1 item 5: PCID and INVPCID are there, and can be hidden', () => {
  // INVPCID of everything; CR4.PCIDE
  const invpcid = 'mov eax, 2\n.byte 0x66,0x0f,0x38,0x82,0x04,0x25\n.dword SCRATCH\n';
  const pcide = 'mov rax, cr4\nor eax, 0x20000\nmov cr4, rax\n';
  const rest = `on_ud:\nadd qword [rsp], 10\nadd rbx, 1\niretq
on_gp:\nadd rsp, 8\nadd qword [rsp], 3\nadd rbx, 0x100\niretq`;
  // biome-ignore format: one row per line
  test.each([
    // RBX: #UD in the low byte, #GP in the next
    ['EPT', true, [], 0n, { 28: 1 }],
    ['EPT, no INVPCID', true, ['invpcid'], 1n, { 0: 1, 28: 1 }],
    ['EPT, no PCID', true, ['pcid'], 0x100n, { 28: 1 }],
    ['shadow', false, [], 0n, { 28: 2, 58: 1 }],
    ['shadow, no INVPCID', false, ['invpcid'], 1n, { 0: 1, 28: 2 }],
    ['shadow, no PCID', false, ['pcid'], 0x100n, { 28: 2, 58: 1 }],
  ] as const)('%s', (_n, ept, hideCpuid, faults, exits) => {
    const r = measure({ ept, vm: { hideCpuid }, measured: `mov rcx, cr3\n${pcide}${invpcid}`, rest });
    expect([r.run.gpr(3), r.exits]).toEqual([faults, exits]);
  });
});
