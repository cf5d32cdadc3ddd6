/**
 * `vmxlab trace`: boots a guest and writes what its hypervisor did, event by event. The trace is written as it comes,
 * in pieces of fixed size; a file appears under its name when it is whole.
 */
import type { Command } from 'commander';
import { LabError } from '../base/error.js';
import type { TraceEvent, TraceName } from '../hypervisor/trace-events.js';
import { TRACE_NAMES, TRACEPOINTS } from '../hypervisor/trace-rows.js';
import { checkTraceName } from '../hypervisor/tracer.js';
import type { ObservedMachine } from '../lab/observe.js';
import type { Paging } from '../lab/run-types.js';
import type { ExitEvent, ExitExplanation } from '../lab/trace-explain.js';
import { happens, type TraceNotes, traceHeader, traceJson, traceLine } from '../lab/trace-text.js';
import { addOneBootOptions, type BootFlags, bootOptions, pagingAndParams } from './boot-options.js';
import { checkOutput, WholeFile, writeWhole } from './files.js';
import { json, progressText, resultData, statusOf, summary, warnings } from './result.js';
import { interruptible, ProgressLine } from './terminal.js';
import { count, oneOf } from './values.js';

export const TRACE_FORMATS = ['text', 'json'] as const;
/** Characters that are collected before they are written. */
const PIECE = 1 << 16;
const DEFAULT_EVENTS: readonly TraceName[] = ['kvm_exit', 'kvm_entry'];
const SYSTEMS = ['kvm', 'kvmmmu'] as const;

interface EventList {
  readonly names: readonly TraceName[];
  /** Asked for by their own name. */
  readonly named: readonly TraceName[];
}

/** Names, subsystems and `all`, separated by commas. @throws LabError for a name that is none, with the list */
export const eventList = (text: string): EventList => {
  const named = new Set<TraceName>();
  const systems = new Set<string>();
  for (const word of text.split(',').map((w) => w.trim())) {
    if (word === 'all') for (const s of SYSTEMS) systems.add(s);
    else if (SYSTEMS.some((s) => s === word)) systems.add(word);
    else named.add(checkTraceName(word));
  }
  const names = TRACE_NAMES.filter((n) => named.has(n) || systems.has(TRACEPOINTS[n].system));
  return { names, named: [...named] };
};

interface Flags extends BootFlags {
  readonly paging?: Paging;
  readonly events?: EventList;
  readonly output?: string;
  readonly format: (typeof TRACE_FORMATS)[number];
  readonly limit?: number;
  readonly from?: number;
  readonly to?: number;
  readonly explain?: boolean;
}

/** Where lines go: stdout, or a file that appears when it is finished. */
class Sink {
  readonly #file: WholeFile | undefined;
  #text = '';
  constructor(output: string | undefined) {
    this.#file = output === undefined ? undefined : new WholeFile(output);
  }
  write(line: string): void {
    this.#text += line;
    if (this.#text.length >= PIECE) this.flush();
  }
  flush(): void {
    if (this.#text === '') return;
    // both are synchronous for files and pipes: nothing piles up
    if (this.#file === undefined) process.stdout.write(this.#text);
    else this.#file.write(this.#text);
    this.#text = '';
  }
  finish(): void {
    this.flush();
    this.#file?.finish();
  }
  discard(): void {
    this.#file?.discard();
  }
}

/** What is known of an exit beside its fields. */
const notesOf = (
  e: TraceEvent,
  machine: ObservedMachine,
  explain: (e: ExitEvent) => ExitExplanation,
): TraceNotes | undefined => {
  if (e.name !== 'kvm_exit') return undefined;
  const symbol = machine.symbolOf(e);
  return { ...(symbol === undefined ? {} : { symbol }), explanation: explain(e).text };
};

const run = async (flags: Flags): Promise<number> => {
  const { from = 0, to, limit, format } = flags;
  if (to !== undefined && to <= from)
    throw new LabError('cli.value', `--to: ${to} is not possible`, `it must be greater than --from, ${from}`);
  if (flags.trace !== undefined)
    throw new LabError('cli.conflict', '--trace writes processor states, not events', 'use it with boot');
  const { paging, params } = pagingAndParams(flags.paging, flags.param);
  const options = bootOptions(flags);
  const events = flags.events?.names ?? DEFAULT_EVENTS;
  for (const name of flags.events?.named ?? [])
    if (!happens(name)) process.stderr.write(`${name} will not come: ${TRACEPOINTS[name].never}\n`);
  const { bootUnder } = await import('../lab/both.js');
  const { explainExit } = await import('../lab/trace-explain.js');
  const sink = new Sink(flags.output);
  const line = new ProgressLine();
  const started = performance.now();
  let written = 0;
  const attach = (machine: ObservedMachine): void => {
    const hz = machine.vm.clock.rate;
    if (format === 'text')
      sink.write(traceHeader(`${paging === 'ept' ? 'EPT' : 'shadow paging'}, one virtual CPU`, hz));
    for (const name of events)
      machine.on(name, (e: TraceEvent) => {
        if (e.instructions < from || (limit !== undefined && written >= limit)) return;
        const notes = flags.explain === true ? notesOf(e, machine, explainExit) : undefined;
        sink.write(format === 'text' ? traceLine(e, hz, notes) : traceJson(e, notes));
        if (++written === limit) machine.stop();
      });
  };
  try {
    const result = await interruptible((controller) =>
      bootUnder(
        paging,
        {
          ...options,
          ...(to === undefined ? {} : { maxInstructions: Math.min(to, options.maxInstructions ?? to) }),
          signal: controller.signal,
          onMachine: attach,
          onProgress: (n) => line.show(progressText(paging, n, started)),
        },
        params,
      ).finally(() => line.clear()),
    );
    sink.finish();
    if (flags.json !== undefined) writeWhole(flags.json, json(resultData(result)));
    for (const text of warnings(result)) process.stderr.write(`${text}\n`);
    process.stderr.write(`${summary(result)}, ${written} events\n`);
    const enough = limit !== undefined && written >= limit;
    const there = to !== undefined && result.outcome === 'limit' && result.instructions >= to;
    return enough || there ? 0 : statusOf(result, flags.until);
  } catch (e) {
    sink.discard();
    throw e;
  }
};

const HELP = `
Without --output, events go to stdout. --events takes names, kvm, kvmmmu (all of a subsystem) and all;
times are virtual. The run ends at --limit or --to, or with the guest.

Events:
${TRACE_NAMES.map((n) => `  ${n}`).join('\n')}

Exit status: 0 the trace is as long as was asked, or the guest ended as asked; 2 a mistake in what was
asked; 4 the guest ended otherwise.

Examples:
  vmxlab trace --paging shadow --events kvm_exit,kvm_page_fault,kvm_cr --limit 1000
  vmxlab trace --explain --from 50_000_000 --to 51_000_000 --output run.trace
  vmxlab trace --guest tiny --events all --format json | jq -r .name | sort | uniq -c`;

export const addTrace = (program: Command, done: (status: number) => void): Command => {
  const command = program.command('trace').description("boot a guest and write its hypervisor's events");
  addOneBootOptions(command)
    .option('--events <NAMES>', `which events (default: ${DEFAULT_EVENTS.join(',')})`, eventList)
    .option('--output <FILE>', 'write to a file', (v: string) => checkOutput(v, '--output'))
    .option(
      '--format <NAME>',
      `how: ${TRACE_FORMATS.join(', ')} (JSON lines)`,
      oneOf('--format', TRACE_FORMATS),
      'text',
    )
    .option('--limit <N>', 'end after N events', count('--limit'))
    .option('--from <N>', 'only events from the Nth instruction on', count('--from', 0))
    .option('--to <N>', 'end at the Nth instruction', count('--to'))
    .option('--explain', 'say of each VM exit where the guest was, what it did, and why that exits')
    .addHelpText('after', HELP)
    .action(async (flags: Flags) => done(await run(flags)));
  return command;
};
