#!/usr/bin/env node
// Entry of `vmxlab` and of the npm scripts: installs npm packages where they are missing, builds where the build is
// missing or older than the sources, then hands over to the command line. Plain JavaScript without a dependency,
// because on a fresh clone nothing else is there. Its own failures end with status 2, as those of the commands do.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const main = join(root, 'dist', 'cli', 'main.js');
const say = (text) => process.stderr.write(`${text}\n`);

/** Ends with one message. */
const fail = (message, hint) => {
  say(`vmxlab: ${message} (${hint})`);
  process.exit(2);
};

const json = (file) => {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
};

/** Packages that package.json names and node_modules lacks, or has in another version. */
const missingPackages = () => {
  const { dependencies, devDependencies } = json(join(root, 'package.json'));
  return Object.entries({ ...dependencies, ...devDependencies })
    .filter(([name, version]) => json(join(root, 'node_modules', name, 'package.json'))?.version !== version)
    .map(([name]) => name);
};

const installPackages = () => {
  const missing = missingPackages();
  if (missing.length === 0) return;
  say(
    `vmxlab: installing npm packages with \`npm ci\` (missing: ${missing.slice(0, 4).join(', ')}${missing.length > 4 ? ', …' : ''})`,
  );
  const args = ['ci', '--include=dev', '--no-audit', '--no-fund'];
  const { status, error } = spawnSync('npm', args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error !== undefined) fail(`npm could not be started: ${error.message}`, 'install npm 9 or later');
  if (status !== 0)
    fail(
      `\`npm ${args.join(' ')}\` failed with status ${status}`,
      "see npm's message above, then run this again",
    );
};

/** Newest modification time of the sources that the compiler reads, in milliseconds. */
const newestSource = (folder) => {
  let newest = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) newest = Math.max(newest, newestSource(path));
    else if (entry.name.endsWith('.ts')) newest = Math.max(newest, statSync(path).mtimeMs);
  }
  return newest;
};

const build = () => {
  if (existsSync(main)) {
    const built = statSync(main).mtimeMs;
    if (built >= newestSource(join(root, 'lib')) && built >= statSync(join(root, 'tsconfig.json')).mtimeMs)
      return;
  }
  say('vmxlab: building');
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const args = [tsc, '-p', join(root, 'tsconfig.json'), '--noEmitOnError'];
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (status !== 0)
    fail('the build failed', "see the compiler's messages above; with a changed lib/, mend it");
};

const [major] = process.versions.node.split('.').map(Number);
if (major < 20) fail(`this is Node ${process.versions.node}`, 'vmxlab needs Node 20 or later');
// installed as a dependency of something else, the package comes built and with its dependencies
if (!root.split(sep).includes('node_modules')) {
  installPackages();
  build();
}
const { main: run } = await import(main);
await run(process.argv.slice(2));
