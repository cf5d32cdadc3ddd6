import { expect, test } from 'vitest';
import { bootUnder } from '../../../lib/lab/both.js';
import { type AlbumPage, tableAlbum } from '../../../lib/lab/pictures/album.js';
import { drawTables, leavesOf, tablesIn } from '../../../lib/lab/pictures/draw-tables.js';
import { drawFrames } from '../../../lib/lab/pictures/frame-map.js';
import {
  eptTables,
  type FrameUse,
  frameUses,
  guestTables,
  type PageTable,
  type ShadowPageInfo,
  shadowPages,
  shadowTables,
} from '../../../lib/lab/pictures/tables.js';

const OPTIONS = { guest: 'tiny', memory: 64 << 20 } as const;
const HEAP = 0x80_0000n;
const heap = (root: PageTable) => leavesOf(root).filter((l) => l.address >= HEAP && l.address < 1n << 30n);

test('a fork in both sets of tables: out of step, synchronised, made by faults, found again', async () => {
  let album: readonly AlbumPage[] = [];
  let uses: FrameUse[] = [];
  let kept: ShadowPageInfo[] = [];
  await bootUnder('shadow', {
    ...OPTIONS,
    tiny: { touchPages: 6, forks: 1, forkWrites: 2 },
    onMachine: (machine) => {
      album = tableAlbum(machine);
      machine.on('kvm_exit', (e) => {
        if (e.exit_reason !== 28) return;
        uses = frameUses(machine);
        kept = shadowPages(machine);
      });
    },
  });
  const [flush, toChild, toParent] = album.slice(-3) as [AlbumPage, AlbumPage, AlbumPage];
  const writable = (root: PageTable) => heap(root).filter((l) => l.entry.write).length;
  const unsync = (root: PageTable) => tablesIn(root).filter((t) => t.shadow?.unsync).length;
  expect(writable(flush.before.guest)).toBe(0);
  expect([writable(flush.before.shadow), unsync(flush.before.shadow)]).toEqual([6, 1]);
  expect([writable(flush.after.shadow), unsync(flush.after.shadow)]).toEqual([0, 0]);
  expect(toChild.after.shadow.entries).toEqual([]);
  expect(toChild.after.shadow.shadow).toMatchObject({ gfn: Number(toChild.cr3 >> 12n), level: 4, roots: 1 });
  expect([writable(toParent.before.guest), writable(toParent.before.shadow)]).toEqual([2, 2]);
  expect(tablesIn(toParent.after.shadow).map((t) => t.at)).toEqual(
    tablesIn(flush.after.shadow).map((t) => t.at),
  );

  // every frame that a guest table lies in, and that is shadowed, is one in the map
  expect(uses).toHaveLength((64 << 20) / 4096);
  for (const sp of kept.filter((p) => !p.direct))
    expect(uses[sp.gfn]).toBe(sp.level > 1 ? 'upper table' : sp.unsync ? 'unsync table' : 'table');
  expect(uses[0x800]).toMatch(/page/);

  const svg = drawTables(flush.before.shadow, { title: 'a <title>', names: { 511: 'kernel' } });
  expect(svg).toContain('a &lt;title&gt;');
  expect(svg).toContain('unsync');
  expect(svg).toContain('0–5  wu--- →');
  expect(svg).toContain('511  kernel');
  expect(svg).not.toMatch(/NaN|undefined/);
  const map = drawFrames(uses, 'memory');
  expect(map).toContain('unsync: writes are free');
  expect(map).not.toMatch(/NaN|undefined/);
});

test('tables translate as the processor does', async () => {
  // at each entry: what the shadow tables map for the heap is what the guest's tables and the slots say
  let compared = 0;
  await bootUnder('shadow', {
    ...OPTIONS,
    tiny: { touchPages: 40, unmaps: 10 },
    onMachine: (machine) => {
      machine.on('kvm_entry', () => {
        if (compared > 2000 || machine.vm.vcpu.mmu.pages.unsync > 0) return;
        const guest = new Map(heap(guestTables(machine)).map((l) => [l.address, l.entry]));
        for (const { address, entry } of heap(shadowTables(machine))) {
          const page = guest.get(address);
          expect(page).toBeDefined();
          expect(machine.vm.slots.hpa(page!.target)).toBe(entry.target);
          expect(!entry.write || page!.write).toBe(true);
          compared++;
        }
      });
    },
  });
  expect(compared).toBeGreaterThan(30);
});

test('EPT is one small set of tables; each kind of paging refuses the other', async () => {
  let ept: PageTable | undefined;
  const caught: unknown[] = [];
  await bootUnder('ept', {
    ...OPTIONS,
    tiny: { touchPages: 600 },
    onMachine: (machine) => {
      machine.on('kvm_entry', () => {
        ept = eptTables(machine);
        if (caught.length > 0) return;
        try {
          shadowTables(machine);
        } catch (e) {
          caught.push(e);
        }
      });
    },
  });
  expect(caught).toMatchObject([{ id: 'tables.paging' }]);
  expect(ept?.shadow).toBeUndefined();
  const pages = leavesOf(ept!).filter((l) => l.entry.kind === 'page');
  expect(pages.length).toBeGreaterThan(2);
  for (const { entry } of pages)
    expect([entry.write, entry.execute, entry.target % 0x20_0000]).toEqual([true, true, 0]);
});
