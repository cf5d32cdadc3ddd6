import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { bootPredicted, compareWithPrediction, predictionText } from '../../lib/lab/prediction.js';
import type { BootOptions, RunResult } from '../../lib/lab/run-types.js';
import { vmxlab, withFolder } from '../cli/vmxlab.js';

const WORK = {
  ...{ syscalls: 20, cpuids: 2, mmioReads: 3, touchPages: 40, unmaps: 3, forks: 2, forkWrites: 5 },
  ...{ processes: 2, switches: 6, ticks: 4, idles: 3 },
} as const;

/** Whatever the processor offers, the guest uses neither PCID nor isolation; time moves only what time drives. */
test.each<[BootOptions, Parameters<typeof bootPredicted>[2]]>([
  [{}, {}],
  [{ hideCpuid: ['pcid', 'invpcid'], meltdown: true }, {}],
  [{ cpu: 'full', backing: '4K', hostTickHz: 1000 }, {}],
  [{ timeModel: 'instructions' }, {}],
  [{ costs: { base: 0, CR_ACCESS: 90_000 }, hostTickHz: 0 }, { 'kvm-intel': { vpid: false } }],
  [{}, { 'kvm-intel': { preemption_timer: false }, kvm: { mmio_caching: false } }],
])('exact with %j and parameters %j in both modes', async (options, params) => {
  for (const paging of ['ept', 'shadow'] as const) {
    const more = { ...options, memory: 64 << 20, tiny: WORK };
    const { prediction } = await bootPredicted(paging, more, params);
    expect(prediction!.rows.filter((r) => r.predicted !== undefined && r.predicted !== r.counted)).toEqual(
      [],
    );
    expect(prediction!.exact).toBe(true);
    expect(prediction!.workload.switches).toBe(6);
  }
});

test('a run that did not end has no prediction', async () => {
  const { run, prediction } = await bootPredicted('ept', { memory: 64 << 20, maxInstructions: 1000 });
  expect(run.outcome).toBe('limit');
  expect(prediction).toBeUndefined();
});

test('a difference shows, with the terms behind the prediction', () => {
  const run = (exits: Record<number, number>) => ({ paging: 'ept', exits }) as unknown as RunResult;
  const p = compareWithPrediction(run({ 1: 9, 10: 5, 30: 7 }), run({ 10: 2, 30: 7 }), {
    tiny: { cpuids: 4 },
  });
  expect(p.exact).toBe(false);
  expect(predictionText(p, true).split('\n')).toEqual([
    ' #  KVM                 predicted  counted',
    '--  ------------------  ---------  -------',
    ' 1  EXTERNAL_INTERRUPT       time        9',
    '10  CPUID                       4        3  differs',
    '      4: CPUID always exits',
    'exits that the workload adds: not as predicted',
  ]);
});

test('boot shows it beside the console, and writes it into the JSON', () =>
  withFolder((folder) => {
    const file = join(folder, 'run.json');
    const words = ['--paging', 'shadow', '--tiny', 'forks=2,touchPages=9', '--tiny', 'ticks=1'];
    const { status, stdout, stderr } = vmxlab('boot', ...words, '--json', file);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^\[vmxlab\] init\r?\n/);
    expect(stderr).toMatch(/exactly as predicted\n$/);
    const { prediction, kvmStats } = JSON.parse(readFileSync(file, 'utf8'));
    expect(prediction).toMatchObject({ exact: true, workload: { forks: 2, touchPages: 9, ticks: 1 } });
    expect(kvmStats.pf_guest).toBeGreaterThan(0);
  }));
