/** Arguments of `npm run fuzz`, and that a campaign's cases depend on its seed alone. */
import { describe, expect, test } from 'vitest';
import { newCase } from '../hardware/cases.js';
import { instructionsOf } from '../hardware/masks.js';
import { fuzzOptions } from './options.js';
import { Plan } from './plan.js';

const NAMES = new Set(['add', 'imul']);

describe('arguments', () => {
  test.each([
    [['--cases', '0'], "--cases: '0' is not possible"],
    [['--cases', 'many'], "--cases: 'many' is not possible"],
    [['--seed', '-1'], /seed/],
    [['--seed', '4294967296'], "--seed: '4294967296' is not possible"],
    [['--only', 'pairs'], "--only: unknown name 'pairs' (single or sequence)"],
    [['--rows', 'add,sud'], "--rows: there is no instruction row 'sud'"],
    [['--size', '3'], /--size/],
    [['all'], /all/],
  ] as const)('%j', (args, message) => {
    expect(() => fuzzOptions(args, NAMES)).toThrow(message);
  });
  test('defaults and values', () => {
    expect(fuzzOptions([], NAMES)).toMatchObject({ cases: 100_000, seed: 1, from: 0, stop: 1 });
    expect(fuzzOptions(['--cases', '7', '--rows', 'add'], NAMES)).toMatchObject({ cases: 7, only: 'single' });
    expect(fuzzOptions(['--help'], NAMES)).toBe('help');
  });
});

describe('a campaign', () => {
  const cases = (seed: number): string[] => {
    const plan = new Plan(seed, undefined, undefined);
    const c = newCase();
    return Array.from({ length: 300 }, (_, i) => {
      plan.make(c, i);
      return Buffer.from(c.bytes).toString('hex');
    });
  };
  test('is the same for the same seed, and another for another', () => {
    const first = cases(5);
    expect(cases(5)).toEqual(first);
    expect(cases(6).filter((c, i) => c === first[i])).toEqual([]);
    expect(new Set(first).size).toBe(300);
  });
  test('is code that decodes', () => {
    const plan = new Plan(9, undefined, undefined);
    const c = newCase();
    for (let i = 0; i < 500; i++) {
      const kind = plan.make(c, i);
      const n = instructionsOf(c.bytes).length;
      expect(n).toBeGreaterThan(kind === 'single' ? 0 : 1);
    }
  });
});
