import { expect, test } from 'vitest';
import { queriesBesideLog, sampleLog } from '../../lib/lab/leaf-log.js';
import { countsOf, readings } from '../../lib/lab/readings.js';
import { phaseCounts } from '../../lib/lab/run-tables.js';

const query = (leaf: number, type: number, eax: number, edx = 0): string =>
  `CPU:\r\n   0x${leaf.toString(16)} 0x${type.toString(16).padStart(2, '0')}: eax=0x${eax.toString(16).padStart(8, '0')} ebx=0x00000000 ecx=0x00000000 edx=0x${edx.toString(16).padStart(8, '0')}\r\n`;

const reading = (
  name: string,
  total: number,
  ...counts: readonly (readonly [number, number, number?])[]
): string =>
  `[vmxlab] leaves ${name}\r\n${query(0x4fffffff, 0, total)}${counts.map(([type, n, edx]) => query(0x4ffffffe, type, n, edx)).join('')}[vmxlab] leaves end\r\n`;

const CONSOLE = `[    0.1] Linux\r\n${reading('boot', 30, [10, 20], [35, 0, 0xffffffff], [48, 10])}[vmxlab] workload\r\nhello\r\n[vmxlab] workload done\r\n${reading('workload', 90, [10, 50], [35, 0, 0xffffffff], [48, 40])}`;

const LOG = [
  'kvm: something else',
  'CPUID(0x4FFFFFFF), exits=30, cycles spent in exit=300',
  'CPUID(0x4FFFFFFE), exit number 10 exits=20',
  'CPUID(0x4FFFFFFE), exit number 35 is not defined in the SDM',
  'CPUID(0x4FFFFFFE), exit number 48 exits=10',
  'CPUID(0x4FFFFFFE), exit number 10 exits=44',
  'CPUID(0x4FFFFFFF), exits=90, cycles spent in exit=900',
  'CPUID(0x4FFFFFFE), exit number 10 exits=50',
  'CPUID(0x4FFFFFFE), exit number 35 is not defined in the SDM',
  'CPUID(0x4FFFFFFE), exit number 48 exits=40',
];

test('the output of the cpuid tool, between its marks', () => {
  const [boot, workload, more] = readings(CONSOLE);
  expect(more).toBeUndefined();
  expect([boot!.name, workload!.name]).toEqual(['boot', 'workload']);
  expect(boot!.queries[1]).toEqual({ leaf: 0x4ffffffe, subleaf: 10, eax: 20, ebx: 0, ecx: 0, edx: 0 });
});

test('types that are not defined have no count', () => {
  expect(countsOf(readings(CONSOLE)[0]!, 0x4ffffffe)).toEqual({ 10: 20, 48: 10 });
});

test('a reading that was cut off is left out', () => {
  expect(readings(CONSOLE.slice(0, -30))).toHaveLength(1);
  expect(readings('[vmxlab] leaves end\n')).toEqual([]);
});

test('the second reading holds the first', () => {
  expect(phaseCounts({ console: CONSOLE })).toEqual({
    boot: { 10: 20, 48: 10 },
    workload: { 10: 30, 48: 30 },
  });
});

test('each query beside the log line of the same moment, a query of the workload in between', () => {
  const queries = queriesBesideLog({ console: CONSOLE, log: LOG });
  expect(queries.map((q) => [q.reading, q.reason, q.guest, q.hypervisor])).toEqual([
    ['boot', 10, 20, 20],
    ['boot', 35, 0, 0],
    ['boot', 48, 10, 10],
    ['workload', 10, 50, 50],
    ['workload', 35, 0, 0],
    ['workload', 48, 40, 40],
  ]);
});

test('a log that does not fit is no number', () => {
  const [q] = queriesBesideLog({ console: CONSOLE, log: LOG.slice(5) });
  expect(q!.hypervisor).not.toBe(q!.guest);
});

test('the sample log is the last reading, without what did not occur', () => {
  expect(sampleLog({ console: CONSOLE, log: LOG })).toBe(
    'CPUID(0x4FFFFFFF), exits=90, cycles spent in exit=900\nCPUID(0x4FFFFFFE), exit number 10 exits=50\nCPUID(0x4FFFFFFE), exit number 48 exits=40',
  );
});
