/** KVM-7.1 items 17 and 19 to 24: EPT leaves, timers, windows, host interrupts, time, counters, the 64-bit entry. */
import { describe, expect, test } from 'vitest';
import { COSTS } from '../../../lib/hypervisor/costs.js';
import { VMCS } from '../../../lib/vmx/port.js';
import { CODE, DATA, MODES, measure, micro, OFF, type Tables, times } from './micro.js';

const WIN = 0x4000_0000n;

describe('7.1 item 17: one EPT leaf a violation, as large as the host backs it', () => {
  const touch = (n: number, access: string): string =>
    `mov rdi, DIRECT+0x400000\n${times(n, `${access}\nadd rdi, 4096`)}`;
  // biome-ignore format: one row per line
  test.each([
    ['4K', 'mov rcx, [rdi]', 1024, { 48: 1024 }, { pages_4k: 1024 }],
    ['4K', 'mov [rdi], rcx', 1024, { 48: 1024 }, { pages_4k: 1024 }],
    ['2M', 'mov rcx, [rdi]', 1024, { 48: 2 }, { pages_2m: 2 }],
    ['2M', 'mov [rdi], rcx', 1024, { 48: 2 }, { pages_2m: 2 }],
  ] as const)('%s backing, %s: %d pages', (backing, access, n, exits, leaves) => {
    // the tables of the region are guest memory too
    const warm = 'mov rdi, DIRECT\nmov rcx, [rdi]\n';
    const r = measure({ ept: true, direct: '2M', vm: { backing }, warm, measured: touch(n, access) });
    expect(r.exits).toEqual(exits);
    expect(r.stats).toMatchObject({ ...leaves, pf_taken: exits[48], pf_fixed: exits[48] });
    // a second look is free
    expect(measure({ ept: true, direct: '2M', vm: { backing }, warm: touch(n, access), measured: touch(n, access) }).exits).toEqual({});
  });
  test('a slot whose end is no multiple of 2 MiB ends in small pages', () => {
    const r = measure({
      ept: true,
      memory: (16 << 20) - 0x10_0000,
      direct: '2M',
      measured: `mov rdi, DIRECT+0xe00000\n${times(256, 'mov rcx, [rdi]\nadd rdi, 4096')}`,
    });
    expect(r.exits).toEqual({ 48: 256 });
  });
  test('loads of CR3, changes of CR4 and INVLPG leave the tables alone', () => {
    const r = measure({
      ept: true,
      direct: '2M',
      measured: times(
        20,
        'mov rax, cr3\nmov cr3, rax\nmov rax, cr4\nxor eax, 0x80\nmov cr4, rax\ninvlpg [rax]',
      ),
    });
    expect(r.exits).toEqual({});
  });
});

/** x2APIC on, its timer in TSC-deadline mode with vector 48, PV EOI off. */
const TIMER = `mov ecx, 0x1b\nrdmsr\nor eax, 0x400\nwrmsr\nmov edx, 0\nmov ecx, 0x80f\nmov eax, 0x1ff\nwrmsr\nmov ecx, 0x832\nmov eax, 0x40030\nwrmsr\n`;
const ARM = 'rdtsc\nmov ecx, 0x6e0\nmov edx, 0\nadd eax, 40000\nwrmsr\n';
/** Counts in RBX and ends the interrupt. */
const ON_TIMER = 'on_48:\nadd rbx, 1\nmov ecx, 0x80b\nmov eax, 0\nmov edx, 0\nwrmsr\niretq';

describe('7.1 item 19: the TSC-deadline timer', () => {
  const N = 5;
  const wait = (i: string): string => `mov r8, rbx\nwait${i}:\ncmp rbx, r8\nje wait${i}\n`;
  const each = (body: (i: string) => string): string =>
    Array.from({ length: N }, (_, i) => body(String(i))).join('');
  test.each(MODES)(
    '%s: while the guest runs it is the preemption timer, and arming and EOI are MSR writes',
    (_n, ept) => {
      const r = measure({ ept, warm: `${TIMER}sti\n`, measured: each((i) => ARM + wait(i)), rest: ON_TIMER });
      expect(r.exits).toEqual({ 32: 2 * N, 52: N });
      expect([r.run.gpr(3), r.stats.irq_injections]).toEqual([BigInt(N), N]);
    },
  );
  test.each(MODES)('%s: while the guest sleeps it is the host, without an exit', (_n, ept) => {
    const r = measure({ ept, warm: `${TIMER}sti\n`, measured: each(() => `${ARM}hlt\n`), rest: ON_TIMER });
    expect(r.exits).toEqual({ 12: N, 32: 2 * N });
  });
  test.each(MODES)('%s: preemption_timer=N makes it a host timer interrupt', (_n, ept) => {
    const r = measure({
      ept,
      params: { preemption_timer: false },
      warm: `${TIMER}sti\n`,
      measured: each((i) => ARM + wait(i)),
      rest: ON_TIMER,
    });
    expect(r.exits).toEqual({ 1: N, 32: 2 * N });
  });
  test.each(MODES)('%s: with the paravirtual EOI only arming is left', (_n, ept) => {
    // the word is cleared by the guest when the hypervisor has set it
    const rest =
      'on_48:\nadd rbx, 1\nmov rax, [SCRATCH]\nand eax, 1\njz eoi\nmov rax, 0\nmov [SCRATCH], rax\niretq\neoi:\nmov ecx, 0x80b\nmov edx, 0\nwrmsr\niretq';
    const pv = 'mov ecx, 0x4b564d04\nmov eax, SCRATCH+1\nmov edx, 0\nwrmsr\n';
    const r = measure({ ept, warm: `${TIMER}${pv}sti\n`, measured: each((i) => ARM + wait(i)), rest });
    expect(r.exits).toEqual({ 32: N, 52: N });
  });
});

/** 8259 with vectors 32 on, everything masked but IRQ 0; 8254 channel 0 in mode 2. */
const out = (port: number, value: number): string => `mov eax, ${value}\nout ${port}, al\n`;
const PIC = [
  [0x20, 0x11],
  [0x21, 0x20],
  [0x21, 4],
  [0x21, 1],
  [0x21, 0xfe],
]
  .map(([port, value]) => out(port as number, value as number))
  .join('');
const PIT = out(0x43, 0x30) + out(0x40, 0) + out(0x40, 1);
const ON_PIT = `on_32:\nadd rbx, 1\n${out(0x20, 0x20)}iretq`;

describe('7.1 item 20: interrupt windows and MOV DR', () => {
  const spin = 'mov r8, 0\nspin:\nadd r8, 1\ncmp r8, 40000\njne spin\n';
  test.each(MODES)('%s: an interrupt that cannot be taken opens a window, which exits once', (_n, ept) => {
    // it arrives with IF = 0; STI and one instruction later it is there
    const r = measure({ ept, warm: PIC, measured: `${PIT}${spin}sti\nnop\ncli\n`, rest: ON_PIT });
    expect(r.exits).toEqual({ 1: 1, 7: 1, 30: 3 + 1 });
    expect([r.run.gpr(3), r.stats.irq_window_exits]).toEqual([1n, 1]);
  });
  test.each(MODES)('%s: one that can be taken at an exit needs none', (_n, ept) => {
    const r = measure({ ept, warm: PIC, measured: `${PIT}sti\n${spin}cli\n`, rest: ON_PIT });
    expect(r.exits).toEqual({ 1: 1, 30: 3 + 1 });
    expect(r.stats.irq_injections).toBe(2);
  });
  test.each(MODES)('%s: the shadow of STI holds it back', (_n, ept) => {
    // pending with IF = 0; the exit of OUT in the shadow of STI does not inject, the next one does
    const r = measure({
      ept,
      warm: PIC,
      measured: `${PIT}${spin}sti\nout 0x80, al\nmov r9, rbx\nnop\ncli\n`,
      rest: ON_PIT,
    });
    expect(r.run.gpr(3)).toBe(1n);
    expect(r.exits[7]).toBe(1);
  });
  test.each(MODES)('%s: a burst of MOV DR is one exit; the next exit of any kind ends it', (_n, ept) => {
    const burst = '.byte 0x0f,0x21,0xf8\n.byte 0x0f,0x23,0xf8\n.byte 0x0f,0x21,0xf0\n';
    const r = measure({ ept, measured: `${burst}cpuid\n${burst}` });
    expect(r.exits).toEqual({ 10: 1, 29: 2 });
  });
});

describe('7.1 item 21: the host', () => {
  const spin = 'spin:\njmp spin';
  test.each(MODES)('%s: its tick is an external interrupt at its rate', (_n, ept) => {
    const r = micro({
      ept,
      source: spin,
      limit: 200_000,
      vm: { timeModel: 'instructions', tscHz: 1_000_000, hostTickHz: 40 },
    });
    expect(r.exits[1]).toBe(8);
    expect(r.vm.stats.irq_exits).toBe(8);
  });
  test.each(MODES)('%s: 250 Hz of virtual time when nothing is said', (_n, ept) => {
    const vm = { timeModel: 'instructions', tscHz: 1_000_000 } as const;
    const r = micro({ ept, source: spin, limit: 100_000, vm: { ...vm, hostTickHz: undefined as never } });
    expect(r.exits[1]).toBe(25);
  });
  test.each(MODES)('%s: each device interrupt that comes while the guest runs is one more', (_n, ept) => {
    const again = `on_32:\nadd rbx, 1\n${out(0x20, 0x20)}${out(0x40, 0)}${out(0x40, 1)}iretq`;
    const r = measure({
      ept,
      engine: 'interpreter',
      warm: PIC,
      measured: `sti\n${PIT}wait:\ncmp rbx, 10\njne wait\ncli\n`,
      rest: again,
    });
    expect(r.exits[1]).toBe(10);
    expect(r.exits[30]).toBe(3 + 3 * 10);
  });
});

describe('7.1 item 22: exits take virtual time', () => {
  const measured = times(100, 'cpuid');
  test.each(MODES)('%s: the cost of their reason, or nothing in the instruction model', (_n, ept) => {
    const cost = COSTS.base.cycles + COSTS.cpuid.cycles;
    const mark = COSTS.base.cycles + COSTS.io.cycles + COSTS.ioDevice.cycles;
    const r = measure({ ept, measured });
    expect(r.cycles - r.instructions).toBe(100 * cost + mark);
    const free = measure({ ept, measured, vm: { timeModel: 'instructions' } });
    expect(free.cycles).toBe(free.instructions);
    expect(free.instructions).toBe(r.instructions);
  });
  test('so a fixed piece of work sees more timer interrupts with shadow paging', () => {
    // 500 loads and stores of CR3: exits here, nothing there; the timer is armed again by its handler
    const rest = ON_TIMER.replace('iretq', `mov r9, rdx\n${ARM}mov rdx, r9\niretq`);
    const run = (ept: boolean) =>
      measure({ ept, warm: `${TIMER}sti\n${ARM}`, measured: times(500, 'mov rsi, cr3\nmov cr3, rsi'), rest });
    const [nested, shadow] = [run(true), run(false)];
    expect(nested.exits).toEqual({});
    const cycles = 1000 * (COSTS.base.cycles + COSTS.crAccess.cycles);
    expect(shadow.exits[28]).toBe(1000);
    // one in 40 000 cycles, and a few exits to handle it
    expect(shadow.exits[52]).toBeGreaterThan(0.85 * (cycles / 40_000));
    expect(shadow.exits[52]).toBeLessThan(1.1 * (cycles / 40_000));
    expect(shadow.exits[32]).toBe(2 * (shadow.exits[52] as number));
  });
});

describe('7.1 item 23: counters', () => {
  const mixed = (t: Tables) => {
    t.mapPages(WIN, 0x40_0000, 8, DATA);
    return { WIN };
  };
  test.each(MODES)('%s: by reason at the exit itself, and their sum is the total', (_n, ept) => {
    const r = micro({
      ept,
      tables: mixed,
      source: `cpuid\nmov rcx, [WIN]\nmov rax, cr3\nmov cr3, rax\nrdtsc\nmov ecx, 0xc0000080\nrdmsr\n${OFF}`,
    });
    const { counts } = r.vm.hypervisor;
    expect(counts.totalExits).toBe(Object.values(r.exits).reduce((a, b) => a + b, 0));
    expect(counts.totalExits).toBe(r.vm.stats.exits);
    expect([...counts.exits].reduce((a, b) => a + b, 0)).toBe(counts.totalExits);
    expect([...counts.cycles].reduce((a, b) => a + b, 0)).toBe(counts.totalCycles);
    expect(counts.cycles[10]).toBe(COSTS.base.cycles + COSTS.cpuid.cycles + 1);
  });
  test.each(MODES)('%s: they stay until someone resets them', (_n, ept) => {
    const r = micro({ ept, source: `${times(7, 'cpuid')}${OFF}` });
    const { hypervisor } = r.vm;
    r.vm.destroy();
    hypervisor.unloadModule('kvm-intel');
    hypervisor.loadModule('kvm-intel', { ept }, { keepCounters: true });
    expect(hypervisor.counts.exits[10]).toBe(7);
    hypervisor.counts.reset();
    expect([hypervisor.counts.totalExits, hypervisor.counts.totalCycles]).toEqual([0, 0]);
  });
  test.each(MODES)(
    '%s: the guest reads its own, undefined reasons are all ones, unhandled ones zero',
    (_n, ept) => {
      const leaf = (reason: number): string => `mov eax, 0x4ffffffe\nmov ecx, ${reason}\ncpuid\n`;
      const r = micro({
        ept,
        source: `${leaf(35)}mov r8, rdx\n${leaf(11)}mov r9, rdx\nmov r10, rax\n${leaf(10)}mov r11, rax\n${OFF}`,
      });
      expect([8, 9, 10, 11].map((i) => r.gpr(i))).toEqual([0xffff_ffffn, 0n, 0n, 3n]);
    },
  );
});

describe('7.1 item 24: the guest starts at its 64-bit entry', () => {
  test.each(MODES)('%s: the first instruction is 64-bit code, and no state was ever invalid', (_n, ept) => {
    const seen: number[] = [];
    const r = micro({
      ept,
      source: `cpuid\n${OFF}`,
      before: (vm) => {
        expect(vm.vcpu.longCode).toBe(true);
        expect(vm.vcpu.rip).toBe(BigInt(CODE));
        seen.push(vm.port.vmread32(VMCS.guestActivityState));
      },
    });
    expect(seen).toEqual([0]);
    expect([r.exits[33], r.exits[10]]).toEqual([undefined, 1]);
  });
});
