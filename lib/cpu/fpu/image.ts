/**
 * Memory images of helpers: runs of bytes that may cross a page, read or written as a whole or not at all.
 */
import { u64 } from '../../base/bits.js';
import { SEG, VECTOR } from '../../isa/state.js';
import { ACCESS, LEFT } from '../../memory/access.js';
import type { Cpu } from '../core.js';
import { currentInstruction } from '../system/instruction-info.js';
import { canonical } from '../system/memory.js';

const PAGE = 4096n;

/** A non-canonical address of an operand in the stack segment is #SS(0) and not #GP(0). Always false. */
export const ofStack = (cpu: Cpu, linear: bigint): false => {
  const through = !canonical(linear) && currentInstruction(cpu)?.mem?.seg === SEG.ss;
  return through ? cpu.fault(VECTOR.ss, 0) : false;
};

/** Linear-memory addresses of the (at most two) pieces of a run that is shorter than a page; false with a fault recorded. */
const pieces = (
  cpu: Cpu,
  linear: bigint,
  size: number,
  kind: 0 | 1,
): readonly (readonly [number, number])[] | false => {
  const first = Math.min(size, Number(PAGE - (linear & (PAGE - 1n))));
  const found: [number, number][] = [];
  for (let done = 0; done < size; done += found[found.length - 1][1]) {
    const at = u64(linear + BigInt(done));
    const n = done === 0 ? first : size - done;
    const p = cpu.mmu.access(Number(at & 0xffff_ffffn) | 0, Number(at >> 32n) | 0, n, kind);
    if (p === LEFT) return ofStack(cpu, at);
    found.push([p >>> 0, n]);
  }
  return found;
};

/** A copy of `size` bytes, or false with a fault or exit recorded. */
export const loadImage = (cpu: Cpu, linear: bigint, size: number): Uint8Array | false => {
  const parts = pieces(cpu, linear, size, ACCESS.read);
  if (parts === false) return false;
  const image = new Uint8Array(size);
  let done = 0;
  for (const [at, n] of parts) {
    image.set(cpu.ram.u8.subarray(at, at + n), done);
    done += n;
  }
  return image;
};

/** Where a store goes; obtained before anything changes. */
export type Target = readonly (readonly [number, number])[];
export const openImage = (cpu: Cpu, linear: bigint, size: number): Target | false =>
  pieces(cpu, linear, size, ACCESS.write);
export const storeImage = (cpu: Cpu, target: Target, image: Uint8Array): void => {
  let done = 0;
  for (const [at, n] of target) {
    cpu.ram.u8.set(image.subarray(done, done + n), at);
    done += n;
  }
};
