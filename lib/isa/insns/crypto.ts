/**
 * AES-NI and PCLMULQDQ.
 *
 * SDM volume 2, AESENC … AESKEYGENASSIST and PCLMULQDQ. The arithmetic is in `cpu/simd/aes.ts` and `carryless.ts`, over
 * the 64-bit parts of the operands.
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Ops } from '../verbs.js';
import { vector } from './vectors.js';

const parts = <V>(o: Ops<V>, v: V): readonly [V, V] => [o.lane(v, 64, 0), o.lane(v, 64, 1)];

/** Both operands. */
const round =
  (helper: string): Sem =>
  (o, d, s) => {
    const key = s.read();
    const r = o.call(helper, [...parts(o, d.read()), ...parts(o, key)], 2);
    d.write(vector(o, r[0]!, r[1]!));
  };
/** The source alone, and an immediate. */
const keyHelper =
  (helper: string): Sem =>
  (o, d, s, imm) => {
    const source = parts(o, s.read());
    const r = o.call(helper, imm === undefined ? source : [...source, imm.read(8)], 2);
    d.write(vector(o, r[0]!, r[1]!));
  };
/** Bits 0 and 4 of the immediate choose the halves. */
const multiply: Sem = (o, d, s, imm) => {
  const b = parts(o, s.read());
  const a = parts(o, d.read());
  const i = imm.read(8);
  const r = o.call(
    'carrylessMultiply',
    [o.select(o.bit(i, 0), a[1], a[0]), o.select(o.bit(i, 4), b[1], b[0])],
    2,
  );
  d.write(vector(o, r[0]!, r[1]!));
};

const row = (name: string, form: string, sem: Sem, feature = 'aes'): InsnRow => ({
  name,
  forms: [form],
  sdm: name.toUpperCase(),
  sem,
  unit: 'sse',
  feature,
  aligned: true,
});

export const CRYPTO_ROWS: readonly InsnRow[] = [
  row('aesimc', '66 0f 38 db /r Vdq,Wdq', keyHelper('aesimc')),
  row('aesenc', '66 0f 38 dc /r Vdq,Wdq', round('aesenc')),
  row('aesenclast', '66 0f 38 dd /r Vdq,Wdq', round('aesenclast')),
  row('aesdec', '66 0f 38 de /r Vdq,Wdq', round('aesdec')),
  row('aesdeclast', '66 0f 38 df /r Vdq,Wdq', round('aesdeclast')),
  row('aeskeygenassist', '66 0f 3a df /r ib Vdq,Wdq,Ib', keyHelper('aeskeygenassist')),
  row('pclmulqdq', '66 0f 3a 44 /r ib Vdq,Wdq,Ib', multiply, 'pclmulqdq'),
];
