/**
 * Debian's packages for the guest: downloaded with apt, unpacked under `data/debian`, never installed.
 *
 * The kernel is whatever build the metapackage depends on when it is fetched; its version and hash go into a manifest.
 * A set that is complete is not looked at again: a second run asks no server.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from '../../base/error.js';

export const KERNEL_METAPACKAGE = 'linux-image-cloud-amd64';
/** Packages besides the kernel; `libc6` is what `cpuid` links against. */
export const TOOL_PACKAGES = ['busybox-static', 'cpuid', 'libc6'] as const;

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  /** SHA-256 of the package file. */
  readonly sha256: string;
}

export interface DebianManifest {
  readonly packages: readonly DebianPackage[];
}

export type Say = (line: string) => void;

const MANIFEST = 'manifest.json';

/** The set in `folder`, if it is complete. */
export const readManifest = (folder: string): DebianManifest | undefined => {
  const file = join(folder, MANIFEST);
  if (!existsSync(file) || !existsSync(join(folder, 'root', 'boot'))) return undefined;
  return JSON.parse(readFileSync(file, 'utf8')) as DebianManifest;
};

const has = (command: string): boolean => {
  try {
    execFileSync('sh', ['-c', `command -v ${command}`], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};

/** What a failed command printed last, in one line. */
const lastWords = (e: unknown): string => {
  const stderr = (e as { stderr?: Buffer | string }).stderr?.toString() ?? String(e);
  const lines = stderr.trim().split('\n');
  return lines[lines.length - 1] ?? '';
};

const run = (command: string, args: readonly string[], cwd?: string): string => {
  try {
    return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 26 });
  } catch (e) {
    throw new LabError('debian.apt', `${command} ${args.join(' ')} failed: ${lastWords(e)}`, 'see that apt works (`apt-get update`) and run the same command again');
  }
};

/** The kernel package that the metapackage depends on. */
const kernelPackage = (): string => {
  const text = run('apt-cache', ['depends', KERNEL_METAPACKAGE]);
  const m = /Depends: (linux-image-\S+)/.exec(text);
  if (m === null) throw new LabError('debian.kernel', `${KERNEL_METAPACKAGE} depends on no linux-image package`, 'run `apt-get update`');
  return m[1]!;
};

/** Runs a command as root: as it is, or through sudo. */
export const asRoot = (args: readonly string[], say: Say): void => {
  const root = process.getuid?.() === 0;
  if (!root && !has('sudo')) throw new LabError('setup.root', `\`${args.join(' ')}\` needs root, and there is no sudo`, 'run it as root, then run this again');
  say(`  ${root ? '' : 'sudo '}${args.join(' ')}`);
  const [command, ...rest] = root ? args : ['sudo', ...args];
  try {
    execFileSync(command!, rest, { stdio: ['inherit', 'ignore', 'pipe'], env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } });
  } catch (e) {
    throw new LabError('setup.apt', `${args.join(' ')} failed: ${lastWords(e)}`, 'mend that and run this again');
  }
};

export const haveApt = (): boolean => has('apt-get') && has('dpkg-deb');

/** apt's lists know the kernel. */
const listsThere = (): boolean => {
  try {
    return /Candidate: \d/.test(execFileSync('apt-cache', ['policy', KERNEL_METAPACKAGE], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
  } catch {
    return false;
  }
};

/**
 * Makes sure that the packages are unpacked in `folder`/root. Nothing half done is left: the set is made beside and
 * moved into place when complete.
 */
export const fetchDebian = (folder: string, say: Say, force = false): DebianManifest => {
  const known = force ? undefined : readManifest(folder);
  if (known !== undefined) return known;
  if (!haveApt()) throw new LabError('debian.no-apt', 'Debian\'s packages cannot be fetched: there is no apt-get and dpkg-deb here', 'run this on Debian 12, or copy data/debian from such a machine');
  if (!listsThere()) {
    say('apt does not know the kernel yet; updating its lists:');
    asRoot(['apt-get', 'update', '-q'], say);
  }
  mkdirSync(folder, { recursive: true });
  const work = mkdtempSync(join(folder, 'work-'));
  try {
    const names = [kernelPackage(), ...TOOL_PACKAGES];
    say(`downloading ${names.join(', ')} with apt-get download`);
    run('apt-get', ['download', '-q', ...names], work);
    const root = join(work, 'root');
    mkdirSync(root);
    const packages = readdirSync(work).filter((f) => f.endsWith('.deb')).sort().map((f): DebianPackage => {
      const file = join(work, f);
      run('dpkg-deb', ['-x', file, root]);
      const [name, version] = run('dpkg-deb', ['-W', '--showformat=${Package} ${Version}', file]).split(' ');
      const sha256 = createHash('sha256').update(readFileSync(file)).digest('hex');
      rmSync(file);
      return { name: name!, version: version!, sha256 };
    });
    // only what the guest uses is kept
    for (const unused of ['usr/share', 'lib/modules', 'usr/lib/x86_64-linux-gnu/gconv', 'usr/lib/x86_64-linux-gnu/audit']) rmSync(join(root, unused), { recursive: true, force: true });
    const manifest: DebianManifest = { packages };
    rmSync(join(folder, 'root'), { recursive: true, force: true });
    renameSync(root, join(folder, 'root'));
    writeFileSync(join(folder, MANIFEST), `${JSON.stringify(manifest, undefined, 2)}\n`);
    return manifest;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
};
