/**
 * Delivery of faults, traps and interrupts: VMX interception, the table of double faults, shutdown.
 *
 * SDM volume 3, "Interrupt 8: Double Fault Exception" and "Information for VM Exits That Occur During Event Delivery".
 * While an event is being delivered `cpu.delivering` holds it. It stays set when a VM exit was recorded, for the
 * IDT-vectoring fields; the VMX unit clears it when it has processed the exit.
 */
import { LEAVE, S, VECTOR } from '../../isa/state.js';
import type { Cpu, PendingEvent } from '../core.js';
import { deliverOnce } from './gates.js';
import { realMode } from './segments.js';

/** Where a vector stands in the table of double faults. */
const severity = (event: PendingEvent): 'benign' | 'contributory' | 'page' => {
  if (event.type !== 3) return 'benign';
  if (event.vector === VECTOR.pf) return 'page';
  return event.vector === VECTOR.de || (event.vector >= 10 && event.vector <= 13) || event.vector === 21
    ? 'contributory'
    : 'benign';
};

const doubles = (first: PendingEvent, second: PendingEvent): boolean => {
  const a = severity(first);
  const b = severity(second);
  return (a === 'contributory' && b === 'contributory') || (a === 'page' && b !== 'benign');
};

/** The fault that `Cpu.fault` recorded, as an event. */
export const recordedFault = (cpu: Cpu): PendingEvent => ({
  vector: cpu.get32(S.faultVector),
  type: 3,
  code: cpu.get32(S.faultCode) | 0,
  address: cpu.get64(S.faultAddress),
  length: 0,
  injected: false,
});

/** Real mode has no error codes: neither frames nor VM exits see one. */
const withoutCode = (cpu: Cpu, event: PendingEvent): PendingEvent =>
  event.code >= 0 && realMode(cpu) ? { ...event, code: -1 } : event;

/** CR2 and the debug registers take their part of an event before its handler starts. */
const recordAddress = (cpu: Cpu, event: PendingEvent): void => {
  if (event.injected || event.type !== 3) return;
  if (event.vector === VECTOR.pf) cpu.set64(S.cr2, event.address);
  else if (event.vector === VECTOR.db) {
    // Hits of breakpoints are replaced, BD, BS and BT accumulate.
    cpu.set64(S.dr6, (cpu.get64(S.dr6) & ~0xfn) | (event.address & 0xe00fn));
    cpu.set64(S.dr7, cpu.get64(S.dr7) & ~0x2000n);
  }
};

const shutdown = (cpu: Cpu): false => {
  cpu.delivering = undefined;
  if (cpu.guest?.tripleFault() === true) return false;
  cpu.set32(S.activity, 2);
  cpu.set32(S.leave, LEAVE.stop);
  return false;
};

/**
 * Delivers an event. On success `S.nextRip` is the handler's RIP and mode, CPL and TLB sets are those of the handler.
 * @param returnRip pushed as RIP; for software events the address behind the instruction (`event.length` long)
 * @returns false when a VM exit was recorded or the processor shut down
 */
export const deliverEvent = (cpu: Cpu, event: PendingEvent, returnRip: bigint): boolean => {
  let current = withoutCode(cpu, event);
  let rip = returnRip;
  cpu.delivering = undefined;
  for (;;) {
    if (!current.injected && cpu.guest?.exception(current) === true) return false;
    recordAddress(cpu, current);
    cpu.delivering = current;
    cpu.set32(S.leave, LEAVE.none);
    if (deliverOnce(cpu, current, rip)) {
      cpu.delivering = undefined;
      cpu.set32(S.activity, 0);
      cpu.set32(S.leave, LEAVE.none);
      return true;
    }
    if (cpu.get32(S.leave) !== LEAVE.fault) return false;
    rip = BigInt.asUintN(64, rip - BigInt(current.length));
    const nested = withoutCode(cpu, recordedFault(cpu));
    if (current.type === 3 && current.vector === VECTOR.df) {
      if (cpu.guest?.exception(nested) === true) return false;
      return shutdown(cpu);
    }
    if (doubles(current, nested)) {
      if (cpu.guest?.exception(nested) === true) return false;
      recordAddress(cpu, nested);
      cpu.delivering = undefined;
      current = { vector: VECTOR.df, type: 3, code: 0, address: 0n, length: 0, injected: false };
      current = withoutCode(cpu, current);
    } else current = nested;
  }
};
