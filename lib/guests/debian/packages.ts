/**
 * Debian's packages for the guest: downloaded with apt, unpacked under `data/debian`, never installed.
 *
 * The kernel is whatever build the metapackage depends on when it is fetched; its version and hash go into a manifest.
 * A set that is complete is not looked at again: a second run asks no server.
 */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { LabError } from '../../base/error.js';
import { haveApt, PrivateApt, run, type Say, withLists } from './apt.js';
import { DEBIAN_FLAVOURS, type DebianFlavour } from './flavours.js';

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

const MANIFEST = 'manifest.json';
const WORK = 'work-';

/** The set in `folder`, if it is complete. */
export const readManifest = (folder: string): DebianManifest | undefined => {
  const file = join(folder, MANIFEST);
  if (!existsSync(file) || !existsSync(join(folder, 'root', 'boot'))) return undefined;
  return JSON.parse(readFileSync(file, 'utf8')) as DebianManifest;
};

/** The kernel package that the metapackage depends on. */
const kernelPackage = (metapackage: string, options: readonly string[]): string => {
  const text = run('apt-cache', [...options, 'depends', metapackage]);
  const m = /Depends: (linux-image-\S+)/.exec(text);
  if (m === null)
    throw new LabError(
      'debian.kernel',
      `${metapackage} depends on no linux-image package`,
      'run `apt-get update`',
    );
  return m[1]!;
};

/** The kernel package that is in the set, for messages. */
export const kernelOf = (manifest: DebianManifest): DebianPackage | undefined =>
  manifest.packages.find((p) => p.name.startsWith('linux-image-'));

/** What of the packages the guest does not use, and is not kept. */
const UNUSED = [
  'usr/share',
  'lib/modules',
  'usr/lib/x86_64-linux-gnu/gconv',
  'usr/lib/x86_64-linux-gnu/audit',
  'usr/lib/i386-linux-gnu/gconv',
  'usr/lib/i386-linux-gnu/audit',
] as const;

/** Downloads the packages into `work` and unpacks them in `work`/root. */
const downloadAndUnpack = (work: string, flavour: DebianFlavour, say: Say): DebianManifest => {
  const download = (options: readonly string[]): void => {
    const names = [kernelPackage(flavour.kernel, options), ...TOOL_PACKAGES];
    say(`  apt-get download ${names.join(' ')}`);
    run('apt-get', [...options, 'download', '-q', ...names], work);
  };
  if (flavour.architecture === 'amd64')
    withLists([flavour.kernel, ...TOOL_PACKAGES], say, () => download([]));
  else {
    // lists of another architecture, kept in the work folder: the system's own stay as they are
    const apt = new PrivateApt(join(work, 'apt'), flavour.architecture);
    apt.update(say);
    download(apt.options);
  }
  const root = join(work, 'root');
  mkdirSync(root);
  const files = readdirSync(work).filter((f) => f.endsWith('.deb'));
  const packages = files.sort().map((f): DebianPackage => {
    const file = join(work, f);
    run('dpkg-deb', ['-x', file, root]);
    // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-deb's own format
    const [name, version] = run('dpkg-deb', ['-W', '--showformat=${Package} ${Version}', file]).split(' ');
    return {
      name: name!,
      version: version!,
      sha256: createHash('sha256').update(readFileSync(file)).digest('hex'),
    };
  });
  for (const unused of UNUSED) rmSync(join(root, unused), { recursive: true, force: true });
  return { packages };
};

/**
 * Makes sure that the packages are unpacked in `folder`/root. Nothing half done is left: the set is made beside and
 * moved into place when complete, and the manifest comes last.
 * @param force fetches what is current now even if a set is there
 */
export const fetchDebian = (
  folder: string,
  say: Say,
  force = false,
  flavour: DebianFlavour = DEBIAN_FLAVOURS.debian,
): DebianManifest => {
  const known = force ? undefined : readManifest(folder);
  if (known !== undefined) return known;
  if (!haveApt())
    throw new LabError(
      'debian.no-apt',
      "Debian's packages cannot be fetched: there is no apt here",
      'run this on Debian 12, or copy data/debian from such a machine',
    );
  mkdirSync(folder, { recursive: true });
  // what an interrupted run left
  for (const old of readdirSync(folder))
    if (old.startsWith(WORK)) rmSync(join(folder, old), { recursive: true, force: true });
  const work = mkdtempSync(join(folder, WORK));
  try {
    const manifest = downloadAndUnpack(work, flavour, say);
    const written = join(work, MANIFEST);
    writeFileSync(written, `${JSON.stringify(manifest, undefined, 2)}\n`);
    rmSync(join(folder, MANIFEST), { force: true });
    rmSync(join(folder, 'root'), { recursive: true, force: true });
    renameSync(join(work, 'root'), join(folder, 'root'));
    renameSync(written, join(folder, MANIFEST));
    return manifest;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
};
