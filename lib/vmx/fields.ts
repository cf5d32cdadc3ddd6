/**
 * The fields of a VMCS: one row a field, encodings computed from width, kind and index.
 *
 * SDM volume 3, appendix "Field Encoding in VMCS". Columns beside the encoding: the control without which the field
 * does not exist (`needs`, a name of `controls.ts`), and for guest state the place in the processor state (`at`) that
 * holds the value while the VMCS is current and entered, so that VM entry and exit copy nothing.
 *
 * The access-type bit 0 ("high" half of a 64-bit field) is accepted by VMREAD and VMWRITE for 64-bit fields; rows
 * carry the full encoding.
 */
import { InvariantError } from '../base/error.js';
import { S, SEG } from '../isa/state.js';

/** A field encoding as VMREAD and VMWRITE take it. */
export type FieldEncoding = number;

export const WIDTHS = { u16: 0, u64: 1, u32: 2, nat: 3 } as const;
export const KINDS = { control: 0, info: 1, guest: 2, host: 3 } as const;
export type FieldWidth = keyof typeof WIDTHS;
export type FieldKind = keyof typeof KINDS;

/** Computes a field encoding. @param index bits 9:1 of the encoding */
export const encode = (width: FieldWidth, kind: FieldKind, index: number): FieldEncoding =>
  (WIDTHS[width] << 13) | (KINDS[kind] << 10) | (index << 1);

interface Columns {
  /** Offset in the processor state (`S`). */
  readonly at?: number;
  /** A control that must be offered for the field to exist. */
  readonly needs?: string;
}
interface Declared extends Columns {
  readonly encoding: FieldEncoding;
  readonly width: FieldWidth;
  readonly kind: FieldKind;
}

const of =
  (width: FieldWidth, kind: FieldKind) =>
  (index: number, columns: Columns = {}): Declared => ({
    encoding: encode(width, kind, index),
    width,
    kind,
    ...columns,
  });
const c16 = of('u16', 'control');
const g16 = of('u16', 'guest');
const h16 = of('u16', 'host');
const c64 = of('u64', 'control');
const i64 = of('u64', 'info');
const g64 = of('u64', 'guest');
const h64 = of('u64', 'host');
const c32 = of('u32', 'control');
const i32 = of('u32', 'info');
const g32 = of('u32', 'guest');
const h32 = of('u32', 'host');
const cN = of('nat', 'control');
const iN = of('nat', 'info');
const gN = of('nat', 'guest');
const hN = of('nat', 'host');
const live = (at: number): Columns => ({ at });
const needs = (control: string): Columns => ({ needs: control });
const selector = (index: number, seg: number): Declared => g16(index, live(S.segSel + 4 * seg));
const limit = (index: number, seg: number): Declared => g32(index, live(S.segLimit + 4 * seg));
const rights = (index: number, seg: number): Declared => g32(index, live(S.segAttr + 4 * seg));
const base = (index: number, seg: number): Declared => gN(index, live(S.segBase + 8 * seg));

const ROWS = {
  // 16-bit control fields
  virtualProcessorId: c16(0, needs('enableVpid')),
  postedInterruptVector: c16(1, needs('processPostedInterrupts')),
  eptpIndex: c16(2, needs('eptViolationVe')),
  hlatPrefixSize: c16(3, needs('enableHlat')),
  lastPidPointerIndex: c16(4, needs('ipiVirtualization')),
  // 16-bit guest-state fields
  guestEsSelector: selector(0, SEG.es),
  guestCsSelector: selector(1, SEG.cs),
  guestSsSelector: selector(2, SEG.ss),
  guestDsSelector: selector(3, SEG.ds),
  guestFsSelector: selector(4, SEG.fs),
  guestGsSelector: selector(5, SEG.gs),
  guestLdtrSelector: selector(6, SEG.ldtr),
  guestTrSelector: selector(7, SEG.tr),
  guestInterruptStatus: g16(8, needs('virtualInterruptDelivery')),
  pmlIndex: g16(9, needs('enablePml')),
  guestUinv: g16(10, needs('loadUinv')),
  // 16-bit host-state fields
  hostEsSelector: h16(0),
  hostCsSelector: h16(1),
  hostSsSelector: h16(2),
  hostDsSelector: h16(3),
  hostFsSelector: h16(4),
  hostGsSelector: h16(5),
  hostTrSelector: h16(6),
  // 64-bit control fields
  ioBitmapA: c64(0),
  ioBitmapB: c64(1),
  msrBitmap: c64(2, needs('useMsrBitmaps')),
  exitMsrStoreAddress: c64(3),
  exitMsrLoadAddress: c64(4),
  entryMsrLoadAddress: c64(5),
  executiveVmcsPointer: c64(6),
  pmlAddress: c64(7, needs('enablePml')),
  tscOffset: c64(8),
  virtualApicAddress: c64(9, needs('useTprShadow')),
  apicAccessAddress: c64(10, needs('virtualizeApicAccesses')),
  postedInterruptDescriptorAddress: c64(11, needs('processPostedInterrupts')),
  vmFunctionControls: c64(12, needs('enableVmFunctions')),
  eptPointer: c64(13, needs('enableEpt')),
  eoiExitBitmap0: c64(14, needs('virtualInterruptDelivery')),
  eoiExitBitmap1: c64(15, needs('virtualInterruptDelivery')),
  eoiExitBitmap2: c64(16, needs('virtualInterruptDelivery')),
  eoiExitBitmap3: c64(17, needs('virtualInterruptDelivery')),
  eptpListAddress: c64(18, needs('enableVmFunctions')),
  vmreadBitmap: c64(19, needs('vmcsShadowing')),
  vmwriteBitmap: c64(20, needs('vmcsShadowing')),
  virtualizationExceptionAddress: c64(21, needs('eptViolationVe')),
  xssExitingBitmap: c64(22, needs('enableXsaves')),
  enclsExitingBitmap: c64(23, needs('enclsExiting')),
  sppTablePointer: c64(24, needs('subPageWritePermissions')),
  tscMultiplier: c64(25, needs('useTscScaling')),
  tertiaryControls: c64(26, needs('activateTertiaryControls')),
  enclvExitingBitmap: c64(27, needs('enclvExiting')),
  lowPasidDirectory: c64(28, needs('pasidTranslation')),
  highPasidDirectory: c64(29, needs('pasidTranslation')),
  sharedEptPointer: c64(30, needs('tdx')),
  pconfigExitingBitmap: c64(31, needs('enablePconfig')),
  hlatPointer: c64(32, needs('enableHlat')),
  pidPointerTableAddress: c64(33, needs('ipiVirtualization')),
  secondaryExitControls: c64(34, needs('activateSecondaryExitControls')),
  specCtrlMask: c64(37, needs('virtualizeSpecCtrl')),
  specCtrlShadow: c64(38, needs('virtualizeSpecCtrl')),
  // 64-bit read-only data field
  guestPhysicalAddress: i64(0, needs('enableEpt')),
  // 64-bit guest-state fields
  vmcsLinkPointer: g64(0),
  guestDebugctl: g64(1),
  guestPat: g64(2, needs('loadPat')),
  guestEfer: g64(3, needs('loadEfer')),
  guestPerfGlobalCtrl: g64(4, needs('loadPerfGlobalCtrl')),
  guestPdpte0: g64(5, { at: S.pdpte + 0, needs: 'enableEpt' }),
  guestPdpte1: g64(6, { at: S.pdpte + 8, needs: 'enableEpt' }),
  guestPdpte2: g64(7, { at: S.pdpte + 16, needs: 'enableEpt' }),
  guestPdpte3: g64(8, { at: S.pdpte + 24, needs: 'enableEpt' }),
  guestBndcfgs: g64(9, needs('loadBndcfgs')),
  guestRtitCtl: g64(10, needs('loadRtitCtl')),
  guestLbrCtl: g64(11, needs('loadLbrCtl')),
  guestPkrs: g64(12, needs('loadPkrs')),
  // 64-bit host-state fields
  hostPat: h64(0, needs('loadHostPat')),
  hostEfer: h64(1, needs('loadHostEfer')),
  hostPerfGlobalCtrl: h64(2, needs('loadHostPerfGlobalCtrl')),
  hostPkrs: h64(3, needs('loadHostPkrs')),
  // 32-bit control fields
  pinBasedControls: c32(0),
  procBasedControls: c32(1),
  exceptionBitmap: c32(2),
  pageFaultErrorCodeMask: c32(3),
  pageFaultErrorCodeMatch: c32(4),
  cr3TargetCount: c32(5),
  exitControls: c32(6),
  exitMsrStoreCount: c32(7),
  exitMsrLoadCount: c32(8),
  entryControls: c32(9),
  entryMsrLoadCount: c32(10),
  entryInterruptionInfo: c32(11),
  entryExceptionErrorCode: c32(12),
  entryInstructionLength: c32(13),
  tprThreshold: c32(14, needs('useTprShadow')),
  secondaryControls: c32(15, needs('activateSecondaryControls')),
  pleGap: c32(16, needs('pauseLoopExiting')),
  pleWindow: c32(17, needs('pauseLoopExiting')),
  instructionTimeout: c32(18, needs('instructionTimeout')),
  // 32-bit read-only data fields
  vmInstructionError: i32(0),
  exitReason: i32(1),
  exitInterruptionInfo: i32(2),
  exitInterruptionErrorCode: i32(3),
  idtVectoringInfo: i32(4),
  idtVectoringErrorCode: i32(5),
  exitInstructionLength: i32(6),
  exitInstructionInfo: i32(7),
  // 32-bit guest-state fields
  guestEsLimit: limit(0, SEG.es),
  guestCsLimit: limit(1, SEG.cs),
  guestSsLimit: limit(2, SEG.ss),
  guestDsLimit: limit(3, SEG.ds),
  guestFsLimit: limit(4, SEG.fs),
  guestGsLimit: limit(5, SEG.gs),
  guestLdtrLimit: limit(6, SEG.ldtr),
  guestTrLimit: limit(7, SEG.tr),
  guestGdtrLimit: g32(8, live(S.gdtrLimit)),
  guestIdtrLimit: g32(9, live(S.idtrLimit)),
  guestEsAccessRights: rights(10, SEG.es),
  guestCsAccessRights: rights(11, SEG.cs),
  guestSsAccessRights: rights(12, SEG.ss),
  guestDsAccessRights: rights(13, SEG.ds),
  guestFsAccessRights: rights(14, SEG.fs),
  guestGsAccessRights: rights(15, SEG.gs),
  guestLdtrAccessRights: rights(16, SEG.ldtr),
  guestTrAccessRights: rights(17, SEG.tr),
  guestInterruptibilityState: g32(18, live(S.interruptibility)),
  guestActivityState: g32(19, live(S.activity)),
  guestSmbase: g32(20),
  guestSysenterCs: g32(21, live(S.sysenterCs)),
  vmxPreemptionTimerValue: g32(23, needs('activatePreemptionTimer')),
  // 32-bit host-state field
  hostSysenterCs: h32(0),
  // natural-width control fields
  cr0GuestHostMask: cN(0),
  cr4GuestHostMask: cN(1),
  cr0ReadShadow: cN(2),
  cr4ReadShadow: cN(3),
  cr3Target0: cN(4),
  cr3Target1: cN(5),
  cr3Target2: cN(6),
  cr3Target3: cN(7),
  // natural-width read-only data fields
  exitQualification: iN(0),
  ioRcx: iN(1),
  ioRsi: iN(2),
  ioRdi: iN(3),
  ioRip: iN(4),
  guestLinearAddress: iN(5),
  // natural-width guest-state fields
  guestCr0: gN(0, live(S.cr0)),
  guestCr3: gN(1, live(S.cr3)),
  guestCr4: gN(2, live(S.cr4)),
  guestEsBase: base(3, SEG.es),
  guestCsBase: base(4, SEG.cs),
  guestSsBase: base(5, SEG.ss),
  guestDsBase: base(6, SEG.ds),
  guestFsBase: base(7, SEG.fs),
  guestGsBase: base(8, SEG.gs),
  guestLdtrBase: base(9, SEG.ldtr),
  guestTrBase: base(10, SEG.tr),
  guestGdtrBase: gN(11, live(S.gdtrBase)),
  guestIdtrBase: gN(12, live(S.idtrBase)),
  guestDr7: gN(13),
  guestRsp: gN(14, live(S.gpr + 4 * 8)),
  guestRip: gN(15, live(S.rip)),
  guestRflags: gN(16, live(S.eflags)),
  guestPendingDebugExceptions: gN(17, live(S.pendingDebug)),
  guestSysenterEsp: gN(18, live(S.sysenterEsp)),
  guestSysenterEip: gN(19, live(S.sysenterEip)),
  guestSCet: gN(20, needs('loadCet')),
  guestSsp: gN(21, needs('loadCet')),
  guestInterruptSspTable: gN(22, needs('loadCet')),
  // natural-width host-state fields
  hostCr0: hN(0),
  hostCr3: hN(1),
  hostCr4: hN(2),
  hostFsBase: hN(3),
  hostGsBase: hN(4),
  hostTrBase: hN(5),
  hostGdtrBase: hN(6),
  hostIdtrBase: hN(7),
  hostSysenterEsp: hN(8),
  hostSysenterEip: hN(9),
  hostRsp: hN(10),
  hostRip: hN(11),
  hostSCet: hN(12, needs('loadHostCet')),
  hostSsp: hN(13, needs('loadHostCet')),
  hostInterruptSspTable: hN(14, needs('loadHostCet')),
} satisfies Record<string, Declared>;

export type FieldName = keyof typeof ROWS;
export interface FieldRow extends Declared {
  readonly name: FieldName;
  /** Row number: the index into the typed arrays of a VMCS. */
  readonly row: number;
}

/** All rows, in order of row number. */
export const FIELDS: readonly FieldRow[] = Object.entries(ROWS).map(([name, declared], row) => ({
  ...(declared as Declared),
  name: name as FieldName,
  row,
}));

/** Field encodings by name: what the hypervisor passes to VMREAD and VMWRITE. */
export const VMCS = Object.fromEntries(FIELDS.map((f) => [f.name, f.encoding])) as Readonly<
  Record<FieldName, FieldEncoding>
>;

/** Row numbers by name: how the VMX unit itself names fields. */
export const ROW = Object.fromEntries(FIELDS.map((f) => [f.name, f.row])) as Readonly<
  Record<FieldName, number>
>;

/** Row number by encoding (15 bits), -1 where no field is; the high half of a 64-bit field is not in it. */
export const ROW_OF_ENCODING = new Int16Array(0x8000).fill(-1);
for (const f of FIELDS) {
  if (ROW_OF_ENCODING[f.encoding] !== -1)
    throw new InvariantError(`two VMCS fields have encoding ${f.encoding}`);
  ROW_OF_ENCODING[f.encoding] = f.row;
}

/** The row of an encoding, or undefined. */
export const fieldOf = (encoding: FieldEncoding): FieldRow | undefined =>
  FIELDS[ROW_OF_ENCODING[encoding] ?? -1];
