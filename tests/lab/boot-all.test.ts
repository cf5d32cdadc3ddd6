/** Boots in threads. They run the build in dist/, which `npm test` has made. */
import { expect, test } from 'vitest';
import { bootAll, bootBoth } from '../../lib/lab/boot-all.js';
import { bootUnder } from '../../lib/lab/both.js';
import { sweep } from '../../lib/lab/sweep.js';

const OPTIONS = {
  guest: 'tiny',
  memory: 64 << 20,
  tiny: { touchPages: 20, processes: 2, switches: 3 },
} as const;
/** All of a result that does not depend on the wall clock. */
const timeless = ({ wallSeconds, ...rest }: Awaited<ReturnType<typeof bootUnder>>) => rest;

test('boots in threads give what boots one after the other give', async () => {
  const { ept, shadow } = await bootBoth(OPTIONS);
  expect(timeless(ept)).toEqual(timeless(await bootUnder('ept', OPTIONS)));
  expect(timeless(shadow)).toEqual(timeless(await bootUnder('shadow', OPTIONS)));
});

test('results come in the order of the jobs, those with functions among them', async () => {
  let seen = 0;
  const jobs = [1, 2, 3].map((touchPages) => ({
    paging: 'shadow' as const,
    options: {
      ...OPTIONS,
      tiny: { touchPages },
      ...(touchPages === 2 ? { onMachine: () => void seen++ } : {}),
    },
  }));
  const runs = await bootAll(jobs, 2);
  expect(runs.map((r) => r.about.join().match(/touchPages=(\d)/)?.[1])).toEqual(['1', '2', '3']);
  expect(seen).toBe(1);
});

test('a mistake comes back as it was made, and the next boots work', async () => {
  const bad = { paging: 'ept' as const, options: { ...OPTIONS, tiny: { switches: 5 } } };
  await expect(bootAll([bad, bad], 2)).rejects.toMatchObject({ name: 'LabError', id: 'tiny.workload' });
  expect(await bootAll([{ paging: 'ept', options: OPTIONS }], 2)).toHaveLength(1);
});

test('a sweep gives what each workload adds', async () => {
  const [row] = await sweep([{ touchPages: 64 }], { memory: 64 << 20 });
  // two faults a page, one for the table, one unsync, one for fresh memory
  expect(row).toMatchObject({ ept: { exits: 1 }, shadow: { exits: 2 * 64 + 3 } });
  expect(row!.shadow.total).toBe(row!.shadow.exitCycles + row!.shadow.walkCycles);
});
