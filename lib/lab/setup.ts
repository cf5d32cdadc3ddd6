/**
 * What the lab needs besides npm's packages: Debian's notebook exporter, installed with apt, and the Debian guest's
 * packages, only downloaded and unpacked under `data/debian`. What is there is not looked at again: a second run asks no
 * server.
 */
import { existsSync } from 'node:fs';
import { installPackages, type Say } from '../guests/debian/apt.js';
import { DEBIAN_FLAVOURS, type DebianName } from '../guests/debian/flavours.js';
import { fetchDebian, kernelOf, readManifest, TOOL_PACKAGES } from '../guests/debian/packages.js';
import { debianFolder } from './paths.js';

/** Programs by the Debian package that brings them. Another python on the path does no harm to Debian's scripts. */
export const NBCONVERT = '/usr/bin/jupyter-nbconvert';
export const NOTEBOOK_SERVER = '/usr/bin/jupyter-notebook';

/**
 * Makes the lab ready to run, telling first what it will do.
 * @param force fetches the guest's packages again
 * @param name which Debian guest
 * @throws LabError when there is no apt, or apt fails; running it again goes on where it stopped
 */
export const setUp = (say: Say, force = false, name: DebianName = 'debian'): void => {
  const exporter = name === 'debian' && !existsSync(NBCONVERT);
  const folder = debianFolder(name);
  const flavour = DEBIAN_FLAVOURS[name];
  const guest = force || readManifest(folder) === undefined;
  if (!exporter && !guest) return;
  say('vmxlab sets up what is missing:');
  if (exporter) say('- install the notebook exporter (Debian package jupyter-nbconvert, about 17 MB)');
  if (guest) {
    const names = [flavour.kernel, ...TOOL_PACKAGES].join(', ');
    const size = name === 'debian' ? 40 : 75;
    say(`- download ${names} (about ${size} MB) and unpack them under data/${name}; they are not installed`);
  }
  if (exporter) installPackages(['jupyter-nbconvert'], say);
  if (guest) {
    const kernel = kernelOf(fetchDebian(folder, say, force, flavour));
    say(`  the guest's kernel is ${kernel?.name} ${kernel?.version}`);
  }
};

/** Installs Jupyter's notebook server where it is missing. */
export const setUpJupyter = (say: Say): void => {
  if (existsSync(NOTEBOOK_SERVER)) return;
  say(
    'vmxlab installs the notebook server (Debian packages jupyter-notebook and jupyter-client, about 100 MB):',
  );
  installPackages(['jupyter-notebook', 'jupyter-client'], say);
};
