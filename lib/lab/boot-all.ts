/**
 * Many boots at once: each in a thread of its own, as many at a time as there are processors. A machine is deterministic
 * and shares nothing, so that the results are those of one boot after the other, in less time.
 *
 * Options that hold functions (`onMachine`, `onConsole`, …) do not reach a thread: such boots run in this one.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { LabError } from '../base/error.js';
import { bootUnder } from './both.js';
import type { ModuleParams } from './module-params.js';
import { ROOT } from './paths.js';
import type { BootOptions, Paging, RunResult } from './run-types.js';

export interface BootJob {
  readonly paging: Paging;
  readonly options?: BootOptions;
  /** Parameters of the modules; `ept` is that of `paging`. */
  readonly params?: Partial<ModuleParams>;
}

/** What a thread answers to a job. */
export type BootAnswer =
  | { readonly result: RunResult }
  | { readonly id: string; readonly message: string }
  | { readonly bug: string };

/** The thread's program, as the build has it. */
const WORKER = join(ROOT, 'dist', 'lab', 'boot-worker.js');
/** A machine takes about 1.5 times its guest's memory. */
const MOST_THREADS = 4;

/** Threads that have nothing to do. They are kept, because the second machine of a thread starts faster than its first. */
const idle: Worker[] = [];

const takeThread = (): Worker => {
  const worker = idle.pop() ?? new Worker(WORKER);
  worker.ref();
  return worker;
};
/** A thread without a job does not keep the process from ending. */
const putBack = (worker: Worker): void => {
  worker.unref();
  idle.push(worker);
};

/** Whether a value can be sent to another thread. */
const canBeSent = (value: unknown): boolean => {
  if (typeof value === 'function' || value instanceof AbortSignal) return false;
  return typeof value !== 'object' || value === null || Object.values(value).every(canBeSent);
};

/** Runs one job in a thread. */
const inThread = (worker: Worker, job: BootJob): Promise<RunResult> =>
  new Promise((resolve, reject) => {
    const finish = (): void => {
      worker.off('error', failed);
      worker.off('exit', ended);
      worker.off('message', answered);
    };
    const failed = (e: Error): void => {
      finish();
      reject(e);
    };
    const ended = (code: number): void =>
      failed(new LabError('boot.thread', `a thread ended while it booted a guest (${code})`));
    const answered = (answer: BootAnswer): void => {
      finish();
      if ('result' in answer) resolve(answer.result);
      else if ('bug' in answer) reject(new Error(answer.bug));
      else reject(new LabError(answer.id, answer.message));
    };
    worker.on('error', failed);
    worker.on('exit', ended);
    worker.on('message', answered);
    worker.postMessage(job);
  });

/**
 * Boots every job's guest, `threads` at a time.
 * @returns the results in the order of the jobs
 * @throws LabError of the first job that could not be started; the others are dropped
 */
export const bootAll = async (
  jobs: readonly BootJob[],
  threads = Math.min(MOST_THREADS, availableParallelism()),
): Promise<RunResult[]> => {
  const results: RunResult[] = [];
  const queue = [...jobs.entries()].filter(([, job]) => threads > 1 && jobs.length > 1 && canBeSent(job));
  const here = [...jobs.entries()].filter(([i]) => !queue.some(([other]) => other === i));
  const drain = async (): Promise<void> => {
    const worker = takeThread();
    try {
      for (let next = queue.shift(); next !== undefined; next = queue.shift())
        results[next[0]] = await inThread(worker, next[1]);
      putBack(worker);
    } catch (e) {
      queue.length = 0;
      await worker.terminate();
      throw e;
    }
  };
  const drainHere = async (): Promise<void> => {
    for (const [i, job] of here) results[i] = await bootUnder(job.paging, job.options, job.params);
  };
  await Promise.all([...Array.from({ length: Math.min(threads, queue.length) }, () => drain()), drainHere()]);
  return results;
};

/** The experiment itself: the same boot under nested and under shadow paging, each with counters that start at 0. */
export const bootBoth = async (
  options: BootOptions = {},
  params: Partial<ModuleParams> = {},
): Promise<{ readonly ept: RunResult; readonly shadow: RunResult }> => {
  const [ept, shadow] = await bootAll([
    { paging: 'ept', options, params },
    { paging: 'shadow', options, params },
  ]);
  return { ept, shadow };
};
