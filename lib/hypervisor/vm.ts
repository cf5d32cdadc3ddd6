/**
 * A virtual machine: memory slots, board, one vCPU with its VMCS, MMU, clock and statistics.
 *
 * The machine is made from a `VmxPort` and options; nothing of it lives outside the object. More than one vCPU is
 * refused. SDM volume 3, "VMX Instruction Reference", for the set-up of a VMCS.
 */
import { LabError } from '../base/error.js';
import { type Board, type BoardOptions, createBoard } from '../devices/board.js';
import type { Clock, Timer } from '../devices/device.js';
import { createEventQueue, type EventQueue } from '../devices/event-queue.js';
import { CR4 } from '../isa/state.js';
import { PIN, SECONDARY, type VmxPort } from '../vmx/port.js';
import { ApicPages } from './apic-pages.js';
import { Controls, chooseControls, newMsrBitmap } from './controls.js';
import { type CostOptions, type CostTable, costTable } from './costs.js';
import { type CpuidRow, GuestCpuid } from './cpuid.js';
import { Emulator } from './emulate.js';
import { type EntryState, loadEntryState } from './entry-state.js';
import { HaltPolling } from './halt-poll.js';
import { checkLabLayout, type LabLayout } from './lab-leaves.js';
import type { HypervisorLog } from './log.js';
import { type Backing, FrameAllocator, type MemorySlot, MemorySlots } from './memslots.js';
import type { KvmMmu } from './mmu/mmu.js';
import type { Hypervisor } from './modules.js';
import { hostEferOf } from './msr.js';
import { type Outcome, USER_EXIT } from './next.js';
import type { KvmIntelParams, KvmParams } from './params.js';
import { Runner, type RunOptions } from './run.js';
import { type KvmStats, newStats } from './stats.js';
import { Tracer } from './tracer.js';
import { Vcpu } from './vcpu.js';
import { enterVmxOperation, fillVmcs } from './vmcs-setup.js';

export type TimeModel = 'cycles' | 'instructions';

/** What an MMU is made from. */
export interface MmuParts {
  readonly vcpu: Vcpu;
  readonly port: VmxPort;
  readonly slots: MemorySlots;
  readonly frames: FrameAllocator;
  readonly stats: KvmStats;
  readonly trace: Tracer;
  readonly params: KvmIntelParams;
  readonly kvm: KvmParams;
  /** Width of guest-physical addresses, in bits. */
  readonly maxPhyAddr: number;
  /** Guest CPUID has 1 GiB pages. */
  readonly pages1G: boolean;
}
export type MmuFactory = (parts: MmuParts) => KvmMmu;

export interface VmOptions {
  /** Bytes of one slot at 0, or the slots. */
  readonly memory: number | readonly MemorySlot[];
  /** Host backing; default 2M. */
  readonly backing?: Backing;
  readonly timeModel?: TimeModel;
  /** TSC cycles a second of virtual time; default 400 MHz. */
  readonly tscHz?: number;
  /** Host timer interrupts a second of virtual time; default 250, 0 for none. */
  readonly hostTickHz?: number;
  readonly labLayout?: string;
  /** The guest's processor reports Meltdown (the guest then isolates its page tables); default false. */
  readonly meltdown?: boolean;
  readonly pvEoi?: boolean;
  readonly asyncPf?: boolean;
  readonly stealTime?: boolean;
  /** CPUID features to hide, by name (`HIDEABLE`). */
  readonly hideCpuid?: readonly string[];
  /** The guest's CPUID as a table (KVM_SET_CPUID2) instead of what the processor and KVM offer. */
  readonly cpuidTable?: readonly CpuidRow[];
  /** Time of day at creation, ISO 8601; default 2026-11-22T12:00:00Z. */
  readonly wallClock?: string;
  readonly costs?: CostOptions;
  /** Board: console sink, marker, extra devices. */
  readonly board?: Partial<Pick<BoardOptions, 'onConsole' | 'onMarker' | 'irq0Override' | 'rtc' | 'extra'>>;
  readonly vcpus?: number;
  readonly createMmu: MmuFactory;
}

/** Options with their defaults applied. */
interface Settings {
  readonly labLayout: LabLayout;
  readonly meltdown: boolean;
  readonly pvEoi: boolean;
  readonly asyncPf: boolean;
  readonly stealTime: boolean;
}

export const DEFAULT_TSC_HZ = 400_000_000;
const DEFAULT_TICK_HZ = 250;
const DEFAULT_WALL_CLOCK = '2026-11-22T12:00:00Z';
/** IA32_APIC_BASE: x2APIC mode. */
const X2APIC_ENABLE = 1n << 10n;
const PIN_MSR = 0x481;
const MISC_MSR = 0x485;
const CR4_FIXED1_MSR = 0x489;
/** VMX_EPT_IDENTITY_PAGETABLE_ADDR, and the rights of its entries: 4 MiB pages, P W U A D. */
const IDENTITY_MAP = 0xfffb_c000;
const IDENTITY_ENTRY = 0xe7;
/** Types of `kvm_mmio`. */
const MMIO = { unsatisfied: 0, read: 1, write: 2 } as const;
/** Name of the local APIC's timer (`devices/lapic-timer.ts`). */
const LAPIC_TIMER = 'lapic';

export class Vm {
  readonly port: VmxPort;
  readonly hypervisor: Hypervisor;
  readonly params: KvmIntelParams;
  readonly kvm: KvmParams;
  readonly log: HypervisorLog;
  readonly options: Settings;
  /** `timeModel: 'instructions'`: exits are free, and nothing the guest sees may depend on the mode. */
  readonly instructionTime: boolean;
  readonly stats: KvmStats = newStats();
  /** Tracepoints (KVM-8.2) and who listens to them. */
  readonly trace: Tracer;
  /** What is counted about halts. */
  readonly halts: HaltPolling;
  readonly costs: CostTable;
  readonly frames: FrameAllocator;
  readonly slots: MemorySlots;
  readonly clock: Clock;
  readonly queue: EventQueue;
  readonly board: Board;
  readonly cpuid: GuestCpuid;
  readonly controls: Controls;
  readonly vcpu: Vcpu;
  readonly apic: ApicPages;
  readonly emulator: Emulator;
  readonly runner: Runner;
  /** XSAVES for the guest. */
  readonly xsaves: boolean;
  readonly hardwareUmip: boolean;
  /** Guest-physical page table of EPT without unrestricted guest, for a guest without paging. */
  readonly identityMap: number | undefined;
  readonly hostEfer: number;
  /** Seconds since 1970 at creation. */
  readonly bootSeconds: number;
  /** Cycles between host timer interrupts, or 0. */
  readonly tickCycles: number;
  /** The local APIC timer is the VMX-preemption timer while the guest runs. */
  readonly preemptionTimer: boolean;
  /** log2 of the TSC cycles of one count of the preemption timer. */
  readonly timerShift: number;
  /** TSC when the VM was created: time 0 of its clock. */
  readonly created: number;
  /** The local APIC timer, while the preemption timer realises it; Infinity when disarmed. */
  readonly lapicTimer: { timer: Timer | undefined; deadline: number } = {
    timer: undefined,
    deadline: Number.POSITIVE_INFINITY,
  };
  /** Set by a device or the caller: the run ends after the current exit. */
  pendingStop: Outcome | undefined;
  /** Observation: called after each exit was counted, before it is handled. */
  onExit: ((reason: number) => void) | undefined;
  #destroyed = false;

  constructor(hypervisor: Hypervisor, port: VmxPort, options: VmOptions) {
    const { intel, kvm } = hypervisor.require();
    if ((options.vcpus ?? 1) !== 1)
      throw new LabError('vm.vcpus', `${options.vcpus} vCPUs were asked for`, 'a machine has one');
    this.port = port;
    this.hypervisor = hypervisor;
    this.params = intel;
    this.kvm = kvm;
    this.log = hypervisor.log;
    this.instructionTime = options.timeModel === 'instructions';
    const pv = !this.instructionTime;
    this.options = {
      labLayout: checkLabLayout(options.labLayout ?? 'F2020'),
      meltdown: options.meltdown ?? false,
      pvEoi: pv && (options.pvEoi ?? true),
      asyncPf: pv && (options.asyncPf ?? false),
      stealTime: pv && (options.stealTime ?? false),
    };
    this.costs = costTable(options.costs);
    this.frames = new FrameAllocator(port.memory);
    const slots = typeof options.memory === 'number' ? [{ gpa: 0, bytes: options.memory }] : options.memory;
    this.slots = new MemorySlots(port.memory, this.frames, slots, options.backing ?? '2M');
    if (intel.ept && !intel.unrestricted_guest) {
      this.identityMap = IDENTITY_MAP;
      const page = this.slots.addPrivatePage(IDENTITY_MAP);
      for (let i = 0; i < 1024; i++)
        port.memory.write32(page + 4 * i, (i * 0x40_0000 + IDENTITY_ENTRY) >>> 0);
    }
    this.created = port.rdtsc();
    const rate = options.tscHz ?? DEFAULT_TSC_HZ;
    this.timerShift = Number(port.rdmsr(MISC_MSR) & 31n);
    this.queue = createEventQueue(() => port.rdtsc() - this.created, rate);
    this.preemptionTimer =
      intel.preemption_timer && ((port.rdmsr(PIN_MSR) >> 32n) & BigInt(PIN.activatePreemptionTimer)) !== 0n;
    this.clock = this.#clock();
    this.trace = new Tracer({ cycles: () => this.queue.now(), instructions: () => port.retired() });
    this.halts = new HaltPolling(kvm, this.stats, this.trace.sinks);
    this.log.now = () => this.clock.now() / rate;
    const tick = options.hostTickHz ?? DEFAULT_TICK_HZ;
    this.tickCycles = tick > 0 ? Math.round(rate / tick) : 0;
    const wallClock = options.wallClock ?? DEFAULT_WALL_CLOCK;
    this.bootSeconds = Date.parse(wallClock) / 1000;
    if (Number.isNaN(this.bootSeconds))
      throw new LabError(
        'vm.wallClock',
        `'${wallClock}' is no time of day`,
        'ISO 8601, like 2026-11-22T12:00:00Z',
      );
    this.board = createBoard({
      clock: this.clock,
      trace: this.trace.sinks,
      onConsole: options.board?.onConsole ?? (() => {}),
      onReset: () => this.#stop({ kind: 'reset' }),
      onPoweroff: () => this.#stop({ kind: 'poweroff' }),
      onPitWork: () => this.runner?.preempted(),
      onNmi: () => {
        this.vcpu.events.nmiPending = true;
      },
      ...(options.board?.onMarker === undefined ? {} : { onMarker: options.board.onMarker }),
      ...(options.board?.irq0Override === undefined ? {} : { irq0Override: options.board.irq0Override }),
      ...(options.board?.extra === undefined ? {} : { extra: options.board.extra }),
      rtc: options.board?.rtc ?? { start: wallClock },
    });
    this.hardwareUmip = (Number(port.rdmsr(CR4_FIXED1_MSR) & 0xffff_ffffn) & CR4.umip) !== 0;
    this.cpuid = new GuestCpuid(port, {
      ept: intel.ept,
      identical: this.instructionTime,
      umip: this.hardwareUmip,
      pvEoi: this.options.pvEoi,
      asyncPf: this.options.asyncPf,
      stealTime: this.options.stealTime,
      hide: options.hideCpuid ?? [],
      ...(options.cpuidTable === undefined ? {} : { table: options.cpuidTable }),
    });
    this.hostEfer = hostEferOf(port);

    const pages = { vmxon: this.frames.page(), vmcs: this.frames.page(), msrBitmap: this.frames.page() };
    port.memory.writeBytes(pages.msrBitmap, newMsrBitmap());
    enterVmxOperation(port, pages);
    this.xsaves =
      this.cpuid.has('xsave') &&
      (this.cpuid.query(0xd, 1, { cr4: 0, xcr0: 1, apicEnabled: true }).eax & 8) !== 0;
    this.controls = new Controls(
      port,
      chooseControls(port, {
        params: intel,
        rdtscp: this.cpuid.has('rdtscp'),
        invpcid: this.cpuid.has('invpcid'),
        xsaves: this.xsaves,
      }),
    );
    this.vcpu = new Vcpu(this, this.controls);
    fillVmcs(port, this.controls, pages, intel, this.vcpu.vpid, this.hostEfer);
    this.apic = new ApicPages(
      port,
      this.board,
      this.controls,
      this.frames,
      pages.msrBitmap,
      intel.flexpriority,
    );
    this.apic.setMode();
    port.registers.xcr0 = 1n;
    this.vcpu.setTscOffset(-BigInt(this.created));
    this.vcpu.mmu = options.createMmu({
      vcpu: this.vcpu,
      port,
      slots: this.slots,
      frames: this.frames,
      stats: this.stats,
      trace: this.trace,
      params: intel,
      kvm,
      maxPhyAddr: this.cpuid.maxPhyAddr,
      pages1G: this.cpuid.has('pdpe1gb'),
    });
    this.emulator = new Emulator(this.vcpu);
    this.runner = new Runner(this);
    hypervisor.addVm(this);
  }

  /**
   * The devices' clock. With the preemption timer, a deadline of the local APIC is kept apart, rounded up to a whole
   * count: it fires at the exit that the timer makes, never earlier.
   */
  #clock(): Clock {
    const { queue, created, lapicTimer } = this;
    const traceTimer = (inUse: boolean): void =>
      this.trace.sinks.kvm_hv_timer_state?.({ vcpu_id: 0, hv_timer_in_use: inUse });
    if (!this.preemptionTimer) {
      return {
        now: queue.now,
        rate: queue.rate,
        arm: (timer, deadline) => {
          if (timer.name === LAPIC_TIMER) traceTimer(false);
          queue.arm(timer, deadline);
        },
        disarm: queue.disarm,
      };
    }
    const unit = 2 ** this.timerShift;
    return {
      now: queue.now,
      rate: queue.rate,
      arm: (timer, deadline) => {
        if (timer.name !== LAPIC_TIMER) return queue.arm(timer, deadline);
        queue.disarm(timer);
        lapicTimer.deadline = Number.POSITIVE_INFINITY;
        const due = deadline <= queue.now();
        traceTimer(!due);
        if (due) return queue.arm(timer, deadline);
        lapicTimer.timer = timer;
        lapicTimer.deadline = Math.ceil((deadline + created) / unit) * unit - created;
      },
      disarm: (timer) => {
        queue.disarm(timer);
        if (timer.name === LAPIC_TIMER) lapicTimer.deadline = Number.POSITIVE_INFINITY;
      },
    };
  }
  /** The local APIC timer expires, if its deadline has come (kvm_lapic_expired_hv_timer). */
  expireLapicTimer(): void {
    const { lapicTimer } = this;
    if (lapicTimer.deadline > this.queue.now()) return;
    lapicTimer.deadline = Number.POSITIVE_INFINITY;
    lapicTimer.timer?.fire();
  }
  #stop(outcome: Outcome): void {
    this.pendingStop ??= outcome;
  }

  /** Sets the vCPU to the state at the first guest instruction. */
  loadEntry(state: EntryState): void {
    loadEntryState(this.vcpu, state);
  }
  /** Copies bytes into guest-physical memory, as the monitor does before the first run. */
  load(gpa: number, bytes: Uint8Array): void {
    this.slots.load(gpa, bytes);
  }
  /** Runs the guest until something ends the run; may be called again to go on. */
  run(options: RunOptions = {}): Outcome {
    if (this.#destroyed) throw new LabError('vm.destroyed', 'the VM has been destroyed');
    return this.runner.run(options);
  }
  /** Ends the current run after the exit being handled; for callbacks of devices and observers. */
  interrupt(): void {
    this.#stop({ kind: 'interrupted' });
  }
  /** Shuts the VM down for good; the modules can be unloaded then. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.vcpu.mmu.zapAll();
    this.port.vmxoff();
    this.hypervisor.removeVm(this);
  }

  /** Lets the cost of handling an exit pass, in `timeModel: 'cycles'`. */
  charge(cycles: number): void {
    if (!this.instructionTime && cycles > 0) this.port.charge(cycles);
  }
  /** The next deadline of any device, the local APIC timer included; Infinity without one. */
  nextDeadline(): number {
    return Math.min(this.queue.next() ?? Number.POSITIVE_INFINITY, this.lapicTimer.deadline);
  }
  /** Cycles to the next deadline of a device. */
  untilDeadline(): number {
    return this.nextDeadline() - this.queue.now();
  }
  setGuestTscOffset(offset: bigint): void {
    this.vcpu.setTscOffset(offset);
    this.board.lapic.setTscOffset(Number(BigInt.asIntN(64, this.vcpu.tscOffset)) + this.created);
  }
  setApicBase(value: bigint): boolean {
    // a guest that was not told of x2APIC cannot switch to it (kvm_set_apic_base)
    if ((value & X2APIC_ENABLE) !== 0n && !this.cpuid.has('x2apic')) return false;
    if (!this.board.lapic.setApicBase(value)) return false;
    this.apic.setMode();
    return true;
  }
  setDescriptorTableExiting(on: boolean): void {
    this.controls.setSecondary(SECONDARY.descriptorTableExiting, on);
  }

  // ---- guest-physical memory
  /** Reads 1 to 16 bytes that do not cross a page, from RAM or a device. */
  readPhysical(gpa: number, bytes: number): bigint {
    const hpa = this.slots.hpa(gpa);
    let value = 0n;
    if (hpa !== undefined) {
      const view = this.port.memory.view(hpa, bytes);
      for (let i = bytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(view[i]);
      return value;
    }
    const device = this.board.mmio(gpa);
    const { kvm_mmio } = this.trace.sinks;
    if (kvm_mmio !== undefined && !this.#inKernel(device))
      kvm_mmio({ type: MMIO.unsatisfied, len: bytes, gpa, val: 0n });
    this.#countMmio(device);
    for (let at = 0; at < bytes; at += 4) {
      const size = Math.min(4, bytes - at) as 1 | 2 | 4;
      const part = device === undefined ? 0xffff_ffff : device.read(gpa + at, size);
      value |= BigInt.asUintN(8 * size, BigInt(part >>> 0)) << BigInt(8 * at);
    }
    kvm_mmio?.({ type: MMIO.read, len: bytes, gpa, val: value });
    return value;
  }
  /** Writes 1 to 16 bytes that do not cross a page; a store to RAM is reported to the MMU. */
  writePhysical(gpa: number, bytes: number, value: bigint): void {
    const hpa = this.slots.hpa(gpa);
    if (hpa !== undefined) {
      const out = new Uint8Array(bytes);
      for (let i = 0; i < bytes; i++) out[i] = Number((value >> BigInt(8 * i)) & 0xffn);
      this.port.memory.writeBytes(hpa, out);
      this.vcpu.mmu.pteWrite(gpa, value, bytes);
      return;
    }
    const device = this.board.mmio(gpa);
    this.trace.sinks.kvm_mmio?.({
      type: MMIO.write,
      len: bytes,
      gpa,
      val: BigInt.asUintN(Math.min(8, bytes) * 8, value),
    });
    this.#countMmio(device);
    if (device === undefined) return;
    for (let at = 0; at < bytes; at += 4) {
      const size = Math.min(4, bytes - at) as 1 | 2 | 4;
      device.write(gpa + at, size, Number((value >> BigInt(8 * at)) & 0xffff_ffffn));
    }
    this.apic.toPage();
    this.vcpu.eventRequested = true;
  }
  #inKernel(device: unknown): boolean {
    return device === this.board.lapic || device === this.board.ioapic;
  }
  /** The APICs are in the kernel; anything else, an absent device too, goes to user space. */
  #countMmio(device: unknown): void {
    if (this.#inKernel(device)) return;
    this.stats.mmio_exits++;
    this.toUserSpace(USER_EXIT.mmio);
  }
  /** KVM_RUN returns to the monitor, which has to do something, and is called again. @param reason KVM_EXIT_* */
  toUserSpace(reason: number): void {
    this.trace.sinks.kvm_userspace_exit?.({ reason, errno: 0 });
    this.stats.fpu_reload++;
    this.stats.host_state_reload++;
    this.charge(this.costs.ioDevice);
  }
  /** Writes guest memory on the hypervisor's own account. */
  writeGuest(gpa: number, bytes: Uint8Array): void {
    if (this.slots.hpa(gpa) !== undefined) this.slots.load(gpa, bytes);
  }
  writeGuest8(gpa: number, value: number): void {
    const hpa = this.slots.hpa(gpa);
    if (hpa !== undefined) this.port.memory.write8(hpa, value);
  }
  readGuest8(gpa: number): number {
    const hpa = this.slots.hpa(gpa);
    return hpa === undefined ? 0xff : this.port.memory.read8(hpa);
  }
  /** The VMCS as text, for reports. */
  describe(): string {
    return this.port.describeVmcs();
  }
}

/** KVM_CREATE_VM and KVM_CREATE_VCPU. @throws LabError when kvm-intel is not loaded or an option is wrong */
export const createVm = (hypervisor: Hypervisor, port: VmxPort, options: VmOptions): Vm =>
  new Vm(hypervisor, port, options);
