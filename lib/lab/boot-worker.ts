/** The thread of `boot-all.ts`: boots the guest of each job that it is sent, and answers with the result. */
import { parentPort } from 'node:worker_threads';
import { LabError } from '../base/error.js';
import type { BootAnswer, BootJob } from './boot-all.js';
import { bootUnder } from './both.js';

const answer = async (job: BootJob): Promise<BootAnswer> => {
  try {
    return { result: await bootUnder(job.paging, job.options, job.params) };
  } catch (e) {
    if (e instanceof LabError) return { id: e.id, message: e.message };
    return { bug: e instanceof Error ? (e.stack ?? e.message) : String(e) };
  }
};

parentPort?.on('message', (job: BootJob) => {
  void answer(job).then((a) => parentPort?.postMessage(a));
});
