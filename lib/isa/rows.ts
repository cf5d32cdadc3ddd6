/**
 * The shape of an instruction row, and of a form parsed from it.
 *
 * A row lists its encoding forms in the SDM's notation, one string a form:
 *
 *   '[prefixes] opcode [/digit|/r] [imm] operands'
 *
 *   '00 /r Eb,Gb'      '81 /0 iz Ev,Iz'     '0f b6 /r Gv,Eb'     '70+cc cb Jb'      '90+r Zv,rAX'
 *   '66 0f 6f /r Vx,Wx'   'f3 0f 6f /r Vx,Wx'   'np 0f ae /0 M'   'f3 0f ae /0:reg Ry'
 *
 * - `np`, `66`, `f2`, `f3` in front: mandatory prefix (`np`: none of 66, F2, F3; `nfx`: no F2, F3).
 *   Without one, 66 is the operand size and F2, F3 are ignored. `w0`, `w1` behind it: REX.W must be so.
 * - `vex.lz` before all of these: VEX-encoded with VEX.L = 0; `B` operands are then the register of VEX.vvvv.
 * - opcode bytes in hexadecimal, `0f`, `0f 38` and `0f 3a` maps included; `+r` register in the low 3 bits,
 *   `+cc` condition in the low 4 bits.
 * - `/r`, `/0`..`/7`; `:reg` or `:mem` behind it restricts ModRM.mod; `/0:d0` fixes the whole ModRM byte.
 * - operand codes are the SDM's (appendix "Opcode Map"): a letter for the addressing (E G B I J M R N P Q S C D V W U O X
 *   Y Z A L F) and one for the type (b w d q v y z p dq x ss sd ps pd s a), or a fixed register (AL, rAX, eAX, CL, DX, ES …, 1). More: `Ibs` a byte sign-extended to the operand
 *   size, `Rv/Mw` different types for register and memory, `M512` memory of so many bytes, `ST0`, `STi`, `XMM0`. `X` and
 *   `Y` operands of string instructions give the width only and are not passed to `sem`.
 */
import type { Condition, Operand, Ops, Width } from './verbs.js';

export type Sem = <V>(o: Ops<V>, ...operands: Operand<V>[]) => void;

export interface InsnRow {
  /** Mnemonic; for `+cc` rows the stem (`j`, `set`, `cmov`). */
  readonly name: string;
  readonly forms: readonly string[];
  /** Section title of the SDM, volume 2. */
  readonly sdm: string;
  readonly sem: Sem;
  /** For `+cc` rows: given the condition, the semantics. Exactly one of `sem`, `semCc` is used. */
  readonly semCc?: (c: Condition) => Sem;
  /** Highest CPL allowed; absent means 3. Checked before `sem`, #GP(0). */
  readonly cpl?: 0;
  /** Modes in which the form exists; absent means all. `no64`: #UD in 64-bit mode; `only64`: #UD elsewhere; `protected`: #UD in real and virtual-8086 mode. */
  readonly modes?: 'no64' | 'only64' | 'protected';
  /** A LOCK prefix is allowed when the destination is memory. */
  readonly lock?: boolean;
  /** Ends a block: the helper may have changed RIP, the mode, translations or interrupt state. */
  readonly ends?: boolean;
  /** Operand size in 64-bit mode is 64 whatever REX.W says (`d64`) or forced (`f64`). */
  readonly size?: 'd64' | 'f64';
  /** String instruction: REP prefixes repeat it. */
  readonly string?: 'rep' | 'repe';
  /** Needs CR0.TS = 0 and the FPU or SSE unit enabled: `x87`, `mmx`, `sse`; checked before `sem` (#NM, #UD). */
  readonly unit?: 'x87' | 'mmx' | 'sse' | 'wait';
  /** Memory operands of 16 bytes must be aligned, else #GP(0). */
  readonly aligned?: boolean;
  /** Flags written (`oszapc` letters) and those left undefined, for vectors and documentation. */
  readonly flags?: { readonly w?: string; readonly u?: string };
  /** CPUID feature that the row belongs to (`FEATURES` in `isa/cpuid.ts`); absent: the base architecture. */
  readonly feature?: string;
  /** A write form that KVM's emulator treats as page-table writing (KVM-3.4). */
  readonly pageTableWriting?: boolean;
}

/** An operand of a decoded instruction. */
export type InsnOperand =
  | {
      readonly kind: 'reg';
      readonly w: Width;
      readonly index: number /** AH, CH, DH, BH */;
      readonly high?: boolean /** named by the form, not by the encoding */;
      readonly fixed?: boolean;
    }
  | {
      readonly kind: 'mem';
      readonly w: 8 | 16 | 32 | 64 | 128 /** other sizes: bytes */;
      readonly bytes?: number;
    }
  | { readonly kind: 'imm'; readonly w: Width; readonly value: bigint; readonly fixed?: boolean }
  | {
      readonly kind: 'rel';
      readonly w: Width /** displacement from the next instruction */;
      readonly value: number;
    }
  | { readonly kind: 'far'; readonly w: Width; readonly offset: number; readonly selector: number }
  | {
      readonly kind: 'seg' | 'cr' | 'dr' | 'st';
      readonly w: Width;
      readonly index: number;
      readonly fixed?: boolean;
    }
  | { readonly kind: 'xmm'; readonly w: 128; readonly index: number; readonly fixed?: boolean }
  | { readonly kind: 'mmx'; readonly w: 64; readonly index: number };

/** A memory operand's address, shared by all `mem` operands of an instruction (there is at most one ModRM). */
export interface MemoryOperand {
  /** General register number, or -1; -2 is RIP-relative (disp counts from the next instruction). */
  readonly base: number;
  readonly index: number;
  readonly scale: 0 | 1 | 2 | 3;
  /** Sign-extended displacement; a 64-bit moffs is given as bigint in `moffs`. */
  readonly disp: number;
  readonly moffs?: bigint;
  /** Segment after defaults and overrides (`SEG`). */
  readonly seg: number;
}

/** A decoded instruction: what every engine starts from. */
export interface Insn {
  readonly row: InsnRow;
  /** Number of the form in `FORMS`; equal for all instructions that share a handler up to operands and widths. */
  readonly form: number;
  readonly cc: Condition;
  readonly length: number;
  readonly w: Width;
  readonly aw: 16 | 32 | 64;
  readonly mode: 16 | 32 | 64;
  readonly lock: boolean;
  readonly rep: 'none' | 'rep' | 'repne';
  readonly rex: number;
  readonly operands: readonly InsnOperand[];
  readonly mem: MemoryOperand | undefined;
  /** DS or its override, for string instructions and moffs. */
  readonly dataSegment: number;
}

/** What the decoder answers: an instruction, `undefined` bytes (#UD), more bytes needed, or longer than 15 bytes (#GP). */
export type Decoded = Insn | 'undefined' | 'more' | 'too-long';
/** Decodes the instruction at `bytes[at]`, of which `available` bytes may be read, in a mode of code size `mode`. */
export type Decode = (bytes: Uint8Array, at: number, available: number, mode: 16 | 32 | 64) => Decoded;
