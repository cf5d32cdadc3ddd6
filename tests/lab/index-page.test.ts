import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { headOf, notebookNames, writeIndex } from '../../lib/lab/notebook/index-page.js';
import { readNotebook } from '../../lib/lab/notebook/notebook.js';
import { NOTEBOOKS } from '../../lib/lab/paths.js';

test('every notebook has a title and a question', () => {
  const names = notebookNames();
  expect(names[0]).toBe('01-nested-vs-shadow');
  expect(names).toEqual([...names].sort());
  for (const name of names) {
    const { title, question } = headOf(readNotebook(join(NOTEBOOKS, `${name}.ipynb`)));
    expect(title.length).toBeGreaterThan(5);
    expect(question).toMatch(/\?$/);
  }
});

test('the index links to each report beside it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'vmxlab-index-'));
  try {
    const names = notebookNames();
    writeIndex(names, join(folder, 'sub', 'index.html'));
    const html = readFileSync(join(folder, 'sub', 'index.html'), 'utf8');
    expect([...html.matchAll(/href="([^"]+)"/g)].map((m) => m[1])).toEqual(names.map((n) => `${n}.html`));
    expect(html).toContain('Nested paging against shadow paging');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
