/**
 * Memory slots: which guest-physical ranges are RAM, and which host frames back them.
 *
 * Frames are allocated lazily, 4 KiB or 2 MiB at a time as the backing policy says (KVM-7.1.17). Host frames come from
 * one allocator over host RAM, which also hands out VMCS, EPT and shadow pages.
 */
import { LabError } from '../base/error.js';
import type { PhysicalMemory } from '../vmx/port.js';

export type Backing = '4K' | '2M';

export class FrameAllocator {
  readonly #memory: PhysicalMemory;
  /** Next never-used byte from the top (4 KiB pages) and from the bottom (2 MiB blocks). */
  #top: number;
  #bottom: number;
  readonly #free: number[] = [];
  constructor(memory: PhysicalMemory, from = 0x10_0000) {
    this.#memory = memory;
    this.#top = memory.bytes;
    this.#bottom = from;
  }
  /** A zeroed 4 KiB frame; its host-physical address. */
  page(): number {
    const hpa = this.#free.pop() ?? this.#take();
    this.#memory.touched(hpa, 4096);
    this.#memory.u32.fill(0, (hpa + this.#memory.base) >>> 2, (hpa + 4096 + this.#memory.base) >>> 2);
    return hpa;
  }
  #take(): number {
    if (this.#top - 4096 < this.#bottom)
      throw new LabError(
        'memory.exhausted',
        `host RAM of ${this.#memory.bytes} bytes is used up`,
        'give the machine more host memory',
      );
    this.#top -= 4096;
    return this.#top;
  }
  freePage(hpa: number): void {
    this.#free.push(hpa);
  }
  /** A zeroed, aligned 2 MiB block. */
  block2M(): number {
    const at = Math.ceil(this.#bottom / 0x20_0000) * 0x20_0000;
    if (at + 0x20_0000 > this.#top)
      throw new LabError(
        'memory.exhausted',
        `host RAM of ${this.#memory.bytes} bytes is used up`,
        'give the machine more host memory',
      );
    this.#bottom = at + 0x20_0000;
    return at;
  }
}

export interface MemorySlot {
  readonly gpa: number;
  readonly bytes: number;
}

export class MemorySlots {
  readonly slots: readonly MemorySlot[];
  readonly backing: Backing;
  readonly #frames: FrameAllocator;
  /** hpa by gfn; -1 not yet backed. */
  readonly #hpa: Float64Array;
  /** Frames of the hypervisor's own slots, beyond the guest's. */
  readonly #private = new Map<number, number>();
  readonly memory: PhysicalMemory;

  /** @param slots page-aligned, not overlapping */
  constructor(
    memory: PhysicalMemory,
    frames: FrameAllocator,
    slots: readonly MemorySlot[],
    backing: Backing,
  ) {
    this.memory = memory;
    this.#frames = frames;
    this.backing = backing;
    this.slots = [...slots].sort((a, b) => a.gpa - b.gpa);
    let end = 0;
    for (const s of this.slots) {
      if (s.gpa % 4096 !== 0 || s.bytes % 4096 !== 0 || s.bytes <= 0)
        throw new LabError(
          'memory.slot',
          `slot 0x${s.gpa.toString(16)} + ${s.bytes} is not made of whole 4 KiB pages`,
        );
      if (s.gpa < end)
        throw new LabError(
          'memory.overlap',
          `slot 0x${s.gpa.toString(16)} + ${s.bytes} overlaps the one before it`,
        );
      end = s.gpa + s.bytes;
    }
    this.#hpa = new Float64Array(end / 4096).fill(-1);
  }
  slotOf(gfn: number): MemorySlot | undefined {
    const gpa = gfn * 4096;
    return this.slots.find((s) => gpa >= s.gpa && gpa < s.gpa + s.bytes);
  }
  /** True when the whole aligned 2 MiB region of `gfn` lies in one slot and is backed by one 2 MiB block (or will be). */
  canMap2M(gfn: number): boolean {
    if (this.backing !== '2M') return false;
    const first = (gfn >>> 9) * 512 * 4096;
    const slot = this.slotOf(gfn);
    return slot !== undefined && first >= slot.gpa && first + 0x20_0000 <= slot.gpa + slot.bytes;
  }
  /** A private slot of one page (KVM's __x86_set_memory_region), above all others; its host-physical address. */
  addPrivatePage(gpa: number): number {
    const page = this.#frames.page();
    this.#private.set(gpa / 4096, page);
    return page;
  }
  /** Host-physical address of a guest frame, allocating it; undefined when no slot has it (MMIO). */
  frame(gfn: number): number | undefined {
    if (gfn < 0 || gfn >= this.#hpa.length) return this.#private.get(gfn);
    const known = this.#hpa[gfn];
    if (known >= 0) return known;
    const slot = this.slotOf(gfn);
    if (slot === undefined) return undefined;
    if (this.canMap2M(gfn)) {
      const first = (gfn >>> 9) * 512;
      const block = this.#frames.block2M();
      for (let i = 0; i < 512; i++) this.#hpa[first + i] = block + i * 4096;
      return this.#hpa[gfn];
    }
    const page = this.#frames.page();
    this.#hpa[gfn] = page;
    return page;
  }
  /** Host-physical address of a guest-physical byte, allocating its frame. */
  hpa(gpa: number): number | undefined {
    const frame = this.frame(Math.floor(gpa / 4096));
    return frame === undefined ? undefined : frame + (gpa % 4096);
  }
  /** The frame if it is already backed. */
  backed(gfn: number): number | undefined {
    const known = gfn >= 0 && gfn < this.#hpa.length ? this.#hpa[gfn] : -1;
    return known >= 0 ? known : undefined;
  }
  /** Copies bytes into guest memory, as the monitor does before the first run. */
  load(gpa: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const n = Math.min(bytes.length - at, 4096 - ((gpa + at) % 4096));
      const hpa = this.hpa(gpa + at);
      if (hpa === undefined)
        throw new LabError(
          'memory.range',
          `guest-physical 0x${(gpa + at).toString(16)} is in no memory slot`,
        );
      this.memory.writeBytes(hpa, bytes.subarray(at, at + n));
      at += n;
    }
  }
  /** Bytes of guest memory, a copy; unbacked frames read as zero. */
  bytes(gpa: number, size: number): Uint8Array {
    const out = new Uint8Array(size);
    for (let at = 0; at < size; ) {
      const n = Math.min(size - at, 4096 - ((gpa + at) % 4096));
      const frame = this.backed(Math.floor((gpa + at) / 4096));
      if (frame !== undefined) out.set(this.memory.view(frame + ((gpa + at) % 4096), n), at);
      at += n;
    }
    return out;
  }
}
