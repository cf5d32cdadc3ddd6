/**
 * Exits by what they were about, in the words of the recorded breakdowns: port, MSR, control register, page-fault error
 * code. Read from the VMCS when an exit is counted, before it is handled.
 */

import type { Vm } from '../hypervisor/vm.js';
import { EXIT, VMCS } from '../vmx/port.js';

export type Breakdown = Record<'io' | 'msr' | 'crAccess' | 'exception', Record<string, number>>;

const hex = (n: number): string => `0x${n.toString(16)}`;

const faultText = (code: number): string => {
  const access = (code & 0x10) !== 0 ? 'X' : (code & 2) !== 0 ? 'W' : 'R';
  const rsvd = (code & 8) !== 0 ? ' RSVD' : '';
  return `#PF ${hex(code)} ${(code & 1) !== 0 ? 'P' : 'NP'} ${access} ${(code & 4) !== 0 ? 'user' : 'kernel'}${rsvd}`;
};

/** Counts every exit of a machine from now on. */
export const watchExits = (vm: Vm): Breakdown => {
  const out: Breakdown = { io: {}, msr: {}, crAccess: {}, exception: {} };
  const { port, vcpu } = vm;
  const count = (group: keyof Breakdown, key: string): void => {
    out[group][key] = (out[group][key] ?? 0) + 1;
  };
  const qualification = (): number => port.vmread32(VMCS.exitQualification) >>> 0;
  vm.onExit = (reason) => {
    switch (reason) {
      case EXIT.exceptionOrNmi: {
        const info = port.vmread32(VMCS.exitInterruptionInfo);
        const vector = info & 0xff;
        if (vector === 14) count('exception', faultText(port.vmread32(VMCS.exitInterruptionErrorCode)));
        else count('exception', `vector ${vector}`);
        break;
      }
      case EXIT.ioInstruction: {
        const q = qualification();
        const way = (q & 8) !== 0 ? 'in' : 'out';
        count('io', `${way} ${hex(q >>> 16)} size${(q & 7) + 1}`);
        break;
      }
      case EXIT.crAccess: {
        const q = qualification();
        const kind = (q >> 4) & 3;
        if (kind < 2) count('crAccess', `mov ${kind === 0 ? 'to' : 'from'} CR${q & 15}`);
        else count('crAccess', kind === 2 ? 'clts' : 'lmsw');
        break;
      }
      case EXIT.rdmsr:
      case EXIT.wrmsr:
        count('msr', `${reason === EXIT.rdmsr ? 'read' : 'write'} ${hex(vcpu.gpr32(1))}`);
        break;
      default:
    }
  };
  return out;
};
