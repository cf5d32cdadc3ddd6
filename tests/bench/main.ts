/**
 * `npm run bench`: how long Debian's boot and a fixed workload take.
 *
 * Question: how fast is vmxlab with EPT and with shadow paging, and how does that compare to QEMU's TCG and to Bochs?
 * Workload: the Debian guest up to its INIT line, then the default workload of `vmxlab boot` up to its last line.
 * Units: millions of guest instructions, seconds of wall and of CPU time (user and system, all threads: on a busy
 * machine the better measure), M instructions/s by both, VM exits, MiB of peak resident memory. Microseconds an exit
 * are from one more run of each mode with clocks in it (child.ts).
 * Held fixed: kernel, initramfs and command line (the same bytes for everybody), 256 MiB, one virtual CPU, the
 * interpreter, `timeModel: 'cycles'`; with page-table isolation the guest's processor reports Meltdown. Each run is a process of its own; its figures contain the start of the process,
 * also that of Node. One round runs every configuration once, the median over the rounds is printed, with the distance
 * between fastest and slowest as spread. The first round is not thrown away: nothing is warm in a new process.
 * A configuration that fails or is not installed is a line of the report; the status is then 4 if it was vmxlab's.
 * Options: see `HELP` in options.ts.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LabError } from '../../lib/base/error.js';
import { writeWhole } from '../../lib/cli/files.js';
import { DEBIAN_CMDLINE, uncompressedKernel } from '../../lib/guests/debian/debian.js';
import { initScript } from '../../lib/guests/debian/init.js';
import { debianInitramfs, kernelFile } from '../../lib/guests/debian/initramfs.js';
import { fetchDebian, kernelOf } from '../../lib/guests/debian/packages.js';
import { DEFAULT_WORKLOAD } from '../../lib/guests/debian/workload.js';
import { DEFAULT_MEMORY, leafNumbers } from '../../lib/lab/machine.js';
import { DEBIAN, ROOT } from '../../lib/lab/paths.js';
import type { Request } from './child.js';
import { bochs, type Command, type GuestFiles, qemu, runEmulator } from './emulators.js';
import { type BenchOptions, benchOptions, HELP } from './options.js';
import { goalLines, phaseTable, profileTable, ratioTable, type Samples, unequalRounds } from './report.js';
import { type Configuration, OURS, type Profile, type Sample, TITLE } from './sample.js';

const say = (text: string): void => {
  process.stderr.write(`${text}\n`);
};

/** The process that is measured now, to end it with this one. */
let current: ChildProcess | undefined;
const CHILD = fileURLToPath(new URL('child.js', import.meta.url));
const TIMEOUT_SECONDS = 900;

/** One boot of vmxlab in its own process. */
const runOurs = (request: Request): Promise<Sample> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [CHILD, JSON.stringify(request)], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: TIMEOUT_SECONDS * 1000,
      killSignal: 'SIGKILL',
    });
    current = child;
    let out = '';
    let noise = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      noise = (noise + text).slice(-4000);
    });
    child.on('error', (e) => resolve({ marks: {}, problem: `could not be started: ${e.message}` }));
    child.on('close', (status, signal) => {
      try {
        resolve(JSON.parse(out) as Sample);
      } catch {
        const why = noise.trim().split('\n').slice(0, 3).join(' ');
        resolve({ marks: {}, problem: `the process ended with ${status ?? signal}: ${why}` });
      }
    });
  });

/** Version of the guest's kernel, and the guest as files for the other emulators. */
const guestFiles = async (folder: string): Promise<{ kernel: string; files: GuestFiles }> => {
  const kernel = kernelOf(fetchDebian(DEBIAN, say));
  const root = join(DEBIAN, 'root');
  const files: GuestFiles = {
    bzImage: kernelFile(root),
    vmlinux: join(folder, 'vmlinux'),
    initramfs: join(folder, 'initramfs'),
    cmdline: DEBIAN_CMDLINE,
    memory: DEFAULT_MEMORY / 2 ** 20,
  };
  // decompressed here once, so that no measured run does it
  writeFileSync(files.vmlinux, await uncompressedKernel(files.bzImage, join(DEBIAN, 'cache')));
  const init = initScript(leafNumbers('F2020'));
  writeFileSync(files.initramfs, debianInitramfs(root, init, DEFAULT_WORKLOAD));
  return { kernel: `${kernel?.name} ${kernel?.version}`, files };
};

const commit = (): string => {
  const git = (...args: string[]): string =>
    spawnSync('git', ['-C', ROOT, ...args], { encoding: 'utf8' }).stdout?.trim() ?? '';
  const hash = git('rev-parse', '--short', 'HEAD');
  if (hash === '') return 'unknown';
  return git('status', '--porcelain', '--', 'lib') === '' ? hash : `${hash} with changes`;
};

const host = () => ({
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  cores: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  node: process.version,
  load: loadavg().map((l) => Number(l.toFixed(2))),
  commit: commit(),
  date: new Date().toISOString(),
});

/** All rounds, and the profiles. */
const measureAll = async (options: BenchOptions, files: GuestFiles, folder: string) => {
  const samples: Samples = {};
  const problems: Partial<Record<Configuration, string>> = {};
  const about: Partial<Record<Configuration, string>> = {};
  const commands: Partial<Record<Configuration, Command>> = {};
  for (const name of ['qemu', 'bochs'] as const) {
    if (!options.only.includes(name)) continue;
    const command = name === 'qemu' ? qemu(files) : bochs(files, folder);
    if ('absent' in command) problems[name] = command.absent;
    else {
      commands[name] = command;
      about[name] = command.about;
    }
  }
  const measure = (name: Configuration, profile = false): Promise<Sample> => {
    const ours = OURS.find((n) => n === name);
    if (ours !== undefined)
      return runOurs({
        paging: ours === 'ept' ? 'ept' : 'shadow',
        pti: ours === 'shadow-pti',
        to: options.to,
        memory: DEFAULT_MEMORY,
        profile,
      });
    return runEmulator(commands[name]!, options.to, (child) => {
      current = child;
    });
  };
  for (let round = 1; round <= options.runs; round++)
    for (const name of options.only) {
      if (problems[name] !== undefined) continue;
      const sample = await measure(name);
      samples[name] = [...(samples[name] ?? []), sample];
      const last = sample.marks.end ?? sample.marks.init;
      say(
        `round ${round} of ${options.runs}, ${TITLE[name]}: ${sample.problem ?? `${last?.wall.toFixed(2)} s`}`,
      );
      if (sample.problem !== undefined) problems[name] = sample.problem;
    }
  const profiles: Partial<Record<Configuration, Profile>> = {};
  for (const name of OURS) {
    if (!options.only.includes(name) || problems[name] !== undefined) continue;
    say(`profile, ${TITLE[name]}`);
    const { profile, problem } = await measure(name, true);
    if (problem !== undefined) problems[name] = `profile: ${problem}`;
    else if (profile !== undefined) profiles[name] = profile;
  }
  return { samples, problems, about, profiles };
};

const bench = async (options: BenchOptions, folder: string): Promise<number> => {
  const machine = host();
  const { kernel, files } = await guestFiles(folder);
  say(`${machine.cpu}, ${machine.cores} cores, load ${machine.load[0]}; ${options.runs} rounds`);
  const { samples, problems, about, profiles } = await measureAll(options, files, folder);

  const out: string[] = [
    `host    ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, Node ${machine.node}`,
    `load    ${machine.load.join(' ')} at the start (1, 5, 15 minutes)`,
    `commit  ${machine.commit}`,
    `guest   ${kernel}, ${files.memory} MiB, 1 CPU; median of ${options.runs}`,
    ...Object.entries(about).map(([name, text]) => `${name.padEnd(6)}  ${text}`),
    '',
    phaseTable(samples),
  ];
  const ratios = ratioTable(samples);
  if (ratios !== undefined) out.push('', ratios);
  for (const [name, profile] of Object.entries(profiles))
    out.push(
      '',
      `${TITLE[name as Configuration]}, one run with clocks, first instruction to its end:`,
      profileTable(profile),
    );
  for (const name of unequalRounds(samples))
    out.push('', `${TITLE[name]}: instructions or exits differ between rounds; a boot should repeat exactly`);
  const missing = Object.entries(problems).map(([name, why]) => `${TITLE[name as Configuration]}: ${why}`);
  if (missing.length > 0) out.push('', ...missing);
  out.push('', ...goalLines(samples, DEFAULT_MEMORY, profiles));
  process.stdout.write(`${out.join('\n')}\n`);
  if (options.json !== undefined) {
    const data = {
      host: machine,
      kernel,
      cmdline: files.cmdline,
      options,
      about,
      samples,
      profiles,
      problems,
    };
    writeWhole(options.json, `${JSON.stringify(data, undefined, 2)}\n`);
  }
  return OURS.some((name) => problems[name] !== undefined) ? 4 : 0;
};

/** Runs the benchmark and sets the exit status: 0; 2 for a mistake in what was asked; 4 when vmxlab failed. */
export const main = async (args: readonly string[]): Promise<void> => {
  let folder: string | undefined;
  const clean = (): void => {
    current?.kill('SIGKILL');
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  };
  process.once('SIGINT', () => {
    clean();
    process.exit(130);
  });
  try {
    const options = benchOptions(args);
    if (options === 'help') {
      process.stdout.write(`${HELP}\n`);
      return;
    }
    folder = mkdtempSync(join(tmpdir(), 'vmxlab-bench-'));
    process.exitCode = await bench(options, folder);
  } catch (e) {
    const text = e instanceof LabError ? e.message : e instanceof Error ? (e.stack ?? e.message) : String(e);
    say(`bench: ${text}`);
    process.exitCode = 2;
  } finally {
    clean();
  }
};
