/**
 * What the exit handlers ask of a guest's MMU; `tdp.ts` (ept=1) and `shadow.ts` (ept=0) answer.
 * Names and results are those of KVM's mmu.c. Callers count the results of `pageFault` and the calls of `invlpg`;
 * everything else of the statistics is counted here.
 */
import type { PhysicalMemory } from '../../vmx/port.js';
import type { FrameAllocator, MemorySlots } from '../memslots.js';
import type { KvmStats } from '../stats.js';
import type { Tracer } from '../tracer.js';

/** Result of `pageFault`, with KVM's meaning: pf_fixed, pf_emulate, pf_spurious, pf_guest (a fault for the guest was queued), retry. */
export type PageFaultResult = 'fixed' | 'emulate' | 'spurious' | 'guest' | 'retry';

/** A fault to inject into the guest. */
export interface GuestPageFault {
  readonly code: number;
  readonly address: bigint;
}

/** What the MMU may ask of its vCPU. Everything is read when needed, nothing is cached here. */
export interface MmuVcpu {
  readonly cr0: number;
  /** Guest CR3, PCID bits included, bit 63 clear. Below 2^53. */
  readonly cr3: number;
  readonly cr4: number;
  readonly efer: number;
  readonly cpl: number;
  readonly rflags: number;
  readonly rip: bigint;
  /** PDPTE 0 to 3 of PAE paging, as loaded with CR3. */
  pdpte(i: number): bigint;
  /** Queues #PF for injection and sets CR2. */
  injectPageFault(fault: GuestPageFault): void;
  /** VMWRITE of GUEST_CR3 (root and PCID) or EPTP (root, memory type, walk length, A/D). */
  setRoot(root: number): void;
  /** KVM_REQ_TLB_FLUSH_CURRENT: flush this VPID (or EPTP) before the next entry; counted in `tlb_flush`. */
  requestTlbFlush(): void;
  /** Flush one address of this VPID now (INVVPID type 0), or everything when no address is given. */
  flushAddress(gva: bigint): void;
  /** Flush everything of this VPID now (INVVPID type 1): a shadow root has been loaded. Not counted in `tlb_flush`. */
  flushVpid(): void;
}

/** Module parameters and properties of the machine that the MMU depends on. */
export interface MmuOptions {
  /** EPT accessed and dirty flags (kvm_intel.eptad). */
  readonly eptad: boolean;
  /** kvm.tdp_mmu: one EPT leaf a violation; off: the older direct MMU, which fills aligned groups of 8. */
  readonly tdpMmu: boolean;
  /** kvm.nx_huge_pages: 2 MiB leaves are not executable. */
  readonly nxHugePages: boolean;
  /** Width of guest-physical addresses, in bits; 40 when absent. */
  readonly maxPhyAddr?: number;
  /** 1 GiB pages in the guest's CPUID; true when absent (KVM offers them with ept=0). */
  readonly gbPages?: boolean;
  /** The page that the in-kernel local APIC answers is never mapped nor cached; true when absent. */
  readonly apicAccessPage?: boolean;
  /** kvm.mmio_caching: MMIO entries stand for MMIO pages; true when absent. */
  readonly mmioCaching?: boolean;
}

export interface MmuDeps {
  readonly memory: PhysicalMemory;
  readonly frames: FrameAllocator;
  readonly slots: MemorySlots;
  readonly vcpu: MmuVcpu;
  readonly stats: KvmStats;
  readonly options: MmuOptions;
  /** Who listens; nobody when absent. */
  readonly trace?: Tracer;
}

export interface KvmMmu {
  /**
   * Before every entry, and before pending TLB flushes are serviced: handles sync and reload requests, loads a root if
   * none is valid (kvm_mmu_reload). False when the guest's CR3 is not in its memory: KVM_REQ_TRIPLE_FAULT, no entry.
   * @throws LabError for 5-level paging
   */
  reload(): boolean;
  /**
   * EPT violation (address is a gpa) or #PF exit (address is a gva), with an error code of page-fault format.
   */
  pageFault(address: number | bigint, code: number): PageFaultResult;
  /** Reserved-bit #PF or EPT misconfiguration: the gpa if an MMIO entry is there and current, else undefined (fault normally). */
  mmioAddress(address: number | bigint): number | undefined;
  /** MOV to CR3 after the architectural checks, when `vcpu.cr3` has the new value. @param flush false when bit 63 was set with CR4.PCIDE */
  newCr3(flush: boolean): void;
  /** The PDPTEs of PAE paging were loaded. @param changed one of them has another value (KVM's load_pdptrs) */
  pdptesLoaded(changed: boolean): void;
  invlpg(gva: bigint): void;
  /** INVPCID; the descriptor has been checked. */
  invpcid(type: 0 | 1 | 2 | 3, pcid: number, gva: bigint): void;
  /** CR0.PG/WP, CR4.PSE/PAE/SMEP/SMAP/PKE, EFER.NX/LME changed: a new role. */
  contextReset(): void;
  /** CR4.PGE toggled, or PCIDE cleared: flush the guest's whole TLB. */
  flushGuestTlb(): void;
  /** CR4.PCIDE 0→1: all roots dropped. */
  unload(): void;
  /**
   * Called by the emulator for each store to guest memory (kvm_page_track_write), after the bytes were written.
   */
  pteWrite(gpa: number, value: bigint, bytes: number): void;
  /** An instruction that is not page-table writing faulted on a tracked page: unshadow and say whether to retry it. */
  unprotectAndRetry(gva: bigint, rip: bigint): boolean;
  /** A fault hit while an event was being delivered: unshadow the gfn of the address (KVM-7.1.16). */
  faultDuringDelivery(gva: bigint): void;
  /** Software walk for the emulator: the gpa, or the fault for the guest. Sets A/D as the hardware does. @param access error-code bits W, U, I */
  gvaToGpa(gva: bigint, access: number): number | GuestPageFault;
  /** Drops everything: VM teardown or slot removal. */
  zapAll(): void;
  /** Gauges and sizes for `kvmStats` and tests. */
  readonly pages: {
    readonly shadow: number;
    readonly unsync: number;
    readonly p4k: number;
    readonly p2m: number;
    readonly p1g: number;
  };
}
