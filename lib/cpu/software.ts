/**
 * A processor in software, for a hypervisor's instruction emulator: the reference engine's semantics and the helpers of
 * system instructions on a state of its own, over memory that the hypervisor translates.
 *
 * What exits from a guest unconditionally or touches what the hypervisor owns (control registers, MSRs, CPUID, HLT …) is
 * not done here: it is reported as an interception with the state unchanged, for the hypervisor's handler of that exit.
 * Task switches, event delivery, far transfers and segment loads are those of `system/`. Not there: x87, MMX, SSE
 * arithmetic, SYSCALL, SYSENTER.
 */

import type { Insn } from '../isa/rows.js';
import { LEAVE, S, STATE_BYTES, VECTOR } from '../isa/state.js';
import { ACCESS, LEFT } from '../memory/access.js';
import { LAYOUT, type Ram } from '../memory/ram.js';
import { Cpu, type MemoryUnit, type NonRoot, type PendingEvent, type PortBus } from './core.js';
import type { HelperTable } from './helpers.js';
import { checkInsn, type Environment, executeInsn, type MemoryPort } from './reference.js';
import { deliverEvent } from './system/events.js';
import { SYSTEM_HELPERS } from './system/helpers.js';
import { canonical } from './system/memory.js';
import { modeChanged, segmentLinear32 } from './system/segments.js';
import { type TaskSource, taskSwitch } from './system/task-switch.js';

/** A page fault that an access raises. */
export interface LinearFault {
  readonly code: number;
  readonly address: bigint;
}

/** Linear memory as the hypervisor sees it. `user`: with user-mode rights. */
export interface LinearMemory {
  /** 1 to 16 bytes, also across a page. */
  read(linear: bigint, bytes: number, user: boolean): bigint | LinearFault;
  /** Writes all bytes or none. */
  write(linear: bigint, bytes: number, value: bigint, user: boolean): LinearFault | undefined;
  /** Whether a write would be allowed. */
  mayWrite(linear: bigint, bytes: number, user: boolean): LinearFault | undefined;
  /** 8 bytes at a guest-physical address (PDPTEs). */
  readPhysical(gpa: number): bigint;
}

/** What the hypervisor has to do itself. */
export type Interception =
  | { readonly kind: 'instruction'; readonly reason: number; readonly qualification: bigint }
  | { readonly kind: 'movToCr'; readonly cr: number; readonly gpr: number }
  | { readonly kind: 'clts' }
  | { readonly kind: 'lmsw'; readonly source: number }
  | { readonly kind: 'rdmsr' }
  | { readonly kind: 'wrmsr' }
  | { readonly kind: 'tripleFault' };

/** `event`: a fault is in `S.faultVector` …; `intercepted`: see `interception`; `unsupported`: see `missing`. */
export type SoftwareOutcome = 'done' | 'event' | 'intercepted' | 'unsupported';

/** RDTSC and PAUSE never exit to the emulator's hypervisor. */
const NATIVE: ReadonlySet<number> = new Set([16, 40, 51]);
const ABSENT: ReadonlySet<string> = new Set(['syscall', 'sysret', 'sysenter', 'sysexit']);
const UNIT_CHECK = /^check(X87|Mmx|Sse|Wait)$/;

/** The state block, and physical memory as far as helpers ask for it. */
const stateMemory = (memory: LinearMemory): Ram => {
  const buffer = new ArrayBuffer(LAYOUT.state + STATE_BYTES);
  return {
    u8: new Uint8Array(buffer),
    i32: new Int32Array(buffer),
    u32: new Uint32Array(buffer),
    u64: new BigUint64Array(buffer),
    has: () => true,
    read64: (gpa: number) => memory.readPhysical(gpa),
  } as unknown as Ram;
};

/** Every access goes through the bounce buffer. */
class SoftwareMmu implements MemoryUnit {
  readonly #cpu: Cpu;
  readonly #memory: LinearMemory;
  readonly #onCr3: (cr3: number) => void;
  stackAccess = false;
  #linear = 0n;
  #bytes = 0;
  #user = false;

  constructor(cpu: Cpu, memory: LinearMemory, onCr3: (cr3: number) => void) {
    this.#cpu = cpu;
    this.#memory = memory;
    this.#onCr3 = onCr3;
  }
  access(lo: number, hi: number, size: number, kind: number, privilege = 'current'): number {
    const cpu = this.#cpu;
    const linear = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
    const user = privilege === 'user' || (privilege === 'current' && cpu.get32(S.cpl) === 3);
    if (!canonical(linear)) {
      cpu.fault(this.stackAccess ? VECTOR.ss : VECTOR.gp, 0);
      return LEFT;
    }
    if (kind === ACCESS.write || kind === ACCESS.rmw) {
      const fault = this.#memory.mayWrite(linear, size, user);
      if (fault !== undefined) return this.fault(fault);
      this.#linear = linear;
      this.#bytes = size;
      this.#user = user;
    }
    const at = cpu.at + S.bounce;
    if (kind !== ACCESS.write) {
      const value = this.#memory.read(linear, size, user);
      if (typeof value !== 'bigint') return this.fault(value);
      for (let i = 0; i < size; i++) cpu.ram.u8[at + i] = Number((value >> BigInt(8 * i)) & 0xffn);
    }
    return at;
  }
  fault(fault: LinearFault): typeof LEFT {
    this.#cpu.fault(VECTOR.pf, fault.code, fault.address);
    return LEFT;
  }
  commit(): void {
    const at = this.#cpu.at + S.bounce;
    let value = 0n;
    for (let i = this.#bytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#cpu.ram.u8[at + i]);
    this.#memory.write(this.#linear, this.#bytes, value, this.#user);
  }
  fetch(): number {
    return LEFT;
  }
  physical(gpa: number): number {
    return gpa;
  }
  loadCr3(): void {
    this.#onCr3(this.#cpu.get32(S.cr3));
  }
  contextChanged(): void {}
  invlpg(): void {}
  invpcid(): void {}
  flushAll(): void {}
}

export class SoftwareCpu {
  readonly cpu: Cpu;
  /** After `intercepted`. */
  interception: Interception | undefined;
  /** After `unsupported`: the helper that is not there. */
  missing = '';
  readonly #env: Environment;
  readonly #mmu: SoftwareMmu;

  /**
   * @param ports where IN and OUT go
   * @param onCr3 a task switch loaded CR3; the next access uses it
   */
  constructor(memory: LinearMemory, ports: PortBus, onCr3: (cr3: number) => void) {
    const cpu = new Cpu(stateMemory(memory));
    this.cpu = cpu;
    this.#mmu = new SoftwareMmu(cpu, memory, onCr3);
    cpu.mmu = this.#mmu;
    cpu.ports = ports;
    cpu.guest = this.#interceptor();
    const helpers: HelperTable = SYSTEM_HELPERS;
    this.#env = {
      state: cpu,
      memory: this.#port(memory),
      helper: (name) => {
        if (UNIT_CHECK.test(name)) return true;
        const helper = ABSENT.has(name) ? undefined : helpers[name];
        if (helper !== undefined) return helper(cpu);
        this.missing = name;
        return cpu.ud();
      },
      segment: (seg, offset, bytes, write) => segmentLinear32(cpu, seg, offset, bytes, write),
    };
  }

  /** Mode, CPL and stack size after segments and control registers were put into the state. */
  modeChanged(): void {
    modeChanged(this.cpu);
  }

  /** Executes an instruction at `S.rip`. */
  execute(insn: Insn): SoftwareOutcome {
    this.#begin();
    if (!checkInsn(insn, this.#env)) return this.#left();
    return executeInsn(insn, this.#env) === 'left' ? this.#left() : 'done';
  }
  /** Switches to the task of a TSS selector; arguments as of `system/task-switch.ts`. */
  switchTask(
    selector: number,
    source: TaskSource,
    returnRip: bigint,
    code: number,
    flags: bigint,
  ): SoftwareOutcome {
    this.#begin();
    if (!taskSwitch(this.cpu, selector, source, returnRip, code, flags)) return this.#left();
    this.cpu.set64(S.rip, this.cpu.nextRip);
    return 'done';
  }
  /** Delivers an event through the interrupt table of the mode. */
  deliver(event: PendingEvent, returnRip: bigint): SoftwareOutcome {
    this.#begin();
    if (!deliverEvent(this.cpu, event, returnRip)) return this.#left();
    this.cpu.set64(S.rip, this.cpu.nextRip);
    return 'done';
  }

  #begin(): void {
    this.interception = undefined;
    this.missing = '';
    this.cpu.delivering = undefined;
    this.cpu.set32(S.leave, LEAVE.none);
  }
  #left(): SoftwareOutcome {
    if (this.missing !== '') return 'unsupported';
    return this.interception !== undefined ? 'intercepted' : 'event';
  }

  #port(memory: LinearMemory): MemoryPort {
    const { cpu } = this;
    const user = (): boolean => cpu.get32(S.cpl) === 3;
    const checked = (linear: bigint, stack: boolean): boolean =>
      canonical(linear) || cpu.fault(stack ? VECTOR.ss : VECTOR.gp, 0);
    return {
      load: (linear, bytes, stack) => {
        if (!checked(linear, stack)) return LEFT;
        const value = memory.read(linear, bytes, user());
        return typeof value === 'bigint' ? value : this.#mmu.fault(value);
      },
      store: (linear, bytes, v, stack) => {
        if (!checked(linear, stack)) return false;
        const fault = memory.write(linear, bytes, v, user());
        if (fault !== undefined) this.#mmu.fault(fault);
        return fault === undefined;
      },
      rmw: (linear, bytes, change, stack) => {
        if (!checked(linear, stack)) return LEFT;
        const fault = memory.mayWrite(linear, bytes, user());
        if (fault !== undefined) return this.#mmu.fault(fault);
        const old = memory.read(linear, bytes, user());
        if (typeof old !== 'bigint') return this.#mmu.fault(old);
        memory.write(linear, bytes, change(old), user());
        return old;
      },
    };
  }

  /** Reports what the hypervisor must do; everything else happens here. */
  #interceptor(): NonRoot {
    const intercept = (what: Interception): true => {
      this.interception = what;
      return true;
    };
    return {
      instruction: (reason, qualification = 0n) =>
        !NATIVE.has(reason) && intercept({ kind: 'instruction', reason, qualification }),
      movToCr: (cr, gpr) => intercept({ kind: 'movToCr', cr, gpr }),
      movFromCr: () => false,
      clts: () => intercept({ kind: 'clts' }),
      lmsw: (source) => intercept({ kind: 'lmsw', source }),
      movDr: () => false,
      io: () => false,
      rdmsr: () => intercept({ kind: 'rdmsr' }),
      wrmsr: () => intercept({ kind: 'wrmsr' }),
      descriptorTable: () => false,
      taskSwitch: () => false,
      exception: () => false,
      tripleFault: () => intercept({ kind: 'tripleFault' }),
      readCr0: (real) => real,
      readCr4: (real) => real,
      writeCr0: (value) => value,
      writeCr4: (value) => value,
      tscOffset: 0n,
      boundary: () => false,
      deadline: () => Number.POSITIVE_INFINITY,
      watching: () => false,
    };
  }
}
