/**
 * Input and output: IN, OUT, INS, OUTS.
 *
 * SDM volume 2. The helpers check IOPL and the I/O permission map, then VMX exits, then touch memory and the port.
 */
import type { InsnRow, Sem } from '../rows.js';
import { FLAG, S, SEG } from '../state.js';
import type { Operand, Ops } from '../verbs.js';

const input: Sem = (o, d, port) => {
  const [v] = o.call('input', [port.read(), o.imm(d.w / 8, 32), o.imm(port.kind === 'imm' ? 1 : 0, 32)], 1);
  d.write(o.trunc(v!, d.w));
};
const output: Sem = (o, port, s) => {
  o.call('output', [port.read(), o.imm(s.w / 8, 32), o.imm(port.kind === 'imm' ? 1 : 0, 32), s.read()]);
};

/** One iteration moves `o.w` bits (never 64) and steps rSI or rDI by the direction flag. */
const string = <V>(o: Ops<V>, port: Operand<V>, helper: string, pointer: 6 | 7, seg: number): void => {
  const bytes = Math.min(o.w, 32) / 8;
  o.repeat(() => {
    const at = o.reg(pointer, o.aw);
    const linear = o.linear(seg, at, bytes, pointer === 7 ? 'write' : 'read');
    const down = o.bit(o.state(S.eflags, 32), 31 - Math.clz32(FLAG.df));
    const next = o.select(down, o.sub(at, o.imm(bytes, o.aw)), o.add(at, o.imm(bytes, o.aw)));
    o.call(helper, [
      port.read(),
      o.imm(bytes, 32),
      linear,
      o.imm(seg, 32),
      o.imm(o.aw, 32),
      o.imm(o.rep === 'none' ? 0 : 1, 32),
    ]);
    o.setReg(pointer, next);
    return undefined;
  });
};
const ins: Sem = (o, port) => string(o, port, 'inputString', 7, SEG.es);
const outs: Sem = (o, port) => string(o, port, 'outputString', 6, o.dataSegment);

const INS = 'INS/INSB/INSW/INSD—Input from Port to String';
const OUTS = 'OUTS/OUTSB/OUTSW/OUTSD—Output String to Port';

export const IO_ROWS: readonly InsnRow[] = [
  {
    name: 'in',
    forms: ['e4 ib AL,Ib', 'e5 ib eAX,Ib', 'ec AL,DX', 'ed eAX,DX'],
    sdm: 'IN—Input From Port',
    sem: input,
  },
  {
    name: 'out',
    forms: ['e6 ib Ib,AL', 'e7 ib Ib,eAX', 'ee DX,AL', 'ef DX,eAX'],
    sdm: 'OUT—Output to Port',
    sem: output,
  },
  { name: 'ins', forms: ['6c Yb,DX', '6d Yz,DX'], sdm: INS, string: 'rep', sem: ins },
  { name: 'outs', forms: ['6e DX,Xb', '6f DX,Xz'], sdm: OUTS, string: 'rep', sem: outs },
];
