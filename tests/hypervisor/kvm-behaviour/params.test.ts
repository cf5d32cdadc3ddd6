/** Module parameters with an effect (KVM-8.4): what each one changes in the counts. `mmio_caching` is in limits.test.ts. */
import { describe, expect, test } from 'vitest';
import { entryState } from '../machine.js';
import { DATA, DIRECT, MODES, mark, measure, micro, OFF, PS, type Tables, times } from './micro.js';

describe('kvm_intel', () => {
  test.each([
    [true, {}],
    [false, { 14: 5, 28: 10 }],
  ])('ept=%s', (ept, exits) => {
    expect(measure({ ept, measured: times(5, 'invlpg [rsi]\nmov rax, cr3\nmov cr3, rax') }).exits).toEqual(
      exits,
    );
  });

  test.each(MODES)(
    '%s: vpid=N flushes at every entry and exit, so that there are more page walks',
    (_n, ept) => {
      const walks = (vpid: boolean): number => {
        const { port } = measure({ ept, params: { vpid }, measured: times(50, 'cpuid\nmov rcx, [SCRATCH]') })
          .run.vm;
        return port.walks.walks1d + port.walks.walks2d;
      };
      const [tagged, untagged] = [walks(true), walks(false)];
      // the code page and the data page, for each CPUID
      expect(untagged - tagged).toBeGreaterThanOrEqual(2 * 49);
      const exits = [true, false].map(
        (vpid) => measure({ ept, params: { vpid }, measured: times(50, 'cpuid') }).exits,
      );
      expect(exits[0]).toEqual(exits[1]);
    },
  );

  test.each([
    [true, { 28: 0 }],
    [false, { 28: 6 }],
  ])(
    'unrestricted_guest=%s: loads and stores of CR3 while the guest does not page',
    (unrestricted_guest, exits) => {
      // 32-bit code: mov eax, cr3; mov cr3, eax, three times; the mark and power-off work in it too
      const flat32 = { selector: 0x10, base: 0n, limit: 0xffff_ffff, attr: 0xc09b };
      const r = micro({
        ept: true,
        params: { unrestricted_guest },
        cr0: 0x11,
        cr4: 0,
        efer: 0,
        segments: { cs: flat32 },
        source: `${mark(1)}${'.byte 0x0f,0x20,0xd8,0x0f,0x22,0xd8\n'.repeat(3)}${mark(2)}${OFF}`,
      });
      expect(r.between(1, 2).exits[28] ?? 0).toBe(exits[28]);
      expect(r.outcome.kind).toBe('poweroff');
    },
  );

  test.each([
    [true, 1],
    [false, 0],
  ])("eptad=%s: the walk of the guest's tables counts as a write or not", (eptad, writes) => {
    const r = micro({ ept: true, params: { eptad }, source: OFF });
    // bit 1 of the qualification; the first violation is the walk's
    expect(r.faults.filter((f) => (f.code & 2) !== 0)).toHaveLength(writes);
    expect(r.exits[48]).toBe(1);
  });

  test.each(MODES)('%s: flexpriority=N makes xAPIC accesses plain MMIO', (_n, ept) => {
    const run = (flexpriority: boolean) =>
      measure({
        ept,
        params: { flexpriority },
        tables: (t: Tables) => {
          t.map(0xfee0_0000n, 0xfee0_0000, DATA | PS, 2);
          return { XAPIC: 0xfee0_0000n };
        },
        warm: 'mov rsi, XAPIC\n',
        measured: times(6, 'mov ecx, [rsi+0x30]'),
      });
    const [page, plain] = [run(true), run(false)];
    expect(page.exits).toEqual(ept ? { 48: 6 } : { 0: 6 });
    expect(plain.exits).toEqual(ept ? { 48: 1, 49: 5 } : { 0: 6 });
    expect([page.stats.pf_taken, plain.stats.pf_taken]).toEqual([6, 1]);
    // the task priority is shadowed all the same
    expect(
      measure({ ept, params: { flexpriority: false }, measured: '.byte 0x44,0x0f,0x20,0xc0' }).exits,
    ).toEqual({});
  });

  test.each([
    [{}, 3, 0x8000],
    [{ ple_gap: 0 }, 0, 0],
    [{ ple_window: 1024 }, 5, 0x8000],
    [{ ple_window_grow: 0 }, 14, 4096],
    [{ ple_window_max: 8192 }, 7, 8192],
  ])('%j: %d exits of a loop of PAUSE, and the window after it', (params, exits, window) => {
    const r = measure({
      ept: true,
      params,
      measured: times(20_000, '.byte 0xf3,0x90'),
      vm: { timeModel: 'instructions' },
    });
    expect([r.exits[40] ?? 0, r.run.vm.vcpu.pleWindow]).toEqual([exits, window]);
  });

  /** DS with a privilege that its selector has not: entry refuses it unless the guest is unrestricted. */
  const ds = { selector: 0x1b, base: 0n, limit: 0xffff_ffff, attr: 0xc093 };
  const fix = 'mov eax, 0x18\nmov ds, ax\n';
  test.each([
    ['EPT', true, {}, 0],
    ['EPT, restricted', true, { unrestricted_guest: false }, 2],
    ['shadow', false, {}, 2],
  ] as const)(
    '%s: emulate_invalid_guest_state emulates until the state can be entered',
    (_n, ept, params, emulated) => {
      const r = micro({ ept, params, segments: { ds }, source: `${fix}mov cx, ds\n${OFF}` });
      expect([r.outcome.kind, r.gpr(1) & 0xffffn]).toEqual(['poweroff', 0x18n]);
      expect(r.vm.stats.insn_emulation).toBe(emulated);
      // one return from the guest that the hardware does not know of
      expect(r.vm.stats.exits - r.vm.hypervisor.counts.totalExits).toBe(emulated === 0 ? 0 : 1);
      expect(r.exits[33]).toBeUndefined();
    },
  );
  test.each([
    ['EPT, restricted', true, { unrestricted_guest: false }],
    ['shadow', false, {}],
  ] as const)('%s: without it the entry fails', (_n, ept, params) => {
    const r = micro({
      ept,
      params: { ...params, emulate_invalid_guest_state: false },
      segments: { ds },
      source: `${fix}${OFF}`,
    });
    expect([r.outcome.kind, r.exits]).toEqual(['entry-failure', { 33: 1 }]);
  });
  test('the entry state of the tests is valid', () => {
    expect(micro({ ept: false, source: OFF }).vm.stats.insn_emulation).toBe(0);
    expect(entryState.segments.ds.selector & 3).toBe(0);
  });
});

describe('kvm', () => {
  const touch = (n: number): string => `mov rdi, BIG\n${times(n, 'mov rcx, [rdi]\nadd rdi, 4096')}`;
  const tables = () => ({ BIG: DIRECT + 0x60_0000n });
  test.each([
    ['Y', {}, 256],
    ['N', { tdp_mmu: false }, 32],
  ] as const)('tdp_mmu=%s: pages of 4 KiB that the host has', (_n, kvm, violations) => {
    const r = measure({
      ept: true,
      kvm,
      tables,
      direct: '2M',
      vm: { backing: '4K' },
      before: (vm) => vm.load(0x60_0000, new Uint8Array(0x20_0000)),
      warm: 'mov rdi, DIRECT\nmov rcx, [rdi]\n',
      measured: touch(256),
    });
    expect([r.exits, r.stats.pages_4k]).toEqual([{ 48: violations }, 256]);
  });
  test('tdp_mmu=N without accessed bits fills nothing ahead', () => {
    const r = measure({
      ept: true,
      kvm: { tdp_mmu: false },
      params: { eptad: false },
      tables,
      direct: '2M',
      vm: { backing: '4K' },
      before: (vm) => vm.load(0x60_0000, new Uint8Array(0x20_0000)),
      warm: 'mov rdi, DIRECT\nmov rcx, [rdi]\n',
      measured: touch(64),
    });
    expect(r.exits).toEqual({ 48: 64 });
  });

  // biome-ignore format: one row per line
  test.each([
    ['EPT', true, false, { 48: 1 }, undefined],
    // the region read; then each page that is executed, and each that is read again
    ['EPT, nx_huge_pages', true, true, { 48: 1 + 3 + 1 }, 1],
    ['shadow', false, false, { 0: 1 }, undefined],
    // pieces of eight
    ['shadow, nx_huge_pages', false, true, { 0: 1 + 2 }, 1],
  ] as const)('%s: code in a large page', (_n, ept, nx_huge_pages, exits, splits) => {
    const call = (page: number): string => `mov rax, BIG+${page * 4096}\ncall rax\n`;
    const r = measure({
      ept,
      kvm: { nx_huge_pages },
      tables,
      direct: '2M',
      before: (vm) => vm.load(0x60_0000, new Uint8Array(0x20_0000).fill(0xc3)),
      // tables and stack are in a region with code, so they are small pages themselves
      warm: 'mov rdi, DIRECT+0x400000\nmov rcx, [rdi]\npush rcx\npop rcx\n',
      measured: `mov rdi, BIG\nmov rcx, [rdi]\n${call(0)}${call(1)}${call(9)}mov rcx, [rdi+0x3000]`,
    });
    expect([r.exits, r.stats.nx_lpage_splits]).toEqual([exits, splits]);
  });

  test.each(MODES)('%s: ignore_msrs makes unknown MSRs read 0', (_n, ept) => {
    const source = `mov ecx, 0x1234\nmov rbx, 1\nrdmsr\nmov rbx, rax\n${OFF}on_gp:\nadd rsp, 8\nadd qword [rsp], 2\niretq`;
    const run = (ignore_msrs: boolean) => micro({ ept, kvm: { ignore_msrs }, source });
    // not ignored: #GP, and RAX keeps what it was
    expect([run(true), run(false)].map((r) => [r.exits[31], r.vm.log.text().includes('0x1234')])).toEqual([
      [1, true],
      [1, true],
    ]);
    expect(run(true).gpr(3)).toBe(0n);
  });
});
