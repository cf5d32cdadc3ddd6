/**
 * The truths of KVM-7.3 and of the measurements B, C and F, one row each: a guest fragment, the exits that it makes under
 * EPT and with shadow paging, and KVM's statistics of the latter.
 */
import { describe, expect, test } from 'vitest';
import type { KvmStats } from '../../../lib/hypervisor/stats.js';
import {
  A,
  CR4_PCIDE,
  CR4_USUAL,
  DATA,
  DIRECT,
  measure,
  NOFLUSH,
  P,
  TABLE,
  type Tables,
  times,
} from './micro.js';

const WIN = 0x4000_0000n;
const FRAMES = 0x40_0000;

/** A region at WIN: 256 pages in one page table; a second root; frames beyond. */
const region = (t: Tables): Record<string, number | bigint> => {
  t.mapPages(WIN, FRAMES, 256, DATA);
  const PD = t.entry(WIN, 2);
  const R1 = t.copyRoot();
  return {
    WIN,
    FRAMES,
    PD,
    PT: Number(t.get(PD) & ~0xfffn),
    R0: t.root,
    R1,
    BACK: BigInt(t.root) | NOFLUSH,
    DATA,
    READONLY: P | A,
    // a second name of the directory, through the directory itself
    PD_INSIDE: WIN + 0x1f_f000n,
    _: t.map(WIN + 0x1f_f000n, PD, DATA) ?? 0,
  };
};
/** The region is shadowed, its tables are mapped, and R1 has its first links. */
const WARM = `mov rsi, WIN
mov rcx, [rsi]
mov rcx, [PT]
mov rcx, [PD]
mov rcx, [PD_INSIDE]
mov rax, R1+1\nmov cr3, rax
mov rcx, [rsi]
mov rax, BACK\nmov cr3, rax
`;
const flush = 'mov rax, cr3\nmov cr3, rax\n';
const set = (value: string): string => `mov rbx, ${value}\nmov [PT], rbx\n`;
const stores = (n: number, at: string): string =>
  `mov rdi, ${at}\nmov rbx, 0\n${times(n, 'mov [rdi], rbx\nadd rdi, 8')}`;
/** One text poke: set, load the poking space, copy, clear, load back (measured B1). */
const poke = (frame: number): string =>
  `${set(`FRAMES+${frame * 4096}+DATA`)}mov rax, R1+1\nmov cr3, rax\nmov [rsi], rcx\n${set('0')}mov rax, BACK\nmov cr3, rax\n`;
/** Copy on write: the fault, the entry cleared, INVLPG, the new entry, and the write again. */
const COW =
  'on_pf:\nadd rsp, 8\nmov rbx, 0\nmov [PT], rbx\ninvlpg [rsi]\nmov rbx, FRAMES+0x100000+DATA\nmov [PT], rbx\niretq';

interface Row {
  readonly name: string;
  readonly warm?: string;
  readonly code: string;
  readonly rest?: string;
  readonly ept?: Readonly<Record<number, number>>;
  readonly shadow: Readonly<Record<number, number>>;
  readonly stats?: Partial<KvmStats>;
}

// biome-ignore format: one row per line
const ROWS: readonly Row[] = [
  { name: '7.3: N loads of CR3', code: times(9, 'mov cr3, r15'), warm: 'mov r15, cr3\n', shadow: { 28: 9 }, stats: { tlb_flush: 9 } },
  { name: '7.3: N INVLPG', code: times(9, 'invlpg [rsi]'), shadow: { 14: 9 }, stats: { invlpg: 9 } },
  { name: '7.3: P present, accessed and dirty pages in one table: P/8', code: `mov rdi, WIN+0x10000\n${times(240, 'mov [rdi], rcx\nadd rdi, 4096')}`, shadow: { 0: 30 }, stats: { pf_fixed: 30, pages_4k: 240 } },
  { name: '7.3: K stores to a synced table: 1', code: stores(50, 'PT+0x900'), shadow: { 0: 1 }, stats: { mmu_unsync: 1 } },
  { name: '7.3: and 1 more after the next flushing load', code: `${stores(50, 'PT+0x900')}${flush}${stores(50, 'PT+0x900')}`, shadow: { 0: 2, 28: 2 } },
  { name: '7.3: 3 entries of a directory by a name that it does not map: 3', code: stores(3, 'PD+0x900'), shadow: { 0: 3 }, stats: { mmu_flooded: 1 } },
  { name: '7.3: more than 3: 4', code: stores(40, 'PD+0x900'), shadow: { 0: 4 }, stats: { mmu_flooded: 1, mmu_pte_write: 3 } },
  { name: '7.3: by one that it maps: K', code: stores(40, 'PD_INSIDE+0x900'), shadow: { 0: 40 }, stats: { mmu_pte_write: 40 } },
  { name: '7.3: REP STOS over an old page table: 1', code: 'mov rdi, PT\nmov rcx, 512\nmov rax, 0\nrep stosq', shadow: { 0: 1 } },
  { name: '7.3: REP STOS over an old directory: 2', code: 'mov rdi, PD\nmov rcx, 512\nmov rax, 0\nrep stosq', shadow: { 0: 2 }, stats: { mmu_shadow_zapped: 1 } },
  { name: '7.3: new CR3 with nothing changed: link faults only', warm: 'mov rdi, R1\nmov rcx, [rdi]\n', code: 'mov rax, R2\nmov cr3, rax\nmov rcx, [rsi]', shadow: { 0: 1, 28: 1 }, stats: { mmu_cache_miss: 1 } },
  { name: 'B1: a text poke is two loads of CR3 and one fault, at the clear', warm: poke(1), code: times(12, poke(1)), shadow: { 0: 12, 28: 24 }, stats: { tlb_flush: 12, remote_tlb_flush_requests: 24 } },
  { name: 'B2: another frame costs a fill', warm: poke(1) + poke(2), code: times(6, poke(1) + poke(2)), shadow: { 0: 24, 28: 24 } },
  { name: 'B4: protect, unprotect and rewrite: one fault a change', code: times(4, `${set('FRAMES+READONLY')}${flush}${set('FRAMES+DATA')}${flush}mov [rsi], rcx`), shadow: { 0: 8, 28: 16 } },
  { name: 'B5, F2: 491 entries cleared by a name that the directory maps', code: stores(255, 'PD_INSIDE+0x800'), shadow: { 0: 255 }, stats: { pf_emulate: 255 } },
  { name: 'B8: a write to a read-only page that the shadow never had: exit 2, injected 3', warm: 'mov r14, rsp\nmov rbx, FRAMES+0x10000+READONLY\nmov [PT+0x80], rbx\nmov rax, cr3\nmov cr3, rax\n', code: 'mov [rsi+0x10000], rcx\nafter:', rest: 'on_pf:\npop rbx\nmov rsp, r14\nmov rax, after\njmp rax', shadow: { 0: 1 }, stats: { pf_guest: 1 } },
  { name: 'B13: a table out of sync that becomes a directory goes', warm: `${set('FRAMES+DATA')}mov rbx, FRAMES+0x5000+DATA\nmov [rsi], rbx\n`, code: 'mov rbx, PT+TABLE\nmov [PDPT+16], rbx\nmov rdi, 0x80000000\nmov rcx, [rdi]', shadow: { 0: 2 }, stats: { mmu_shadow_zapped: 1 } },
  { name: 'B14: INVLPG of a synced table changes nothing', code: 'invlpg [rsi]\nmov rcx, [rsi]', shadow: { 14: 1 } },
  { name: 'B15: INVPCID of everything', code: 'mov eax, 2\n.byte 0x66,0x0f,0x38,0x82,0x04,0x25\n.dword SCRATCH', shadow: { 58: 1 }, stats: { tlb_flush: 1 } },
  { name: 'B16: CR4.PGE there and back', code: times(2, 'mov rax, cr4\nxor eax, 0x80\nmov cr4, rax'), shadow: { 28: 2 } },
  { name: 'B18: a synced table is two requests', warm: set('FRAMES+DATA'), code: `${set('FRAMES+READONLY')}${flush}`, shadow: { 28: 2 }, stats: { remote_tlb_flush_requests: 2, tlb_flush: 1 } },
  { name: 'C1: one violation a 2 MiB unit, whatever the access', code: `mov rdi, BIG\nmov rcx, [rdi]\nmov [rdi+0x1000], rcx\nmov rcx, [rdi+0x200000]`, ept: { 48: 2 }, shadow: { 0: 2 }, stats: { pages_2m: 2 } },
  { name: 'C4: loads of CR3 and changes of CR4.PGE under EPT', code: times(8, `${flush}mov rax, cr4\nxor eax, 0x80\nmov cr4, rax`), shadow: { 28: 24 } },
  { name: 'F1: two stores, one a flushing load, same frame', code: `${set('FRAMES+DATA')}${flush}mov rcx, [rsi]\n${set('FRAMES+DATA')}${flush}mov rcx, [rsi]`, shadow: { 0: 2, 28: 4 } },
  { name: 'F1: another frame: one fill each', code: `${set('FRAMES+0x1000+DATA')}${flush}mov rcx, [rsi]\n${set('FRAMES+DATA')}${flush}mov rcx, [rsi]`, shadow: { 0: 4, 28: 4 } },
  { name: 'F6: copy on write of a present page, table in sync', warm: `${set('FRAMES+READONLY')}${flush}mov rcx, [rsi]\n`, code: 'mov [rsi], rcx', rest: COW, shadow: { 0: 3, 14: 1 }, stats: { pf_guest: 1 } },
  { name: 'F6: and out of sync', warm: `${set('FRAMES+READONLY')}${flush}mov rcx, [rsi]\nmov rbx, 0\nmov [PT+0x900], rbx\n`, code: 'mov [rsi], rcx', rest: COW, shadow: { 0: 2, 14: 1 }, stats: { pf_guest: 1 } },
];

describe.each([
  ['EPT', true],
  ['shadow', false],
] as const)('%s', (_mode, ept) => {
  test.each(ROWS.map((row): [string, Row] => [row.name, row]))('%s', (_name, row) => {
    const r = measure({
      ept,
      cr4: CR4_USUAL | CR4_PCIDE,
      direct: '2M',
      tables: (t) => {
        const constants = region(t);
        const PDPT = Number(t.get(t.root) & ~0xfffn);
        return { ...constants, PDPT, TABLE, R2: t.copyRoot(), BIG: DIRECT + 0x80_0000n };
      },
      warm: WARM + (row.warm ?? ''),
      measured: row.code,
      ...(row.rest === undefined ? {} : { rest: row.rest }),
    });
    const time = Object.fromEntries(
      Object.entries(r.exits).filter(([n]) => n !== '48' || row.ept !== undefined),
    );
    expect(ept ? time : r.exits).toEqual(ept ? (row.ept ?? {}) : row.shadow);
    if (ept) return;
    expect(r.stats).toMatchObject(row.stats ?? {});
    // every fault that reached the MMU has one result
    const { pf_taken = 0, pf_fixed = 0, pf_emulate = 0, pf_guest = 0, pf_spurious = 0 } = r.stats;
    expect(pf_taken).toBe(pf_fixed + pf_emulate + pf_guest + pf_spurious);
  });
});

test('B8: the exit has the code of the shadow walk, the guest gets that of its own', () => {
  const r = measure({
    ept: false,
    tables: (t) => {
      t.map(WIN, FRAMES, P | A);
      return { WIN };
    },
    warm: 'mov r14, rsp\nmov rsi, WIN\n',
    measured: 'mov [rsi], rcx\nafter:',
    rest: 'on_pf:\npop rbx\nmov rsp, r14\nmov rax, after\njmp rax',
  });
  expect(r.faults.map((f) => f.code)).toEqual([2]);
  expect(r.run.gpr(3)).toBe(3n);
});
