/**
 * The view of `boot --stat`: in a terminal a table that is drawn anew while the guest runs, with the console's last line
 * under it; elsewhere, and at the end, the table of the whole run.
 */
import { statRows, statText } from '../lab/live-stat.js';
import type { ObservedMachine } from '../lab/observe.js';
import type { Counters } from '../lab/run-types.js';

const EVERY_MS = 500;
const OTHER_SCREEN = { enter: '\u001b[?1049h', leave: '\u001b[?1049l', home: '\u001b[H\u001b[2J' } as const;

export interface Screen {
  readonly isTTY?: boolean;
  readonly rows?: number;
  readonly columns?: number;
  write(text: string): unknown;
}

export class LiveStat {
  readonly #out: Screen;
  readonly #clock: () => number;
  #machine: ObservedMachine | undefined;
  #last: Counters | undefined;
  #drawn = Number.NEGATIVE_INFINITY;
  #line = '';
  #other = false;

  constructor(out: Screen = process.stdout, clock: () => number = () => performance.now()) {
    this.#out = out;
    this.#clock = clock;
  }
  attach(machine: ObservedMachine): void {
    this.#machine = machine;
    if (this.#out.isTTY !== true) return;
    this.#other = true;
    this.#out.write(OTHER_SCREEN.enter);
  }
  /** Bytes of the guest's console. */
  console(bytes: Uint8Array): void {
    const lines = (this.#line + Buffer.from(bytes).toString('latin1')).split('\n');
    const rest = lines.pop() ?? '';
    const full = lines.filter((l) => l.trim() !== '').pop();
    this.#line = rest.trim() === '' ? (full ?? this.#line) : rest;
  }
  /** Draws, when some time has passed since the last drawing. */
  update(): void {
    if (!this.#other || this.#machine === undefined) return;
    const now = this.#clock();
    if (now - this.#drawn < EVERY_MS) return;
    this.#drawn = now;
    const counters = this.#machine.counters();
    const rows = statRows(counters, this.#last, this.#machine.vm.clock.rate);
    this.#last = counters;
    const columns = this.#out.columns ?? 80;
    // control characters of the guest stay out of the view
    const line = this.#line.replace(/[^\x20-\x7e]/g, '').slice(0, columns - 1);
    this.#out.write(`${OTHER_SCREEN.home}${statText(rows, (this.#out.rows ?? 24) - 2)}\n${line}`);
  }
  /** Back to the usual screen. */
  leave(): void {
    if (this.#other) this.#out.write(OTHER_SCREEN.leave);
    this.#other = false;
  }
  /** The table of the whole run; rates are its averages. */
  finish(run: Counters): void {
    this.leave();
    if (this.#machine === undefined) return;
    this.#out.write(statText(statRows(run, undefined, this.#machine.vm.clock.rate)));
  }
}
