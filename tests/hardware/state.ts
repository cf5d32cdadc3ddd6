/**
 * Hardware vectors: single instructions with a state before and the changes that a real processor made.
 *
 * One line a vector: 'code|seed|name=value …|name=value …'. The state before is made from the seed, with the registers
 * of the third field put over it; the fourth field lists every register, the flags and the memory bytes that changed, or
 * `fault=vector`. The memory window of 128 bytes lies at `WINDOW`, at the end of a page.
 */
import { seededRandom } from '../../lib/base/random.js';
import { ARITHMETIC_FLAGS, FLAG, GPR_NAMES } from '../../lib/isa/state.js';

export const WINDOW = 0x1000_0f80n;
export const WINDOW_BYTES = 128;
export const SHOWN_FLAGS = ARITHMETIC_FLAGS | FLAG.df;

export interface MachineState {
  readonly gpr: bigint[];
  flags: number;
  readonly memory: Uint8Array;
}

const EDGES = [
  0n,
  1n,
  2n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_ffff_ffffn,
  0xffff_ffff_ffff_ff80n,
];

/** The state that a seed stands for; half of the registers hold edge values. The stack pointer is in the window. */
export const stateOf = (seed: number, over: Readonly<Record<string, bigint>>): MachineState => {
  const random = seededRandom(seed);
  const value = (): bigint => {
    const v = (BigInt(random.u32()) << 32n) | BigInt(random.u32());
    return random.below(2) === 0 ? v : EDGES[random.below(EDGES.length)];
  };
  const gpr = Array.from({ length: 16 }, value);
  gpr[4] = WINDOW + 64n;
  const memory = Uint8Array.from({ length: WINDOW_BYTES }, () => random.u32() & 0xff);
  const state = { gpr, flags: (random.u32() & ARITHMETIC_FLAGS) | 2, memory };
  for (const [name, v] of Object.entries(over)) {
    if (name === 'flags') state.flags = Number(v);
    else gpr[(GPR_NAMES as readonly string[]).indexOf(name)] = v;
  }
  return state;
};

/** What differs between two states, as the fourth field of a vector. */
export const changes = (before: MachineState, after: MachineState): string => {
  const list: string[] = [];
  for (let i = 0; i < 16; i++) {
    if (before.gpr[i] !== after.gpr[i]) list.push(`${GPR_NAMES[i]}=${after.gpr[i].toString(16)}`);
  }
  if (((before.flags ^ after.flags) & SHOWN_FLAGS) !== 0)
    list.push(`flags=${(after.flags & SHOWN_FLAGS).toString(16)}`);
  for (let i = 0; i < WINDOW_BYTES; i++) {
    if (before.memory[i] !== after.memory[i]) list.push(`+${i.toString(16)}=${after.memory[i].toString(16)}`);
  }
  return list.join(' ');
};

const parsePairs = (text: string): Record<string, bigint> => {
  const pairs: Record<string, bigint> = {};
  for (const pair of text.split(' ')) {
    const [name, v] = pair.split('=');
    if (v !== undefined) pairs[name] = BigInt(`0x${v}`);
  }
  return pairs;
};

export interface Vector {
  readonly text: string;
  readonly code: Uint8Array;
  readonly before: MachineState;
  /** The state after, or the vector of the fault. */
  readonly after: MachineState | number;
}

export const parseVector = (text: string): Vector => {
  const [code, seed, over, result] = text.split('|');
  const before = stateOf(Number(seed), parsePairs(over));
  const changed = parsePairs(result);
  const bytes = Uint8Array.from(code.match(/../g) ?? [], (b) => Number.parseInt(b, 16));
  const { fault, ...rest } = changed;
  if (fault !== undefined) return { text, code: bytes, before, after: Number(fault) };
  const after = { gpr: [...before.gpr], flags: before.flags & SHOWN_FLAGS, memory: before.memory.slice() };
  for (const [name, v] of Object.entries(rest)) {
    if (name[0] === '+') after.memory[Number.parseInt(name.slice(1), 16)] = Number(v);
    else if (name === 'flags') after.flags = Number(v);
    else after.gpr[(GPR_NAMES as readonly string[]).indexOf(name)] = v;
  }
  return { text, code: bytes, before, after };
};
