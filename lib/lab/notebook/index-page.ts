/** A page that lists the exported notebooks, each with its question. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { NOTEBOOKS } from '../paths.js';
import { type Notebook, readNotebook, sourceOf } from './notebook.js';

/** The notebooks of this project, in order, without the ending. */
export const notebookNames = (): string[] =>
  readdirSync(NOTEBOOKS)
    .filter((f) => f.endsWith('.ipynb'))
    .map((f) => f.slice(0, -'.ipynb'.length))
    .sort();

/** Title and question of a notebook: the first heading of its first cell, and the first paragraph in italics. */
export const headOf = (notebook: Notebook): { readonly title: string; readonly question: string } => {
  const first = notebook.cells[0];
  const source = first === undefined ? '' : sourceOf(first);
  return {
    title: /^# (.+)$/m.exec(source)?.[1] ?? '',
    question: /^\*([^*]+)\*$/m.exec(source)?.[1] ?? '',
  };
};

const escapeHTML = (s: string): string =>
  s.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** Writes the list as HTML, with links to the reports beside it. */
export const writeIndex = (names: readonly string[], target: string): void => {
  const items = names.map((name) => {
    const { title, question } = headOf(readNotebook(join(NOTEBOOKS, `${name}.ipynb`)));
    return `<li><a href="${name}.html">${escapeHTML(title)}</a><br>${escapeHTML(question)}</li>`;
  });
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(
    target,
    `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>vmxlab: the notebooks</title>
<style>body{font-family:sans-serif;max-width:720px;margin:3em auto;padding:0 1em;line-height:1.5}li{margin-bottom:1em}a{font-weight:bold}</style>
</head><body><h1>The notebooks</h1><ol>
${items.join('\n')}
</ol></body></html>
`,
  );
};
