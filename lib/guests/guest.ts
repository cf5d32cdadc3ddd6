/**
 * What a guest brings to a machine: the memory it is loaded into, the state it starts in, and what it is called.
 */
import type { EntryState } from '../loaders/entry-state.js';
import type { SymbolTable } from '../loaders/symbols.js';

export interface GuestImage {
  readonly name: string;
  /** Provenance for reports: package versions and hashes, one line each. */
  readonly about: readonly string[];
  readonly cmdline: string;
  readonly segments: readonly { readonly gpa: number; readonly bytes: Uint8Array }[];
  readonly entry: EntryState;
  /** Names of the guest's code, read when first asked for. @throws LabError where the image has none */
  readonly symbols?: () => SymbolTable;
}

/** What the user may change about a Linux guest. */
export interface LinuxGuestOptions {
  /** Bytes of guest memory. */
  readonly memory: number;
  /** A shell script that the guest runs between its two readings of the exit leaves. */
  readonly workload?: string;
  /** Replaces the command line that the guest brings. */
  readonly cmdline?: string;
  /** Added to the command line. */
  readonly append?: string;
  /** Boots an interactive shell on the serial console instead of the lab's script. */
  readonly shell?: boolean;
}
