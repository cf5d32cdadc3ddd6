/**
 * The run loop of a vCPU (KVM's vcpu_run, vcpu_enter_guest): requests, timers, injection, VM entry; then count, charge,
 * decode and handle the exit.
 *
 * Virtual time: the local APIC timer is the preemption timer while the guest runs, every other device deadline and the
 * host tick is a host timer interrupt; HLT skips to the next deadline. In `timeModel: 'instructions'` nothing is
 * charged. Page walks are charged at the exit that follows them, before the exit's own time begins.
 */
import { ENTRY_FAILURE, EXIT, VMCS } from '../vmx/port.js';
import { deliverAsyncPf } from './async-pf.js';
import { interruptAllowed } from './events.js';
import { decodeExit } from './exits.js';
import { handle } from './handlers/index.js';
import { emulateInvalidState } from './invalid-state.js';
import type { Outcome } from './next.js';
import type { KvmIntelParams } from './params.js';
import { collectPvEoi, offerPvEoi } from './pv.js';
import { registerDump } from './register-dump.js';
import { traceEntry, traceExit } from './trace-hooks.js';
import type { Vm } from './vm.js';

export interface RunOptions {
  /** Retired instructions, in total, at which the run ends. */
  readonly limit?: number;
  /** Asked after each exit; true ends the run. */
  readonly until?: () => boolean;
}

/** LOCAL_TIMER_VECTOR of Linux. */
const HOST_TIMER_VECTOR = 0xec;
const SOFT_DISABLED = 0xffff_ffff;
const NONE = -1;
/** So many exits without a completed instruction end the run: a real host would go round for ever. */
const STALLED_EXITS = 200_000;

/** shrink_ple_window: 0 stands for the initial window, less than it divides, more is taken off. */
const shrunkWindow = (window: number, params: KvmIntelParams): number => {
  const { ple_window: least, ple_window_shrink: shrink } = params;
  if (shrink < 1) return least;
  return Math.max(least, shrink < least ? Math.floor(window / shrink) : window - shrink);
};

export class Runner {
  readonly #vm: Vm;
  #launched = false;
  /** The run ended in the middle of guest execution: the next one goes on without a new entry. */
  #inGuest = false;
  /** Reason and time of the exit being handled. */
  #reason = NONE;
  #exitAt = 0;
  #references = 0;
  /** When the vCPU began to wait in a halt. */
  #blockedAt = NONE;
  /** Retired instructions at the last exit that found more of them, and exits since. */
  #progress = NONE;
  #stalled = 0;
  /** An interrupt was pending at the last entry. */
  #waiting = false;
  #nextTick = Number.POSITIVE_INFINITY;
  /** Values in force, so that they are only written when they change. */
  #preemption = NONE;
  #hostDeadline: number | undefined;

  constructor(vm: Vm) {
    this.#vm = vm;
    if (vm.tickCycles > 0) this.#nextTick = vm.tickCycles;
  }

  run(options: RunOptions): Outcome {
    const vm = this.#vm;
    const { vcpu, port, stats } = vm;
    const { sinks } = vm.trace;
    const { counts } = vm.hypervisor;
    const limit = options.limit ?? Number.POSITIVE_INFINITY;
    for (;;) {
      if (!this.#inGuest) {
        if (vm.pendingStop !== undefined) return this.#stopped(vm.pendingStop);
        vm.queue.runDue();
        if (vcpu.asyncPfDone) {
          // a vCPU with something in its queue is runnable, whether it can take it or not
          this.#runnable();
          deliverAsyncPf(vcpu);
        }
        if (vcpu.halted && !this.#awake()) {
          if (this.#skipIdle()) continue;
          return { kind: 'halt', detail: 'no event can wake the halted vCPU' };
        }
        this.#prepare();
        if (vcpu.events.tripleFault) {
          for (const line of registerDump(vcpu)) vm.log.print(`kvm: ${line}`);
          return { kind: 'triple-fault', detail: `at rip 0x${vcpu.rip.toString(16)}` };
        }
        if (this.#reason !== NONE) {
          counts.handled(this.#reason, port.rdtsc() - this.#exitAt);
          this.#reason = NONE;
        }
        if (sinks.kvm_entry !== undefined) traceEntry(vcpu, sinks.kvm_entry);
      }
      if (vcpu.emulationRequired) {
        const outcome = emulateInvalidState(vcpu, limit);
        if (outcome !== undefined) return outcome;
        if (vm.pendingStop !== undefined) return this.#stopped(vm.pendingStop);
        if (options.until?.() === true) return { kind: 'until' };
        continue;
      }
      const entered = port.enter(this.#launched ? 'vmresume' : 'vmlaunch', limit);
      if ('limit' in entered) {
        this.#inGuest = true;
        return { kind: 'limit' };
      }
      this.#inGuest = false;
      if ('fail' in entered) return { kind: 'entry-failure', detail: port.describeVmcs() };
      const reason = entered.exit & 0xffff;
      stats.exits++;
      counts.exit(reason);
      this.#reason = reason;
      this.#noteExit(reason);
      vm.onExit?.(reason);
      if (sinks.kvm_exit !== undefined) traceExit(vcpu, sinks.kvm_exit, entered.exit);
      if (!vm.instructionTime) port.charge(vm.costs.byReason[reason]);
      if (entered.exit >>> 0 >= ENTRY_FAILURE) return this.#failed();
      this.#launched = true;

      if (vcpu.debugRegistersLoaded) vcpu.syncDebugRegisters();
      vcpu.events.complete(port, port.vmread32(VMCS.idtVectoringInfo));
      vm.apic.fromPage();
      if (vcpu.pvEoiPending) collectPvEoi(vcpu);
      const next = handle(vcpu, decodeExit(port, reason));
      if (next.to === 'user') return next.outcome;
      if (vm.pendingStop !== undefined) return this.#stopped(vm.pendingStop);
      if (options.until?.() === true) return { kind: 'until' };
      if (port.retired() !== this.#progress) {
        this.#progress = port.retired();
        this.#stalled = 0;
      } else if (++this.#stalled >= STALLED_EXITS) {
        const detail = `${STALLED_EXITS} VM exits in a row, the last for reason ${reason}, and no instruction completed at rip 0x${vcpu.rip.toString(16)}`;
        return { kind: 'limit', detail };
      }
    }
  }

  /** Requests, root, event, timers. */
  #prepare(): void {
    const { vcpu, port, controls, stats, board, apic } = this.#vm;
    vcpu.events.immediateExit = false;
    if (vcpu.mmu.reload() === false) vcpu.events.tripleFault = true;
    if (vcpu.flushRequested) vcpu.serviceTlbFlush();
    const waiting = board.interruptSource() !== 'none';
    if (vcpu.eventRequested || (waiting && !this.#waiting)) stats.req_event++;
    this.#waiting = waiting;
    if (
      waiting ||
      vcpu.eventRequested ||
      vcpu.events.exceptionPending ||
      vcpu.events.nmiPending ||
      vcpu.events.reinjecting
    ) {
      vcpu.events.inject(port, controls, this.#source, stats, this.#vm.trace.sinks);
      vcpu.eventRequested = vcpu.events.immediateExit;
      apic.updateThreshold();
      if (waiting || vcpu.pvEoiMsr !== 0n) offerPvEoi(vcpu);
    }
    if (vcpu.pleWindowDirty) {
      vcpu.pleWindowDirty = false;
      port.vmwrite32(VMCS.pleWindow, vcpu.pleWindow);
    }
    this.#armTimers();
  }
  readonly #source = {
    hasInterrupt: (): boolean => this.#vm.board.interruptSource() !== 'none',
    acknowledge: (): number => {
      const { board, stats } = this.#vm;
      // reading the 8259 raises KVM_REQ_EVENT again: the injection is cancelled before the entry and redone
      if (board.interruptSource() === 'pic') stats.irq_injections++;
      return board.acknowledge();
    },
  };

  #armTimers(): void {
    const vm = this.#vm;
    const { port, queue, created } = vm;
    const now = queue.now();
    if (vm.preemptionTimer) {
      const { deadline } = vm.lapicTimer;
      let value = SOFT_DISABLED;
      if (deadline !== Number.POSITIVE_INFINITY) {
        const unit = 2 ** vm.timerShift;
        value = Math.max(
          0,
          Math.min(SOFT_DISABLED, (deadline + created) / unit - Math.floor((now + created) / unit)),
        );
      }
      if (vm.vcpu.events.immediateExit) value = 0;
      if (value !== this.#preemption) {
        this.#preemption = value;
        port.vmwrite32(VMCS.vmxPreemptionTimerValue, value);
      }
    }
    if (this.#nextTick <= now)
      this.#nextTick += Math.ceil((now - this.#nextTick + 1) / vm.tickCycles) * vm.tickCycles;
    const earliest = Math.min(queue.next() ?? Number.POSITIVE_INFINITY, this.#nextTick);
    const deadline = earliest === Number.POSITIVE_INFINITY ? undefined : earliest + created;
    if (deadline !== this.#hostDeadline) {
      this.#hostDeadline = deadline;
      port.hostTimer(deadline, HOST_TIMER_VECTOR);
    }
  }

  /** A halted vCPU wakes for an interrupt that it can take, or an NMI. */
  #awake(): boolean {
    const { vcpu, port, board } = this.#vm;
    const wakes = vcpu.events.nmiPending || (board.interruptSource() !== 'none' && interruptAllowed(port));
    if (!wakes) return false;
    this.#runnable();
    return true;
  }
  /** Ends the halt, if there is one. */
  #runnable(): void {
    const { vcpu, stats, halts, queue } = this.#vm;
    vcpu.halted = false;
    if (this.#blockedAt === NONE) return;
    halts.woken(Math.round(((queue.now() - this.#blockedAt) / queue.rate) * 1e9));
    this.#blockedAt = NONE;
    stats.blocking = 0;
  }
  /** Lets time pass to the next deadline of a device; false when nothing will ever happen. */
  #skipIdle(): boolean {
    const { queue, port } = this.#vm;
    const next = this.#vm.nextDeadline();
    if (next === Number.POSITIVE_INFINITY || !interruptAllowed(port)) return false;
    const now = queue.now();
    if (this.#blockedAt === NONE) {
      this.#blockedAt = now;
      this.#vm.stats.blocking = 1;
    }
    if (next > now) port.charge(next - now);
    // a blocked vCPU's timer is the host's
    this.#vm.expireLapicTimer();
    return true;
  }

  /**
   * Another thread of the host had the processor: the vCPU thread was scheduled out and in again (kvm_sched_in), which
   * resets the PAUSE-loop window. Reported to the guest only when it happens at a host interrupt.
   */
  preempted(): void {
    const { vcpu, stats, params } = this.#vm;
    if (vcpu.halted) return;
    if (this.#reason === EXIT.externalInterrupt) stats.preemption_reported++;
    else stats.preemption_other++;
    stats.host_state_reload++;
    if (params.ple_gap === 0 || vcpu.pleWindow === params.ple_window) return;
    const window = shrunkWindow(vcpu.pleWindow, params);
    this.#vm.trace.sinks.kvm_ple_window_update?.({ vcpu_id: 0, new: window, old: vcpu.pleWindow });
    vcpu.pleWindow = window;
    vcpu.pleWindowDirty = true;
  }

  /** The walks since the last exit are charged; the exit's own time begins. */
  #noteExit(reason: number): void {
    const vm = this.#vm;
    const { port } = vm;
    // the host's timer interrupt has been acknowledged, if that is what it was
    if (reason === EXIT.externalInterrupt) this.#hostDeadline = NONE;
    if (!vm.instructionTime) {
      const { walks } = port;
      const references = walks.references1d + walks.references2d;
      if (references !== this.#references) {
        port.charge((references - this.#references) * vm.costs.walkReference);
        this.#references = references;
      }
    }
    this.#exitAt = port.rdtsc();
  }

  #stopped(outcome: Outcome): Outcome {
    this.#vm.pendingStop = undefined;
    return outcome;
  }
  #failed(): Outcome {
    const vm = this.#vm;
    const text = vm.port.describeVmcs();
    if (vm.params.dump_invalid_vmcs) vm.log.print(text);
    return { kind: 'entry-failure', detail: text };
  }
}
