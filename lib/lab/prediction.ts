/**
 * The built-in guest's exits beside the prediction of `guests/tiny/predict.ts`. A workload is counted as what it adds to an
 * empty one: the same machine boots twice, once with nothing to do.
 */
import { type PredictionMode, predict, TIME_DRIVEN } from '../guests/tiny/predict.js';
import { checkWorkload, DEFAULT_WORKLOAD, type TinyWorkload } from '../guests/tiny/workload.js';
import { EXIT_REASONS } from '../vmx/exit-reasons.js';
import { bootUnder } from './both.js';
import type { ModuleParams } from './module-params.js';
import type { BootOptions, Paging, RunResult } from './run-types.js';

export interface PredictedRow {
  /** Exit reason number. */
  readonly reason: number;
  /** KVM's macro name. */
  readonly kvm: string;
  /** Exits that the workload adds; undefined where time decides, and nothing is predicted. */
  readonly predicted: number | undefined;
  readonly counted: number;
  /** Where the predicted ones come from: how many, and why. */
  readonly because: readonly string[];
}

export interface PredictedRun {
  /** All parameters of the workload. */
  readonly workload: TinyWorkload;
  readonly rows: readonly PredictedRow[];
  /** Every reason that is predicted was counted as predicted. */
  readonly exact: boolean;
}

type Params = Partial<ModuleParams>;

/**
 * Counts what the workload of a finished run added, by booting the same machine with nothing to do.
 * @param run ended by powering off
 * @param options what the run was made with
 */
export const withPrediction = async (
  run: RunResult,
  options: BootOptions,
  params: Params = {},
): Promise<PredictedRun> => {
  // the machine, without what watches or ends a run
  const { memory, timeModel, leaves, engine, backing, cpu, seed, hideCpuid, features, signal } = options;
  const { tscHz, hostTickHz, costs, meltdown, debugExit, debugConsole, fwCfg } = options;
  const machine = {
    ...{ memory, timeModel, leaves, engine, backing, cpu, seed, hideCpuid, features, signal },
    ...{ tscHz, hostTickHz, costs, meltdown, debugExit, debugConsole, fwCfg },
  };
  const given = Object.fromEntries(Object.entries(machine).filter(([, v]) => v !== undefined)) as BootOptions;
  const empty = await bootUnder(run.paging, { ...given, guest: 'tiny', tiny: {} }, params);
  return compareWithPrediction(run, empty, options, params);
};

/** The same for two finished runs, of the workload and of nothing. */
export const compareWithPrediction = (
  run: RunResult,
  empty: RunResult,
  options: BootOptions,
  params: Params = {},
): PredictedRun => {
  const workload = checkWorkload(options.tiny ?? DEFAULT_WORKLOAD);
  const mode: PredictionMode = run.paging;
  const { exits, terms } = predict(workload, mode, {
    ...(options.backing === undefined ? {} : { backing: options.backing }),
    preemptionTimer: params['kvm-intel']?.['preemption_timer'] !== false,
    mmioCaching: params.kvm?.['mmio_caching'] !== false,
  });
  const rows: PredictedRow[] = [];
  for (const { number: reason, kvm, sdm } of EXIT_REASONS) {
    const counted = (run.exits[reason] ?? 0) - (empty.exits[reason] ?? 0);
    const predicted = TIME_DRIVEN.includes(reason) ? undefined : (exits[reason] ?? 0);
    if (counted === 0 && (predicted ?? 0) === 0) continue;
    const because = terms.filter((t) => t.reason === reason).map((t) => `${t.count}: ${t.because}`);
    rows.push({ reason, kvm: kvm ?? sdm, predicted, counted, because });
  }
  return {
    workload,
    rows,
    exact: rows.every((r) => r.predicted === undefined || r.predicted === r.counted),
  };
};

/** Boots the built-in guest and counts what its workload adds. */
export const bootPredicted = async (
  paging: Paging,
  options: BootOptions = {},
  params: Params = {},
): Promise<{ readonly run: RunResult; readonly prediction: PredictedRun | undefined }> => {
  const run = await bootUnder(paging, { ...options, guest: 'tiny' }, params);
  const prediction = run.outcome === 'poweroff' ? await withPrediction(run, options, params) : undefined;
  return { run, prediction };
};

/** The table as text. @param why with the terms of each prediction below it */
export const predictionText = ({ rows, exact }: PredictedRun, why = false): string => {
  const cells = rows.map((r) => [
    String(r.reason),
    r.kvm,
    r.predicted === undefined ? 'time' : String(r.predicted),
    String(r.counted),
    r.predicted === undefined || r.predicted === r.counted ? '' : 'differs',
  ]);
  const head = ['#', 'KVM', 'predicted', 'counted', ''];
  const width = head.map((h, i) => Math.max(h.length, ...cells.map((c) => c[i]!.length)));
  const line = (c: readonly string[]): string =>
    c
      .map((text, i) => (i === 1 || i === 4 ? text.padEnd(width[i]!) : text.padStart(width[i]!)))
      .join('  ')
      .trimEnd();
  const body = cells.flatMap((c, i) => [
    line(c),
    ...(why ? rows[i]!.because.map((text) => `${' '.repeat(width[0]! + 2)}  ${text}`) : []),
  ]);
  const end = exact
    ? 'exits that the workload adds: exactly as predicted'
    : 'exits that the workload adds: not as predicted';
  return [line(head), line(width.map((w, i) => '-'.repeat(i === 4 ? 0 : w))), ...body, end].join('\n');
};
