/**
 * SSE and SSE2 floating-point arithmetic, comparisons and conversions.
 *
 * SDM volume 1, "SSE Packed and Scalar Floating-Point Instructions" and "SSE2 …". Everything that rounds or raises
 * floating-point exceptions is a helper over 64-bit parts of the operands (`cpu/fpu/sse-arith.ts`, `sse-convert.ts`).
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Ops } from '../verbs.js';
import { vector } from './vectors.js';

const parts = <V>(o: Ops<V>, v: V): readonly [V, V] => [o.lane(v, 64, 0), o.lane(v, 64, 1)];

const packed =
  (helper: string): Sem =>
  (o, d, s) => {
    const b = s.read();
    const r = o.call(helper, [...parts(o, d.read()), ...parts(o, b)], 2);
    d.write(vector(o, r[0], r[1]));
  };
const scalar =
  (helper: string, w: 32 | 64): Sem =>
  (o, d, s) => {
    const b = s.read(w);
    const r = o.call(helper, [d.read(w), b], 1);
    d.write(o.withLane(d.read(), w, 0, o.trunc(r[0], w)));
  };

const row = (name: string, forms: readonly string[], sem: Sem, more: Partial<InsnRow> = {}): InsnRow => ({
  name,
  forms,
  sdm: name.toUpperCase(),
  sem,
  unit: 'sse',
  feature: /^(np|f3)/.test(forms[0]) ? 'sse' : 'sse2',
  ...more,
});
const singles = (name: string, opcode: string): readonly InsnRow[] => [
  row(`${name}ps`, [`np 0f ${opcode} /r Vps,Wps`], packed(`${name}ps`), { aligned: true }),
  row(`${name}ss`, [`f3 0f ${opcode} /r Vss,Wss`], scalar(`${name}ss`, 32)),
];
const family = (name: string, opcode: string): readonly InsnRow[] => [
  ...singles(name, opcode),
  row(`${name}pd`, [`66 0f ${opcode} /r Vpd,Wpd`], packed(`${name}pd`), { aligned: true }),
  row(`${name}sd`, [`f2 0f ${opcode} /r Vsd,Wsd`], scalar(`${name}sd`, 64)),
];

const comparePacked =
  (helper: string): Sem =>
  (o, d, s, imm) => {
    const b = s.read();
    const r = o.call(helper, [...parts(o, d.read()), ...parts(o, b), imm.read(8)], 2);
    d.write(vector(o, r[0], r[1]));
  };
const compareScalar =
  (helper: string, w: 32 | 64): Sem =>
  (o, d, s, imm) => {
    const b = s.read(w);
    const r = o.call(helper, [d.read(w), b, imm.read(8)], 1);
    d.write(o.withLane(d.read(), w, 0, o.trunc(r[0], w)));
  };
const compareFlags =
  (helper: string, w: 32 | 64): Sem =>
  (o, a, b) => {
    const y = b.read(w);
    o.flags.setAll(o.trunc(o.call(helper, [a.read(w), y], 1)[0], 32));
  };
const FLAGS = { flags: { w: 'oszapc' } } as const;

/** A conversion of a scalar into the low `to` bits of an XMM register. */
const toScalar =
  (helper: string, from: 32 | 64, to: 32 | 64): Sem =>
  (o, d, s) => {
    const r = o.call(helper, [s.read(from)], 1);
    d.write(o.withLane(d.read(), to, 0, o.trunc(r[0], to)));
  };
const integerToScalar =
  (helper: string, to: 32 | 64): Sem =>
  (o, d, s) => {
    const r = o.call(helper, [o.sext(s.read(), 64)], 1);
    d.write(o.withLane(d.read(), to, 0, o.trunc(r[0], to)));
  };
const scalarToInteger =
  (helper: string, from: 32 | 64): Sem =>
  (o, d, s) => {
    const w = d.w === 64 ? 64 : 32;
    d.write(o.trunc(o.call(`${helper}${w}`, [s.read(from)], 1)[0], w));
  };
/** 128 bits to 128 bits. */
const lanes =
  (helper: string): Sem =>
  (o, d, s) => {
    const r = o.call(helper, parts(o, s.read()), 2);
    d.write(vector(o, r[0], r[1]));
  };
/** 64 bits to 128 bits. */
const spread =
  (helper: string): Sem =>
  (o, d, s) => {
    const r = o.call(helper, [s.read(64)], 2);
    d.write(vector(o, r[0], r[1]));
  };
/** 128 bits to 64, the rest cleared. */
const gather =
  (helper: string): Sem =>
  (o, d, s) =>
    d.write(o.fromLow(o.call(helper, parts(o, s.read()), 1)[0]));

/** To and from MMX registers; those make the x87 registers MMX registers. */
const fromMmx =
  (helper: string, results: 1 | 2, touches: 'always' | 'register'): Sem =>
  (o, d, s) => {
    const touch = touches === 'always' || s.kind !== 'mem';
    if (touch) o.call('checkMmx');
    const v = s.read();
    const r = o.call(helper, [v], results);
    if (touch) o.call('mmxTouch');
    d.write(results === 2 ? vector(o, r[0], r[1]) : o.withLane(d.read(), 64, 0, r[0]));
  };
const toMmx =
  (helper: string, source: 64 | 128): Sem =>
  (o, d, s) => {
    o.call('checkMmx');
    const args = source === 64 ? [s.read(64)] : parts(o, s.read());
    o.call('mmxWrite', [d.index(), o.call(helper, args, 1)[0]]);
  };

export const SSE_FP_ROWS: readonly InsnRow[] = [
  ...family('sqrt', '51'),
  ...singles('rsqrt', '52'),
  ...singles('rcp', '53'),
  ...family('add', '58'),
  ...family('mul', '59'),
  ...family('sub', '5c'),
  ...family('min', '5d'),
  ...family('div', '5e'),
  ...family('max', '5f'),
  row('cmpps', ['np 0f c2 /r ib Vps,Wps,Ib'], comparePacked('cmpps'), { aligned: true }),
  row('cmppd', ['66 0f c2 /r ib Vpd,Wpd,Ib'], comparePacked('cmppd'), { aligned: true }),
  row('cmpss', ['f3 0f c2 /r ib Vss,Wss,Ib'], compareScalar('cmpss', 32)),
  row('cmpsd', ['f2 0f c2 /r ib Vsd,Wsd,Ib'], compareScalar('cmpsd', 64)),
  row('ucomiss', ['np 0f 2e /r Vss,Wss'], compareFlags('ucomiss', 32), FLAGS),
  row('ucomisd', ['66 0f 2e /r Vsd,Wsd'], compareFlags('ucomisd', 64), FLAGS),
  row('comiss', ['np 0f 2f /r Vss,Wss'], compareFlags('comiss', 32), FLAGS),
  row('comisd', ['66 0f 2f /r Vsd,Wsd'], compareFlags('comisd', 64), FLAGS),

  row('cvtsi2ss', ['f3 0f 2a /r Vss,Ey'], integerToScalar('cvtsi2ss', 32)),
  row('cvtsi2sd', ['f2 0f 2a /r Vsd,Ey'], integerToScalar('cvtsi2sd', 64)),
  row('cvttss2si', ['f3 0f 2c /r Gy,Wss'], scalarToInteger('cvttss2si', 32)),
  row('cvtss2si', ['f3 0f 2d /r Gy,Wss'], scalarToInteger('cvtss2si', 32)),
  row('cvttsd2si', ['f2 0f 2c /r Gy,Wsd'], scalarToInteger('cvttsd2si', 64)),
  row('cvtsd2si', ['f2 0f 2d /r Gy,Wsd'], scalarToInteger('cvtsd2si', 64)),
  row('cvtss2sd', ['f3 0f 5a /r Vsd,Wss'], toScalar('cvtss2sd', 32, 64), { feature: 'sse2' }),
  row('cvtsd2ss', ['f2 0f 5a /r Vss,Wsd'], toScalar('cvtsd2ss', 64, 32)),
  row('cvtps2pd', ['np 0f 5a /r Vpd,Wq'], spread('cvtps2pd'), { feature: 'sse2' }),
  row('cvtpd2ps', ['66 0f 5a /r Vps,Wpd'], gather('cvtpd2ps'), { aligned: true }),
  row('cvtdq2ps', ['np 0f 5b /r Vps,Wdq'], lanes('cvtdq2ps'), { aligned: true, feature: 'sse2' }),
  row('cvtps2dq', ['66 0f 5b /r Vdq,Wps'], lanes('cvtps2dq'), { aligned: true }),
  row('cvttps2dq', ['f3 0f 5b /r Vdq,Wps'], lanes('cvttps2dq'), { aligned: true, feature: 'sse2' }),
  row('cvtdq2pd', ['f3 0f e6 /r Vpd,Wq'], spread('cvtdq2pd'), { feature: 'sse2' }),
  row('cvttpd2dq', ['66 0f e6 /r Vdq,Wpd'], gather('cvttpd2dq'), { aligned: true }),
  row('cvtpd2dq', ['f2 0f e6 /r Vdq,Wpd'], gather('cvtpd2dq'), { aligned: true }),

  row('cvtpi2ps', ['np 0f 2a /r Vps,Qpi'], fromMmx('cvtpi2ps', 1, 'always')),
  row('cvtpi2pd', ['66 0f 2a /r Vpd,Qpi'], fromMmx('cvtdq2pd', 2, 'register')),
  row('cvttps2pi', ['np 0f 2c /r Ppi,Wq'], toMmx('cvttps2pi', 64)),
  row('cvtps2pi', ['np 0f 2d /r Ppi,Wq'], toMmx('cvtps2pi', 64)),
  row('cvttpd2pi', ['66 0f 2c /r Ppi,Wpd'], toMmx('cvttpd2dq', 128), { aligned: true }),
  row('cvtpd2pi', ['66 0f 2d /r Ppi,Wpd'], toMmx('cvtpd2dq', 128), { aligned: true }),
];
