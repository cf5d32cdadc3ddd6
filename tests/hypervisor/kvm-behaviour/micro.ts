/**
 * Micro guests: a few instructions of real guest code on the real processor, VMX unit and MMU, with exact counts between
 * marks. A mark is a write to port 0x510; its own exit is not in the difference.
 *
 * The guest starts in 64-bit mode with its first 2 MiB mapped one to one by 4 KiB pages (present, writable, accessed,
 * dirty) and all its memory at DIRECT. Code, stack, descriptor tables and task-state segment lie in one aligned group of
 * eight pages, so that one fill maps them all. Registers RAX and RDX are scratch; RBP counts in `times`.
 */
import { Assembler, type Program } from '../../../lib/guests/tiny/assembler.js';
import type { EntryState } from '../../../lib/hypervisor/entry-state.js';
import { createMmu } from '../../../lib/hypervisor/mmu/create.js';
import { Hypervisor } from '../../../lib/hypervisor/modules.js';
import type { Outcome } from '../../../lib/hypervisor/next.js';
import type { KvmStats, StatName } from '../../../lib/hypervisor/stats.js';
import { createVm, type Vm, type VmOptions } from '../../../lib/hypervisor/vm.js';
import { createHardware, type EngineName } from '../../../lib/vmx/hardware.js';
import { VMCS } from '../../../lib/vmx/port.js';
import { entryState } from '../machine.js';

export const P = 1n;
export const W = 2n;
export const U = 4n;
export const A = 0x20n;
export const D = 0x40n;
export const PS = 0x80n;
export const NX = 1n << 63n;
export const TABLE = P | W | U | A;
export const DATA = P | W | A | D;

export const DIRECT = 0xffff_8880_0000_0000n;
/** Linear and guest-physical addresses of the first group of pages, and where tables begin. */
export const CODE = 0x1_0000;
export const STACK = 0x1_3000;
export const GDT = 0x1_3000;
export const IDT = 0x1_4000;
export const TSS = 0x1_5000;
export const SCRATCH = 0x1_6000;
const FIRST_TABLE = 0x10_0000;
const MIB = 1 << 20;

/** Guest page tables, built before the guest runs. */
export class Tables {
  readonly memory = new Map<number, bigint>();
  readonly root: number;
  #next = FIRST_TABLE;

  /** @param bytes guest memory @param direct size of the pages at DIRECT, or how to map it */
  constructor(bytes: number, direct: '4K' | '2M' | 'none') {
    this.root = this.page();
    for (let at = 0; at < 2 * MIB; at += 4096) this.map(BigInt(at), at, DATA);
    if (direct === '4K') for (let at = 0; at < bytes; at += 4096) this.map(DIRECT + BigInt(at), at, DATA);
    if (direct === '2M')
      for (let at = 0; at < bytes; at += 2 * MIB) this.map(DIRECT + BigInt(at), at, DATA | PS, 2);
  }
  /** A free frame below 2 MiB. */
  page(): number {
    const at = this.#next;
    this.#next += 4096;
    if (this.#next > 2 * MIB) throw new Error('no more room for tables');
    return at;
  }
  set(at: number, value: bigint): void {
    this.memory.set(at, value);
  }
  get(at: number): bigint {
    return this.memory.get(at) ?? 0n;
  }
  /** Guest-physical address of the entry for `gva` at a level, making tables on the way. */
  entry(gva: bigint, level = 1, root = this.root, upper = TABLE): number {
    let table = root;
    for (let l = 4; ; l--) {
      const at = table + Number((gva >> BigInt(12 + 9 * (l - 1))) & 511n) * 8;
      if (l === level) return at;
      if ((this.get(at) & P) === 0n) this.set(at, BigInt(this.page()) | upper);
      table = Number(this.get(at) & 0xf_ffff_ffff_f000n);
    }
  }
  map(gva: bigint, gpa: number, flags: bigint, level = 1, root = this.root): void {
    this.set(this.entry(gva, level, root), BigInt(gpa) | flags);
  }
  /** `n` pages from `gva` on, to consecutive frames. */
  mapPages(gva: bigint, gpa: number, n: number, flags: bigint): void {
    for (let i = 0; i < n; i++) this.map(gva + BigInt(i * 4096), gpa + i * 4096, flags);
  }
  /** Another root with the same top-level entries. */
  copyRoot(): number {
    const root = this.page();
    for (let i = 0; i < 512; i++) {
      const e = this.get(this.root + 8 * i);
      if (e !== 0n) this.set(root + 8 * i, e);
    }
    return root;
  }
}

/** One #PF exit or EPT violation. */
export interface Fault {
  readonly reason: number;
  readonly code: number;
  readonly address: bigint;
  readonly rip: bigint;
  readonly idtVectoring: number;
}

export interface MicroOptions {
  readonly ept: boolean;
  readonly source: string;
  readonly constants?: Readonly<Record<string, number | bigint>>;
  readonly params?: Record<string, unknown>;
  readonly kvm?: Record<string, unknown>;
  readonly vm?: Partial<VmOptions>;
  readonly memory?: number;
  readonly direct?: '4K' | '2M' | 'none';
  /** Adds to the tables, and gives further constants. */
  readonly tables?: (t: Tables) => Readonly<Record<string, number | bigint>> | undefined;
  readonly rflags?: number;
  readonly cr0?: number;
  readonly cr4?: number;
  readonly efer?: number;
  /** Instead of flat ones. */
  readonly segments?: Partial<EntryState['segments']>;
  readonly limit?: number;
  /** The reference engine when absent: it is made at once, and a micro guest is short. */
  readonly engine?: EngineName;
  /** Called with the VM before the guest runs. */
  readonly before?: (vm: Vm) => void;
}

export interface Delta {
  readonly exits: Readonly<Record<number, number>>;
  readonly stats: Readonly<Partial<KvmStats>>;
  readonly faults: readonly Fault[];
  /** Virtual cycles and retired instructions. */
  readonly cycles: number;
  readonly instructions: number;
}

interface Snapshot {
  readonly exits: Readonly<Record<number, number>>;
  readonly stats: KvmStats;
  readonly faults: number;
  readonly cycles: number;
  readonly instructions: number;
}

export interface MicroRun {
  readonly vm: Vm;
  readonly outcome: Outcome;
  readonly program: Program;
  readonly tables: Tables;
  readonly console: string;
  readonly faults: readonly Fault[];
  /** What happened between two marks. */
  between(from: number, to: number): Delta;
  /** All exits of the run. */
  readonly exits: Readonly<Record<number, number>>;
  gpr(i: number): bigint;
  /** Eight bytes of guest memory. */
  read(gpa: number): bigint;
}

/** Source of a mark. */
export const mark = (n: number): string => `mov edx, 0x510\nmov eax, ${n}\nout dx, eax\n`;
let labels = 0;
/** Repeats `body`, which leaves RBP alone. */
export const times = (n: number, body: string): string => {
  const label = `times${labels++}`;
  return `mov ebp, ${n}\n${label}:\n${body}\nsub ebp, 1\njnz ${label}\n`;
};
/** Turns the machine off. */
export const OFF = 'mov edx, 0x604\nmov eax, 0x2000\nout dx, ax\n';
/** CR3 with a PCID, and bit 63. */
export const NOFLUSH = 1n << 63n;
export const CR4_USUAL = 0x20;
export const CR4_PCIDE = 0x2_0000;

const VECTORS = ['de', 'db', 'nmi', 'bp', 'of', 'br', 'ud', 'nm', 'df', '', 'ts', 'np', 'ss', 'gp', 'pf'];

const descriptor = (access: number, flags: number): bigint =>
  0xffffn | (BigInt(access) << 40n) | (0xfn << 48n) | (BigInt(flags) << 52n);

const bytesOf = (values: readonly bigint[]): Uint8Array =>
  new Uint8Array(BigUint64Array.from(values).buffer.slice(0));

/** Gates for labels `on_ud`, `on_gp`, `on_pf`, … and `on_32` for vector 32 and so on. */
const gates = (program: Program): Uint8Array => {
  const idt: bigint[] = new Array<bigint>(512).fill(0n);
  for (let vector = 0; vector < 256; vector++) {
    const name = vector < VECTORS.length ? VECTORS[vector] : String(vector);
    let at: bigint;
    try {
      at = program.address(`on_${name}`);
    } catch {
      continue;
    }
    idt[2 * vector] = (at & 0xffffn) | (0x10n << 16n) | (0x8e00n << 32n) | ((at >> 16n) << 48n);
    idt[2 * vector + 1] = at >> 32n;
  }
  return bytesOf(idt);
};

/** Runs a micro guest to its end. */
export const micro = (options: MicroOptions): MicroRun => {
  const { ept } = options;
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm', options.kvm ?? {});
  hypervisor.loadModule('kvm-intel', { ept, ...options.params });
  const bytes = options.memory ?? 16 * MIB;
  const { port } = createHardware(bytes + 8 * MIB, options.engine ?? 'reference');
  let console = '';
  const marks = new Map<number, Snapshot>();
  const faults: Fault[] = [];
  const vm = createVm(hypervisor, port, {
    memory: bytes,
    hostTickHz: 0,
    createMmu,
    board: {
      onConsole: (b) => (console += String.fromCharCode(b)),
      onMarker: (n) =>
        marks.set(n, {
          exits: hypervisor.counts.snapshot(),
          stats: { ...vm.stats },
          faults: faults.length,
          cycles: vm.clock.now(),
          instructions: port.retired(),
        }),
    },
    ...options.vm,
  });
  const tables = new Tables(bytes, options.direct ?? 'none');
  const constants = { DIRECT, SCRATCH, ...options.constants, ...options.tables?.(tables) };
  const program = new Assembler(BigInt(CODE), constants).source(options.source).assemble();
  if (program.bytes.length > 0x2000) throw new Error('a micro guest has two pages of code');
  vm.load(CODE, program.bytes);
  for (const [at, value] of tables.memory) vm.load(at, bytesOf([value]));
  const gdt = [
    0n,
    0n,
    descriptor(0x9b, 0xa),
    descriptor(0x93, 0xc),
    descriptor(0xf3, 0xc),
    descriptor(0xfb, 0xa),
  ];
  vm.load(GDT, bytesOf(gdt));
  vm.load(IDT, gates(program));
  vm.load(TSS + 4, bytesOf([BigInt(STACK)]));
  const gprs = new Array<bigint>(16).fill(0n);
  gprs[4] = BigInt(STACK);
  const s = entryState.segments;
  vm.loadEntry({
    ...entryState,
    gprs,
    rip: BigInt(CODE),
    rflags: options.rflags ?? 2,
    cr0: BigInt(options.cr0 ?? 0x8005_0033),
    cr3: BigInt(tables.root),
    cr4: BigInt(options.cr4 ?? CR4_USUAL),
    efer: BigInt(options.efer ?? 0xd01),
    segments: { ...s, tr: { ...s.tr, base: BigInt(TSS) }, ...options.segments },
    gdtr: { base: BigInt(GDT), limit: 0x3f },
    idtr: { base: BigInt(IDT), limit: 0xfff },
  });
  options.before?.(vm);
  vm.onExit = (reason) => {
    if (reason !== 0 && reason !== 48) return;
    faults.push({
      reason,
      code:
        reason === 0 ? port.vmread32(VMCS.exitInterruptionErrorCode) : port.vmread32(VMCS.exitQualification),
      address: port.vmread(reason === 0 ? VMCS.exitQualification : VMCS.guestPhysicalAddress),
      rip: port.vmread(VMCS.guestRip),
      idtVectoring: port.vmread32(VMCS.idtVectoringInfo),
    });
  };
  const outcome = vm.run({ limit: options.limit ?? 5_000_000 });
  const at = (n: number): Snapshot => {
    const s = marks.get(n);
    if (s === undefined)
      throw new Error(`mark ${n} was not reached: ${outcome.kind} ${outcome.detail?.slice(0, 300) ?? ''}`);
    return s;
  };
  return {
    vm,
    outcome,
    program,
    tables,
    console,
    faults,
    exits: hypervisor.counts.snapshot(),
    between: (from, to) => {
      const [a, b] = [at(from), at(to)];
      const exits: Record<number, number> = {};
      for (const [reason, n] of Object.entries(b.exits)) {
        const more = n - (a.exits[Number(reason)] ?? 0) - (reason === '30' ? 1 : 0);
        if (more !== 0) exits[Number(reason)] = more;
      }
      const stats: Partial<Record<StatName, number>> = {};
      for (const name of Object.keys(b.stats) as StatName[]) {
        const more = b.stats[name] - a.stats[name];
        if (more !== 0) stats[name] = more;
      }
      return {
        exits,
        stats,
        faults: faults.slice(a.faults, b.faults),
        cycles: b.cycles - a.cycles,
        instructions: b.instructions - a.instructions,
      };
    },
    gpr: (i) => vm.vcpu.gpr(i),
    read: (gpa) => new DataView(vm.slots.bytes(gpa, 8).buffer).getBigUint64(0, true),
  };
};

/** Runs `measured` between marks 1 and 2, after `warm`, in one mode. */
export const measure = (
  options: Omit<MicroOptions, 'source'> & {
    readonly warm?: string;
    readonly measured: string;
    /** Handlers and data behind the end. */
    readonly rest?: string;
  },
): Delta & { readonly run: MicroRun } => {
  const { warm = '', measured, rest = '' } = options;
  // the first marks are passed twice, so that nothing of theirs is left to fill in
  const source = `${mark(9)}${warm}\n${mark(1)}${measured}\n${mark(2)}${OFF}hlt\n${rest}`;
  const run = micro({ ...options, source });
  return { ...run.between(1, 2), run };
};

export const MODES = [
  ['EPT', true],
  ['shadow', false],
] as const;
