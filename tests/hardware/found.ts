/**
 * What comparing with hardware has found, as rows: each is recorded into the vectors like a case of a form. The state is
 * that of a kind and a seed, with the registers given put over it.
 */
import { AT } from './layout.js';
import { fillState, type Kind } from './values.js';

export interface Found {
  readonly says: string;
  readonly mode: 64 | 32;
  readonly code: string;
  readonly kind: Kind;
  readonly gpr?: Readonly<Record<number, bigint>>;
  /** Words of the FXSAVE image: control, status, MXCSR. */
  readonly fcw?: number;
  readonly fsw?: number;
  readonly mxcsr?: number;
  /** 64-bit words of the image by offset. */
  readonly fx?: Readonly<Record<number, bigint>>;
}

const DATA = 0x1000_0000n;
const END = DATA + 0x2000n;
const READ_ONLY = DATA + 0x4000n;
const NOT_CANONICAL = 0x1234_5678_0000_0000n;

export const FOUND: readonly Found[] = [
  // A 16-bit operand size in 32-bit code cut EIP where an instruction is the last of its block but does not jump.
  { says: 'LOOPNE not taken with 66', mode: 32, code: '66 e0 02 f6 d0', kind: 'int', gpr: { 1: 1n } },
  { says: 'LOOP not taken with 66', mode: 32, code: '66 e2 02 f6 d0', kind: 'int', gpr: { 1: 1n } },
  { says: 'JECXZ not taken with 66', mode: 32, code: '66 e3 02 f6 d0', kind: 'int', gpr: { 1: 7n } },
  { says: 'JZ not taken with 66', mode: 32, code: '31 c0 40 66 74 02 f6 d0', kind: 'int' },
  { says: 'REP LODSW', mode: 32, code: '66 f3 ad', kind: 'int', gpr: { 1: 3n, 6: DATA + 0x1000n } },
  { says: 'REP STOSW', mode: 32, code: '66 f3 ab', kind: 'int', gpr: { 1: 3n, 7: DATA + 0x1000n } },
  {
    says: 'REP MOVSW',
    mode: 32,
    code: '66 f3 a5',
    kind: 'int',
    gpr: { 1: 9n, 6: DATA + 0xf00n, 7: DATA + 0x1000n },
  },
  { says: 'REPE SCASW', mode: 32, code: '66 f3 af', kind: 'int', gpr: { 1: 2n, 7: DATA + 0x1000n } },
  // Many 16-bit elements at an odd address.
  {
    says: 'REP STOSW at an odd address',
    mode: 64,
    code: '66 f3 ab',
    kind: 'int',
    gpr: { 1: 9n, 7: DATA + 0xf01n },
  },
  {
    says: 'REP STOSQ at an odd address',
    mode: 64,
    code: 'f3 48 ab',
    kind: 'int',
    gpr: { 1: 9n, 7: DATA + 0xf01n },
  },
  // MAXSD and MINSD of two zeros flagged the inexactness of the operation before.
  {
    says: 'MAXSD of zeros after an inexact ADDSD',
    mode: 64,
    code: 'f2 0f 58 d3 f2 0f 11 17 0f ae 54 24 08 f2 0f 5f c1 f2 0f 5d c1',
    kind: 'int',
    gpr: { 4: DATA + 0xf80n, 7: DATA + 0x1000n },
    mxcsr: 0x1f80,
    fx: { 160: 0n, 176: 0n, 192: 0x3ff0_0000_0000_0000n, 208: 0x3c00_0000_0000_0000n },
  },
  {
    says: 'MAXSS of zeros after an inexact ADDSS',
    mode: 64,
    code: 'f3 0f 58 d3 f3 0f 5f c1 f3 0f 5d c1',
    kind: 'int',
    mxcsr: 0x1f80,
    fx: { 160: 0n, 176: 0n, 192: 0x3f80_0000n, 208: 0x3080_0000n },
  },
  // The final stack pointer of ENTER is asked for writing.
  {
    says: 'ENTER to a page that is not there',
    mode: 64,
    code: 'c8 00 30 00',
    kind: 'int',
    gpr: { 4: DATA + 0x1000n, 5: 0n },
  },
  {
    says: 'ENTER to a page that is not there',
    mode: 32,
    code: 'c8 00 30 00',
    kind: 'int',
    gpr: { 4: DATA + 0x1000n, 5: 0n },
  },
  // Not canonical, through the stack segment: #SS.
  ...(
    [
      ['FNSTENV [RBP]', 'd9 75 00'],
      ['FNSAVE [RBP]', 'dd 75 00'],
      ['FLDENV [RBP]', 'd9 65 00'],
      ['FXSAVE [RBP]', '0f ae 45 00'],
      ['FLD m80 [RBP]', 'db 6d 00'],
      ['FBLD [RBP]', 'df 65 00'],
      ['FSTP m80 [RBP]', 'db 7d 00'],
      ['LFS [RBP]', '0f b4 45 00'],
      ['FNSTENV [RBX]', 'd9 33'],
    ] as const
  ).map(
    ([says, code]): Found => ({
      says: `${says}, not canonical`,
      mode: 64,
      code,
      kind: 'f80',
      gpr: { 3: NOT_CANONICAL, 5: NOT_CANONICAL },
      fcw: 0x37f,
      fsw: 0,
    }),
  ),
  // ARPL writes only what changes.
  {
    says: 'ARPL of a page that is read-only, unchanged',
    mode: 32,
    code: '63 03',
    kind: 'int',
    gpr: { 0: 0n, 3: READ_ONLY },
  },
  {
    says: 'ARPL of a page that is read-only',
    mode: 32,
    code: '63 03',
    kind: 'int',
    gpr: { 0: 3n, 3: READ_ONLY },
  },
  {
    says: 'ARPL through CS, unchanged',
    mode: 32,
    code: '2e 63 03',
    kind: 'int',
    gpr: { 0: 0n, 3: DATA + 0x1000n },
  },
  // A pending x87 exception comes before the memory operand of a conversion to MMX.
  {
    says: 'CVTPS2PI with #MF pending',
    mode: 64,
    code: '0f 2d 03',
    kind: 'f32',
    gpr: { 3: END },
    fcw: 0x37e,
    fsw: 0x8081,
  },
  {
    says: 'CVTTPD2PI with #MF pending',
    mode: 64,
    code: '66 0f 2c 03',
    kind: 'f64',
    gpr: { 3: END - 8n },
    fcw: 0x37e,
    fsw: 0x8081,
  },
];

/** Fills `bytes` with a row's case. @returns its seed */
export const foundCase = (bytes: Uint8Array, row: Found, index: number): number => {
  const seed = 1000 + index;
  fillState(bytes, row.kind, seed, row.mode);
  const view = new DataView(bytes.buffer, bytes.byteOffset, AT.size);
  view.setBigUint64(AT.gpr + 32, DATA + 0xfe0n, true);
  for (const [r, v] of Object.entries(row.gpr ?? {})) view.setBigUint64(AT.gpr + 8 * Number(r), v, true);
  for (const [at, v] of Object.entries(row.fx ?? {})) view.setBigUint64(Number(at), v, true);
  if (row.fcw !== undefined) view.setUint16(0, row.fcw, true);
  if (row.fsw !== undefined) view.setUint16(2, row.fsw, true);
  if (row.mxcsr !== undefined) view.setUint32(24, row.mxcsr, true);
  view.setUint32(AT.rflags, view.getUint32(AT.rflags, true) & ~0x400, true);
  const code = row.code.split(' ').map((b) => Number.parseInt(b, 16));
  bytes[AT.length] = code.length;
  bytes.set(code, AT.code);
  return seed;
};
