/** What the commands say and write about a run. */
import type { RunResult } from '../lab/machine.js';

const whole = (n: number): string => n.toLocaleString('en-US');
const sum = (counts: Readonly<Record<number, number>>): number =>
  Object.values(counts).reduce((s, n) => s + n, 0);

/** One line: how the run ended and what it took. */
export const summary = (r: RunResult): string =>
  `${r.paging}: ${r.outcome} after ${whole(r.instructions)} instructions, ${whole(sum(r.exits))} VM exits, ${r.wallSeconds.toFixed(1)} s`;

/** A run as JSON data; the VMCS controls are hexadecimal text, because they can have 64 bits. */
export const resultData = (r: RunResult): Record<string, unknown> => ({
  ...r,
  controls: Object.fromEntries(
    Object.entries(r.controls).map(([name, value]) => [name, `0x${value.toString(16)}`]),
  ),
});

export const json = (data: unknown): string => `${JSON.stringify(data, undefined, 2)}\n`;

/** Progress in words: millions of instructions and their rate. */
export const progressText = (what: string, instructions: number, started: number): string => {
  const seconds = (performance.now() - started) / 1000;
  const rate = seconds > 0.2 ? `, ${(instructions / 1e6 / seconds).toFixed(0)} M/s` : '';
  return `${what}: ${(instructions / 1e6).toFixed(0)} M instructions, ${seconds.toFixed(0)} s${rate}`;
};

/** Exit status: 0 when the guest ended as asked, its own from the debug-exit device, 4 when it ended otherwise. */
export const statusOf = (r: RunResult, until: string | undefined): number => {
  if (r.outcome === 'debug-exit') return (r.status ?? 1) & 0xff;
  return r.outcome === (until === undefined ? 'poweroff' : 'until') ? 0 : 4;
};

/** The status of two runs: that of both, or 4 when they differ. */
export const statusOfBoth = (a: number, b: number): number => (a === b ? a : 4);

/** What the modules said about their parameters when they were loaded. */
export const warnings = (r: RunResult): readonly string[] =>
  r.log.filter((line) => /^kvm(_intel)?: \w+=\S* has no effect/.test(line));

/** How a run ended, on stderr: what the modules said, the summary, and the detail of its outcome. */
export const report = (r: RunResult): void => {
  for (const text of warnings(r)) process.stderr.write(`${text}\n`);
  process.stderr.write(`${summary(r)}\n`);
  if (r.detail !== undefined) process.stderr.write(`${r.detail}\n`);
};
