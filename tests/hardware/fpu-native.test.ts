/**
 * Compares the helpers with this machine's processor on fresh random cases, and records vectors.
 *
 *   gcc -O1 -o /tmp/fpu-vectors tests/hardware/fpu-vectors.c
 *   VMXLAB_FPU_RUNNER=/tmp/fpu-vectors [VMXLAB_FPU_COUNT=1000] [VMXLAB_FPU_RECORD=1] npx vitest run tests/hardware/fpu-native.test.ts
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { casesOf, TRANSCENDENTAL } from '../cpu/fpu/cases.js';
import { AT, createMachine, differences } from '../cpu/fpu/machine.js';
import { ALL, encodeVectors, nearly } from '../cpu/fpu/vectors.js';

const runner = process.env['VMXLAB_FPU_RUNNER'];
const recording = process.env['VMXLAB_FPU_RECORD'] !== undefined;
const count = Number(process.env['VMXLAB_FPU_COUNT'] ?? (recording ? 10 : 100));
const SEED = 20_000;

describe.skipIf(runner === undefined)('this processor', () => {
  it('agrees with the helpers', { timeout: 600_000 }, () => {
    const machine = createMachine('reference');
    const results: (readonly [Uint8Array, Uint8Array])[] = [];
    const wrong: string[] = [];
    ALL.forEach((encoding, n) => {
      const cases = casesOf(encoding, SEED + n, count);
      const out = execFileSync(runner!, { input: Buffer.concat(cases), maxBuffer: 1 << 30 });
      const compare = TRANSCENDENTAL.includes(encoding) ? nearly : differences;
      cases.forEach((given, i) => {
        const expected = new Uint8Array(out.subarray(i * AT.size, (i + 1) * AT.size));
        results.push([given, expected]);
        wrong.push(...compare(encoding.name, expected, machine.run(given)));
      });
    });
    if (recording) {
      const cpuinfo = readFileSync('/proc/cpuinfo', 'utf8');
      const field = (name: string): string =>
        new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(cpuinfo)?.[1] ?? 'unknown';
      const processor = `${field('model name')} (family ${field('cpu family')}, model ${field('model')}, stepping ${field('stepping')})`;
      const file = encodeVectors(
        { processor, date: new Date().toISOString().slice(0, 10), seed: SEED, count },
        results,
      );
      const folder = new URL('../../data/vectors/', import.meta.url);
      mkdirSync(folder, { recursive: true });
      writeFileSync(new URL('fpu.bin.gz', folder), file);
    }
    expect(wrong).toEqual([]);
  });
});
