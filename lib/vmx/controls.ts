/**
 * The bits of the VMX control words, and which of them this processor offers.
 *
 * SDM volume 3, "VM-Execution Control Fields", "VM-Exit Control Fields", "VM-Entry Control Fields", and the appendix
 * "VMX Capability Reporting Facility" for default1. Capability MSRs, entry checks, the printer and the masks below are
 * derived from these rows. A bit without a row is reserved. Not offered (`offered: false`): APICv, posted interrupts,
 * PML, VM functions, VMCS shadowing, #VE, SPP, TSC scaling, everything newer, and what belongs to absent features.
 */
import { type FieldName, VMCS } from './fields.js';

interface Word {
  readonly field: FieldName;
  /** Bits that must be 1 in processors without the true-controls MSRs. */
  readonly default1: number;
  /** Of these, the bits that the true-controls MSR lets be 0. */
  readonly relaxed: number;
  /** Numbers of the capability MSR and of its true version; the same where there is none. */
  readonly msr: number;
  readonly trueMsr: number;
}

/** The five control words. */
export const CONTROL_WORDS = {
  pin: { field: 'pinBasedControls', default1: 0x16, relaxed: 0, msr: 0x481, trueMsr: 0x48d },
  proc: { field: 'procBasedControls', default1: 0x0401_e172, relaxed: 0x1_8000, msr: 0x482, trueMsr: 0x48e },
  secondary: { field: 'secondaryControls', default1: 0, relaxed: 0, msr: 0x48b, trueMsr: 0x48b },
  exit: { field: 'exitControls', default1: 0x0003_6dff, relaxed: 4, msr: 0x483, trueMsr: 0x48f },
  entry: { field: 'entryControls', default1: 0x0000_11ff, relaxed: 4, msr: 0x484, trueMsr: 0x490 },
} as const satisfies Record<string, Word>;
export type WordName = keyof typeof CONTROL_WORDS;

/** [bit, name in the SDM's words, 'absent' when not offered]. */
type Bit = readonly [number, string, 'absent'?];

const BITS = {
  pin: {
    externalInterruptExiting: [0, 'External-interrupt exiting'],
    nmiExiting: [3, 'NMI exiting'],
    virtualNmis: [5, 'Virtual NMIs'],
    activatePreemptionTimer: [6, 'Activate VMX-preemption timer'],
    processPostedInterrupts: [7, 'Process posted interrupts', 'absent'],
  },
  proc: {
    interruptWindowExiting: [2, 'Interrupt-window exiting'],
    useTscOffsetting: [3, 'Use TSC offsetting'],
    hltExiting: [7, 'HLT exiting'],
    invlpgExiting: [9, 'INVLPG exiting'],
    mwaitExiting: [10, 'MWAIT exiting'],
    rdpmcExiting: [11, 'RDPMC exiting'],
    rdtscExiting: [12, 'RDTSC exiting'],
    cr3LoadExiting: [15, 'CR3-load exiting'],
    cr3StoreExiting: [16, 'CR3-store exiting'],
    activateTertiaryControls: [17, 'Activate tertiary controls', 'absent'],
    cr8LoadExiting: [19, 'CR8-load exiting'],
    cr8StoreExiting: [20, 'CR8-store exiting'],
    useTprShadow: [21, 'Use TPR shadow'],
    nmiWindowExiting: [22, 'NMI-window exiting'],
    movDrExiting: [23, 'MOV-DR exiting'],
    unconditionalIoExiting: [24, 'Unconditional I/O exiting'],
    useIoBitmaps: [25, 'Use I/O bitmaps'],
    monitorTrapFlag: [27, 'Monitor trap flag'],
    useMsrBitmaps: [28, 'Use MSR bitmaps'],
    monitorExiting: [29, 'MONITOR exiting'],
    pauseExiting: [30, 'PAUSE exiting'],
    activateSecondaryControls: [31, 'Activate secondary controls'],
  },
  secondary: {
    virtualizeApicAccesses: [0, 'Virtualize APIC accesses'],
    enableEpt: [1, 'Enable EPT'],
    descriptorTableExiting: [2, 'Descriptor-table exiting'],
    enableRdtscp: [3, 'Enable RDTSCP'],
    virtualizeX2apicMode: [4, 'Virtualize x2APIC mode'],
    enableVpid: [5, 'Enable VPID'],
    wbinvdExiting: [6, 'WBINVD exiting'],
    unrestrictedGuest: [7, 'Unrestricted guest'],
    apicRegisterVirtualization: [8, 'APIC-register virtualization', 'absent'],
    virtualInterruptDelivery: [9, 'Virtual-interrupt delivery', 'absent'],
    pauseLoopExiting: [10, 'PAUSE-loop exiting'],
    rdrandExiting: [11, 'RDRAND exiting', 'absent'],
    enableInvpcid: [12, 'Enable INVPCID'],
    enableVmFunctions: [13, 'Enable VM functions', 'absent'],
    vmcsShadowing: [14, 'VMCS shadowing', 'absent'],
    enclsExiting: [15, 'Enable ENCLS exiting', 'absent'],
    rdseedExiting: [16, 'RDSEED exiting', 'absent'],
    enablePml: [17, 'Enable PML', 'absent'],
    eptViolationVe: [18, 'EPT-violation #VE', 'absent'],
    concealFromPt: [19, 'Conceal VMX from PT', 'absent'],
    enableXsaves: [20, 'Enable XSAVES/XRSTORS'],
    pasidTranslation: [21, 'PASID translation', 'absent'],
    modeBasedExecute: [22, 'Mode-based execute control for EPT', 'absent'],
    subPageWritePermissions: [23, 'Sub-page write permissions for EPT', 'absent'],
    ptUsesGuestPhysical: [24, 'Intel PT uses guest physical addresses', 'absent'],
    useTscScaling: [25, 'Use TSC scaling', 'absent'],
    enableUserWaitAndPause: [26, 'Enable user wait and pause', 'absent'],
    enablePconfig: [27, 'Enable PCONFIG', 'absent'],
    enclvExiting: [28, 'Enable ENCLV exiting', 'absent'],
    busLockDetection: [30, 'VMM bus-lock detection', 'absent'],
    instructionTimeout: [31, 'Instruction timeout', 'absent'],
  },
  exit: {
    saveDebugControls: [2, 'Save debug controls'],
    hostAddressSpaceSize: [9, 'Host address-space size'],
    loadHostPerfGlobalCtrl: [12, 'Load IA32_PERF_GLOBAL_CTRL', 'absent'],
    acknowledgeInterrupt: [15, 'Acknowledge interrupt on exit'],
    savePat: [18, 'Save IA32_PAT'],
    loadHostPat: [19, 'Load IA32_PAT'],
    saveEfer: [20, 'Save IA32_EFER'],
    loadHostEfer: [21, 'Load IA32_EFER'],
    savePreemptionTimer: [22, 'Save VMX-preemption timer value'],
    clearBndcfgs: [23, 'Clear IA32_BNDCFGS', 'absent'],
    concealExitFromPt: [24, 'Conceal VMX from PT', 'absent'],
    clearRtitCtl: [25, 'Clear IA32_RTIT_CTL', 'absent'],
    clearLbrCtl: [26, 'Clear IA32_LBR_CTL', 'absent'],
    clearUinv: [27, 'Clear UINV', 'absent'],
    loadHostCet: [28, 'Load CET state', 'absent'],
    loadHostPkrs: [29, 'Load PKRS', 'absent'],
    savePerfGlobalCtrl: [30, 'Save IA32_PERF_GLOBAL_CTL', 'absent'],
    activateSecondaryExitControls: [31, 'Activate secondary controls', 'absent'],
  },
  entry: {
    loadDebugControls: [2, 'Load debug controls'],
    ia32eModeGuest: [9, 'IA-32e mode guest'],
    entryToSmm: [10, 'Entry to SMM', 'absent'],
    deactivateDualMonitor: [11, 'Deactivate dual-monitor treatment', 'absent'],
    loadPerfGlobalCtrl: [13, 'Load IA32_PERF_GLOBAL_CTRL', 'absent'],
    loadPat: [14, 'Load IA32_PAT'],
    loadEfer: [15, 'Load IA32_EFER'],
    loadBndcfgs: [16, 'Load IA32_BNDCFGS', 'absent'],
    concealEntryFromPt: [17, 'Conceal VMX from PT', 'absent'],
    loadRtitCtl: [18, 'Load IA32_RTIT_CTL', 'absent'],
    loadUinv: [19, 'Load UINV', 'absent'],
    loadCet: [20, 'Load CET state', 'absent'],
    loadLbrCtl: [21, 'Load guest IA32_LBR_CTL', 'absent'],
    loadPkrs: [22, 'Load PKRS', 'absent'],
  },
} as const satisfies Record<WordName, Record<string, Bit>>;

export type ControlName = { [W in WordName]: keyof (typeof BITS)[W] }[WordName];
export interface ControlRow {
  readonly word: WordName;
  readonly name: ControlName;
  readonly bit: number;
  readonly sdm: string;
  readonly offered: boolean;
}

/** All control bits. */
export const CONTROLS: readonly ControlRow[] = Object.entries(BITS).flatMap(([word, bits]) =>
  Object.entries(bits as Record<string, Bit>).map(([name, [bit, sdm, absent]]) => ({
    word: word as WordName,
    name: name as ControlName,
    bit,
    sdm,
    offered: absent === undefined,
  })),
);

const masks = <W extends WordName>(word: W) =>
  Object.fromEntries(
    Object.entries(BITS[word] as Record<string, Bit>).map(([name, [bit]]) => [name, (1 << bit) >>> 0]),
  ) as { readonly [N in keyof (typeof BITS)[W]]: number };

/** Masks of the control bits, by word: `PIN.nmiExiting`. */
export const PIN = masks('pin');
export const PROC = masks('proc');
export const SECONDARY = masks('secondary');
export const EXIT_CONTROL = masks('exit');
export const ENTRY_CONTROL = masks('entry');

const offeredMask = (word: WordName): number =>
  CONTROLS.reduce((mask, c) => (c.word === word && c.offered ? (mask | (1 << c.bit)) >>> 0 : mask), 0);

/** What a control word may be: bits that must be 1, and bits that may be 1. `strict` is the view of the old MSRs. */
export interface Allowed {
  readonly mustBe1: number;
  readonly mayBe1: number;
}
export const allowed = (word: WordName, strict = false): Allowed => {
  const { default1, relaxed } = CONTROL_WORDS[word];
  return {
    mustBe1: (strict ? default1 : default1 & ~relaxed) >>> 0,
    mayBe1: (default1 | offeredMask(word)) >>> 0,
  };
};

/** Encodings of the control words, by word. */
export const WORD_FIELD = Object.fromEntries(
  Object.entries(CONTROL_WORDS).map(([word, { field }]) => [word, VMCS[field]]),
) as Readonly<Record<WordName, number>>;

const BY_NAME = new Map<string, ControlRow>(CONTROLS.map((c) => [c.name, c]));
/** Whether a control of this name is offered; names without a row (features of later processors) are not. */
export const isOffered = (name: string): boolean => BY_NAME.get(name)?.offered ?? false;
export const controlRow = (name: ControlName): ControlRow => BY_NAME.get(name) as ControlRow;
