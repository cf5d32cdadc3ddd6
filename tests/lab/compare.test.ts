import { expect, test } from 'vitest';
import { changedControls } from '../../lib/lab/changed-controls.js';
import { check } from '../../lib/lab/check.js';
import { compareCounts, compareCsv, compareText } from '../../lib/lab/compare.js';
import { exitFrame, frameToHTML } from '../../lib/lab/frame.js';
import { costRows } from '../../lib/lab/run-tables.js';

const EPT = { 0: 0, 10: 100, 28: 11, 48: 40 };
const SHADOW = { 0: 500, 10: 100, 28: 2200, 48: 0 };

test('one row a reason that occurs, with both names', () => {
  expect(compareCounts(EPT, SHADOW).map((r) => [r.reason, r.kvm, r.ept, r.shadow, r.ratio])).toEqual([
    [0, 'EXCEPTION_NMI', 0, 500, Number.POSITIVE_INFINITY],
    [10, 'CPUID', 100, 100, 1],
    [28, 'CR_ACCESS', 11, 2200, 200],
    [48, 'EPT_VIOLATION', 40, 0, 0],
  ]);
});

test('the table of the terminal', () => {
  expect(compareText(EPT, SHADOW)).toBe(
    [
      ' #  KVM            SDM                        EPT  shadow  ratio',
      '--  -------------  -------------------------  ---  ------  -----',
      ' 0  EXCEPTION_NMI  Exception or NMI             0     500    new',
      '10  CPUID          CPUID                      100     100  1.00×',
      '28  CR_ACCESS      Control-register accesses   11    2200   200×',
      '48  EPT_VIOLATION  EPT violation               40       0   gone',
      '    total                                     151    2800    19×',
    ].join('\n'),
  );
});

test('CSV', () => {
  expect(compareCsv({ 10: 1 }, { 10: 2 })).toBe('reason,kvm,sdm,ept,shadow\n10,CPUID,CPUID,1,2\n');
});

test('a dataframe, and its HTML', () => {
  const frame = exitFrame(EPT, SHADOW);
  expect(frame.shape).toEqual([4, 6]);
  const html = frameToHTML(frame, 'a < b');
  expect(html).toContain('<caption>a &lt; b</caption>');
  expect(html).toContain('>2,200</td>');
  expect(html.match(/<tr>/g)).toHaveLength(5);
});

test('costs of a pair of runs', () => {
  const run = (exits: Record<number, number>, references: number) => ({
    exits,
    exitCycles: { 10: 7 },
    walks: { count: 10, references },
    cycles: 1,
    instructions: 2,
  });
  const rows = costRows(run(EPT, 190), run(SHADOW, 38));
  expect(rows.find((r) => r.what === 'references per walk')).toMatchObject({ ept: 19, shadow: 3.8 });
  expect(rows[0]).toEqual({ what: 'VM exits', ept: 151, shadow: 2800 });
});

test('what changed in the VMCS: bits by name, other fields by value', () => {
  const ept = {
    procBasedControls: 0x8000_0000n,
    secondaryControls: 0x22n,
    exceptionBitmap: 0x42n,
    cr3TargetCount: 0n,
  };
  const shadow = {
    procBasedControls: 0x8000_8200n,
    secondaryControls: 0x20n,
    exceptionBitmap: 0x4042n,
    cr3TargetCount: 0n,
  };
  expect(changedControls(ept, shadow)).toEqual([
    { field: 'procBasedControls', control: 'INVLPG exiting', ept: 'off', shadow: 'on' },
    { field: 'procBasedControls', control: 'CR3-load exiting', ept: 'off', shadow: 'on' },
    { field: 'secondaryControls', control: 'Enable EPT', ept: 'on', shadow: 'off' },
    { field: 'exceptionBitmap', control: 'value', ept: '0x42', shadow: '0x4042' },
  ]);
});

test('a claim that does not hold ends its cell with the claim', () => {
  expect(() => check('1 is 2', false)).toThrow('this does not hold in this run: 1 is 2');
});
