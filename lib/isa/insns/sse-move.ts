/**
 * SSE and SSE2 moves: MOVAPS … MOVQ2DQ, non-temporal stores, masks, and the MXCSR.
 *
 * SDM volume 1, "Programming with Intel Streaming SIMD Extensions", "… SSE2". Non-temporal hints mean nothing here.
 */
import type { InsnRow, Sem } from '../rows.js';
import { S } from '../state.js';
import { vector } from './vectors.js';

const move: Sem = (_o, d, s) => d.write(s.read());
/** MOVSS and MOVSD: from memory the rest is cleared, between registers it stays. */
const moveScalar =
  (w: 32 | 64): Sem =>
  (o, d, s) => {
    const v = s.read(w);
    if (d.kind === 'mem') d.write(v);
    else d.write(s.kind === 'mem' ? o.fromLow(v) : o.withLane(d.read(), w, 0, v));
  };
const toHalf =
  (half: 0 | 1): Sem =>
  (o, d, s) =>
    d.write(o.withLane(d.read(), 64, half, s.read(64)));
const fromHalf =
  (half: 0 | 1): Sem =>
  (o, d, s) =>
    d.write(o.lane(s.read(), 64, half));
/** The low part of a register or memory, zero-extended to the destination. */
const toVector: Sem = (o, d, s) => d.write(o.fromLow(s.read()));
const fromVector: Sem = (o, d, s) => d.write(o.lane(s.read(), d.w === 64 ? 64 : 32, 0));
const quadword: Sem = (o, d, s) => d.write(d.kind === 'mem' ? s.read(64) : o.fromLow(s.read(64)));

const mask =
  (shape: 'i8x16' | 'i32x4' | 'i64x2'): Sem =>
  (o, d, s) =>
    d.write(o.simd(`${shape}.bitmask`, s.read()));

const maskMove: Sem = (o, v, m) => {
  const at = o.linear(o.dataSegment, o.reg(7, o.aw), 16, 'write');
  const data = v.read();
  const select = m.read();
  o.call('maskMove', [
    at,
    o.lane(data, 64, 0),
    o.lane(data, 64, 1),
    o.lane(select, 64, 0),
    o.lane(select, 64, 1),
  ]);
};

const row = (
  name: string,
  sdm: string,
  forms: readonly string[],
  sem: Sem,
  more: Partial<InsnRow> = {},
): InsnRow => ({
  name,
  forms,
  sdm,
  sem,
  unit: 'sse',
  feature: forms[0].startsWith('np') ? 'sse' : 'sse2',
  ...more,
});

export const SSE_MOVE_ROWS: readonly InsnRow[] = [
  row('movaps', 'MOVAPS', ['np 0f 28 /r Vps,Wps', 'np 0f 29 /r Wps,Vps'], move, { aligned: true }),
  row('movapd', 'MOVAPD', ['66 0f 28 /r Vpd,Wpd', '66 0f 29 /r Wpd,Vpd'], move, { aligned: true }),
  row('movups', 'MOVUPS', ['np 0f 10 /r Vps,Wps', 'np 0f 11 /r Wps,Vps'], move),
  row('movupd', 'MOVUPD', ['66 0f 10 /r Vpd,Wpd', '66 0f 11 /r Wpd,Vpd'], move),
  row('movdqa', 'MOVDQA', ['66 0f 6f /r Vx,Wx', '66 0f 7f /r Wx,Vx'], move, { aligned: true }),
  row('movdqu', 'MOVDQU', ['f3 0f 6f /r Vx,Wx', 'f3 0f 7f /r Wx,Vx'], move),
  row('movss', 'MOVSS', ['f3 0f 10 /r Vss,Wss', 'f3 0f 11 /r Wss,Vss'], moveScalar(32), { feature: 'sse' }),
  row('movsd', 'MOVSD', ['f2 0f 10 /r Vsd,Wsd', 'f2 0f 11 /r Wsd,Vsd'], moveScalar(64)),
  row('movlps', 'MOVLPS', ['np 0f 12 /r:mem Vq,Mq'], toHalf(0)),
  row('movlps', 'MOVLPS', ['np 0f 13 /r:mem Mq,Vq'], fromHalf(0)),
  row('movlpd', 'MOVLPD', ['66 0f 12 /r:mem Vq,Mq'], toHalf(0)),
  row('movlpd', 'MOVLPD', ['66 0f 13 /r:mem Mq,Vq'], fromHalf(0)),
  row('movhps', 'MOVHPS', ['np 0f 16 /r:mem Vq,Mq'], toHalf(1)),
  row('movhps', 'MOVHPS', ['np 0f 17 /r:mem Mq,Vq'], fromHalf(1)),
  row('movhpd', 'MOVHPD', ['66 0f 16 /r:mem Vq,Mq'], toHalf(1)),
  row('movhpd', 'MOVHPD', ['66 0f 17 /r:mem Mq,Vq'], fromHalf(1)),
  row('movhlps', 'MOVHLPS', ['np 0f 12 /r:reg Vq,Uq'], (o, d, s) =>
    d.write(o.withLane(d.read(), 64, 0, o.lane(s.read(), 64, 1))),
  ),
  row('movlhps', 'MOVLHPS', ['np 0f 16 /r:reg Vq,Uq'], toHalf(1)),
  row('movntps', 'MOVNTPS', ['np 0f 2b /r:mem Mps,Vps'], move, { aligned: true }),
  row('movntpd', 'MOVNTPD', ['66 0f 2b /r:mem Mpd,Vpd'], move, { aligned: true }),
  row('movntdq', 'MOVNTDQ', ['66 0f e7 /r:mem Mx,Vx'], move, { aligned: true }),
  { name: 'movnti', forms: ['np 0f c3 /r:mem My,Gy'], sdm: 'MOVNTI', sem: move, feature: 'sse2' },
  row('movd', 'MOVD/MOVQ', ['66 0f 6e /r Vy,Ey'], toVector),
  row('movd', 'MOVD/MOVQ', ['66 0f 7e /r Ey,Vy'], fromVector),
  row('movq', 'MOVQ', ['f3 0f 7e /r Vq,Wq', '66 0f d6 /r Wq,Vq'], quadword, { feature: 'sse2' }),
  row('movmskps', 'MOVMSKPS', ['np 0f 50 /r Gd,Ups'], mask('i32x4')),
  row('movmskpd', 'MOVMSKPD', ['66 0f 50 /r Gd,Upd'], mask('i64x2')),
  row('pmovmskb', 'PMOVMSKB', ['66 0f d7 /r Gd,Ux'], mask('i8x16')),
  row('maskmovdqu', 'MASKMOVDQU', ['66 0f f7 /r Vdq,Udq'], maskMove),
  // between XMM and MMX registers: these are MMX instructions too
  row(
    'movq2dq',
    'MOVQ2DQ',
    ['f3 0f d6 /r Vdq,Nq'],
    (o, d, s) => {
      const v = s.read();
      o.call('checkMmx');
      o.call('mmxTouch');
      d.write(vector(o, v, o.imm(0n, 64)));
    },
    { feature: 'sse2' },
  ),
  row('movdq2q', 'MOVDQ2Q', ['f2 0f d6 /r Pq,Uq'], (o, d, s) => {
    const v = s.read(64);
    o.call('checkMmx');
    o.call('mmxWrite', [d.index(), v]);
  }),
  row('ldmxcsr', 'LDMXCSR', ['np 0f ae /2:mem Md'], (o, s) => {
    o.call('ldmxcsr', [s.read()]);
  }),
  row('stmxcsr', 'STMXCSR', ['np 0f ae /3:mem Md'], (o, d) => d.write(o.state(S.mxcsr, 32))),
];
