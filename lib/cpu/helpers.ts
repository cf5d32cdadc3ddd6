/**
 * The table of helpers: instructions, or parts of them, that are written in TypeScript and shared by every engine.
 *
 * A helper reads its arguments with `cpu.arg32/arg64`, leaves its results with `cpu.result32/result64`, and returns
 * false exactly when it has recorded a fault or VM exit. Faults and exits come before the first change of state.
 */
import type { Cpu } from './core.js';

export type Helper = (cpu: Cpu) => boolean;
export type HelperTable = Readonly<Record<string, Helper>>;
