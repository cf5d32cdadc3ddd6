/** Small guests on the real processor and VMX unit, under both kinds of paging: exact exit counts (KVM-7.3). */
import { describe, expect, test } from 'vitest';
import { createMmu } from '../../lib/hypervisor/mmu/create.js';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import type { Outcome } from '../../lib/hypervisor/next.js';
import { createVm, type Vm, type VmOptions } from '../../lib/hypervisor/vm.js';
import { createHardware } from '../../lib/vmx/hardware.js';
import { entryState } from './machine.js';

const CODE = 0x10000;
const PML4 = 0x9000;

interface Run {
  readonly vm: Vm;
  readonly outcome: Outcome;
  readonly exits: Readonly<Record<number, number>>;
  readonly console: string;
  gpr(i: number): bigint;
}

/** Identity map of 1 GiB in 2 MiB pages, accessed and dirty; the code at 64 KiB, a stack below it. */
const run = (ept: boolean, code: readonly number[], options: Partial<VmOptions> = {}, rflags = 2): Run => {
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', { ept });
  const { port } = createHardware(48 << 20);
  let text = '';
  const vm = createVm(hypervisor, port, {
    memory: 16 << 20,
    hostTickHz: 0,
    createMmu,
    board: { onConsole: (b) => (text += String.fromCharCode(b)) },
    ...options,
  });
  const table = (gpa: number, entries: readonly bigint[]): void =>
    vm.load(gpa, new Uint8Array(BigUint64Array.from(entries).buffer));
  table(PML4, [BigInt(PML4 + 0x1000) | 0x23n]);
  // the fourth gigabyte, for MMIO, in one page
  table(PML4 + 0x1000, [BigInt(PML4 + 0x2000) | 0x23n, 0n, 0n, 0xc00000e3n]);
  table(
    PML4 + 0x2000,
    Array.from({ length: 512 }, (_, i) => BigInt(i * 0x200000) | 0xe3n),
  );
  vm.load(CODE, Uint8Array.from(code));
  const gprs = new Array<bigint>(16).fill(0n);
  gprs[4] = BigInt(CODE);
  vm.loadEntry({ ...entryState, gprs, rip: BigInt(CODE), rflags, cr3: BigInt(PML4), efer: 0xd00n });
  const outcome = vm.run({ limit: 5_000_000 });
  return { vm, outcome, exits: hypervisor.counts.snapshot(), console: text, gpr: (i) => vm.vcpu.gpr(i) };
};

/** mov edx, 0x604; mov eax, 0x2000; out dx, ax */
const OFF = [0xba, 0x04, 0x06, 0, 0, 0xb8, 0, 0x20, 0, 0, 0x66, 0xef];
/** mov ecx, n … dec ecx; jnz back: repeats `body`. */
const times = (n: number, body: readonly number[]): number[] => [
  ...[0xbd, n & 0xff, (n >> 8) & 0xff, 0, 0],
  ...body,
  ...[0xff, 0xcd, 0x75, (256 - body.length - 4) & 0xff],
];

describe.each([
  ['ept=1', true],
  ['ept=0', false],
] as const)('%s', (_name, ept) => {
  test('prints and powers off', () => {
    const r = run(ept, [0xba, 0xf8, 3, 0, 0, 0xb0, 0x68, 0xee, 0xb0, 0x69, 0xee, ...OFF]);
    expect([r.outcome.kind, r.console]).toEqual(['poweroff', 'hi']);
    expect(r.exits[30]).toBe(3);
  });

  test('N loads of CR3 are N exits of type 28 without EPT, none with it', () => {
    // mov rax, cr3; mov cr3, rax
    const r = run(ept, [...times(100, [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]), ...OFF]);
    expect(r.outcome.kind).toBe('poweroff');
    expect(r.exits[28] ?? 0).toBe(ept ? 0 : 200);
  });

  test('N INVLPG are N exits of type 14 without EPT, none with it', () => {
    const r = run(ept, [...times(50, [0x0f, 0x01, 0x38]), ...OFF]);
    expect(r.exits[14] ?? 0).toBe(ept ? 0 : 50);
  });

  test('N accesses to the I/O APIC: EPT 1 + (N-1), shadow N of type 0, N-1 of them reserved-bit hits', () => {
    // mov edi, 0xfec00000; mov eax, [rdi], five times
    const r = run(ept, [0xbf, 0, 0, 0xc0, 0xfe, ...times(5, [0x8b, 0x07]), ...OFF]);
    const none = run(ept, [0xbf, 0, 0, 0xc0, 0xfe, ...times(5, [0x89, 0xff]), ...OFF]);
    const more = (reason: number): number => (r.exits[reason] ?? 0) - (none.exits[reason] ?? 0);
    expect([0, 48, 49].map(more)).toEqual(ept ? [0, 1, 4] : [5, 0, 0]);
    expect(r.vm.stats.pf_taken - none.vm.stats.pf_taken).toBe(1);
    expect(r.vm.stats.insn_emulation).toBe(5);
    const sum = Object.values(r.exits).reduce((x, y) => x + y, 0);
    expect(sum).toBe(r.vm.hypervisor.counts.totalExits);
  });

  test('the guest counts its own CPUID exits with the lab leaf', () => {
    // mov eax, 0x4ffffffe; mov ecx, 10; cpuid
    const r = run(ept, [
      ...times(9, [0xb8, 0xfe, 0xff, 0xff, 0x4f, 0xb9, 10, 0, 0, 0, 0x0f, 0xa2]),
      0x48,
      0x89,
      0xc3,
      ...OFF,
    ]);
    expect(r.gpr(3)).toBe(9n);
    expect(r.exits[10]).toBe(9);
  });

  test('RDMSR and WRMSR of EFER: SCE sticks, a reserved bit is #GP', () => {
    // mov ecx, 0xc0000080; rdmsr; or eax, 1; wrmsr; rdmsr; mov ebx, eax
    const r = run(ept, [
      0xb9,
      0x80,
      0,
      0,
      0xc0,
      0x0f,
      0x32,
      0x83,
      0xc8,
      1,
      0x0f,
      0x30,
      0x0f,
      0x32,
      0x89,
      0xc3,
      ...OFF,
    ]);
    expect(r.gpr(3)).toBe(0xd01n);
    expect(r.outcome.kind).toBe('poweroff');
  });

  test('MOV DR exits once a burst (KVM-1.2)', () => {
    // mov rax, dr7; mov dr7, rax; mov rax, dr6 — one burst; cpuid; mov rax, dr7
    const r = run(ept, [
      0x0f,
      0x21,
      0xf8,
      0x0f,
      0x23,
      0xf8,
      0x0f,
      0x21,
      0xf0,
      0x0f,
      0xa2,
      0x0f,
      0x21,
      0xf8,
      ...OFF,
    ]);
    expect(r.exits[29]).toBe(2);
  });

  test('HLT with interrupts off ends the run, registers are readable', () => {
    const r = run(ept, [0xb8, 0x2a, 0, 0, 0, 0xf4]);
    expect([r.outcome.kind, r.gpr(0)]).toEqual(['halt', 42n]);
  });

  test('the limit stops exactly, and the run goes on from there', () => {
    // jmp self
    const r = run(ept, [0xeb, 0xfe]);
    expect([r.outcome.kind, r.vm.port.retired()]).toEqual(['limit', 5_000_000]);
    expect([r.vm.run({ limit: 5_000_123 }).kind, r.vm.port.retired()]).toEqual(['limit', 5_000_123]);
  });
});

test('both modes retire the same instructions and leave the same memory in the instruction time model', () => {
  // a loop of stores over two megabytes with CPUID in between
  const body = [0x48, 0x89, 0x07, 0x48, 0x81, 0xc7, 0x08, 0x10, 0, 0, 0x0f, 0xa2];
  const code = [0xbf, 0, 0, 0x20, 0, ...times(500, body), ...OFF];
  const [a, b] = [true, false].map((ept) => run(ept, code, { timeModel: 'instructions' }));
  expect(b?.vm.port.retired()).toBe(a?.vm.port.retired());
  expect(Buffer.compare(a!.vm.slots.bytes(0, 8 << 20), b!.vm.slots.bytes(0, 8 << 20))).toBe(0);
  expect(a?.vm.clock.now()).toBe(a?.vm.port.retired());
});

test('the host tick is an external interrupt at its rate, whatever the guest does (KVM-7.1.21)', () => {
  const r = run(true, [0xeb, 0xfe], { timeModel: 'instructions', tscHz: 1_000_000, hostTickHz: 4 });
  // five seconds at 4 Hz
  expect(r.exits[1]).toBe(20);
});
