import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { checkInput, checkOutput, WholeFile, writeWhole } from '../../lib/cli/files.js';
import { withFolder } from './vmxlab.js';

test('a file is replaced whole, and nothing is left beside it', () =>
  withFolder((folder) => {
    const file = join(folder, 'x.json');
    writeFileSync(file, 'old');
    writeWhole(file, 'new');
    expect(readFileSync(file, 'utf8')).toBe('new');
    expect(readdirSync(folder)).toEqual(['x.json']);
  }));

test('a file written in pieces appears when finished, and not at all when discarded', () =>
  withFolder((folder) => {
    const file = join(folder, 'trace');
    const a = new WholeFile(file);
    a.write('one');
    expect(existsSync(file)).toBe(false);
    a.discard();
    expect(readdirSync(folder)).toEqual([]);
    const b = new WholeFile(file);
    b.write('one');
    b.write('two');
    b.finish();
    expect(readFileSync(file, 'utf8')).toBe('onetwo');
  }));

test('a target that cannot be written leaves nothing', () =>
  withFolder((folder) => {
    expect(() => writeWhole(join(folder, 'no', 'x'), '')).toThrow('could not be written');
    expect(() => checkOutput(folder, '--json')).toThrow('is a folder');
    expect(() => checkInput(join(folder, 'x'), '--kernel')).toThrow('does not exist');
  }));
