/** The options of `npm run bench`. */
import { parseArgs } from 'node:util';
import { LabError } from '../../lib/base/error.js';
import { checkOutput } from '../../lib/cli/files.js';
import { CONFIGURATIONS, type Configuration } from './sample.js';

export interface BenchOptions {
  readonly runs: number;
  readonly only: readonly Configuration[];
  readonly to: 'init' | 'end';
  readonly json?: string;
}

export const HELP = `Usage: npm run bench -- [options]

Boots Debian under vmxlab with EPT and with shadow paging, and under QEMU's TCG and Bochs where
those are installed, each in its own process, one after the other, several times.

  --runs N      rounds; what is printed is the median (default 3)
  --only LIST   configurations, of ${CONFIGURATIONS.join(',')} (default all)
  --to WHERE    init: only boot to the INIT line; end: to the end of the workload (default)
  --json FILE   write every measurement as JSON
  --help        print this`;

const MAX_RUNS = 99;

const runsOf = (text: string): number => {
  const runs = /^\d+$/.test(text) ? Number(text) : 0;
  if (runs < 1 || runs > MAX_RUNS)
    throw new LabError(
      'bench.value',
      `--runs: '${text}' is not possible`,
      `a whole number from 1 to ${MAX_RUNS}`,
    );
  return runs;
};

const onlyOf = (text: string): Configuration[] => {
  const names = text.split(',').map((n) => n.trim());
  for (const name of names)
    if (!CONFIGURATIONS.some((c) => c === name))
      throw new LabError(
        'bench.value',
        `--only: unknown name '${name}'`,
        `a list of ${CONFIGURATIONS.join(', ')}`,
      );
  return CONFIGURATIONS.filter((c) => names.includes(c));
};

const toOf = (text: string): 'init' | 'end' => {
  if (text === 'init' || text === 'end') return text;
  throw new LabError('bench.value', `--to: unknown name '${text}'`, 'init or end');
};

const parsed = (args: readonly string[]) => {
  try {
    return parseArgs({
      args: [...args],
      options: {
        runs: { type: 'string' },
        only: { type: 'string' },
        to: { type: 'string' },
        json: { type: 'string' },
        help: { type: 'boolean' },
      },
    }).values;
  } catch (e) {
    throw new LabError('bench.option', (e as Error).message.split('. ')[0]!, 'see `npm run bench -- --help`');
  }
};

/** @returns 'help' when that is asked for. @throws LabError for what cannot be */
export const benchOptions = (args: readonly string[]): BenchOptions | 'help' => {
  const { runs, only, to, json, help } = parsed(args);
  if (help === true) return 'help';
  return {
    runs: runsOf(runs ?? '3'),
    only: only === undefined ? CONFIGURATIONS : onlyOf(only),
    to: toOf(to ?? 'end'),
    ...(json === undefined ? {} : { json: checkOutput(json, '--json') }),
  };
};
