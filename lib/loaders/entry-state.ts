/**
 * The processor state at the first guest instruction, in plain numbers: what the hypervisor puts into the VMCS and its
 * stub registers. Segment attributes have the VMX access-rights format (bit 16 = unusable).
 */
export interface EntrySegment {
  readonly selector: number;
  readonly base: bigint;
  /** In bytes, granularity applied. */
  readonly limit: number;
  /** Type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16. */
  readonly attr: number;
}

export interface EntryTable {
  readonly base: bigint;
  readonly limit: number;
}

export interface EntryState {
  /** 16 general registers in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8 … R15. */
  readonly gprs: readonly bigint[];
  readonly rip: bigint;
  readonly rflags: number;
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  readonly segments: Readonly<Record<'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'ldtr' | 'tr', EntrySegment>>;
  readonly gdtr: EntryTable;
  readonly idtr: EntryTable;
  /** MSRs that the monitor sets before the first entry: index and value. */
  readonly msrs: readonly (readonly [index: number, value: bigint])[];
}

/** Bytes to be copied into guest-physical memory. */
export interface Segment {
  readonly gpa: number;
  readonly bytes: Uint8Array;
  /** What it is, for messages and reports. */
  readonly what: string;
}

/** A guest ready to be put into a machine. */
export interface LoadedGuest {
  readonly segments: readonly Segment[];
  readonly entry: EntryState;
}
