/**
 * The software walk of a guest's 32-bit and PAE page tables, for the emulator under EPT (KVM's walk_addr_generic with
 * 2 and 3 levels).
 *
 * SDM volume 3, "32-Bit Paging", "PAE Paging", "Page-Fault Exceptions". Accessed and dirty flags are written only when
 * the whole walk succeeds. Tables outside the slots end the walk as not present. PDPTEs are read from memory. PSE-36 is
 * followed up to 40 address bits.
 */
import { CR0, CR4, EFER, FLAG, PF } from '../../isa/state.js';
import type { PhysicalMemory } from '../../vmx/port.js';
import type { MemorySlots } from '../memslots.js';
import type { GuestPageFault, MmuVcpu } from './mmu.js';

const PTE = { p: 1n, w: 2n, u: 4n, a: 0x20n, d: 0x40n, ps: 0x80n } as const;
const NX = 1n << 63n;
const PDPTE_RESERVED = 0x1e6n;

/** True when the guest uses paging that is not 4-level paging. */
export const legacyPaging = (vcpu: MmuVcpu): boolean =>
  (vcpu.cr0 & CR0.pg) !== 0 && (vcpu.efer & EFER.lma) === 0;

export class LegacyWalker {
  readonly #vcpu: MmuVcpu;
  readonly #slots: MemorySlots;
  readonly #memory: PhysicalMemory;
  readonly #reservedHigh: bigint;

  constructor(vcpu: MmuVcpu, slots: MemorySlots, memory: PhysicalMemory, maxPhyAddr: number) {
    this.#vcpu = vcpu;
    this.#slots = slots;
    this.#memory = memory;
    // bits 62:MAXPHYADDR; bit 63 is execute-disable
    this.#reservedHigh = ((1n << 63n) - 1n) & ~((1n << BigInt(maxPhyAddr)) - 1n);
  }

  /** @param access error-code bits W, U, I */
  gvaToGpa(linear: number, access: number): number | GuestPageFault {
    const { cr0, cr3, cr4, efer } = this.#vcpu;
    const pae = (cr4 & CR4.pae) !== 0;
    const nx = pae && (efer & EFER.nxe) !== 0;
    const fault = (code: number): GuestPageFault => {
      const fetch = nx || (cr4 & CR4.smep) !== 0 ? access & PF.i : 0;
      return { code: code | (access & (PF.w | PF.u)) | fetch, address: BigInt(linear) };
    };
    const bytes = pae ? 8 : 4;
    let table = pae ? cr3 - (cr3 % 32) : cr3 - (cr3 % 4096);
    if (pae) {
      const at = this.#slots.hpa(table + (linear >>> 30) * 8);
      const pdpte = at === undefined ? 0n : this.#memory.read64(at);
      if ((pdpte & PTE.p) === 0n) return fault(0);
      if ((pdpte & (PDPTE_RESERVED | this.#reservedHigh | NX)) !== 0n) return fault(PF.p | PF.rsvd);
      table = frameOf(pdpte);
    }
    let rights = PTE.w | PTE.u;
    let executable = true;
    const path: number[] = [];
    const indexBits = pae ? 9 : 10;
    for (let shift = pae ? 21 : 22; ; shift = 12) {
      const index = (linear >>> shift) & (2 ** indexBits - 1);
      const at = this.#slots.hpa(table + index * bytes);
      if (at === undefined) return fault(0);
      const entry = pae ? this.#memory.read64(at) : BigInt(this.#memory.read32(at));
      path.push(at);
      if ((entry & PTE.p) === 0n) return fault(0);
      const large = shift > 12 && (entry & PTE.ps) !== 0n && (pae || (cr4 & CR4.pse) !== 0);
      if (this.#reserved(entry, large, pae, nx)) return fault(PF.p | PF.rsvd);
      rights &= entry;
      if ((entry & NX) !== 0n) executable = false;
      if (shift > 12 && !large) {
        table = frameOf(entry);
        continue;
      }
      if (!this.#permitted(rights, executable, access, cr0, cr4)) return fault(PF.p);
      this.#mark(path, (access & PF.w) !== 0);
      const size = 2 ** shift;
      const frame = large ? largeFrame(entry, pae) : frameOf(entry);
      return frame + (linear % size);
    }
  }

  #reserved(entry: bigint, large: boolean, pae: boolean, nx: boolean): boolean {
    if (!pae) return large && (entry & 0x20_0000n) !== 0n;
    if ((entry & this.#reservedHigh) !== 0n || (!nx && (entry & NX) !== 0n)) return true;
    return large && (entry & 0x1f_e000n) !== 0n;
  }

  #permitted(rights: bigint, executable: boolean, access: number, cr0: number, cr4: number): boolean {
    const userPage = (rights & PTE.u) !== 0n;
    const user = (access & PF.u) !== 0;
    const fetch = (access & PF.i) !== 0;
    if (user && !userPage) return false;
    if (!user && userPage) {
      if (fetch && (cr4 & CR4.smep) !== 0) return false;
      if (!fetch && (cr4 & CR4.smap) !== 0 && (this.#vcpu.rflags & FLAG.ac) === 0) return false;
    }
    if (fetch) return executable;
    return (access & PF.w) === 0 || (rights & PTE.w) !== 0n || (!user && (cr0 & CR0.wp) === 0);
  }

  #mark(path: readonly number[], write: boolean): void {
    path.forEach((at, i) => {
      const bits = Number(write && i === path.length - 1 ? PTE.a | PTE.d : PTE.a);
      const old = this.#memory.read32(at);
      if ((old & bits) !== bits) this.#memory.write32(at, (old | bits) >>> 0);
    });
  }
}

const frameOf = (entry: bigint): number => Number(entry & 0xff_ffff_f000n);
/** Of 2 MiB, or 4 MiB with address bits 39:32 in bits 20:13. */
const largeFrame = (entry: bigint, pae: boolean): number =>
  pae ? Number(entry & 0xff_ffe0_0000n) : Number((((entry >> 13n) & 0xffn) << 32n) | (entry & 0xffc0_0000n));
