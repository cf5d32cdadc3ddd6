/**
 * A flat ROM image, started at the reset vector (SDM volume 3, "Processor State After Reset", "First Instruction
 * Executed").
 *
 * The image ends at 4 GiB, in memory of its own, and its last 128 KiB are copied below 1 MiB, where a PC shows them.
 * Not modelled: write protection of the ROM (both places are memory), and switching the copy by chipset registers.
 */
import { alignUp, hex } from '../base/bits.js';
import { LabError } from '../base/error.js';
import type { EntrySegment, EntryState, LoadedGuest, Segment } from './entry-state.js';

/** A ROM is made of whole pages. */
export const ROM_UNIT = 4096;
export const ROM_MAX_BYTES = 16 << 20;
export const RESET_VECTOR_BYTES = 16;
const TOP = 0x1_0000_0000;
const LOW_TOP = 0x10_0000;
const SHADOW_BYTES = 128 << 10;
const MISC_ENABLE = 0x1a0;
/** What RESET leaves in EDX when nobody says better: family 6. */
const DEFAULT_SIGNATURE = 0x600;

export interface RomOptions {
  readonly image: Uint8Array;
  /** The file, for messages. */
  readonly name: string;
  /** One slot of guest memory from 0. */
  readonly memoryBytes: number;
  /** CPUID.1:EAX, which RESET leaves in EDX. */
  readonly signature?: number;
}

export interface RomGuest extends LoadedGuest {
  /** Guest-physical memory beyond the first slot. */
  readonly slots: readonly { readonly gpa: number; readonly bytes: number }[];
}

const bad = (name: string, offset: number, rule: string): LabError =>
  new LabError('loader.rom', `${name}: at offset ${hex(offset)}: ${rule}`);

const real = (selector: number, base: number, attr: number): EntrySegment => ({
  selector,
  base: BigInt(base),
  limit: 0xffff,
  attr,
});

/** The state after RESET: real mode at F000:FFF0, with the code segment's base at the top of 4 GiB. */
export const resetEntry = (signature = DEFAULT_SIGNATURE): EntryState => {
  const data = real(0, 0, 0x93);
  const gprs = new Array<bigint>(16).fill(0n);
  gprs[2] = BigInt(signature >>> 0);
  return {
    gprs,
    rip: 0xfff0n,
    rflags: 2,
    cr0: 0x6000_0010n,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    segments: {
      cs: real(0xf000, 0xffff_0000, 0x9b),
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      ldtr: real(0, 0, 0x82),
      tr: real(0, 0, 0x8b),
    },
    gdtr: { base: 0n, limit: 0xffff },
    idtr: { base: 0n, limit: 0xffff },
    msrs: [[MISC_ENABLE, 1n]],
  };
};

/** @throws LabError `loader.rom` for an image of an impossible size */
export const loadRom = (options: RomOptions): RomGuest => {
  const { image, name, memoryBytes } = options;
  const { length } = image;
  if (length === 0 || length % ROM_UNIT !== 0)
    throw bad(name, 0, `a ROM has a multiple of ${ROM_UNIT} bytes, the file has ${length}`);
  if (length > ROM_MAX_BYTES)
    throw bad(name, ROM_MAX_BYTES, `a ROM has at most ${ROM_MAX_BYTES} bytes, the file has ${length}`);
  const gpa = TOP - length;
  if (memoryBytes < LOW_TOP || memoryBytes > gpa) {
    throw new LabError(
      'loader.memory',
      `guest memory of ${memoryBytes} bytes does not go with a ROM at ${hex(gpa)}`,
      'give it 1 MiB at least, and less than lies below the ROM',
    );
  }
  const shadow = image.subarray(length - Math.min(length, SHADOW_BYTES));
  const segments: readonly Segment[] = [
    { gpa, bytes: image, what: `${name}, ROM` },
    { gpa: LOW_TOP - shadow.length, bytes: shadow, what: `${name}, copy below 1 MiB` },
  ];
  return {
    segments,
    entry: resetEntry(options.signature),
    slots: [{ gpa, bytes: alignUp(length, ROM_UNIT) }],
  };
};
