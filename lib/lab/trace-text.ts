/**
 * Events as lines: as the kernel's trace file has them (Documentation/trace/ftrace.rst, "Output format"), and as JSON,
 * one object a line. Times are virtual; 64-bit values in JSON are hexadecimal text.
 */
import type { TraceEvent, TraceName } from '../hypervisor/trace-events.js';
import { TRACEPOINTS, type TraceRow } from '../hypervisor/trace-rows.js';

/** What is known of an event beside its fields. */
export interface TraceNotes {
  /** Where the guest was, by name. */
  readonly symbol?: string;
  /** The exit in words. */
  readonly explanation?: string;
}

/** Command, 16 wide, and process. */
const TASK = `${'vmxlab'.padStart(16)}-${'1'.padEnd(7)}`;

/** The fields of an event as the kernel prints them. */
export const eventText = (e: TraceEvent): string => (TRACEPOINTS[e.name] as TraceRow<never>).text(e as never);

/** Comment lines at the head of a trace. @param hz cycles a second of virtual time */
export const traceHeader = (about: string, hz: number): string =>
  `# tracer: nop
#
# vmxlab: ${about}
# times are virtual, in seconds of ${hz} cycles
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
`;

/** One event as the kernel's trace file has it; with notes, a comment line follows. */
export const traceLine = (e: TraceEvent, hz: number, notes?: TraceNotes): string => {
  const micros = Math.floor((e.cycles / hz) * 1e6);
  const time = `${String(Math.floor(micros / 1e6)).padStart(5)}.${String(micros % 1e6).padStart(6, '0')}`;
  const flags = TRACEPOINTS[e.name].irqsOff === true ? 'd..1.' : '.....';
  const line = `${TASK} [000] ${flags} ${time}: ${e.name}: ${eventText(e)}\n`;
  if (notes?.symbol === undefined && notes?.explanation === undefined) return line;
  const place = notes.symbol === undefined ? '' : `${notes.symbol}: `;
  return `${line}# ${place}${notes.explanation ?? ''}\n`;
};

const plain = (value: unknown): unknown => (typeof value === 'bigint' ? `0x${value.toString(16)}` : value);

/** One event as data: its name, cycles and instructions, and its fields, without what can only be read at the event. */
export const traceData = (e: TraceEvent, notes?: TraceNotes): Record<string, unknown> => ({
  ...Object.fromEntries(
    Object.entries(e)
      .filter(([name]) => name !== 'cpu')
      .map(([name, value]) => [name, plain(value)]),
  ),
  ...notes,
});

export const traceJson = (e: TraceEvent, notes?: TraceNotes): string =>
  `${JSON.stringify(traceData(e, notes))}\n`;

/** Names whose event can happen here. */
export const happens = (name: TraceName): boolean => TRACEPOINTS[name].never === undefined;
