/**
 * One measured boot of vmxlab, in a process of its own: `child.js REQUEST` prints a `Sample` as JSON.
 *
 * With `profile` the clock is read around each VM entry and each stretch of guest execution, through functions put over
 * those of this one machine: the code that is measured otherwise has no hook and no cost. The profile therefore comes
 * from a run of its own, and each exit in it contains about 0.1 µs of clock reading.
 */

import { INIT_LINE, WORKLOAD_DONE } from '../../lib/guests/debian/init.js';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { boot, type Machine, type Paging } from '../../lib/lab/machine.js';
import type { Mark, MarkName, Profile, Sample } from './sample.js';

export interface Request {
  readonly paging: Paging;
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

/** Puts a clock around the parts of this machine; the result is valid when the run has ended. */
const profiled = ({ hardware }: Machine): (() => Profile) => {
  const { port, processor } = hardware;
  const enter = port.enter.bind(port);
  const run = processor.run.bind(processor);
  const exits = new Float64Array(0x1_0000);
  const time = new Float64Array(0x1_0000);
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
      exits[reason]++;
      time[reason] += from - since;
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
    reasons: Object.fromEntries(
      [...exits.entries()]
        .filter(([, n]) => n > 0)
        .map(([r, n]) => [r, { exits: n, seconds: time[r]! / 1000 }]),
    ),
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
  try {
    const hypervisor = new Hypervisor();
    hypervisor.loadModule('kvm-intel', { ept: request.paging === 'ept' });
    const result = await boot(hypervisor, {
      memory: request.memory,
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
