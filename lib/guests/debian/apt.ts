/**
 * Debian's package tools, as set-up uses them: what apt knows, downloads, and installs.
 *
 * A failure is one LabError with what the tool said last and what to do. When a download or an installation fails, the
 * lists may be old, so they are updated once and the same is tried again.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from '../../base/error.js';

export type Say = (line: string) => void;

const has = (command: string): boolean => {
  try {
    execFileSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};

export const haveApt = (): boolean => has('apt-get') && has('apt-cache') && has('dpkg-deb');

/** What a failed command printed last, in one line: apt's error line where there is one. */
const lastWords = (e: unknown): string => {
  const { stderr, stdout } = e as { stderr?: Buffer | string; stdout?: Buffer | string };
  const lines = `${stdout ?? ''}\n${stderr ?? ''}`.split('\n').filter((l) => l.trim() !== '');
  const errors = lines.filter((l) => l.startsWith('E:') || /error/i.test(l));
  return (errors.pop() ?? lines.pop() ?? (e instanceof Error ? e.message : String(e))).trim();
};

/** Runs a tool and returns what it printed. */
export const run = (command: string, args: readonly string[], cwd?: string): string => {
  try {
    return execFileSync(command, args, {
      cwd,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 1 << 26,
    });
  } catch (e) {
    const hint = 'see that apt works, for instance with `apt-get update`, and run this again';
    throw new LabError('setup.apt', `${command} ${args.join(' ')} failed: ${lastWords(e)}`, hint);
  }
};

/** Runs a command as root: as it is, or through sudo. */
const asRoot = (args: readonly string[], say: Say): void => {
  const root = process.getuid?.() === 0;
  const words = args.join(' ');
  if (!root && !has('sudo'))
    throw new LabError(
      'setup.root',
      `\`${words}\` needs root, and there is no sudo`,
      'run it as root, then run this again',
    );
  say(`  ${root ? '' : 'sudo '}${words}`);
  const [command, ...rest] = root ? args : ['sudo', 'DEBIAN_FRONTEND=noninteractive', ...args];
  try {
    execFileSync(command!, rest, {
      stdio: ['inherit', 'pipe', 'pipe'],
      maxBuffer: 1 << 26,
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    });
  } catch (e) {
    throw new LabError('setup.apt', `\`${words}\` failed: ${lastWords(e)}`, 'mend that and run this again');
  }
};

const updateLists = (say: Say): void => asRoot(['apt-get', 'update', '-q'], say);

/** The lists know a version of the package. */
const known = (name: string): boolean => {
  try {
    const text = execFileSync('apt-cache', ['policy', name], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return /Candidate: \d/.test(text);
  } catch {
    return false;
  }
};

/** Does something that needs apt's lists: updates them first when they lack a package, and once more when it fails. */
export const withLists = <T>(names: readonly string[], say: Say, action: () => T): T => {
  let updated = false;
  if (!names.every(known)) {
    updateLists(say);
    updated = true;
    const unknown = names.filter((n) => !known(n));
    if (unknown.length > 0)
      throw new LabError(
        'setup.apt',
        `apt knows no package ${unknown.join(', ')}`,
        'vmxlab is made for Debian 12; see /etc/apt/sources.list',
      );
  }
  try {
    return action();
  } catch (e) {
    if (updated || !(e instanceof LabError)) throw e;
    say(`  ${e.message.split('\n')[0]}; once more with new lists`);
    updateLists(say);
    return action();
  }
};

/** Installs packages, without what they only recommend. */
export const installPackages = (names: readonly string[], say: Say): void => {
  if (!haveApt()) {
    throw new LabError(
      'setup.no-apt',
      `${names.join(', ')} cannot be installed: there is no apt here`,
      'run this on Debian 12, or install it by other means',
    );
  }
  withLists(names, say, () =>
    asRoot(['apt-get', 'install', '-y', '-q', '--no-install-recommends', ...names], say),
  );
};

/**
 * apt with lists and a state of its own, for another architecture: nothing of the system's configuration changes, and no
 * root is needed. Sources and keys are the system's.
 */
export class PrivateApt {
  /** Options that make any apt command use the private state. */
  readonly options: readonly string[];

  /** @param folder absolute; it is made */
  constructor(folder: string, architecture: string) {
    const state = join(folder, 'state');
    const cache = join(folder, 'cache');
    mkdirSync(join(state, 'lists', 'partial'), { recursive: true });
    mkdirSync(join(cache, 'archives', 'partial'), { recursive: true });
    const status = join(state, 'status');
    writeFileSync(status, '');
    this.options = [
      `APT::Architecture=${architecture}`,
      `APT::Architectures=${architecture}`,
      `Dir::State=${state}`,
      `Dir::State::status=${status}`,
      `Dir::Cache=${cache}`,
      'APT::Sandbox::User=',
      'Acquire::Languages=none',
    ].flatMap((o) => ['-o', o]);
  }
  update(say: Say): void {
    say('  apt-get update, with lists of its own');
    try {
      run('apt-get', [...this.options, 'update', '-q']);
    } catch (e) {
      // one list that a mirror is just changing is no reason to give up
      if (!(e instanceof LabError)) throw e;
      say(`  ${e.message.split('\n')[0]}`);
    }
  }
}
