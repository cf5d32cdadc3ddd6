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
require.cache[compiler].exports = {
  ...ts,
  createWatchCompilerHost: (files, options, ...rest) =>
    ts.createWatchCompilerHost(
      files,
      {
        ...options,
        strict: true,
        moduleResolution: ts.ModuleResolutionKind.Bundler,
        lib: [...options.lib, 'lib.dom.d.ts'],
      },
      ...rest,
    ),
};
require(tslab).startKernel({ configPath: process.argv[2], enableFindLocal: false, jsKernel: false, globalVersion: '' });
