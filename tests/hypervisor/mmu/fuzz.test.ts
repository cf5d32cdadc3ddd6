/**
 * Random page tables and operations, in either mode (`fuzz.ts`).
 *
 * `VMXLAB_FUZZ_STEPS=5000000 node node_modules/vitest/vitest.mjs run tests/hypervisor/mmu/fuzz.test.ts` runs more of them
 * in each of the four configurations; `VMXLAB_FUZZ_SEED` begins elsewhere.
 */
import { describe, expect, test } from 'vitest';
import { type FuzzReport, fuzzEpt, fuzzShadow } from './fuzz.js';

const STEPS = Number(process.env['VMXLAB_FUZZ_STEPS'] ?? 30_000);
const SEED = Number(process.env['VMXLAB_FUZZ_SEED'] ?? 7);
const TIMEOUT = 60_000 + STEPS;

const report = (name: string, r: FuzzReport): void => {
  if (process.env['VMXLAB_FUZZ_STEPS'] !== undefined)
    console.log(
      `${name}: ${r.steps} steps, ${r.exits} exits, at most ${r.most} tables, ${JSON.stringify(r.outcomes)}`,
    );
};

describe('no guest reaches a frame that its slots do not give it', () => {
  test.each(['4K', '2M'] as const)(
    'shadow paging, %s backing',
    (backing) => {
      const r = fuzzShadow(SEED, STEPS, backing);
      report(`shadow ${backing}`, r);
      // the walks did meet something: memory, faults of the guest, MMIO, and ends
      for (const name of ['done', 'fault', 'mmio', 'ended', 'table done'])
        expect(r.outcomes[name], name).toBeGreaterThan(STEPS / 1000);
    },
    TIMEOUT,
  );
  test.each(['4K', '2M'] as const)(
    'EPT, %s backing',
    (backing) => {
      const r = fuzzEpt(SEED, STEPS, backing, backing === '2M');
      report(`EPT ${backing}`, r);
      for (const name of ['done', 'mmio']) expect(r.outcomes[name], name).toBeGreaterThan(STEPS / 1000);
    },
    TIMEOUT,
  );
});
