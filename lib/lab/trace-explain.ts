/**
 * A VM exit in words: what the guest did, and why that leaves the guest (one row a basic exit reason).
 *
 * The exit qualification, interruption information and instruction information are decoded as the SDM lays them out
 * (volume 3, "Exit Qualification", "Information for VM Exits Due to Instruction Execution"). Registers and VMCS fields are
 * read at the event, so an exit is explained in the listener that gets it.
 */
import { LabError } from '../base/error.js';
import { MSRS } from '../hypervisor/msr.js';
import { reasonName } from '../hypervisor/reasons.js';
import type { TraceEvent } from '../hypervisor/trace-events.js';
import { apicRegisterName, exceptionName } from '../hypervisor/trace-rows.js';
import { SECONDARY } from '../vmx/controls.js';
import { EXIT, EXIT_REASONS } from '../vmx/exit-reasons.js';
import { explainControl } from './trace-explain-control.js';
import { explainIo, explainMsr } from './trace-explain-io.js';
import { type Because, eptViolation, hex, pageFault } from './trace-explain-memory.js';

export type ExitEvent = TraceEvent<'kvm_exit'>;

export interface ExitExplanation extends Because {
  /** KVM's name of the reason, as `perf kvm stat` prints it. */
  readonly reason: string;
  /** The SDM's. */
  readonly sdm: string;
  /** Where the guest was: linear address. */
  readonly rip: bigint;
  /** What was being delivered to the guest when it left, if anything was. */
  readonly during: string | undefined;
  /** All of it as one line. */
  readonly text: string;
}

type Explain = (e: ExitEvent, ept: boolean) => Because;

const low = (v: bigint): number => Number(BigInt.asUintN(32, v));

/** The same words every time. */
const always =
  (what: string, why: string): Explain =>
  () => ({ what, why });

const TYPES = [
  'external interrupt',
  '',
  'NMI',
  'exception',
  'INT n',
  'INT1',
  'software exception',
  '',
] as const;
const vectoring = (info: bigint): string | undefined => {
  if ((info & 0x8000_0000n) === 0n) return undefined;
  const type = (low(info) >>> 8) & 7;
  const vector = low(info) & 0xff;
  const exception = type === 3 || type === 6 || type === 5;
  return `${TYPES[type]} ${exception ? exceptionName(vector) : vector}`;
};

const WHY_EXCEPTION: Readonly<Record<number, string>> = {
  1: 'the exception bitmap has #DB: KVM gives it to the guest with DR6 as the guest knows it',
  6: 'the exception bitmap has #UD: KVM looks whether it has to emulate the instruction, and gives #UD to the guest otherwise',
  17: 'the exception bitmap has #AC: a guest could otherwise hang the processor with nested #ACs',
  18: 'a machine check belongs to the host',
};
const exception: Explain = (e, ept) => {
  const vector = e.intr_info & 0xff;
  if (((e.intr_info >>> 8) & 7) === 2)
    return { what: 'an NMI arrived', why: 'NMIs belong to the host (NMI exiting)' };
  if (vector === 14) return pageFault(e, ept);
  return {
    what: `the guest raised ${exceptionName(vector)}`,
    why: WHY_EXCEPTION[vector] ?? 'the exception bitmap has it',
  };
};

const APIC_ACCESS: Readonly<Record<number, string>> = {
  0: 'read',
  1: 'wrote',
  2: 'fetched an instruction from',
  3: 'had an event delivered through',
};

const INVPCID = [
  'one address',
  'one PCID',
  'everything, global translations too',
  'everything but global translations',
];

const NESTED = always(
  'the guest executed a VMX instruction',
  'VMX instructions always exit in a guest; without nested virtualization KVM answers #UD',
);

const ROWS: { readonly [reason: number]: Explain | undefined } = {
  [EXIT.exceptionOrNmi]: exception,
  [EXIT.externalInterrupt]: (e) => ({
    what: `interrupt ${e.intr_info & 0xff} of the host arrived`,
    why: 'interrupts of the host leave the guest (external-interrupt exiting); the host handles them and goes on',
  }),
  [EXIT.tripleFault]: always(
    'the guest faulted while a double fault was being delivered',
    'a triple fault resets a processor; KVM ends the run',
  ),
  [EXIT.interruptWindow]: always(
    'the guest became able to take an interrupt',
    'an interrupt had been waiting and KVM asked to be told (interrupt-window exiting)',
  ),
  [EXIT.nmiWindow]: always(
    'the guest became able to take an NMI',
    'an NMI had been waiting and KVM asked to be told (NMI-window exiting)',
  ),
  [EXIT.taskSwitch]: (e) => ({
    what: `the guest switched to the task of selector 0x${hex(e.info1 & 0xffffn)}`,
    why: 'hardware task switches do not exist in a guest: they always exit',
  }),
  [EXIT.cpuid]: (e) => ({
    what: `the guest executed CPUID leaf 0x${hex(low(e.cpu.gpr(0)))}, subleaf 0x${hex(low(e.cpu.gpr(1)))}`,
    why: 'CPUID always exits: the guest is told of the processor that KVM presents, not of the real one',
  }),
  [EXIT.hlt]: always(
    'the guest halted',
    'HLT exits so that the host can do something else until an event wakes the guest (HLT exiting)',
  ),
  [EXIT.invd]: always(
    'the guest executed INVD',
    'INVD always exits: it would throw away what the host wrote',
  ),
  [EXIT.invlpg]: (e) => ({
    what: `the guest dropped its translation of 0x${hex(e.info1)}`,
    why: 'under shadow paging INVLPG is how a guest says that it changed an entry, so the shadow entry must follow (INVLPG exiting)',
  }),
  [EXIT.rdpmc]: always('the guest read a performance counter', "the counters are the host's (RDPMC exiting)"),
  [EXIT.vmcall]: (e) => ({
    what: `the guest made hypercall ${low(e.cpu.gpr(0))}`,
    why: 'VMCALL is a call of the hypervisor: it always exits',
  }),
  [EXIT.crAccess]: explainControl,
  [EXIT.movDr]: (e) => {
    const q = low(e.info1);
    return {
      what: `the guest ${(q & 0x10) === 0 ? 'wrote' : 'read'} DR${q & 7}`,
      why: 'debug registers are loaded when a guest first uses them: after this exit accesses are free until the next one (MOV-DR exiting)',
    };
  },
  [EXIT.ioInstruction]: explainIo,
  [EXIT.rdmsr]: (e) => explainMsr(e, MSRS, false),
  [EXIT.wrmsr]: (e) => explainMsr(e, MSRS, true),
  [EXIT.invalidGuestState]: always(
    'the guest state that KVM loaded broke a rule',
    'the VM entry failed: the processor checks guest state before it enters',
  ),
  [EXIT.msrLoading]: always('an MSR of the entry list could not be loaded', 'the VM entry failed'),
  [EXIT.mwait]: always('the guest executed MWAIT', 'the guest must not stop the processor (MWAIT exiting)'),
  [EXIT.monitorTrapFlag]: always(
    'the guest executed one instruction',
    'KVM asked for single steps (monitor trap flag)',
  ),
  [EXIT.monitor]: always('the guest executed MONITOR', 'MONITOR goes with MWAIT (MONITOR exiting)'),
  [EXIT.pause]: always(
    'the guest spun in a loop of PAUSE',
    'it may be waiting for a lock whose owner is not running (PAUSE-loop exiting, ple_gap and ple_window)',
  ),
  [EXIT.tprBelowThreshold]: always(
    'the guest lowered its task priority',
    'an interrupt had been held back by the old priority (TPR threshold)',
  ),
  [EXIT.apicAccess]: (e) => ({
    what: `the guest ${APIC_ACCESS[(low(e.info1) >>> 12) & 15] ?? 'touched'} ${apicRegisterName(low(e.info1) & 0xff0)} of its local APIC`,
    why: "the page of the APIC is not memory: KVM's own APIC answers (virtualize APIC accesses)",
  }),
  [EXIT.gdtrIdtrAccess]: always(
    'the guest accessed GDTR or IDTR',
    'UMIP is emulated (descriptor-table exiting)',
  ),
  [EXIT.ldtrTrAccess]: always('the guest accessed LDTR or TR', 'UMIP is emulated (descriptor-table exiting)'),
  [EXIT.eptViolation]: eptViolation,
  [EXIT.eptMisconfiguration]: (e) => ({
    what: `the guest touched guest-physical 0x${hex(e.cpu.field('guestPhysicalAddress'))}, where a device is`,
    why: 'KVM marks pages of devices with an EPT entry that the processor must refuse, so that it recognizes them at once and emulates the access',
  }),
  [EXIT.preemptionTimer]: always(
    'the time set for the guest ran out',
    "the VMX-preemption timer stands for the timer of the guest's local APIC while the guest runs",
  ),
  [EXIT.wbinvd]: always(
    'the guest executed WBINVD',
    'KVM sees it when a device is assigned, and does nothing otherwise',
  ),
  [EXIT.xsetbv]: (e) => ({
    what: `the guest set XCR${low(e.cpu.gpr(1))} to 0x${hex((BigInt.asUintN(32, e.cpu.gpr(2)) << 32n) | BigInt.asUintN(32, e.cpu.gpr(0)))}`,
    why: 'XSETBV always exits: the guest may only enable what it was offered',
  }),
  [EXIT.rdrand]: always('the guest executed RDRAND', 'the guest was not offered it (RDRAND exiting)'),
  [EXIT.rdseed]: always('the guest executed RDSEED', 'the guest was not offered it (RDSEED exiting)'),
  [EXIT.invpcid]: (e) => {
    const type = Number(BigInt.asUintN(32, e.cpu.gpr((low(e.cpu.field('exitInstructionInfo')) >>> 28) & 15)));
    return {
      what: `the guest dropped translations with INVPCID: ${INVPCID[type] ?? `type ${type}, which does not exist`}`,
      why: 'under shadow paging the guest says that entries have changed, and the shadow tables must follow',
    };
  },
  [EXIT.pageModificationLogFull]: always('512 pages were written', 'the log of written pages is full'),
  ...Object.fromEntries(
    [
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
    ].map((reason) => [reason, NESTED]),
  ),
};

/** Whether a reason has words of its own. */
export const isExplained = (reason: number): boolean => ROWS[reason] !== undefined;

/**
 * Says what the guest did and why that was an exit. Called in the listener of the event, while its registers are there.
 * @throws LabError after the listener has returned
 */
export const explainExit = (e: ExitEvent): ExitExplanation => {
  if (e.name !== 'kvm_exit')
    throw new LabError(
      'trace.explain',
      `'${String((e as { name?: unknown }).name)}' is no VM exit`,
      'give it a kvm_exit event',
    );
  const number = e.exit_reason & 0xffff;
  const ept = (low(e.cpu.field('secondaryControls')) & SECONDARY.enableEpt) !== 0;
  const row = ROWS[number];
  const sdm = EXIT_REASONS[number]?.sdm ?? '';
  const { what, why } = row?.(e, ept) ?? {
    what: `the guest left with: ${sdm || number}`,
    why: 'KVM has no handler for it',
  };
  const during = vectoring(e.info2);
  const delivering = during === undefined ? '' : `; ${during} was being delivered and will be injected again`;
  return {
    reason: reasonName(number),
    sdm,
    rip: e.guest_rip,
    what,
    why,
    during,
    text: `${what}: ${why}${delivering}`,
  };
};
