/**
 * The hypervisor's record of the lab's CPUID queries, beside what the guest read: the log has one line for each query,
 * with the count at that moment.
 */
import { type Reading, readings } from './readings.js';

/** What a run must have for this; `RunResult` has it. */
export interface Logged {
  readonly console: string;
  readonly log: readonly string[];
}

const BY_TYPE = /^CPUID\(0x[0-9A-F]{8}\), exit number (\d+) (?:exits=(\d+)|is not (?:defined|enabled))/;

/** Counts by type that the hypervisor gave out, in order; types that it does not count are 0. */
const logged = (log: readonly string[]): { readonly reason: number; readonly exits: number }[] =>
  log.flatMap((line) => {
    const m = BY_TYPE.exec(line);
    return m === null ? [] : [{ reason: Number(m[1]), exits: Number(m[2] ?? 0) }];
  });

export interface LoggedQuery {
  readonly reading: string;
  readonly reason: number;
  readonly guest: number;
  readonly hypervisor: number;
}

const pair = (
  reading: Reading,
  byReason: number,
  lines: readonly { reason: number; exits: number }[],
): LoggedQuery[] =>
  reading.queries
    .filter((q) => q.leaf === byReason)
    .map((q, i) => {
      const line = lines[i];
      const same = line !== undefined && line.reason === q.subleaf;
      return {
        reading: reading.name,
        reason: q.subleaf,
        guest: q.eax,
        hypervisor: same ? line.exits : Number.NaN,
      };
    });

/**
 * Every query of the guest's first and last reading with what the hypervisor's log says about the same moment. A
 * workload may have asked too, in between, so the first reading is taken from the log's start and the last from its end.
 * @param byReason the leaf that returns the count of a type
 */
export const queriesBesideLog = (run: Logged, byReason = 0x4fff_fffe): LoggedQuery[] => {
  const all = readings(run.console);
  const lines = logged(run.log);
  const [first] = all;
  const last = all[all.length - 1];
  if (first === undefined || last === undefined) return [];
  const rows = pair(first, byReason, lines);
  if (last === first) return rows;
  const queries = last.queries.filter((q) => q.leaf === byReason).length;
  return [...rows, ...pair(last, byReason, lines.slice(-queries))];
};

/** Log lines as the assignment's report shows them: the total, then the types that occurred. */
export const sampleLog = (run: Logged, lines = 12): string => {
  const from = Math.max(0, ...run.log.map((l, i) => (/, exits=\d+/.test(l) ? i : 0)));
  return run.log
    .slice(from)
    .filter((l) => l.startsWith('CPUID(') && !/exits=0$|is not /.test(l))
    .slice(0, lines)
    .join('\n');
};
