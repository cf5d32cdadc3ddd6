/**
 * VM-entry checks on the guest-state area, except segment registers.
 *
 * SDM volume 3, "Checks on the Guest State Area". Violation: exit 33, with a qualification of 2 (PDPTE) or 4 (VMCS link
 * pointer) where the SDM defines one. An NMI may be injected while STI blocks. Entry to and from SMM does not exist here.
 */
import { CR0, EFER } from '../isa/state.js';
import { CR0_FIXED0, CR4_FIXED0, CR4_FIXED1, REVISION_ID } from './capabilities.js';
import {
  type CheckRow,
  type CheckView,
  clear,
  NOT_CANONICAL,
  PHYSICAL_HIGH,
  set,
  TOO_WIDE,
} from './checks.js';
import { badPat, canonicalRow, EFER_DEFINED } from './checks-host.js';
import { SEGMENT_CHECKS } from './checks-segments.js';
import { ENTRY_CONTROL, PIN, SECONDARY } from './controls.js';
import { type FieldName, ROW } from './fields.js';

const long = (v: CheckView): boolean => v.entry(ENTRY_CONTROL.ia32eModeGuest);
const loadsDebug = (v: CheckView): boolean => v.entry(ENTRY_CONTROL.loadDebugControls);
const loadsEfer = (v: CheckView): boolean => v.entry(ENTRY_CONTROL.loadEfer);
const paging = (v: CheckView): boolean => v.any(ROW.guestCr0, CR0.pg);
const noLong = clear(ENTRY_CONTROL.ia32eModeGuest);
/** Bits of IA32_DEBUGCTL that exist: LBR, BTF. */
const DEBUGCTL_DEFINED = 3;

const REGISTER_CHECKS: readonly CheckRow[] = [
  {
    id: 'guestCr0.fixed',
    topic: 'guestRegisters',
    says: 'CR0 must have NE set (and PE and PG, without unrestricted guest), and bits 63:32 clear',
    fails: (v) => {
      const fixed = v.unrestricted ? CR0.ne : CR0_FIXED0;
      return (v.lo(ROW.guestCr0) & fixed) >>> 0 !== fixed || v.hi(ROW.guestCr0) !== 0;
    },
    example: { guestCr0: clear(CR0.ne) },
  },
  {
    id: 'guestCr0.pgWithoutPe',
    topic: 'guestRegisters',
    says: 'CR0.PG needs CR0.PE',
    when: paging,
    fails: (v) => !v.any(ROW.guestCr0, CR0.pe),
    example: { guestCr0: clear(CR0.pe) },
  },
  {
    id: 'guestCr4.fixed',
    topic: 'guestRegisters',
    says: 'CR4 must have VMXE set, and no bit that the processor does not support',
    fails: (v) =>
      !v.any(ROW.guestCr4, CR4_FIXED0) || v.any(ROW.guestCr4, ~CR4_FIXED1) || v.hi(ROW.guestCr4) !== 0,
    example: { guestCr4: clear(CR4_FIXED0) },
  },
  {
    id: 'guestDebugctl.reserved',
    topic: 'guestRegisters',
    says: 'a DEBUGCTL to be loaded must not have reserved bits',
    when: loadsDebug,
    fails: (v) => v.any(ROW.guestDebugctl, ~DEBUGCTL_DEFINED) || v.hi(ROW.guestDebugctl) !== 0,
    example: { guestDebugctl: 4n },
  },
  {
    id: 'ia32e.paging',
    topic: 'guestRegisters',
    says: 'an IA-32e mode guest must have CR0.PG and CR4.PAE set',
    when: long,
    fails: (v) => !paging(v) || !v.any(ROW.guestCr4, 0x20),
    example: { guestCr4: clear(0x20) },
  },
  {
    id: 'ia32e.pcide',
    topic: 'guestRegisters',
    says: 'CR4.PCIDE needs an IA-32e mode guest',
    when: (v) => !long(v),
    fails: (v) => v.any(ROW.guestCr4, 0x2_0000),
    example: { entryControls: noLong, guestCr4: set(0x2_0000) },
  },
  {
    id: 'guestCr3.width',
    topic: 'guestRegisters',
    says: 'CR3 must not have bits beyond the physical-address width',
    fails: (v) => v.hi(ROW.guestCr3) >= PHYSICAL_HIGH,
    example: { guestCr3: TOO_WIDE },
  },
  {
    id: 'guestDr7.reserved',
    topic: 'guestRegisters',
    says: 'bits 63:32 of a DR7 to be loaded must be 0',
    when: loadsDebug,
    fails: (v) => v.hi(ROW.guestDr7) !== 0,
    example: { guestDr7: 1n << 32n },
  },
  canonicalRow('guestSysenterEsp', 'guestRegisters'),
  canonicalRow('guestSysenterEip', 'guestRegisters'),
  {
    id: 'guestPat.types',
    topic: 'guestRegisters',
    says: 'each byte of a PAT to be loaded must be a memory type',
    when: (v) => v.entry(ENTRY_CONTROL.loadPat),
    fails: (v) => badPat(v.lo(ROW.guestPat), v.hi(ROW.guestPat)),
    example: { guestPat: 3n },
  },
  {
    id: 'guestEfer.reserved',
    topic: 'guestRegisters',
    says: 'an EFER to be loaded must not have reserved bits',
    when: loadsEfer,
    fails: (v) => v.any(ROW.guestEfer, ~EFER_DEFINED) || v.hi(ROW.guestEfer) !== 0,
    example: { guestEfer: set(2) },
  },
  {
    id: 'guestEfer.lma',
    topic: 'guestRegisters',
    says: 'LMA of an EFER to be loaded must equal the IA-32e mode guest control, and LME too when CR0.PG is set',
    when: loadsEfer,
    fails: (v) => {
      const efer = v.lo(ROW.guestEfer);
      const lma = (efer & EFER.lma) !== 0;
      return lma !== long(v) || (paging(v) && ((efer & EFER.lme) !== 0) !== lma);
    },
    example: { guestEfer: clear(EFER.lma) },
  },
];

const limit = (field: FieldName): CheckRow => ({
  id: `${field}.reserved`,
  topic: 'guestTables',
  says: `bits 31:16 of ${field} must be 0`,
  fails: (
    (row) => (v: CheckView) =>
      v.lo(row) > 0xffff
  )(ROW[field]),
  example: { [field]: 0x1_0000n },
});

// the event to be injected, if any
const info = (v: CheckView): number => v.lo(ROW.entryInterruptionInfo);
const injects = (v: CheckView): boolean => (info(v) & 0x8000_0000) !== 0;
const injectsType = (v: CheckView, type: number): boolean => injects(v) && ((info(v) >>> 8) & 7) === type;
const EXTERNAL = 0x8000_0020n;
const NMI = 0x8000_0202n;

const RIP_CHECKS: readonly CheckRow[] = [
  {
    id: 'guestRip.upper',
    topic: 'guestRip',
    says: 'outside 64-bit mode bits 63:32 of RIP must be 0',
    when: (v) => !long(v) || !v.any(ROW.guestCsAccessRights, 0x2000),
    fails: (v) => v.hi(ROW.guestRip) !== 0,
    example: { guestCsAccessRights: clear(0x2000), guestRip: 1n << 32n },
  },
  {
    id: 'guestRip.canonical',
    topic: 'guestRip',
    says: 'in 64-bit mode RIP must be canonical',
    when: (v) => long(v) && v.any(ROW.guestCsAccessRights, 0x2000),
    fails: (v) => !v.canonical(ROW.guestRip),
    example: { guestRip: NOT_CANONICAL },
  },
  {
    id: 'guestRflags.reserved',
    topic: 'guestRip',
    says: 'bits 63:22, 15, 5 and 3 of RFLAGS must be 0, and bit 1 must be 1',
    fails: (v) => (v.lo(ROW.guestRflags) & 0xffc0_802a) !== 2 || v.hi(ROW.guestRflags) !== 0,
    example: { guestRflags: set(8) },
  },
  {
    id: 'guestRflags.vm',
    topic: 'guestRip',
    says: 'RFLAGS.VM must be 0 for an IA-32e mode guest and in real mode',
    when: (v) => long(v) || !v.any(ROW.guestCr0, CR0.pe),
    fails: (v) => v.virtual8086,
    example: { guestRflags: set(0x2_0000) },
  },
  {
    id: 'guestRflags.if',
    topic: 'guestRip',
    says: 'RFLAGS.IF must be 1 when an external interrupt is injected',
    when: (v) => injectsType(v, 0),
    fails: (v) => !v.any(ROW.guestRflags, 0x200),
    example: { entryInterruptionInfo: EXTERNAL, guestRflags: clear(0x200) },
  },
];

const blocking = (v: CheckView): number => v.lo(ROW.guestInterruptibilityState);
const activity = (v: CheckView): number => v.lo(ROW.guestActivityState);

/** Events that wake a halted processor: interrupts, NMI, #DB, #MC, pending MTF. */
const wakesHlt = (v: CheckView): boolean => {
  const type = (info(v) >>> 8) & 7;
  const vector = info(v) & 0xff;
  return type === 0 || type === 2 || type === 7 || (type === 3 && (vector === 1 || vector === 18));
};

/** Pending #DB for a single step must agree with RFLAGS.TF and DEBUGCTL.BTF. */
const singleStep = (v: CheckView): boolean => v.any(ROW.guestRflags, 0x100) && !v.any(ROW.guestDebugctl, 2);
const stepMatters = (v: CheckView): boolean => (blocking(v) & 3) !== 0 || activity(v) === 1;

const STATE_CHECKS: readonly CheckRow[] = [
  {
    id: 'activity.defined',
    topic: 'guestState',
    says: 'the activity state must be 0 to 3',
    fails: (v) => activity(v) > 3,
    example: { guestActivityState: 4n },
  },
  {
    id: 'activity.hltPrivilege',
    topic: 'guestState',
    says: 'the activity state must not be HLT when DPL of SS is not 0',
    when: (v) => activity(v) === 1,
    fails: (v) => v.any(ROW.guestSsAccessRights, 0x60),
    example: { guestActivityState: 1n, guestSsAccessRights: set(0x60) },
  },
  {
    id: 'activity.blocking',
    topic: 'guestState',
    says: 'blocking by STI or MOV SS needs the active state',
    when: (v) => (blocking(v) & 3) !== 0,
    fails: (v) => activity(v) !== 0,
    example: { guestInterruptibilityState: 2n, guestActivityState: 1n },
  },
  {
    id: 'activity.injectionHlt',
    topic: 'guestState',
    says: 'into HLT only interrupts, NMIs, #DB, #MC and pending MTF may be injected',
    when: (v) => injects(v) && activity(v) === 1,
    fails: (v) => !wakesHlt(v),
    example: { entryInterruptionInfo: 0x8000_0306n, guestActivityState: 1n },
  },
  {
    id: 'activity.injectionShutdown',
    topic: 'guestState',
    says: 'into shutdown only NMIs and #MC may be injected',
    when: (v) => injects(v) && activity(v) === 2,
    fails: (v) => (info(v) & 0x7ff) !== 0x202 && (info(v) & 0x7ff) !== 0x312,
    example: { entryInterruptionInfo: EXTERNAL, guestActivityState: 2n },
  },
  {
    id: 'activity.injectionSipi',
    topic: 'guestState',
    says: 'into wait-for-SIPI nothing may be injected',
    when: injects,
    fails: (v) => activity(v) === 3,
    example: { entryInterruptionInfo: EXTERNAL, guestActivityState: 3n },
  },
  {
    id: 'interruptibility.reserved',
    topic: 'guestState',
    says: 'bits 31:4 of the interruptibility state must be 0 (there are no enclaves)',
    fails: (v) => (blocking(v) & 0xffff_fff0) !== 0,
    example: { guestInterruptibilityState: 0x10n },
  },
  {
    id: 'interruptibility.both',
    topic: 'guestState',
    says: 'blocking by STI and by MOV SS exclude each other',
    fails: (v) => (blocking(v) & 3) === 3,
    example: { guestInterruptibilityState: 3n },
  },
  {
    id: 'interruptibility.sti',
    topic: 'guestState',
    says: 'blocking by STI needs RFLAGS.IF',
    when: (v) => (blocking(v) & 1) !== 0,
    fails: (v) => !v.any(ROW.guestRflags, 0x200),
    example: { guestInterruptibilityState: 1n, guestRflags: clear(0x200) },
  },
  {
    id: 'interruptibility.external',
    topic: 'guestState',
    says: 'an external interrupt must not be injected while STI or MOV SS block',
    when: (v) => injectsType(v, 0),
    fails: (v) => (blocking(v) & 3) !== 0,
    example: { entryInterruptionInfo: EXTERNAL, guestInterruptibilityState: 1n },
  },
  {
    id: 'interruptibility.nmiMovSs',
    topic: 'guestState',
    says: 'an NMI must not be injected while MOV SS blocks',
    when: (v) => injectsType(v, 2),
    fails: (v) => (blocking(v) & 2) !== 0,
    example: { entryInterruptionInfo: NMI, guestInterruptibilityState: 2n },
  },
  {
    id: 'interruptibility.smi',
    topic: 'guestState',
    says: 'blocking by SMI must be 0 outside SMM',
    fails: (v) => (blocking(v) & 4) !== 0,
    example: { guestInterruptibilityState: 4n },
  },
  {
    id: 'interruptibility.nmiVirtual',
    topic: 'guestState',
    says: 'with virtual NMIs, an NMI must not be injected while NMIs are blocked',
    when: (v) => injectsType(v, 2) && v.pin(PIN.virtualNmis),
    fails: (v) => (blocking(v) & 8) !== 0,
    example: { entryInterruptionInfo: NMI, guestInterruptibilityState: 8n },
  },
  {
    id: 'pendingDebug.reserved',
    topic: 'guestState',
    says: 'bits 11:4, 13 and 63:15 of the pending debug exceptions must be 0',
    fails: (v) =>
      v.any(ROW.guestPendingDebugExceptions, 0xffff_aff0) || v.hi(ROW.guestPendingDebugExceptions) !== 0,
    example: { guestPendingDebugExceptions: 0x10n },
  },
  {
    id: 'pendingDebug.stepMissing',
    topic: 'guestState',
    says: 'while STI, MOV SS or HLT hold events, BS must be pending when single-stepping (TF, not BTF)',
    when: stepMatters,
    fails: (v) => singleStep(v) && !v.any(ROW.guestPendingDebugExceptions, 0x4000),
    example: { guestInterruptibilityState: 2n, guestRflags: set(0x100) },
  },
  {
    id: 'pendingDebug.stepExtra',
    topic: 'guestState',
    says: 'while STI, MOV SS or HLT hold events, BS must not be pending unless single-stepping',
    when: stepMatters,
    fails: (v) => !singleStep(v) && v.any(ROW.guestPendingDebugExceptions, 0x4000),
    example: { guestInterruptibilityState: 2n, guestPendingDebugExceptions: 0x4000n },
  },
];

const linked = (v: CheckView): boolean =>
  v.lo(ROW.vmcsLinkPointer) !== 0xffff_ffff || v.hi(ROW.vmcsLinkPointer) !== 0xffff_ffff;

const LINK_CHECKS: readonly CheckRow[] = [
  {
    id: 'link.aligned',
    topic: 'guestLink',
    says: 'a VMCS link pointer other than all ones must have bits 11:0 clear and fit the physical-address width',
    when: linked,
    fails: (v) => !v.physical(ROW.vmcsLinkPointer, 12),
    qualification: 4,
    example: { vmcsLinkPointer: 0x10n },
  },
  {
    id: 'link.revision',
    topic: 'guestLink',
    says: 'the VMCS that the link pointer names must have the revision identifier, and no shadow indicator',
    when: linked,
    volatile: true,
    fails: (v) => {
      const at = v.number(ROW.vmcsLinkPointer);
      return at % 4096 !== 0 || !v.ram.has(at, 4096) || v.ram.read32(at) !== REVISION_ID;
    },
    qualification: 4,
    example: { vmcsLinkPointer: 0n },
  },
  {
    id: 'link.current',
    topic: 'guestLink',
    says: 'the VMCS link pointer must not name the current VMCS',
    when: linked,
    fails: (v) => v.number(ROW.vmcsLinkPointer) === v.fields.current?.hpa,
    qualification: 4,
    example: { vmcsLinkPointer: 0x1000n },
  },
];

const pae = (v: CheckView): boolean => paging(v) && v.any(ROW.guestCr4, 0x20) && !long(v);
/** A present PDPTE with reserved bits: 2:1, 8:5 and those beyond the physical-address width. */
const badPdpte = (lo: number, hi: number): boolean =>
  (lo & 1) !== 0 && ((lo & 0x1e6) !== 0 || hi >= PHYSICAL_HIGH);

const PDPTE_CHECKS: readonly CheckRow[] = [
  ...([0, 1, 2, 3] as const).map(
    (i): CheckRow => ({
      id: `pdpte${i}.reserved`,
      topic: 'guestPdptes',
      says: `PDPTE${i} of a PAE guest under EPT must not have reserved bits if it is present`,
      when: (v) => pae(v) && v.ept,
      fails: (
        (row) => (v: CheckView) =>
          badPdpte(v.lo(row), v.hi(row))
      )(ROW[`guestPdpte${i}`]),
      qualification: 2,
      example: { entryControls: noLong, [`guestPdpte${i}`]: 0x7n },
    }),
  ),
  {
    id: 'pdptes.memory',
    topic: 'guestPdptes',
    says: 'without EPT, the PDPTEs that CR3 of a PAE guest points at must not have reserved bits if present',
    when: (v) => pae(v) && !v.ept,
    volatile: true,
    fails: (v) => {
      const at = v.lo(ROW.guestCr3) & ~31;
      for (let i = 0; i < 4; i++) {
        const entry = at + 8 * i;
        if (v.ram.has(entry, 8) && badPdpte(v.ram.read32(entry), v.ram.read32(entry + 4))) return true;
      }
      return false;
    },
    qualification: 2,
    example: {
      entryControls: noLong,
      secondaryControls: clear(SECONDARY.enableEpt | SECONDARY.unrestrictedGuest),
      guestCr3: 0x8000n,
    },
    exampleMemory: { 32768: 7n },
  },
];

export const GUEST_CHECKS: readonly CheckRow[] = [
  ...REGISTER_CHECKS,
  ...SEGMENT_CHECKS,
  canonicalRow('guestGdtrBase', 'guestTables'),
  canonicalRow('guestIdtrBase', 'guestTables'),
  limit('guestGdtrLimit'),
  limit('guestIdtrLimit'),
  ...RIP_CHECKS,
  ...STATE_CHECKS,
  ...LINK_CHECKS,
  ...PDPTE_CHECKS,
];
