/**
 * Shifts and rotates.
 *
 * SDM volume 1, section "Shift and Rotate Instructions". Counts are masked to 5 bits, to 6 with 64-bit operands; a
 * masked count of 0 leaves the flags alone. The destination is written in any case.
 * Undefined results are given the values that fall out of one formula for all counts: OF follows the rule of count 1,
 * AF is cleared by shifts, and 16-bit SHLD and SHRD with counts above 16 rotate the 32 bits of both operands.
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Operand, Ops } from '../verbs.js';

const MNEMONICS = ['rol', 'ror', 'rcl', 'rcr', 'shl', 'shr', 'shl', 'sar'] as const;
type Kind = (typeof MNEMONICS)[number];

const bits = (w: number): number => w;
const maskedCount = <V>(o: Ops<V>, w: number, count: Operand<V>): V =>
  o.and(o.zext(count.read(8), 32), o.imm(w === 64 ? 63 : 31, 32));
/** The low bit as a boolean. */
const low = <V>(o: Ops<V>, v: V): V => o.trunc(v, 1);

/** SHL, SHR, SAR by `n`; `always` when n is known not to be 0. */
const shift = <V>(o: Ops<V>, kind: 'shl' | 'shr' | 'sar', d: Operand<V>, n: V, always: boolean): void => {
  const w = bits(d.w);
  const one = o.imm(1, 32);
  const a = d.rmw((v) => o[kind](v, n));
  const flags = (): void => {
    const r = o[kind](a, n);
    if (kind === 'shl') {
      // in a wider container the last bit shifted out is bit w; counts beyond w shift out zeros
      const out = w < 32 ? o.bit(o.shl(o.zext(a, 32), n), w) : low(o, o.shr(a, o.sub(o.imm(w, 32), n)));
      o.flags.shl(r, out);
    } else o.flags[kind](r, low(o, o[kind](a, o.sub(n, one))));
  };
  if (always) flags();
  else o.when(o.nez(n), flags);
};

/** n modulo `size` for n up to 31 and size 9 or 17. */
const modulo = <V>(o: Ops<V>, n: V, size: number): V => {
  let r = n;
  for (let k = Math.floor(31 / size); k > 0; k--) {
    const s = o.imm(size * k, 32);
    r = o.select(o.leu(s, r), o.sub(r, s), r);
  }
  return r;
};

/** Rotates `v` through carry `c` by `n`: [result, carry]. A 64-bit operand has no wider container and goes piecewise. */
const throughCarry = <V>(o: Ops<V>, left: boolean, v: V, c: V, n: V, w: number): readonly [V, V] => {
  const one = o.imm(1, 32);
  if (w === 64) {
    const zero = o.eqz(n);
    const rest = o.and(o.sub(o.imm(64, 32), n), o.imm(63, 32));
    const before = o.and(o.sub(n, one), o.imm(63, 32));
    const carry = o.zext(c, 64);
    const r = left
      ? o.or(o.or(o.shl(v, n), o.shl(carry, before)), o.shr(o.shr(v, one), rest))
      : o.or(o.or(o.shr(v, n), o.shl(carry, rest)), o.shl(o.shl(v, one), rest));
    const out = low(o, o.shr(v, left ? rest : before));
    return [o.select(zero, v, r), o.select(zero, c, out)];
  }
  const container = w === 32 ? 64 : 32;
  const k = w === 32 ? n : modulo(o, n, w + 1);
  const x = o.or(o.zext(v, container), o.shl(o.zext(c, container), o.imm(w, 32)));
  const rest = o.sub(o.imm(w + 1, 32), k);
  const r = left ? o.or(o.shl(x, k), o.shr(x, rest)) : o.or(o.shr(x, k), o.shl(x, rest));
  return [o.trunc(r, w as 8 | 16 | 32), o.bit(r, w)];
};

const rotate = <V>(
  o: Ops<V>,
  kind: 'rol' | 'ror' | 'rcl' | 'rcr',
  d: Operand<V>,
  n: V,
  always: boolean,
): void => {
  const w = bits(d.w);
  const carry = o.flags.cf();
  const apply = (v: V): readonly [V, V] => {
    if (kind === 'rcl' || kind === 'rcr') return throughCarry(o, kind === 'rcl', v, carry, n, w);
    const r = o[kind](v, n);
    return [r, kind === 'rol' ? low(o, r) : o.bit(r, w - 1)];
  };
  const a = d.rmw((v) => apply(v)[0]);
  const flags = (): void => {
    const [r, cf] = apply(a);
    const top = o.bit(r, w - 1);
    o.flags.set({ cf, of: o.xor(top, kind === 'rol' || kind === 'rcl' ? cf : o.bit(r, w - 2)) });
  };
  if (always) flags();
  else o.when(o.nez(n), flags);
};

const apply = <V>(o: Ops<V>, kind: Kind, d: Operand<V>, n: V, always: boolean): void => {
  if (kind === 'shl' || kind === 'shr' || kind === 'sar') shift(o, kind, d, n, always);
  else rotate(o, kind, d, n, always);
};

const SDM: Readonly<Record<Kind, string>> = {
  rol: 'RCL/RCR/ROL/ROR—Rotate',
  ror: 'RCL/RCR/ROL/ROR—Rotate',
  rcl: 'RCL/RCR/ROL/ROR—Rotate',
  rcr: 'RCL/RCR/ROL/ROR—Rotate',
  shl: 'SAL/SAR/SHL/SHR—Shift',
  shr: 'SAL/SAR/SHL/SHR—Shift',
  sar: 'SAL/SAR/SHL/SHR—Shift',
};
const isRotate = (kind: Kind): boolean => kind.startsWith('r');

const byCount =
  (kind: Kind): Sem =>
  (o, d, count) =>
    apply(o, kind, d, maskedCount(o, d.w, count), false);
const byOne =
  (kind: Kind): Sem =>
  (o, d) =>
    apply(o, kind, d, o.imm(1, 32), true);

const single = MNEMONICS.flatMap((name, n): readonly InsnRow[] => {
  const common = {
    name,
    sdm: SDM[name],
    flags: isRotate(name) ? { w: 'c', u: 'o' } : { w: 'szpc', u: 'oa' },
  };
  return [
    {
      ...common,
      forms: [`c0 /${n} ib Eb,Ib`, `c1 /${n} ib Ev,Ib`, `d2 /${n} Eb,CL`, `d3 /${n} Ev,CL`],
      sem: byCount(name),
    },
    {
      ...common,
      forms: [`d0 /${n} Eb,1`, `d1 /${n} Ev,1`],
      flags: { w: isRotate(name) ? 'oc' : 'oszpc', u: isRotate(name) ? '' : 'a' },
      sem: byOne(name),
    },
  ];
});

/** [result, last bit shifted out] of a double shift of `a`, filled from `b`. */
const double = <V>(o: Ops<V>, left: boolean, a: V, b: V, n: V, w: number): readonly [V, V] => {
  if (w === 16) {
    const x = left
      ? o.or(o.shl(o.zext(a, 32), o.imm(16, 32)), o.zext(b, 32))
      : o.or(o.shl(o.zext(b, 32), o.imm(16, 32)), o.zext(a, 32));
    const r = left ? o.rol(x, n) : o.ror(x, n);
    return left ? [o.trunc(o.shr(r, o.imm(16, 32)), 16), low(o, r)] : [o.trunc(r, 16), o.bit(r, 31)];
  }
  const one = o.imm(1, 32);
  const rest = o.sub(o.imm(w - 1, 32), n);
  if (left) {
    return [
      o.or(o.shl(a, n), o.shr(o.shr(b, one), rest)),
      low(o, o.shr(a, o.and(o.sub(o.imm(w, 32), n), o.imm(w - 1, 32)))),
    ];
  }
  return [
    o.or(o.shr(a, n), o.shl(o.shl(b, one), rest)),
    low(o, o.shr(a, o.and(o.sub(n, one), o.imm(w - 1, 32)))),
  ];
};

const doubleShift =
  (left: boolean): Sem =>
  (o, d, s, count) => {
    const w = bits(d.w);
    const n = maskedCount(o, w, count);
    const b = s.read();
    const a = d.rmw((v) => double(o, left, v, b, n, w)[0]);
    o.when(o.nez(n), () => {
      const [r, out] = double(o, left, a, b, n, w);
      if (left) o.flags.shl(r, out);
      else {
        o.flags.shr(r, out);
        o.flags.set({ of: o.xor(o.bit(r, w - 1), o.bit(r, w - 2)) });
      }
    });
  };

export const SHIFT_ROWS: readonly InsnRow[] = [
  ...single,
  {
    name: 'shld',
    forms: ['0f a4 /r ib Ev,Gv,Ib', '0f a5 /r Ev,Gv,CL'],
    sdm: 'SHLD—Double Precision Shift Left',
    flags: { w: 'szpc', u: 'oa' },
    sem: doubleShift(true),
  },
  {
    name: 'shrd',
    forms: ['0f ac /r ib Ev,Gv,Ib', '0f ad /r Ev,Gv,CL'],
    sdm: 'SHRD—Double Precision Shift Right',
    flags: { w: 'szpc', u: 'oa' },
    sem: doubleShift(false),
  },
];
