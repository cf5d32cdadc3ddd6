// Runs a script of the tests that is written in TypeScript: node tests/script.mjs fuzz/main.ts [arguments]
//
// Strips the types of lib/ and tests/ into data/cache/scripts (files that have not changed are kept) and calls `main` of
// the script with the arguments. Vitest could run it too, but its module wrappers make hot code several times slower.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const tests = dirname(fileURLToPath(import.meta.url));
const root = dirname(tests);
const out = join(root, 'data', 'cache', 'scripts');

if (!existsSync(join(root, 'node_modules', 'typescript'))) {
  const bootstrap = join(root, 'lib', 'bootstrap.mjs');
  const { status } = spawnSync(process.execPath, [bootstrap, '--version'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  if (status !== 0) process.exit(2);
}
const { default: ts } = await import('typescript');

const strip = (folder) => {
  mkdirSync(join(out, folder), { recursive: true });
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) strip(path);
    else if (path.endsWith('.ts') && !path.endsWith('.test.ts') && !path.endsWith('.d.ts')) {
      const from = join(root, path);
      const to = join(out, path.replace(/\.ts$/, '.js'));
      if (existsSync(to) && statSync(to).mtimeMs > statSync(from).mtimeMs) continue;
      const { outputText } = ts.transpileModule(readFileSync(from, 'utf8'), {
        fileName: path,
        compilerOptions: {
          target: ts.ScriptTarget.ES2022,
          module: ts.ModuleKind.ESNext,
          verbatimModuleSyntax: true,
        },
      });
      writeFileSync(to, outputText);
    }
  }
};
for (const folder of ['lib', 'tests']) strip(folder);
writeFileSync(join(out, 'package.json'), '{ "type": "module" }\n');

const [script, ...args] = process.argv.slice(2);
const { main } = await import(pathToFileURL(join(out, 'tests', script.replace(/\.ts$/, '.js'))).href);
process.exitCode = await main(args, root);
