/**
 * The hypervisor's log: what the host's dmesg would show, with virtual timestamps.
 *
 * Lines are kept without the timestamp; `text` prints them bare or with dmesg's `[seconds.micros]` in front.
 */
export interface LogLine {
  /** Virtual seconds since the machine was created. */
  readonly seconds: number;
  readonly text: string;
}

/** Lines kept; the oldest are dropped. */
const CAPACITY = 100_000;

export class HypervisorLog {
  readonly lines: LogLine[] = [];
  /** Virtual seconds now; a machine sets it while it runs. */
  now: () => number = () => 0;
  /** Called for each line, for a console that follows. */
  onLine: ((line: LogLine) => void) | undefined;

  print(text: string): void {
    const line = { seconds: this.now(), text };
    if (this.lines.length >= CAPACITY) this.lines.splice(0, CAPACITY / 10);
    this.lines.push(line);
    this.onLine?.(line);
  }
  clear(): void {
    this.lines.length = 0;
  }
  /** All lines as text. @param timestamps with `[    0.123456] ` in front */
  text(timestamps = false): string {
    return this.lines.map((l) => (timestamps ? `${stamp(l.seconds)} ${l.text}` : l.text)).join('\n');
  }
}

/** `[    1.234567]`, as dmesg prints it. */
export const stamp = (seconds: number): string => `[${seconds.toFixed(6).padStart(12)}]`;
