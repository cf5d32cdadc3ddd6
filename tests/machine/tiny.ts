/** Guests of a few bytes in 64-bit mode at 16 MiB: an identity map of 4 GiB, an empty IDT. */
import type { GuestImage } from '../../lib/guests/guest.js';
import { longModeEntry, longModeTables } from '../../lib/loaders/linux-boot.js';

export const TINY_CODE = 0x100_0000;
export const TINY_MEMORY = 32 << 20;

export const tinyImage = (code: readonly number[]): Pick<GuestImage, 'segments' | 'entry'> => ({
  segments: [...longModeTables(), { gpa: TINY_CODE, bytes: Uint8Array.from(code) }],
  entry: longModeEntry(BigInt(TINY_CODE), 0n),
});
