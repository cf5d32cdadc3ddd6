/** What others measured of nested against shadow paging (`data/reference/published-costs.json`), with the sources. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from '../base/error.js';
import { DATA } from './paths.js';

export interface PublishedGain {
  readonly hardware: string;
  readonly programs: string;
  /** Percent by which nested paging was faster, at most. */
  readonly gain: number;
  readonly source: string;
}

export interface Published {
  readonly caveat: string;
  readonly gains: readonly PublishedGain[];
  readonly findings: readonly { readonly finding: string; readonly source: string }[];
  readonly exitCosts: readonly { readonly what: string; readonly cycles: number; readonly source: string }[];
}

/** One published pair of boots on real hardware: VM exits by reason. */
export interface HardwareRun {
  readonly source: string;
  readonly term: string;
  readonly host: string;
  readonly guest: string;
  readonly ept: Readonly<Record<string, number>>;
  readonly shadow: Readonly<Record<string, number>>;
}

const read = (name: string): unknown => {
  const file = join(DATA, 'reference', name);
  if (!existsSync(file))
    throw new LabError('reference.file', `${file} does not exist`, 'restore it from git');
  return JSON.parse(readFileSync(file, 'utf8'));
};

/** @throws LabError when the file is not there */
export const publishedCosts = (): Published => read('published-costs.json') as Published;

/** Published boots of the lab on real hardware, with their sources. @throws LabError when the file is not there */
export const hardwareRuns = (): readonly HardwareRun[] =>
  (read('real-hardware-exits.json') as { readonly runs: readonly HardwareRun[] }).runs;
