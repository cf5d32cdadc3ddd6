/**
 * Shortcuts of SSE arithmetic through the host's doubles, for round-to-nearest.
 *
 * Taken only where the host result is known to be the same bits and the exception flags are known: operands that are
 * zero or normal, a result well inside the normal range, and inexactness either decided here or already sticky.
 * Everything else answers `undefined` and goes through `arith.ts`.
 */

export const OP = { add: 0, sub: 1, mul: 2, div: 3, min: 4, max: 5, sqrt: 6 } as const;
export type Op = (typeof OP)[keyof typeof OP];

const MIN64 = 2 ** -1021;
const MAX64 = 2 ** 1022;
const MIN32 = 2 ** -125;
const MAX32 = 2 ** 127;
const INTEGER_LIMIT = 2 ** 53;

/** What the last shortcut found: whether its result is inexact. */
export const native = { inexact: false };

const plain = (a: number, min: number, max: number): boolean => {
  const m = Math.abs(a);
  return (m >= min && m <= max) || m === 0;
};
/** Error of s = fl(a + b) (two-sum). */
const sumError = (a: number, b: number, s: number): number => {
  const t = s - a;
  return a - (s - t) + (b - t);
};

const compute = (op: Op, a: number, b: number): number => {
  switch (op) {
    case OP.add:
      return a + b;
    case OP.sub:
      return a - b;
    case OP.mul:
      return a * b;
    case OP.div:
      return a / b;
    case OP.min:
      return a < b ? a : b;
    case OP.max:
      return a > b ? a : b;
    default:
      return Math.sqrt(b);
  }
};

/** Zero results are exact only where they do not come from underflow. */
const zeroIsExact = (op: Op, a: number): boolean => op <= OP.sub || a === 0 || op >= OP.min;

/**
 * @param sticky inexactness is flagged already, so it need not be decided
 * @param mayRound inexactness is masked
 */
export const native64 = (
  op: Op,
  a: number,
  b: number,
  sticky: boolean,
  mayRound: boolean,
): number | undefined => {
  if (!plain(a, MIN64, MAX64) || !plain(b, MIN64, MAX64)) return undefined;
  const r = compute(op, a, b);
  if (!plain(r, MIN64, MAX64) || (r === 0 && !zeroIsExact(op, a) && b !== 0)) return undefined;
  let inexact = false;
  switch (op) {
    case OP.add:
      inexact = sumError(a, b, r) !== 0;
      break;
    case OP.sub:
      inexact = sumError(a, -b, r) !== 0;
      break;
    case OP.mul:
    case OP.div:
      if (op === OP.div && b === 0) return undefined;
      if (
        Number.isInteger(a) &&
        Number.isInteger(b) &&
        Number.isInteger(r) &&
        Math.abs(r) <= INTEGER_LIMIT &&
        (op === OP.mul || r * b === a) &&
        Math.abs(a) <= INTEGER_LIMIT
      )
        break;
      if (!sticky) return undefined;
      inexact = true;
      break;
    case OP.sqrt:
      if (b < 0) return undefined;
      if (Number.isInteger(r) && r * r === b && b <= INTEGER_LIMIT) break;
      if (!sticky) return undefined;
      inexact = true;
      break;
    default:
      if (a === 0 && b === 0) {
        native.inexact = false;
        return b;
      }
      break;
  }
  if (inexact && !mayRound) return undefined;
  native.inexact = inexact;
  return r;
};

/** The same for single precision: doubles hold products exactly and round innocuously twice. */
export const native32 = (op: Op, a: number, b: number, mayRound: boolean): number | undefined => {
  if (!plain(a, MIN32, MAX32) || !plain(b, MIN32, MAX32)) return undefined;
  const wide = compute(op, a, b);
  const r = Math.fround(wide);
  if (!plain(r, MIN32, MAX32) || (r === 0 && !zeroIsExact(op, a) && b !== 0)) return undefined;
  let inexact = false;
  switch (op) {
    case OP.add:
      inexact = r !== wide || sumError(a, b, wide) !== 0;
      break;
    case OP.sub:
      inexact = r !== wide || sumError(a, -b, wide) !== 0;
      break;
    case OP.mul:
      inexact = r !== wide;
      break;
    case OP.div:
      if (b === 0) return undefined;
      inexact = r * b !== a;
      break;
    case OP.sqrt:
      if (b < 0) return undefined;
      inexact = r * r !== b;
      break;
    default:
      if (a === 0 && b === 0) {
        native.inexact = false;
        return b;
      }
      break;
  }
  if (inexact && !mayRound) return undefined;
  native.inexact = inexact;
  return r;
};
