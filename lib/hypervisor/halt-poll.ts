/**
 * What KVM counts about halted vCPUs (kvm_vcpu_halt, update_halt_poll_stats): how long they waited, and whether the host
 * would have polled that long before it slept. The polling time grows and shrinks with the waits.
 *
 * Accounting only: virtual time passes for a wait in the same way whether the host polls or sleeps.
 */
import type { KvmParams } from './params.js';
import type { KvmStats } from './stats.js';
import type { Sinks } from './tracer.js';

/** Buckets of a histogram: bucket n counts times of 2^(n-1) to 2^n - 1 nanoseconds, the last one all longer ones. */
export const HALT_BUCKETS = 32;

export interface HaltHistograms {
  readonly halt_poll_success_hist: number[];
  readonly halt_poll_fail_hist: number[];
  readonly halt_wait_hist: number[];
}

const empty = (): number[] => new Array<number>(HALT_BUCKETS).fill(0);

export class HaltPolling {
  readonly histograms: HaltHistograms = {
    halt_poll_success_hist: empty(),
    halt_poll_fail_hist: empty(),
    halt_wait_hist: empty(),
  };
  readonly #kvm: KvmParams;
  readonly #stats: KvmStats;
  readonly #sinks: Sinks;
  /** Nanoseconds for which the next halt polls. */
  #poll = 0;

  constructor(kvm: KvmParams, stats: KvmStats, sinks: Sinks) {
    this.#kvm = kvm;
    this.#stats = stats;
    this.#sinks = sinks;
  }

  /** A halted vCPU became runnable after `ns` nanoseconds. */
  woken(ns: number): void {
    const stats = this.#stats;
    const most = this.#kvm.halt_poll_ns;
    this.#poll = Math.min(this.#poll, most);
    const polls = this.#poll > 0;
    const waited = !polls || ns > this.#poll;
    if (waited) {
      const wait = ns - this.#poll;
      stats.halt_wakeup++;
      stats.halt_wait_ns += wait;
      count(this.histograms.halt_wait_hist, wait);
    }
    if (polls) {
      stats.halt_attempted_poll++;
      if (waited) {
        stats.halt_poll_fail_ns += this.#poll;
        count(this.histograms.halt_poll_fail_hist, this.#poll);
      } else {
        stats.halt_successful_poll++;
        stats.halt_poll_success_ns += ns;
        count(this.histograms.halt_poll_success_hist, ns);
      }
    }
    if (most === 0) this.#poll = 0;
    else if (ns > this.#poll) {
      if (polls && ns > most) this.#shrink();
      else if (this.#poll < most && ns < most) this.#grow();
    }
    this.#sinks.kvm_vcpu_wakeup?.({ ns, waited, valid: true });
  }

  #grow(): void {
    const { halt_poll_ns_grow: factor, halt_poll_ns_grow_start: start } = this.#kvm;
    if (factor !== 0) this.#set(Math.max(this.#poll * factor, start), true);
  }
  #shrink(): void {
    const { halt_poll_ns_shrink: divisor, halt_poll_ns_grow_start: start } = this.#kvm;
    const value = divisor === 0 ? 0 : Math.floor(this.#poll / divisor);
    this.#set(value < start ? 0 : value, false);
  }
  #set(value: number, grow: boolean): void {
    this.#sinks.kvm_halt_poll_ns?.({ grow, vcpu_id: 0, new: value, old: this.#poll });
    this.#poll = value;
  }
}

const count = (histogram: number[], ns: number): void => {
  histogram[Math.min(HALT_BUCKETS - 1, ns < 1 ? 0 : Math.floor(Math.log2(ns)) + 1)]++;
};
