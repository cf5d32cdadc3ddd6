/**
 * A case for the hardware: its layout (`struct state` of `runner.c`) and the addresses that native code and our machine
 * have in common. Two pages of data with nothing mapped on either side; of them, window A lies across the boundary
 * between the pages and window B ends at the end of the second. What the windows do not cover is zero.
 */

/** Byte offsets in a case. */
export const AT = {
  /** As FXSAVE64 stores it. */
  fx: 0,
  gpr: 512,
  rflags: 640,
  /** Address of the code; in results, where it ended or faulted. */
  rip: 648,
  fsBase: 656,
  gsBase: 664,
  /** i32 vector of the fault or -1, and i32 error code. */
  vector: 672,
  error: 676,
  cr2: 680,
  /** u8 64 or 32, u8 bytes of code. */
  mode: 688,
  length: 689,
  /** u16 selectors of ES, DS, FS, GS. */
  selectors: 690,
  /** u16 whether bytes of the data pages outside the windows changed, and u32 their hash. */
  outside: 698,
  hash: 700,
  code: 704,
  memory: 768,
  size: 2048,
} as const;
export const CODE_BYTES = 64;

export const DATA = 0x1000_0000;
export const DATA_BYTES = 0x2000;
export const DATA_END = DATA + DATA_BYTES;
/** Address, bytes and place in a case of the windows. */
export const WINDOW_A = { at: DATA + 0xf00, bytes: 512, place: AT.memory } as const;
export const WINDOW_B = { at: DATA + 0x1d00, bytes: 768, place: AT.memory + 512 } as const;
/** A page that cannot be written; byte i is 7 i + ⌊i / 256⌋. */
export const READ_ONLY = DATA + 0x4000;
/** The code page: readable and executable. */
export const CODE = 0x5000_0000;

/** Linux's user selectors. */
export const SELECTOR = { code32: 0x23, data: 0x2b, code64: 0x33 } as const;

/** Place in a case of the byte at a linear address of the windows, or -1. */
export const placeOf = (linear: number): number => {
  for (const w of [WINDOW_A, WINDOW_B])
    if (linear >= w.at && linear < w.at + w.bytes) return w.place + linear - w.at;
  return -1;
};
