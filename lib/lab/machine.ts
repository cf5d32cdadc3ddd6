/**
 * Boots a guest under the loaded modules and says what happened: the one function under the notebook and the commands.
 *
 * The run is cut into slices so that the host can breathe (Ctrl-C, stdin, progress); slices do not change what the guest
 * sees. Everything in a `RunResult` but `wallSeconds` is a function of image, command line, options and mode.
 */

import { join } from 'node:path';
import { LabError } from '../base/error.js';
import { acpiTables } from '../devices/acpi.js';
import { debianGuest } from '../guests/debian/debian.js';
import { INIT_LINE, WORKLOAD_DONE } from '../guests/debian/init.js';
import { type FreestandingGuest, freestandingGuest, kernelFormat } from '../guests/freestanding.js';
import { type TinyOptions, tinyGuest } from '../guests/tiny/tiny.js';
import { DEFAULT_WORKLOAD, type TinyWorkload } from '../guests/tiny/workload.js';
import type { CostOptions } from '../hypervisor/costs.js';
import { checkLabLayout, LAB_LAYOUTS, type LabLayout } from '../hypervisor/lab-leaves.js';
import type { Backing } from '../hypervisor/memslots.js';
import { createMmu } from '../hypervisor/mmu/create.js';
import type { Hypervisor } from '../hypervisor/modules.js';
import type { Outcome, OutcomeKind } from '../hypervisor/next.js';
import { createVm, type TimeModel, type Vm } from '../hypervisor/vm.js';
import { VMCS } from '../vmx/fields.js';
import { createHardware, type EngineName, type Hardware } from '../vmx/hardware.js';
import { checkBootOptions } from './boot-checks.js';
import { cpuStateText } from './cpu-log.js';
import { checkDebugExit, extraDevices } from './extra-devices.js';
import { GdbStub } from './gdb/stub.js';
import { type MachineListeners, type ObservedMachine, observe } from './observe.js';
import { DEBIAN } from './paths.js';
import { referenceCpuid } from './reference.js';

export type Paging = 'ept' | 'shadow';
export type GuestCpu = 'host' | 'reference';
export const GUESTS = ['debian', 'tiny'] as const;
export type GuestName = (typeof GUESTS)[number];

export interface BootOptions {
  readonly guest?: GuestName;
  /** What the built-in guest `tiny` does; default `DEFAULT_WORKLOAD`. */
  readonly tiny?: Readonly<Partial<TinyWorkload>>;
  /** Files that replace what the guest brings. */
  readonly kernel?: string;
  readonly initrd?: string;
  /** Replaces the guest's command line, or adds to it. */
  readonly cmdline?: string;
  readonly append?: string;
  /** Bytes of guest memory; default 256 MiB. */
  readonly memory?: number;
  /** The script that the guest runs between its two readings. */
  readonly workload?: string;
  /** An interactive shell instead of the script. */
  readonly shell?: boolean;
  /** Stops at the newline that ends the console line containing this text. */
  readonly until?: string;
  /** Stops after so many guest instructions. */
  readonly maxInstructions?: number;
  readonly timeModel?: TimeModel;
  readonly leaves?: LabLayout;
  readonly engine?: EngineName;
  readonly backing?: Backing;
  /** ACPI tables for the guest; default true. */
  readonly acpi?: boolean;
  /** Leaves the DSDT empty, so that the guest finds no way to power itself off; default false. */
  readonly emptyDsdt?: boolean;
  /**
   * `reference` presents the processor of the runs on real KVM (`data/reference`), with every KVM feature it offered;
   * default `host`: what this processor has.
   */
  readonly cpu?: GuestCpu;
  /** TSC cycles a second of virtual time; default 400 MHz. */
  readonly tscHz?: number;
  /** Costs of `timeModel: 'cycles'` that replace the defaults. */
  readonly costs?: CostOptions;
  /** Console lines that end a phase: its name and how the line begins. */
  readonly phaseLines?: readonly (readonly [name: string, line: string])[];
  /** Called when the guest writes a dword to port 0x510. */
  readonly onMarker?: (value: number, counters: Counters) => void;
  /** The guest's processor reports Meltdown, so the guest isolates its page tables; default false. */
  readonly meltdown?: boolean;
  /** Modules of a Multiboot kernel: a file each, then, after a space, its arguments. `initrd` is the first of them. */
  readonly modules?: readonly string[];
  /** Port of a QEMU-compatible debug-exit device, like 0xf4. */
  readonly debugExit?: number;
  /** The debug console at port 0xE9, part of `console`; default true for Multiboot kernels and ROMs. */
  readonly debugConsole?: boolean;
  /** QEMU's fw_cfg at ports 0x510 and 0x511. */
  readonly fwCfg?: boolean;
  /** TCP port on the loopback interface for GDB, 0 for a free one; the machine starts stopped. */
  readonly gdb?: number;
  /** Called with the port when GDB can connect. */
  readonly onGdb?: (port: number) => void;
  readonly onConsole?: (bytes: Uint8Array) => void;
  readonly onProgress?: (instructions: number) => void;
  readonly signal?: AbortSignal;
  /** Is given a function that takes bytes for the guest's serial port. */
  readonly input?: (receive: (bytes: Uint8Array) => void) => void;
  /** Writes the state before each instruction of [first, last) in the layout of QEMU's `-d cpu` log. */
  readonly trace?: { readonly first: number; readonly last: number; readonly write: (text: string) => void };
  /** Called with the machine before its first instruction, for tests and tools. */
  readonly onMachine?: (machine: ObservedMachine) => void;
  /** Listeners of tracepoints, by name: `{ kvm_exit: (e, machine) => … }`. They see everything and change nothing. */
  readonly on?: MachineListeners;
  /** Called when a phase has ended: the console line that ends it is complete. */
  readonly onPhase?: (phase: Phase) => void;
}

/** Counters since the start of the machine. */
export interface Counters {
  readonly instructions: number;
  /** Virtual time, in TSC cycles. */
  readonly cycles: number;
  readonly exits: Readonly<Record<number, number>>;
  readonly kvmStats: Readonly<Record<string, number>>;
}

/** Counters at the end of a phase. */
export interface Phase extends Counters {
  readonly name: string;
}

export interface RunResult {
  readonly paging: Paging;
  readonly outcome: OutcomeKind;
  readonly detail?: string;
  /** Exit status of the outcome `debug-exit`: `(value << 1) | 1`. */
  readonly status?: number;
  readonly instructions: number;
  /** Virtual time, in TSC cycles. */
  readonly cycles: number;
  readonly wallSeconds: number;
  /** By exit reason number. */
  readonly exits: Readonly<Record<number, number>>;
  readonly exitCycles: Readonly<Record<number, number>>;
  readonly walks: { readonly count: number; readonly references: number };
  readonly console: string;
  /** Hypervisor log lines. */
  readonly log: readonly string[];
  readonly kvmStats: Readonly<Record<string, number>>;
  /** Provenance of the guest. */
  readonly about: readonly string[];
  readonly cmdline: string;
  /** VMCS control fields at the end of the run. */
  readonly controls: Readonly<Record<string, bigint>>;
  /** Counters at the INIT line and at the end of the workload. */
  readonly phases: readonly Phase[];
}

export interface Machine {
  readonly hardware: Hardware;
  readonly vm: Vm;
}

const LAB_PHASES = [
  ['boot', INIT_LINE],
  ['workload', WORKLOAD_DONE],
] as const;
export const DEFAULT_MEMORY = 256 * 2 ** 20;
const SLICE = 25_000_000;
/** Virtual seconds that a slice may pass when the guest is idle. */
const SLICE_SECONDS = 0.1;

const CONTROL_FIELDS = [
  'pinBasedControls',
  'procBasedControls',
  'secondaryControls',
  'entryControls',
  'exitControls',
  'exceptionBitmap',
  'cr0GuestHostMask',
  'cr4GuestHostMask',
  'cr3TargetCount',
] as const;

/** Host memory for a guest: its RAM, paging structures of either kind, and the hypervisor's own pages. */
const hostBytes = (guest: number): number =>
  Math.ceil((guest + (24 << 20) + guest / 32) / 0x20_0000) * 0x20_0000;

/** Which leaves the guest asks, by layout. */
export const leafNumbers = (layout: LabLayout): { readonly total: number; readonly byReason: number } => {
  const cells = Object.entries(LAB_LAYOUTS[layout]) as [string, string][];
  const find = (...names: string[]): number => Number(cells.find(([, cell]) => names.includes(cell))?.[0]);
  return { total: find('totals', 'total-exits'), byReason: find('exits-of-type') };
};

/** The serial console: text, lines, and who listens. */
class Console {
  text = '';
  #line = '';
  #pending: number[] = [];
  readonly #onLine: (line: string) => void;
  readonly #sink: ((bytes: Uint8Array) => void) | undefined;
  constructor(onLine: (line: string) => void, sink: ((bytes: Uint8Array) => void) | undefined) {
    this.#onLine = onLine;
    this.#sink = sink;
  }
  byte(b: number): void {
    const c = String.fromCharCode(b);
    this.text += c;
    if (this.#sink !== undefined) this.#pending.push(b);
    if (b !== 10) {
      this.#line += c;
      return;
    }
    const line = this.#line;
    this.#line = '';
    this.#onLine(line);
  }
  flush(): void {
    if (this.#pending.length === 0) return;
    this.#sink?.(Uint8Array.from(this.#pending));
    this.#pending = [];
  }
}

const LINUX_ONLY = ['workload', 'cmdline', 'append', 'shell', 'kernel', 'initrd'] as const;
/** The built-in guest; what only means something to Linux is refused. */
const tiny = (options: BootOptions, machine: TinyOptions) => {
  const given = LINUX_ONLY.find((name) => options[name] !== undefined && options[name] !== false);
  if (given !== undefined)
    throw new LabError(
      'guest.option',
      `the guest 'tiny' has no ${given}`,
      "its workload is the option 'tiny'",
    );
  return tinyGuest({ ...machine, workload: options.tiny ?? DEFAULT_WORKLOAD });
};

/** A kernel file that is no Linux is a guest of its own; undefined for the others. */
const freestanding = (options: BootOptions, memory: number): FreestandingGuest | undefined => {
  const { kernel, initrd, append, cmdline } = options;
  const found = kernel === undefined ? undefined : kernelFormat(kernel);
  if (kernel === undefined || found === undefined || found.format === 'bzimage' || found.format === 'elf') {
    if (options.modules !== undefined)
      throw new LabError('guest.option', 'modules belong to a Multiboot kernel', 'give one as the kernel');
    return undefined;
  }
  const given = (['workload', 'shell'] as const).find(
    (n) => options[n] !== undefined && options[n] !== false,
  );
  if (given !== undefined)
    throw new LabError('guest.option', `${kernel} is a ${found.format} image: it has no ${given}`);
  const line = [cmdline, append].filter((t) => t !== undefined).join(' ');
  const modules = [...(initrd === undefined ? [] : [initrd]), ...(options.modules ?? [])];
  return freestandingGuest(kernel, found.bytes, found.format, {
    memory,
    modules,
    tables: options.acpi === false ? [] : [{ ...acpiTables(), what: 'ACPI tables' }],
    ...(line === '' ? {} : { cmdline: line }),
  });
};

const image = async (options: BootOptions, memory: number, layout: LabLayout) => {
  const guest = options.guest ?? 'debian';
  if (!GUESTS.includes(guest))
    throw new LabError('guest.name', `there is no guest '${String(guest)}'`, GUESTS.join(', '));
  if (guest === 'tiny') return tiny(options, { memory, leaves: leafNumbers(layout) });
  const acpi = options.acpi ?? true;
  const { workload, cmdline, append, shell, kernel, initrd } = options;
  return await debianGuest(DEBIAN, join(DEBIAN, 'cache'), {
    memory,
    leaves: leafNumbers(layout),
    tables: acpi ? [{ ...acpiTables({ emptyDsdt: options.emptyDsdt ?? false }), what: 'ACPI tables' }] : [],
    ...(workload === undefined ? {} : { workload }),
    ...(cmdline === undefined ? {} : { cmdline }),
    ...(append === undefined ? {} : { append }),
    ...(shell === undefined ? {} : { shell }),
    ...(kernel === undefined ? {} : { kernel }),
    ...(initrd === undefined ? {} : { initrd }),
  });
};

/**
 * Boots a guest and runs it to its end. Nested or shadow paging is what the loaded `kvm-intel` says (`ept`).
 * @throws LabError for what cannot be started; whatever the guest does is an outcome
 */
export const boot = async (hypervisor: Hypervisor, options: BootOptions = {}): Promise<RunResult> => {
  const { intel } = hypervisor.require();
  const paging: Paging = intel.ept ? 'ept' : 'shadow';
  const memory = options.memory ?? DEFAULT_MEMORY;
  checkBootOptions(options, memory);
  const layout = checkLabLayout(options.leaves ?? 'F2020');
  const own = freestanding(options, memory);
  const guest = own ?? (await image(options, memory, layout));
  if (options.gdb !== undefined && options.trace !== undefined)
    throw new LabError('machine.gdb', 'gdb and a trace exclude each other', 'both look at each instruction');

  const counters = (): Counters => ({
    instructions: hardware.port.retired(),
    cycles: vm.clock.now(),
    exits: hypervisor.counts.snapshot(),
    kvmStats: { ...vm.stats },
  });
  const phases: Phase[] = [];
  let reached = false;
  const console = new Console((line) => {
    if (options.until !== undefined && line.includes(options.until)) reached = true;
    for (const [name, mark] of options.phaseLines ?? LAB_PHASES) {
      if (!line.startsWith(mark) || phases.some((p) => p.name === name)) continue;
      const phase = { name, ...counters() };
      phases.push(phase);
      options.onPhase?.(phase);
    }
  }, options.onConsole);
  const slots = own?.slots ?? [];
  const hardware = createHardware(
    hostBytes(slots.reduce((n, s) => n + s.bytes, memory)),
    options.engine ?? 'interpreter',
  );
  const extra = extraDevices({
    memory,
    debugConsole: options.debugConsole ?? own !== undefined,
    fwCfg: options.fwCfg ?? false,
    onConsole: (b) => console.byte(b),
    onExit: (status) => {
      vm.pendingStop ??= { kind: 'debug-exit', status, detail: `debug exit with status ${status}` };
    },
    ...(options.debugExit === undefined ? {} : { debugExit: options.debugExit }),
  });
  const vm = createVm(hypervisor, hardware.port, {
    memory: slots.length === 0 ? memory : [{ gpa: 0, bytes: memory }, ...slots],
    labLayout: layout,
    createMmu,
    board: {
      onConsole: (b) => console.byte(b),
      extra,
      ...(options.onMarker === undefined
        ? {}
        : { onMarker: (value: number) => options.onMarker?.(value, counters()) }),
    },
    ...(options.cpu === 'reference'
      ? { cpuidTable: referenceCpuid(hardware.port), asyncPf: true, stealTime: true, pvEoi: true }
      : {}),
    ...(options.tscHz === undefined ? {} : { tscHz: options.tscHz }),
    ...(options.costs === undefined ? {} : { costs: options.costs }),
    ...(options.backing === undefined ? {} : { backing: options.backing }),
    ...(options.timeModel === undefined ? {} : { timeModel: options.timeModel }),
    ...(options.meltdown === undefined ? {} : { meltdown: options.meltdown }),
  });
  let stub: GdbStub | undefined;
  try {
    if (options.debugExit !== undefined) checkDebugExit(vm.board, options.debugExit);
    for (const s of guest.segments) vm.load(s.gpa, s.bytes);
    vm.loadEntry(guest.entry);
    const machine = observe(hardware, vm, options.on);
    options.onMachine?.(machine);
    options.input?.((bytes) => vm.board.uart.receive(bytes));
    if (options.trace !== undefined) {
      const { first, last, write } = options.trace;
      hardware.processor.stepRange = [first, last];
      hardware.processor.onStep = (cpu) => {
        write(cpuStateText(cpu));
        return false;
      };
    }
    const firstLog = hypervisor.log.lines.length;
    if (options.gdb !== undefined) {
      stub = await GdbStub.listen(machine, options.gdb);
      options.onGdb?.(stub.port);
    }
    const end = await slices(vm, hardware, options, console, () => reached, stub);
    const { kind, detail, status, wallSeconds } = end;
    const { counts } = hypervisor;
    const { walks } = hardware.port;
    return {
      paging,
      outcome: kind,
      ...(detail === undefined ? {} : { detail }),
      ...(status === undefined ? {} : { status }),
      instructions: hardware.port.retired(),
      cycles: vm.clock.now(),
      wallSeconds,
      exits: counts.snapshot(),
      exitCycles: Object.fromEntries(counts.lines().map((l) => [l.reason, l.cycles])),
      walks: { count: walks.walks1d + walks.walks2d, references: walks.references1d + walks.references2d },
      console: console.text,
      log: hypervisor.log.lines.slice(firstLog).map((l) => l.text),
      kvmStats: { ...vm.stats },
      about: guest.about,
      cmdline: guest.cmdline,
      controls: Object.fromEntries(CONTROL_FIELDS.map((f) => [f, hardware.port.vmread(VMCS[f])])),
      phases,
    };
  } finally {
    await stub?.close();
    vm.destroy();
  }
};

/** Runs to the end in slices. */
const slices = async (
  vm: Vm,
  hardware: Hardware,
  options: BootOptions,
  console: Console,
  reached: () => boolean,
  stub: GdbStub | undefined,
): Promise<Outcome & { readonly wallSeconds: number }> => {
  const { port } = hardware;
  const max = options.maxInstructions ?? Number.POSITIVE_INFINITY;
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const virtual = (): number => vm.clock.now() / vm.clock.rate;
  const killed: Outcome = { kind: 'interrupted', detail: 'ended by GDB' };
  for (;;) {
    if (stub !== undefined && (await stub.ready(options.signal)) === 'kill')
      return {
        ...(options.signal?.aborted === true ? { kind: 'interrupted' } : killed),
        wallSeconds: seconds(),
      };
    const cut = virtual() + SLICE_SECONDS;
    let paused = false;
    const slice = Math.min(max, port.retired() + SLICE);
    const outcome = vm.run({
      limit: stub?.limit(port.retired(), slice) ?? slice,
      until: () => {
        if (reached()) return true;
        paused = (options.input !== undefined || stub !== undefined) && virtual() >= cut;
        return paused;
      },
    });
    console.flush();
    const yielded =
      (outcome.kind === 'limit' && port.retired() < max) ||
      (outcome.kind === 'until' && paused && !reached());
    if (!yielded) {
      await stub?.ended(outcome, options.signal);
      return { ...outcome, wallSeconds: seconds() };
    }
    stub?.ran(outcome.kind === 'limit');
    options.onProgress?.(port.retired());
    // with a person at the keyboard, virtual time must not run away from the wall clock
    const ahead = options.input === undefined ? 0 : virtual() - seconds();
    await new Promise((resolve) => {
      if (ahead > 0.01) setTimeout(resolve, ahead * 1000);
      else setImmediate(resolve);
    });
    if (options.signal?.aborted === true) return { kind: 'interrupted', wallSeconds: seconds() };
  }
};
