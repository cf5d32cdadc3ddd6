/**
 * VMX instructions executed by software inside the machine: VM exits in non-root operation, #UD in root operation.
 *
 * SDM volume 3, chapter "VMX Instruction Reference". The exit precedes the privilege check. Guest software that enters
 * VMX operation itself is not modelled.
 */
import { S } from '../../isa/state.js';
import type { Helper, HelperTable } from '../helpers.js';
import { instructionInfo } from './instruction-info.js';
import { longMode, protectedMode } from './segments.js';

/** arg: exit reason. */
const vmxInstruction: Helper = (cpu) => {
  const reason = cpu.arg32(0);
  const guest = cpu.guest;
  if (guest === undefined) return cpu.ud();
  if (reason === VMCALL) return guest.instruction(reason) ? false : cpu.ud();
  if (!protectedMode(cpu) || (longMode(cpu) && cpu.get32(S.mode) !== 64)) return cpu.ud();
  const { displacement, info } = instructionInfo(cpu);
  return guest.instruction(reason, displacement, info) ? false : cpu.ud();
};

const VMCALL = 18;

export const VMX_INSTRUCTION_HELPERS: HelperTable = { vmxInstruction };
