/** KVM-7.1 items 6 to 8: shadow pages and roots, the guest walk, prefetch; each with its mirror under EPT. */
import { describe, expect, test } from 'vitest';
import type { ShadowMmu } from '../../../lib/hypervisor/mmu/shadow.js';
import { PF } from '../../../lib/isa/state.js';
import { A, D, DATA, MODES, mark, measure, micro, NX, OFF, P, type Tables, times, U, W } from './micro.js';

/** Linear addresses of a region with tables of its own, and the frames behind it. */
const WIN = 0x4000_0000n;
const FRAMES = 0x40_0000;
const load = (root: string): string => `mov rax, ${root}\nmov cr3, rax\n`;

describe('7.1 item 6: shadow pages by frame and role, cached across loads of CR3', () => {
  const roots = (t: Tables) => {
    const [R1, R2, R3, R4, R5] = [1, 2, 3, 4, 5].map(() => t.copyRoot()) as [
      number,
      number,
      number,
      number,
      number,
    ];
    return { R0: t.root, R1, R2, R3, R4, R5 };
  };
  const names = ['R0', 'R1', 'R2', 'R3', 'R4', 'R5'];
  test.each(MODES)(
    '%s: loads of known roots cost one exit each with shadow tables, and nothing more',
    (_n, ept) => {
      const r = measure({
        ept,
        tables: roots,
        warm: names.map(load).join(''),
        measured: times(10, names.map(load).join('')),
      });
      expect(r.exits).toEqual(ept ? {} : { 28: 60 });
      expect(r.stats.mmu_cache_miss).toBeUndefined();
    },
  );
  test('the first load makes a root, and each top-level entry is linked at its first use', () => {
    const FAR = WIN << 9n;
    const r = measure({
      ept: false,
      tables: (t) => {
        t.map(FAR, FRAMES, P | A);
        return { R1: t.copyRoot(), FAR };
      },
      warm: 'mov rbx, FAR\nmov rcx, [rbx]\n',
      measured: `${load('R1')}mov rcx, [rbx]`,
    });
    expect(r.exits).toEqual({ 28: 1, 0: 2 });
    expect(r.faults.map((f) => f.code)).toEqual([PF.i, 0]);
    // the writable leaf is made anew without its dirty bit; the read-only one is there already
    expect([r.stats.mmu_cache_miss, r.stats.pf_fixed, r.stats.pf_spurious]).toEqual([1, 1, 1]);
  });
  test('three roots are kept beside the current one, the last used first', () => {
    const { run } = measure({ ept: false, tables: roots, measured: names.map(load).join('') });
    const { context } = run.vm.vcpu.mmu as ShadowMmu;
    const at = roots(run.tables);
    const first = at.R1 - 6 * 4096;
    expect(run.tables.root).toBeLessThan(at.R1);
    // R5 is current; R4, R3 and R2 are kept
    const pgds = [context.root, ...context.previous].map((r) => (r.pgd - first) / 4096);
    expect(pgds.map((n) => n - (pgds[0] as number))).toEqual([0, -1, -2, -3]);
  });
  test('tables under an entry with other rights are other shadow pages', () => {
    // R1 has the same tables at the first entry without X: data pages only
    const r = measure({
      ept: false,
      tables: (t) => {
        t.mapPages(WIN << 9n, FRAMES, 8, DATA);
        const R1 = t.copyRoot();
        const top = t.entry(WIN << 9n, 4) - t.root;
        t.set(R1 + top, t.get(R1 + top) | NX);
        return { R1, FAR: WIN << 9n };
      },
      warm: `mov rbx, FAR\nmov rcx, [rbx]\n`,
      measured: `${load('R1')}mov rcx, [rbx]`,
    });
    // the root, then three levels again
    expect(r.exits).toEqual({ 28: 1, 0: 2 });
    expect([r.stats.mmu_cache_miss, r.stats.pf_fixed]).toEqual([4, 2]);
  });
});

describe('7.1 item 7: the walk of the guest decides whose fault it is', () => {
  // biome-ignore format: one row per line
  const rows: readonly (readonly [name: string, flags: bigint, access: string, injected: number | undefined])[] = [
    ['read of an absent page', 0n, 'read', 0],
    ['write to an absent page', 0n, 'write', PF.w],
    ['fetch from an absent page', 0n, 'fetch', PF.i],
    ['read', P, 'read', undefined],
    ['write to a read-only page', P | A, 'write', PF.p | PF.w],
    ['write to a user page', P | W | U, 'write', undefined],
    ['fetch from a page without X', P | NX, 'fetch', PF.p | PF.i],
    ['fetch', P, 'fetch', undefined],
    ['reserved bit', P | W | (1n << 51n), 'read', PF.p | PF.rsvd],
    ['user: read of a kernel page', P | W, 'user read', PF.p | PF.u],
    ['user: write to a kernel page', P | W, 'user write', PF.p | PF.u | PF.w],
    ['user: read of a user page', P | U, 'user read', undefined],
    ['user: write to a read-only page', P | U, 'user write', PF.p | PF.u | PF.w],
    ['user: write', P | W | U, 'user write', undefined],
    ['user: read of an absent page', 0n, 'user read', PF.u],
  ];
  const ACCESS: Readonly<Record<string, string>> = {
    read: 'mov rcx, [rsi]',
    write: 'mov [rsi], rcx',
    fetch: 'call rsi',
  };
  /** The access of row `i` to WIN + i pages; R15 has where to go on, RBX the error code or -1. */
  const step = ([, , access]: (typeof rows)[number], i: number): string => {
    const user = access.startsWith('user ');
    const body = user
      ? [0x23, 'SHELF+0x800', 2, 0x2b, `USER+${access === 'user read' ? 0 : 16}`]
          .map((v) => `mov rax, ${v}\npush rax\n`)
          .join('')
          .concat('iretq')
      : ACCESS[access];
    return `mov rbx, -1\nmov r15, next${i}\nmov rsi, WIN+${i * 4096}\n${body}\nnext${i}:\nmov [SCRATCH+${8 * i}], rbx\n`;
  };
  const run = (ept: boolean) =>
    micro({
      ept,
      source: `mov r14, rsp\n${rows.map(step).join('')}${OFF}
on_pf:\npop rbx\nmov rsp, r14\nmov rax, r15\njmp rax
on_ud:\nmov rsp, r14\nmov rax, r15\njmp rax`,
      tables: (t) => {
        rows.forEach(([, flags], i) => {
          t.map(WIN + BigInt(i * 4096), FRAMES + i * 4096, flags);
        });
        // two user pages: mov rcx, [rsi]; ud2 and mov [rsi], rcx; ud2
        const USER = 0x8000_0000n;
        t.map(USER, FRAMES + 0x2_0000, P | U | A);
        t.map(USER + 0x1000n, FRAMES + 0x2_1000, P | W | U | A | D);
        return { WIN, USER, SHELF: USER + 0x1000n };
      },
      before: (vm) => {
        vm.load(FRAMES, Uint8Array.from([...new Array<number>(15 * 4096).fill(0xc3)]));
        const code = new Uint8Array(32);
        code.set([0x48, 0x8b, 0x0e, 0x0f, 0x0b]);
        code.set([0x48, 0x89, 0x0e, 0x0f, 0x0b], 16);
        vm.load(FRAMES + 0x2_0000, code);
      },
    });
  test.each(MODES)(
    '%s: true faults are injected with their error code, the others never reach the guest',
    (_n, ept) => {
      const r = run(ept);
      const seen = rows.map(([name], i) => [name, Number(BigInt.asIntN(64, r.read(0x1_6000 + 8 * i)))]);
      expect(seen).toEqual(rows.map(([name, , , injected]) => [name, injected ?? -1]));
      const faults = rows.filter(([, , , injected]) => injected !== undefined).length;
      expect(r.vm.stats.pf_guest).toBe(ept ? 0 : faults);
      const { pf_taken, pf_fixed, pf_emulate, pf_spurious, pf_guest } = r.vm.stats;
      expect(pf_taken).toBe(pf_fixed + pf_emulate + pf_spurious + pf_guest);
    },
  );
  test.each(MODES)(
    '%s: accessed and dirty flags; a clean page is writable only after a write fault',
    (_n, ept) => {
      const r = micro({
        ept,
        source: `${mark(9)}mov rsi, WIN\n${mark(1)}mov rcx, [rsi]\n${mark(2)}mov rcx, [PTE]\nmov [SCRATCH], rcx
mov [rsi], rax\n${mark(3)}mov rcx, [PTE]\nmov [SCRATCH+8], rcx\n${OFF}`,
        tables: (t) => {
          t.map(WIN, FRAMES, P | W);
          return { WIN, PTE: t.entry(WIN) };
        },
      });
      const flags = [0, 8].map((i) => r.read(0x1_6000 + i) & (A | D));
      expect(flags).toEqual([A, A | D]);
      const codes = [r.between(1, 2), r.between(2, 3)].map((d) =>
        d.faults.map((f) => [f.reason, f.code & 7]),
      );
      // the read of the PTE maps the table for reading only: it is a table in sync
      expect(codes).toEqual(
        ept
          ? [[[48, 1]], []]
          : [
              [[0, 0]],
              [
                [0, 0],
                [0, PF.p | PF.w],
              ],
            ],
      );
    },
  );
  test.each(MODES)(
    '%s: demand-zero memory costs two faults a page, and one for the first store to the table',
    (_n, ept) => {
      const N = 16;
      const r = measure({
        ept,
        tables: (t) => ({ WIN, PT: t.entry(WIN), R0: t.root, FRAMES }),
        warm: 'mov rcx, [PT]\nmov [0x12ff0], rcx\n',
        measured: `mov rsi, WIN\nmov rdi, PT\nmov rbx, FRAMES+0x67\n${times(N, 'mov [rsi], rbx\nadd rsi, 4096')}`,
        rest: 'on_pf:\nadd rsp, 8\nmov [rdi], rbx\nadd rdi, 8\nadd rbx, 4096\niretq',
      });
      expect(r.exits).toEqual(ept ? { 48: 1 } : { 0: 2 * N + 1 });
      if (!ept) expect([r.stats.pf_guest, r.stats.pf_fixed]).toEqual([N, N + 1]);
    },
  );
});

describe('7.1 item 8: prefetch of the aligned group of eight', () => {
  const touch = (n: number, step = 4096): string =>
    `mov rsi, WIN\n${times(n, `mov rcx, [rsi]\nadd rsi, ${step}`)}`;
  const pages = (n: number, flags: bigint) => (t: Tables) => {
    t.mapPages(WIN, FRAMES, n, flags);
    return { WIN };
  };
  // biome-ignore format: one row per line
  test.each([
    ['accessed and dirty', DATA, '2M', 8],
    ['accessed, clean', P | W | A, '2M', 8],
    ['not accessed', P | W | D, '2M', 64],
    ['accessed and dirty, frames that the host does not have yet', DATA, '4K', 64],
  ] as const)('64 pages, %s', (_name, flags, backing, fills) => {
    const r = measure({ ept: false, vm: { backing }, tables: pages(64, flags), measured: touch(64) });
    expect(r.exits).toEqual({ 0: fills });
    expect(r.stats.pages_4k).toBe(64);
    const nested = measure({ ept: true, vm: { backing }, tables: pages(64, flags), measured: touch(64) });
    // the pages, and two tables
    expect(nested.exits).toEqual({ 48: backing === '4K' ? 66 : 1 });
  });
  test('stops at the first entry that is not present and accessed', () => {
    const r = measure({
      ept: false,
      tables: (t) => {
        t.mapPages(WIN, FRAMES, 8, DATA);
        t.map(WIN + 0x3000n, FRAMES + 0x3000, P | W);
        return { WIN };
      },
      // 0 brings 1 and 2; 7, 4, 5 and 6 come alone
      measured: `mov rsi, WIN\n${[0, 1, 2, 7, 4, 5, 6].map((i) => `mov rcx, [rsi+${i * 4096}]`).join('\n')}`,
    });
    expect(r.exits).toEqual({ 0: 5 });
  });
  test('a prefetched entry is writable when the guest allows it and the page is dirty, not when it is a table', () => {
    const write = (i: number): string => `mov rcx, [rsi+${i * 4096}]\nmov [rsi+${i * 4096}], rcx\n`;
    const r = micro({
      ept: false,
      source: `${mark(9)}mov rsi, WIN\nmov rcx, [rsi]\n${mark(1)}${write(1)}${mark(2)}${write(2)}${mark(3)}${write(3)}${mark(4)}${OFF}`,
      tables: (t) => {
        t.map(WIN, FRAMES, DATA);
        t.map(WIN + 0x1000n, FRAMES + 0x1000, DATA);
        t.map(WIN + 0x2000n, FRAMES + 0x2000, P | W | A);
        t.map(WIN + 0x3000n, Number(t.get(t.entry(WIN, 2)) & ~0xfffn), DATA);
        return { WIN };
      },
    });
    const counts = [1, 2, 3].map((i) => r.between(i, i + 1).exits[0] ?? 0);
    expect(counts).toEqual([0, 1, 1]);
    expect(r.between(3, 4).stats.mmu_unsync).toBe(1);
  });
});
