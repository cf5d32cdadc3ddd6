/** `vmxlab fidelity`: the recorded runs on real KVM, repeated here, and the counts side by side. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { LabError } from '../base/error.js';
import { RUN_IDS, STOPS, type Stop } from '../fidelity/names.js';
import { REPORTS } from '../lab/paths.js';
import type { RunId } from '../lab/reference.js';
import { writeWhole } from './files.js';
import { progressText } from './result.js';
import { interruptible, ProgressLine } from './terminal.js';
import { oneOf } from './values.js';

const runIds = (text: string): RunId[] =>
  text.split(',').map((name) => {
    const id = RUN_IDS.find((r) => r === name.trim());
    if (id === undefined)
      throw new LabError('cli.value', `--runs: there is no recorded run '${name}'`, RUN_IDS.join(', '));
    return id;
  });

interface Flags {
  readonly runs: readonly RunId[];
  readonly until: Stop;
}

const run = async (flags: Flags): Promise<number> => {
  const { fidelity } = await import('../fidelity/fidelity.js');
  const { reportHtml, sectionText, summaryText, tally } = await import('../fidelity/report.js');
  const line = new ProgressLine();
  const started = performance.now();
  const report = await interruptible((controller) =>
    fidelity({
      ...flags,
      signal: controller.signal,
      onProgress: (id, n) => line.show(progressText(`run ${id}`, n, started)),
      onSections: (sections, judged) => {
        line.clear();
        for (const s of sections) process.stdout.write(`${sectionText(s, judged)}\n\n`);
      },
    }),
  ).finally(() => line.clear());
  for (const l of report.micro)
    process.stdout.write(
      `${l.id} micro ${l.test} ${l.name}, round ${l.round}: ${l.ours} | KVM ${l.theirs}\n`,
    );
  process.stdout.write(`${[...report.notes, summaryText(report)].join('\n')}\n`);
  mkdirSync(REPORTS, { recursive: true });
  const file = join(REPORTS, 'fidelity.html');
  writeWhole(file, reportHtml(report));
  process.stderr.write(`written: ${file}\n`);
  return report.judged && tally(report).missed > 0 ? 4 : 0;
};

const HELP = `
The runs are those of data/reference/real-kvm-exits.json: a (EPT), b (shadow), c (shadow, page-table isolation),
d (EPT, page-table isolation), aA and bA (a and b with ACPI tables). The tables go to stdout and to
data/report/fidelity.html. The status is 4 when a band is missed.`;

export const addFidelity = (program: Command, done: (status: number) => void): Command =>
  program
    .command('fidelity')
    .description('repeat the recorded runs on real KVM and compare the exit counts')
    .addOption(
      new Option('--runs <LIST>', `which runs, of ${RUN_IDS.join(',')}`)
        .argParser(runIds)
        .default(RUN_IDS, 'all'),
    )
    .addOption(
      new Option('--until <PLACE>', `how far: ${STOPS.join(', ')}`)
        .argParser(oneOf('--until', STOPS))
        .default('micro' satisfies Stop),
    )
    .addHelpText('after', HELP)
    .action(async (flags: Flags) => done(await run(flags)));
