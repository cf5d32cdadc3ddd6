/**
 * Data movement between general registers, memory and immediates.
 *
 * SDM volume 1, section "Data Transfer Instructions". Moves of segment, control and debug registers are system rows.
 */
import type { InsnRow, Sem } from '../rows.js';

const mov: Sem = (_o, d, s) => d.write(s.read());
const zeroExtend: Sem = (o, d, s) => d.write(o.zext(s.read(), d.w));
const signExtend: Sem = (o, d, s) => d.write(o.sext(s.read(), d.w));
const exchange: Sem = (_o, d, s) => {
  const b = s.read();
  s.write(d.rmw(() => b));
};

export const MOVE_ROWS: readonly InsnRow[] = [
  {
    name: 'mov',
    forms: ['88 /r Eb,Gb', '89 /r Ev,Gv', 'a2 Ob,AL', 'a3 Ov,rAX', 'c6 /0 ib Eb,Ib', 'c7 /0 iz Ev,Iz'],
    sdm: 'MOV—Move',
    pageTableWriting: true,
    sem: mov,
  },
  {
    name: 'mov',
    forms: ['8a /r Gb,Eb', '8b /r Gv,Ev', 'a0 AL,Ob', 'a1 rAX,Ov', 'b0+r ib Zb,Ib', 'b8+r iv Zv,Iv'],
    sdm: 'MOV—Move',
    sem: mov,
  },
  {
    name: 'movzx',
    forms: ['0f b6 /r Gv,Eb', '0f b7 /r Gv,Ew'],
    sdm: 'MOVZX—Move With Zero-Extend',
    sem: zeroExtend,
  },
  {
    name: 'movsx',
    forms: ['0f be /r Gv,Eb', '0f bf /r Gv,Ew'],
    sdm: 'MOVSX/MOVSXD—Move With Sign-Extension',
    sem: signExtend,
  },
  {
    name: 'movsxd',
    forms: ['63 /r Gv,Ez'],
    sdm: 'MOVSX/MOVSXD—Move With Sign-Extension',
    modes: 'only64',
    sem: (o, d, s) => d.write(d.w === s.w ? s.read() : o.sext(s.read(), d.w)),
  },
  {
    name: 'lea',
    forms: ['8d /r Gv,M'],
    sdm: 'LEA—Load Effective Address',
    sem: (o, d, s) => {
      const ea = s.ea();
      if (o.aw === d.w) d.write(ea);
      else d.write(o.aw < o.w ? o.zext(ea, d.w) : o.trunc(ea, d.w));
    },
  },
  {
    name: 'xchg',
    forms: ['86 /r Eb,Gb', '87 /r Ev,Gv'],
    sdm: 'XCHG—Exchange Register/Memory With Register',
    lock: true,
    pageTableWriting: true,
    sem: exchange,
  },
  { name: 'xchg', forms: ['90+r Zv,rAX'], sdm: 'XCHG—Exchange Register/Memory With Register', sem: exchange },
  {
    name: 'bswap',
    forms: ['0f c8+r Zv'],
    sdm: 'BSWAP—Byte Swap',
    // of a 16-bit register the result is undefined; processors clear it
    sem: (o, d) => d.write(d.w === 16 ? o.imm(0, 16) : o.bswap(d.read())),
  },
  {
    name: 'movbe',
    forms: ['nfx 0f 38 f0 /r Gv,Mv', 'nfx 0f 38 f1 /r Mv,Gv'],
    sdm: 'MOVBE—Move Data After Swapping Bytes',
    feature: 'movbe',
    sem: (o, d, s) => {
      const v = s.read();
      d.write(d.w === 16 ? o.rol(v, o.imm(8, 32)) : o.bswap(v));
    },
  },
  {
    name: 'xlatb',
    forms: ['d7 AL'],
    sdm: 'XLAT/XLATB—Table Look-up Translation',
    sem: (o, al) => {
      const ea = o.add(o.reg(3, o.aw), o.zext(al.read(), o.aw));
      al.write(o.load(o.linear(o.dataSegment, ea, 1, 'read'), 8));
    },
  },
];
