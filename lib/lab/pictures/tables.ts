/**
 * Paging tables of a machine as data: the guest's own, the shadow tables, and EPT's. All three are 8-byte entries in
 * memory and are read from there, as the processor reads them; of shadow tables the hypervisor's notes come with them.
 *
 * SDM volume 3, "4-Level Paging" and "Format of EPT Paging-Structure Entries"; KVM-3.1. Only reads, and only at 4 levels:
 * guests in other paging modes are refused.
 */
import { LabError } from '../../base/error.js';
import type { ShadowPage } from '../../hypervisor/mmu/pages.js';
import { ShadowMmu } from '../../hypervisor/mmu/shadow.js';
import { isEptMmio, isMmio } from '../../hypervisor/mmu/spte.js';
import { EFER } from '../../isa/state.js';
import { EPTE, frameAddress, PTE, PTE_NX_HI } from '../../memory/paging.js';
import { VMCS } from '../../vmx/fields.js';
import type { Machine } from '../run-types.js';

/** Whose tables: they differ in the format of entries and in whose addresses these hold. */
export type TablesOf = 'guest' | 'shadow' | 'ept';

export interface PageEntry {
  readonly index: number;
  readonly value: bigint;
  /** `mmio`: an entry that stands for a device, which the processor must refuse. */
  readonly kind: 'table' | 'page' | 'mmio';
  /** Physical address of the table or page: the guest's, or the host's. */
  readonly target: number;
  readonly write: boolean;
  readonly user: boolean;
  readonly execute: boolean;
  readonly accessed: boolean;
  readonly dirty: boolean;
  /** The table that the entry points to. */
  readonly table?: PageTable;
}

/** What the hypervisor knows about a shadow table. */
export interface ShadowPageInfo {
  /** Guest frame of the table that it shadows, or, of a direct one, the first frame that it maps. */
  readonly gfn: number;
  readonly level: number;
  /** Maps a piece of a large guest page: no guest table stands behind it. */
  readonly direct: boolean;
  /** Rights of the path above, like `rwx` with u for user: `wux`. */
  readonly access: string;
  /** The guest may have written its table since the last synchronisation. */
  readonly unsync: boolean;
  /** Roots that this is: the current one, and up to three before it. */
  readonly roots: number;
  /** Entries in other tables that point here. */
  readonly parents: number;
}

export interface PageTable {
  readonly of: TablesOf;
  /** 4 (PML4) to 1 (PT). */
  readonly level: number;
  /** Physical address of the table: the guest's, or the host's. */
  readonly at: number;
  /** First linear address (or guest-physical, of EPT) that it translates, without sign extension. */
  readonly base: bigint;
  /** Entries that are present, by index. */
  readonly entries: readonly PageEntry[];
  readonly shadow?: ShadowPageInfo;
}

/** Names of the tables by level, as the SDM has them. */
export const LEVEL_NAMES = ['', 'PT', 'PD', 'PDPT', 'PML4'] as const;

const accessText = (access: number): string =>
  `${(access & 2) !== 0 ? 'w' : '-'}${(access & 4) !== 0 ? 'u' : '-'}${(access & 1) !== 0 ? 'x' : '-'}`;

const infoOf = (sp: ShadowPage): ShadowPageInfo => ({
  gfn: sp.gfn,
  level: sp.level,
  direct: sp.direct,
  access: accessText(sp.access),
  unsync: sp.unsync,
  roots: sp.rootCount,
  parents: sp.parents.length,
});

const entryOf = (
  of: TablesOf,
  level: number,
  index: number,
  lo: number,
  hi: number,
): PageEntry | undefined => {
  const ept = of === 'ept';
  if ((ept ? lo & EPTE.rwx : lo & PTE.p) === 0) return undefined;
  const mmio = ept ? isEptMmio(lo) : of === 'shadow' && isMmio(lo, hi);
  const leaf = level === 1 || (level < 4 && (lo & PTE.ps) !== 0);
  const bit = (paging: number, inEpt: number): boolean => (lo & (ept ? inEpt : paging)) !== 0;
  return {
    index,
    value: (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0),
    kind: mmio ? 'mmio' : leaf ? 'page' : 'table',
    target: frameAddress(lo, hi),
    write: (lo & PTE.w) !== 0,
    user: !ept && (lo & PTE.u) !== 0,
    execute: ept ? (lo & EPTE.x) !== 0 : (hi & PTE_NX_HI) === 0,
    accessed: bit(PTE.a, EPTE.a),
    dirty: bit(PTE.d, EPTE.d),
  };
};

interface Source {
  readonly of: TablesOf;
  /** Where in host memory the table at an address is; undefined when nothing is there. */
  readonly hpa: (at: number) => number | undefined;
  readonly note: (at: number) => ShadowPageInfo | undefined;
}

const readTable = (machine: Machine, source: Source, at: number, level: number, base: bigint): PageTable => {
  const { memory } = machine.hardware.port;
  const hpa = source.hpa(at);
  const entries: PageEntry[] = [];
  for (let index = 0; hpa !== undefined && memory.has(hpa, 4096) && index < 512; index++) {
    const [lo, hi] = [memory.read32(hpa + 8 * index), memory.read32(hpa + 8 * index + 4)];
    const entry = entryOf(source.of, level, index, lo, hi);
    if (entry === undefined) continue;
    const below = base + (BigInt(index) << BigInt(3 + 9 * level));
    entries.push(
      entry.kind === 'table'
        ? { ...entry, table: readTable(machine, source, entry.target, level - 1, below) }
        : entry,
    );
  }
  const shadow = source.note(at);
  return { of: source.of, level, at, base, entries, ...(shadow === undefined ? {} : { shadow }) };
};

const requireLongMode = (machine: Machine): void => {
  if ((machine.vm.vcpu.efer & EFER.lma) === 0)
    throw new LabError(
      'tables.mode',
      'the guest is not in 64-bit mode',
      'look at its tables later in its boot',
    );
};

const pageOf = (address: number): number => address - (address % 4096);

/**
 * The guest's tables, by guest-physical addresses.
 * @param cr3 which address space; default the current one
 * @throws LabError while the guest is not in 64-bit mode
 */
export const guestTables = (machine: Machine, cr3 = machine.vm.vcpu.cr3): PageTable => {
  requireLongMode(machine);
  const hpa = (gpa: number): number | undefined => machine.vm.slots.backed(Math.floor(gpa / 4096));
  return readTable(machine, { of: 'guest', hpa, note: () => undefined }, pageOf(cr3), 4, 0n);
};

const shadowMmu = (machine: Machine): ShadowMmu => {
  const { mmu } = machine.vm.vcpu;
  if (!(mmu instanceof ShadowMmu))
    throw new LabError(
      'tables.paging',
      'this machine has no shadow tables',
      'load kvm-intel with ept: false',
    );
  return mmu;
};

/**
 * The tables that the processor walks under shadow paging, by host-physical addresses, from GUEST_CR3 of the VMCS.
 * @throws LabError with EPT, or while the guest is not in 64-bit mode
 */
export const shadowTables = (machine: Machine): PageTable => {
  const { pages } = shadowMmu(machine).context;
  requireLongMode(machine);
  const note = (at: number): ShadowPageInfo | undefined => {
    const sp = pages.at(at) as ShadowPage | undefined;
    return sp === undefined ? undefined : infoOf(sp);
  };
  const root = pageOf(machine.hardware.port.vmreadNumber(VMCS.guestCr3));
  return readTable(machine, { of: 'shadow', hpa: (at) => at, note }, root, 4, 0n);
};

/**
 * The extended page tables, by host-physical addresses, from the EPT pointer of the VMCS.
 * @throws LabError without EPT
 */
export const eptTables = (machine: Machine): PageTable => {
  if (!machine.vm.params.ept)
    throw new LabError('tables.paging', 'this machine has no EPT', 'load kvm-intel with ept: true');
  const root = pageOf(machine.hardware.port.vmreadNumber(VMCS.eptPointer));
  return readTable(machine, { of: 'ept', hpa: (at) => at, note: () => undefined }, root, 4, 0n);
};

/**
 * All shadow tables that the hypervisor keeps, of all address spaces, oldest first.
 * @throws LabError with EPT
 */
export const shadowPages = (machine: Machine): ShadowPageInfo[] =>
  [...shadowMmu(machine).context.pages.active].map(infoOf);

/** What a guest frame is to the shadow MMU. */
export type FrameUse = 'unused' | 'page' | 'large page' | 'table' | 'unsync table' | 'upper table';

/**
 * One value a guest frame, in order: whether it holds a shadowed page table, or is mapped by some shadow entry.
 * @throws LabError with EPT
 */
export const frameUses = (machine: Machine): FrameUse[] => {
  const { context } = shadowMmu(machine);
  const uses: FrameUse[] = new Array<FrameUse>(context.frames.end).fill('unused');
  for (const sp of context.pages.active) {
    if (sp.level > 2) continue;
    for (let index = 0; index < 512; index++) {
      const at = sp.hpa + 8 * index;
      const lo = context.lo(at);
      const entry = entryOf('shadow', sp.level, index, lo, context.hi(at));
      if (entry?.kind !== 'page') continue;
      const gfn = sp.gfnAt(index);
      if (sp.level === 1) uses[gfn] = 'page';
      else for (let i = 0; i < 512; i++) if (uses[gfn + i] === 'unused') uses[gfn + i] = 'large page';
    }
  }
  for (const sp of context.pages.active)
    if (!sp.direct) uses[sp.gfn] = sp.level > 1 ? 'upper table' : sp.unsync ? 'unsync table' : 'table';
  return uses;
};
