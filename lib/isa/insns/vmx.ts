/**
 * VMX instructions. SDM volume 3, chapter "VMX Instruction Reference".
 *
 * In VMX non-root operation each exits with its basic reason; in root operation they raise #UD (not modelled: software
 * of the machine that enters VMX operation itself).
 */
import type { InsnRow } from '../rows.js';

const row = (name: string, reason: number, form: string): InsnRow => ({
  name,
  forms: [form],
  sdm: name.toUpperCase(),
  ends: true,
  size: 'f64',
  sem: (o) => {
    o.call('vmxInstruction', [o.imm(reason, 32)]);
  },
});

export const VMX_ROWS: readonly InsnRow[] = [
  row('vmcall', 18, '0f 01 /0:c1'),
  row('vmclear', 19, '66 0f c7 /6:mem Mq'),
  row('vmlaunch', 20, '0f 01 /0:c2'),
  row('vmptrld', 21, 'np 0f c7 /6:mem Mq'),
  row('vmptrst', 22, 'np 0f c7 /7:mem Mq'),
  row('vmread', 23, 'np 0f 78 /r Ey,Gy'),
  row('vmresume', 24, '0f 01 /0:c3'),
  row('vmwrite', 25, 'np 0f 79 /r Gy,Ey'),
  row('vmxoff', 26, '0f 01 /0:c4'),
  row('vmxon', 27, 'f3 0f c7 /6:mem Mq'),
  row('invept', 50, '66 0f 38 80 /r Gy,Mdq'),
  row('invvpid', 53, '66 0f 38 81 /r Gy,Mdq'),
  row('vmfunc', 59, 'np 0f 01 /2:d4'),
];
