/**
 * One measured boot of vmxlab, in a process of its own: `child.js REQUEST` prints a `Sample` as JSON.
 *
 * With `profile` the clock is read around each VM entry and each stretch of guest execution, through functions put over
 * those of this one machine: the code that is measured otherwise has no hook and no cost. The profile therefore comes
 * from a run of its own, and each exit in it contains about 0.2 µs of clock reading.
 */

import { INIT_LINE, WORKLOAD_DONE } from '../../lib/guests/debian/init.js';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { boot, type Machine, type Paging } from '../../lib/lab/machine.js';
import type { Mark, MarkName, Profile, ReasonProfile, Sample } from './sample.js';

export interface Request {
  readonly paging: Paging;
  /** Page-table isolation in the guest. */
  readonly pti: boolean;
  readonly to: 'init' | 'end';
  /** Bytes of guest memory. */
  readonly memory: number;
  readonly profile: boolean;
}

/** A guest that has not ended by then hangs. */
const MAX_INSTRUCTIONS = 20e9;

const sum = (counts: Readonly<Record<number, number>>): number =>
  Object.values(counts).reduce((s, n) => s + n, 0);

const read = (instructions: number, exits: number): Mark => {
  const { user, system } = process.cpuUsage();
  return {
    wall: performance.now() / 1000,
    cpu: (user + system) / 1e6,
    peak: process.resourceUsage().maxRSS * 1024,
    instructions,
    exits,
  };
};

/** Bins of a logarithmic histogram of times: 16 an octave, from 10 ns to 16 s. */
const BINS_PER_OCTAVE = 16;
const BINS = 31 * BINS_PER_OCTAVE;
const FIRST_BIN = 1e-5;
const binOf = (milliseconds: number): number =>
  Math.max(0, Math.min(BINS - 1, Math.floor(Math.log2(milliseconds / FIRST_BIN) * BINS_PER_OCTAVE)));

/** Exits of one reason. */
class Times {
  exits = 0;
  #sum = 0;
  readonly #histogram = new Uint32Array(BINS);
  add(milliseconds: number): void {
    this.exits++;
    this.#sum += milliseconds;
    this.#histogram[binOf(milliseconds)]++;
  }
  profile(): ReasonProfile {
    let before = 0;
    let bin = 0;
    while (before + this.#histogram[bin] < this.exits / 2) before += this.#histogram[bin++];
    const middle = FIRST_BIN * 2 ** ((bin + 0.5) / BINS_PER_OCTAVE);
    return { exits: this.exits, seconds: this.#sum / 1000, median: middle / 1000 };
  }
}

/** Puts a clock around the parts of this machine; the result is valid when the run has ended. */
const profiled = ({ hardware }: Machine): (() => Profile) => {
  const { port, processor } = hardware;
  const enter = port.enter.bind(port);
  const run = processor.run.bind(processor);
  const times = new Map<number, Times>();
  let guest = 0;
  let entered = 0;
  let reason = -1;
  let since = 0;
  processor.run = (limit) => {
    const from = performance.now();
    const end = run(limit);
    guest += performance.now() - from;
    return end;
  };
  port.enter = (instruction, limit) => {
    const from = performance.now();
    if (reason >= 0) {
      let of = times.get(reason);
      if (of === undefined) {
        of = new Times();
        times.set(reason, of);
      }
      of.add(from - since);
    }
    const outcome = enter(instruction, limit);
    since = performance.now();
    entered += since - from;
    reason = 'exit' in outcome ? outcome.exit & 0xffff : -1;
    return outcome;
  };
  return () => ({
    guest: guest / 1000,
    switches: (entered - guest) / 1000,
    reasons: Object.fromEntries([...times].map(([reason, t]) => [reason, t.profile()])),
  });
};

const measure = async (request: Request): Promise<Sample> => {
  const marks: Partial<Record<MarkName, Mark>> = {};
  let profile: (() => Profile) | undefined;
  const done = (problem?: string): Sample => ({
    marks,
    ...(profile === undefined ? {} : { profile: profile() }),
    ...(problem === undefined ? {} : { problem }),
  });
  marks.loaded = read(0, 0);
  try {
    const hypervisor = new Hypervisor();
    hypervisor.loadModule('kvm-intel', { ept: request.paging === 'ept' });
    const result = await boot(hypervisor, {
      memory: request.memory,
      ...(request.pti ? { pti: true } : {}),
      until: request.to === 'init' ? INIT_LINE : WORKLOAD_DONE,
      maxInstructions: MAX_INSTRUCTIONS,
      onMachine: (machine) => {
        if (request.profile) profile = profiled(machine);
        marks.start = read(0, 0);
      },
      onPhase: (phase) => {
        marks[phase.name === 'boot' ? 'init' : 'end'] = read(phase.instructions, sum(phase.exits));
      },
    });
    if (result.outcome === 'until') return done();
    const last = result.console.trimEnd().split('\n').at(-1)?.trim() ?? '';
    const why = result.detail === undefined ? '' : `, ${result.detail.split('\n')[0]}`;
    const millions = (result.instructions / 1e6).toFixed(1);
    return done(`${result.outcome} after ${millions} M instructions${why}; last console line: '${last}'`);
  } catch (e) {
    return done(e instanceof Error ? (e.stack ?? e.message).split('\n').slice(0, 3).join(' ') : String(e));
  }
};

process.stdout.write(JSON.stringify(await measure(JSON.parse(process.argv[2]!) as Request)));
