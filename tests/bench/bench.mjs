// Entry of `npm run bench`: builds what is measured, makes JavaScript of the benchmark, and hands over to it.
//
// The benchmark measures the build in dist/ that users run, so its files are only stripped of their types, not compiled
// together with the library: an import of ../../lib/x.js becomes one of dist/x.js. Plain JavaScript, because on a fresh
// clone there is no compiler yet; the bootstrap of the command line installs it and builds. main.ts says what is measured.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const out = join(root, 'data', 'cache', 'bench');

const { status } = spawnSync(process.execPath, [join(root, 'lib', 'bootstrap.mjs'), '--version'], {
  stdio: ['ignore', 'ignore', 'inherit'],
});
if (status !== 0) process.exit(2);

const { default: ts } = await import('typescript');
const dist = pathToFileURL(join(root, 'dist')).href;
mkdirSync(out, { recursive: true });
for (const file of readdirSync(here)) {
  if (!file.endsWith('.ts') || file.endsWith('.test.ts')) continue;
  const { outputText } = ts.transpileModule(readFileSync(join(here, file), 'utf8'), {
    fileName: file,
    compilerOptions: {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
    },
  });
  const script = outputText.replaceAll(/(['"])\.\.\/\.\.\/lib\//g, `$1${dist}/`);
  writeFileSync(join(out, file.replace(/\.ts$/, '.js')), script);
}
writeFileSync(join(out, 'package.json'), '{ "type": "module" }\n');
const { main } = await import(pathToFileURL(join(out, 'main.js')).href);
await main(process.argv.slice(2));
