/** The handler table makes room for new handlers without touching the kept ones. */
import { expect, test } from 'vitest';
import { Handlers } from '../../../lib/cpu/interpreter/handlers.js';
import { decode } from '../../../lib/isa/decoder.js';
import type { Insn } from '../../../lib/isa/rows.js';

const insn = (hex: string): Insn => {
  const bytes = Uint8Array.from(Buffer.from(hex.padEnd(30, '0'), 'hex'));
  const i = decode(bytes, 0, bytes.length, 64);
  if (typeof i === 'string') throw new Error(`${hex} is ${i}`);
  return i;
};

const handlers = (entries: number): { table: WebAssembly.Table; handlers: Handlers } => {
  const nothing = (): number => 0;
  const table = new WebAssembly.Table({ initial: entries, maximum: entries, element: 'anyfunc' });
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const env = { memory, table, slow: nothing, commit: nothing, helper: nothing, fault: nothing };
  const imports = { env: { ...env, segmentSlow: nothing, bulk: nothing } };
  return { table, handlers: new Handlers(table, imports, 1, () => 0) };
};

test('forgetting makes room; kept handlers stay where they are', () => {
  const { table, handlers: h } = handlers(12);
  const add = h.of(insn('4801d8'));
  h.keep();
  const kept = table.get(add.index) as unknown;
  expect(h.room).toBe(12 - 9);
  const sub = h.of(insn('4829d8'));
  const xor = h.of(insn('4831d8'));
  h.flush();
  expect([sub.index, xor.index]).toEqual([add.index + 1, add.index + 2]);
  expect(h.room).toBe(1);

  h.forget();
  expect(h.room).toBe(3);
  expect(h.of(insn('4801d8'))).toBe(add);
  expect(table.get(add.index)).toBe(kept);
  expect(table.get(xor.index)).toBeNull();

  // the place is given out again, to another handler
  expect(h.of(insn('4831d8')).index).toBe(sub.index);
  h.flush();
  expect(table.get(sub.index)).not.toBeNull();
});
