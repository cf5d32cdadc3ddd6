/** How runs end that do not end well, and what is refused: a clear message or an outcome, never a stack of ours. */
import { tmpdir } from 'node:os';
import { describe, expect, test } from 'vitest';
import { LabError } from '../../lib/base/error.js';
import { createMmu } from '../../lib/hypervisor/mmu/create.js';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { createVm } from '../../lib/hypervisor/vm.js';
import { type BootOptions, boot, type Machine } from '../../lib/lab/machine.js';
import { createHardware } from '../../lib/vmx/hardware.js';
import { MODES, machineWith } from './compare.js';
import { TINY_MEMORY, tinyImage } from './tiny.js';

const M = 1_000_000;

const loaded = (params: Record<string, unknown> = {}): Hypervisor => {
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', params);
  return hypervisor;
};
/** What a call throws; it must be a LabError, and it must leave nothing behind that keeps the module in use. */
const refusal = async (hypervisor: Hypervisor, work: () => unknown): Promise<LabError> => {
  let thrown: unknown;
  try {
    await work();
  } catch (e) {
    thrown = e;
  }
  expect(thrown).toBeInstanceOf(LabError);
  if (hypervisor.loaded('kvm-intel')) hypervisor.unloadModule('kvm-intel');
  return thrown as LabError;
};

describe.each(MODES)('%s: a guest of a few instructions', (_name, ept) => {
  const run = (code: readonly number[], rflags = 2): { kind: string; detail?: string; retired: number } => {
    const image = tinyImage(code);
    const m = machineWith({ ...image, entry: { ...image.entry, rflags } }, ept, {
      memory: TINY_MEMORY,
      hostTickHz: 0,
    });
    const outcome = m.vm.run({ limit: 1_000_000 });
    m.vm.destroy();
    m.hypervisor.unloadModule('kvm-intel');
    return { ...outcome, retired: m.hardware.port.retired() };
  };

  // biome-ignore format: one row per line
  test.each([
    ['cli; hlt', [0xfa, 0xf4], 'halt', 2],
    ['hlt with interrupts on and no timer', [0xfb, 0xf4], 'halt', 2],
    ['jmp to itself', [0xeb, 0xfe], 'limit', 1_000_000],
    ['ud2 with an empty IDT', [0x0f, 0x0b], 'triple-fault', 0],
    ['nop; int3 with an empty IDT', [0x90, 0xcc], 'triple-fault', 1],
    ['division by zero', [0x31, 0xc9, 0xf7, 0xf1], 'triple-fault', 1],
    ['page fault: a load from -4096', [0x48, 0x8b, 0x04, 0x25, 0, 0xf0, 0xff, 0xff], 'triple-fault', 0],
    // mov al, 0xfe; out 0x64, al
    ['i8042 reset line', [0xb0, 0xfe, 0xe6, 0x64], 'reset', 2],
    // mov dx, 0x604; mov ax, 0x2000; out dx, ax
    ['ACPI power-off', [0x66, 0xba, 4, 6, 0x66, 0xb8, 0, 0x20, 0x66, 0xef], 'poweroff', 3],
  ] as const)('%s', (_what, code, kind, retired) => {
    const r = run(code);
    expect(r).toMatchObject({ kind, retired });
  });

  test('a jump to where no memory is cannot be emulated; the outcome says where', () => {
    // mov eax, 0x40000000; jmp rax
    const r = run([0xb8, 0, 0, 0, 0x40, 0xff, 0xe0]);
    expect(r.kind).toBe('emulation-failure');
    expect(r.detail).toContain('40000000');
  });

  test('a state that VM entry refuses: the outcome prints the VMCS with the rule that failed', () => {
    const r = run([0xf4], 0);
    expect(r.kind).toBe('entry-failure');
    expect(r.detail).toMatch(/RFLAGS/i);
  });
});

describe('limits and signals', () => {
  test.each(MODES)('%s: maxInstructions ends the run at the exact instruction', async (paging, ept) => {
    const r = await boot(loaded({ ept }), { maxInstructions: 3_333_333 });
    expect(r).toMatchObject({ paging, outcome: 'limit', instructions: 3_333_333, phases: [] });
  });

  test('a limit of 0 instructions', async () => {
    expect(await boot(loaded(), { maxInstructions: 0 })).toMatchObject({ outcome: 'limit', instructions: 0 });
  });

  test('an abort ends the run between two slices, and the module can be unloaded', async () => {
    const hypervisor = loaded();
    const control = new AbortController();
    const r = await boot(hypervisor, { signal: control.signal, onProgress: () => control.abort() });
    expect(r.outcome).toBe('interrupted');
    expect(r.instructions).toBeGreaterThan(0);
    expect(r.instructions).toBeLessThan(100 * M);
    hypervisor.unloadModule('kvm-intel');
  });

  test('vm.interrupt() from an observer ends the run, and it goes on from there', () => {
    const m = machineWith(tinyImage([0x0f, 0xa2, 0xeb, 0xfc]), true, { memory: TINY_MEMORY });
    m.vm.onExit = () => m.vm.interrupt();
    expect(m.vm.run({ limit: 1000 }).kind).toBe('interrupted');
    m.vm.onExit = undefined;
    expect(m.vm.run({ limit: 1000 }).kind).toBe('limit');
    expect(m.hardware.port.retired()).toBe(1000);
  });

  test('what an observer throws reaches the caller, and the module can be unloaded', async () => {
    const hypervisor = loaded();
    const onMachine = ({ vm }: Machine): void => {
      vm.onExit = () => {
        throw new Error('observer');
      };
    };
    await expect(boot(hypervisor, { onMachine, maxInstructions: 100 * M })).rejects.toThrow('observer');
    hypervisor.unloadModule('kvm-intel');
  });

  test('a workload that never ends is ended by the limit; 4 KiB backing boots too, one violation a page', async () => {
    const options: BootOptions = {
      append: 'rdinit=/workload',
      workload: '#!/bin/sh\necho "[vmxlab] init"\nwhile :; do :; done',
      maxInstructions: 430 * M,
    };
    const r = await boot(loaded(), { ...options, backing: '4K' });
    expect(r).toMatchObject({ outcome: 'limit', instructions: 430 * M });
    expect(r.phases.map((p) => p.name)).toEqual(['boot']);
    expect(r.console).not.toMatch(/BUG:|Oops|Call Trace|Kernel panic/);
    // a page of 4 KiB at a time instead of 2 MiB
    expect(r.exits[48]).toBeGreaterThan(3000);
    expect(r.kvmStats).toMatchObject({ pages_2m: 0 });
    expect(r.kvmStats['pages_4k']).toBeGreaterThan(3000);
    expect(r.exits[14] ?? 0).toBe(0);
  });
});

describe('modules', () => {
  test('cannot be unloaded or loaded again while a VM runs', async () => {
    const hypervisor = loaded();
    const seen: unknown[] = [];
    const attempt = (work: () => void): void => {
      try {
        work();
        seen.push('done');
      } catch (e) {
        seen.push(e instanceof LabError ? e.id : e);
      }
    };
    await boot(hypervisor, {
      maxInstructions: 1000,
      onMachine: () => {
        attempt(() => hypervisor.unloadModule('kvm-intel'));
        attempt(() => hypervisor.unloadModule('kvm'));
        attempt(() => hypervisor.loadModule('kvm-intel', { ept: false }));
      },
    });
    expect(seen).toEqual(['module.in-use', 'module.in-use', 'module.loaded']);
    hypervisor.unloadModule('kvm-intel');
    hypervisor.unloadModule('kvm');
    expect(await refusal(hypervisor, () => boot(hypervisor))).toMatchObject({ id: 'module.not-loaded' });
  });

  // biome-ignore format: one row per line
  test.each([
    ['kvm-amd', {}, 'module.name', 'kvm-amd'],
    ['kvm-intel', { etp: false }, 'module.parameter', 'etp'],
    ['kvm-intel', { toString: 1 }, 'module.parameter', 'toString'],
    ['kvm-intel', { ept: 'N' }, 'module.parameter', 'ept'],
    ['kvm-intel', { ept: 0 }, 'module.parameter', 'ept'],
    ['kvm-intel', { ple_window: 1.5 }, 'module.parameter', '1.5'],
    ['kvm', { ept: false }, 'module.parameter', 'ept'],
  ] as const)('%s %j: %s', async (name, params, id, says) => {
    const hypervisor = new Hypervisor();
    const error = await refusal(hypervisor, () => hypervisor.loadModule(name as 'kvm', params));
    expect(error.id).toBe(id);
    expect(error.message).toContain(says);
  });

  test('counters start at 0 with a load, unless they are kept', async () => {
    const hypervisor = loaded();
    const first = await boot(hypervisor, { maxInstructions: M });
    const sum = (exits: Readonly<Record<number, number>>): number =>
      Object.values(exits).reduce((a, b) => a + b, 0);
    hypervisor.unloadModule('kvm-intel');
    hypervisor.loadModule('kvm-intel', {}, { keepCounters: true });
    const kept = await boot(hypervisor, { maxInstructions: M });
    expect(sum(kept.exits)).toBe(2 * sum(first.exits));
    hypervisor.unloadModule('kvm-intel');
    hypervisor.loadModule('kvm-intel');
    expect((await boot(hypervisor, { maxInstructions: M })).exits).toEqual(first.exits);
  });
});

/** Options that no type checker has seen, as a notebook or the command line may give them. */
const wrong = (options: Record<string, unknown>): BootOptions => ({
  // a wrong limit would be none
  onMachine: () => {
    throw new Error('the machine was started');
  },
  ...options,
});

describe('refused options', () => {
  // biome-ignore format: one row per line
  test.each([
    [{ guest: 'windows' }, 'guest.name', 'windows'],
    [{ leaves: 'F1999' }, 'lab.layout', 'F1999'],
    [{ leaves: 'constructor' }, 'lab.layout', 'constructor'],
    [{ engine: 'jit' }, 'engine.name', 'jit'],
    [{ backing: '1G' }, undefined, '1G'],
    [{ timeModel: 'seconds' }, undefined, 'seconds'],
    [{ maxInstructions: -1 }, undefined, '-1'],
    [{ maxInstructions: 1.5 }, undefined, '1.5'],
    [{ maxInstructions: '1000' }, undefined, '1000'],
    [{ maxInstructions: Number.NaN }, undefined, 'NaN'],
    [{ paging: 'shadow' }, undefined, 'paging'],
    [{ memory: 0 }, 'machine.memory', '0'],
    [{ memory: -(256 << 20) }, 'machine.memory', '-268435456'],
    [{ memory: 1 << 20 }, 'machine.memory', '1048576'],
    [{ memory: (256 << 20) + 4096 }, 'machine.memory', '268439552'],
    [{ memory: 2 ** 32 }, 'machine.memory', '4294967296'],
    [{ memory: Number.NaN }, 'machine.memory', 'NaN'],
    [{ memory: '256M' }, 'machine.memory', '256M'],
    [{ cmdline: 'x'.repeat(3000) }, 'loader.cmdline', '3000'],
    [{ append: 'a\0b' }, 'loader.cmdline', ''],
    [{ kernel: '/nonexistent/vmlinuz' }, 'guest.file', '/nonexistent/vmlinuz'],
    [{ initrd: '/nonexistent/initrd' }, 'guest.file', '/nonexistent/initrd'],
    [{ kernel: tmpdir() }, undefined, tmpdir()],
    [{ initrd: tmpdir() }, undefined, tmpdir()],
  ])('%j: %s', async (options, id, says) => {
    const hypervisor = loaded();
    const error = await refusal(hypervisor, () => boot(hypervisor, wrong(options)));
    if (id !== undefined) expect(error.id).toBe(id);
    expect(error.message).toContain(says);
  });

  // biome-ignore format: one row per line
  test.each([
    [{ vcpus: 2 }, 'vm.vcpus', '2'],
    [{ vcpus: 0 }, 'vm.vcpus', '0'],
    [{ labLayout: 'F1999' }, 'lab.layout', 'F1999'],
    [{ wallClock: 'yesterday' }, 'vm.wallClock', 'yesterday'],
    [{ memory: 4097 }, 'memory.slot', '4097'],
    [{ memory: [{ gpa: 0, bytes: 8192 }, { gpa: 4096, bytes: 4096 }] }, 'memory.overlap', '1000'],
    [{ hideCpuid: ['no-such-feature'] }, undefined, 'no-such-feature'],
  ])('createVm %j: %s', async (options, id, says) => {
    const hypervisor = loaded();
    const { port } = createHardware(64 << 20);
    const error = await refusal(hypervisor, () =>
      createVm(hypervisor, port, { memory: TINY_MEMORY, createMmu, ...options }),
    );
    if (id !== undefined) expect(error.id).toBe(id);
    expect(error.message).toContain(says);
  });

  test.each([0, -4096, 4097, 2 ** 33, Number.NaN])('host memory of %d bytes', async (bytes) => {
    const error = await refusal(new Hypervisor(), () => createHardware(bytes));
    expect(error.message).toContain(String(bytes));
  });

  test('a VM that was destroyed does not run', async () => {
    const m = machineWith(tinyImage([0xf4]), true, { memory: TINY_MEMORY });
    m.vm.destroy();
    m.vm.destroy();
    expect(await refusal(m.hypervisor, () => m.vm.run())).toMatchObject({ id: 'vm.destroyed' });
  });
});
