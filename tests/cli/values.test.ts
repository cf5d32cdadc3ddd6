import { expect, test } from 'vitest';
import { count, given, names, oneOf, onOff, pair, port, range, rate, size } from '../../lib/cli/values.js';

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

test.each([
  ['400M', 400_000_000],
  ['2.4G', 2_400_000_000],
  ['10000000', 1e7],
  ['32000k', 32_000_000],
  ['100MHz', 100_000_000],
])('rate %s is %i a second', (text, hertz) => {
  expect(rate('--clock-rate', 1e7, 1e11)(text)).toBe(hertz);
});

test('switches, names, pairs, ports', () => {
  expect(onOff('-x')('off')).toBe(false);
  expect(names('-x')('a, b', ['c'])).toEqual(['c', 'a', 'b']);
  expect(pair('-x', 'a=b=c', 'A=B')).toEqual(['a', 'b=c']);
  expect(() => pair('-x', '=b', 'A=B')).toThrow("-x: '=b' is not possible (A=B)");
  expect([port('-x')('0xf4'), port('-x')('244')]).toEqual([244, 244]);
  expect(() => port('-x')('65536')).toThrow();
});
