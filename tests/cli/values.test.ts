import { expect, test } from 'vitest';
import { count, given, oneOf, range, size } from '../../lib/cli/values.js';

test.each([
  ['4096', 4096],
  ['64K', 65536],
  ['256M', 268435456],
  ['256m', 268435456],
  ['1G', 1073741824],
  ['1GiB', 1073741824],
])('size %s is %i bytes', (text, bytes) => {
  expect(size('--memory')(text)).toBe(bytes);
});

test.each(['', '0', '-1', '1.5G', '1T', 'M', '99999999999999999999'])('size %j is refused', (text) => {
  expect(() => size('--memory')(text)).toThrow(`--memory: '${text}' is not possible`);
});

test('counts, names and ranges', () => {
  expect(count('-n')('1_000_000')).toBe(1e6);
  expect(() => count('-n')('_1')).toThrow();
  expect(oneOf('-x', ['a', 'b'])('b')).toBe('b');
  expect(range('-t')('0:10')).toEqual({ first: 0, last: 10 });
  expect(() => range('-t')('1:2:3')).toThrow('FROM:TO');
  expect(given({ a: 1, b: undefined })).toEqual({ a: 1 });
});
