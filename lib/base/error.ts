/**
 * The two kinds of failure that are thrown.
 *
 * A user's mistake is a `LabError`: an id, a message that names the thing and its value, and a hint. One of our own
 * bugs is an `InvariantError`. What a guest does wrong is neither: faults and VM exits are values (see `cpu/core.ts`).
 */
/** How Node's console prints an object: a notebook cell shows the message of a LabError, not our stack. */
const INSPECT: unique symbol = Symbol.for('nodejs.util.inspect.custom');

export class LabError extends Error {
  readonly id: string;
  readonly hint: string | undefined;
  [INSPECT](): string {
    return `${this.name}: ${this.message}`;
  }
  constructor(id: string, message: string, hint?: string) {
    super(hint === undefined ? message : `${message} (${hint})`);
    this.name = 'LabError';
    this.id = id;
    this.hint = hint;
  }
}

export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

/** Asserts what must hold at a slow-path boundary; the message states the invariant. */
export function invariant(condition: boolean, says: () => string): asserts condition {
  if (!condition) throw new InvariantError(says());
}

export const unreachable = (value: never): never => {
  throw new InvariantError(`unreachable value ${String(value)}`);
};
