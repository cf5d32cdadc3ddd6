/**
 * Both sets of tables at every load of CR3 of a run under shadow paging: as the guest left them, and as the hypervisor
 * has made them when the guest goes on. For pictures of small guests; a large one fills memory with its album.
 */
import { EXIT } from '../../vmx/port.js';
import type { ObservedMachine } from '../observe.js';
import { guestTables, type PageTable, shadowTables } from './tables.js';

export interface TablePair {
  readonly guest: PageTable;
  readonly shadow: PageTable;
}

export interface AlbumPage {
  /** What the guest loads. */
  readonly cr3: bigint;
  /** CR3 until now. */
  readonly from: number;
  /** Tables of `from`, at the exit. */
  readonly before: TablePair;
  /** Tables of `cr3`, at the entry that follows. */
  readonly after: TablePair;
}

const pair = (machine: ObservedMachine): TablePair => ({
  guest: guestTables(machine),
  shadow: shadowTables(machine),
});

/** Starts an album; it grows while the machine runs. */
export const tableAlbum = (machine: ObservedMachine): readonly AlbumPage[] => {
  const pages: AlbumPage[] = [];
  let open: Omit<AlbumPage, 'after'> | undefined;
  machine.on('kvm_exit', (e) => {
    const qualification = Number(BigInt.asUintN(32, e.info1));
    // access type 0 (MOV to CR) of register 3
    if (e.exit_reason !== EXIT.crAccess || (qualification & 0x3f) !== 3) return;
    const cr3 = e.cpu.gpr((qualification >>> 8) & 15);
    open = { cr3, from: machine.vm.vcpu.cr3, before: pair(machine) };
  });
  machine.on('kvm_entry', () => {
    if (open === undefined) return;
    pages.push({ ...open, after: pair(machine) });
    open = undefined;
  });
  return pages;
};
