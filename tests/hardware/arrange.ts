/** Registers and memory for which random values would only fault or do nothing, by instruction. */
import type { Random } from '../../lib/base/random.js';
import type { Insn } from '../../lib/isa/rows.js';
import { FLAG, GPR } from '../../lib/isa/state.js';
import { chooseAddress, type Encoded } from './assemble.js';
import { AT, DATA, placeOf, SELECTOR } from './layout.js';
import { type Kind, putVector } from './values.js';

/** A case under construction. */
export interface Draft {
  readonly r: Random;
  readonly view: DataView;
  readonly code: Encoded;
  /** Linear address of the memory operand, if there is one. */
  readonly at: bigint | undefined;
  /** RIP of the next instruction, and of one that may be jumped to. */
  readonly next: number;
  readonly target: number;
  readonly mode: 64 | 32;
}

const set = (d: Draft, i: number, v: bigint): void =>
  d.view.setBigUint64(AT.gpr + 8 * i, BigInt.asUintN(d.mode, v), true);
const get = (d: Draft, i: number): bigint => d.view.getBigUint64(AT.gpr + 8 * i, true);
/** Writes memory where the windows are; other places keep what they have. */
const poke = (d: Draft, at: bigint, bytes: number, v: bigint): void => {
  for (let i = 0; i < bytes; i++) {
    const place = placeOf(Number(BigInt.asUintN(52, at)) + i);
    if (place >= 0) d.view.setUint8(place, Number((v >> BigInt(8 * i)) & 0xffn));
  }
};

const SELECTORS = [0, 3, SELECTOR.data, SELECTOR.data, SELECTOR.data, 0x28, SELECTOR.code32, SELECTOR.code64];
const selector = (d: Draft): number => {
  const { r } = d;
  switch (r.below(8)) {
    case 0:
      return [0x10, 0x18, 0x08, 0x40, 0x80, 0x8b, 0x2f, 0xfffb, 0x7][r.below(9)];
    default:
      return SELECTORS[r.below(SELECTORS.length)];
  }
};
const flagsImage = (d: Draft): bigint =>
  BigInt((d.r.u32() & 0x8d5) | (d.r.below(4) === 0 ? 0x400 : 0) | 0x202);

/** Where an indirect branch goes: mostly on. */
const jumpTarget = (d: Draft): bigint => {
  switch (d.r.below(12)) {
    case 0:
      return BigInt(DATA + d.r.below(64));
    case 1:
      return BigInt(DATA - 0x1000 + d.r.below(64));
    default:
      return BigInt(d.r.below(2) === 0 ? d.target : d.next);
  }
};

type Rule = readonly [rows: RegExp, arrange: (d: Draft, insn: Insn) => void];
const RULES: readonly Rule[] = [
  [
    /^(movs|cmps|stos|lods|scas|ins|outs)$/,
    (d, insn) => {
      const { r } = d;
      const bytes = insn.w / 8;
      const tame = r.below(3) > 0;
      set(d, GPR.rsi, chooseAddress(r, bytes * 4, tame));
      set(
        d,
        GPR.rdi,
        r.below(8) === 0 ? get(d, GPR.rsi) + BigInt(r.below(16)) : chooseAddress(r, bytes * 4, tame),
      );
      if (insn.rep !== 'none') set(d, GPR.rcx, BigInt(r.below(8) === 0 ? r.below(200) : r.below(12)));
      if (r.below(3) === 0) {
        // runs of equal elements
        for (const reg of [GPR.rsi, GPR.rdi]) poke(d, get(d, reg), 32, 0n);
        if (r.below(2) === 0) set(d, GPR.rax, 0n);
        poke(d, get(d, GPR.rdi) + BigInt(r.below(32)), 1, 1n);
      }
    },
  ],
  [/^xlatb$/, (d) => set(d, GPR.rbx, chooseAddress(d.r, 1, false) - (get(d, GPR.rax) & 0xffn))],
  [/^maskmov/, (d) => set(d, GPR.rdi, chooseAddress(d.r, 16, false))],
  [
    /^bt[src]?$/,
    (d, insn) => {
      const [op, from] = insn.operands;
      if (op.kind === 'mem' && from.kind === 'reg' && from.index !== insn.mem?.base)
        set(d, from.index, BigInt(d.r.below(512) - 256));
    },
  ],
  [
    /^i?div$/,
    (d) => {
      const { r } = d;
      if (r.below(4) === 0) return;
      set(d, GPR.rdx, r.below(3) === 0 ? -1n : BigInt(r.below(3)));
      set(d, GPR.rax, BigInt(r.u32() >>> r.below(32)));
    },
  ],
  [
    /^(ro[lr]|rc[lr]|sh[lr]d?|sal|sar)$/,
    (d) => {
      if (d.r.below(2) === 0)
        set(d, GPR.rcx, BigInt([0, 1, 2, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 63, 64, 65][d.r.below(16)]));
    },
  ],
  [
    /^cmpxchg/,
    (d, insn) => {
      if (d.r.below(2) === 0) return;
      if (d.at === undefined) return;
      const half = insn.row.name === 'cmpxchg16b' ? 8 : insn.row.name === 'cmpxchg8b' ? 4 : insn.w / 8;
      poke(d, d.at, half, get(d, GPR.rax));
      if (insn.row.name !== 'cmpxchg') poke(d, d.at + BigInt(half), half, get(d, GPR.rdx));
    },
  ],
  [/^(leave|enter)$/, (d) => set(d, GPR.rbp, BigInt(DATA + 0xfc0 + 8 * d.r.below(16)))],
  [
    /^(loop|loope|loopne|jcxz)$/,
    (d) => set(d, GPR.rcx, (d.r.below(3) === 0 ? BigInt(d.r.below(2)) << 32n : 0n) | BigInt(d.r.below(3))),
  ],
  [/^popf$/, (d, insn) => poke(d, get(d, GPR.rsp), insn.w / 8, flagsImage(d))],
  [
    /^ret$/,
    (d, insn) => {
      const far = (d.code.bytes.at(insn.operands.length > 0 ? -3 : -1) ?? 0) >= 0xca;
      const rsp = get(d, GPR.rsp);
      const size = insn.w / 8;
      poke(d, rsp, size, jumpTarget(d));
      if (far) {
        const here = d.mode === 64 ? SELECTOR.code64 : SELECTOR.code32;
        poke(
          d,
          rsp + BigInt(size),
          size,
          BigInt(d.r.below(5) > 0 ? here : [0, 3, 0x2b, 0x10, 0x30, 0x83][d.r.below(6)]),
        );
      }
    },
  ],
  [
    /^iret$/,
    (d, insn) => {
      const size = BigInt(insn.w / 8);
      const here = d.mode === 64 ? SELECTOR.code64 : SELECTOR.code32;
      const bad = d.r.below(5) === 0;
      const values = [
        jumpTarget(d),
        BigInt(bad && d.r.below(2) === 0 ? [0, 3, 0x2b, 0x10, 0x83][d.r.below(5)] : here),
        flagsImage(d),
        BigInt(DATA + 0xfc0 + 8 * d.r.below(16)),
        BigInt(bad && d.r.below(2) === 0 ? [0, 3, 0x33, 0x18, 0x83][d.r.below(5)] : SELECTOR.data),
      ];
      values.forEach((v, i) => {
        poke(d, get(d, GPR.rsp) + BigInt(i) * size, Number(size), v);
      });
    },
  ],
  [
    /^(jmp|call)$/,
    (d, insn) => {
      const op = insn.operands[0];
      if (op.kind === 'reg') set(d, op.index, jumpTarget(d));
      else if (op.kind === 'mem' && d.at !== undefined) {
        const far = op.bytes !== undefined && op.bytes !== op.w / 8;
        const size = far ? insn.w / 8 : op.w / 8;
        poke(d, d.at, size, jumpTarget(d));
        const here = d.mode === 64 ? SELECTOR.code64 : SELECTOR.code32;
        if (far)
          poke(
            d,
            d.at + BigInt(size),
            2,
            BigInt(d.r.below(5) > 0 ? here : [0, 3, 0x2b, 0x10, 0x83][d.r.below(5)]),
          );
      }
    },
  ],
  [
    /^(l[defgs]s|lss)$/,
    (d, insn) => {
      if (d.at !== undefined) poke(d, d.at + BigInt(insn.w / 8), 2, BigInt(selector(d)));
    },
  ],
  [
    /^(lar|lsl|verr|verw|arpl|mov)$/,
    (d, insn) => {
      if (insn.row.name === 'mov' && insn.operands[0].kind !== 'seg') return;
      const op = insn.operands[insn.operands.length - 1];
      const v = BigInt(selector(d));
      if (op.kind === 'reg') set(d, op.index, (get(d, op.index) & ~0xffffn) | v);
      else if (d.at !== undefined) poke(d, d.at, 2, v);
    },
  ],
  [
    /^pop$/,
    (d, insn) => {
      if (insn.operands[0].kind === 'seg') poke(d, get(d, GPR.rsp), insn.w / 8, BigInt(selector(d)));
    },
  ],
  [
    /^ldmxcsr$/,
    (d) => {
      if (d.at !== undefined && d.r.below(5) > 0) poke(d, d.at, 4, BigInt(d.r.u32() & 0xffff));
    },
  ],
  [
    /^bound$/,
    (d, insn) => {
      const [op] = insn.operands;
      if (op.kind !== 'reg' || d.at === undefined || d.r.below(2) === 0) return;
      const half = BigInt(insn.w / 8);
      const v = BigInt.asIntN(insn.w, get(d, op.index));
      poke(d, d.at, Number(half), BigInt.asUintN(insn.w, v - BigInt(d.r.below(3))));
      poke(d, d.at + half, Number(half), BigInt.asUintN(insn.w, v + BigInt(d.r.below(3)) - 1n));
    },
  ],
  [
    /^xsave|^xrstor/,
    (d) => {
      // components that we do not have are not asked for
      set(d, GPR.rax, BigInt(d.r.below(4) | (d.r.below(4) === 0 ? 0x100 : 0)));
      set(d, GPR.rdx, 0n);
    },
  ],
  [/^xgetbv$/, (d) => set(d, GPR.rcx, BigInt(d.r.below(4)))],
  [
    /^pcmpestr/,
    (d, insn) => {
      if (insn.w !== 64 || d.r.below(2) === 0)
        for (const i of [GPR.rax, GPR.rdx]) set(d, i, BigInt(d.r.below(40) - 20));
    },
  ],
  [
    /^(wrfsbase|wrgsbase)$/,
    (d, insn) => {
      const [op] = insn.operands;
      if (op.kind === 'reg' && d.r.below(4) > 0) set(d, op.index, get(d, op.index) >> 17n);
    },
  ],
];

/** Flags that must not come from random values: those that trap or hold for what follows. */
export const SAFE_FLAGS = FLAG.cf | FLAG.pf | FLAG.af | FLAG.zf | FLAG.sf | FLAG.df | FLAG.of | 0x202;

export const arrange = (d: Draft, kind: Kind): void => {
  const { insn } = d.code;
  if (d.at !== undefined && /^(f32|f64|f80|bcd|text)$/.test(kind)) {
    // typed data where it is read
    const place = placeOf(Number(BigInt.asUintN(52, d.at)));
    if (place >= 0 && place + 16 <= AT.size) putVector(d.view, place, kind, d.r);
  }
  for (const [rows, rule] of RULES) if (rows.test(insn.row.name)) rule(d, insn);
};
