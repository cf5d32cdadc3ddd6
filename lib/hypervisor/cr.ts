/**
 * Control-register writes: the checks that raise #GP, the values that the hardware gets, and what the MMU must be told
 * (KVM-1.1, KVM-3.6; KVM's kvm_set_cr0, kvm_set_cr3, kvm_set_cr4 and vmx_set_cr0/4).
 *
 * Each setter returns false when the guest must get #GP(0). Of PAE paging the PDPTEs are loaded here (KVM's load_pdptrs):
 * into the VMCS with EPT, for the shadow MMU without it.
 */
import { CR0, CR4, EFER, SEG } from '../isa/state.js';
import { VMCS } from '../vmx/port.js';
import type { Vcpu } from './vcpu.js';

const CR0_DEFINED =
  CR0.pe | CR0.mp | CR0.em | CR0.ts | CR0.et | CR0.ne | CR0.wp | CR0.am | CR0.nw | CR0.cd | CR0.pg;
/** Bits of CR0 whose change loads the PDPTEs under PAE paging. */
const PDPTE_CR0 = CR0.cd | CR0.nw | CR0.pg;
const CR0_ROLE = CR0.pg | CR0.wp;
const CR4_ROLE = CR4.pse | CR4.pae | CR4.la57 | CR4.smep | CR4.smap | CR4.pke;
const CS_RIGHTS_L = 0x2000;

/** What the paging of the host does for the guest: two dimensions, and whether the guest may run without its own. */
export interface HostPaging {
  readonly ept: boolean;
  readonly unrestricted_guest: boolean;
}

/**
 * The real CR0: cache control never takes effect, NE always is set; only an unrestricted guest can be without paging,
 * and shadow paging needs write protection.
 */
export const hardwareCr0 = (guest: number, host: HostPaging): number =>
  ((guest & ~(CR0.cd | CR0.nw)) |
    CR0.ne |
    (host.unrestricted_guest ? 0 : CR0.pe | CR0.pg) |
    (host.ept ? 0 : CR0.wp)) >>>
  0;

/** What the read shadow shows of CR4: the guest's value. */
export const guestCr4 = (guest: number): number => guest >>> 0;

/**
 * The real CR4. MCE follows the host, which has it set. A guest without paging that is not unrestricted runs under a
 * page table of the hypervisor: shadow tables, or with EPT the identity map in 4 MiB pages.
 */
export const hardwareCr4 = (guest: number, host: HostPaging, cr0: number, hardwareUmip: boolean): number => {
  const paging = (cr0 & CR0.pg) !== 0;
  let cr4 = guest | CR4.vmxe | CR4.mce;
  if (!hardwareUmip) cr4 &= ~CR4.umip;
  if (!host.unrestricted_guest) {
    if (!host.ept) cr4 |= CR4.pae;
    else if (!paging) cr4 = (cr4 & ~CR4.pae) | CR4.pse;
    if (!paging) cr4 &= ~(CR4.smep | CR4.smap | CR4.pke);
  }
  return cr4 >>> 0;
};

/** Bits 2:1 and 8:5; those above the physical-address width are added. */
const PDPTE_RESERVED = 0x1e6n;

/** load_pdptrs: the four PDPTEs that `cr3` points at; false when that is no memory, or a present one has a reserved bit set. */
export const loadPdptes = (vcpu: Vcpu, cr3: number): boolean => {
  const table = cr3 - (cr3 % 32);
  if (vcpu.vm.slots.hpa(table) === undefined) return false;
  const entries = [0, 8, 16, 24].map((offset) => vcpu.vm.readPhysical(table + offset, 8));
  const reserved = PDPTE_RESERVED | (-1n << BigInt(vcpu.vm.cpuid.maxPhyAddr));
  if (entries.some((e) => (e & 1n) !== 0n && (e & reserved) !== 0n)) return false;
  vcpu.mmu.pdptesLoaded(vcpu.setPdptes(entries));
  return true;
};

/** PAE paging outside IA-32e mode, which keeps PDPTEs. */
export const paePaging = (cr0: number, cr4: number, efer: number): boolean =>
  (cr0 & CR0.pg) !== 0 && (cr4 & CR4.pae) !== 0 && (efer & EFER.lma) === 0;

export const setCr0 = (vcpu: Vcpu, value: bigint): boolean => {
  if (value >> 32n !== 0n) return false;
  const old = vcpu.cr0;
  const cr0 = ((Number(value) & CR0_DEFINED) | CR0.et) >>> 0;
  if ((cr0 & CR0.nw) !== 0 && (cr0 & CR0.cd) === 0) return false;
  if ((cr0 & CR0.pg) !== 0 && (cr0 & CR0.pe) === 0) return false;
  const pagingOn = (cr0 & CR0.pg) !== 0 && (old & CR0.pg) === 0;
  const pagingOff = (cr0 & CR0.pg) === 0 && (old & CR0.pg) !== 0;
  if (pagingOn) {
    if ((vcpu.efer & EFER.lme) !== 0) {
      if ((vcpu.cr4 & CR4.pae) === 0) return false;
      if ((vcpu.port.vmread32(VMCS.guestCsAccessRights) & CS_RIGHTS_L) !== 0) return false;
      vcpu.setEfer(vcpu.efer | EFER.lma);
    }
  }
  if (((old ^ cr0) & PDPTE_CR0) !== 0 && paePaging(cr0, vcpu.cr4, vcpu.efer) && !loadPdptes(vcpu, vcpu.cr3))
    return false;
  if (pagingOff) {
    if (vcpu.longCode || (vcpu.cr4 & CR4.pcide) !== 0) return false;
    vcpu.setEfer(vcpu.efer & ~EFER.lma);
  }
  vcpu.setCr0(cr0);
  if (((old ^ cr0) & CR0.pe) !== 0) vcpu.updateEmulation();
  if (pagingOff) vcpu.mmu.flushGuestTlb();
  if (((old ^ cr0) & CR0_ROLE) !== 0 && (!vcpu.ept || pagingOn || pagingOff)) vcpu.mmu.contextReset();
  return true;
};

/** LMSW: the low four bits, PE only set. */
export const lmsw = (vcpu: Vcpu, source: number): boolean => {
  const old = vcpu.cr0;
  return setCr0(vcpu, BigInt(((old & ~0xe) | (source & 0xf) | (old & CR0.pe)) >>> 0));
};

const NOFLUSH = 1n << 63n;

export const setCr3 = (vcpu: Vcpu, value: bigint): boolean => {
  let cr3 = value;
  let flush = true;
  if ((vcpu.cr4 & CR4.pcide) !== 0) {
    flush = (cr3 & NOFLUSH) === 0n;
    cr3 &= ~NOFLUSH;
  }
  if (!vcpu.longCode) cr3 = BigInt.asUintN(32, cr3);
  if (cr3 >> BigInt(vcpu.vm.cpuid.maxPhyAddr) !== 0n) return false;
  if (paePaging(vcpu.cr0, vcpu.cr4, vcpu.efer) && !loadPdptes(vcpu, Number(cr3))) return false;
  vcpu.setCr3(Number(cr3));
  vcpu.mmu.newCr3(flush);
  return true;
};

/** CR4 bits that the guest's CPUID lets it set. */
export const allowedCr4 = (vcpu: Vcpu): number => {
  const c = vcpu.vm.cpuid;
  const { vme, pvi, tsd, de, pse, pae, mce, pge, pce, osfxsr, osxmmexcpt } = CR4;
  return (
    vme |
    pvi |
    tsd |
    de |
    pse |
    pae |
    mce |
    pge |
    pce |
    osfxsr |
    osxmmexcpt |
    (c.has('umip') ? CR4.umip : 0) |
    (c.has('fsgsbase') ? CR4.fsgsbase : 0) |
    (c.has('pcid') ? CR4.pcide : 0) |
    (c.has('xsave') ? CR4.osxsave : 0) |
    (c.has('smep') ? CR4.smep : 0) |
    (c.has('smap') ? CR4.smap : 0)
  );
};

/** Bits of CR4 whose change loads the PDPTEs under PAE paging. */
const PDPTE_CHANGES = CR4.pae | CR4.pge | CR4.pse | CR4.smep;

export const setCr4 = (vcpu: Vcpu, value: bigint): boolean => {
  if (value >> 32n !== 0n) return false;
  const cr4 = Number(value);
  if ((cr4 & ~allowedCr4(vcpu)) !== 0) return false;
  const old = vcpu.cr4;
  const longMode = (vcpu.efer & EFER.lma) !== 0;
  if (longMode && (cr4 & CR4.pae) === 0) return false;
  const pcideOn = (cr4 & CR4.pcide) !== 0 && (old & CR4.pcide) === 0;
  const pcideOff = (cr4 & CR4.pcide) === 0 && (old & CR4.pcide) !== 0;
  if (pcideOn && (!longMode || vcpu.cr3 % 4096 !== 0)) return false;
  if (((old ^ cr4) & PDPTE_CHANGES) !== 0 && paePaging(vcpu.cr0, cr4, vcpu.efer)) {
    if (!loadPdptes(vcpu, vcpu.cr3)) return false;
  }
  vcpu.setCr4(cr4);
  const changed = old ^ cr4;
  if ((changed & CR4_ROLE) !== 0) vcpu.mmu.contextReset();
  if (!vcpu.ept && pcideOn) vcpu.mmu.unload();
  if ((changed & CR4.pge) !== 0 || pcideOff) vcpu.mmu.flushGuestTlb();
  else if ((changed & CR4.pae) !== 0 || ((cr4 & CR4.smep) !== 0 && (old & CR4.smep) === 0))
    vcpu.requestTlbFlush();
  return true;
};

/** WRMSR to IA32_EFER (KVM's set_efer). */
export const setEfer = (vcpu: Vcpu, value: bigint): boolean => {
  const c = vcpu.vm.cpuid;
  const allowed = EFER.sce | EFER.lme | EFER.lma | (c.has('nx') ? EFER.nxe : 0);
  if (value >> 32n !== 0n || (Number(value) & ~allowed) !== 0) return false;
  const old = vcpu.efer;
  const paging = (vcpu.cr0 & CR0.pg) !== 0;
  if (paging && ((Number(value) ^ old) & EFER.lme) !== 0) return false;
  const efer = (Number(value) & ~EFER.lma) | (old & EFER.lma);
  vcpu.setEfer(efer);
  if (((efer ^ old) & (EFER.nxe | EFER.lme)) !== 0) vcpu.mmu.contextReset();
  return true;
};

/** VMCS fields of a segment, by number (`SEG`). */
export const SEGMENT_FIELDS = [
  {
    selector: VMCS.guestEsSelector,
    base: VMCS.guestEsBase,
    limit: VMCS.guestEsLimit,
    rights: VMCS.guestEsAccessRights,
  },
  {
    selector: VMCS.guestCsSelector,
    base: VMCS.guestCsBase,
    limit: VMCS.guestCsLimit,
    rights: VMCS.guestCsAccessRights,
  },
  {
    selector: VMCS.guestSsSelector,
    base: VMCS.guestSsBase,
    limit: VMCS.guestSsLimit,
    rights: VMCS.guestSsAccessRights,
  },
  {
    selector: VMCS.guestDsSelector,
    base: VMCS.guestDsBase,
    limit: VMCS.guestDsLimit,
    rights: VMCS.guestDsAccessRights,
  },
  {
    selector: VMCS.guestFsSelector,
    base: VMCS.guestFsBase,
    limit: VMCS.guestFsLimit,
    rights: VMCS.guestFsAccessRights,
  },
  {
    selector: VMCS.guestGsSelector,
    base: VMCS.guestGsBase,
    limit: VMCS.guestGsLimit,
    rights: VMCS.guestGsAccessRights,
  },
  {
    selector: VMCS.guestLdtrSelector,
    base: VMCS.guestLdtrBase,
    limit: VMCS.guestLdtrLimit,
    rights: VMCS.guestLdtrAccessRights,
  },
  {
    selector: VMCS.guestTrSelector,
    base: VMCS.guestTrBase,
    limit: VMCS.guestTrLimit,
    rights: VMCS.guestTrAccessRights,
  },
] as const;
if (SEGMENT_FIELDS.length !== Object.keys(SEG).length)
  throw new Error('a segment register has no VMCS fields');
