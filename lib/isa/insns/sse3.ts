/**
 * SSE3: horizontal and mixed additions, duplicating moves, LDDQU, and FISTTP.
 *
 * SDM volume 1, "Programming with SSE3, SSSE3, SSE4 …", section "SSE3 Instructions". A horizontal operation is a
 * vertical one on the even and the odd lanes of both operands. MONITOR and MWAIT are rows of `system.ts` (#UD).
 */
import type { InsnRow, Sem } from '../rows.js';
import type { Ops } from '../verbs.js';
import { lanesOf, vector } from './vectors.js';

const row = (name: string, form: string, sem: Sem, more: Partial<InsnRow> = {}): InsnRow => ({
  name,
  forms: [form],
  sdm: name.toUpperCase(),
  sem,
  unit: 'sse',
  feature: 'sse3',
  ...more,
});

const parts = <V>(o: Ops<V>, v: V): readonly [V, V] => [o.lane(v, 64, 0), o.lane(v, 64, 1)];
const both = <V>(o: Ops<V>, helper: string, a: V, b: V): V => {
  const r = o.call(helper, [...parts(o, a), ...parts(o, b)], 2);
  return vector(o, r[0]!, r[1]!);
};
const vertical =
  (helper: string): Sem =>
  (o, d, s) => {
    const b = s.read();
    d.write(both(o, helper, d.read(), b));
  };
const horizontal = (helper: string, bytes: 4 | 8): Sem => {
  const even = Array.from({ length: 16 / bytes }, (_, i) => 2 * i);
  return (o, d, s) => {
    const b = s.read();
    const a = d.read();
    const odd = even.map((lane) => lane + 1);
    d.write(both(o, helper, o.shuffle(a, b, lanesOf(bytes, even)), o.shuffle(a, b, lanesOf(bytes, odd))));
  };
};
const duplicate =
  (lanes: readonly number[]): Sem =>
  (o, d, s) => {
    const v = s.read();
    d.write(o.shuffle(v, v, lanesOf(4, lanes)));
  };
/** @param bytes of the operand */
const storeTruncated =
  (helper: string, bytes: number): Sem =>
  (o, m) => {
    o.call(helper, [m.linear(bytes, 'write'), o.imm(1, 32), m.ea()]);
  };
const fisttp = (form: string, helper: string, bytes: number): InsnRow =>
  row('fisttp', form, storeTruncated(helper, bytes), { unit: 'x87' });

const ALIGNED = { aligned: true } as const;

export const SSE3_ROWS: readonly InsnRow[] = [
  row('addsubps', 'f2 0f d0 /r Vps,Wps', vertical('addsubps'), ALIGNED),
  row('addsubpd', '66 0f d0 /r Vpd,Wpd', vertical('addsubpd'), ALIGNED),
  row('haddps', 'f2 0f 7c /r Vps,Wps', horizontal('addps', 4), ALIGNED),
  row('haddpd', '66 0f 7c /r Vpd,Wpd', horizontal('addpd', 8), ALIGNED),
  row('hsubps', 'f2 0f 7d /r Vps,Wps', horizontal('subps', 4), ALIGNED),
  row('hsubpd', '66 0f 7d /r Vpd,Wpd', horizontal('subpd', 8), ALIGNED),
  row('movsldup', 'f3 0f 12 /r Vps,Wps', duplicate([0, 0, 2, 2]), ALIGNED),
  row('movshdup', 'f3 0f 16 /r Vps,Wps', duplicate([1, 1, 3, 3]), ALIGNED),
  row('movddup', 'f2 0f 12 /r Vpd,Wq', (o, d, s) => {
    const v = s.read(64);
    d.write(vector(o, v, v));
  }),
  row('lddqu', 'f2 0f f0 /r:mem Vdq,Mdq', (_o, d, s) => d.write(s.read())),
  fisttp('df /1:mem Mw', 'fisttI16', 2),
  fisttp('db /1:mem Md', 'fisttI32', 4),
  fisttp('dd /1:mem Mq', 'fisttI64', 8),
];
