/**
 * Who listens to which tracepoint (KVM-8.2), and the way from a hook to the listeners.
 *
 * A hook is `trace.sinks.kvm_cr?.({ … })`: while nobody listens to that tracepoint the sink is undefined, nothing is
 * made and nothing is called. Listeners observe: they run on the host, take no virtual time, and what they are given
 * cannot be changed. What a listener throws ends the run and reaches its caller.
 */
import { LabError } from '../base/error.js';
import type { TraceEvent, TraceFields, TraceListener, TraceName } from './trace-events.js';
import { TRACE_NAMES } from './trace-rows.js';

export type Sink<N extends TraceName> = (fields: TraceFields[N]) => void;
export type Sinks = { [N in TraceName]: Sink<N> | undefined };

/** Where the stamp of an event comes from. */
export interface TraceClock {
  readonly cycles: () => number;
  readonly instructions: () => number;
}

/** @throws LabError with the list of names for one that is no tracepoint */
export const checkTraceName = (name: string): TraceName => {
  if (TRACE_NAMES.includes(name as TraceName)) return name as TraceName;
  throw new LabError('trace.name', `there is no event '${String(name)}'`, `one of ${TRACE_NAMES.join(', ')}`);
};

export class Tracer {
  /** Undefined where nobody listens. */
  readonly sinks: Sinks = Object.fromEntries(TRACE_NAMES.map((n) => [n, undefined])) as Sinks;
  readonly #clock: TraceClock;
  readonly #listeners = new Map<TraceName, readonly TraceListener<never>[]>();

  constructor(clock: TraceClock = { cycles: () => 0, instructions: () => 0 }) {
    this.#clock = clock;
  }

  /**
   * Calls `listener` at each event of that name, until the function that is returned is called.
   * @throws LabError for an unknown name or a listener that is no function
   */
  on<N extends TraceName>(name: N, listener: TraceListener<N>): () => void {
    checkTraceName(name);
    if (typeof listener !== 'function')
      throw new LabError('trace.listener', `the listener of ${name} is not a function`);
    // a copy each time: a listener may come or go while the others are called
    const wrapped = ((e: TraceEvent<N>) => listener(e)) as TraceListener<never>;
    this.#set(name, [...(this.#listeners.get(name) ?? []), wrapped]);
    return () =>
      this.#set(
        name,
        (this.#listeners.get(name) ?? []).filter((l) => l !== wrapped),
      );
  }

  #set<N extends TraceName>(name: N, listeners: readonly TraceListener<never>[]): void {
    this.#listeners.set(name, listeners);
    const sinks = this.sinks as { [K in N]: Sink<K> | undefined };
    sinks[name] = listeners.length === 0 ? undefined : (fields) => this.#emit(name, listeners, fields);
  }

  #emit<N extends TraceName>(
    name: N,
    listeners: readonly TraceListener<never>[],
    fields: TraceFields[N],
  ): void {
    const event = {
      name,
      cycles: this.#clock.cycles(),
      instructions: this.#clock.instructions(),
      ...fields,
    } as never;
    try {
      for (const listener of listeners) listener(event);
    } finally {
      if ('cpu' in fields) fields.cpu.close();
    }
  }
}
