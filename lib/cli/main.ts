/**
 * The command line. Statuses: 0 as asked; 2 the user's mistake or an error of vmxlab, with one message on stderr; 4 the
 * guest ended otherwise.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import { LabError } from '../base/error.js';
import { ROOT } from '../lab/paths.js';
import { addBoot } from './boot.js';
import { addCompare } from './compare.js';
import { addFidelity } from './fidelity.js';
import { addLab } from './lab.js';
import { addStat } from './stat.js';
import { addTrace } from './trace.js';

const version = (): string =>
  (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version;

/** The program with all its commands; `done` receives the status of the command that ran. */
const program = (done: (status: number) => void): Command => {
  const top = new Command('vmxlab');
  top.description(
    'Boots Debian on a virtual x86-64 processor with VT-x, under nested and under shadow paging, and counts VM exits.',
  );
  const commands = [
    addBoot(top, done),
    addCompare(top, done),
    addStat(top, done),
    addTrace(top, done),
    addFidelity(top, done),
    ...addLab(top, done),
  ];
  for (const c of [top, ...commands]) {
    c.version(version(), '--version', 'print the version')
      .helpOption('-h, --help', 'print this help')
      .exitOverride()
      .allowExcessArguments(false)
      .configureOutput({ outputError: (text, write) => write(`vmxlab: ${text.replace(/^error: /, '')}`) });
  }
  top.helpCommand(false);
  return top;
};

const explain = (e: unknown): string => {
  if (e instanceof LabError) return e.message;
  // ours: say all that helps to mend it
  return `this is an error of vmxlab itself: ${e instanceof Error ? (e.stack ?? e.message) : String(e)}`;
};

const closedPipe = (e: NodeJS.ErrnoException): void => {
  if (e.code === 'EPIPE') {
    // a progress line may stand there
    if (process.stderr.isTTY === true) process.stderr.write('\r\u001b[K');
    process.exit(0);
  }
  throw e;
};

/** Runs one command line and sets the process's exit status. */
export const main = async (args: readonly string[]): Promise<void> => {
  // a reader that closed the pipe is no error
  if (process.stdout.listenerCount('error') === 0) process.stdout.on('error', closedPipe);
  try {
    await program((status) => {
      process.exitCode = status;
    }).parseAsync(args, { from: 'user' });
  } catch (e) {
    if (e instanceof CommanderError) {
      // help and version are not errors; commander has printed its message
      process.exitCode = e.exitCode === 0 ? 0 : 2;
      return;
    }
    process.stderr.write(`vmxlab: ${explain(e)}\n`);
    process.exitCode = 2;
  }
};
