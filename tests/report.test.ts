/** The exported page, in headless Chromium where it is installed: nothing is loaded from elsewhere, charts are drawn. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Browser, chromium } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { exitChart } from '../lib/lab/charts.js';
import { frameToHTML } from '../lib/lab/frame.js';
import { exportHtml, type Notebook, printedBy } from '../lib/lab/notebook/notebook.js';
import { chart, vegaLibraryHTML } from '../lib/lab/plot.js';

const CHROMIUM = '/usr/bin/chromium';
const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const folder = mkdtempSync(join(tmpdir(), 'vmxlab-report-'));
const page = join(folder, 'page.html');

const html = (text: string) => ({ output_type: 'display_data', data: { 'text/html': text }, metadata: {} });
const code = (source: string, outputs: readonly unknown[], tags: readonly string[] = []) => ({
  cell_type: 'code' as const,
  metadata: { tags },
  source,
  execution_count: 1,
  outputs,
});

/** A notebook as the lab's looks when it has run: library, table, chart, text with a green tick. */
const executed = async (): Promise<Notebook> => ({
  cells: [
    { cell_type: 'markdown', metadata: {}, source: '# A report\n\nwith **text**' },
    code('library', [html(vegaLibraryHTML())]),
    code('table', [html(frameToHTML([{ type: 14, exits: 1234567 }]))]),
    code('chart', [html(await chart(exitChart({ 10: 5 }, { 10: 5, 14: 100 }, 'INVLPG appears')))]),
    code(
      'check',
      [{ output_type: 'stream', name: 'stdout', text: '\u001b[32m✓\u001b[0m it holds\n' }],
      ['claims'],
    ),
  ],
  metadata: {
    kernelspec: { name: 'tslab', language: 'typescript', display_name: 'TypeScript' },
    language_info: { name: 'typescript' },
  },
  nbformat: 4,
  nbformat_minor: 5,
});

let browser: Browser | undefined;
beforeAll(async () => {
  const notebook = await executed();
  exportHtml(notebook, page);
  expect(printedBy(notebook, 'claims')).toContain('it holds');
  if (existsSync(CHROMIUM)) browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGS });
});
afterAll(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

test('the page is one file that names nothing to load', () => {
  // what a library has in its code is not the page's
  const text = readFileSync(page, 'utf8').replaceAll(/(<script[^>]*>)[\s\S]*?<\/script>/g, '$1</script>');
  const loads = [
    ...text.matchAll(/<(?:script|img|iframe)[^>]+src=["'](?!data:)[^>]*>/g),
    ...text.matchAll(/<link[^>]+href=["'](?!data:|#)[^>]*>/g),
    ...text.matchAll(/@import[^;]*;|url\(["']?(?:https?:|file:)[^)]*\)/g),
  ].map((m) => m[0]);
  expect(loads).toEqual([]);
});

test.skipIf(!existsSync(CHROMIUM))(
  'in Chromium: one request, no message, the chart is drawn and answers the mouse',
  async () => {
    const tab = await browser!.newPage();
    const requests: string[] = [];
    const messages: string[] = [];
    tab.on('request', (r) => {
      if (!r.url().startsWith('data:')) requests.push(r.url());
    });
    tab.on('console', (m) => messages.push(m.text()));
    tab.on('pageerror', (e) => messages.push(e.message));
    await tab.goto(pathToFileURL(page).href);
    const drawn = tab.locator('.vmxlab-chart .vega-embed svg, .vmxlab-chart.vega-embed svg');
    await drawn.first().waitFor();
    expect(await drawn.count()).toBe(1);
    expect(await drawn.first().locator('path').count()).toBeGreaterThan(5);
    expect(await tab.getByText('INVLPG appears').count()).toBe(1);
    expect(await tab.getByText('1,234,567').count()).toBe(1);
    expect(requests).toEqual([pathToFileURL(page).href]);
    expect(messages).toEqual([]);
  },
);

test.skipIf(!existsSync(CHROMIUM))('without scripts the static chart is there', async () => {
  const context = await browser!.newContext({ javaScriptEnabled: false });
  const tab = await context.newPage();
  await tab.goto(pathToFileURL(page).href);
  expect(await tab.locator('.vmxlab-chart svg path').count()).toBeGreaterThan(5);
  await context.close();
});
