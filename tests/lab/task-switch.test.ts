/** A hardware task switch by CALL and back by IRET, exit reason 9, emulated as KVM does: the same in both modes. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bootUnder } from '../../lib/lab/both.js';
import { assemble, dword, elfKernel, exitWith, HEADER_BYTES, header, LOAD, put, word } from './guest-code.js';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmxlab-test-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const CODE_AT = LOAD + HEADER_BYTES;
const GDT_AT = 0x20_3000;
const TSS_A = 0x20_5000;
const TSS_B = 0x20_5100;
const tss = (base: number): number[] => [(base << 16) | 0x67, 0x8900 | (base >>> 16)];
const GDT = [0, 0, 0xffff, 0x00cf_9b00, 0xffff, 0x00cf_9300, ...tss(TSS_A), ...tss(TSS_B)].flatMap(dword);

/** Task B: interrupts off, flat segments, a stack of its own; EIP is filled in by the guest. */
const taskB = (): number[] => {
  const words = new Array<number>(26).fill(0);
  words[9] = 2; // EFLAGS
  words[14] = 0x9000; // ESP
  for (const i of [18, 20, 21, 22, 23]) words[i] = 0x10;
  words[19] = 8; // CS
  return words.flatMap(dword);
};

const code = assemble(CODE_AT, [
  [0xbc, ...dword(0x8000), 0x0f, 0x01, 0x15], // mov esp; lgdt
  '@gdtr',
  [0xb8, ...dword(0x10), 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xea], // ds, es, ss; jmp 8:flat
  '@flat',
  word(8),
  'flat:',
  [0x66, 0xb8, ...word(0x18), 0x0f, 0x00, 0xd8], // ltr
  [0xc7, 0x05, ...dword(TSS_B + 0x20)], // EIP of task B
  '@b',
  [0x9a, ...dword(0), ...word(0x20)], // call task B
  ...[put('A')],
  [0x0f, 0x20, 0xc0, 0xa8, 0x08, 0x74, 0xfe], // CR0.TS is set, or it hangs
  exitWith(5),
  'b:',
  put('B'),
  0xcf, // iret: NT leads back
  'gdtr:',
  [...word(GDT.length - 1), ...dword(GDT_AT)],
]);

test.each(['ept', 'shadow'] as const)('%s', async (paging) => {
  const file = join(folder, 'tasks');
  const segments = [
    { paddr: LOAD, bytes: [...header(0), ...code] },
    { paddr: GDT_AT, bytes: GDT },
    { paddr: TSS_A, bytes: new Array<number>(0x100).fill(0) },
    { paddr: TSS_B, bytes: taskB() },
  ];
  writeFileSync(file, elfKernel(32, CODE_AT, segments));
  const run = await bootUnder(paging, {
    kernel: file,
    memory: 64 << 20,
    debugExit: 0xf4,
    maxInstructions: 100_000,
  });
  expect(run).toMatchObject({ outcome: 'debug-exit', status: 11, console: 'BA' });
  expect(run.exits[9]).toBe(2);
});
