/** What the processor models advertise: `lab` is frozen, because guests choose their code by it. */
import { describe, expect, it } from 'vitest';
import { Cpu } from '../../../lib/cpu/core.js';
import { hardwareCpuid, hasFeature } from '../../../lib/cpu/system/cpuid.js';
import { CPU_MODELS, type CpuModel, FEATURES } from '../../../lib/isa/cpuid.js';
import { Ram } from '../../../lib/memory/ram.js';

const ram = new Ram(0x1000);
const answer = (model: CpuModel, leaf: number, subleaf: number): string => {
  const r = hardwareCpuid(new Cpu(ram, { model }), leaf, subleaf);
  return [r.eax, r.ebx, r.ecx, r.edx].map((v) => v.toString(16)).join(' ');
};

describe('CPUID of the model', () => {
  // biome-ignore format: one row per line
  it.each([
    ['lab', 0x1, 0, '306d4 10800 5e22020 f8bfbfd'],
    ['lab', 0x7, 0, '0 180481 4 0'],
    ['lab', 0xd, 0, '3 240 240 0'],
    ['lab', 0xd, 1, '1 0 0 0'],
    ['lab', 0x80000001, 0, '0 0 21 2c100800'],
    ['lab', 0x80000007, 0, '0 0 0 100'],
    ['v2', 0x1, 0, '306d4 10800 5fa2221 f8bfbfd'],
    ['v2', 0x7, 0, '0 180481 4 0'],
    ['full', 0x1, 0, '306d4 10800 47fa2223 f8bfbfd'],
    ['full', 0x7, 0, '0 19c0589 400004 0'],
    ['full', 0xd, 1, 'f 240 0 0'],
  ] as const)('%s, leaf %i.%i', (model, leaf, subleaf, wanted) => {
    expect(answer(model, leaf, subleaf)).toBe(wanted);
  });
  it('full has every feature of the table, and each model what the one before it has', () => {
    expect(FEATURES.filter((f) => !hasFeature(f.name, 'full')).map((f) => f.name)).toEqual([]);
    for (let i = 1; i < CPU_MODELS.length; i++) {
      const lost = FEATURES.filter(
        (f) => hasFeature(f.name, CPU_MODELS[i - 1]) && !hasFeature(f.name, CPU_MODELS[i]),
      );
      expect(lost).toEqual([]);
    }
  });
});
