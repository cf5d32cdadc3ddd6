/**
 * Lazily kept arithmetic flags: three words, `flagKind`, `flagA` and `flagR`.
 *
 * A and R are left-justified: an operand of w bits is shifted left by 64 - w, so that its sign bit is bit 63. Then for
 * every kind but `explicit`, ZF is R == 0 and SF is R < 0 whatever the width. The kind word is
 * `kind | log2(w / 8) << 8`. With B = the other operand, derived from A and R:
 *
 * | kind     | A                | CF          | OF                        | AF            |
 * |----------|------------------|-------------|---------------------------|---------------|
 * | explicit | flag bits        | from A      | from A (SF too)           | from A        |
 * | logic    | = R              | 0           | 0                         | 0             |
 * | add      | first operand    | R <u A      | (A^R) & (B^R), B = R-A    | bit 4 of A^B^R|
 * | adc1     | first operand    | R <=u A     | the same, B = R-A-1       | the same      |
 * | sub      | first operand    | A <u B      | (A^B) & (A^R), B = A-R    | the same      |
 * | sbb1     | first operand    | A <=u B     | the same, B = A-R-1       | the same      |
 * | inc      | bit 0 = old CF   | A           | R == min                  | low nibble 0  |
 * | dec      | bit 0 = old CF   | A           | R == max                  | low nibble 15 |
 * | shl      | bit 63 = CF      | A           | sign(R) ^ CF              | 0             |
 * | shr      | bit 63 = CF      | A           | bit 62 of R               | 0             |
 * | sar      | bit 63 = CF      | A           | 0                         | 0             |
 *
 * "1" in adc1/sbb1 is one unit of the operand's last place (1 << (64 - w)). `adc1` and `sbb1` are used when the carry
 * in was 1, `add` and `sub` otherwise. For `explicit`, R is 0 when ZF is set and 1 otherwise, so the ZF rule holds.
 */
export const FLAGS = {
  explicit: 0,
  logic: 1,
  add: 2,
  adc1: 3,
  sub: 4,
  sbb1: 5,
  inc: 6,
  dec: 7,
  shl: 8,
  shr: 9,
  sar: 10,
} as const;

const SIGN = 1n << 63n;
const parity = (byte: number): boolean => {
  let b = byte ^ (byte >> 4);
  b ^= b >> 2;
  b ^= b >> 1;
  return (b & 1) === 0;
};

/** The six arithmetic flags, at their RFLAGS bits. `a` and `r` are unsigned 64-bit values. */
export const arithmeticFlags = (kindWord: number, a: bigint, r: bigint): number => {
  const kind = kindWord & 0xff;
  if (kind === FLAGS.explicit) return Number(a & 0x8d5n);
  const shift = BigInt(64 - (8 << (kindWord >> 8)));
  const low = Number((r >> shift) & 0xffn);
  const unit = 1n << shift;
  let cf = false;
  let of = false;
  let af = false;
  const carries = (b: bigint): void => {
    af = (((a ^ b ^ r) >> shift) & 0x10n) !== 0n;
  };
  switch (kind) {
    case FLAGS.add:
    case FLAGS.adc1: {
      const b = BigInt.asUintN(64, r - a - (kind === FLAGS.adc1 ? unit : 0n));
      cf = kind === FLAGS.adc1 ? r <= a : r < a;
      of = ((a ^ r) & (b ^ r) & SIGN) !== 0n;
      carries(b);
      break;
    }
    case FLAGS.sub:
    case FLAGS.sbb1: {
      const b = BigInt.asUintN(64, a - r - (kind === FLAGS.sbb1 ? unit : 0n));
      cf = kind === FLAGS.sbb1 ? a <= b : a < b;
      of = ((a ^ b) & (a ^ r) & SIGN) !== 0n;
      carries(b);
      break;
    }
    case FLAGS.inc:
      cf = (a & 1n) !== 0n;
      of = r === SIGN;
      af = (low & 15) === 0;
      break;
    case FLAGS.dec:
      cf = (a & 1n) !== 0n;
      of = r === BigInt.asUintN(64, SIGN - unit);
      af = (low & 15) === 15;
      break;
    case FLAGS.shl:
      cf = (a & SIGN) !== 0n;
      of = ((r ^ a) & SIGN) !== 0n;
      break;
    case FLAGS.shr:
      cf = (a & SIGN) !== 0n;
      of = (r & (SIGN >> 1n)) !== 0n;
      break;
    case FLAGS.sar:
      cf = (a & SIGN) !== 0n;
      break;
    default:
      break;
  }
  return (
    (cf ? 1 : 0) |
    (parity(low) ? 4 : 0) |
    (af ? 0x10 : 0) |
    (r === 0n ? 0x40 : 0) |
    ((r & SIGN) !== 0n ? 0x80 : 0) |
    (of ? 0x800 : 0)
  );
};
