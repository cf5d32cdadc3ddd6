/**
 * The worlds that the rows run in: every mode, privilege level and kind of paging, with tables, stacks and handlers.
 *
 * The handler of vector v is one HLT at `AT.handlers + 16 v`, so that what the processor left behind is the delivery
 * itself. All of memory is mapped one to one with user rights, but for the page `AT.absent`.
 */
import type { EntrySegment } from '../../lib/hypervisor/entry-state.js';
import { MEMORY, type Start } from './machine.js';

export const AT = {
  gdt: 0x1000,
  idt: 0x2000,
  tss: 0x3000,
  /** A second TSS, for task gates. */
  task: 0x3800,
  tables: 0x4000,
  pageTable: 0x7000,
  code: 0x8000,
  userStack: 0xa000,
  kernelStack: 0xb000,
  istStack: 0xc000,
  handlers: 0xc000,
  data: 0xd000,
  absent: 0xe000,
  taskStack: 0xf800,
  taskCode: 0xf000,
} as const;

const KINDS = ['code16', 'code32', 'code64', 'data16', 'data32', 'absent'] as const;
/** Selector of a segment of the given kind at a privilege level; `absent` is data with P = 0. */
export const sel = (kind: (typeof KINDS)[number], cpl: number): number =>
  8 * (1 + cpl * KINDS.length + KINDS.indexOf(kind)) + cpl;
export const SEL = {
  tss: 0xc8,
  task: 0xd8,
  gate: 0xe8,
  conforming32: 0xf8,
  conforming64: 0x100,
  spare: 0x108,
  spare2: 0x118,
} as const;
/** The first selector beyond the GDT. */
export const BEYOND = 0x128;

/** A descriptor. @param flags G D L AVL */
export const descriptor = (base: number, limit: number, access: number, flags: number): bigint =>
  BigInt(limit & 0xffff) |
  (BigInt(base & 0xff_ffff) << 16n) |
  (BigInt(access) << 40n) |
  (BigInt((limit >> 16) & 15) << 48n) |
  (BigInt(flags) << 52n) |
  (BigInt(base >>> 24) << 56n);

export class Image {
  readonly bytes = new Uint8Array(MEMORY);
  put(at: number, size: 1 | 2 | 4 | 8, ...values: (number | bigint)[]): this {
    let a = at;
    for (const v of values) {
      let rest = BigInt.asUintN(64, BigInt(v));
      for (let i = 0; i < size; i++, rest >>= 8n) this.bytes[a++] = Number(rest & 0xffn);
    }
    return this;
  }
  get(at: number, size: number): bigint {
    let v = 0n;
    for (let i = size - 1; i >= 0; i--) v = (v << 8n) | BigInt(this.bytes[at + i]!);
    return v;
  }
}
export const word = (memory: Uint8Array, at: number, size: number): bigint => {
  let v = 0n;
  for (let i = size - 1; i >= 0; i--) v = (v << 8n) | BigInt(memory[at + i]!);
  return v;
};

export type Kind = 'real' | 'v86' | 'p16' | 'p32' | 'compat' | 'long';
export type Paging = 'none' | '32' | 'pae' | 'long';
export type Gate = 'ivt' | 'int16' | 'trap16' | 'int32' | 'trap32' | 'int64' | 'trap64' | 'ist64';

export interface World {
  readonly name: string;
  readonly kind: Kind;
  readonly cpl: 0 | 1 | 2 | 3;
  readonly paging: Paging;
  /** Code size. */
  readonly bits: 16 | 32 | 64;
}

const world = (kind: Kind, cpl: 0 | 1 | 2 | 3, paging: Paging): World => ({
  name: `${kind} cpl ${cpl} paging ${paging}`,
  kind,
  cpl,
  paging,
  bits: kind === 'long' ? 64 : kind === 'p32' || kind === 'compat' ? 32 : 16,
});
const LEVELS = [0, 1, 2, 3] as const;
export const LONG_WORLDS: readonly World[] = [
  ...LEVELS.map((cpl) => world('long', cpl, 'long')),
  ...LEVELS.map((cpl) => world('compat', cpl, 'long')),
];
const LEGACY_PAGING = ['none', '32', 'pae'] as const;
export const LEGACY_WORLDS: readonly World[] = [
  world('real', 0, 'none'),
  ...LEGACY_PAGING.map((p) => world('v86', 3, p)),
  ...LEGACY_PAGING.flatMap((p) => LEVELS.map((cpl) => world('p32', cpl, p))),
  ...LEVELS.map((cpl) => world('p16', cpl, 'none')),
  ...[0, 3].map((cpl) => world('p16', cpl as 0 | 3, 'pae')),
];
export const WORLDS: readonly World[] = [...LONG_WORLDS, ...LEGACY_WORLDS];

/** Gates that an IDT of this world may hold. */
export const gatesOf = (w: World): readonly Gate[] =>
  w.kind === 'real'
    ? ['ivt']
    : w.paging === 'long'
      ? ['int64', 'trap64', 'ist64']
      : ['int32', 'trap32', 'int16', 'trap16'];

const GATE_TYPE = { ivt: 0, int16: 6, trap16: 7, int32: 14, trap32: 15, int64: 14, trap64: 15, ist64: 14 };

/** Writes a gate. @param selector of the handler's code */
export const putGate = (
  image: Image,
  gate: Gate,
  vector: number,
  target: number,
  options: {
    readonly dpl?: number;
    readonly selector?: number;
    readonly present?: boolean;
    readonly type?: number;
  } = {},
): void => {
  const { dpl = 3, present = true, type = GATE_TYPE[gate] } = options;
  if (gate === 'ivt') {
    image.put(4 * vector, 2, target, 0);
    return;
  }
  const long = gate.endsWith('64');
  const selector = options.selector ?? (long ? sel('code64', 0) : sel('code32', 0));
  const access = (present ? 0x80 : 0) | (dpl << 5) | type;
  const at = AT.idt + (long ? 16 : 8) * vector;
  const offsetHigh = gate.endsWith('16') ? 0 : target >>> 16;
  image.put(
    at,
    4,
    ((target & 0xffff) | (selector << 16)) >>> 0,
    ((offsetHigh << 16) | (access << 8) | (gate === 'ist64' ? 1 : 0)) >>> 0,
  );
  if (long) image.put(at + 8, 8, 0);
};

export const handler = (vector: number): number => AT.handlers + 16 * vector;

/** Address of the page-table entry of a linear address, and its size. */
export const pageEntry = (paging: Paging, linear: number): { at: number; size: 4 | 8 } =>
  paging === '32'
    ? { at: AT.pageTable + 4 * (linear >>> 12), size: 4 }
    : { at: AT.pageTable + 8 * (linear >>> 12), size: 8 };

const putPaging = (image: Image, paging: Paging): void => {
  const t = AT.tables;
  if (paging === 'none') return;
  if (paging === '32') image.put(t, 4, AT.pageTable | 7);
  else {
    image.put(t, 8, (t + 0x1000) | 7);
    image.put(t + 0x1000, 8, (t + 0x2000) | (paging === 'pae' ? 1 : 7));
    image.put(t + 0x2000, 8, AT.pageTable | 7);
  }
  for (let page = 0; page < MEMORY >>> 12; page++) {
    const { at, size } = pageEntry(paging, page << 12);
    image.put(at, size, page * 4096 === AT.absent ? 0 : (page << 12) | 7);
  }
};

const flat = (selector: number, attr: number, limit = 0xffff_ffff): EntrySegment => ({
  selector,
  base: 0n,
  limit,
  attr,
});

/** An image with all tables of a world, and the state at `AT.code` in it. Every gate leads to its vector's handler. */
export const makeWorld = (
  w: World,
  gate: Gate = gatesOf(w)[0]!,
): { readonly image: Image; readonly start: Start } => {
  const image = new Image();
  const long = w.paging === 'long';
  for (const cpl of LEVELS) {
    const dpl = cpl << 5;
    const g = (kind: (typeof KINDS)[number], d: bigint): unknown =>
      image.put(AT.gdt + (sel(kind, cpl) & ~7), 8, d);
    g('code16', descriptor(0, 0xffff, 0x9b | dpl, 0));
    g('code32', descriptor(0, 0xf_ffff, 0x9b | dpl, 0xc));
    g('code64', descriptor(0, 0xf_ffff, 0x9b | dpl, 0xa));
    g('data16', descriptor(0, 0xffff, 0x93 | dpl, 0));
    g('data32', descriptor(0, 0xf_ffff, 0x93 | dpl, 0xc));
    g('absent', descriptor(0, 0xf_ffff, 0x13 | dpl, 0xc));
  }
  image.put(AT.gdt + SEL.tss, 8, descriptor(AT.tss, 0x67, 0x8b, 0), 0);
  image.put(AT.gdt + SEL.task, 8, descriptor(AT.task, 0x67, 0x89, 0), 0);
  image.put(AT.gdt + SEL.conforming32, 8, descriptor(0, 0xf_ffff, 0x9f, 0xc));
  image.put(AT.gdt + SEL.conforming64, 8, descriptor(0, 0xf_ffff, 0x9f, 0xa));
  for (const cpl of [0, 1, 2]) {
    const top = AT.kernelStack - 0x400 * cpl;
    if (long) image.put(AT.tss + 4 + 8 * cpl, 8, top);
    else image.put(AT.tss + 4 + 8 * cpl, 4, top, sel('data32', cpl));
  }
  if (long) image.put(AT.tss + 0x24, 8, AT.istStack);
  // no I/O permission map
  image.put(AT.tss + 0x66, 2, 0xffff);
  for (let v = 0; v < 256; v++) {
    image.put(handler(v), 1, 0xf4);
    putGate(image, gate, v, handler(v));
  }
  putPaging(image, w.paging);

  const code = `code${w.bits}` as const;
  const dpl = w.cpl << 5;
  const data16 = w.bits === 16;
  const data = sel(data16 ? 'data16' : 'data32', w.cpl);
  const dataSegment = data16 ? flat(data, 0x93 | dpl, 0xffff) : flat(data, 0xc093 | dpl);
  const real = flat(0, w.kind === 'v86' ? 0xf3 : 0x93, 0xffff);
  const legacy = w.kind === 'real' || w.kind === 'v86';
  const d = legacy ? real : dataSegment;
  const cs =
    w.kind === 'real'
      ? flat(0, 0x9b, 0xffff)
      : w.kind === 'v86'
        ? real
        : flat(
            sel(code, w.cpl),
            { 16: 0x9b, 32: 0xc09b, 64: 0xa09b }[w.bits] | dpl,
            data16 ? 0xffff : 0xffff_ffff,
          );
  const gprs = Array.from({ length: 16 }, (_, i) =>
    BigInt(w.bits === 64 ? 0x1111 * (i + 1) : i < 8 ? 0x1111 * (i + 1) : 0),
  );
  gprs[0] = 0n;
  gprs[1] = 0n;
  gprs[3] = BigInt(AT.data);
  gprs[4] = BigInt(w.cpl === 0 ? AT.kernelStack : AT.userStack);
  const start: Start = {
    gprs,
    rip: BigInt(AT.code),
    rflags: 0x202 | (w.kind === 'v86' ? 0x2_3000 : 0),
    cr0: (w.kind === 'real' ? 0x30n : 0x31n) | (w.paging === 'none' ? 0n : 0x8000_0000n),
    cr3: w.paging === 'none' ? 0n : BigInt(AT.tables + (w.paging === 'pae' ? 0x1000 : 0)),
    cr4: (w.paging === 'pae' || long ? 0x20n : 0n) | 0x600n,
    efer: long ? 0xd00n : 0n,
    segments: {
      es: d,
      cs,
      ss: d,
      ds: d,
      fs: d,
      gs: d,
      ldtr: flat(0, 0x1_0000, 0),
      tr: { selector: SEL.tss, base: BigInt(AT.tss), limit: 0x67, attr: 0x8b },
    },
    gdtr: { base: BigInt(AT.gdt), limit: BEYOND - 1 },
    idtr:
      w.kind === 'real' ? { base: 0n, limit: 0x3ff } : { base: BigInt(AT.idt), limit: long ? 0xfff : 0x7ff },
    msrs: [],
  };
  return { image, start };
};
