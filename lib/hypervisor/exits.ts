/**
 * VM exits as the handlers see them: the raw fields of the VMCS are decoded once, here, into a union.
 *
 * SDM volume 3, "Exit Qualification", "Information for VM Exits Due to Vectored Events", "VM-Exit Instruction-Information
 * Field". Reasons that no handler exists for in KVM decode to `unhandled`. Exits without data are shared constants.
 */
import { EXIT, VMCS, type VmxPort } from '../vmx/port.js';

export type Exit =
  | {
      readonly reason: 'exceptionOrNmi';
      readonly vector: number;
      /** As in the VMCS: 2 NMI, 3 hardware, 5 INT1, 6 software. */
      readonly type: number;
      /** Error code, or -1. */
      readonly code: number;
      /** Faulting address, or DR6 bits. */
      readonly qualification: bigint;
    }
  | { readonly reason: 'externalInterrupt'; readonly vector: number }
  | { readonly reason: 'tripleFault' }
  | { readonly reason: 'interruptWindow' }
  | { readonly reason: 'nmiWindow' }
  | {
      readonly reason: 'taskSwitch';
      readonly selector: number;
      /** 0 CALL, 1 IRET, 2 JMP, 3 task gate in the IDT. */
      readonly source: 0 | 1 | 2 | 3;
    }
  | { readonly reason: 'cpuid' }
  | { readonly reason: 'hlt' }
  | { readonly reason: 'invd' }
  | { readonly reason: 'invlpg'; readonly linear: bigint }
  | { readonly reason: 'rdpmc' }
  | { readonly reason: 'vmcall' }
  | { readonly reason: 'vmxInstruction'; readonly number: number }
  | {
      readonly reason: 'crAccess';
      readonly cr: number;
      readonly access: 'to' | 'from' | 'clts' | 'lmsw';
      readonly gpr: number;
      /** The operand of LMSW. */
      readonly source: number;
    }
  | { readonly reason: 'movDr'; readonly dr: number; readonly gpr: number; readonly write: boolean }
  | {
      readonly reason: 'ioInstruction';
      readonly port: number;
      readonly size: 1 | 2 | 4;
      readonly input: boolean;
      readonly string: boolean;
      readonly rep: boolean;
    }
  | { readonly reason: 'rdmsr' }
  | { readonly reason: 'wrmsr' }
  | { readonly reason: 'mwait' }
  | { readonly reason: 'monitor' }
  | { readonly reason: 'monitorTrapFlag' }
  | { readonly reason: 'pause' }
  | { readonly reason: 'tprBelowThreshold' }
  | { readonly reason: 'apicAccess'; readonly offset: number; readonly access: number }
  | { readonly reason: 'descriptorTable' }
  | {
      readonly reason: 'eptViolation';
      readonly gpa: number;
      /** Page-fault format. */
      readonly code: number;
    }
  | { readonly reason: 'eptMisconfiguration'; readonly gpa: number }
  | { readonly reason: 'preemptionTimer' }
  | { readonly reason: 'wbinvd' }
  | { readonly reason: 'xsetbv' }
  | { readonly reason: 'rdrand' }
  | {
      readonly reason: 'invpcid';
      /** Register that holds the type. */
      readonly gpr: number;
    }
  | { readonly reason: 'pmlFull' }
  | { readonly reason: 'unhandled'; readonly number: number };

export type ExitOf<R extends Exit['reason']> = Extract<Exit, { readonly reason: R }>;

const INFO_VALID = 0x8000_0000;
const INFO_CODE = 0x800;
const IO_SIZE = { 0: 1, 1: 2, 3: 4 } as const;
const CR_ACCESS = ['to', 'from', 'clts', 'lmsw'] as const;

type Decoder = (port: VmxPort) => Exit;

const constant =
  (exit: Exit): Decoder =>
  () =>
    exit;

const exception: Decoder = (port) => {
  const info = port.vmread32(VMCS.exitInterruptionInfo);
  return {
    reason: 'exceptionOrNmi',
    vector: info & 0xff,
    type: (info >> 8) & 7,
    code: (info & INFO_CODE) !== 0 ? port.vmread32(VMCS.exitInterruptionErrorCode) : -1,
    qualification: port.vmread(VMCS.exitQualification),
  };
};

/** EPT violation: the error code that KVM makes of the qualification (R→U, W, I; P when any right was there). */
const eptViolation: Decoder = (port) => {
  const q = port.vmread32(VMCS.exitQualification);
  const code =
    ((q & 1) !== 0 ? 4 : 0) | ((q & 2) !== 0 ? 2 : 0) | ((q & 4) !== 0 ? 16 : 0) | ((q & 0x38) !== 0 ? 1 : 0);
  return {
    reason: 'eptViolation',
    gpa: port.vmreadNumber(VMCS.guestPhysicalAddress),
    code,
  };
};

const DECODERS: Partial<Record<number, Decoder>> = {
  [EXIT.exceptionOrNmi]: exception,
  [EXIT.externalInterrupt]: (port) => {
    const info = port.vmread32(VMCS.exitInterruptionInfo);
    return { reason: 'externalInterrupt', vector: (info & INFO_VALID) !== 0 ? info & 0xff : -1 };
  },
  [EXIT.tripleFault]: constant({ reason: 'tripleFault' }),
  [EXIT.interruptWindow]: constant({ reason: 'interruptWindow' }),
  [EXIT.nmiWindow]: constant({ reason: 'nmiWindow' }),
  [EXIT.taskSwitch]: (port) => {
    const q = port.vmread32(VMCS.exitQualification);
    return { reason: 'taskSwitch', selector: q & 0xffff, source: (q >>> 30) as 0 | 1 | 2 | 3 };
  },
  [EXIT.cpuid]: constant({ reason: 'cpuid' }),
  [EXIT.hlt]: constant({ reason: 'hlt' }),
  [EXIT.invd]: constant({ reason: 'invd' }),
  [EXIT.invlpg]: (port) => ({ reason: 'invlpg', linear: port.vmread(VMCS.exitQualification) }),
  [EXIT.rdpmc]: constant({ reason: 'rdpmc' }),
  [EXIT.vmcall]: constant({ reason: 'vmcall' }),
  [EXIT.crAccess]: (port) => {
    const q = port.vmread32(VMCS.exitQualification);
    return {
      reason: 'crAccess',
      cr: q & 15,
      access: CR_ACCESS[(q >> 4) & 3],
      gpr: (q >> 8) & 15,
      source: q >>> 16,
    };
  },
  [EXIT.movDr]: (port) => {
    const q = port.vmread32(VMCS.exitQualification);
    return { reason: 'movDr', dr: q & 7, gpr: (q >> 8) & 15, write: (q & 0x10) === 0 };
  },
  [EXIT.ioInstruction]: (port) => {
    const q = port.vmread32(VMCS.exitQualification);
    return {
      reason: 'ioInstruction',
      port: q >>> 16,
      size: IO_SIZE[(q & 3) as 0 | 1 | 3],
      input: (q & 8) !== 0,
      string: (q & 0x10) !== 0,
      rep: (q & 0x20) !== 0,
    };
  },
  [EXIT.rdmsr]: constant({ reason: 'rdmsr' }),
  [EXIT.wrmsr]: constant({ reason: 'wrmsr' }),
  [EXIT.mwait]: constant({ reason: 'mwait' }),
  [EXIT.monitor]: constant({ reason: 'monitor' }),
  [EXIT.monitorTrapFlag]: constant({ reason: 'monitorTrapFlag' }),
  [EXIT.pause]: constant({ reason: 'pause' }),
  [EXIT.tprBelowThreshold]: constant({ reason: 'tprBelowThreshold' }),
  [EXIT.apicAccess]: (port) => {
    const q = port.vmread32(VMCS.exitQualification);
    return { reason: 'apicAccess', offset: q & 0xfff, access: (q >> 12) & 15 };
  },
  [EXIT.gdtrIdtrAccess]: constant({ reason: 'descriptorTable' }),
  [EXIT.ldtrTrAccess]: constant({ reason: 'descriptorTable' }),
  [EXIT.eptViolation]: eptViolation,
  [EXIT.eptMisconfiguration]: (port) => ({
    reason: 'eptMisconfiguration',
    gpa: port.vmreadNumber(VMCS.guestPhysicalAddress),
  }),
  [EXIT.preemptionTimer]: constant({ reason: 'preemptionTimer' }),
  [EXIT.wbinvd]: constant({ reason: 'wbinvd' }),
  [EXIT.xsetbv]: constant({ reason: 'xsetbv' }),
  [EXIT.rdrand]: constant({ reason: 'rdrand' }),
  [EXIT.rdseed]: constant({ reason: 'rdrand' }),
  [EXIT.invpcid]: (port) => ({
    reason: 'invpcid',
    gpr: (port.vmread32(VMCS.exitInstructionInfo) >> 28) & 15,
  }),
  [EXIT.pageModificationLogFull]: constant({ reason: 'pmlFull' }),
};
for (const number of [
  EXIT.vmclear,
  EXIT.vmlaunch,
  EXIT.vmptrld,
  EXIT.vmptrst,
  EXIT.vmread,
  EXIT.vmresume,
  EXIT.vmwrite,
  EXIT.vmxoff,
  EXIT.vmxon,
  EXIT.invept,
  EXIT.invvpid,
  EXIT.vmfunc,
  EXIT.encls,
]) {
  DECODERS[number] = constant({ reason: 'vmxInstruction', number });
}

const TABLE: readonly Decoder[] = Array.from(
  { length: 80 },
  (_, number) => DECODERS[number] ?? constant({ reason: 'unhandled', number }),
);

/** Decodes the exit that the current VMCS describes. @param number basic exit reason */
export const decodeExit = (port: VmxPort, number: number): Exit =>
  (TABLE[number] ?? constant({ reason: 'unhandled', number }))(port);
