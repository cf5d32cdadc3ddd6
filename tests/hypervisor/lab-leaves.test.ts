import { expect, test } from 'vitest';
import { ExitCounts } from '../../lib/hypervisor/counts.js';
import { type LabLayout, labLeaf } from '../../lib/hypervisor/lab-leaves.js';
import { HypervisorLog } from '../../lib/hypervisor/log.js';
import { VMCS } from '../../lib/vmx/port.js';
import { exit } from './fake-port.js';
import { machine } from './machine.js';

const CYCLES = 0x5_0000_0007;
const counts = new ExitCounts();
for (let i = 0; i < 300; i++) counts.exit(48);
counts.exit(10);
counts.handled(48, CYCLES);
const log = new HypervisorLog();
const read = (layout: LabLayout, leaf: number, subleaf = 0): number[] | undefined => {
  const r = labLeaf(layout, leaf, subleaf, counts, log);
  return r && [r.eax, r.ebx, r.ecx, r.edx];
};
const ones = 0xffffffff;

test.each<[LabLayout, number, number, number[] | undefined]>([
  ['F2020', 0x4fffffff, 0, [301, 5, 7, 0]],
  ['F2020', 0x4ffffffe, 48, [300, 0, 0, 0]],
  ['F2020', 0x4ffffffe, 10, [1, 0, 0, 0]],
  ['F2020', 0x4ffffffe, 12, [0, 0, 0, 0]],
  ['F2020', 0x4ffffffe, 35, [0, 0, 0, ones]],
  ['F2020', 0x4ffffffe, 38, [0, 0, 0, ones]],
  ['F2020', 0x4ffffffe, 42, [0, 0, 0, ones]],
  ['F2020', 0x4ffffffe, 65, [0, 0, 0, ones]],
  ['F2020', 0x4ffffffe, 70, [0, 0, 0, ones]],
  ['F2020', 0x4ffffffe, 0xffffffff, [0, 0, 0, ones]],
  ['F2020', 0x4ffffffe, 3, [0, 0, 0, 0]],
  ['F2020', 0x4ffffffe, 69, [0, 0, 0, 0]],
  ['F2020', 0x4ffffffd, 0, undefined],
  ['F2021', 0x4fffffff, 0, [301, 0, 0, 0]],
  ['F2021', 0x4ffffffe, 0, [0, 5, 7, 0]],
  ['F2021', 0x4ffffffd, 48, [300, 0, 0, 0]],
  ['F2021', 0x4ffffffc, 48, [0, 5, 7, 0]],
  ['F2021', 0x4ffffffc, 38, [0, 0, 0, ones]],
  ['F2022', 0x4fffffff, 48, [0, 5, 7, 0]],
  ['F2022', 0x4ffffffe, 48, [300, 0, 0, 0]],
  ['F2022', 0x4ffffffd, 0, [0, 5, 7, 0]],
  ['F2022', 0x4ffffffc, 0, [301, 0, 0, 0]],
])('%s leaf %i for type %i', (layout, leaf, subleaf, expected) => {
  expect(read(layout, leaf, subleaf)).toEqual(expected);
});

test('the log has the lines of the assignment', () => {
  log.clear();
  read('F2020', 0x4fffffff);
  read('F2020', 0x4ffffffe, 48);
  expect(log.text()).toBe(
    `CPUID(0x4FFFFFFF), exits=301, cycles spent in exit=${CYCLES}\nCPUID(0x4FFFFFFE), exit number 48 exits=300`,
  );
  expect(log.text(true)).toMatch(/^\[ {4}0\.000000\] CPUID/);
});

const query = (m: ReturnType<typeof machine>, leaf: number, subleaf: number): number[] => {
  m.port.registers.setGpr(0, BigInt(leaf));
  m.port.registers.setGpr(1, BigInt(subleaf));
  m.run(exit(10));
  return [0, 3, 1, 2].map((i) => m.port.registers.gpr32(i));
};

test('the CPUID exit in progress is counted, its cycles are not yet', () => {
  const m = machine();
  expect(query(m, 0x4ffffffe, 10)).toEqual([1, 0, 0, 0]);
  expect(query(m, 0x4ffffffe, 10)).toEqual([2, 0, 0, 0]);
  const [exits, , cycles] = query(m, 0x4fffffff, 0);
  expect([exits, cycles]).toEqual([3, 2 * (1500 + 1)]);
  expect(m.port.vmreadNumber(VMCS.guestRip)).toBe(0x1006);
});

test('a leaf that the layout lacks has the data of the highest basic leaf', () => {
  const m = machine();
  expect(query(m, 0x4ffffffd, 0)).toEqual(query(m, 0xd, 0));
  expect(query(m, 0xd, 0)).toEqual([7, 576, 0x340, 0]);
});

test("in timeModel 'instructions' the guest reads zero and the log the truth", () => {
  const m = machine({}, { timeModel: 'instructions' });
  expect(query(m, 0x4ffffffe, 10)).toEqual([0, 0, 0, 0]);
  expect(m.hypervisor.log.text()).toBe('CPUID(0x4FFFFFFE), exit number 10 exits=1');
  expect(m.port.extra).toBe(0);
});
