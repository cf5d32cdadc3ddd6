/**
 * One virtual CPU: the guest state that KVM keeps beside the VMCS, and what handlers and MMU ask of it.
 *
 * The registers as the guest believes them to be (`cr0`, `cr3`, `cr4`, `efer`) differ from the VMCS where the host owns
 * bits; everything else is read from the VMCS when needed. One vCPU a VM.
 */
import { CR0, CR4, FLAG, VECTOR } from '../isa/state.js';
import { ENTRY_CONTROL, EXIT_CONTROL, PROC, type StubRegisters, VMCS, type VmxPort } from '../vmx/port.js';
import type { Controls } from './controls.js';
import { guestCr4, hardwareCr0, hardwareCr4 } from './cr.js';
import { EventState } from './events.js';
import { guestStateValid } from './invalid-state.js';
import type { GuestPageFault, KvmMmu, MmuVcpu } from './mmu/mmu.js';
import type { Vm } from './vm.js';

const DR6_BS = 0x4000;
const DR7_GD = 0x2000n;
const EFER_LMA_BIT = 0x400;
const EFER_NX_BIT = 0x800;
const PDPTE_FIELDS = [VMCS.guestPdpte0, VMCS.guestPdpte1, VMCS.guestPdpte2, VMCS.guestPdpte3] as const;

export class Vcpu implements MmuVcpu {
  readonly vm: Vm;
  readonly port: VmxPort;
  readonly registers: StubRegisters;
  readonly controls: Controls;
  readonly events = new EventState();
  readonly ept: boolean;
  /** Tag of this vCPU's translations; 0 without VPIDs. */
  readonly vpid: number;
  mmu!: KvmMmu;

  /** Set by HLT, cleared when an event wakes the vCPU. */
  halted = false;
  /** KVM_REQ_EVENT: the events have to be looked at again (for the offer of a paravirtual EOI). */
  eventRequested = true;
  /** Guest DRs are in the registers and MOV DR does not exit (KVM-1.2). */
  debugRegistersLoaded = false;
  /** Current PAUSE-loop window, and whether it must be written. */
  pleWindow: number;
  pleWindowDirty = false;

  // as the guest sees them
  #cr0 = 0;
  #cr3 = 0;
  #cr4 = 0;
  readonly #pdptes = new BigUint64Array(4);
  efer = 0;
  xcr0 = 1;
  miscEnable = 1;
  pat = 0x0007040600070406n;
  tscOffset = 0n;
  tscAdjust = 0n;
  /** MSRs without an effect of their own, by number. */
  readonly storedMsrs = new Map<number, bigint>();
  // paravirtual
  systemTimeMsr = 0n;
  pvEoiMsr = 0n;
  pvEoiPending = false;
  /** An asynchronous page fault waits to be reported as done. */
  asyncPfDone = false;

  #flushRequests = 0;
  #root = -1;

  constructor(vm: Vm, controls: Controls) {
    this.vm = vm;
    this.port = vm.port;
    this.registers = vm.port.registers;
    this.controls = controls;
    this.ept = vm.params.ept;
    this.vpid = vm.params.vpid ? 1 : 0;
    this.pleWindow = vm.params.ple_window;
  }

  // ---- control registers
  /** PDPTEs of PAE paging: the processor's with EPT, else those loaded with the guest's CR3. */
  pdpte(i: number): bigint {
    return this.ept ? this.port.vmread(PDPTE_FIELDS[i as 0]) : this.#pdptes[i];
  }
  /** @param entries four @returns true when one is new */
  setPdptes(entries: readonly bigint[]): boolean {
    let changed = false;
    for (const [i, entry] of entries.entries()) {
      if (this.pdpte(i) === entry) continue;
      changed = true;
      if (this.ept) this.port.vmwrite(PDPTE_FIELDS[i as 0], entry);
      else this.#pdptes[i] = entry;
    }
    return changed;
  }
  get cr0(): number {
    const owned = this.controls.initial.cr0GuestOwned;
    return ((this.#cr0 & ~owned) | (this.port.vmread32(VMCS.guestCr0) & owned)) >>> 0;
  }
  get cr3(): number {
    return this.#ownCr3 ? this.port.vmreadNumber(VMCS.guestCr3) : this.#cr3;
  }
  /** GUEST_CR3 is the guest's: not with shadow paging, nor while the guest runs on the identity map. */
  get #ownCr3(): boolean {
    return this.ept && (this.vm.params.unrestricted_guest || (this.#cr0 & CR0.pg) !== 0);
  }
  get cr4(): number {
    const owned = this.controls.initial.cr4GuestOwned;
    return ((this.#cr4 & ~owned) | (this.port.vmread32(VMCS.guestCr4) & owned)) >>> 0;
  }
  /** vmx_set_cr0: keeps the guest's value and loads the real one. */
  setCr0(value: number): void {
    const { params, identityMap } = this.vm;
    const cr3 = this.cr3;
    const toggled = ((this.#cr0 ^ value) & CR0.pg) !== 0;
    this.#cr0 = value;
    this.port.vmwriteNumber(VMCS.cr0ReadShadow, value);
    this.port.vmwriteNumber(VMCS.guestCr0, hardwareCr0(value, params));
    if (identityMap === undefined) return;
    // with EPT a restricted guest without paging runs on the identity map, and its CR3 is only kept (KVM-1.2)
    const paging = (value & CR0.pg) !== 0;
    this.controls.setProc(PROC.cr3LoadExiting | PROC.cr3StoreExiting, !paging);
    this.#cr3 = cr3;
    this.port.vmwriteNumber(VMCS.guestCr3, paging ? cr3 : identityMap);
    if (toggled) this.setCr4(this.cr4);
  }
  setCr3(value: number): void {
    this.#cr3 = value;
    if (this.#ownCr3) this.port.vmwriteNumber(VMCS.guestCr3, value);
  }
  /** The guest's state is one that the processor cannot be entered with (`invalid-state.ts`). */
  emulationRequired = false;
  /** Length of the instruction that the emulator hands to an exit handler. */
  emulatedLength: number | undefined;
  /** After segments or CR0 changed otherwise than by the processor. */
  updateEmulation(): void {
    const { unrestricted_guest, emulate_invalid_guest_state } = this.vm.params;
    // with N the entry of a protected-mode guest is tried, and fails
    const emulates = emulate_invalid_guest_state || (this.#cr0 & CR0.pe) === 0;
    this.emulationRequired = !unrestricted_guest && emulates && !guestStateValid(this);
  }
  /** vmx_set_cr4. UMIP that the processor lacks is emulated through descriptor-table exits. */
  setCr4(value: number): void {
    this.#cr4 = value;
    this.port.vmwriteNumber(VMCS.cr4ReadShadow, guestCr4(value));
    this.port.vmwriteNumber(
      VMCS.guestCr4,
      hardwareCr4(value, this.vm.params, this.#cr0, this.vm.hardwareUmip),
    );
    this.vm.setDescriptorTableExiting((value & CR4.umip) !== 0 && !this.vm.hardwareUmip);
  }
  /** vmx_set_efer: the entry loads it when it differs from the host's; ept=0 needs NX in hardware. */
  setEfer(value: number): void {
    this.efer = value;
    const hardware = this.ept ? value : value | EFER_NX_BIT;
    this.controls.setEntry(ENTRY_CONTROL.ia32eModeGuest, (value & EFER_LMA_BIT) !== 0);
    const differs = hardware !== this.vm.hostEfer;
    this.controls.setEntry(ENTRY_CONTROL.loadEfer, differs);
    this.controls.setExit(EXIT_CONTROL.loadHostEfer, differs);
    this.port.vmwriteNumber(VMCS.guestEfer, hardware);
  }

  get cpl(): number {
    return (this.port.vmread32(VMCS.guestSsAccessRights) >> 5) & 3;
  }
  get rflags(): number {
    return this.port.vmread32(VMCS.guestRflags);
  }
  get rip(): bigint {
    return this.port.vmread(VMCS.guestRip);
  }
  /** CS.L: 64-bit code. */
  get longCode(): boolean {
    return (this.efer & EFER_LMA_BIT) !== 0 && (this.port.vmread32(VMCS.guestCsAccessRights) & 0x2000) !== 0;
  }

  // ---- general registers; RSP is in the VMCS
  gpr(i: number): bigint {
    return i === 4 ? this.port.vmread(VMCS.guestRsp) : this.registers.gpr(i);
  }
  setGpr(i: number, value: bigint): void {
    if (i === 4) this.port.vmwrite(VMCS.guestRsp, value);
    else this.registers.setGpr(i, value);
  }
  gpr32(i: number): number {
    return i === 4 ? this.port.vmread32(VMCS.guestRsp) : this.registers.gpr32(i) >>> 0;
  }
  /** A register operand as the mode has it: 64 bits, or 32 outside 64-bit code. */
  operand(i: number): bigint {
    return this.longCode ? this.gpr(i) : BigInt.asUintN(32, this.gpr(i));
  }

  /** kvm_skip_emulated_instruction: behind the instruction that exited, which counts as retired. */
  skip(): void {
    const port = this.port;
    const length = BigInt(this.emulatedLength ?? port.vmread32(VMCS.exitInstructionLength));
    const next = port.vmread(VMCS.guestRip) + length;
    port.vmwrite(VMCS.guestRip, this.longCode ? BigInt.asUintN(64, next) : BigInt.asUintN(32, next));
    this.retired();
  }
  /** What follows any instruction that the hypervisor completes: shadows end, a single step traps. */
  retired(): void {
    const port = this.port;
    const blocking = port.vmread32(VMCS.guestInterruptibilityState);
    if ((blocking & 3) !== 0) port.vmwrite32(VMCS.guestInterruptibilityState, blocking & ~3);
    const flags = port.vmread32(VMCS.guestRflags);
    // RF is for one instruction
    if ((flags & FLAG.rf) !== 0) port.vmwrite32(VMCS.guestRflags, flags & ~FLAG.rf);
    if ((flags & FLAG.tf) !== 0) this.queueDebug(DR6_BS);
    port.retire(1);
  }

  // ---- events
  queueException(vector: number, code = -1): void {
    // no error codes in real mode
    this.events.queue(vector, (this.cr0 & CR0.pe) === 0 ? -1 : code);
    this.eventRequested = true;
  }
  /** #DB with the given conditions in DR6. */
  queueDebug(dr6: number): void {
    const old = Number(this.registers.dr(6) & 0xffffffffn);
    this.registers.setDr(6, BigInt(((old & ~15) | dr6 | 0xfffe0ff0) >>> 0));
    // the delivery of #DB ends general detection
    const dr7 = this.port.vmread(VMCS.guestDr7);
    if ((dr7 & DR7_GD) !== 0n) this.port.vmwrite(VMCS.guestDr7, dr7 & ~DR7_GD);
    this.queueException(VECTOR.db);
  }
  /** #GP(0), for handlers. */
  injectGp(): void {
    this.queueException(VECTOR.gp, 0);
  }
  injectUd(): void {
    this.queueException(VECTOR.ud);
  }
  injectPageFault(fault: GuestPageFault): void {
    this.registers.cr2 = fault.address;
    this.queueException(VECTOR.pf, fault.code);
    this.vm.stats.pf_guest++;
    this.vm.charge(this.vm.costs.faultInjected);
  }

  // ---- translations
  /** EPTP, or the shadow root with the guest's PCID; `root` is the host-physical address and its low bits. */
  setRoot(root: number): void {
    if (this.ept) {
      if (root === this.#root) return;
      this.#root = root;
      this.port.vmwriteNumber(VMCS.eptPointer, root);
    } else {
      this.port.vmwriteNumber(VMCS.guestCr3, root);
    }
  }
  requestTlbFlush(): void {
    this.#flushRequests++;
  }
  get flushRequested(): boolean {
    return this.#flushRequests > 0;
  }
  /** KVM_REQ_TLB_FLUSH_CURRENT: requests pending at one entry are one flush. */
  serviceTlbFlush(): void {
    this.#flushRequests = 0;
    this.vm.stats.tlb_flush++;
    if (this.ept) this.port.invept(1, BigInt(this.#root));
    else this.flushVpid();
  }
  flushAddress(gva: bigint): void {
    if (this.vpid !== 0) this.port.invvpid(0, this.vpid, gva);
  }
  /** Everything that this vCPU's linear addresses translate to. Without VPIDs entries and exits flush by themselves. */
  flushVpid(): void {
    if (this.vpid !== 0) this.port.invvpid(1, this.vpid, 0n);
  }

  /** Guest TSC. */
  guestTsc(): bigint {
    return BigInt.asUintN(64, BigInt(this.port.rdtsc()) + this.tscOffset);
  }
  setTscOffset(offset: bigint): void {
    this.tscOffset = BigInt.asUintN(64, offset);
    this.port.vmwrite(VMCS.tscOffset, this.tscOffset);
  }

  /** At the first exit after a MOV DR: takes the guest's DRs back and makes the next access exit again. */
  syncDebugRegisters(): void {
    this.debugRegistersLoaded = false;
    this.controls.setProc(PROC.movDrExiting, true);
  }
}
