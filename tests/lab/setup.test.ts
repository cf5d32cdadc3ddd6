import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { installPackages } from '../../lib/guests/debian/apt.js';
import { fetchDebian, readManifest } from '../../lib/guests/debian/packages.js';
import { serverCommand } from '../../lib/lab/notebook/serve.js';
import { JUPYTER } from '../../lib/lab/paths.js';
import { withFolder } from '../cli/vmxlab.js';

const { PATH } = process.env;
afterEach(() => {
  process.env['PATH'] = PATH;
});

/** Programs that stand for Debian's: scripts by name, and the shell. */
const withTools = <T>(tools: Readonly<Record<string, string>>, work: (folder: string) => T): T =>
  withFolder((folder) => {
    const bin = join(folder, 'bin');
    mkdirSync(bin);
    for (const [name, script] of Object.entries({ sh: 'exec /bin/sh "$@"', ...tools })) {
      writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`);
      chmodSync(join(bin, name), 0o755);
    }
    process.env['PATH'] = bin;
    return work(join(folder, 'debian'));
  });

const APT_CACHE =
  'case $1 in policy) echo "  Candidate: 1.0";; depends) echo "  Depends: linux-image-6.1.0-1-cloud-amd64";; esac';

test('no apt: one message that says what to do', () =>
  withTools({}, (folder) => {
    expect(() => fetchDebian(folder, () => {})).toThrow(/there is no apt here \(run this on Debian 12/);
    expect(() => installPackages(['x'], () => {})).toThrow(/x cannot be installed: there is no apt here/);
  }));

test('a download that fails: the lists are updated once, then apt is quoted, and nothing is left', () =>
  withTools(
    {
      'apt-cache': APT_CACHE,
      'apt-get': '[ "$1" = update ] && exit 0; echo "E: 404 Not Found" >&2; exit 100',
      'dpkg-deb': 'exit 0',
      sudo: 'shift; exec "$@"',
    },
    (folder) => {
      const said: string[] = [];
      expect(() => fetchDebian(folder, (line) => said.push(line))).toThrow(
        /apt-get download .* failed: E: 404 Not Found/,
      );
      expect(said.filter((l) => /^ +(sudo )?apt-get update/.test(l))).toHaveLength(1);
      expect(readdirSync(folder)).toEqual([]);
    },
  ));

test('a package that cannot be unpacked leaves nothing, and the next run starts anew', () =>
  withTools(
    {
      'apt-cache': APT_CACHE,
      'apt-get': ': > cpuid.deb',
      'dpkg-deb': 'echo "dpkg-deb: error: damaged" >&2; exit 2',
      sudo: 'shift; exec "$@"',
    },
    (folder) => {
      expect(() => fetchDebian(folder, () => {})).toThrow(/damaged/);
      expect(readManifest(folder)).toBeUndefined();
      expect(readdirSync(folder)).toEqual([]);
    },
  ));

test('what is there is not fetched again: no program is started', () =>
  withTools({}, (folder) => {
    mkdirSync(join(folder, 'root', 'boot'), { recursive: true });
    writeFileSync(join(folder, 'manifest.json'), '{"packages":[]}');
    expect(fetchDebian(folder, () => {})).toEqual({ packages: [] });
  }));

test('a package that apt does not know', () =>
  withTools(
    { 'apt-cache': 'exit 0', 'apt-get': 'exit 0', 'dpkg-deb': 'exit 0', sudo: 'shift; exec "$@"' },
    (folder) => {
      expect(() => fetchDebian(folder, () => {})).toThrow(/apt knows no package linux-image-cloud-amd64/);
    },
  ));

test('the notebook server: absolute kernel path, root and display', () => {
  const { args, env } = serverCommand({ browser: true }, { JUPYTER_PATH: '/x' }, true);
  expect(args).toContain('--allow-root');
  expect(args).toContain('--no-browser');
  expect(env['JUPYTER_PATH']).toBe(`${JUPYTER}:/x`);
  expect(serverCommand({ browser: true, port: '9' }, { DISPLAY: ':0' }, false).args.slice(2)).toEqual([
    '--port=9',
  ]);
});
