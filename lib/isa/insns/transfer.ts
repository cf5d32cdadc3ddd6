/**
 * Far transfers, software interrupts and their returns, fast system calls, and the flags register on the stack.
 *
 * SDM volume 2. Near transfers are in `control.ts`; the helpers are those of `cpu/system/`.
 */
import type { InsnRow, Sem } from '../rows.js';
import { FLAG, S, VECTOR } from '../state.js';
import type { Operand, Ops } from '../verbs.js';

const sized =
  (helper: string): Sem =>
  (o) => {
    o.call(helper, [o.imm(o.w, 32)]);
  };

const farImmediate =
  (helper: string): Sem =>
  (o, target) => {
    o.call(helper, [target.selector(), target.read(), o.imm(o.w, 32)]);
  };
const farMemory =
  (helper: string): Sem =>
  (o, m) => {
    const at = m.linear(2 + o.w / 8, 'read');
    const offset = o.load(at, o.w);
    const selector = o.load(o.add(at, o.imm(o.w / 8, 64)), 16);
    o.call(helper, [selector, offset, o.imm(o.w, 32)]);
  };
/** The row has a form without the operand. */
const retFar = <V>(o: Ops<V>, release: Operand<V> | undefined): void => {
  o.call('retFar', [o.imm(o.w, 32), release === undefined ? o.imm(0, 32) : o.zext(release.read(), 32)]);
};

/** @param type as in `PendingEvent`: 4 INT n, 5 INT1, 6 INT3 and INTO */
const interrupt =
  (vector: number, type: 5 | 6): Sem =>
  (o) => {
    o.call('softwareInterrupt', [o.imm(vector, 32), o.imm(type, 32)]);
  };

const bound: Sem = (o, index, m) => {
  const bytes = o.w / 8;
  const at = m.linear(2 * bytes, 'read');
  const lower = o.load(at, o.w);
  const upper = o.load(o.add(at, o.imm(bytes, 64)), o.w);
  const i = index.read();
  o.when(o.or(o.lts(i, lower), o.lts(upper, i)), () => o.fault(VECTOR.br));
};

/** The image has VM and RF clear. In virtual-8086 mode IOPL must be 3. */
const pushf: Sem = (o) => {
  const flags = o.state(S.eflags, 32);
  if (o.mode === 16) {
    const iopl = o.and(o.shr(flags, o.imm(12, 32)), o.imm(3, 32));
    const virtual = o.bit(flags, 31 - Math.clz32(FLAG.vm));
    o.when(o.and(virtual, o.ne(iopl, o.imm(3, 32))), () => o.fault(VECTOR.gp, 0));
  }
  const image = o.or(o.and(flags, o.imm(~(FLAG.vm | FLAG.rf) >>> 0, 32)), o.flags.all());
  o.push(o.w === 64 ? o.zext(image, 64) : o.trunc(image, o.w));
};

// biome-ignore format: one row per line
export const TRANSFER_ROWS: readonly InsnRow[] = [
  { name: 'jmp', forms: ['ea cp Ap'], sdm: 'JMP—Jump', modes: 'no64', ends: true, sem: farImmediate('jmpFar') },
  { name: 'jmp', forms: ['ff /5 Mp'], sdm: 'JMP—Jump', ends: true, sem: farMemory('jmpFar') },
  { name: 'call', forms: ['9a cp Ap'], sdm: 'CALL—Call Procedure', modes: 'no64', ends: true, sem: farImmediate('callFar') },
  { name: 'call', forms: ['ff /3 Mp'], sdm: 'CALL—Call Procedure', ends: true, sem: farMemory('callFar') },
  { name: 'ret', forms: ['cb', 'ca iw Iw'], sdm: 'RET—Return From Procedure', ends: true, sem: retFar },
  { name: 'iret', forms: ['cf'], sdm: 'IRET/IRETD/IRETQ—Interrupt Return', ends: true, sem: sized('iret') },
  { name: 'int', forms: ['cd ib Ib'], sdm: 'INT n/INTO/INT3/INT1—Call to Interrupt Procedure', ends: true, sem: (o, n) => { o.call('softwareInterrupt', [n.read(), o.imm(4, 32)]); } },
  { name: 'int3', forms: ['cc'], sdm: 'INT n/INTO/INT3/INT1—Call to Interrupt Procedure', ends: true, sem: interrupt(VECTOR.bp, 6) },
  { name: 'int1', forms: ['f1'], sdm: 'INT n/INTO/INT3/INT1—Call to Interrupt Procedure', ends: true, sem: interrupt(VECTOR.db, 5) },
  { name: 'into', forms: ['ce'], sdm: 'INT n/INTO/INT3/INT1—Call to Interrupt Procedure', modes: 'no64', ends: true, sem: (o) => o.when(o.flags.cond(0), () => interrupt(VECTOR.of, 6)(o)) },
  { name: 'bound', forms: ['62 /r Gv,Ma'], sdm: 'BOUND—Check Array Index Against Bounds', modes: 'no64', sem: bound },
  { name: 'syscall', forms: ['0f 05'], sdm: 'SYSCALL—Fast System Call', modes: 'only64', ends: true, feature: 'syscall', sem: sized('syscall') },
  { name: 'sysret', forms: ['0f 07'], sdm: 'SYSRET—Return From Fast System Call', modes: 'only64', ends: true, feature: 'syscall', sem: sized('sysret') },
  { name: 'sysenter', forms: ['0f 34'], sdm: 'SYSENTER—Fast System Call', ends: true, feature: 'sep', sem: sized('sysenter') },
  { name: 'sysexit', forms: ['0f 35'], sdm: 'SYSEXIT—Fast Return from Fast System Call', ends: true, feature: 'sep', sem: sized('sysexit') },
  {
    name: 'pushf', forms: ['9c'], sdm: 'PUSHF/PUSHFD/PUSHFQ—Push EFLAGS Register Onto the Stack', size: 'd64',
    sem: pushf,
  },
  {
    name: 'popf', forms: ['9d'], sdm: 'POPF/POPFD/POPFQ—Pop Stack Into EFLAGS Register', size: 'd64', ends: true, flags: { w: 'oszapc' },
    sem: (o) => {
      const popped = o.pop(o.w);
      o.call('popf', [popped.value, o.imm(o.w, 32)]);
      popped.commit();
    },
  },
];
