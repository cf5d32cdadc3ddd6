/**
 * Hardware task switches (KVM's handle_task_switch): every one exits, and is emulated. The event that came through a task
 * gate is done with the switch.
 */
import { VMCS } from '../../vmx/port.js';
import type { ExitOf } from '../exits.js';
import type { Next } from '../next.js';
import type { Vcpu } from '../vcpu.js';

const VALID = 0x8000_0000;
const HAS_CODE = 0x800;
const HARD_EXCEPTION = 3;
/** External interrupt, NMI, hardware exception: no instruction to skip. */
const FROM_HARDWARE: readonly number[] = [0, 2, HARD_EXCEPTION];

export const taskSwitch = (vcpu: Vcpu, exit: ExitOf<'taskSwitch'>): Next => {
  const { port, events } = vcpu;
  const info = port.vmread32(VMCS.idtVectoringInfo);
  const vectoring = exit.source === 3 && (info & VALID) !== 0;
  const type = (info >>> 8) & 7;
  let code = -1;
  if (vectoring) {
    events.exceptionInjected = false;
    events.interruptInjected = false;
    events.nmiInjected = false;
    if (type === HARD_EXCEPTION && (info & HAS_CODE) !== 0) code = port.vmread32(VMCS.idtVectoringErrorCode);
  }
  const restart = vcpu.rip;
  if (!vectoring || !FROM_HARDWARE.includes(type)) vcpu.skip();
  return vcpu.vm.emulator.full.taskSwitch(exit.selector, exit.source, code, restart);
};
