/**
 * Compare-and-exchange and exchange-and-add.
 *
 * SDM volume 2, CMPXCHG, CMPXCHG8B/CMPXCHG16B, XADD. A memory destination is written even when the comparison fails,
 * the accumulator only then, and a register destination only when it succeeds (as processors do: no zero-extension).
 */
import type { InsnRow } from '../rows.js';
import type { Ops, Width } from '../verbs.js';

/** The pair high:low of two general registers against one memory operand of twice the width `w`. */
const pair = <V>(o: Ops<V>, w: Width, low: V, high: V): V =>
  w === 32
    ? o.or(o.shl(o.zext(high, 64), o.imm(32, 32)), o.zext(low, 64))
    : o.withLane(o.fromLow(low), 64, 1, high);
const part = <V>(o: Ops<V>, w: Width, v: V, i: 0 | 1): V => {
  if (w === 64) return o.lane(v, 64, i);
  return o.trunc(i === 0 ? v : o.shr(v, o.imm(32, 32)), 32);
};

export const ATOMIC_ROWS: readonly InsnRow[] = [
  {
    name: 'cmpxchg',
    forms: ['0f b0 /r Eb,Gb', '0f b1 /r Ev,Gv'],
    sdm: 'CMPXCHG—Compare and Exchange',
    lock: true,
    flags: { w: 'oszapc' },
    pageTableWriting: true,
    sem: (o, d, s) => {
      const acc = o.reg(0, d.w as Width);
      const b = s.read();
      const old = d.kind === 'reg' ? d.read() : d.rmw((v) => o.select(o.eq(v, acc), b, v));
      if (d.kind === 'reg') o.when(o.eq(acc, old), () => d.write(b));
      o.flags.sub(acc, o.sub(acc, old));
      o.when(o.ne(acc, old), () => o.setReg(0, old));
    },
  },
  ...([32, 64] as const).map(
    (w): InsnRow => ({
      name: w === 32 ? 'cmpxchg8b' : 'cmpxchg16b',
      forms: [w === 32 ? 'w0 0f c7 /1 Mq' : 'w1 0f c7 /1 Mdq'],
      sdm: 'CMPXCHG8B/CMPXCHG16B—Compare and Exchange Bytes',
      lock: true,
      flags: { w: 'z' },
      pageTableWriting: true,
      ...(w === 64 ? { modes: 'only64' as const, aligned: true, feature: 'cx16' } : { feature: 'cx8' }),
      sem: (o, d) => {
        const low = o.reg(0, w);
        const high = o.reg(2, w);
        const newLow = o.reg(3, w);
        const newHigh = o.reg(1, w);
        const same = <V>(ops: Ops<V>, v: V, l: V, h: V): V =>
          ops.and(ops.eq(part(ops, w, v, 0), l), ops.eq(part(ops, w, v, 1), h));
        const old = d.rmw((v) => {
          const equal = same(o, v, low, high);
          return pair(
            o,
            w,
            o.select(equal, newLow, part(o, w, v, 0)),
            o.select(equal, newHigh, part(o, w, v, 1)),
          );
        });
        const equal = same(o, old, low, high);
        o.flags.set({ zf: equal });
        o.when(o.eqz(equal), () => {
          o.setReg(0, part(o, w, old, 0));
          o.setReg(2, part(o, w, old, 1));
        });
      },
    }),
  ),
  {
    name: 'xadd',
    forms: ['0f c0 /r Eb,Gb', '0f c1 /r Ev,Gv'],
    sdm: 'XADD—Exchange and Add',
    lock: true,
    flags: { w: 'oszapc' },
    sem: (o, d, s) => {
      const b = s.read();
      if (d.kind === 'reg') {
        const a = d.read();
        const r = o.add(a, b);
        s.write(a);
        d.write(r);
        o.flags.add(a, r);
        return;
      }
      const a = d.rmw((old) => o.add(old, b));
      s.write(a);
      o.flags.add(a, o.add(a, b));
    },
  },
];
