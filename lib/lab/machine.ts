/**
 * Boots a guest under the loaded modules and says what happened: the one function under the notebook and the commands.
 *
 * The run is cut into slices so that the host can breathe (Ctrl-C, stdin, progress); slices do not change what the guest
 * sees. Everything in a `RunResult` but `wallSeconds` is a function of image, command line, options and mode.
 */

import { LabError } from '../base/error.js';
import { INIT_LINE, WORKLOAD_DONE } from '../guests/debian/init.js';
import { checkLabLayout } from '../hypervisor/lab-leaves.js';
import type { Hypervisor } from '../hypervisor/modules.js';
import type { Outcome } from '../hypervisor/next.js';
import { createVm, type Vm } from '../hypervisor/vm.js';
import { VMCS } from '../vmx/fields.js';
import { createHardware, type Hardware } from '../vmx/hardware.js';
import { checkBootOptions } from './boot-checks.js';
import { Console } from './console.js';
import { cpuStateText } from './cpu-log.js';
import { checkDebugExit, extraDevices } from './extra-devices.js';
import type { GdbStub } from './gdb/stub.js';
import { freestanding, image } from './guest-image.js';
import { observe } from './observe.js';
import { type BootOptions, DEFAULT_MEMORY, type Paging, type Phase, type RunResult } from './run-types.js';
import { cpuOptions, vmOptions } from './vm-options.js';

export { leafNumbers } from './guest-image.js';
export {
  type BootOptions,
  type Counters,
  DEFAULT_MEMORY,
  GUESTS,
  type GuestCpu,
  type GuestName,
  type Machine,
  type Paging,
  type Phase,
  type RunResult,
} from './run-types.js';

const LAB_PHASES = [
  ['boot', INIT_LINE],
  ['workload', WORKLOAD_DONE],
] as const;
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

  const counters = (): Omit<Phase, 'name'> => ({
    instructions: hardware.port.retired(),
    cycles: vm.clock.now(),
    exits: hypervisor.counts.snapshot(),
    exitCycles: Object.fromEntries(hypervisor.counts.lines().map((l) => [l.reason, l.cycles])),
    walks: {
      count: hardware.port.walks.walks1d + hardware.port.walks.walks2d,
      references: hardware.port.walks.references1d + hardware.port.walks.references2d,
    },
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
    cpuOptions(options),
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
    ...vmOptions(options, hardware.port),
    memory: slots.length === 0 ? memory : [{ gpa: 0, bytes: memory }, ...slots],
    labLayout: layout,
    board: {
      onConsole: (b) => console.byte(b),
      extra,
      ...(options.onMarker === undefined
        ? {}
        : { onMarker: (value: number) => options.onMarker?.(value, counters()) }),
    },
  });
  let stub: GdbStub | undefined;
  try {
    if (options.debugExit !== undefined) checkDebugExit(vm.board, options.debugExit);
    for (const s of guest.segments) vm.load(s.gpa, s.bytes);
    vm.loadEntry(guest.entry);
    const machine = observe(hardware, vm, options.on, guest.symbols);
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
      const gdb = await import('./gdb/stub.js');
      stub = await gdb.GdbStub.listen(machine, options.gdb);
      options.onGdb?.(stub.port);
    }
    const end = await slices(vm, hardware, options, console, () => reached, stub);
    const { kind, detail, status, wallSeconds } = end;
    return {
      paging,
      outcome: kind,
      ...(detail === undefined ? {} : { detail }),
      ...(status === undefined ? {} : { status }),
      ...counters(),
      wallSeconds,
      console: console.text,
      log: hypervisor.log.lines.slice(firstLog).map((l) => l.text),
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
      (outcome.kind === 'limit' && outcome.detail === undefined && port.retired() < max) ||
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
