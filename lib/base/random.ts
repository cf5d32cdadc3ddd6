/** A small seeded generator (xorshift128+), so that every run can be repeated to the bit. */
export interface Random {
  /** The next unsigned 32-bit value. */
  u32(): number;
  /** A whole number in [0, n). */
  below(n: number): number;
}

export const seededRandom = (seed: number): Random => {
  let a = (seed ^ 0x9e3779b9) >>> 0;
  let b = (Math.imul(seed | 1, 0x85ebca6b) ^ 0xc2b2ae35) >>> 0;
  let c = 0x6a09e667;
  let d = 0xbb67ae85;
  const u32 = (): number => {
    let t = a ^ (a << 11);
    a = b;
    b = c;
    c = d;
    t ^= t >>> 8;
    d = (d ^ (d >>> 19) ^ t) >>> 0;
    return d;
  };
  for (let i = 0; i < 16; i++) u32();
  return { u32, below: (n) => Math.floor((u32() / 0x1_0000_0000) * n) };
};
