/**
 * The memory-management unit: the slow path behind the inline TLB lookups of engines, and the TLB's operations.
 *
 * An access is answered from the translations already cached, or by a page walk, which is counted; it gives a pointer
 * into linear memory, or records #PF, #GP, #SS, an EPT violation or an EPT misconfiguration. SDM volume 3, "Paging" and
 * "VMX Support for Address Translation". Physical addresses outside RAM read as ones and ignore writes; there is no bus.
 */
import { fromHalves, isCanonical } from '../base/bits.js';
import { InvariantError } from '../base/error.js';
import { CR0, CR4, EFER, FLAG, S, VECTOR } from '../isa/state.js';
import { ACCESS, LEFT, TLB_SET_BYTES } from './access.js';
import { NO_EPT, TlbContexts } from './contexts.js';
import { CACHED, PAGING, WALK } from './paging.js';
import { LAYOUT, type Ram } from './ram.js';
import { SET } from './tlb.js';
import { type EptPointer, PRIVILEGE, ROLE, roleOf, Walk } from './walk.js';

// Word offsets of state fields, and other constants of the hot paths.
const CR0_AT = S.cr0 / 4;
const CR3_AT = S.cr3 / 4;
const CR4_AT = S.cr4 / 4;
const EFER_AT = S.efer / 4;
const PDPTE_AT = S.pdpte / 4;
const { read: READ, write: WRITE, rmw: RMW, exec: EXEC } = ACCESS;
const { u: USER, w: WRITABLE, d: DIRTY, x: EXECUTABLE, r: READABLE, page: PAGE } = CACHED;
const { user: USER_MODE, supervisor: SUPERVISOR, supervisorAc: SUPERVISOR_AC } = PRIVILEGE;
const { smap: ROLE_SMAP, smep: ROLE_SMEP, wp: ROLE_WP, paging: ROLE_PAGING } = ROLE;
const { read: READ_SET, write: WRITE_SET, exec: EXEC_SET } = SET;
const SET_BYTES = TLB_SET_BYTES;

/** Exit qualification of EPT violations, bit 7: the guest linear-address field is valid. */
const LINEAR_VALID = 0x80;
const BOUNCE_BYTES = 64;

/** What the MMU needs of the processor (`cpu/core.ts`). */
export interface MmuHost {
  readonly ram: Ram;
  readonly at: number;
  readonly exitInfo: {
    reason: number;
    qualification: bigint;
    linear: bigint;
    physical: number;
    interruptionInfo: number;
    interruptionCode: number;
    instructionLength: number;
    instructionInfo: number;
  };
  extraCycles: number;
  fault(vector: number, code?: number, address?: bigint): false;
  leaveForExit(): void;
}

/** SDM volume 3, "Alignment Requirements by Data Type": by size, 8 for 80-bit values; 16 bytes have checks of their own. */
const alignmentMask = (size: number): number => (size >= 16 ? 0 : size >= 8 ? 7 : size >= 4 ? 3 : size - 1);

export class Mmu {
  readonly #cpu: MmuHost;
  readonly #ram: Ram;
  readonly #u32: Uint32Array;
  readonly #state: number;
  readonly #walk: Walk;
  readonly #tlb: TlbContexts;
  /** EPT of VMX non-root operation; set together with `vpid`, followed by `contextChanged`. */
  ept: EptPointer | undefined = undefined;
  /** 0 outside non-root operation and without "enable VPID". */
  vpid = 0;
  /** An engine sets it around an access through SS: non-canonical is then #SS(0). */
  stackAccess = false;
  /** Cost of one paging-entry reference, added to the processor's `extraCycles`. */
  cyclesPerReference = 0;
  /** Linear-memory address of the table of decoded code of a host page for a code size; the interpreter's. */
  codeTable: (hpa: number, mode: number) => number = () => 0;
  /** Is told of every explicit data access that was translated; set it before `contextChanged`. For data breakpoints. */
  watch: ((lo: number, hi: number, size: number, kind: number) => void) | undefined = undefined;

  // counters, as `WalkCounters` of `vmx/port.ts`
  walks1d = 0;
  references1d = 0;
  walks2d = 0;
  references2d = 0;

  #role = 0;
  #privilege = 0;
  #acPrivilege = 0;
  /** Explicit accesses must be aligned (CR0.AM, RFLAGS.AC, CPL 3). */
  #aligned = false;
  #mode = 0;
  #long = false;
  // the store under way through the bounce buffer: host-physical addresses of its parts, the first of `#split` bytes
  #storing = 0;
  #first = 0;
  #second = 0;
  #split = 0;

  constructor(cpu: MmuHost) {
    this.#cpu = cpu;
    this.#ram = cpu.ram;
    this.#u32 = cpu.ram.u32;
    this.#state = cpu.at;
    this.#walk = new Walk(cpu.ram);
    this.#tlb = new TlbContexts(cpu.ram);
    for (let i = LAYOUT.emptySet >>> 2; i < (LAYOUT.emptySet + SET_BYTES) >>> 2; i += 4) this.#u32[i] = 1;
    this.contextChanged();
  }

  /** Whether execute-only EPT entries are valid, as the EPT capabilities say. */
  set eptExecuteOnly(allowed: boolean) {
    this.#walk.ept.executeOnly = allowed;
  }

  // ---- context
  contextChanged(): void {
    const u32 = this.#u32;
    const at = this.#state >>> 2;
    const cr0 = u32[at + CR0_AT];
    const cr4 = u32[at + CR4_AT];
    const efer = u32[at + EFER_AT];
    const role = roleOf(cr0, cr4, efer, this.ept);
    const pcid = (cr4 & CR4.pcide) !== 0 && (cr0 & CR0.pg) !== 0 ? u32[at + CR3_AT] & 0xfff : 0;
    const ept = this.ept === undefined ? NO_EPT : this.ept.root;
    this.#role = role;
    this.#long = (efer & EFER.lma) !== 0;
    let c = this.#tlb.current;
    if (c.role !== role || c.pcid !== pcid || c.ept !== ept || c.vpid !== this.vpid) {
      c = this.#tlb.select(this.vpid, ept, pcid, role);
    }
    const mode = u32[at + S.mode / 4];
    this.#mode = mode;
    const user = u32[at + S.cpl / 4] === 3;
    const ac = (role & ROLE_SMAP) !== 0 && (u32[at + S.eflags / 4] & FLAG.ac) !== 0;
    this.#acPrivilege = ac ? SUPERVISOR_AC : SUPERVISOR;
    const privilege = user ? USER_MODE : this.#acPrivilege;
    this.#privilege = privilege;
    const exec = user ? 0 : 1;
    c.useExecMode(exec, mode);
    this.#aligned = user && (cr0 & CR0.am) !== 0 && (u32[at + S.eflags / 4] & FLAG.ac) !== 0;
    const slow = this.#aligned || this.watch !== undefined;
    u32[at + S.tlbRead / 4] = slow ? LAYOUT.emptySet : c.at + (READ_SET + privilege) * SET_BYTES;
    u32[at + S.tlbWrite / 4] = slow ? LAYOUT.emptySet : c.at + (WRITE_SET + privilege) * SET_BYTES;
    u32[at + S.tlbExec / 4] = c.at + (EXEC_SET + exec) * SET_BYTES;
  }

  loadCr3(keep: boolean): void {
    if (!keep) {
      const at = this.#state >>> 2;
      const pcid = (this.#u32[at + CR4_AT] & CR4.pcide) !== 0 ? this.#u32[at + CR3_AT] & 0xfff : 0;
      this.#tlb.flushPcid(this.vpid, pcid);
    }
    this.contextChanged();
  }

  // ---- invalidation
  invlpg(lo: number, hi: number): void {
    this.#tlb.dropAddress(this.vpid, lo | 0, hi | 0);
  }
  invpcid(type: number, pcid: number, lo: number, hi: number): void {
    if (type === 0) this.#tlb.dropAddressOfPcid(this.vpid, pcid, lo | 0, hi | 0);
    else if (type === 1) this.#tlb.flushPcid(this.vpid, pcid);
    else this.#tlb.flushVpid(this.vpid, type === 3);
  }
  flushAll(): void {
    this.#tlb.flushVpid(this.vpid, false);
  }
  /** INVVPID: 0 address, 1 single context, 2 all contexts (but VPID 0), 3 single context but globals. */
  invvpid(type: 0 | 1 | 2 | 3, vpid: number, lo = 0, hi = 0): void {
    if (type === 0) this.#tlb.dropAddress(vpid, lo | 0, hi | 0);
    else if (type === 2) this.#tlb.flushGuests();
    else this.#tlb.flushVpid(vpid, type === 3);
  }
  /** INVEPT: 1 single context (the EPT's root table), 2 all. */
  invept(type: 1 | 2, root = 0): void {
    this.#tlb.flushEpt(type === 1 ? root : undefined);
  }
  /** Every VPID, as a reset does. */
  flushEverything(): void {
    this.#tlb.flushEverything();
  }
  /** A host page now holds decoded code: writes to it must take the slow path. */
  codePageAdded(hpa: number): void {
    for (const c of this.#tlb.all) c.dropWrites(hpa >>> 12);
  }
  /** The tables that `codeTable` names have changed: exec entries are brought up to date. */
  renewCodeTables(): void {
    for (const c of this.#tlb.all) c.renewExec(this.codeTable);
  }

  // ---- accesses
  access(
    lo: number,
    hi: number,
    size: number,
    kind: number,
    privilege: 'current' | 'supervisor' | 'user' = 'current',
  ): number {
    this.#storing = 0;
    let p = this.#privilege;
    if (privilege === 'supervisor') p = SUPERVISOR;
    else if (privilege === 'user') p = USER_MODE;
    const split = 4096 - (lo & 0xfff);
    const top = this.#long ? hi | 0 : 0;
    const first = this.#translate(lo | 0, top, kind, p);
    if (first === LEFT) return LEFT;
    const ram = this.#ram;
    if (size <= split && ram.has(first, size)) {
      if (privilege === 'current' && !this.#explicit(lo, hi, size, kind)) return LEFT;
      if (kind !== READ) ram.touched(first, size);
      return ram.base + first;
    }
    let second = -1;
    if (size > split) {
      const next = (lo + split) | 0;
      const carry = next === 0 && this.#long && (this.#mode === 64 || top !== 0) ? 1 : 0;
      second = this.#translate(next, (top + carry) | 0, kind, p);
      if (second === LEFT) return LEFT;
    }
    if (privilege === 'current' && !this.#explicit(lo, hi, size, kind)) return LEFT;
    return this.#bounce(first, second, size, Math.min(size, split), kind);
  }

  /** Alignment check and data breakpoints of an access that a program makes; false with #AC(0) recorded. */
  #explicit(lo: number, hi: number, size: number, kind: number): boolean {
    if (this.#aligned && (lo & alignmentMask(size)) !== 0) return this.#cpu.fault(VECTOR.ac, 0);
    this.watch?.(lo, hi, size, kind);
    return true;
  }

  /** Sets the bounce buffer up for bytes that are not all in one place of RAM. */
  #bounce(first: number, second: number, size: number, split: number, kind: number): number {
    if (size > BOUNCE_BYTES)
      throw new InvariantError(`an access of ${size} bytes does not fit the bounce buffer`);
    const buffer = this.#state + S.bounce;
    if (kind !== WRITE) {
      const { u8 } = this.#ram;
      for (let i = 0; i < size; i++) {
        const hpa = i < split ? first + i : second + i - split;
        u8[buffer + i] = this.#ram.has(hpa) ? this.#ram.read8(hpa) : 0xff;
      }
    }
    if (kind !== READ) {
      this.#storing = size;
      this.#first = first;
      this.#second = second;
      this.#split = split;
    }
    return buffer;
  }

  commit(): void {
    const size = this.#storing;
    if (size === 0) return;
    this.#storing = 0;
    const buffer = this.#state + S.bounce;
    const ram = this.#ram;
    for (let i = 0; i < size; i++) {
      const hpa = i < this.#split ? this.#first + i : this.#second + i - this.#split;
      if (ram.has(hpa)) ram.write8(hpa, ram.u8[buffer + i]);
    }
  }

  fetch(lo: number, hi: number): number {
    const privilege = this.#privilege === USER_MODE ? USER_MODE : SUPERVISOR;
    return this.#translate(lo | 0, this.#long ? hi | 0 : 0, EXEC, privilege);
  }

  /** Host-physical address of a guest-physical one, or LEFT with an EPT violation or misconfiguration recorded. */
  physical(gpa: number): number {
    const walk = this.#walk;
    walk.pointer = this.ept;
    const status = walk.physical(gpa);
    if (status === WALK.done) return walk.hpa;
    this.#leave(status, 0, 0);
    // no linear address was translated
    this.#cpu.exitInfo.qualification &= ~BigInt(LINEAR_VALID);
    return LEFT;
  }

  /** Host-physical address of a byte, or LEFT with an event recorded. Fills the inline sets. */
  #translate(lo: number, hi: number, kind: number, privilege: number): number {
    const context = this.#tlb.current;
    let word = context.lookup(lo, hi);
    if (word === 0) {
      word = this.#tlb.lookupGlobal(lo, hi);
      if (word !== 0) {
        // It may come from a 2 MiB entry, of which this is then one part.
        word = (word | CACHED.part2m) >>> 0;
        context.insert(lo, hi, word, 12);
      }
    }
    if (word !== 0 && this.#permits(word, kind, privilege)) {
      this.#fill(lo, hi, word, kind, privilege);
      return (word & PAGE) * 4096 + (lo & 0xfff);
    }
    if (!isCanonical(lo, hi)) {
      this.#cpu.fault(this.stackAccess ? VECTOR.ss : VECTOR.gp, 0);
      return LEFT;
    }
    const walk = this.#walk;
    this.#prepare(lo);
    const status = walk.walk(lo, hi, kind, privilege);
    this.#count();
    if (status !== WALK.done) {
      context.dropPage(lo, hi);
      this.#leave(status, lo, hi);
      return LEFT;
    }
    if (walk.word !== 0 && this.#ram.has(walk.hpa - (walk.hpa % 4096), 4096)) {
      context.insert(lo, hi, walk.word, walk.shift);
      this.#fill(lo, hi, context.lookup(lo, hi), kind, privilege);
    }
    return walk.hpa;
  }

  #prepare(lo: number): void {
    const walk = this.#walk;
    const at = this.#state >>> 2;
    const cr3 = this.#u32[at + CR3_AT];
    walk.role = this.#role;
    walk.pointer = this.ept;
    const paging = this.#role & ROLE_PAGING;
    if (paging === PAGING.long) {
      walk.root = fromHalves(cr3 & ~0xfff, this.#u32[at + CR3_AT + 1] & 0xff);
    } else if (paging === PAGING.pae) {
      const i = at + PDPTE_AT + (lo >>> 30) * 2;
      const entry = this.#u32[i];
      walk.root = (entry & 1) === 0 ? -1 : fromHalves(entry & ~0xfff, this.#u32[i + 1] & 0xff);
    } else walk.root = (cr3 & ~0xfff) >>> 0;
  }

  #count(): void {
    const { references } = this.#walk;
    if (references === 0) return;
    if (this.ept === undefined) {
      this.walks1d++;
      this.references1d += references;
    } else {
      this.walks2d++;
      this.references2d += references;
    }
    this.#cpu.extraCycles += references * this.cyclesPerReference;
  }

  #leave(status: number, lo: number, hi: number): void {
    const linear = (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
    const walk = this.#walk;
    if (status === WALK.fault) {
      this.#cpu.fault(VECTOR.pf, walk.code, linear);
      return;
    }
    const info = this.#cpu.exitInfo;
    info.reason = status;
    info.qualification = status === WALK.violation ? BigInt(walk.qualification | LINEAR_VALID) : 0n;
    info.linear = linear;
    info.physical = walk.gpa;
    info.interruptionInfo = 0;
    info.interruptionCode = 0;
    info.instructionLength = 0;
    info.instructionInfo = 0;
    this.#cpu.leaveForExit();
  }

  /** Whether a cached translation answers an access without a walk. */
  #permits(word: number, kind: number, privilege: number): boolean {
    const user = (word & USER) !== 0;
    const role = this.#role;
    if (privilege === USER_MODE && !user) return false;
    if (kind === EXEC) {
      return (word & EXECUTABLE) !== 0 && !(user && privilege !== USER_MODE && (role & ROLE_SMEP) !== 0);
    }
    if (user && privilege === SUPERVISOR && (role & ROLE_SMAP) !== 0) return false;
    if (kind !== WRITE && (word & READABLE) === 0) return false;
    if (kind === READ) return true;
    if ((word & DIRTY) === 0) return false;
    return (word & WRITABLE) !== 0 || (privilege !== USER_MODE && (role & ROLE_WP) === 0);
  }

  #fill(lo: number, hi: number, word: number, kind: number, privilege: number): void {
    const c = this.#tlb.current;
    const page = word & PAGE;
    if (kind === EXEC) {
      c.fill(EXEC_SET + privilege, lo, hi, word, this.codeTable(page * 4096, this.#mode));
      return;
    }
    if (this.#permits(word, READ, privilege)) c.fillData(READ_SET + privilege, lo, hi, word);
    if (this.#ram.codePages[page] === 0 && this.#permits(word, RMW, privilege)) {
      c.fillData(WRITE_SET + privilege, lo, hi, word);
    }
  }

  /**
   * Host-physical address of a linear address, without access rights, side effects or counting; undefined where nothing
   * is mapped. For debuggers and symbols.
   */
  translate(linear: bigint): number | undefined {
    const lo = Number(BigInt.asUintN(32, linear)) | 0;
    const hi = this.#long ? Number(BigInt.asUintN(32, linear >> 32n)) | 0 : 0;
    if (!isCanonical(lo, hi)) return undefined;
    this.#prepare(lo);
    const status = this.#walk.walk(lo, hi, READ, SUPERVISOR_AC, true);
    return status === WALK.done ? this.#walk.hpa : undefined;
  }
}

export const createMmu = (cpu: MmuHost): Mmu => new Mmu(cpu);
