/** The runner as a child process: cases go in and results come out in batches. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { LabError } from '../../lib/base/error.js';
import { AT } from './layout.js';

/** Builds the runner into `folder` unless it is there, and gives its path. */
export const buildRunner = (source: string, folder: string): string => {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new LabError(
      'native.platform',
      `native code cannot be compared on ${process.platform} ${process.arch}`,
      'run this on Linux on x86-64',
    );
  const program = join(folder, 'runner');
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return program;
  mkdirSync(dirname(program), { recursive: true });
  const options = ['-O2', '-Wall', '-fno-stack-protector', '-fcf-protection=none', '-o', program, source];
  const { status, stderr, error } = spawnSync('gcc', options, { encoding: 'utf8' });
  if (status !== 0)
    throw new LabError(
      'native.gcc',
      `gcc does not build ${source}: ${error?.message ?? stderr}`,
      'install gcc (Debian: apt install gcc libc6-dev)',
    );
  return program;
};

/** Processor and date, for the record. */
export const provenance = (): { readonly processor: string; readonly date: string } => {
  const cpuinfo = readFileSync('/proc/cpuinfo', 'utf8');
  const field = (name: string): string =>
    new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(cpuinfo)?.[1] ?? 'unknown';
  return {
    processor: `${field('vendor_id')} ${field('model name')} (family ${field('cpu family')}, model ${field('model')}, stepping ${field('stepping')})`,
    date: new Date().toISOString().slice(0, 10),
  };
};

export class Native {
  readonly #child: ChildProcess;
  #chunks: Buffer[] = [];
  #have = 0;
  #want = 0;
  #resolve: (bytes: Uint8Array) => void = () => {};
  #reject: (e: Error) => void = () => {};
  #ended: Error | undefined;

  constructor(program: string) {
    this.#child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdout?.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#have += chunk.length;
      if (this.#have >= this.#want) this.#finish();
    });
    this.#child.stdin?.on('error', () => {});
    this.#child.on('close', (status, signal) => {
      this.#ended = new LabError('native.runner', `the native runner ended (${signal ?? status})`);
      this.#reject(this.#ended);
    });
  }
  #finish(): void {
    // into memory of its own, aligned
    const all = new Uint8Array(this.#have);
    let at = 0;
    for (const chunk of this.#chunks) {
      all.set(chunk, at);
      at += chunk.length;
    }
    this.#chunks = [];
    this.#have = 0;
    this.#want = Infinity;
    this.#resolve(all);
  }
  /** Runs `count` cases that lie one behind the other. */
  run(cases: Uint8Array, count: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(this.#ended);
      this.#resolve = resolve;
      this.#reject = reject;
      this.#want = count * AT.size;
      const head = Buffer.alloc(4);
      head.writeUInt32LE(count);
      this.#child.stdin?.write(head);
      this.#child.stdin?.write(cases.subarray(0, count * AT.size));
    });
  }
  end(): void {
    this.#reject = () => {};
    this.#child.stdin?.end();
  }
}
