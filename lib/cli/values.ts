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

/** A whole number from `least` up; `_` may group digits. */
export const count =
  (option: string, least = 1) =>
  (value: string): number => {
    const n = /^\d[\d_]*$/.test(value) ? Number(value.replaceAll('_', '')) : Number.NaN;
    if (!Number.isSafeInteger(n) || n < least) throw wrong(option, value, `a whole number from ${least} up`);
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
