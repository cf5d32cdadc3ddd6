/** Boots configurations of the recorded runs one after the other and puts the comparison together. */
import { LabError } from '../base/error.js';
import { type ReferenceRun, type RunId, reference } from '../lab/reference.js';
import { PLACES, TIME_DRIVEN } from './bands.js';
import { type FidelityGuest, fidelityGuest } from './guest.js';
import type { Stop } from './names.js';
import type { MicroLine, Report, Section } from './report.js';
import { type OurRun, runConfiguration } from './run.js';
import { compare, markerAt } from './table.js';

export interface FidelityOptions {
  readonly runs: readonly RunId[];
  readonly until: Stop;
  readonly signal?: AbortSignal;
  readonly onProgress?: (id: RunId, instructions: number) => void;
  /** A configuration is done. */
  readonly onSections?: (sections: readonly Section[], judged: boolean) => void;
}

export { RUN_IDS } from './names.js';

/** Reasons that a timer interrupt inside a bracket makes: port I/O and MSR writes besides the time-driven ones. */
const timer = (reason: number): boolean => TIME_DRIVEN.has(reason) || reason === 30 || reason === 32;
const microText = (exits: Readonly<Record<string, number>>): string =>
  Object.entries(exits)
    .filter(([reason, n]) => !timer(Number(reason)) && n !== 0)
    .map(([reason, n]) => `${reason}: ${n}`)
    .join('; ') || '0';

/** Our brackets beside the recorded ones. */
export const microLines = (run: ReferenceRun, ours: OurRun): MicroLine[] =>
  ours.micro.flatMap((m) => {
    const real = run.micro?.find((r) => r.test === m.test && r.round === m.round);
    if (real === undefined) return [];
    const [mine, theirs] = [microText(m.exits), microText(real.exits)];
    return [
      {
        id: run.id,
        test: m.test,
        name: real.name,
        round: m.round,
        ours: mine,
        theirs,
        same: mine === theirs,
      },
    ];
  });

const sectionsOf = (run: ReferenceRun, ours: OurRun): Section[] =>
  PLACES.flatMap((place) => {
    const mine = ours.at[place];
    const real = markerAt(run, place);
    if (mine === undefined || real === undefined) return [];
    return [{ id: run.id, description: run.description, place, lines: compare(place, mine, real) }];
  });

const notesOf = (guest: FidelityGuest): string[] => [
  `vmlinux sha256 ${guest.kernelSha256}${guest.sameKernel ? ', the recorded kernel' : ''}`,
  ...guest.notes,
];

export const fidelity = async (options: FidelityOptions): Promise<Report> => {
  const guest = await fidelityGuest();
  const sections: Section[] = [];
  const micro: MicroLine[] = [];
  for (const id of options.runs) {
    const run = reference().runs.find((r) => r.id === id);
    if (run === undefined) throw new LabError('fidelity.run', `there is no recorded run '${id}'`);
    const ours = await runConfiguration(run, guest, options.until, {
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      ...(options.onProgress === undefined ? {} : { onProgress: (n: number) => options.onProgress?.(id, n) }),
    });
    const { outcome, detail } = ours.result;
    if (outcome !== 'until')
      throw new LabError(
        'fidelity.ended',
        `run ${id} ended before its last line: ${outcome} ${detail ?? ''}`,
      );
    const own = sectionsOf(run, ours);
    sections.push(...own);
    micro.push(...microLines(run, ours));
    options.onSections?.(own, guest.sameKernel);
  }
  return { notes: notesOf(guest), judged: guest.sameKernel, sections, micro };
};
