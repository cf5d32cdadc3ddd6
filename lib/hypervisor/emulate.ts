/**
 * The instruction emulator: the reference engine on a copy of the guest's registers, with the hypervisor's view of
 * guest memory under it (KVM's x86_emulate_instruction).
 *
 * Every access is translated by the MMU's software walk; RAM is read and written in place and each store is reported to
 * the MMU (`pteWrite`); other addresses go to devices. A REP instruction runs up to 1024 iterations an exit, as KVM's.
 * Code outside 64-bit mode, and instructions whose semantics are helpers, go to `full-emulation.ts`.
 */
import { type Environment, executeInsn, type MemoryPort, StateBlock } from '../cpu/reference.js';
import { decode } from '../isa/decoder.js';
import { arithmeticFlags, FLAGS } from '../isa/flags.js';
import type { Insn } from '../isa/rows.js';
import { ARITHMETIC_FLAGS, CR0, FLAG, GPR, LEAVE, PF, S, SEG, VECTOR } from '../isa/state.js';
import { LEFT } from '../memory/access.js';
import { VMCS } from '../vmx/port.js';
import { SEGMENT_FIELDS } from './cr.js';
import { FullEmulator } from './full-emulation.js';
import type { GuestPageFault } from './mmu/mmu.js';
import { type Next, RESUME, stop } from './next.js';
import type { Vcpu } from './vcpu.js';

/** Iterations of a string instruction emulated at once. */
const STRING_MASK = 0x3ff;

const canonical = (linear: bigint): boolean => {
  const top = BigInt.asUintN(64, linear) >> 47n;
  return top === 0n || top === 0x1_ffffn;
};

export class Emulator {
  readonly #vcpu: Vcpu;
  /** For what needs more than general registers and memory. */
  readonly full: FullEmulator;
  readonly #state = new StateBlock();
  readonly #env: Environment;
  readonly #bytes = new Uint8Array(15);
  /** What made an access leave the instruction. */
  #fault: GuestPageFault | undefined;
  #unsupported = '';
  /** How many of the bytes are valid. */
  #have = 0;

  constructor(vcpu: Vcpu) {
    this.#vcpu = vcpu;
    this.full = new FullEmulator(vcpu);
    this.#env = {
      state: this.#state,
      memory: new GuestLinear(
        vcpu,
        (fault) => {
          this.#fault = fault;
        },
        (vector) => this.#raise(vector),
      ),
      helper: (name) => {
        this.#unsupported = name;
        this.#state.set32(S.leave, LEAVE.fault);
        return false;
      },
      segment: (seg, offset) =>
        Number(BigInt.asUintN(32, this.#state.get64(S.segBase + 8 * seg) + BigInt(offset))),
    };
  }

  #raise(vector: number): void {
    const s = this.#state;
    s.set32(S.leave, LEAVE.fault);
    s.set32(S.faultVector, vector);
    s.set32(S.faultCode, 0);
  }

  /** Emulates the instruction at RIP. @param unprotect the page that a write hit: may be unshadowed and the instruction retried */
  emulate(unprotect?: bigint): Next {
    const vcpu = this.#vcpu;
    const insn = this.fetch();
    vcpu.vm.stats.insn_emulation++;
    if (insn === 'fault') return RESUME;
    this.#trace(insn?.length ?? this.#have, false);
    if (insn === undefined) return this.#fail('it cannot be decoded');
    if (
      unprotect !== undefined &&
      insn.row.pageTableWriting !== true &&
      vcpu.mmu.unprotectAndRetry(unprotect, vcpu.rip)
    )
      return RESUME;
    vcpu.vm.charge(vcpu.vm.costs.emulated);
    return this.execute(insn);
  }

  #trace(bytes: number, failed: boolean): void {
    const { port, cr0, longCode, rip, vm } = this.#vcpu;
    const hook = vm.trace.sinks.kvm_emulate_insn;
    if (hook === undefined) return;
    const rights = port.vmread32(VMCS.guestCsAccessRights);
    const wide = longCode ? 64 : (rights & 0x4000) !== 0 ? 32 : 16;
    const virtual8086 = (port.vmread32(VMCS.guestRflags) & FLAG.vm) !== 0;
    hook({
      csbase: port.vmread(VMCS.guestCsBase),
      rip,
      insn: Buffer.from(this.#bytes.subarray(0, bytes))
        .toString('hex')
        .replace(/..(?=.)/g, '$& '),
      mode: (cr0 & CR0.pe) === 0 ? 'real' : virtual8086 ? 'vm16' : `prot${wide}`,
      failed,
    });
  }

  /** Reads and decodes the instruction at RIP; `fault` when the guest got a page fault instead. */
  fetch(): Insn | 'fault' | undefined {
    const vcpu = this.#vcpu;
    const { vm, port } = vcpu;
    const code = port.vmread32(VMCS.guestCsAccessRights);
    const mode = vcpu.longCode ? 64 : (code & 0x4000) !== 0 ? 32 : 16;
    const base = mode === 64 ? 0n : port.vmread(VMCS.guestCsBase);
    const linear = BigInt.asUintN(mode === 64 ? 64 : 32, vcpu.rip + base);
    const access = PF.i | (vcpu.cpl === 3 ? PF.u : 0);
    let have = 0;
    while (have < 15) {
      const at = linear + BigInt(have);
      const gpa = vcpu.mmu.gvaToGpa(at, access);
      if (typeof gpa !== 'number') {
        // the rest of the page may be enough
        if (have > 0) break;
        vcpu.injectPageFault(gpa);
        return 'fault';
      }
      const hpa = vm.slots.hpa(gpa);
      if (hpa === undefined) return undefined;
      const n = Math.min(15 - have, 4096 - (gpa % 4096));
      this.#bytes.set(port.memory.view(hpa, n), have);
      have += n;
    }
    this.#have = have;
    const insn = decode(this.#bytes, 0, have, mode);
    return typeof insn === 'string' ? undefined : insn;
  }

  /** Executes a decoded instruction and writes the result back. */
  execute(insn: Insn): Next {
    const vcpu = this.#vcpu;
    const s = this.#state;
    const count = this.#load(insn);
    if (insn.mode !== 64)
      return this.full.execute(insn, count) ?? this.#fail(`'${insn.row.name}' is not modelled`);
    this.#fault = undefined;
    this.#unsupported = '';
    const outcome = executeInsn(insn, this.#env);
    const retired = count - (s.get32(S.budget) | 0);
    if (outcome === 'left') {
      if (this.#unsupported !== '')
        return (
          this.full.execute(insn, count) ?? this.#fail(`'${insn.row.name}' needs '${this.#unsupported}'`)
        );
      // iterations before the fault are done
      if (retired > 0) {
        this.#store(insn);
        vcpu.port.retire(retired);
      }
      if (this.#fault !== undefined) vcpu.injectPageFault(this.#fault);
      else vcpu.queueException(s.get32(S.faultVector), s.get32(S.faultCode) | 0);
      return RESUME;
    }
    this.#store(insn);
    vcpu.port.retire(retired - 1);
    vcpu.retired();
    return RESUME;
  }

  /** Copies what the instruction may read. Returns the budget. */
  #load(insn: Insn): number {
    const vcpu = this.#vcpu;
    const { port, registers } = vcpu;
    const s = this.#state;
    for (let i = 0; i < 16; i++) s.setGpr(i, i === GPR.rsp ? port.vmread(VMCS.guestRsp) : registers.gpr(i));
    s.set64(S.rip, vcpu.rip);
    const flags = vcpu.rflags;
    s.set32(S.flagKind, FLAGS.explicit);
    s.set64(S.flagA, BigInt(flags & ARITHMETIC_FLAGS));
    s.set64(S.flagR, (flags & FLAG.zf) !== 0 ? 0n : 1n);
    s.set32(S.eflags, flags & ~ARITHMETIC_FLAGS);
    s.set32(S.leave, LEAVE.none);
    for (let seg = SEG.es; seg <= SEG.gs; seg++)
      s.set64(S.segBase + 8 * seg, port.vmread(SEGMENT_FIELDS[seg].base));
    for (const op of insn.operands) if (op.kind === 'xmm') this.#loadXmm(op.index);
    let count = 1;
    if (insn.row.string !== undefined) {
      count = Number(s.gpr(GPR.rcx) & BigInt(STRING_MASK)) || STRING_MASK + 1;
      // an interrupt between two iterations comes where it would come without emulation
      count = Math.max(1, Math.min(count, this.#vcpu.vm.untilDeadline()));
    }
    s.set32(S.budget, count);
    return count;
  }
  #loadXmm(i: number): void {
    const v = new DataView(this.#vcpu.registers.xmm(i).buffer.slice(0));
    this.#state.set64(S.xmm + 16 * i, v.getBigUint64(0, true));
    this.#state.set64(S.xmm + 16 * i + 8, v.getBigUint64(8, true));
  }
  #store(insn: Insn): void {
    const vcpu = this.#vcpu;
    const { port, registers } = vcpu;
    const s = this.#state;
    for (let i = 0; i < 16; i++) {
      if (i === GPR.rsp) port.vmwrite(VMCS.guestRsp, s.gpr(i));
      else registers.setGpr(i, s.gpr(i));
    }
    port.vmwrite(VMCS.guestRip, s.get64(S.rip));
    const arithmetic = arithmeticFlags(s.get32(S.flagKind), s.get64(S.flagA), s.get64(S.flagR));
    port.vmwrite32(
      VMCS.guestRflags,
      ((s.get32(S.eflags) & ~ARITHMETIC_FLAGS & ~FLAG.rf) | arithmetic | 2) >>> 0,
    );
    for (const op of insn.operands) {
      if (op.kind !== 'xmm') continue;
      const v = new DataView(new ArrayBuffer(16));
      v.setBigUint64(0, s.get64(S.xmm + 16 * op.index), true);
      v.setBigUint64(8, s.get64(S.xmm + 16 * op.index + 8), true);
      registers.setXmm(op.index, new Uint8Array(v.buffer));
    }
  }

  /** handle_emulation_failure: user code gets #UD, kernel code ends the run. */
  #fail(why: string): Next {
    const vcpu = this.#vcpu;
    vcpu.vm.stats.insn_emulation_fail++;
    this.#trace(this.#have, true);
    const bytes = [...this.#bytes].map((b) => b.toString(16).padStart(2, '0')).join(' ');
    const text = `emulation failure at rip 0x${vcpu.rip.toString(16)}: ${why} (bytes ${bytes})`;
    vcpu.vm.log.print(`kvm: ${text}`);
    if (vcpu.cpl !== 0) {
      vcpu.queueException(VECTOR.ud);
      return RESUME;
    }
    return stop('emulation-failure', text);
  }
}

/** Guest memory by linear address, with the rights of the current privilege level. */
class GuestLinear implements MemoryPort {
  readonly #vcpu: Vcpu;
  readonly #leave: (fault: GuestPageFault) => void;
  readonly #raise: (vector: number) => void;
  constructor(vcpu: Vcpu, leave: (fault: GuestPageFault) => void, raise: (vector: number) => void) {
    this.#vcpu = vcpu;
    this.#leave = leave;
    this.#raise = raise;
  }
  /** Guest-physical address, or -1 with the fault noted. */
  #gpa(linear: bigint, access: number): number {
    const gpa = this.#vcpu.mmu.gvaToGpa(linear, access | (this.#vcpu.cpl === 3 ? PF.u : 0));
    if (typeof gpa === 'number') return gpa;
    this.#leave(gpa);
    return -1;
  }
  /** The MMU has just found the page to be a device's, and remembers it: by linear address without EPT, else by guest-physical. */
  #matched(gva: bigint, gpa: number, write: boolean): void {
    const { vm, ept } = this.#vcpu;
    const hook = vm.trace.sinks.vcpu_match_mmio;
    if (hook !== undefined && vm.slots.hpa(gpa) === undefined) hook({ gva, gpa, write, gpa_match: ept });
  }
  #checked(linear: bigint, stack: boolean): boolean {
    if (canonical(linear)) return true;
    this.#raise(stack ? VECTOR.ss : VECTOR.gp);
    return false;
  }
  load(linear: bigint, bytes: number, stack: boolean): bigint | typeof LEFT {
    if (!this.#checked(linear, stack)) return LEFT;
    const here = Math.min(bytes, 4096 - Number(linear & 0xfffn));
    const first = this.#gpa(linear, 0);
    if (first < 0) return LEFT;
    this.#matched(linear, first, false);
    if (here === bytes) return this.#vcpu.vm.readPhysical(first, bytes);
    const second = this.#gpa(linear + BigInt(here), 0);
    if (second < 0) return LEFT;
    const low = this.#vcpu.vm.readPhysical(first, here);
    return low | (this.#vcpu.vm.readPhysical(second, bytes - here) << BigInt(8 * here));
  }
  store(linear: bigint, bytes: number, v: bigint, stack: boolean): boolean {
    if (!this.#checked(linear, stack)) return false;
    const here = Math.min(bytes, 4096 - Number(linear & 0xfffn));
    const first = this.#gpa(linear, PF.w);
    if (first < 0) return false;
    this.#matched(linear, first, true);
    if (here === bytes) {
      this.#vcpu.vm.writePhysical(first, bytes, v);
      return true;
    }
    const second = this.#gpa(linear + BigInt(here), PF.w);
    if (second < 0) return false;
    this.#vcpu.vm.writePhysical(first, here, BigInt.asUintN(8 * here, v));
    this.#vcpu.vm.writePhysical(second, bytes - here, v >> BigInt(8 * here));
    return true;
  }
  rmw(linear: bigint, bytes: number, change: (old: bigint) => bigint, stack: boolean): bigint | typeof LEFT {
    if (!this.#checked(linear, stack)) return LEFT;
    const here = Math.min(bytes, 4096 - Number(linear & 0xfffn));
    if (this.#gpa(linear, PF.w) < 0) return LEFT;
    if (here !== bytes && this.#gpa(linear + BigInt(here), PF.w) < 0) return LEFT;
    const old = this.load(linear, bytes, stack);
    if (old === LEFT) return LEFT;
    this.store(linear, bytes, change(old as bigint), stack);
    return old;
  }
}
