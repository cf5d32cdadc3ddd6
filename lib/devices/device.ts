/**
 * The contract of a device. Time and interrupt lines are passed in, never global; state is plain named data.
 */
export interface Device<S = unknown> {
  readonly name: string;
  /** Port ranges [first, count]; `read`/`write` get the offset from the first port of the first range they name by `range`. */
  readonly ports?: readonly (readonly [first: number, count: number])[];
  /** Guest-physical ranges [first, bytes]. */
  readonly mmio?: readonly (readonly [first: number, bytes: number])[];
  /** @param address port number or guest-physical address; unknown registers read as the data sheet says */
  read(address: number, size: 1 | 2 | 4 | 8): number;
  write(address: number, size: 1 | 2 | 4 | 8, value: number): void;
  save(): S;
  load(state: S): void;
}

/** An interrupt line into a controller. Edge devices pulse it, level devices hold it. */
export interface IrqLine {
  set(level: boolean): void;
}

/** Virtual time in TSC cycles, and callbacks at exact points of it. */
export interface Clock {
  /** Cycles since the machine was created; monotonic. */
  now(): number;
  /** Cycles a second. */
  readonly rate: number;
  /** Calls `fire` when `now()` reaches `deadline` (at once if it has passed). One pending call a `timer`. */
  arm(timer: Timer, deadline: number): void;
  disarm(timer: Timer): void;
}

export interface Timer {
  readonly name: string;
  fire(): void;
}
