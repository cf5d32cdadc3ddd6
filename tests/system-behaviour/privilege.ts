/**
 * System instructions and who may execute them: the exceptions columns of SDM volume 2, as one expectation a row.
 *
 * `ok`: the instruction completes; `gp`: #GP(0); `ud`: #UD. The default of a row is the rule of volume 3, "Privileged
 * Instructions": CPL 0 or #GP(0), and so in virtual-8086 mode, whose CPL is 3.
 */
import { MEMORY, type Start } from './machine.js';
import { AT, BEYOND, type Image, pageEntry, SEL, type World } from './worlds.js';

export type Outcome = 'ok' | 'gp' | 'ud';
export interface PrivilegeRow {
  readonly name: string;
  readonly sdm: string;
  readonly bytes: (w: World) => readonly number[];
  readonly outcome?: (w: World) => Outcome;
  readonly when?: (w: World) => boolean;
  readonly start?: (s: Start, w: World) => Start;
  readonly image?: (i: Image, w: World) => void;
}

const privileged = (w: World): Outcome => (w.cpl === 0 ? 'ok' : 'gp');
export const outcomeOf = (row: PrivilegeRow, w: World): Outcome => (row.outcome ?? privileged)(w);

const long = (w: World): boolean => w.bits === 64;
const protectedOnly =
  (f: (w: World) => Outcome) =>
  (w: World): Outcome =>
    w.kind === 'real' || w.kind === 'v86' ? 'ud' : f(w);
const always = (o: Outcome) => (): Outcome => o;
/** ModRM of [rBX]. */
const atBx = (w: World, reg: number): number => (reg << 3) | (w.bits === 16 ? 7 : 3);
const code =
  (...bytes: readonly number[]) =>
  (): readonly number[] =>
    bytes;
const memory =
  (reg: number, ...bytes: readonly number[]) =>
  (w: World): readonly number[] => [...bytes, atBx(w, reg)];
const gpr =
  (...values: readonly (readonly [number, number | bigint])[]) =>
  (s: Start): Start => ({
    ...s,
    gprs: s.gprs.map((old, i) => BigInt(values.find(([n]) => n === i)?.[1] ?? old)),
  });
const cr4 =
  (bits: bigint) =>
  (s: Start): Start => ({ ...s, cr4: s.cr4 | bits });
const iopl =
  (n: number) =>
  (s: Start): Start => ({ ...s, rflags: (s.rflags & ~0x3000) | (n << 12) });
const crNow =
  (n: 0 | 3 | 4) =>
  (s: Start): Start =>
    gpr([0, n === 0 ? s.cr0 : n === 3 ? s.cr3 : s.cr4])(s);
const table = (i: Image, w: World, idt: boolean): void => {
  const real = w.kind === 'real';
  i.put(AT.data, 2, idt ? (real ? 0x3ff : w.paging === 'long' ? 0xfff : 0x7ff) : BEYOND - 1);
  i.put(AT.data + 2, long(w) ? 8 : 4, idt ? (real ? 0 : AT.idt) : AT.gdt);
};
/** With SMAP the tables and stacks must be the supervisor's. */
const supervisorPages = (i: Image, w: World): void => {
  for (let page = 0; w.paging !== 'none' && page < MEMORY; page += 4096) {
    const { at, size } = pageEntry(w.paging, page);
    i.put(at, size, i.get(at, size) & ~4n);
  }
};
const UMIP = 0x800n;
const v86 = (w: World): boolean => w.kind === 'v86';
const byIopl0 = (w: World): Outcome => (w.cpl === 0 ? 'ok' : 'gp');

export const PRIVILEGE: readonly PrivilegeRow[] = [
  { name: 'HLT', sdm: 'HLT: #GP(0) if CPL is not 0', bytes: code(0xf4) },
  { name: 'CLTS', sdm: 'CLTS: #GP(0) if CPL is not 0', bytes: code(0x0f, 0x06) },
  {
    name: 'LGDT',
    sdm: 'LGDT/LIDT: #GP(0) if CPL is not 0',
    bytes: memory(2, 0x0f, 0x01),
    image: (i, w) => table(i, w, false),
  },
  {
    name: 'LIDT',
    sdm: 'LGDT/LIDT: #GP(0) if CPL is not 0',
    bytes: memory(3, 0x0f, 0x01),
    image: (i, w) => table(i, w, true),
  },
  {
    name: 'LLDT',
    sdm: 'LLDT: #GP(0) if CPL is not 0; #UD in real and virtual-8086 mode',
    bytes: code(0x0f, 0x00, 0xd0),
    outcome: protectedOnly(privileged),
  },
  {
    name: 'LTR',
    sdm: 'LTR: #GP(0) if CPL is not 0; #UD in real and virtual-8086 mode',
    bytes: code(0x0f, 0x00, 0xd8),
    outcome: protectedOnly(privileged),
    start: gpr([0, SEL.task]),
  },
  ...([0, 2, 3, 4] as const).map(
    (n): PrivilegeRow => ({
      name: `MOV EAX, CR${n}`,
      sdm: 'MOV—Move to/from Control Registers: #GP(0) if CPL is not 0',
      bytes: code(0x0f, 0x20, 0xc0 | (n << 3)),
    }),
  ),
  ...([0, 3, 4] as const).map(
    (n): PrivilegeRow => ({
      name: `MOV CR${n}, EAX`,
      sdm: 'MOV—Move to/from Control Registers: #GP(0) if CPL is not 0',
      bytes: code(0x0f, 0x22, 0xc0 | (n << 3)),
      start: crNow(n),
    }),
  ),
  {
    name: 'MOV RAX, CR8',
    sdm: 'MOV—Move to/from Control Registers: #GP(0) if CPL is not 0',
    when: long,
    bytes: code(0x44, 0x0f, 0x20, 0xc0),
  },
  {
    name: 'MOV CR1',
    sdm: 'MOV—Move to/from Control Registers: #UD for CR1, CR5-CR7',
    bytes: code(0x0f, 0x20, 0xc8),
    outcome: always('ud'),
  },
  {
    name: 'MOV EAX, DR7',
    sdm: 'MOV—Move to/from Debug Registers: #GP(0) if CPL is not 0',
    bytes: code(0x0f, 0x21, 0xf8),
  },
  {
    name: 'MOV DR0, EAX',
    sdm: 'MOV—Move to/from Debug Registers: #GP(0) if CPL is not 0',
    bytes: code(0x0f, 0x23, 0xc0),
  },
  {
    name: 'MOV EAX, DR4 with CR4.DE',
    sdm: 'MOV—Move to/from Debug Registers: #UD for DR4 and DR5 if CR4.DE = 1; #GP(0) of CPL 0 first',
    when: (w) => w.cpl === 0,
    bytes: code(0x0f, 0x21, 0xe0),
    outcome: always('ud'),
    start: cr4(8n),
  },
  { name: 'LMSW', sdm: 'LMSW: #GP(0) if CPL is not 0', bytes: code(0x0f, 0x01, 0xf0), start: crNow(0) },
  { name: 'INVD', sdm: 'INVD: #GP(0) if CPL is not 0', bytes: code(0x0f, 0x08) },
  { name: 'WBINVD', sdm: 'WBINVD: #GP(0) if CPL is not 0', bytes: code(0x0f, 0x09) },
  { name: 'INVLPG', sdm: 'INVLPG: #GP(0) if CPL is not 0', bytes: memory(7, 0x0f, 0x01) },
  {
    name: 'INVPCID',
    sdm: 'INVPCID: #GP(0) if CPL is not 0',
    bytes: (w) => [0x66, 0x0f, 0x38, 0x82, atBx(w, 0)],
    start: gpr([0, 2]),
  },
  { name: 'RDMSR', sdm: 'RDMSR: #GP(0) if CPL is not 0', bytes: code(0x0f, 0x32), start: gpr([1, 0x174]) },
  {
    name: 'WRMSR',
    sdm: 'WRMSR: #GP(0) if CPL is not 0',
    bytes: code(0x0f, 0x30),
    start: gpr([0, 0], [1, 0x174], [2, 0]),
  },
  {
    name: 'RDMSR of no register',
    sdm: 'RDMSR: #GP(0) for a reserved or unimplemented MSR',
    bytes: code(0x0f, 0x32),
    outcome: always('gp'),
    start: gpr([1, 0x1234_5678]),
  },
  {
    name: 'SWAPGS',
    sdm: 'SWAPGS: #UD outside 64-bit mode, #GP(0) if CPL is not 0',
    bytes: code(0x0f, 0x01, 0xf8),
    outcome: (w) => (long(w) ? privileged(w) : 'ud'),
  },
  {
    name: 'SYSRET without EFER.SCE',
    sdm: 'SYSRET: #UD outside 64-bit mode or with SCE = 0',
    bytes: code(0x0f, 0x07),
    outcome: always('ud'),
  },
  {
    name: 'SYSCALL without EFER.SCE',
    sdm: 'SYSCALL: #UD outside 64-bit mode or with SCE = 0',
    bytes: code(0x0f, 0x05),
    outcome: always('ud'),
  },
  {
    name: 'SYSENTER without a code segment',
    sdm: 'SYSENTER: #GP(0) in real mode or when SYSENTER_CS is null',
    bytes: code(0x0f, 0x34),
    outcome: always('gp'),
  },
  {
    name: 'SYSEXIT without a code segment',
    sdm: 'SYSEXIT: #GP(0) when SYSENTER_CS is null or CPL is not 0',
    bytes: code(0x0f, 0x35),
    outcome: always('gp'),
  },
  {
    name: 'XSETBV without OSXSAVE',
    sdm: 'XSETBV: #UD if CR4.OSXSAVE = 0',
    bytes: code(0x0f, 0x01, 0xd1),
    outcome: always('ud'),
  },
  {
    name: 'XSETBV',
    sdm: 'XSETBV: #GP(0) if CPL is not 0',
    bytes: code(0x0f, 0x01, 0xd1),
    start: (s) => cr4(0x4_0000n)(gpr([0, 1], [1, 0], [2, 0])(s)),
  },
  {
    name: 'RDTSC with TSD',
    sdm: 'RDTSC: #GP(0) if CR4.TSD = 1 and CPL is not 0',
    when: (w) => w.cpl !== 0,
    bytes: code(0x0f, 0x31),
    start: cr4(4n),
  },
  {
    name: 'RDPMC without PCE',
    sdm: 'RDPMC: #GP(0) if CR4.PCE = 0 and CPL is not 0',
    when: (w) => w.cpl !== 0,
    bytes: code(0x0f, 0x33),
  },
  {
    name: 'CLI with IOPL 0',
    sdm: 'CLI: #GP(0) if CPL is greater than IOPL',
    bytes: code(0xfa),
    outcome: byIopl0,
    start: iopl(0),
  },
  {
    name: 'STI with IOPL 0',
    sdm: 'STI: #GP(0) if CPL is greater than IOPL',
    bytes: code(0xfb),
    outcome: byIopl0,
    start: iopl(0),
  },
  {
    name: 'CLI with IOPL 3',
    sdm: 'CLI: allowed if CPL is not greater than IOPL',
    bytes: code(0xfa),
    outcome: always('ok'),
    start: iopl(3),
  },
  {
    name: 'IN with IOPL 0',
    sdm: 'IN: #GP(0) if CPL is greater than IOPL and the I/O map denies the port',
    bytes: code(0xe4, 0xf1),
    outcome: byIopl0,
    start: iopl(0),
  },
  { name: 'OUT with IOPL 0', sdm: 'OUT: as IN', bytes: code(0xe6, 0xf1), outcome: byIopl0, start: iopl(0) },
  {
    name: 'IN with IOPL 3',
    sdm: 'IN: in protected mode IOPL decides; in virtual-8086 mode always the map',
    bytes: code(0xe4, 0xf1),
    outcome: (w) => (v86(w) ? 'gp' : 'ok'),
    start: iopl(3),
  },
  ...(
    [
      [0x9c, 'PUSHF'],
      [0x9d, 'POPF'],
      [0xcf, 'IRET'],
    ] as const
  ).map(
    ([b, name]): PrivilegeRow => ({
      name: `${name} in virtual-8086 mode with IOPL 0`,
      sdm: `${name}: #GP(0) in virtual-8086 mode if IOPL is less than 3`,
      when: v86,
      bytes: code(b),
      outcome: always('gp'),
      start: iopl(0),
    }),
  ),
  {
    name: 'INT n in virtual-8086 mode with IOPL 0',
    sdm: 'INT n: #GP(0) in virtual-8086 mode if IOPL is less than 3',
    when: v86,
    bytes: code(0xcd, 0x30),
    outcome: always('gp'),
    start: iopl(0),
  },
  {
    name: 'CLAC without SMAP',
    sdm: 'CLAC: #UD if CPL is greater than 0, or if CPUID has no SMAP; CR4.SMAP does not matter',

    bytes: code(0x0f, 0x01, 0xca),
    outcome: (w) => (w.cpl === 0 ? 'ok' : 'ud'),
  },
  {
    name: 'CLAC with SMAP',
    sdm: 'CLAC: #UD if CPL is greater than 0',
    bytes: code(0x0f, 0x01, 0xca),
    outcome: (w) => (w.cpl === 0 ? 'ok' : 'ud'),
    start: cr4(0x20_0000n),
    image: supervisorPages,
    when: (w) => w.cpl === 0 || v86(w),
  },
  {
    name: 'STAC with SMAP',
    sdm: 'STAC: #UD if CPL is greater than 0',
    bytes: code(0x0f, 0x01, 0xcb),
    outcome: (w) => (w.cpl === 0 ? 'ok' : 'ud'),
    start: cr4(0x20_0000n),
    image: supervisorPages,
    when: (w) => w.cpl === 0 || v86(w),
  },
  ...([0n, UMIP] as const).flatMap((umip): readonly PrivilegeRow[] => {
    const with_ = umip === 0n ? '' : ' with UMIP';
    const sdm = 'SGDT, SIDT, SLDT, STR, SMSW: #GP(0) if CR4.UMIP = 1 and CPL is not 0';
    const may = (w: World): Outcome => (umip === 0n ? 'ok' : privileged(w));
    return [
      { name: `SGDT${with_}`, sdm, bytes: memory(0, 0x0f, 0x01), outcome: may, start: cr4(umip) },
      { name: `SIDT${with_}`, sdm, bytes: memory(1, 0x0f, 0x01), outcome: may, start: cr4(umip) },
      {
        name: `SLDT${with_}`,
        sdm,
        bytes: code(0x0f, 0x00, 0xc0),
        outcome: protectedOnly(may),
        start: cr4(umip),
      },
      {
        name: `STR${with_}`,
        sdm,
        bytes: code(0x0f, 0x00, 0xc8),
        outcome: protectedOnly(may),
        start: cr4(umip),
      },
      { name: `SMSW${with_}`, sdm, bytes: code(0x0f, 0x01, 0xe0), outcome: may, start: cr4(umip) },
    ];
  }),
  {
    name: 'RDFSBASE without FSGSBASE',
    sdm: 'RDFSBASE: #UD outside 64-bit mode or if CR4.FSGSBASE = 0',
    bytes: code(0xf3, 0x0f, 0xae, 0xc0),
    outcome: always('ud'),
  },
  {
    name: 'LAR',
    sdm: 'LAR: #UD in real and virtual-8086 mode',
    bytes: code(0x0f, 0x02, 0xc1),
    outcome: protectedOnly(always('ok')),
  },
  {
    name: 'VERR',
    sdm: 'VERR: #UD in real and virtual-8086 mode',
    bytes: code(0x0f, 0x00, 0xe1),
    outcome: protectedOnly(always('ok')),
  },
  {
    name: 'ARPL',
    sdm: 'ARPL: #UD in real and virtual-8086 mode; another instruction in 64-bit mode',
    when: (w) => !long(w),
    bytes: code(0x63, 0xc8),
    outcome: protectedOnly(always('ok')),
  },
  {
    name: 'RSM',
    sdm: 'RSM: #UD outside system-management mode',
    bytes: code(0x0f, 0xaa),
    outcome: always('ud'),
  },
];
