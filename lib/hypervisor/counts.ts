/**
 * Exit counters: how often each basic exit reason occurred and how many TSC cycles passed from the VM exit to the next
 * VM entry.
 *
 * Counting is at the hardware-exit point, so every VM exit counts (`hw`). KVM's fast path, which published solutions of
 * the lab do not see, does not exist here: the `lab` view shows the same numbers. The sum over the reasons equals the
 * total at any moment; the cycles of the exit in progress are not in yet.
 */
import { REASON_COUNT, reasonName } from './reasons.js';

/** One line of a counter table. */
export interface ExitLine {
  readonly reason: number;
  readonly name: string;
  readonly exits: number;
  readonly cycles: number;
  /** Shortest and longest time of one exit, in cycles. */
  readonly min: number;
  readonly max: number;
  /** Sum of squares of the cycles, for the standard deviation. */
  readonly squares: number;
}

export type CountView = 'hw' | 'lab';

export class ExitCounts {
  readonly exits = new Float64Array(REASON_COUNT);
  readonly cycles = new Float64Array(REASON_COUNT);
  readonly min = new Float64Array(REASON_COUNT);
  readonly max = new Float64Array(REASON_COUNT);
  readonly squares = new Float64Array(REASON_COUNT);
  totalExits = 0;
  totalCycles = 0;

  /** A VM exit happened. */
  exit(reason: number): void {
    this.exits[reason]++;
    this.totalExits++;
  }
  /** The exit was handled: `cycles` from the VM exit to the VM entry. */
  handled(reason: number, cycles: number): void {
    this.cycles[reason] += cycles;
    this.totalCycles += cycles;
    this.squares[reason] += cycles * cycles;
    if (cycles > this.max[reason]) this.max[reason] = cycles;
    if (this.min[reason] === 0 || cycles < this.min[reason]) this.min[reason] = cycles;
  }
  reset(): void {
    for (const t of [this.exits, this.cycles, this.min, this.max, this.squares]) t.fill(0);
    this.totalExits = 0;
    this.totalCycles = 0;
  }
  /** The lines of reasons that occurred, by reason. Both views agree, see above. */
  lines(_view: CountView = 'hw'): ExitLine[] {
    const out: ExitLine[] = [];
    for (let reason = 0; reason < REASON_COUNT; reason++)
      if (this.exits[reason] > 0) out.push(this.line(reason));
    return out;
  }
  line(reason: number): ExitLine {
    return {
      reason,
      name: reasonName(reason),
      exits: this.exits[reason],
      cycles: this.cycles[reason],
      min: this.min[reason],
      max: this.max[reason],
      squares: this.squares[reason],
    };
  }
  /** Exits by reason, for comparison with another run. */
  snapshot(): Readonly<Record<number, number>> {
    const out: Record<number, number> = {};
    for (let reason = 0; reason < REASON_COUNT; reason++)
      if (this.exits[reason] > 0) out[reason] = this.exits[reason];
    return out;
  }
}
