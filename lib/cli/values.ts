/** Readers of option values. Each throws a LabError that names the option, the value, and what would be right. */
import { LabError } from '../base/error.js';

const wrong = (option: string, value: string, hint: string): LabError =>
  new LabError('cli.value', `${option}: '${value}' is not possible`, hint);

/** One of a list of names. */
export const oneOf =
  <T extends string>(option: string, names: readonly T[]) =>
  (value: string): T => {
    const name = names.find((n) => n === value);
    if (name === undefined)
      throw new LabError('cli.value', `${option}: unknown name '${value}'`, `one of ${names.join(', ')}`);
    return name;
  };

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** A size in bytes: a whole number, or one with K, M or G (powers of 1024). */
export const size =
  (option: string) =>
  (value: string): number => {
    const m = /^(\d+)([KMG]?)(?:i?B)?$/i.exec(value);
    const bytes = m === null ? 0 : Number(m[1]) * UNITS[m[2]!.toUpperCase()]!;
    if (!Number.isSafeInteger(bytes) || bytes <= 0)
      throw wrong(option, value, 'a size is a number of bytes, or like 256M or 1G');
    return bytes;
  };

/** A whole number from `least` up, to `most` where that is given; `_` may group digits. */
export const count =
  (option: string, least = 1, most = Number.MAX_SAFE_INTEGER) =>
  (value: string): number => {
    const n = /^\d[\d_]*$/.test(value) ? Number(value.replaceAll('_', '')) : Number.NaN;
    const range = most === Number.MAX_SAFE_INTEGER ? 'up' : `to ${most}`;
    if (!Number.isSafeInteger(n) || n < least || n > most)
      throw wrong(option, value, `a whole number from ${least} ${range}`);
    return n;
  };

const DECIMAL: Readonly<Record<string, number>> = { '': 1, k: 1e3, m: 1e6, g: 1e9 };

/** A rate a second: a number, or one with k, M or G (powers of 1000). */
export const rate =
  (option: string, least: number, most: number) =>
  (value: string): number => {
    const m = /^(\d+(?:\.\d+)?)([kmg]?)(?:Hz)?$/i.exec(value);
    const hertz = m === null ? Number.NaN : Math.round(Number(m[1]) * DECIMAL[m[2]!.toLowerCase()]!);
    if (Number.isNaN(hertz) || hertz < least || hertz > most)
      throw wrong(option, value, `a rate from ${least / 1e6}M to ${most / 1e9}G, like 400M or 2.4G`);
    return hertz;
  };

/** `on` or `off`. */
export const onOff = (option: string) => {
  const read = oneOf(option, ['on', 'off']);
  return (value: string): boolean => read(value) === 'on';
};

/** Names, separated by commas. */
export const names =
  (option: string) =>
  (value: string, before: readonly string[] = []): readonly string[] => {
    const words = value.split(',').map((w) => w.trim());
    if (words.includes('')) throw wrong(option, value, 'names, separated by commas');
    return [...before, ...words];
  };

/** `NAME=VALUE`, split at the first `=`. */
export const pair = (option: string, value: string, form: string): readonly [string, string] => {
  const at = value.indexOf('=');
  if (at < 1 || at === value.length - 1) throw wrong(option, value, form);
  return [value.slice(0, at), value.slice(at + 1)];
};

/** A port number, decimal or with 0x. */
export const port =
  (option: string, most = 0xffff) =>
  (value: string): number => {
    const n = /^(0x[\da-f]+|\d+)$/i.test(value) ? Number(value) : Number.NaN;
    if (!Number.isInteger(n) || n > most)
      throw wrong(option, value, `a number from 0 to ${most}, decimal or like 0xf4`);
    return n;
  };

/** `FROM:TO`: instructions FROM to TO - 1, counted from 0. */
export const range =
  (option: string) =>
  (value: string): { readonly first: number; readonly last: number } => {
    const [from, to, more] = value.split(':');
    if (from === undefined || to === undefined || more !== undefined)
      throw wrong(option, value, 'FROM:TO, two instruction numbers');
    const first = count(option, 0)(from);
    const last = count(option, 0)(to);
    if (last <= first) throw wrong(option, value, 'TO must be greater than FROM');
    return { first, last };
  };

type Given<T> = { -readonly [K in keyof T]?: Exclude<T[K], undefined> };

/** The members that have a value. */
export const given = <T extends object>(members: T): Given<T> =>
  Object.fromEntries(Object.entries(members).filter(([, v]) => v !== undefined)) as Given<T>;
