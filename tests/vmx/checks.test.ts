/** Every VM-entry rule: the valid VMCS passes it, its example breaks it. */
import { describe, expect, test } from 'vitest';
import { CHECKS } from '../../lib/vmx/check-rows.js';
import type { CheckRow } from '../../lib/vmx/checks.js';
import type { FieldName } from '../../lib/vmx/fields.js';
import { ROW } from '../../lib/vmx/fields.js';
import { checker, VALID } from './machine.js';

const broken = (row: CheckRow): Partial<Record<FieldName, bigint>> =>
  Object.fromEntries(
    Object.entries(row.example).map(([name, v]) => [
      name,
      typeof v === 'function' ? v(VALID[name as FieldName] ?? 0n) : (v as bigint),
    ]),
  );

test('the valid VMCS breaks no rule', () => {
  const { runner } = checker();
  expect(runner.run()?.id).toBeUndefined();
});

describe.each(CHECKS.map((row) => [row.id, row] as const))('%s', (_, row) => {
  test(row.says, () => {
    const { cpu, view, set, runner } = checker();
    const fails = (): boolean => (row.when === undefined || row.when(view)) && row.fails(view);
    expect(fails()).toBe(false);
    set(broken(row));
    for (const [at, v] of Object.entries(row.exampleMemory ?? {})) cpu.ram.write64(Number(at), v);
    expect(fails()).toBe(true);
    expect(runner.run()).toBeDefined();
  });
});

test('after a good run only rules of changed fields are run again', () => {
  const { fields, runner, set } = checker();
  runner.run();
  expect(fields.dirtyTopics).toBe(0);
  set({ guestRip: 0x1_0002n });
  expect(fields.dirtyTopics.toString(2).replaceAll('0', '')).toBe('1');
  expect(runner.run()).toBeUndefined();
  set({ guestRip: 0x8000_0000_0000n });
  expect(runner.run()?.id).toBe('guestRip.canonical');
  set({ guestRip: 0x1_0000n, tscOffset: 5n, cr0ReadShadow: 1n });
  expect(runner.run()).toBeUndefined();
  fields.write(ROW.tscOffset, 6, 0);
  expect(fields.dirtyTopics).toBe(0);
});
