import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { LabError } from '../../lib/base/error.js';
import { REPORTS } from '../../lib/lab/paths.js';
import { vmxlabHere } from './vmxlab.js';

// a machine where Debian's packages cannot be had: what set-up says on one is in tests/lab/setup.test.ts
vi.mock('../../lib/lab/setup.js', () => ({
  setUp: () => {
    throw new LabError('debian.no-apt', 'there is no apt & no <network>');
  },
  setUpJupyter: () => {},
}));

test('without Debian the lab runs its built-in guest, and says so', async () => {
  const { status, stdout, stderr } = await vmxlabHere('lab');
  expect(stderr).toMatch(/built-in guest instead of Debian: there is no apt & no <network>\./);
  expect(stderr).toMatch(/ept: poweroff [\s\S]*shadow: poweroff /);
  expect(stdout).toMatch(/^ *28 +CR_ACCESS +Control-register accesses +0 +\d+ +new$/m);
  expect(stdout.match(/exactly as predicted/g)).toHaveLength(2);
  expect(stdout).toMatch(/report: .*tiny\.html\n$/);
  expect(status).toBe(0);
  const html = readFileSync(join(REPORTS, 'tiny.html'), 'utf8');
  expect(html).toContain('there is no apt &amp; no &lt;network&gt;');
  expect(html).toContain('<svg');
  expect(html).not.toMatch(/(src|href)="?http/);
});
