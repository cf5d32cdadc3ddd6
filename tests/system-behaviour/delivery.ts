/**
 * Exceptions and software interrupts, one row each, and what the SDM says their delivery leaves behind.
 *
 * A row is code that raises the event in every world in which it can. `frameOf` states the stack frame of each kind of
 * gate: SDM volume 3, "Exception- or Interrupt-Handler Procedures" (figure of stack usage), "64-Bit Mode Stack Frame",
 * "Interrupt Stack Table", and volume 1, "Real-Address Mode" interrupts; the pushed RIP is the instruction's for faults
 * and the next one's for traps ("Exception Classifications"), RF is set in the image of a fault ("RFLAGS.RF").
 */
import type { Start } from './machine.js';
import { AT, BEYOND, type Gate, handler, type Image, sel, type World } from './worlds.js';

export interface EventRow {
  readonly name: string;
  readonly vector: number;
  readonly kind: 'fault' | 'trap';
  /** The sentence of the SDM, in our words. */
  readonly sdm: string;
  /** Instructions before the one that raises the event. */
  readonly before?: (w: World) => readonly number[];
  readonly bytes: (w: World) => readonly number[];
  /** Error code outside real mode; none unless given. */
  readonly code?: (w: World) => number;
  readonly cr2?: number;
  readonly when?: (w: World) => boolean;
  readonly start?: (w: World, s: Start) => Start;
  readonly image?: (w: World, i: Image) => void;
}

const protectedMode = (w: World): boolean => w.kind !== 'real' && w.kind !== 'v86';
const with_ = (s: Start, o: Partial<Start>): Start => ({ ...s, ...o });
const gpr = (s: Start, i: number, v: number | bigint): Start =>
  with_(s, { gprs: s.gprs.map((old, n) => (n === i ? BigInt(v) : old)) });
/** ModRM of [rBX] (BX with 16-bit addresses). */
const atBx = (w: World, reg: number): number => (reg << 3) | (w.bits === 16 ? 7 : 3);

export const EVENTS: readonly EventRow[] = [
  {
    name: '#DE by DIV',
    vector: 0,
    kind: 'fault',
    sdm: 'Interrupt 0: a divisor of 0; the saved RIP is that of the DIV; no error code',
    bytes: () => [0xf7, 0xf1],
  },
  {
    name: '#DB by INT1',
    vector: 1,
    kind: 'trap',
    sdm: 'INT n/INTO/INT3/INT1: INT1 is a trap; its gate need not have DPL >= CPL',
    bytes: () => [0xf1],
  },
  {
    name: '#BP by INT3',
    vector: 3,
    kind: 'trap',
    sdm: 'Interrupt 3: a trap, the saved RIP is behind INT3',
    bytes: () => [0xcc],
  },
  {
    name: '#OF by INTO',
    vector: 4,
    kind: 'trap',
    sdm: 'Interrupt 4: INTO with OF = 1, a trap',
    when: (w) => w.bits !== 64,
    bytes: () => [0xce],
    start: (_w, s) => with_(s, { rflags: s.rflags | 0x800 }),
  },
  {
    name: '#BR by BOUND',
    vector: 5,
    kind: 'fault',
    sdm: 'Interrupt 5: the index is outside the bounds; a fault',
    when: (w) => w.bits !== 64,
    bytes: (w) => [0x62, atBx(w, 1)],
    image: (w, i) => {
      i.put(AT.data, w.bits === 16 ? 2 : 4, 1, 2);
    },
  },
  {
    name: '#UD by UD2',
    vector: 6,
    kind: 'fault',
    sdm: 'Interrupt 6: UD2 raises it in every mode; no error code',
    bytes: () => [0x0f, 0x0b],
  },
  {
    name: '#NM by CR0.TS',
    vector: 7,
    kind: 'fault',
    sdm: 'Interrupt 7: an x87 instruction with CR0.TS set',
    bytes: () => [0xd9, 0xd0],
    start: (_w, s) => with_(s, { cr0: s.cr0 | 8n }),
  },
  {
    name: '#TS by IRET to a bad link',
    vector: 10,
    kind: 'fault',
    sdm: 'IRET, nested task: the back link must name a busy TSS within the GDT; #TS(selector)',
    when: (w) => w.kind === 'p32' || w.kind === 'p16',
    bytes: () => [0xcf],
    code: () => BEYOND,
    start: (_w, s) => with_(s, { rflags: s.rflags | 0x4000 }),
    image: (_w, i) => {
      i.put(AT.tss, 2, BEYOND);
    },
  },
  {
    name: '#GP by IRET with NT in IA-32e mode',
    vector: 13,
    kind: 'fault',
    sdm: 'IRET: NT set in IA-32e mode is #GP(0), there are no task switches',
    when: (w) => w.paging === 'long',
    bytes: () => [0xcf],
    code: () => 0,
    start: (_w, s) => with_(s, { rflags: s.rflags | 0x4000 }),
  },
  {
    name: '#NP by MOV DS',
    vector: 11,
    kind: 'fault',
    sdm: 'Interrupt 11: loading DS with a segment that is not present; #NP(selector)',
    when: protectedMode,
    bytes: () => [0x8e, 0xd8],
    code: (w) => sel('absent', w.cpl) & ~3,
    start: (w, s) => gpr(s, 0, sel('absent', w.cpl)),
  },
  {
    name: '#SS by MOV SS',
    vector: 12,
    kind: 'fault',
    sdm: 'Interrupt 12: loading SS with a segment that is not present; #SS(selector)',
    when: protectedMode,
    bytes: () => [0x8e, 0xd0],
    code: (w) => sel('absent', w.cpl) & ~3,
    start: (w, s) => gpr(s, 0, sel('absent', w.cpl)),
  },
  {
    name: '#SS by a limit',
    vector: 12,
    kind: 'fault',
    sdm: 'Interrupt 12: an access through SS beyond its limit; #SS(0)',
    when: (w) => w.bits === 16,
    bytes: () => [0x36, 0xa1, 0xff, 0xff],
    code: () => 0,
  },
  {
    name: '#GP by a selector beyond the GDT',
    vector: 13,
    kind: 'fault',
    sdm: 'Interrupt 13: a selector outside its descriptor table; #GP(selector)',
    when: protectedMode,
    bytes: () => [0x8e, 0xd8],
    code: () => BEYOND,
    start: (w, s) => gpr(s, 0, BEYOND | w.cpl),
  },
  {
    name: '#GP by a limit',
    vector: 13,
    kind: 'fault',
    sdm: 'Interrupt 13: an access through DS beyond its limit; #GP(0)',
    when: (w) => w.bits === 16,
    bytes: () => [0xa1, 0xff, 0xff],
    code: () => 0,
  },
  {
    name: '#PF by a read',
    vector: 14,
    kind: 'fault',
    sdm: 'Interrupt 14: a page that is not present; P and W are 0, U is CPL = 3; CR2 is the address',
    when: (w) => w.paging !== 'none',
    bytes: (w) => [0x8a, atBx(w, 0)],
    code: (w) => (w.cpl === 3 ? 4 : 0),
    cr2: AT.absent + 5,
    start: (_w, s) => gpr(s, 3, AT.absent + 5),
  },
  {
    name: '#MF by FWAIT',
    vector: 16,
    kind: 'fault',
    sdm: 'Interrupt 16: a pending unmasked x87 exception, reported by the next waiting instruction (CR0.NE)',
    // fninit; fldcw [bx]; fld1; fldz; fdivp
    before: (w) => [0xdb, 0xe3, 0xd9, atBx(w, 5), 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9],
    bytes: () => [0x9b],
    image: (_w, i) => {
      i.put(AT.data, 2, 0x33b);
    },
  },
  {
    name: '#AC by a read',
    vector: 17,
    kind: 'fault',
    sdm: 'Interrupt 17: CR0.AM, RFLAGS.AC and CPL 3: a doubleword at an odd address; error code 0',
    when: (w) => w.cpl === 3,
    bytes: (w) => (w.bits === 16 ? [0x66, 0x8b, 0x07] : [0x8b, 0x03]),
    code: () => 0,
    start: (_w, s) => gpr(with_(s, { cr0: s.cr0 | 0x4_0000n, rflags: s.rflags | 0x4_0000 }), 3, AT.data + 2),
  },
  {
    name: '#XM by DIVSS',
    vector: 19,
    kind: 'fault',
    sdm: 'Interrupt 19: an unmasked SIMD floating-point exception with CR4.OSXMMEXCPT',
    before: (w) => [0x0f, 0xae, atBx(w, 2)],
    bytes: () => [0xf3, 0x0f, 0x5e, 0xc0],
    image: (_w, i) => {
      i.put(AT.data, 4, 0x1f00);
    },
  },
  {
    name: 'INT n',
    vector: 0x30,
    kind: 'trap',
    sdm: 'INT n: like a far call through the IDT, the saved RIP is behind it; no error code',
    bytes: () => [0xcd, 0x30],
  },
];

/** What the handler finds: stack pointer, and the words pushed, last first. */
export interface Frame {
  readonly cs: number;
  readonly rsp: bigint;
  readonly size: 2 | 4 | 8;
  readonly words: readonly bigint[];
  readonly rflags: number;
}

/** RF, VM, NT and TF are cleared; IF by interrupt gates. In real mode AC too. */
const CLEARED = 0x1_0000 | 0x2_0000 | 0x4000 | 0x100;

export const frameOf = (
  row: EventRow,
  w: World,
  gate: Gate,
  start: Start,
  rip: number,
  length: number,
): Frame => {
  const returnRip = BigInt(row.kind === 'trap' ? rip + length : rip);
  const flags = start.rflags | (row.kind === 'fault' ? 0x1_0000 : 0);
  const cs = BigInt(start.segments.cs.selector);
  const ss = BigInt(start.segments.ss.selector);
  const code = row.code === undefined ? [] : [BigInt(row.code(w))];
  const sp = start.gprs[4]!;
  const masksInterrupts = !gate.startsWith('trap');
  const rflags = start.rflags & ~CLEARED & ~(masksInterrupts ? 0x200 : 0);
  const build = (
    top: bigint,
    size: 2 | 4 | 8,
    pushed: readonly bigint[],
    selector: number,
    f: number,
  ): Frame => ({
    cs: selector,
    rsp: top - BigInt(size * pushed.length),
    size,
    words: [...pushed].reverse().map((v) => BigInt.asUintN(8 * size, v)),
    rflags: f,
  });
  if (gate === 'ivt') return build(sp, 2, [BigInt(flags), cs, returnRip], 0, rflags & ~0x4_0000);
  const inner = w.cpl !== 0;
  const kernelTop = BigInt(AT.kernelStack);
  if (w.paging === 'long') {
    const top = gate === 'ist64' ? BigInt(AT.istStack) : inner ? kernelTop : sp & ~15n;
    return build(top, 8, [ss, sp, BigInt(flags), cs, returnRip, ...code], sel('code64', 0), rflags);
  }
  const size = gate.endsWith('16') ? 2 : 4;
  const segments = [0n, 0n, 0n, 0n];
  const outer = inner ? [...(w.kind === 'v86' ? segments : []), ss, sp] : [];
  return build(
    inner ? kernelTop : sp,
    size,
    [...outer, BigInt(flags), cs, returnRip, ...code],
    sel('code32', 0),
    rflags,
  );
};

export const handlerRip = (row: EventRow): bigint => BigInt(handler(row.vector) + 1);
