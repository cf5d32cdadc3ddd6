/** From samples to what is printed: phases, ratios, the profile of exits, and the goals. */
import { reasonName } from '../../lib/hypervisor/reasons.js';
import {
  type Configuration,
  type Mark,
  type MarkName,
  OURS,
  type Ours,
  type Profile,
  type Sample,
  TITLE,
} from './sample.js';
import { type Column, decimal, median, percent, spread, table } from './table.js';

export type Samples = Partial<Record<Configuration, readonly Sample[]>>;

const MIB = 2 ** 20;
const ZERO: Mark = { wall: 0, cpu: 0, peak: 0, instructions: 0, exits: 0 };

/** Stretches of a run: each from one mark (the start of the process without one) to another. */
const PHASES: readonly { readonly title: string; readonly from?: MarkName; readonly to: MarkName }[] = [
  { title: 'loading the program', to: 'loaded' },
  { title: 'set-up of the machine', from: 'loaded', to: 'start' },
  { title: 'first instruction to INIT', from: 'start', to: 'init' },
  { title: 'workload (INIT to its end)', from: 'init', to: 'end' },
  { title: 'all, process start to INIT', to: 'init' },
  { title: 'all, process start to end', to: 'end' },
];

/** Medians over the samples that have both marks. */
export interface PhaseFigures {
  readonly wall: number;
  readonly cpu: number;
  /** Relative spread of the wall time. */
  readonly spread: number;
  readonly peak: number;
  readonly instructions?: number;
  readonly exits?: number;
}

export const phaseFigures = (
  samples: readonly Sample[],
  to: MarkName,
  from?: MarkName,
): PhaseFigures | undefined => {
  const pairs: (readonly [Mark, Mark])[] = [];
  for (const { marks } of samples) {
    const a = from === undefined ? ZERO : marks[from];
    const b = marks[to];
    if (a !== undefined && b !== undefined) pairs.push([a, b]);
  }
  if (pairs.length === 0) return undefined;
  const over = (f: (m: Mark) => number): number[] => pairs.map(([a, b]) => f(b) - f(a));
  const counted = pairs.every(([, b]) => b.instructions !== undefined);
  return {
    wall: median(over((m) => m.wall)),
    cpu: median(over((m) => m.cpu)),
    spread: spread(over((m) => m.wall)),
    peak: median(pairs.map(([, b]) => b.peak)),
    ...(counted
      ? { instructions: median(over((m) => m.instructions ?? 0)), exits: median(over((m) => m.exits ?? 0)) }
      : {}),
  };
};

const PHASE_COLUMNS: readonly Column[] = [
  { head: '', align: 'left' },
  { head: '', align: 'left' },
  { head: 'M instr' },
  { head: 'wall s' },
  { head: 'spread' },
  { head: 'CPU s' },
  { head: 'M/s wall' },
  { head: 'M/s CPU' },
  { head: 'exits' },
  { head: 'peak MiB' },
];

const phaseRow = (name: string, title: string, f: PhaseFigures): string[] => {
  const millions = f.instructions === undefined ? undefined : f.instructions / 1e6;
  const rate = (seconds: number): string =>
    millions === undefined || millions === 0 ? '' : decimal(millions / seconds, 1);
  return [
    name,
    title,
    millions === 0 ? '' : decimal(millions, 1),
    decimal(f.wall, 2),
    percent(f.spread),
    decimal(f.cpu, 2),
    rate(f.wall),
    rate(f.cpu),
    millions === 0 ? '' : decimal(f.exits, 0),
    decimal(f.peak / MIB, 0),
  ];
};

/** Every configuration, phase by phase. */
export const phaseTable = (samples: Samples): string => {
  const rows: string[][] = [];
  for (const [name, list] of Object.entries(samples) as [Configuration, readonly Sample[]][]) {
    let title = TITLE[name];
    for (const p of PHASES) {
      const figures = phaseFigures(list, p.to, p.from);
      if (figures === undefined) continue;
      rows.push(phaseRow(title, p.title, figures));
      title = '';
    }
  }
  return table(PHASE_COLUMNS, rows);
};

/** How many times as long each mode takes as another emulator, from process start. */
export const ratioTable = (samples: Samples): string | undefined => {
  const rows: string[][] = [];
  for (const ours of OURS)
    for (const theirs of ['qemu', 'bochs'] as const)
      for (const [to, title] of [
        ['init', 'to INIT'],
        ['end', 'to the end'],
      ] as const) {
        const a = phaseFigures(samples[ours] ?? [], to);
        const b = phaseFigures(samples[theirs] ?? [], to);
        if (a === undefined || b === undefined) continue;
        const times = (x: number, y: number): string => `${decimal(x / y, 2)}×`;
        rows.push([`${TITLE[ours]} / ${TITLE[theirs]}`, title, times(a.wall, b.wall), times(a.cpu, b.cpu)]);
      }
  if (rows.length === 0) return undefined;
  return table(
    [{ head: 'seconds', align: 'left' }, { head: '', align: 'left' }, { head: 'wall' }, { head: 'CPU' }],
    rows,
  );
};

/** Where the time of one run went, and what an exit of each reason costs the hypervisor. */
export const profileTable = (p: Profile): string => {
  const reasons = Object.entries(p.reasons).sort(([, a], [, b]) => b.seconds - a.seconds);
  const exits = reasons.reduce((n, [, r]) => n + r.exits, 0);
  const handling = reasons.reduce((n, [, r]) => n + r.seconds, 0);
  const all = p.guest + p.switches + handling;
  const micro = (seconds: number | undefined): string =>
    decimal(seconds === undefined ? undefined : seconds * 1e6, 2);
  const row = (n: string, name: string, seconds: number, count?: number, typical?: number): string[] => [
    n,
    name,
    decimal(count, 0),
    decimal(seconds, 3),
    micro(count === undefined ? undefined : seconds / count),
    micro(typical),
    percent(seconds / all),
  ];
  return table(
    [
      { head: '#' },
      { head: 'exit reason', align: 'left' },
      { head: 'exits' },
      { head: 'seconds' },
      { head: 'µs/exit' },
      { head: 'median µs' },
      { head: 'of the run' },
    ],
    [
      ...reasons.map(([n, r]) => row(n, reasonName(Number(n)), r.seconds, r.exits, r.median)),
      row('', 'all in the hypervisor', handling, exits),
      row('', 'VM entries and VM exits', p.switches, exits),
      row('', 'executing the guest', p.guest),
    ],
  );
};

/** Least speed to INIT with EPT, in M instructions/s, and that of shadow paging relative to it. */
const RATE_GOAL = 85;
const SHADOW_GOAL = 0.6;
const SETUP_GOAL = 0.5;
const PEAK_GOAL = 400 * MIB;
const BOOT_GOAL = 500e6;

/** Most time of shadow paging with page-table isolation, relative to EPT, to the end of the workload. */
const PTI_GOAL = 1.5;
/** Most seconds that an exit may take on average with shadow paging. */
const EXIT_GOAL = 3e-6;

/** One line a goal: measured, wanted, met or missed; only what was measured. `memory` is the guest's, in bytes. */
export const goalLines = (
  samples: Samples,
  memory: number,
  profiles: Partial<Record<Configuration, Profile>> = {},
): string[] => {
  const lines: string[] = [];
  const goal = (what: string, measured: string, wanted: string, met: boolean): void => {
    lines.push(`${met ? 'met   ' : 'missed'}  ${what}: ${measured} (goal: ${wanted})`);
  };
  const figures = (name: Ours, to: MarkName): PhaseFigures | undefined =>
    phaseFigures(samples[name] ?? [], to);
  const rate = (f: PhaseFigures, seconds: 'wall' | 'cpu'): number => (f.instructions ?? 0) / 1e6 / f[seconds];
  const [ept, shadow] = [figures('ept', 'init'), figures('shadow', 'init')];
  for (const [seconds, title] of [
    ['wall', 'wall'],
    ['cpu', 'CPU'],
  ] as const) {
    if (ept === undefined) continue;
    const r = rate(ept, seconds);
    goal(`EPT to INIT, by ${title} time`, `${decimal(r, 1)} M/s`, `at least ${RATE_GOAL}`, r >= RATE_GOAL);
    if (shadow === undefined) continue;
    const relative = rate(shadow, seconds) / r;
    goal(
      `shadow / EPT speed to INIT, by ${title} time`,
      decimal(relative, 2),
      `at least ${SHADOW_GOAL}`,
      relative >= SHADOW_GOAL,
    );
  }
  const [last, isolated] = [figures('ept', 'end'), figures('shadow-pti', 'end')];
  if (last !== undefined && isolated !== undefined)
    for (const [seconds, title] of [
      ['wall', 'wall'],
      ['cpu', 'CPU'],
    ] as const) {
      const times = isolated[seconds] / last[seconds];
      goal(
        `shadow with PTI / EPT to the end, by ${title} time`,
        decimal(times, 2),
        `at most ${PTI_GOAL}`,
        times <= PTI_GOAL,
      );
    }
  for (const name of ['shadow', 'shadow-pti'] as const) {
    const profile = profiles[name];
    if (profile === undefined) continue;
    const reasons = Object.values(profile.reasons);
    const exits = reasons.reduce((n, r) => n + r.exits, 0);
    const mean = reasons.reduce((n, r) => n + r.seconds, 0) / exits;
    const typical = reasons.reduce((n, r) => n + r.exits * r.median, 0) / exits;
    const micro = (seconds: number): string => `${decimal(seconds * 1e6, 2)} µs`;
    goal(
      `${TITLE[name]}, handling of an exit`,
      `${micro(mean)} on average (by the medians of the reasons ${micro(typical)})`,
      `under ${micro(EXIT_GOAL)}`,
      mean < EXIT_GOAL,
    );
  }
  for (const name of OURS) {
    const setup = phaseFigures(samples[name] ?? [], 'start', 'loaded');
    if (setup !== undefined)
      goal(
        `${TITLE[name]} set-up`,
        `${decimal(setup.wall, 2)} s`,
        `under ${SETUP_GOAL}`,
        setup.wall < SETUP_GOAL,
      );
    const last = figures(name, 'end') ?? figures(name, 'init');
    if (last !== undefined)
      goal(
        `${TITLE[name]} peak memory`,
        `${decimal(last.peak / MIB, 0)} MiB`,
        `under ${decimal((memory + PEAK_GOAL) / MIB, 0)}`,
        last.peak < memory + PEAK_GOAL,
      );
  }
  if (ept?.instructions !== undefined)
    goal(
      'EPT instructions to INIT',
      `${decimal(ept.instructions / 1e6, 0)} M`,
      'under 500',
      ept.instructions < BOOT_GOAL,
    );
  return lines;
};

/** Modes whose guest did not do the same in every round: it should, to the instruction. */
export const unequalRounds = (samples: Samples): Ours[] =>
  OURS.filter((name) => {
    const seen = (samples[name] ?? []).map(({ marks: { init, end } }) =>
      [init?.instructions, init?.exits, end?.instructions, end?.exits].join(),
    );
    return new Set(seen).size > 1;
  });
