/** A processor's state with a memory-management unit, and page tables built by hand. */
import { Cpu } from '../../lib/cpu/core.js';
import { CR0, CR4, EFER, FLAG, LEAVE, PF, S } from '../../lib/isa/state.js';
import { ACCESS, LEFT } from '../../lib/memory/access.js';
import { createMmu, type Mmu } from '../../lib/memory/mmu.js';
import { PTE } from '../../lib/memory/paging.js';
import { Ram } from '../../lib/memory/ram.js';

export const P = BigInt(PTE.p);
export const W = BigInt(PTE.w);
export const U = BigInt(PTE.u);
export const A = BigInt(PTE.a);
export const D = BigInt(PTE.d);
export const PS = BigInt(PTE.ps);
export const G = BigInt(PTE.g);
export const NX = 1n << 63n;
export const FRAME = 0xff_ffff_f000n;

export type Setting = {
  wp?: boolean;
  nxe?: boolean;
  smep?: boolean;
  smap?: boolean;
  ac?: boolean;
  pge?: boolean;
  pcide?: boolean;
  cpl?: 0 | 3;
  paging?: 'long' | 'pae' | '32' | 'none';
  pse?: boolean;
};

export class Bench {
  readonly ram = new Ram(8 << 20);
  readonly cpu = new Cpu(this.ram);
  readonly mmu: Mmu = createMmu(this.cpu);
  /** Next free page for tables and data. */
  #next = 0x1000;

  constructor(setting: Setting = {}) {
    this.cpu.mmu = this.mmu;
    this.set(setting);
  }

  /** Sets the control registers; what is not named is off, but for long mode with WP, NXE and PGE. */
  set(s: Setting): void {
    const { cpu } = this;
    const long = (s.paging ?? 'long') === 'long';
    const on = (c: boolean | undefined, bit: number, or = false): bigint => BigInt((c ?? or) ? bit >>> 0 : 0);
    cpu.set64(S.cr0, BigInt(CR0.pe) | on(s.paging !== 'none', CR0.pg) | on(s.wp, CR0.wp, true));
    cpu.set64(
      S.cr4,
      on(long || s.paging === 'pae', CR4.pae) |
        on(s.pge, CR4.pge, true) |
        on(s.smep, CR4.smep) |
        on(s.smap, CR4.smap) |
        on(s.pcide, CR4.pcide) |
        on(s.pse, CR4.pse),
    );
    cpu.set64(S.efer, on(long, EFER.lme | EFER.lma) | on(s.nxe, EFER.nxe, true));
    cpu.set32(S.eflags, 2 | (s.ac === true ? FLAG.ac : 0));
    cpu.set32(S.cpl, s.cpl ?? 0);
    cpu.set32(S.mode, long ? 64 : 32);
    this.mmu.contextChanged();
  }

  page(): number {
    const p = this.#next;
    this.#next += 4096;
    return p;
  }
  read(hpa: number): bigint {
    return this.ram.read64(hpa);
  }

  /** A table's entry for an address on the way to `shift`, making tables with `upper` flags as needed; its address. */
  slot(root: number, linear: bigint, shift = 12, upper = P | W | U): number {
    let table = root;
    for (let s = 39; ; s -= 9) {
      const at = table + Number((linear >> BigInt(s)) & 511n) * 8;
      if (s === shift) return at;
      let entry = this.ram.read64(at);
      if ((entry & 7n) === 0n) {
        entry = BigInt(this.page()) | upper;
        this.ram.write64(at, entry);
      }
      table = Number(entry & FRAME);
    }
  }
  /** Maps a page of 2^shift bytes; the address of its entry. */
  map(root: number, linear: bigint, hpa: number, flags: bigint, shift = 12, upper = P | W | U): number {
    const at = this.slot(root, linear, shift, upper);
    this.ram.write64(at, BigInt(hpa) | flags | (shift > 12 ? PS : 0n));
    return at;
  }
  cr3(value: number, keep = false): void {
    this.cpu.set64(S.cr3, BigInt(value));
    this.mmu.loadCr3(keep);
  }

  /** Linear-memory pointer, or a description of the event. */
  access(
    linear: bigint,
    kind: number = ACCESS.read,
    size = 1,
    privilege?: 'supervisor' | 'user',
  ): number | string {
    const lo = Number(BigInt.asIntN(32, linear));
    const hi = Number(BigInt.asIntN(32, linear >> 32n));
    this.cpu.set32(S.leave, LEAVE.none);
    const p = kind === ACCESS.exec ? this.mmu.fetch(lo, hi) : this.mmu.access(lo, hi, size, kind, privilege);
    if (p !== LEFT) {
      if (this.cpu.get32(S.leave) !== LEAVE.none) throw new Error('an event was recorded without leaving');
      return p;
    }
    if (this.cpu.get32(S.leave) === LEAVE.exit) {
      const { reason, qualification, physical } = this.cpu.exitInfo;
      return `exit ${reason} 0x${qualification.toString(16)} 0x${physical.toString(16)}`;
    }
    const code = this.cpu.get32(S.faultCode);
    if (this.cpu.get32(S.faultVector) !== 14) return `fault ${this.cpu.get32(S.faultVector)} ${code}`;
    const names = Object.entries(PF)
      .filter(([, bit]) => (code & bit) !== 0)
      .map(([n]) => n);
    return `#PF ${names.join(' ')} 0x${this.cpu.get64(S.faultAddress).toString(16)}`;
  }
  /** Host-physical address of a data access, or the event. */
  data(
    linear: bigint,
    kind: number = ACCESS.read,
    size = 1,
    privilege?: 'supervisor' | 'user',
  ): number | string {
    const p = this.access(linear, kind, size, privilege);
    return typeof p === 'number' && kind !== ACCESS.exec ? p - this.ram.base : p;
  }
  /** A read through the inline sets, as engines do it: host-physical address or undefined for a miss. */
  inline(linear: bigint, kind: 'read' | 'write' | 'exec' = 'read'): number | undefined {
    const set = this.cpu.get32(kind === 'read' ? S.tlbRead : kind === 'write' ? S.tlbWrite : S.tlbExec);
    const entry = set + Number((linear >> 8n) & 0x3ff0n);
    if (this.cpu.u64[entry / 8] !== (linear & ~0xfffn)) return undefined;
    const p = (this.cpu.u32[entry / 4 + 2] + Number(linear & 0xffff_ffffn)) >>> 0;
    return p - this.ram.base;
  }
  /** Walks and references since the last call, `1d` and `2d` together. */
  #seen = { walks: 0, references: 0 };
  walks(): [walks: number, references: number] {
    const m = this.mmu;
    const walks = m.walks1d + m.walks2d;
    const references = m.references1d + m.references2d;
    const r: [number, number] = [walks - this.#seen.walks, references - this.#seen.references];
    this.#seen = { walks, references };
    return r;
  }
}
