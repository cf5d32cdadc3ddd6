/**
 * VM exit: storing the exit information and the guest state that is not live, and leaving VMX non-root operation.
 *
 * SDM volume 3, chapter "VM Exits". The guest state of the processor simply stays where it is (`vmcs.ts`); the host
 * state is loaded nominally (`root.ts`). Not modelled: NMI unblocking by IRET in the interruption information, exits to
 * SMM, VMX aborts other than of MSR lists.
 */
import type { Cpu } from '../cpu/core.js';
import { EFER, LEAVE, S } from '../isa/state.js';
import { ENTRY_CONTROL, EXIT_CONTROL } from './controls.js';
import type { ExecutionControls } from './execution.js';
import { EXIT } from './exit-reasons.js';
import { ROW } from './fields.js';
import { interruptionInfo } from './intercepts.js';
import { loadExitMsrs, storeExitMsrs } from './msr-lists.js';
import type { RootState } from './root.js';
import { type Timers, timerLeft } from './timer.js';
import type { CurrentVmcs } from './vmcs.js';

/** Stores the exit recorded in `cpu.exitInfo` into the current VMCS; the basic exit reason. */
export const finishExit = (
  cpu: Cpu,
  fields: CurrentVmcs,
  controls: ExecutionControls,
  timers: Timers,
  root: RootState,
): number => {
  const e = cpu.exitInfo;
  fields.put(ROW.exitReason, e.reason);
  fields.putBig(ROW.exitQualification, e.qualification);
  fields.putBig(ROW.guestLinearAddress, e.linear);
  fields.put(ROW.guestPhysicalAddress, e.physical >>> 0, Math.floor(e.physical / 0x1_0000_0000));
  fields.put(ROW.exitInterruptionInfo, e.interruptionInfo);
  fields.put(ROW.exitInterruptionErrorCode, e.interruptionCode);
  fields.put(ROW.exitInstructionLength, e.instructionLength);
  fields.put(ROW.exitInstructionInfo, e.instructionInfo);
  vectoring(cpu, fields, e.reason);
  fields.put(ROW.entryInterruptionInfo, fields.lo32(ROW.entryInterruptionInfo) & 0x7fff_ffff);
  saveState(cpu, fields, controls, timers);
  if (fields.lo32(ROW.exitMsrStoreCount) !== 0) storeExitMsrs(cpu, fields);
  root.load(fields, controls.exit, cpu.get32(S.efer), cpu.get64(S.pat));
  cpu.set32(S.leave, LEAVE.none);
  cpu.guest = undefined;
  loadExitMsrs(cpu, fields);
  return e.reason;
};

/** IDT-vectoring information: the event whose delivery the exit interrupted. */
const vectoring = (cpu: Cpu, fields: CurrentVmcs, reason: number): void => {
  const event = cpu.delivering;
  if (event === undefined) {
    fields.put(ROW.idtVectoringInfo, 0);
    // an access that exits saves RFLAGS with RF set
    if (reason === EXIT.eptViolation || reason === EXIT.eptMisconfiguration || reason === EXIT.apicAccess) {
      fields.resumeFlag = true;
    }
    return;
  }
  cpu.delivering = undefined;
  fields.put(ROW.idtVectoringInfo, interruptionInfo(event.vector, event.type, event.code));
  if (event.code >= 0) fields.put(ROW.idtVectoringErrorCode, event.code);
  if (event.type >= 4) fields.put(ROW.exitInstructionLength, event.length);
};

const saveState = (cpu: Cpu, fields: CurrentVmcs, controls: ExecutionControls, timers: Timers): void => {
  const { exit } = controls;
  if ((exit & EXIT_CONTROL.saveDebugControls) !== 0) {
    save(cpu, S.dr7, fields, ROW.guestDr7);
    save(cpu, S.debugctl, fields, ROW.guestDebugctl);
  }
  if ((exit & EXIT_CONTROL.savePat) !== 0) save(cpu, S.pat, fields, ROW.guestPat);
  if ((exit & EXIT_CONTROL.saveEfer) !== 0) save(cpu, S.efer, fields, ROW.guestEfer);
  if ((exit & EXIT_CONTROL.savePreemptionTimer) !== 0) {
    fields.put(ROW.vmxPreemptionTimerValue, timerLeft(cpu.tsc(), timers.preemption));
  }
  const long = (cpu.get32(S.efer) & EFER.lma) !== 0;
  if (long !== ((controls.entry & ENTRY_CONTROL.ia32eModeGuest) !== 0)) {
    const mask = ENTRY_CONTROL.ia32eModeGuest;
    const entry = fields.lo32(ROW.entryControls);
    fields.write(ROW.entryControls, long ? entry | mask : entry & ~mask, 0);
  }
};

/** A guest register that the entry loads again: not a change that needs new checks. */
const save = (cpu: Cpu, offset: number, fields: CurrentVmcs, row: number): void =>
  fields.put(row, cpu.get32(offset), cpu.get32(offset + 4));
