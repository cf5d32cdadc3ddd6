/**
 * A debugger's walk of the guest's own page tables, in every paging mode: it changes nothing, checks no rights, and can
 * tell what it saw (SDM volume 3, "Paging").
 *
 * Tables and pages are looked for in memory slots only: what is mapped to a device is an address without bytes.
 */
import { hex } from '../../base/bits.js';
import type { Vm } from '../../hypervisor/vm.js';
import { CR0, CR4, EFER } from '../../isa/state.js';

const P = 1n;
const PS = 0x80n;

export interface WalkStep {
  readonly table: string;
  /** Guest-physical address of the entry, and its value; undefined outside memory. */
  readonly at: number;
  readonly entry: bigint | undefined;
}
export interface GuestWalk {
  readonly mode: string;
  readonly steps: readonly WalkStep[];
  /** Guest-physical address, or why there is none. */
  readonly gpa: number | undefined;
  readonly why: string;
}

interface Level {
  readonly table: string;
  readonly shift: number;
  readonly bits: number;
  /** The entry may map a page itself. */
  readonly large: boolean;
}
const LONG: readonly Level[] = [
  { table: 'PML4E', shift: 39, bits: 9, large: false },
  { table: 'PDPTE', shift: 30, bits: 9, large: true },
  { table: 'PDE', shift: 21, bits: 9, large: true },
  { table: 'PTE', shift: 12, bits: 9, large: false },
];
const PAE: readonly Level[] = [
  { table: 'PDPTE', shift: 30, bits: 2, large: false },
  { table: 'PDE', shift: 21, bits: 9, large: true },
  { table: 'PTE', shift: 12, bits: 9, large: false },
];
const BITS32: readonly Level[] = [
  { table: 'PDE', shift: 22, bits: 10, large: true },
  { table: 'PTE', shift: 12, bits: 10, large: false },
];

const readEntry = (vm: Vm, gpa: number, bytes: number): bigint | undefined => {
  if (vm.slots.slotOf(Math.floor(gpa / 4096)) === undefined) return undefined;
  const raw = vm.slots.bytes(gpa, bytes);
  const view = new DataView(raw.buffer);
  return bytes === 8 ? view.getBigUint64(0, true) : BigInt(view.getUint32(0, true));
};

const leaf = (entry: bigint, level: Level, legacy32: boolean, linear: bigint): number => {
  const size = 1n << BigInt(level.shift);
  const offset = linear & (size - 1n);
  if (legacy32 && level.shift === 22)
    return Number((((entry >> 13n) & 0xffn) << 32n) | (entry & 0xffc0_0000n) | offset);
  return Number((entry & 0xf_ffff_ffff_f000n & ~(size - 1n)) | offset);
};

/** @param linear 64 bits; the upper half is ignored outside IA-32e mode */
export const walkGuest = (vm: Vm, linear: bigint): GuestWalk => {
  const { cr0, cr3, cr4, efer } = vm.vcpu;
  const long = (efer & EFER.lma) !== 0;
  const gva = long ? linear : BigInt.asUintN(32, linear);
  if ((cr0 & CR0.pg) === 0) return { mode: 'no paging', steps: [], gpa: Number(gva), why: '' };
  const pae = (cr4 & CR4.pae) !== 0;
  const mode = long ? '4-level paging' : pae ? 'PAE paging' : '32-bit paging';
  const steps: WalkStep[] = [];
  if (long && BigInt.asUintN(64, BigInt.asIntN(48, gva)) !== gva)
    return { mode, steps, gpa: undefined, why: 'the address is not canonical' };
  const bytes = long || pae ? 8 : 4;
  let table = long || !pae ? cr3 - (cr3 % 4096) : cr3 - (cr3 % 32);
  for (const level of long ? LONG : pae ? PAE : BITS32) {
    const index = Number((gva >> BigInt(level.shift)) & ((1n << BigInt(level.bits)) - 1n));
    const at = table + index * bytes;
    const entry = readEntry(vm, at, bytes);
    steps.push({ table: level.table, at, entry });
    if (entry === undefined)
      return { mode, steps, gpa: undefined, why: `the ${level.table} at ${hex(at)} is outside memory` };
    if ((entry & P) === 0n) return { mode, steps, gpa: undefined, why: `the ${level.table} is not present` };
    const large = level.large && (entry & PS) !== 0n && (bytes === 8 || (cr4 & CR4.pse) !== 0);
    if (large || level.shift === 12)
      return { mode, steps, gpa: leaf(entry, level, bytes === 4, gva), why: '' };
    table = Number(entry & 0xf_ffff_ffff_f000n);
  }
  return { mode, steps, gpa: undefined, why: 'the tables do not end' };
};

/** The walk as lines of text. */
export const walkText = (vm: Vm, linear: bigint): string => {
  const w = walkGuest(vm, linear);
  const lines = [`${hex(linear)}: ${w.mode}, cr3 ${hex(vm.vcpu.cr3)}`];
  for (const s of w.steps)
    lines.push(
      `  ${s.table.padEnd(5)} at ${hex(s.at)}: ${s.entry === undefined ? 'outside memory' : hex(s.entry, 16)}`,
    );
  if (w.gpa === undefined) lines.push(`  no translation: ${w.why}`);
  else {
    const frame = vm.slots.backed(Math.floor(w.gpa / 4096));
    const slot = vm.slots.slotOf(Math.floor(w.gpa / 4096));
    const host =
      slot === undefined
        ? 'no memory (a device or nothing)'
        : frame === undefined
          ? 'not backed yet'
          : `host-physical ${hex(frame + (w.gpa % 4096))}`;
    lines.push(`  guest-physical ${hex(w.gpa)}, ${host}`);
  }
  return `${lines.join('\n')}\n`;
};

/** Calls `each` for the pieces of [linear, linear + size) that lie in one page of memory; false where one does not. */
const pieces = (
  vm: Vm,
  linear: bigint,
  size: number,
  each: (gpa: number, from: number, bytes: number) => void,
): boolean => {
  for (let at = 0; at < size; ) {
    const gva = BigInt.asUintN(64, linear + BigInt(at));
    const n = Math.min(size - at, 4096 - Number(gva & 0xfffn));
    const { gpa } = walkGuest(vm, gva);
    if (gpa === undefined || vm.slots.slotOf(Math.floor(gpa / 4096)) === undefined) return false;
    each(gpa, at, n);
    at += n;
  }
  return true;
};

/** Guest memory by linear address, or undefined when any byte is not in memory. Devices are never asked. */
export const readGuest = (vm: Vm, linear: bigint, size: number): Uint8Array | undefined => {
  const out = new Uint8Array(size);
  const ok = pieces(vm, linear, size, (gpa, from, n) => out.set(vm.slots.bytes(gpa, n), from));
  return ok ? out : undefined;
};

/** Writes guest memory by linear address, rights apart; false, and nothing written, when any byte is not in memory. */
export const writeGuest = (vm: Vm, linear: bigint, bytes: Uint8Array): boolean => {
  if (!pieces(vm, linear, bytes.length, () => {})) return false;
  return pieces(vm, linear, bytes.length, (gpa, from, n) => {
    for (let i = 0; i < n; ) {
      // a store of up to 8 bytes each, so that the MMU sees what page tables become
      const part = Math.min(n - i, 8 - ((gpa + i) % 8));
      const piece = bytes.subarray(from + i, from + i + part);
      vm.slots.load(gpa + i, piece);
      let value = 0n;
      for (let b = part - 1; b >= 0; b--) value = (value << 8n) | BigInt(piece[b]);
      vm.vcpu.mmu.pteWrite(gpa + i, value, part);
      i += part;
    }
  });
};
