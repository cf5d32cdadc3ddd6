/**
 * Compares the instruction-set extensions with this machine's processor on fresh random cases, and records vectors.
 *
 *   gcc -O1 -no-pie -o /tmp/extension-vectors tests/hardware/extension-vectors.c
 *   VMXLAB_EXTENSION_RUNNER=/tmp/extension-vectors [VMXLAB_EXTENSION_COUNT=1000] [VMXLAB_EXTENSION_SEED=5] \
 *     [VMXLAB_EXTENSION_RECORD=1] npx vitest run tests/hardware/extension-native.test.ts
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { AT, type Case, extensionCases, stateOf } from '../cpu/extensions/cases.js';
import { createMachine, differences, ENGINES } from '../cpu/extensions/machine.js';
import { encodeVectors } from '../cpu/extensions/vectors.js';

const runner = process.env['VMXLAB_EXTENSION_RUNNER'];
const recording = process.env['VMXLAB_EXTENSION_RECORD'] !== undefined;
const count = Number(process.env['VMXLAB_EXTENSION_COUNT'] ?? (recording ? 12 : 100));
const seed = Number(process.env['VMXLAB_EXTENSION_SEED'] ?? 1);
/** Cases handed to the program at once. */
const BATCH = 20_000;

describe.skipIf(runner === undefined)('this processor', () => {
  it('agrees with both engines', { timeout: 3_600_000 }, () => {
    const machines = ENGINES.map((name) => [name, createMachine(name)] as const);
    const cases = extensionCases(seed, count);
    const results: (readonly [Case, Uint8Array])[] = [];
    const wrong: string[] = [];
    for (let from = 0; from < cases.length; from += BATCH) {
      const batch = cases.slice(from, from + BATCH);
      const given = batch.map((c) => stateOf(c.kind, c.seed, c.code));
      const out = execFileSync(runner!, { input: Buffer.concat(given), maxBuffer: 1 << 30 });
      batch.forEach((c, i) => {
        const expected = new Uint8Array(out.subarray(i * AT.size, (i + 1) * AT.size));
        if (recording) results.push([c, expected]);
        for (const [name, machine] of machines) {
          const found = differences(given[i], expected, machine.run(given[i]));
          if (wrong.length < 60) wrong.push(...found.map((text) => `${name}: ${text} [${c.kind} ${c.seed}]`));
        }
      });
    }
    if (recording) {
      const cpuinfo = readFileSync('/proc/cpuinfo', 'utf8');
      const field = (name: string): string =>
        new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(cpuinfo)?.[1] ?? 'unknown';
      const processor = `${field('model name')} (family ${field('cpu family')}, model ${field('model')}, stepping ${field('stepping')})`;
      const file = encodeVectors({ processor, date: new Date().toISOString().slice(0, 10) }, results);
      writeFileSync(new URL('../../data/vectors/extensions.bin.gz', import.meta.url), file);
    }
    expect(wrong).toEqual([]);
  });
});
