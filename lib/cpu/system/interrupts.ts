/**
 * Software interrupts, POPF, STAC and CLAC, HLT, PAUSE and the other instructions that wait.
 *
 * SDM volume 2, INT n, POPF, HLT, MONITOR, MWAIT. CR4.VME and CR4.PVI are not offered, so IOPL decides.
 */
import { FLAG, LEAVE, S, VECTOR } from '../../isa/state.js';
import type { PendingEvent } from '../core.js';
import type { Helper, HelperTable } from '../helpers.js';
import { writeRflags } from '../rflags.js';
import { deliverEvent } from './events.js';
import { iopl, virtual8086 } from './segments.js';

/** args: vector, type as in `PendingEvent`. */
const softwareInterrupt: Helper = (cpu) => {
  const vector = cpu.arg32(0) & 0xff;
  const type = cpu.arg32(1) as PendingEvent['type'];
  if (type === 4 && virtual8086(cpu) && iopl(cpu) !== 3) return cpu.gp();
  const event = { vector, type, code: -1, address: 0n, length: cpu.instructionLength, injected: false };
  // TF is cleared on the way into the handler, before it could trap
  cpu.noStepTrap = true;
  return deliverEvent(cpu, event, cpu.nextRip);
};

const POPF_LOW = FLAG.cf | FLAG.pf | FLAG.af | FLAG.zf | FLAG.sf | FLAG.tf | FLAG.df | FLAG.of | FLAG.nt;

/** args: image, operand size. */
const popf: Helper = (cpu) => {
  const v86 = virtual8086(cpu);
  if (v86 && iopl(cpu) !== 3) return cpu.gp();
  const wide = cpu.arg32(1) !== 16;
  const cpl = cpu.get32(S.cpl);
  let mask = POPF_LOW | (wide ? FLAG.ac | FLAG.id | FLAG.rf : 0);
  if (cpl <= iopl(cpu)) mask |= FLAG.if;
  if (cpl === 0) mask |= FLAG.iopl | (wide ? FLAG.vif | FLAG.vip : 0);
  const before = cpu.get32(S.eflags);
  writeRflags(cpu, cpu.arg32(0) & ~(FLAG.rf | FLAG.vif | FLAG.vip), mask);
  if (((before ^ cpu.get32(S.eflags)) & FLAG.ac) !== 0) cpu.mmu.contextChanged();
  return true;
};

const hlt: Helper = (cpu) => {
  if (cpu.guest?.instruction(12) === true) return false;
  cpu.set32(S.activity, 1);
  cpu.set32(S.leave, LEAVE.stop);
  return true;
};

/** arg: 1 for STAC, 0 for CLAC. #UD outside CPL 0, whatever CR4.SMAP is. */
const setAc: Helper = (cpu) => {
  if (cpu.get32(S.cpl) !== 0) return cpu.ud();
  const flags = cpu.get32(S.eflags);
  cpu.set32(S.eflags, cpu.arg32(0) !== 0 ? flags | FLAG.ac : flags & ~FLAG.ac);
  cpu.mmu.contextChanged();
  return true;
};

/**
 * MONITOR (arg 39) and MWAIT (arg 36): not offered by the processor. A guest's attempt may exit, otherwise it is #UD.
 */
const monitorWait: Helper = (cpu) => {
  if (cpu.get32(S.cpl) === 0 && cpu.guest?.instruction(cpu.arg32(0)) === true) return false;
  return cpu.fault(VECTOR.ud);
};

export const INTERRUPT_HELPERS: HelperTable = {
  softwareInterrupt,
  popf,
  hlt,
  setAc,
  monitorWait,
  pause: (cpu) => cpu.guest?.instruction(40) !== true,
};
