import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { expect, test } from 'vitest';
import { ROOT } from '../lib/lab/paths.js';

const LIB = join(ROOT, 'lib');

/** Which folders of lib/ a folder may import, and of some only the named files (`lib/README.md`). */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  isa: ['base'],
  memory: ['base', 'isa'],
  cpu: ['base', 'isa', 'memory'],
  vmx: ['base', 'isa', 'memory', 'cpu'],
  devices: ['base', 'memory'],
  // the seam, and the engine and processor in software for the emulator
  hypervisor: ['base', 'isa', 'memory', 'devices', 'vmx/port', 'cpu/core', 'cpu/reference', 'cpu/software'],
  loaders: ['base', 'memory'],
  guests: ['base', 'isa', 'loaders'],
  lab: ['base', 'isa', 'memory', 'cpu', 'vmx', 'devices', 'hypervisor', 'loaders', 'guests'],
  fidelity: ['base', 'isa', 'memory', 'cpu', 'vmx', 'devices', 'hypervisor', 'loaders', 'guests', 'lab'],
  cli: [
    ...[
      'base',
      'isa',
      'memory',
      'cpu',
      'vmx',
      'devices',
      'hypervisor',
      'loaders',
      'guests',
      'lab',
      'fidelity',
    ],
  ],
};

const sources = (folder: string): string[] =>
  readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return sources(path);
    return name.endsWith('.ts') ? [path] : [];
  });

/** Modules of ours that a file imports, as paths below lib/ without the ending. */
const importsOf = (file: string): string[] => {
  const text = readFileSync(file, 'utf8');
  const found = [...text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)].map((m) => m[1]!);
  return found.map((target) => relative(LIB, join(dirname(file), target)).replace(/\.js$/, ''));
};

const files = sources(LIB).map((file) => ({
  file: relative(LIB, file),
  layer: relative(LIB, file).split(sep)[0]!,
  imports: importsOf(file),
}));

test('every folder of lib/ is a layer', () => {
  const folders = new Set(files.filter((f) => f.file.includes(sep)).map((f) => f.layer));
  expect([...folders].filter((f) => LAYERS[f] === undefined)).toEqual([]);
});

test.each(Object.keys(LAYERS))('%s/ imports only from the layers below it', (layer) => {
  const allowed = [layer, ...LAYERS[layer]!];
  const wrong = files
    .filter((f) => f.layer === layer)
    .flatMap((f) =>
      f.imports
        .filter((i) => !allowed.some((a) => i === a || i.startsWith(`${a}/`)))
        .map((i) => `${f.file} imports ${i}`),
    );
  expect(wrong).toEqual([]);
});

test('imports are relative with an ending, so that the built files find each other', () => {
  const wrong = sources(LIB).flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(/from '(\.[^']+)'/g)]
      .filter((m) => !m[1]!.endsWith('.js'))
      .map((m) => `${relative(LIB, file)}: ${m[1]}`),
  );
  expect(wrong).toEqual([]);
});
