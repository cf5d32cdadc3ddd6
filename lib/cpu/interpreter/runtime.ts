/** Functions that handlers call: their names and signatures. Their indexes are equal in all modules. */
import { I32, I64, type ModuleBuilder, type Signature } from '../wasm/encoder.js';

/** Implemented in TypeScript (`interpreter.ts`). */
export const HOST_FUNCTIONS = {
  /** (lo, hi, size | kind << 8): pointer or -1. */
  slow: { params: [I32, I32, I32], results: [I32] },
  commit: { params: [], results: [] },
  /** (helper number): 1 = go on, 0 = left. */
  helper: { params: [I32], results: [I32] },
  /** (vector, code): records a fault of the current record. */
  fault: { params: [I32, I32], results: [] },
  /** (segment, offset, bytes | write << 8): 1 with the linear address in S.result, or 0. */
  segmentSlow: { params: [I32, I32, I32], results: [I32] },
  /** (bulk number, width): iterations done. */
  bulk: { params: [I32, I32], results: [I32] },
} as const satisfies Record<string, Signature>;

/** Implemented in WebAssembly (`core-module.ts`); every handler module has its own copies. */
export const CORE_FUNCTIONS = {
  /** (rip): next record, or 0 having left. */
  dispatch: { params: [I64], results: [I32] },
  /** The same behind an instruction that may have changed interrupt state or TF. */
  boundary: { params: [I64], results: [I32] },
  /** All six flags at RFLAGS positions. */
  flags: { params: [], results: [I32] },
  carry: { params: [], results: [I32] },
  /** (condition): 0 or 1, any flag kind. */
  condition: { params: [I32], results: [I32] },
  /** (segment, offset, bytes | write << 8): linear address, or -1 having left. Legacy modes. */
  segment: { params: [I32, I32, I32], results: [I64] },
} as const satisfies Record<string, Signature>;

export type RuntimeName = keyof typeof HOST_FUNCTIONS | keyof typeof CORE_FUNCTIONS;
export type RuntimeIndex = Readonly<Record<RuntimeName, number>>;

/** Imports the host functions; the result maps names to function indexes. */
export const importHost = (m: ModuleBuilder): Record<keyof typeof HOST_FUNCTIONS, number> => {
  const at = {} as Record<keyof typeof HOST_FUNCTIONS, number>;
  for (const [n, s] of Object.entries(HOST_FUNCTIONS))
    at[n as keyof typeof HOST_FUNCTIONS] = m.importFunction(n, s);
  return at;
};
