/** Notebook files (nbformat 4): reading, running cell by cell, and exporting to one self-contained HTML page. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { LabError } from '../../base/error.js';
import { JUPYTER } from '../paths.js';
import { NBCONVERT } from '../setup.js';
import { type CellOutput, type CellResult, Kernel } from './kernel.js';

export interface Cell {
  readonly cell_type: 'code' | 'markdown' | 'raw';
  readonly source: string | readonly string[];
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly [more: string]: unknown;
}

export interface Notebook {
  readonly cells: readonly Cell[];
  readonly [more: string]: unknown;
}

export const readNotebook = (file: string): Notebook => {
  if (!existsSync(file)) throw new LabError('notebook.file', `there is no notebook ${file}`);
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Notebook;
  } catch (e) {
    throw new LabError(
      'notebook.file',
      `${file} is not a notebook: ${e instanceof Error ? e.message : String(e)}`,
    );
  }
};

export const sourceOf = (cell: Cell): string =>
  typeof cell.source === 'string' ? cell.source : cell.source.join('');

const printed = (result: CellResult, name: 'stdout' | 'stderr'): string =>
  result.outputs.map((o) => (o.output_type === 'stream' && o.name === name ? o.text : '')).join('');

/** Called before and after each code cell. */
export interface Progress {
  readonly cell?: (number: number, of: number, source: string) => void;
  readonly done?: (number: number, of: number, result: CellResult) => void;
}

/**
 * Runs all code cells in a fresh kernel.
 * @returns the notebook with its outputs
 * @throws LabError naming the first cell that failed, with what it printed
 */
export const runNotebook = async (file: string, progress: Progress = {}): Promise<Notebook> => {
  const notebook = readNotebook(file);
  const kernel = await Kernel.start();
  try {
    const cells: Cell[] = [];
    const total = notebook.cells.filter((c) => c.cell_type === 'code').length;
    let number = 0;
    for (const cell of notebook.cells) {
      if (cell.cell_type !== 'code' || sourceOf(cell).trim() === '') {
        cells.push(cell);
        continue;
      }
      const source = sourceOf(cell);
      number++;
      progress.cell?.(number, total, source);
      const result = await kernel.run(source);
      progress.done?.(number, total, result);
      if (!result.ok) {
        const why = printed(result, 'stderr').trim() || printed(result, 'stdout').trim();
        throw new LabError(
          'notebook.cell',
          `${basename(file)}: code cell ${number} failed:\n${source}\n\n${why}`,
        );
      }
      cells.push({ ...cell, execution_count: result.count, outputs: result.outputs });
    }
    return { ...notebook, cells };
  } finally {
    await kernel.stop();
  }
};

/** What the executed code cells with a tag printed, as plain text. */
export const printedBy = (notebook: Notebook, tag: string): string =>
  notebook.cells
    .filter((c) => c.cell_type === 'code' && (c.metadata['tags'] as string[] | undefined)?.includes(tag))
    .flatMap((c) =>
      ((c['outputs'] ?? []) as CellOutput[]).map((o) =>
        o.output_type === 'stream' && o.name === 'stdout' ? o.text : '',
      ),
    )
    .join('');

/** Writes an executed notebook as one HTML file; the old file stays until the new one is complete. */
export const exportHtml = (notebook: Notebook, target: string): void => {
  if (!existsSync(NBCONVERT))
    throw new LabError(
      'notebook.nbconvert',
      'the notebook exporter is not installed',
      'run `npx vmxlab setup` (Debian package jupyter-nbconvert)',
    );
  const work = mkdtempSync(join(tmpdir(), 'vmxlab-export-'));
  try {
    const name = basename(target, '.html');
    const source = join(work, `${name}.ipynb`);
    writeFileSync(source, JSON.stringify(notebook));
    try {
      execFileSync(NBCONVERT, ['--to', 'html', '--template', 'vmxlab', '--output-dir', work, source], {
        env: { ...process.env, JUPYTER_PATH: JUPYTER },
        stdio: ['ignore', 'ignore', 'pipe'],
      });
    } catch (e) {
      const stderr =
        (e as { stderr?: Buffer }).stderr?.toString().trim().split('\n').slice(-3).join('\n') ?? String(e);
      throw new LabError('notebook.export', `nbconvert could not export ${name}: ${stderr}`);
    }
    mkdirSync(dirname(target), { recursive: true });
    const part = `${target}.${process.pid}.part`;
    try {
      writeFileSync(part, readFileSync(join(work, `${name}.html`)));
      renameSync(part, target);
    } catch (e) {
      rmSync(part, { force: true });
      throw new LabError(
        'notebook.export',
        `${target} could not be written: ${e instanceof Error ? e.message : String(e)}`,
      );
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
};
