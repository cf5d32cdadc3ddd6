/** `vmxlab lab`, `setup` and `notebook`: the notebook as a report, what it needs, and Jupyter on it. */
import { mkdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { Command } from 'commander';
import { InvariantError, LabError } from '../base/error.js';
import { DEBIAN_NAMES, type DebianName } from '../guests/debian/flavours.js';
import { openNotebooks } from '../lab/notebook/serve.js';
import { NOTEBOOKS, REPORTS } from '../lab/paths.js';
import type { Paging } from '../lab/run-types.js';
import { setUp, setUpJupyter } from '../lab/setup.js';
import type { TinyRun } from '../lab/tiny-report.js';
import { writeWhole } from './files.js';
import { summary } from './result.js';
import { ProgressLine } from './terminal.js';
import { oneOf } from './values.js';

/** The notebook that is the lab's report, and the tag of the cell that prints the comparison. */
export const LAB_NOTEBOOK = '01-nested-vs-shadow';
export const COMPARISON_TAG = 'comparison';

const reportOf = (name: string): string => join(REPORTS, `${name}.html`);

const say = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

/** The comparison on the built-in guest, which needs nothing that is not here. */
const tinyLab = async (why: string): Promise<number> => {
  say(`The lab runs its built-in guest instead of Debian: ${why}.`);
  const { bootPredicted } = await import('../lab/prediction.js');
  const { tinyHtml, tinyText } = await import('../lab/tiny-report.js');
  const started = performance.now();
  const runs = async (paging: Paging): Promise<TinyRun> => {
    const { run, prediction } = await bootPredicted(paging);
    say(`  ${summary(run)}`);
    if (prediction === undefined) throw new InvariantError(`the built-in guest ended with ${run.outcome}`);
    return { run, prediction };
  };
  const both = { ept: await runs('ept'), shadow: await runs('shadow') };
  mkdirSync(REPORTS, { recursive: true });
  const target = join(REPORTS, 'tiny.html');
  writeWhole(target, await tinyHtml(both, `Debian could not be had: ${why}.`));
  say(`done in ${((performance.now() - started) / 1000).toFixed(0)} s`);
  process.stdout.write(`${tinyText(both)}\n\nreport: ${relative(process.cwd(), target)}\n`);
  return both.ept.prediction.exact && both.shadow.prediction.exact ? 0 : 4;
};

/** Runs one notebook and exports it. @returns what the cells with the tag `COMPARISON_TAG` printed */
const report = async (name: string): Promise<string> => {
  // loads zeromq, which the other commands do not need
  const { exportHtml, printedBy, runNotebook } = await import('../lab/notebook/notebook.js');
  const line = new ProgressLine();
  const started = performance.now();
  say(`running notebooks/${name}.ipynb`);
  const notebook = await runNotebook(join(NOTEBOOKS, `${name}.ipynb`), {
    cell: (n, of, source) => line.show(`[${n}/${of}] ${source.trim().split('\n')[0] ?? ''}`),
    done: (n, of, result) => {
      line.clear();
      if (result.milliseconds > 1000)
        say(`  cell ${n} of ${of}: ${(result.milliseconds / 1000).toFixed(1)} s`);
    },
  }).finally(() => line.clear());
  line.show('exporting');
  exportHtml(notebook, reportOf(name));
  line.clear();
  say(`done in ${((performance.now() - started) / 1000).toFixed(0)} s`);
  return printedBy(notebook, COMPARISON_TAG).trimEnd();
};

const lab = async (all: boolean): Promise<number> => {
  try {
    setUp(say);
  } catch (e) {
    // no apt, no root, no network: the lab works all the same
    if (!(e instanceof LabError)) throw e;
    return await tinyLab(e.message);
  }
  if (!all) {
    const comparison = await report(LAB_NOTEBOOK);
    process.stdout.write(`${comparison}\n\nreport: ${relative(process.cwd(), reportOf(LAB_NOTEBOOK))}\n`);
    return 0;
  }
  const { notebookNames, writeIndex } = await import('../lab/notebook/index-page.js');
  const names = notebookNames();
  const comparisons: string[] = [];
  for (const name of names) comparisons.push(await report(name));
  const index = join(REPORTS, 'index.html');
  writeIndex(names, index);
  const files = [...names.map(reportOf), index].map((f) => `report: ${relative(process.cwd(), f)}`);
  process.stdout.write(`${comparisons.filter((c) => c !== '').join('\n\n')}\n\n${files.join('\n')}\n`);
  return 0;
};

const LAB_HELP = `
Where Debian's packages cannot be had (no apt, no network), the lab says so and compares the two kinds of
paging on its built-in guest, whose report is data/report/tiny.html.`;

export const addLab = (program: Command, done: (status: number) => void): Command[] => [
  program
    .command('lab')
    .description("set up what is missing, run the lab's notebook, and write its report")
    .option('--all', 'run every notebook, and write an index of the reports')
    .addHelpText('after', LAB_HELP)
    .action(async (flags: { readonly all?: boolean }) => done(await lab(flags.all === true))),
  program
    .command('setup')
    .description('install the notebook exporter and download the Debian guest')
    .option('--force', 'download the Debian guest again, in its current version')
    .option(
      '--guest <NAME>',
      `which guest: ${DEBIAN_NAMES.join(', ')}`,
      oneOf('--guest', DEBIAN_NAMES),
      'debian',
    )
    .action((flags: { readonly force?: boolean; readonly guest: DebianName }) => {
      setUp(say, flags.force === true, flags.guest);
      say('everything is there');
      done(0);
    }),
  program
    .command('notebook')
    .description('open the notebooks in Jupyter, installing it if needed')
    .option('--no-browser', 'only print the address')
    .option('--port <N>', 'port of the server')
    .action(async (flags: { readonly browser: boolean; readonly port?: string }) => {
      setUp(say);
      setUpJupyter(say);
      done(
        await openNotebooks({
          browser: flags.browser,
          ...(flags.port === undefined ? {} : { port: flags.port }),
        }),
      );
    }),
];
