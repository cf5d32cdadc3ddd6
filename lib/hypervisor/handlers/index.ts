/** The handler of every exit: a record over the union, so that a missing one does not compile. */
import type { Exit, ExitOf } from '../exits.js';
import { type Next, stop } from '../next.js';
import { reasonName } from '../reasons.js';
import { registerDump } from '../register-dump.js';
import type { Vcpu } from '../vcpu.js';
import { cpuid, hlt, nop, pause, vmcall } from './instructions.js';
import {
  apicAccess,
  externalInterrupt,
  interruptWindow,
  nmiWindow,
  preemptionTimer,
  tprBelowThreshold,
} from './interrupts.js';
import { ioInstruction } from './io.js';
import { eptMisconfiguration, eptViolation, exceptionOrNmi, invlpg, invpcid } from './paging.js';
import { crAccess, movDr, rdmsr, rdpmc, vmxInstruction, wrmsr, xsetbv } from './registers.js';
import { taskSwitch } from './tasks.js';

export type Handler<R extends Exit['reason']> = (vcpu: Vcpu, exit: ExitOf<R>) => Next;
export type Handlers = { readonly [R in Exit['reason']]: Handler<R> };

/** An exit that KVM cannot handle either ends the run. */
const refuse =
  (what: string) =>
  (vcpu: Vcpu): Next =>
    stop('emulation-failure', `${what} at rip 0x${vcpu.rip.toString(16)} is not handled`);

export const handlers: Handlers = {
  exceptionOrNmi,
  externalInterrupt,
  tripleFault: (vcpu) => {
    for (const line of registerDump(vcpu)) vcpu.vm.log.print(`kvm: ${line}`);
    return stop('triple-fault', `triple fault at rip 0x${vcpu.rip.toString(16)}`);
  },
  interruptWindow,
  nmiWindow,
  taskSwitch,
  cpuid,
  hlt,
  invd: nop,
  invlpg,
  rdpmc,
  vmcall,
  vmxInstruction,
  crAccess,
  movDr,
  ioInstruction,
  rdmsr,
  wrmsr,
  mwait: nop,
  monitor: nop,
  monitorTrapFlag: () => ({ to: 'guest' }),
  pause,
  tprBelowThreshold,
  apicAccess,
  descriptorTable: refuse('a descriptor-table access under emulated UMIP'),
  eptViolation,
  eptMisconfiguration,
  preemptionTimer,
  wbinvd: nop,
  xsetbv,
  rdrand: vmxInstruction,
  invpcid,
  pmlFull: () => ({ to: 'guest' }),
  unhandled: (vcpu, exit) =>
    stop(
      'emulation-failure',
      `exit ${exit.number} (${reasonName(exit.number)}) at rip 0x${vcpu.rip.toString(16)} has no handler`,
    ),
};

/** Hands a decoded exit to its handler. */
export const handle = (vcpu: Vcpu, exit: Exit): Next =>
  (handlers[exit.reason] as Handler<Exit['reason']>)(vcpu, exit as never);
