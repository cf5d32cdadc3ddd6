// Starts the tslab kernel for this project's notebooks: from the project's root, so that cells can import 'vmxlab', and
// with stricter compiler options than tslab's own (it does not read tsconfig.json).
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..');
process.chdir(root);
const require = createRequire(join(root, 'package.json'));
const tslab = require.resolve('tslab/dist/main.js');
const compiler = createRequire(tslab).resolve('@tslab/typescript-for-tslab');
const ts = createRequire(tslab)(compiler);
// A kernel sees the files that were there when it started. Without this, a file that changes while a cell runs (a build,
// a test) makes the compiler's watcher throw into the cell's output. tslab's own two files it tells by itself.
const nothing = { close() {} };
const watchOnlyCells = (system) => {
  const { watchFile } = system;
  system.watchFile = (path, ...rest) =>
    /__(tslab|prev)__/.test(path) ? watchFile.call(system, path, ...rest) : nothing;
  system.watchDirectory = () => nothing;
  return system;
};
require.cache[compiler].exports = {
  ...ts,
  createWatchCompilerHost: (files, options, system, ...rest) =>
    ts.createWatchCompilerHost(
      files,
      {
        ...options,
        strict: true,
        moduleResolution: ts.ModuleResolutionKind.Bundler,
        lib: [...options.lib, 'lib.dom.d.ts'],
      },
      watchOnlyCells(system),
      ...rest,
    ),
};
require(tslab).startKernel({
  configPath: process.argv[2],
  enableFindLocal: false,
  jsKernel: false,
  globalVersion: '',
});
