/** The options of `npm run fuzz`. */
import { parseArgs } from 'node:util';
import { LabError } from '../../lib/base/error.js';
import { KINDS_OF_CASE, type KindOfCase } from './plan.js';

export interface FuzzOptions {
  readonly cases: number;
  readonly seed: number;
  /** Number of the first case. */
  readonly from: number;
  /** Differences after which it ends. */
  readonly stop: number;
  readonly only: KindOfCase | undefined;
  /** Instruction names that single cases are held to. */
  readonly rows: RegExp | undefined;
}

export const HELP = `Usage: npm run fuzz -- [options]

Runs random instructions and short sequences on this machine's processor and on both engines, and reports
the first difference, reduced to one instruction where that is possible. Linux on x86-64 with gcc only.

  --cases N     how many cases (default 100000)
  --seed S      seed of the campaign; the same seed gives the same cases (default 1)
  --from I      begin with case number I of the campaign (default 0)
  --stop K      go on until K differences are found (default 1)
  --only KIND   single or sequence instead of both
  --rows LIST   single instructions of these rows only, such as add,imul
  --help        print this`;

const wholeNumber = (name: string, text: string, least: number, most: number): number => {
  const n = /^\d{1,15}$/.test(text) ? Number(text) : -1;
  if (n < least || n > most)
    throw new LabError(
      'fuzz.value',
      `--${name}: '${text}' is not possible`,
      `a whole number from ${least} to ${most}`,
    );
  return n;
};

const parsed = (args: readonly string[]) => {
  try {
    return parseArgs({
      args: [...args],
      options: {
        cases: { type: 'string' },
        seed: { type: 'string' },
        from: { type: 'string' },
        stop: { type: 'string' },
        only: { type: 'string' },
        rows: { type: 'string' },
        help: { type: 'boolean' },
      },
    }).values;
  } catch (e) {
    throw new LabError(
      'fuzz.option',
      e instanceof Error ? e.message.split('. ')[0] : String(e),
      'see --help',
    );
  }
};

/** @param names of all instruction rows */
export const fuzzOptions = (args: readonly string[], names: ReadonlySet<string>): FuzzOptions | 'help' => {
  const v = parsed(args);
  if (v.help === true) return 'help';
  const only = KINDS_OF_CASE.find((k) => k === v.only);
  if (v.only !== undefined && only === undefined)
    throw new LabError('fuzz.value', `--only: unknown name '${v.only}'`, KINDS_OF_CASE.join(' or '));
  const rows = v.rows?.split(',').map((n) => n.trim());
  for (const name of rows ?? [])
    if (!names.has(name))
      throw new LabError(
        'fuzz.value',
        `--rows: there is no instruction row '${name}'`,
        'names as in lib/isa/COVERAGE.md',
      );
  return {
    cases: wholeNumber('cases', v.cases ?? '100000', 1, 1e12),
    seed: wholeNumber('seed', v.seed ?? '1', 0, 0xffff_ffff),
    from: wholeNumber('from', v.from ?? '0', 0, 1e12),
    stop: wholeNumber('stop', v.stop ?? '1', 1, 1e6),
    only: rows === undefined ? only : 'single',
    rows: rows === undefined ? undefined : new RegExp(`^(${rows.join('|')})$`),
  };
};
