/** KVM-7.1 items 13 to 16: the limit of shadow pages, MMIO entries, changes of control registers, re-injection. */
import { describe, expect, test } from 'vitest';
import type { ShadowMmu } from '../../../lib/hypervisor/mmu/shadow.js';
import { PF } from '../../../lib/isa/state.js';
import {
  CR4_PCIDE,
  CR4_USUAL,
  DATA,
  DIRECT,
  IDT,
  MODES,
  mark,
  measure,
  micro,
  NOFLUSH,
  OFF,
  PS,
  type Tables,
  times,
} from './micro.js';

const WIN = 0x4000_0000n;
const FRAMES = 0x40_0000;

describe('7.1 item 13: the limit of shadow pages', () => {
  const REGIONS = 200;
  /** One page in each of 200 regions of 2 MiB, with a page table each. */
  const run = (memory: number) =>
    micro({
      ept: false,
      memory,
      tables: (t) => {
        for (let i = 0; i < REGIONS; i++) t.map(WIN + BigInt(i * 0x20_0000), FRAMES, DATA);
        return { WIN };
      },
      source: `${mark(9)}${mark(1)}mov rsi, WIN\n${times(REGIONS, 'mov rcx, [rsi]\nadd rsi, 0x200000')}
${mark(2)}mov rsi, WIN\n${times(REGIONS, 'mov rcx, [rsi]\nadd rsi, 0x200000')}${mark(3)}${OFF}`,
    });
  test('is a fiftieth of the pages of the guest; below it nothing is recycled', () => {
    const r = run(64 << 20);
    expect((r.vm.vcpu.mmu as ShadowMmu).context.pages.limit).toBe(327);
    const [first, second] = [r.between(1, 2), r.between(2, 3)];
    // a table a region, and the directory
    expect([first.exits, first.stats.mmu_cache_miss]).toEqual([{ 0: REGIONS }, REGIONS + 1]);
    expect([second.exits, r.vm.stats.mmu_recycled]).toEqual([{}, 0]);
  });
  test('is at least 64; fewer than 5 free: the oldest go, until 25 are free', () => {
    const r = run(4 << 20);
    const { pages } = (r.vm.vcpu.mmu as ShadowMmu).context;
    expect(pages.limit).toBe(64);
    // a fault allocates at most a few, so use stays between 64 - 25 and 64
    expect(r.vm.vcpu.mmu.pages.shadow).toBeLessThanOrEqual(64);
    expect(r.vm.vcpu.mmu.pages.shadow).toBeGreaterThan(64 - 25);
    const { mmu_recycled, mmu_shadow_zapped, mmu_cache_miss } = r.vm.stats;
    expect(mmu_recycled).toBe(mmu_shadow_zapped);
    expect(mmu_cache_miss - mmu_shadow_zapped).toBe(r.vm.vcpu.mmu.pages.shadow);
    // every region again, and the tables of code and directory that went with the oldest
    const second = r.between(2, 3).exits[0] as number;
    expect(second).toBeGreaterThanOrEqual(REGIONS);
    expect(second).toBeLessThan(1.2 * REGIONS);
  });
  test('roots in use are not recycled', () => {
    const r = run(4 << 20);
    const { root } = (r.vm.vcpu.mmu as ShadowMmu).context;
    expect([root.sp?.invalid, root.pgd]).toEqual([false, r.tables.root]);
    // one root was made, and that was at the start
    expect(r.vm.stats.tlb_flush).toBeLessThan(r.vm.stats.mmu_recycled);
  });
});

const mmio = (t: Tables): Record<string, bigint> => {
  // entries of 2 MiB, accessed and dirty, and one of 4 KiB
  t.map(0xfec0_0000n, 0xfec0_0000, DATA | PS, 2);
  t.map(0xfee0_0000n, 0xfee0_0000, DATA | PS, 2);
  t.map(WIN, 0xfec0_0000, DATA);
  return { IOAPIC: 0xfec0_0000n, XAPIC: 0xfee0_0000n, ABSENT: 0xfec8_0000n, SMALL: WIN };
};

describe('7.1 items 14 and 18: MMIO', () => {
  const N = 7;
  const RSVD = PF.p | PF.rsvd;
  // biome-ignore format: one row per line
  test.each([
    ['reads of the I/O APIC', 'mov rsi, IOAPIC', 'mov ecx, [rsi]', 1, [0, ...new Array(N - 1).fill(RSVD)]],
    ['writes to the I/O APIC', 'mov rsi, IOAPIC', 'mov [rsi], ecx', 1, [PF.w, ...new Array(N - 1).fill(RSVD | PF.w)]],
    ['a small page', 'mov rsi, SMALL', 'mov ecx, [rsi]', 1, [0, ...new Array(N - 1).fill(RSVD)]],
    ['nothing there', 'mov rsi, ABSENT', 'mov ecx, [rsi]', 1, [0, ...new Array(N - 1).fill(RSVD)]],
    ['the xAPIC page, which is never cached (measured C2)', 'mov rsi, XAPIC', 'mov ecx, [rsi+0x30]', N, new Array(N).fill(0)],
  ] as const)('%s', (_name, warm, access, first, codes) => {
    const both = [false, true].map((ept) =>
      measure({ ept, tables: mmio, warm: `${warm}\n`, measured: times(N, access) }),
    );
    const [shadow, nested] = both as [(typeof both)[0], (typeof both)[0]];
    expect(shadow.exits).toEqual({ 0: N });
    expect(shadow.faults.map((f) => f.code)).toEqual(codes);
    expect(nested.exits).toEqual(first === N ? { 48: N } : { 48: 1, 49: N - 1 });
    for (const r of both) {
      // hits on an MMIO entry do not reach the fault handler
      expect([r.stats.pf_taken, r.stats.insn_emulation]).toEqual([first, N]);
      expect(r.stats.pf_mmio_spte_created ?? 0).toBe(first === N ? 0 : 1);
    }
  });
  test('the I/O APIC and the local APIC are in the kernel; what is absent goes to user space', () => {
    const source = 'mov rsi, IOAPIC\nmov rdi, XAPIC\nmov rbx, ABSENT\n';
    const r = measure({
      ept: true,
      tables: mmio,
      warm: source,
      measured: 'mov ecx, [rsi]\nmov ecx, [rdi+0x30]\nmov ecx, [rbx]',
    });
    expect(r.stats.mmio_exits).toBe(1);
  });
  test.each(MODES)('%s: mmio_caching=N looks every access up', (_n, ept) => {
    const r = measure({
      ept,
      kvm: { mmio_caching: false },
      tables: mmio,
      warm: 'mov rsi, IOAPIC\n',
      measured: times(N, 'mov ecx, [rsi]'),
    });
    expect(r.exits).toEqual({ [ept ? 48 : 0]: N });
    expect([r.stats.pf_taken, r.stats.pf_mmio_spte_created]).toEqual([N, undefined]);
  });
});

describe('7.1 item 15: changes of control registers and EFER', () => {
  const toggle = (register: string, bit: number): string =>
    `mov rax, ${register}\n.byte 0x48,0x0f,0xba,0xf8,${bit}\nmov ${register}, rax\n`;
  const efer = (bit: number): string => `mov ecx, 0xc0000080\nrdmsr\n.byte 0x0f,0xba,0xf8,${bit}\nwrmsr\n`;
  // biome-ignore format: one row per line
  test.each([
    // link: faults that new roots cost
    ['CR4.PGE', toggle('cr4', 7), {}, { 28: 2 }],
    ['CR4.PCIDE', toggle('cr4', 17), { 28: 2 }, { 28: 2 }],
    ['CR4.SMEP', toggle('cr4', 20), { 28: 2 }, { 28: 2 }],
    ['CR4.SMAP', toggle('cr4', 21), { 28: 2 }, { 28: 2 }],
    ['CR4.PSE', toggle('cr4', 4), { 28: 2 }, { 28: 2 }],
    ['CR4.TSD', toggle('cr4', 2), {}, {}],
    ['CR0.WP', toggle('cr0', 16), {}, { 0: 1, 28: 2 }],
    ['CR0.TS', toggle('cr0', 3), {}, {}],
    ['CR0.AM', toggle('cr0', 18), { 28: 2 }, { 28: 2 }],
    ['EFER.NX', efer(11), { 31: 2, 32: 2 }, { 31: 2, 32: 2 }],
    ['EFER.SCE', efer(0), { 31: 2, 32: 2 }, { 31: 2, 32: 2 }],
  ] as const)('%s, there and back', (_name, source, nested, shadow) => {
    const measured = source + source;
    expect(measure({ ept: true, measured }).exits).toEqual(nested);
    expect(measure({ ept: false, measured }).exits).toEqual(shadow);
  });
  /** A table goes out of sync, then something, then it is written again. */
  const region = (t: Tables) => {
    t.mapPages(WIN, FRAMES, 8, DATA);
    return { WIN, PT: Number(t.get(t.entry(WIN, 2)) & ~0xfffn) };
  };
  const invpcid = (type: number): string =>
    `mov eax, ${type}\n.byte 0x66,0x0f,0x38,0x82,0x04,0x25\n.dword SCRATCH\n`;
  const reload = 'mov rax, cr3\nmov cr3, rax\n';
  const noflush = `mov rax, cr3\nmov rbx, ${NOFLUSH}\nor rax, rbx\nmov cr3, rax\n`;
  // biome-ignore format: one row per line
  test.each([
    ['nothing', '', 0],
    ['a load of CR3', reload, 1],
    ['a load of CR3 with bit 63', noflush, 0],
    ['CR4.PGE there and back', toggle('cr4', 7) + toggle('cr4', 7), 1],
    ['INVPCID of everything', invpcid(2), 1],
    ['INVPCID of all but globals', invpcid(3), 1],
    ['INVPCID of the current PCID', invpcid(1), 1],
    ['INVPCID of an address', invpcid(0), 0],
    ['CR4.PCIDE off', toggle('cr4', 17), 1],
    ['CR4.SMEP', toggle('cr4', 20), 1],
    ['CR0.TS', toggle('cr0', 3), 0],
  ] as const)('after %s a table is in sync again: %d', (_name, source, synced) => {
    const r = micro({
      ept: false,
      cr4: CR4_USUAL | CR4_PCIDE,
      tables: region,
      source: `${mark(9)}mov rcx, [WIN]\nmov rcx, [PT]\nmov rbx, 0\nmov [PT+0x800], rbx\n${source}${mark(1)}
mov [PT+0x808], rbx\n${mark(2)}${OFF}`,
    });
    expect(r.between(1, 2).exits).toEqual(synced === 1 ? { 0: 1 } : {});
  });
});

describe('7.1 item 16: faults while an event is delivered', () => {
  const lidt =
    'mov rax, IDT_FAR\nmov [SCRATCH+2], rax\nmov rax, 0xfff\nmov word [SCRATCH], ax\n.byte 0x0f,0x01,0x1c,0x25\n.dword SCRATCH\n';
  const handler = 'on_pf:\nadd rsp, 8\nmov rcx, DATA_ENTRY\nmov [rdi], rcx\niretq';
  test.each(MODES)(
    '%s: the first event in a fresh root finds its table unlinked (measured B10, F4)',
    (_n, ept) => {
      const r = measure({
        ept,
        direct: '2M',
        tables: (t) => ({
          R1: t.copyRoot(),
          WIN,
          ENTRY: t.entry(WIN),
          IDT_FAR: DIRECT + BigInt(IDT),
          DATA_ENTRY: BigInt(FRAMES) | DATA,
        }),
        // the table of the entry is not shadowed, so it can be written
        warm: `${lidt}mov rdi, ENTRY\nmov rcx, [rdi]\nmov rsi, WIN\n`,
        measured: 'mov rax, R1\nmov cr3, rax\nmov rcx, [rsi]',
        rest: handler,
      });
      if (ept) {
        expect(r.exits).toEqual({ 48: 1 });
        return;
      }
      // code linked; fault injected, its table linked in the middle of the delivery; the page filled in
      expect(r.exits).toEqual({ 0: 4, 28: 1 });
      const [, injected, delivery] = r.faults;
      expect([injected?.address, injected?.idtVectoring]).toEqual([WIN, 0]);
      expect(delivery).toMatchObject({
        code: 0,
        address: DIRECT + BigInt(IDT) + 14n * 16n,
        rip: injected?.rip,
      });
      // #PF with an error code, hardware exception, valid
      expect((delivery?.idtVectoring ?? 0) >>> 0).toBe(0x8000_0b0e);
      expect(r.stats.pf_guest).toBe(1);
    },
  );
  test('the page of the stack is no table any more', () => {
    // RSP in the page directory of the region: #UD, and its frame goes there
    const r = measure({
      ept: false,
      tables: (t) => {
        t.map(WIN, FRAMES, DATA);
        return { WIN, PD: t.entry(WIN, 2) };
      },
      warm: 'mov rcx, [WIN]\nmov rcx, [PD]\nmov rbx, rsp\n',
      measured: 'mov rsp, PD+0x800\nud2',
      rest: 'on_ud:\nadd qword [rsp], 2\niretq',
    });
    expect(r.exits).toEqual({ 0: 2 });
    expect(r.faults.map((f) => f.code & 0xff)).toContain(PF.p | PF.w);
    expect([r.stats.mmu_shadow_zapped, r.stats.mmu_pte_write, r.stats.pf_fixed]).toEqual([1, undefined, 1]);
  });
});
