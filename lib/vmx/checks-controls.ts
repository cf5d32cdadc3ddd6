/**
 * VM-entry checks on the VM-execution, VM-exit and VM-entry control fields.
 *
 * SDM volume 3, "Checks on VMX Controls". Violation: VMfailValid(7). Rules of controls that the processor does not
 * offer have no row: the reserved-bits rule of the word fails first.
 */

import { CR3_TARGETS, MSR_LIST_LIMIT } from './capabilities.js';
import { type CheckRow, type CheckView, clear, PHYSICAL_HIGH, set, TOO_WIDE, type Topic } from './checks.js';
import { allowed, EXIT_CONTROL, PIN, PROC, SECONDARY, type WordName } from './controls.js';
import { type FieldName, ROW } from './fields.js';

/** Reserved bits of a control word. */
const word = (
  name: WordName,
  field: FieldName,
  topic: Topic,
  when?: (v: CheckView) => boolean,
): CheckRow[] => {
  const { mustBe1, mayBe1 } = allowed(name);
  const row = ROW[field];
  const zeros = ~mayBe1 >>> 0;
  const rows: CheckRow[] = [
    {
      id: `${name}.reserved0`,
      topic,
      says: `reserved and absent bits of the ${name} controls must be 0`,
      fails: (v) => v.any(row, zeros),
      example: { [field]: set(zeros & -zeros) },
    },
  ];
  if (mustBe1 !== 0) {
    rows.push({
      id: `${name}.reserved1`,
      topic,
      says: `reserved bits of the ${name} controls that must be 1 must be 1`,
      fails: (v) => (v.lo(row) & mustBe1) >>> 0 !== mustBe1,
      example: { [field]: clear(mustBe1 & -mustBe1) },
    });
  }
  return when === undefined ? rows : rows.map((r) => ({ ...r, when }));
};

/** A physical address: aligned to 2^bits and within the physical-address width. */
const address = (
  id: string,
  topic: Topic,
  field: FieldName,
  bits: number,
  when: (v: CheckView) => boolean,
): CheckRow[] => {
  const row = ROW[field];
  return [
    {
      id: `${id}.aligned`,
      topic,
      says: `${field} must have bits ${bits - 1}:0 clear`,
      when,
      fails: (v) => v.any(row, (1 << bits) - 1),
      example: { [field]: set(1 << (bits - 1)) },
    },
    {
      id: `${id}.width`,
      topic,
      says: `${field} must not have bits beyond the physical-address width`,
      when,
      fails: (v) => v.hi(row) >= PHYSICAL_HIGH,
      example: { [field]: set(TOO_WIDE) },
    },
  ];
};

/** An MSR list: its address matters only when it has entries. */
const list = (id: string, topic: Topic, field: FieldName, count: FieldName): CheckRow[] => {
  const at = ROW[field];
  const n = ROW[count];
  return [
    ...address(id, topic, field, 4, (v) => v.lo(n) !== 0).map((r) => ({
      ...r,
      example: { ...r.example, [count]: 1n },
    })),
    {
      id: `${id}.end`,
      topic,
      says: 'the last byte of the list must not be beyond the physical-address width',
      when: (v) => v.lo(n) !== 0,
      fails: (v) => (v.number(at) + 16 * v.lo(n) - 1) / 0x1_0000_0000 >= PHYSICAL_HIGH,
      example: { [field]: TOO_WIDE - 16n, [count]: 2n },
    },
    {
      id: `${id}.count`,
      topic,
      says: `lists of more than ${MSR_LIST_LIMIT} entries are refused (the SDM leaves them undefined)`,
      fails: (v) => v.lo(n) > MSR_LIST_LIMIT,
      example: { [count]: BigInt(MSR_LIST_LIMIT + 1) },
    },
  ];
};

const useTpr = (v: CheckView): boolean => v.proc(PROC.useTprShadow);
const vpr = (v: CheckView): number => {
  const page = v.number(ROW.virtualApicAddress);
  return v.ram.has(page + 0x80) ? v.ram.read8(page + 0x80) >> 4 : 15;
};

export const EXECUTION_CHECKS: readonly CheckRow[] = [
  ...word('pin', 'pinBasedControls', 'execution'),
  ...word('proc', 'procBasedControls', 'execution'),
  ...word('secondary', 'secondaryControls', 'execution', (v) => v.proc(PROC.activateSecondaryControls)),
  {
    id: 'cr3Targets.count',
    topic: 'execution',
    says: `the CR3-target count must not be greater than ${CR3_TARGETS}`,
    fails: (v) => v.lo(ROW.cr3TargetCount) > CR3_TARGETS,
    example: { cr3TargetCount: BigInt(CR3_TARGETS + 1) },
  },
  ...address('ioBitmapA', 'execution', 'ioBitmapA', 12, (v) => v.proc(PROC.useIoBitmaps)),
  ...address('ioBitmapB', 'execution', 'ioBitmapB', 12, (v) => v.proc(PROC.useIoBitmaps)),
  ...address('msrBitmap', 'execution', 'msrBitmap', 12, (v) => v.proc(PROC.useMsrBitmaps)),
  ...address('virtualApic', 'execution', 'virtualApicAddress', 12, useTpr),
  {
    id: 'tprThreshold.reserved',
    topic: 'execution',
    says: 'bits 31:4 of the TPR threshold must be 0',
    when: useTpr,
    fails: (v) => v.any(ROW.tprThreshold, 0xffff_fff0),
    example: { tprThreshold: 0x10n },
  },
  {
    id: 'tprThreshold.value',
    topic: 'execution',
    says: 'the TPR threshold must not be above bits 7:4 of the virtual TPR, unless APIC accesses are virtualized',
    when: (v) => v.any(ROW.tprThreshold, 15) && useTpr(v) && !v.secondary(SECONDARY.virtualizeApicAccesses),
    volatile: true,
    fails: (v) => (v.lo(ROW.tprThreshold) & 15) > vpr(v),
    example: { tprThreshold: 15n, secondaryControls: clear(SECONDARY.virtualizeApicAccesses) },
  },
  {
    id: 'tprShadow.x2apic',
    topic: 'execution',
    says: 'virtualize x2APIC mode needs the TPR shadow',
    when: (v) => !useTpr(v),
    fails: (v) => v.secondary(SECONDARY.virtualizeX2apicMode),
    example: {
      procBasedControls: clear(PROC.useTprShadow),
      secondaryControls: set(SECONDARY.virtualizeX2apicMode),
    },
  },
  {
    id: 'virtualNmis.nmiExiting',
    topic: 'execution',
    says: 'virtual NMIs need NMI exiting',
    when: (v) => !v.pin(PIN.nmiExiting),
    fails: (v) => v.pin(PIN.virtualNmis),
    example: { pinBasedControls: clear(PIN.nmiExiting) },
  },
  {
    id: 'nmiWindow.virtualNmis',
    topic: 'execution',
    says: 'NMI-window exiting needs virtual NMIs',
    when: (v) => !v.pin(PIN.virtualNmis),
    fails: (v) => v.proc(PROC.nmiWindowExiting),
    example: { pinBasedControls: clear(PIN.virtualNmis), procBasedControls: set(PROC.nmiWindowExiting) },
  },
  ...address('apicAccess', 'execution', 'apicAccessAddress', 12, (v) =>
    v.secondary(SECONDARY.virtualizeApicAccesses),
  ).map((r) => ({
    ...r,
    example: {
      ...r.example,
      secondaryControls: (valid: bigint) =>
        (valid | BigInt(SECONDARY.virtualizeApicAccesses)) & ~BigInt(SECONDARY.virtualizeX2apicMode),
    },
  })),
  {
    id: 'x2apic.apicAccesses',
    topic: 'execution',
    says: 'virtualize x2APIC mode and virtualize APIC accesses exclude each other',
    when: (v) => v.secondary(SECONDARY.virtualizeX2apicMode),
    fails: (v) => v.secondary(SECONDARY.virtualizeApicAccesses),
    example: { secondaryControls: set(SECONDARY.virtualizeX2apicMode | SECONDARY.virtualizeApicAccesses) },
  },
  {
    id: 'vpid.zero',
    topic: 'execution',
    says: 'with VPIDs enabled, the VPID must not be 0000H',
    when: (v) => v.secondary(SECONDARY.enableVpid),
    fails: (v) => v.lo(ROW.virtualProcessorId) === 0,
    example: { virtualProcessorId: 0n },
  },
  {
    id: 'eptp.memoryType',
    topic: 'execution',
    says: 'bits 2:0 of the EPTP must be 6 (write-back), the only memory type offered',
    when: (v) => v.ept,
    fails: (v) => (v.lo(ROW.eptPointer) & 7) !== 6,
    example: { eptPointer: clear(6) },
  },
  {
    id: 'eptp.walkLength',
    topic: 'execution',
    says: 'bits 5:3 of the EPTP must be 3, one less than a walk of 4',
    when: (v) => v.ept,
    fails: (v) => (v.lo(ROW.eptPointer) & 0x38) !== 0x18,
    example: { eptPointer: (valid) => (valid & ~0x38n) | 0x20n },
  },
  {
    id: 'eptp.reserved',
    topic: 'execution',
    says: 'bits 11:7 of the EPTP and those beyond the physical-address width must be 0',
    when: (v) => v.ept,
    fails: (v) => v.any(ROW.eptPointer, 0xf80) || v.hi(ROW.eptPointer) >= PHYSICAL_HIGH,
    example: { eptPointer: set(0x80) },
  },
  {
    id: 'unrestricted.ept',
    topic: 'execution',
    says: 'unrestricted guest needs EPT',
    when: (v) => v.unrestricted,
    fails: (v) => !v.ept,
    example: {
      secondaryControls: (valid) =>
        (valid | BigInt(SECONDARY.unrestrictedGuest)) & ~BigInt(SECONDARY.enableEpt),
    },
  },
];

export const EXIT_CHECKS: readonly CheckRow[] = [
  ...word('exit', 'exitControls', 'exit'),
  {
    id: 'preemptionTimer.save',
    topic: 'exit',
    says: 'saving the preemption timer needs the timer to be active',
    when: (v) => !v.pin(PIN.activatePreemptionTimer),
    fails: (v) => v.exit(EXIT_CONTROL.savePreemptionTimer),
    example: {
      pinBasedControls: clear(PIN.activatePreemptionTimer),
      exitControls: set(EXIT_CONTROL.savePreemptionTimer),
    },
  },
  ...list('exitMsrStore', 'exit', 'exitMsrStoreAddress', 'exitMsrStoreCount'),
  ...list('exitMsrLoad', 'exit', 'exitMsrLoadAddress', 'exitMsrLoadCount'),
];

// parts of the VM-entry interruption-information field
const VALID = 0x8000_0000;
const info = (v: CheckView): number => v.lo(ROW.entryInterruptionInfo);
const injects = (v: CheckView): boolean => (info(v) & VALID) !== 0;
const typeOf = (v: CheckView): number => (info(v) >>> 8) & 7;
const vectorOf = (v: CheckView): number => info(v) & 0xff;
const delivers = (v: CheckView): boolean => (info(v) & 0x800) !== 0;
/** Exceptions with an error code: #DF #TS #NP #SS #GP #PF #AC. */
const WITH_CODE = (1 << 8) | (1 << 10) | (1 << 11) | (1 << 12) | (1 << 13) | (1 << 14) | (1 << 17);
/** The guest will be in protected mode: errors codes exist only there. */
const protectedMode = (v: CheckView): boolean => !v.unrestricted || v.any(ROW.guestCr0, 1);
const mustDeliver = (v: CheckView): boolean =>
  protectedMode(v) && typeOf(v) === 3 && vectorOf(v) < 32 && ((WITH_CODE >>> vectorOf(v)) & 1) === 1;
const software = (v: CheckView): boolean => injects(v) && typeOf(v) >= 4 && typeOf(v) <= 6;

export const ENTRY_CHECKS: readonly CheckRow[] = [
  ...word('entry', 'entryControls', 'entry'),
  ...list('entryMsrLoad', 'entry', 'entryMsrLoadAddress', 'entryMsrLoadCount'),
  {
    id: 'injection.type',
    topic: 'injection',
    says: 'the interruption type must not be 1 (reserved)',
    when: injects,
    fails: (v) => typeOf(v) === 1,
    example: { entryInterruptionInfo: 0x8000_0120n },
  },
  {
    id: 'injection.nmiVector',
    topic: 'injection',
    says: 'an NMI must have vector 2',
    when: (v) => injects(v) && typeOf(v) === 2,
    fails: (v) => vectorOf(v) !== 2,
    example: { entryInterruptionInfo: 0x8000_0203n },
  },
  {
    id: 'injection.exceptionVector',
    topic: 'injection',
    says: 'a hardware exception must have a vector of at most 31',
    when: (v) => injects(v) && typeOf(v) === 3,
    fails: (v) => vectorOf(v) > 31,
    example: { entryInterruptionInfo: 0x8000_0320n },
  },
  {
    id: 'injection.otherVector',
    topic: 'injection',
    says: 'an other event must have vector 0 (pending MTF)',
    when: (v) => injects(v) && typeOf(v) === 7,
    fails: (v) => vectorOf(v) !== 0,
    example: { entryInterruptionInfo: 0x8000_0701n },
  },
  {
    id: 'injection.errorCode.missing',
    topic: 'injection',
    says: 'an exception that pushes an error code in protected mode must deliver one',
    when: injects,
    fails: (v) => mustDeliver(v) && !delivers(v),
    example: { entryInterruptionInfo: 0x8000_030dn },
  },
  {
    id: 'injection.errorCode.extra',
    topic: 'injection',
    says: 'only an exception that pushes an error code, in protected mode, may deliver one',
    when: injects,
    fails: (v) => !mustDeliver(v) && delivers(v),
    example: { entryInterruptionInfo: 0x8000_0b06n },
  },
  {
    id: 'injection.reserved',
    topic: 'injection',
    says: 'bits 30:12 of the interruption information must be 0',
    when: injects,
    fails: (v) => (info(v) & 0x7fff_f000) !== 0,
    example: { entryInterruptionInfo: 0x8000_1020n },
  },
  {
    id: 'injection.errorCode.reserved',
    topic: 'injection',
    says: 'bits 31:16 of a delivered error code must be 0',
    when: (v) => injects(v) && delivers(v),
    fails: (v) => v.lo(ROW.entryExceptionErrorCode) > 0xffff,
    example: { entryInterruptionInfo: 0x8000_0b0en, entryExceptionErrorCode: 0x1_0000n },
  },
  {
    id: 'injection.length',
    topic: 'injection',
    says: 'a software interrupt or exception must have an instruction length of 1 to 15',
    when: software,
    fails: (v) => v.lo(ROW.entryInstructionLength) < 1 || v.lo(ROW.entryInstructionLength) > 15,
    example: { entryInterruptionInfo: 0x8000_0603n, entryInstructionLength: 0n },
  },
];

export const CONTROL_CHECKS: readonly CheckRow[] = [...EXECUTION_CHECKS, ...EXIT_CHECKS, ...ENTRY_CHECKS];
