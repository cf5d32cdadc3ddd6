/**
 * FXSAVE, FXRSTOR and the XSAVE family.
 *
 * SDM volume 1, "Managing State Using the XSAVE Feature Set". The checks of CR0, CR4 and alignment are the helpers'
 * (`cpu/fpu/area.ts`).
 */
import type { InsnRow, Sem } from '../rows.js';

/** Bytes of the legacy region, and with the XSAVE header. */
const LEGACY = 512;
const EXTENDED = 576;

const legacy =
  (helper: string, access: 'read' | 'write'): Sem =>
  (o, m) => {
    o.call(helper, [m.linear(LEGACY, access), o.imm(o.w, 32)]);
  };
/** EDX:EAX are the requested components. */
const extended =
  (helper: string, access: 'read' | 'write'): Sem =>
  (o, m) => {
    o.call(helper, [m.linear(EXTENDED, access), o.imm(o.w, 32), o.reg(0, 32), o.reg(2, 32)]);
  };

export const FPU_STATE_ROWS: readonly InsnRow[] = [
  {
    name: 'fxsave',
    forms: ['np 0f ae /0:mem M512'],
    sdm: 'FXSAVE',
    sem: legacy('fxsave', 'write'),
    feature: 'fxsr',
  },
  {
    name: 'fxrstor',
    forms: ['np 0f ae /1:mem M512'],
    sdm: 'FXRSTOR',
    sem: legacy('fxrstor', 'read'),
    feature: 'fxsr',
  },
  {
    name: 'xsave',
    forms: ['np 0f ae /4:mem M'],
    sdm: 'XSAVE',
    sem: extended('xsave', 'write'),
    feature: 'xsave',
  },
  {
    name: 'xrstor',
    forms: ['np 0f ae /5:mem M'],
    sdm: 'XRSTOR',
    sem: extended('xrstor', 'read'),
    feature: 'xsave',
  },
  {
    name: 'xsaveopt',
    forms: ['np 0f ae /6:mem M'],
    sdm: 'XSAVEOPT',
    sem: extended('xsaveopt', 'write'),
    feature: 'xsaveopt',
  },
  {
    name: 'xsavec',
    forms: ['np 0f c7 /4:mem M'],
    sdm: 'XSAVEC',
    sem: extended('xsavec', 'write'),
    feature: 'xsavec',
  },
  {
    name: 'xsaves',
    forms: ['np 0f c7 /5:mem M'],
    sdm: 'XSAVES',
    sem: extended('xsaves', 'write'),
    cpl: 0,
    feature: 'xsaves',
  },
  {
    name: 'xrstors',
    forms: ['np 0f c7 /3:mem M'],
    sdm: 'XRSTORS',
    sem: extended('xrstors', 'read'),
    cpl: 0,
    feature: 'xsaves',
  },
  {
    name: 'xgetbv',
    forms: ['np 0f 01 /2:d0'],
    sdm: 'XGETBV',
    feature: 'xsave',
    sem: (o) => {
      const r = o.call('xgetbv', [o.reg(1, 32)], 2);
      o.setReg(0, o.trunc(r[0], 32));
      o.setReg(2, o.trunc(r[1], 32));
    },
  },
];
