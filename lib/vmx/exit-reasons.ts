/**
 * Basic exit reasons, one row each.
 *
 * SDM volume 3, appendix "VMX Basic Exit Reasons"; the names of KVM's macros (as `perf kvm stat` prints them), and
 * whether Linux 6.1's KVM has a handler (KVM-2). `defined: false`: not an exit reason in the SDM edition of the lab,
 * in which 69 is the highest number. `length`: the exit sets the VM-exit instruction length by itself, because it is
 * caused by executing an instruction (section "Information for VM Exits Due to Instruction Execution").
 */
import { InvariantError } from '../base/error.js';
export interface ExitReasonRow {
  readonly number: number;
  /** camelCase of the SDM's name. */
  readonly name: string;
  /** The SDM's name of the event. */
  readonly sdm: string;
  /** KVM's macro without EXIT_REASON_; undefined where Linux 6.1 defines none. */
  readonly kvm: string | undefined;
  /** KVM 6.1 has an entry for it in its handler table. */
  readonly handled: boolean;
  readonly defined: boolean;
  readonly length: boolean;
}

type Mark = 'handled' | 'length' | 'undefined';
const ROWS = {
  exceptionOrNmi: [0, 'Exception or NMI', 'EXCEPTION_NMI', 'handled'],
  externalInterrupt: [1, 'External interrupt', 'EXTERNAL_INTERRUPT', 'handled'],
  tripleFault: [2, 'Triple fault', 'TRIPLE_FAULT', 'handled'],
  init: [3, 'INIT signal', 'INIT_SIGNAL'],
  sipi: [4, 'Start-up IPI', 'SIPI_SIGNAL'],
  ioSmi: [5, 'I/O SMI', ''],
  otherSmi: [6, 'Other SMI', ''],
  interruptWindow: [7, 'Interrupt window', 'INTERRUPT_WINDOW', 'handled'],
  nmiWindow: [8, 'NMI window', 'NMI_WINDOW', 'handled'],
  taskSwitch: [9, 'Task switch', 'TASK_SWITCH', 'handled', 'length'],
  cpuid: [10, 'CPUID', 'CPUID', 'handled', 'length'],
  getsec: [11, 'GETSEC', '', 'length'],
  hlt: [12, 'HLT', 'HLT', 'handled', 'length'],
  invd: [13, 'INVD', 'INVD', 'handled', 'length'],
  invlpg: [14, 'INVLPG', 'INVLPG', 'handled', 'length'],
  rdpmc: [15, 'RDPMC', 'RDPMC', 'handled', 'length'],
  rdtsc: [16, 'RDTSC', 'RDTSC', 'length'],
  rsm: [17, 'RSM', '', 'length'],
  vmcall: [18, 'VMCALL', 'VMCALL', 'handled', 'length'],
  vmclear: [19, 'VMCLEAR', 'VMCLEAR', 'handled', 'length'],
  vmlaunch: [20, 'VMLAUNCH', 'VMLAUNCH', 'handled', 'length'],
  vmptrld: [21, 'VMPTRLD', 'VMPTRLD', 'handled', 'length'],
  vmptrst: [22, 'VMPTRST', 'VMPTRST', 'handled', 'length'],
  vmread: [23, 'VMREAD', 'VMREAD', 'handled', 'length'],
  vmresume: [24, 'VMRESUME', 'VMRESUME', 'handled', 'length'],
  vmwrite: [25, 'VMWRITE', 'VMWRITE', 'handled', 'length'],
  vmxoff: [26, 'VMXOFF', 'VMOFF', 'handled', 'length'],
  vmxon: [27, 'VMXON', 'VMON', 'handled', 'length'],
  crAccess: [28, 'Control-register accesses', 'CR_ACCESS', 'handled', 'length'],
  movDr: [29, 'MOV DR', 'DR_ACCESS', 'handled', 'length'],
  ioInstruction: [30, 'I/O instruction', 'IO_INSTRUCTION', 'handled', 'length'],
  rdmsr: [31, 'RDMSR', 'MSR_READ', 'handled', 'length'],
  wrmsr: [32, 'WRMSR', 'MSR_WRITE', 'handled', 'length'],
  invalidGuestState: [33, 'VM-entry failure due to invalid guest state', 'INVALID_STATE'],
  msrLoading: [34, 'VM-entry failure due to MSR loading', 'MSR_LOAD_FAIL'],
  undefined35: [35, '', '', 'undefined'],
  mwait: [36, 'MWAIT', 'MWAIT_INSTRUCTION', 'handled', 'length'],
  monitorTrapFlag: [37, 'Monitor trap flag', 'MONITOR_TRAP_FLAG', 'handled'],
  undefined38: [38, '', '', 'undefined'],
  monitor: [39, 'MONITOR', 'MONITOR_INSTRUCTION', 'handled', 'length'],
  pause: [40, 'PAUSE', 'PAUSE_INSTRUCTION', 'handled', 'length'],
  machineCheck: [41, 'VM-entry failure due to machine-check event', 'MCE_DURING_VMENTRY', 'handled'],
  undefined42: [42, '', '', 'undefined'],
  tprBelowThreshold: [43, 'TPR below threshold', 'TPR_BELOW_THRESHOLD', 'handled'],
  apicAccess: [44, 'APIC access', 'APIC_ACCESS', 'handled'],
  virtualizedEoi: [45, 'Virtualized EOI', 'EOI_INDUCED', 'handled'],
  gdtrIdtrAccess: [46, 'Access to GDTR or IDTR', 'GDTR_IDTR', 'handled', 'length'],
  ldtrTrAccess: [47, 'Access to LDTR or TR', 'LDTR_TR', 'handled', 'length'],
  eptViolation: [48, 'EPT violation', 'EPT_VIOLATION', 'handled'],
  eptMisconfiguration: [49, 'EPT misconfiguration', 'EPT_MISCONFIG', 'handled'],
  invept: [50, 'INVEPT', 'INVEPT', 'handled', 'length'],
  rdtscp: [51, 'RDTSCP', 'RDTSCP', 'length'],
  preemptionTimer: [52, 'VMX-preemption timer expired', 'PREEMPTION_TIMER', 'handled'],
  invvpid: [53, 'INVVPID', 'INVVPID', 'handled', 'length'],
  wbinvd: [54, 'WBINVD or WBNOINVD', 'WBINVD', 'handled', 'length'],
  xsetbv: [55, 'XSETBV', 'XSETBV', 'handled', 'length'],
  apicWrite: [56, 'APIC write', 'APIC_WRITE', 'handled'],
  rdrand: [57, 'RDRAND', 'RDRAND', 'handled', 'length'],
  invpcid: [58, 'INVPCID', 'INVPCID', 'handled', 'length'],
  vmfunc: [59, 'VMFUNC', 'VMFUNC', 'handled', 'length'],
  encls: [60, 'ENCLS', 'ENCLS', 'handled', 'length'],
  rdseed: [61, 'RDSEED', 'RDSEED', 'handled', 'length'],
  pageModificationLogFull: [62, 'Page-modification log full', 'PML_FULL', 'handled'],
  xsaves: [63, 'XSAVES', 'XSAVES', 'length'],
  xrstors: [64, 'XRSTORS', 'XRSTORS', 'length'],
  pconfig: [65, 'PCONFIG', '', 'undefined', 'length'],
  sppEvent: [66, 'SPP-related event', ''],
  umwait: [67, 'UMWAIT', 'UMWAIT', 'length'],
  tpause: [68, 'TPAUSE', 'TPAUSE', 'length'],
  loadiwkey: [69, 'LOADIWKEY', '', 'length'],
  enclv: [70, 'ENCLV', '', 'undefined', 'length'],
  undefined71: [71, '', '', 'undefined'],
  enqcmdPasid: [72, 'ENQCMD PASID translation failure', '', 'undefined'],
  enqcmdsPasid: [73, 'ENQCMDS PASID translation failure', '', 'undefined'],
  busLock: [74, 'Bus lock', 'BUS_LOCK', 'handled', 'undefined'],
  instructionTimeout: [75, 'Instruction timeout', 'NOTIFY', 'handled', 'undefined'],
  seamcall: [76, 'SEAMCALL', '', 'undefined', 'length'],
  tdcall: [77, 'TDCALL', '', 'undefined', 'length'],
  rdmsrlist: [78, 'RDMSRLIST', '', 'undefined', 'length'],
  wrmsrlist: [79, 'WRMSRLIST', '', 'undefined', 'length'],
} as const satisfies Record<string, readonly [number, string, string, ...Mark[]]>;

export type ExitName = keyof typeof ROWS;

/** Basic exit reason by name. */
export const EXIT = Object.fromEntries(Object.entries(ROWS).map(([name, row]) => [name, row[0]])) as {
  readonly [N in ExitName]: (typeof ROWS)[N][0];
};

/** All rows; the index is the exit reason. */
export const EXIT_REASONS: readonly (ExitReasonRow & { readonly name: ExitName })[] = Object.entries(
  ROWS,
).map(([name, [number, sdm, kvm, ...marks]]) => ({
  number,
  name: name as ExitName,
  sdm,
  kvm: kvm === '' ? undefined : kvm,
  handled: (marks as readonly Mark[]).includes('handled'),
  defined: !(marks as readonly Mark[]).includes('undefined'),
  length: (marks as readonly Mark[]).includes('length'),
}));
for (const [i, row] of EXIT_REASONS.entries()) {
  if (row.number !== i) throw new InvariantError(`exit reason ${row.number} is out of order`);
}

/** Bit 31 of the exit reason: the exit is a failed VM entry. */
export const ENTRY_FAILURE = 0x8000_0000;
