import { describe, expect, test } from 'vitest';
import { decimal, median, percent, spread, table } from './table.js';

describe('median and spread', () => {
  const rows: readonly (readonly [number[], number, number])[] = [
    [[3], 3, 0],
    [[9, 1, 2], 2, 4],
    [[4, 1, 2, 3], 2.5, 1.2],
    [[10, 9, 100], 10, 9.1],
    [[0, 0], 0, 0],
  ];
  test.each(rows)('of %j', (values, middle, wide) => {
    const before = [...values];
    expect(median(values)).toBe(middle);
    expect(spread(values)).toBeCloseTo(wide);
    expect(values).toEqual(before);
  });
  test('of nothing', () => expect(() => median([])).toThrow(RangeError));
});

test('numbers', () => {
  expect(decimal(1234567.891, 2)).toBe('1,234,567.89');
  expect(decimal(0.004, 2)).toBe('0.00');
  expect(decimal(7, 0)).toBe('7');
  for (const none of [undefined, Number.NaN, Number.POSITIVE_INFINITY]) expect(decimal(none, 1)).toBe('');
  expect(percent(0.126)).toBe('13 %');
});

test('a table is as wide as its cells, and no line ends in blanks', () => {
  const text = table(
    [{ head: 'name', align: 'left' }, { head: 's' }, { head: '' }],
    [['a longer name', '1.5', 'x'], ['b', '10.25'], ['c']],
  );
  expect(text).toBe(
    [
      'name               s', //
      '-------------  -----  -',
      'a longer name    1.5  x',
      'b              10.25',
      'c',
    ].join('\n'),
  );
});
