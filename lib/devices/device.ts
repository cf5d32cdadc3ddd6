/**
 * The contract of a device. Time and interrupt lines are passed in, never global; state is plain named data.
 */
export interface Device<S = unknown> {
  readonly name: string;
  /** Port ranges [first, count]; `read` and `write` get the port number itself. */
  readonly ports?: readonly (readonly [first: number, count: number])[];
  /** Registers wider than a byte: the board hands accesses over whole instead of splitting them into bytes. */
  readonly wide?: boolean;
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
  /** Calls `fire` when `now()` reaches `deadline` (in the next run of due timers if it has passed). One pending call a `timer`. */
  arm(timer: Timer, deadline: number): void;
  disarm(timer: Timer): void;
}

export interface Timer {
  readonly name: string;
  fire(): void;
}
