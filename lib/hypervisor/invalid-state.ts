/**
 * Guest state that the processor cannot be entered with when the guest is not unrestricted: it is emulated, up to 130
 * instructions a round (KVM-1.4; KVM's emulate_invalid_guest_state, vmx_guest_state_valid, handle_invalid_guest_state).
 *
 * A round counts in `stat.exits` without a VM exit. Real mode is always emulated: KVM runs most of it in virtual-8086
 * mode instead, which is not modelled.
 */
import type { PendingEvent } from '../cpu/core.js';
import { CR0, SEG } from '../isa/state.js';
import { PROC, VMCS } from '../vmx/port.js';
import { SEGMENT_FIELDS } from './cr.js';
import { interruptAllowed } from './events.js';
import type { Outcome } from './next.js';
import type { Vcpu } from './vcpu.js';

const ROUND = 130;
const VALID = 0x8000_0000;
const HAS_CODE = 0x800;
const AR = { s: 0x10, p: 0x80, unusable: 0x1_0000 } as const;

interface Segment {
  readonly selector: number;
  readonly attr: number;
}
const segment = (vcpu: Vcpu, seg: number): Segment => {
  const f = SEGMENT_FIELDS[seg as 0];
  return { selector: vcpu.port.vmread32(f.selector), attr: vcpu.port.vmread32(f.rights) };
};
const dpl = (s: Segment): number => (s.attr >> 5) & 3;
const rpl = (s: Segment): number => s.selector & 3;
const usable = (s: Segment): boolean => (s.attr & AR.unusable) === 0;
const present = (s: Segment): boolean => (s.attr & AR.p) !== 0;

const codeValid = (s: Segment): boolean => {
  const conforming = (s.attr & 4) !== 0;
  const code = usable(s) && (s.attr & AR.s) !== 0 && (s.attr & 9) === 9;
  return code && present(s) && (conforming ? dpl(s) <= rpl(s) : dpl(s) === rpl(s));
};
const stackValid = (s: Segment): boolean =>
  !usable(s) ||
  ((s.attr & AR.s) !== 0 && ((s.attr & 15) === 3 || (s.attr & 15) === 7) && dpl(s) === rpl(s) && present(s));
const dataValid = (s: Segment): boolean =>
  !usable(s) || ((s.attr & AR.s) !== 0 && present(s) && ((s.attr & 10) === 10 || dpl(s) >= rpl(s)));
const taskValid = (s: Segment): boolean =>
  usable(s) &&
  (s.selector & 4) === 0 &&
  ((s.attr & 15) === 3 || (s.attr & 15) === 11) &&
  (s.attr & AR.s) === 0 &&
  present(s);
const ldtValid = (s: Segment): boolean =>
  !usable(s) || ((s.selector & 4) === 0 && (s.attr & 0x1f) === 2 && present(s));

/** vmx_guest_state_valid in protected mode; false in real mode, which needs the emulator. */
export const guestStateValid = (vcpu: Vcpu): boolean => {
  if ((vcpu.cr0 & CR0.pe) === 0) return false;
  // virtual-8086 mode of the guest's own: its segments come from selectors alone
  if ((vcpu.rflags & 0x2_0000) !== 0) return true;
  const cs = segment(vcpu, SEG.cs);
  const ss = segment(vcpu, SEG.ss);
  return (
    rpl(cs) === rpl(ss) &&
    codeValid(cs) &&
    stackValid(ss) &&
    [SEG.ds, SEG.es, SEG.fs, SEG.gs].every((seg) => dataValid(segment(vcpu, seg))) &&
    taskValid(segment(vcpu, SEG.tr)) &&
    ldtValid(segment(vcpu, SEG.ldtr))
  );
};

/** What an injection wrote for the entry that does not happen is delivered here. */
const deliverInjected = (vcpu: Vcpu): void => {
  const { port, events } = vcpu;
  const info = port.vmread32(VMCS.entryInterruptionInfo);
  if ((info & VALID) === 0) return;
  port.vmwrite32(VMCS.entryInterruptionInfo, 0);
  events.exceptionInjected = false;
  events.interruptInjected = false;
  events.nmiInjected = false;
  const type = ((info >>> 8) & 7) as PendingEvent['type'];
  vcpu.vm.emulator.full.deliver({
    vector: info & 0xff,
    type,
    code: (info & HAS_CODE) !== 0 ? port.vmread32(VMCS.entryExceptionErrorCode) : -1,
    address: 0n,
    length: type >= 4 ? port.vmread32(VMCS.entryInstructionLength) : 0,
    injected: true,
  });
};

/** handle_invalid_guest_state: one round. An outcome ends the run. @param limit retired instructions at which it ends */
export const emulateInvalidState = (vcpu: Vcpu, limit: number): Outcome | undefined => {
  const { vm, port, events } = vcpu;
  if (!vm.params.emulate_invalid_guest_state)
    return { kind: 'entry-failure', detail: 'guest state is invalid, and emulate_invalid_guest_state=N' };
  vm.stats.exits++;
  vm.expireLapicTimer();
  vcpu.controls.setProc(PROC.interruptWindowExiting, false);
  deliverInjected(vcpu);
  for (let i = 0; i < ROUND && vcpu.emulationRequired; i++) {
    if (events.tripleFault || events.exceptionPending || vcpu.halted || vm.pendingStop !== undefined) break;
    if (port.retired() >= limit) return { kind: 'limit' };
    if (vm.board.interruptSource() !== 'none' && interruptAllowed(port)) break;
    const next = vm.emulator.emulate();
    if (next.to === 'user') return next.outcome;
  }
  return undefined;
};
