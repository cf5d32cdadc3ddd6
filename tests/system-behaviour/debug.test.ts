/**
 * Debug exceptions in 64-bit mode, bare and as a guest: what is trapped, where RIP is, and what DR6 says.
 *
 * SDM volume 3, chapter "Debug, Branch Profile, TSC": "Debug Registers", "Debug Exception (#DB)"; volume 2, MOV and POP
 * for the blocking behind a load of SS.
 */
import { describe, expect, test } from 'vitest';
import { differences, ENGINES, execute, PLACES, type Result, type Start } from './machine.js';
import { AT, handler, LONG_WORLDS, makeWorld, word } from './worlds.js';

interface Row {
  readonly name: string;
  readonly sdm: string;
  readonly code: readonly number[];
  readonly start?: (s: Start) => Start;
  /** Offset in the code of the RIP that #DB pushes, or undefined when there is no #DB before the final INT 0x31. */
  readonly at: number | undefined;
  /** Bits 15:0 of DR6 that are set. */
  readonly dr6: number;
  /** RF in the image. */
  readonly rf?: boolean;
  readonly cpl?: 0 | 3;
  /** KVM does not emulate it: only the bare processor. */
  readonly bareOnly?: boolean;
}

const TF = 0x100;
const flags =
  (bits: number) =>
  (s: Start): Start => ({ ...s, rflags: s.rflags | bits });
/** DR0 at an address. @param kind 0 execute, 1 write, 2 I/O, 3 read or write; @param length 0, 1, 3 for 1, 2, 4 bytes */
const breakpoint =
  (address: number, kind: number, length: number, more: Partial<Start> = {}) =>
  (s: Start): Start => ({
    ...s,
    ...more,
    dr: [BigInt(address)],
    dr7: BigInt(0x402 | (kind << 16) | (length << 18)),
  });
const NOP = 0x90;
/** mov ax, ss; mov ss, ax */
const MOV_SS = [0x8c, 0xd0, 0x8e, 0xd0];
const WRITE = [0x89, 0x03];
const READ = [0x8b, 0x03];

const ROWS: readonly Row[] = [
  {
    name: 'TF',
    sdm: 'a trap after the instruction that began with TF set; BS',
    code: [NOP, NOP],
    start: flags(TF),
    at: 1,
    dr6: 0x4000,
  },
  { name: 'TF at CPL 3', sdm: 'as at CPL 0', code: [NOP, NOP], start: flags(TF), at: 1, dr6: 0x4000, cpl: 3 },
  {
    name: 'POPF that sets TF',
    sdm: 'the first trap comes after the instruction behind POPF',
    code: [0x68, 2, 1, 0, 0, 0x9d, NOP, NOP],
    at: 7,
    dr6: 0x4000,
  },
  {
    name: 'TF over MOV SS',
    sdm: 'debug exceptions are held off until behind the next instruction',
    code: [0x8e, 0xd1, NOP, NOP],
    start: (s) =>
      flags(TF)({ ...s, gprs: s.gprs.map((v, i) => (i === 1 ? BigInt(s.segments.ss.selector) : v)) }),
    at: 3,
    dr6: 0x4000,
  },
  {
    name: 'TF over INT n',
    sdm: 'INT n clears TF on its way into the handler: no trap',
    code: [],
    start: flags(TF),
    at: undefined,
    dr6: 0,
  },
  {
    name: 'TF over CPUID',
    sdm: 'an instruction that exits is stepped like any other',
    code: [0x0f, 0xa2, NOP],
    start: flags(TF),
    at: 2,
    dr6: 0x4000,
  },
  {
    name: 'a code breakpoint',
    sdm: 'a fault before the instruction; RF is not set in the image',
    code: [NOP, NOP, NOP],
    start: breakpoint(AT.code + 1, 0, 0),
    at: 1,
    dr6: 1,
  },
  {
    name: 'a code breakpoint with RF',
    sdm: 'RF holds it off for one instruction',
    code: [NOP, NOP],
    start: (s) => flags(0x1_0000)(breakpoint(AT.code, 0, 0)(s)),
    at: undefined,
    dr6: 0,
  },
  {
    name: 'a code breakpoint behind MOV SS',
    sdm: 'it is suppressed as if RF were set',
    code: [...MOV_SS, NOP, NOP],
    start: breakpoint(AT.code + 4, 0, 0),
    at: undefined,
    dr6: 0,
  },
  {
    name: 'a code breakpoint in the middle',
    sdm: 'only the first byte of an instruction counts',
    code: [0x48, NOP, NOP],
    start: breakpoint(AT.code + 1, 0, 0),
    at: undefined,
    dr6: 0,
  },
  {
    name: 'a breakpoint that is not enabled',
    sdm: 'L and G clear: nothing happens',
    code: [NOP, NOP],
    start: (s) => ({ ...s, dr: [BigInt(AT.code)], dr7: 0x400n }),
    at: undefined,
    dr6: 0,
  },
  {
    name: 'a write breakpoint',
    sdm: 'a trap behind the writing instruction',
    code: [NOP, ...WRITE, NOP],
    start: breakpoint(AT.data, 1, 3),
    at: 3,
    dr6: 1,
  },
  {
    name: 'a write breakpoint and a read',
    sdm: 'reads do not match R/W = 01',
    code: [...READ, NOP],
    start: breakpoint(AT.data, 1, 3),
    at: undefined,
    dr6: 0,
  },
  {
    name: 'a read-write breakpoint',
    sdm: 'reads match R/W = 11',
    code: [...READ, NOP],
    start: breakpoint(AT.data, 3, 3),
    at: 2,
    dr6: 1,
  },
  {
    name: 'a byte of the access',
    sdm: 'any byte within the range matches',
    code: [...WRITE, NOP],
    start: breakpoint(AT.data + 3, 1, 0),
    at: 2,
    dr6: 1,
  },
  {
    name: 'a byte behind the access',
    sdm: 'outside the range nothing matches',
    code: [...WRITE, NOP],
    start: breakpoint(AT.data + 4, 1, 0),
    at: undefined,
    dr6: 0,
  },
  {
    name: 'a write breakpoint at CPL 3',
    sdm: 'privilege does not matter',
    code: [...WRITE, NOP],
    start: breakpoint(AT.data, 1, 3),
    at: 2,
    dr6: 1,
    cpl: 3,
  },
  {
    name: 'a data breakpoint and TF',
    sdm: 'one #DB with both conditions',
    code: [...WRITE, NOP],
    start: (s) => flags(TF)(breakpoint(AT.data, 1, 3)(s)),
    at: 2,
    dr6: 0x4001,
  },
  {
    name: 'an access that faults',
    sdm: 'a data breakpoint is a trap: an instruction that faults has none',
    code: [0x8b, 0x04, 0x25, AT.absent & 0xff, AT.absent >> 8, 0, 0],
    start: breakpoint(AT.absent, 3, 3),
    at: undefined,
    dr6: 0,
  },
  {
    name: 'an I/O breakpoint',
    sdm: 'R/W = 10 with CR4.DE: a trap behind IN and OUT',
    code: [0xe6, 0xf1, NOP],
    start: (s) => breakpoint(0xf1, 2, 0, { cr4: s.cr4 | 8n })(s),
    at: 2,
    dr6: 1,
    bareOnly: true,
  },
  {
    name: 'general detection',
    sdm: 'DR7.GD makes MOV DR a fault with BD; GD is cleared',
    code: [0x0f, 0x21, 0xc0, NOP],
    start: (s) => ({ ...s, dr7: 0x2400n }),
    at: 0,
    dr6: 0x2000,
    rf: true,
  },
  {
    name: 'DR7 loaded by the program',
    sdm: 'a breakpoint is in force behind MOV DR7',
    code: [0x0f, 0x23, 0xf9, NOP, ...WRITE, NOP],
    start: (s) => ({
      ...breakpoint(AT.data, 0, 0)(s),
      dr7: 0x400n,
      gprs: s.gprs.map((v, i) => (i === 1 ? 0xd0402n : v)),
    }),
    at: 6,
    dr6: 1,
  },
];

const seen = (r: Result) => {
  const vector = (Number(r.rip) - 1 - AT.handlers) / 16;
  const sp = Number(r.gprs[4]);
  return {
    vector,
    rip: Number(word(r.memory, sp, 8)),
    rf: (word(r.memory, sp + 16, 8) & 0x1_0000n) !== 0n,
    dr6: Number(r.dr6 & 0xe00fn),
  };
};

describe.each(ROWS.map((row) => [row.name, row] as const))('%s', (_name, row) => {
  const w = LONG_WORLDS[row.cpl ?? 0]!;
  const { image, start: plain } = makeWorld(w);
  const start = row.start?.(plain) ?? plain;
  image.put(AT.code, 1, ...row.code, 0xcd, 0x31);

  test('as the SDM says', () => {
    const r = execute('bare', 'interpreter', image.bytes, start);
    const got = seen(r);
    if (row.at === undefined) {
      expect(got.vector, row.sdm).not.toBe(1);
      expect(got.dr6).toBe(0);
      return;
    }
    expect(got, row.sdm).toEqual({ vector: 1, rip: AT.code + row.at, rf: row.rf ?? false, dr6: row.dr6 });
    expect(r.rip).toBe(BigInt(handler(1) + 1));
  });

  const others = ENGINES.flatMap((e) => PLACES.map((p) => [e, p] as const)).filter(
    ([, p], i) => i > 0 && (p === 'bare' || row.bareOnly !== true),
  );
  test.each(others)('%s, %s: no difference', (engine, place) => {
    const first = execute('bare', 'interpreter', image.bytes, start);
    expect(differences(first, execute(place, engine, image.bytes, start))).toEqual([]);
  });
});
