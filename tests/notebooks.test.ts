/** Every notebook, cell by cell in a fresh kernel: one test a code cell. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Kernel } from '../lib/lab/notebook/kernel.js';
import { readNotebook, sourceOf } from '../lib/lab/notebook/notebook.js';
import { NOTEBOOKS } from '../lib/lab/paths.js';

const files = readdirSync(NOTEBOOKS).filter((f) => f.endsWith('.ipynb'));

describe.each(files)('%s', (file) => {
  const notebook = readNotebook(join(NOTEBOOKS, file));
  const cells = notebook.cells
    .filter((c) => c.cell_type === 'code')
    .map((c) => ({ cell: c, source: sourceOf(c) }));
  let kernel: Kernel;
  let broken: string | undefined;

  beforeAll(async () => {
    kernel = await Kernel.start();
  });
  afterAll(async () => {
    await kernel.stop();
  });

  test('is committed without outputs', () => {
    expect(notebook['nbformat']).toBe(4);
    expect(notebook['metadata']).toMatchObject({ kernelspec: { name: 'tslab' } });
    expect(
      cells.filter((c) => (c.cell['outputs'] as unknown[]).length > 0 || c.cell['execution_count'] !== null),
    ).toEqual([]);
  });

  test('cells are short and no line is clipped', () => {
    for (const { source } of cells) {
      const lines = source.split('\n');
      expect(lines.length).toBeLessThanOrEqual(25);
      for (const line of lines) expect(line.length).toBeLessThanOrEqual(105);
    }
  });

  test.each(cells.map((c, i) => [i + 1, c.source.split('\n')[0]!, c.source] as const))(
    'cell %i: %s',
    async (number, _line, source) => {
      // what follows a failed cell would only repeat its failure
      expect(broken).toBeUndefined();
      const result = await kernel.run(source);
      const printed = result.outputs.map((o) => (o.output_type === 'stream' ? o.text : '')).join('');
      if (!result.ok) broken = `cell ${number} failed`;
      expect(result.ok, printed).toBe(true);
      const onStderr = result.outputs.filter((o) => o.output_type === 'stream' && o.name === 'stderr');
      expect(onStderr).toEqual([]);
    },
  );
});

describe('a kernel', () => {
  let kernel: Kernel;
  beforeAll(async () => {
    kernel = await Kernel.start();
  });
  afterAll(async () => {
    await kernel.stop();
  });

  /** Source of a cell and the message that it shows. */
  test.each([
    ["import { boot } from 'vmxlab'; await boot()", 'no VM can be created: kvm-intel is not loaded'],
    [
      "import { loadModule } from 'vmxlab'; loadModule('kvm-intel', { etp: false })",
      "unknown parameter 'etp'",
    ],
    ["import { loadModule } from 'vmxlab'; loadModule('kvm-amd' as any)", "there is no module 'kvm-amd'"],
    [
      "import { boot, loadModule } from 'vmxlab'; loadModule('kvm-intel'); await boot({ memory: 2 ** 20 })",
      'guest memory of 1048576 bytes',
    ],
    ["import { boot } from 'vmxlab'; await boot({ leaves: 'F1999' as any })", "unknown layout 'F1999'"],
    ["import { boot } from 'vmxlab'; await boot({ kernel: '/nonexistent' })", '/nonexistent does not exist'],
    ['const n: number = null', "Type 'null' is not assignable to type 'number'"],
  ])('%s: the cell shows the message, no stack of ours', async (source, message) => {
    const result = await kernel.run(source);
    const printed = result.outputs.map((o) => (o.output_type === 'stream' ? o.text : '')).join('');
    expect(result.ok).toBe(false);
    expect(printed).toContain(message);
    expect(printed).not.toMatch(/^ +at /m);
  });
});
