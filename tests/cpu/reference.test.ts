/** The reference engine: fetch, budget, REP, faults with the state of the instruction's start, and page look-ups. */
import { describe, expect, test } from 'vitest';
import type { HelperTable } from '../../lib/cpu/helpers.js';
import { createReference } from '../../lib/cpu/reference.js';
import { readRflags } from '../../lib/cpu/rflags.js';
import { LEAVE, S, SEG } from '../../lib/isa/state.js';
import { Bench, NX, P, type Setting, U, W } from '../memory/fixture.js';

const CODE = 0x40_0000n;
const DATA = 0x60_0000n;
const STACK = 0x70_0000n;

/** A processor with code at CODE (two pages), data at DATA (two pages) and one page of stack below STACK. */
const machine = (code: string, setting: Setting = {}, helpers: HelperTable = {}) => {
  const bench = new Bench(setting);
  const { cpu, ram } = bench;
  const root = bench.page();
  const frames = { code: 0x10_0000, data: 0x20_0000, stack: 0x30_0000 };
  for (const page of [0, 0x1000]) {
    bench.map(root, CODE + BigInt(page), frames.code + page, P | W | U);
    bench.map(root, DATA + BigInt(page), frames.data + page, P | W | U);
  }
  bench.map(root, STACK - 0x1000n, frames.stack, P | W | U);
  bench.cr3(root);
  const bytes = Uint8Array.from(code.match(/[0-9a-f]{2}/g) ?? [], (h) => Number.parseInt(h, 16));
  for (let s = 0; s < 6; s++) {
    cpu.set32(S.segLimit + 4 * s, 0xffff_ffff);
    cpu.set32(S.segAttr + 4 * s, s === SEG.cs ? 0xc09b : 0xc093);
  }
  cpu.set32(S.stackSize, cpu.get32(S.mode));
  const engine = createReference(cpu, helpers);
  const start = (at: bigint): void => {
    ram.writeBytes(frames.code + Number(at - CODE), bytes);
    cpu.set64(S.rip, at);
    cpu.setGpr(4, STACK);
  };
  start(CODE);
  const run = (budget: number): number => {
    cpu.set32(S.budget, budget);
    cpu.sliceBudget = budget;
    engine.run();
    return cpu.get32(S.leave);
  };
  return {
    bench,
    cpu,
    ram,
    root,
    frames,
    start,
    run,
    used: () => cpu.sliceBudget - (cpu.get32(S.budget) | 0),
  };
};

test('runs to the end of the budget, exact to the instruction', () => {
  // mov eax, 5; add eax, eax; dec eax; jnz back to dec
  const m = machine('b805000000 01c0 ffc8 75fc');
  expect(m.run(2)).toBe(LEAVE.budget);
  expect([m.cpu.gpr(0), m.cpu.rip]).toEqual([10n, CODE + 7n]);
  expect(m.run(20)).toBe(LEAVE.budget);
  expect([m.cpu.gpr(0), m.cpu.rip]).toEqual([0n, CODE + 11n]);
  expect(m.run(0)).toBe(LEAVE.budget);
});

describe('REP', () => {
  test('costs an instruction an iteration and stops between two', () => {
    // rep stosb; nop
    const m = machine('f3aa 90');
    m.cpu.setGpr(1, 10n);
    m.cpu.setGpr(7, DATA);
    m.cpu.setGpr(0, 0x5an);
    expect(m.run(4)).toBe(LEAVE.budget);
    expect([m.cpu.gpr(1), m.cpu.gpr(7), m.cpu.rip]).toEqual([6n, DATA + 4n, CODE]);
    expect(m.run(7)).toBe(LEAVE.budget);
    expect([m.cpu.gpr(1), m.cpu.gpr(7), m.cpu.rip]).toEqual([0n, DATA + 10n, CODE + 3n]);
    expect([...m.ram.view(m.frames.data, 11)]).toEqual([...Array(10).fill(0x5a), 0]);
  });
  test('of no iterations costs one', () => {
    const m = machine('f3aa 90');
    expect(m.run(1)).toBe(LEAVE.budget);
    expect(m.cpu.rip).toBe(CODE + 2n);
  });
  test('that faults keeps the iterations done', () => {
    const m = machine('f3ab');
    m.cpu.setGpr(1, 10n);
    m.cpu.setGpr(7, DATA + 0x1ff8n);
    expect(m.run(100)).toBe(LEAVE.fault);
    expect([m.cpu.gpr(1), m.used(), m.cpu.rip]).toEqual([8n, 2, CODE]);
    expect(m.cpu.get64(S.faultAddress)).toBe(DATA + 0x2000n);
  });
  test('REPE CMPSB ends with the first difference', () => {
    const m = machine('f3a6');
    m.ram.writeBytes(m.frames.data, Uint8Array.of(1, 2, 3, 4));
    m.ram.writeBytes(m.frames.data + 64, Uint8Array.of(1, 2, 9, 4));
    m.cpu.setGpr(1, 4n);
    m.cpu.setGpr(6, DATA);
    m.cpu.setGpr(7, DATA + 64n);
    m.run(3);
    expect([m.cpu.gpr(1), m.cpu.rip, readRflags(m.cpu) & 0x41]).toEqual([1n, CODE + 2n, 1]);
  });
});

describe('faults leave the state of the start', () => {
  test.each([
    // add [rdi], eax to a page that is not there
    ['#PF', '0107', 14, 2],
    // push rax below the stack page
    ['push', '50', 14, 2],
    ['#UD', '0f0b', 6, -1],
    // div ecx by zero
    ['#DE', 'f7f1', 0, -1],
    // mov rax, [rbx] non-canonical; mov rax, [rbp]
    ['#GP', '488b03', 13, 0],
    ['#SS', '488b4500', 12, 0],
    // jmp rbx
    ['#GP at a jump', 'ffe3', 13, 0],
    // call rbx
    ['#GP at a call', 'ffd3', 13, 0],
    // movaps xmm0, [rdx + 8]
    ['#GP for alignment', '0f284208', 13, 0],
    ['16 bytes', '666666666666666666666666666666 90', 13, 0],
  ])('%s', (_, code, vector, error) => {
    const m = machine(code, {}, { checkSse: () => true });
    const { cpu } = m;
    cpu.setGpr(7, DATA + 0x2000n);
    cpu.setGpr(0, 7n);
    cpu.setGpr(3, 0x8000_0000_0000n);
    cpu.setGpr(5, 0x8000_0000_0000n);
    cpu.setGpr(2, DATA);
    cpu.setGpr(4, vector === 14 && code === '50' ? STACK - 0x1000n : STACK);
    const before = Array.from({ length: 16 }, (_, i) => cpu.gpr(i));
    const flags = readRflags(cpu);
    expect(m.run(10)).toBe(LEAVE.fault);
    expect([cpu.get32(S.faultVector), cpu.get32(S.faultCode) | 0]).toEqual([vector, error]);
    expect(Array.from({ length: 16 }, (_, i) => cpu.gpr(i))).toEqual(before);
    expect([readRflags(cpu), cpu.rip, m.used()]).toEqual([flags, CODE, 0]);
  });
  test('an instruction that crosses into an absent page', () => {
    const m = machine('b811223344');
    const { cpu, bench } = m;
    m.start(CODE + 0xffen);
    m.run(1);
    expect(cpu.gpr(0)).toBe(0x4433_2211n);
    cpu.setGpr(0, 0n);
    bench.map(m.root, CODE + 0x1000n, m.frames.code, P | NX | U);
    bench.mmu.flushAll();
    m.start(CODE + 0xffen);
    expect(m.run(1)).toBe(LEAVE.fault);
    expect([cpu.get32(S.faultCode), cpu.get64(S.faultAddress), cpu.rip, cpu.gpr(0)]).toEqual([
      0x11,
      CODE + 0x1000n,
      CODE + 0xffen,
      0n,
    ]);
  });
  test('privileged rows', () => {
    const m = machine('f4', { cpl: 3 });
    expect(m.run(1)).toBe(LEAVE.fault);
    expect([m.cpu.get32(S.faultVector), m.cpu.get32(S.faultCode)]).toEqual([13, 0]);
  });
});

test('code pages are looked up when RIP leaves the page or a block ends', () => {
  // nop; jmp to the next page; there: nop, add [rdi], al; nop
  const m = machine('90 e9fa0f0000');
  m.ram.writeBytes(m.frames.code + 0x1000, Uint8Array.of(0x90, 0x00, 0x07, 0x90));
  m.cpu.setGpr(7, DATA);
  m.run(2);
  expect(m.bench.walks()).toEqual([1, 4]);
  m.run(3);
  // the second code page and the data page
  expect(m.bench.walks()).toEqual([2, 8]);
  m.start(CODE);
  m.run(5);
  expect(m.bench.walks()).toEqual([0, 0]);
});

test('code that changes itself is fetched anew', () => {
  // mov byte [rip + 1], 0x41; mov bl, 0
  const m = machine('c6050100000041 b300');
  m.run(2);
  expect(m.cpu.gpr(3)).toBe(0x41n);
});

test('a page-crossing read-modify-write', () => {
  const m = machine('480107');
  m.cpu.setGpr(7, DATA + 0xffdn);
  m.cpu.setGpr(0, 0x0101_0101_0101_0101n);
  m.run(1);
  m.run(0);
  expect([...m.ram.view(m.frames.data + 0xffd, 8)]).toEqual(Array(8).fill(1));
});

test('helpers of block-ending rows see the next RIP and may change it; attention makes the engine return', () => {
  const seen: bigint[] = [];
  const m = machine(
    '90 0f30 90',
    {},
    {
      wrmsr: (cpu) => {
        seen.push(cpu.rip, cpu.nextRip, BigInt(cpu.retired()));
        cpu.nextRip = CODE + 0x100n;
        return true;
      },
    },
  );
  m.cpu.set32(S.attention, 1);
  expect(m.run(10)).toBe(LEAVE.attention);
  expect(seen).toEqual([CODE + 1n, CODE + 3n, 1n]);
  expect([m.cpu.rip, m.used()]).toEqual([CODE + 0x100n, 2]);
});

describe('outside 64-bit mode', () => {
  test('segments have bases and limits, RIP wraps', () => {
    // mov eax, [0x10]; mov eax, fs:[0x20]
    const m = machine('a110000000 64a120000000', { paging: '32', nxe: false });
    const { cpu } = m;
    const directory = m.bench.page();
    m.ram.write32(directory, 0x83);
    m.bench.set({ paging: '32', pse: true, nxe: false });
    m.bench.cr3(directory);
    cpu.set64(S.segBase + 8 * SEG.cs, BigInt(m.frames.code));
    cpu.set64(S.segBase + 8 * SEG.ds, BigInt(m.frames.data));
    cpu.set32(S.segLimit + 4 * SEG.fs, 0x22);
    cpu.set64(S.rip, 0n);
    m.ram.write32(m.frames.data + 0x10, 0x1234);
    expect(m.run(2)).toBe(LEAVE.fault);
    expect([cpu.gpr(0), cpu.rip, cpu.get32(S.faultVector), cpu.get32(S.faultCode)]).toEqual([
      0x1234n,
      5n,
      13,
      0,
    ]);
    cpu.set32(S.segLimit + 4 * SEG.cs, 7);
    cpu.set32(S.segLimit + 4 * SEG.fs, 0x23);
    expect(m.run(1)).toBe(LEAVE.fault);
    expect(cpu.rip).toBe(5n);
  });
});
