/** What the run loop does after an exit has been handled. */

/** Why a run ended. */
export type OutcomeKind =
  | 'poweroff'
  | 'reset'
  | 'halt'
  | 'until'
  | 'limit'
  | 'triple-fault'
  /** The guest wrote to the debug-exit port; `status` has its exit status. */
  | 'debug-exit'
  | 'interrupted'
  | 'entry-failure'
  | 'emulation-failure';

export interface Outcome {
  readonly kind: OutcomeKind;
  /** What a person wants to know: the instruction, the rule that an entry broke. */
  readonly detail?: string;
  /** Of `debug-exit`: `(value << 1) | 1`, 32 bits. */
  readonly status?: number;
}

/** A handler never resumes by itself: the guest goes on, or the run ends. */
export type Next = { readonly to: 'guest' } | { readonly to: 'user'; readonly outcome: Outcome };

/** KVM_EXIT_IO and KVM_EXIT_MMIO: what the monitor has to do. */
export const USER_EXIT = { io: 2, mmio: 6 } as const;

/** The guest goes on. */
export const RESUME: Next = { to: 'guest' };

export const stop = (kind: OutcomeKind, detail?: string): Next => ({
  to: 'user',
  outcome: detail === undefined ? { kind } : { kind, detail },
});
