import { beforeAll, describe, expect, it } from 'vitest';
import type { PendingEvent } from '../../../lib/cpu/core.js';
import { readRflags } from '../../../lib/cpu/rflags.js';
import { deliverEvent } from '../../../lib/cpu/system/events.js';
import { LEAVE, S, SEG } from '../../../lib/isa/state.js';
import { AT, descriptor, ENGINES, enter64, type Flat, gate64, makeFlat, SEL, useEngine } from './flat.js';

const event = (vector: number, more: Partial<PendingEvent> = {}): PendingEvent => ({
  vector,
  type: 3,
  code: -1,
  address: 0n,
  length: 0,
  injected: false,
  ...more,
});
const frame = (f: Flat, n: number): bigint[] =>
  Array.from({ length: n }, (_, i) => f.get(Number(f.cpu.gpr(4)) + 8 * i, 8));
const fresh = (cpl: 0 | 3 = 0): Flat => {
  const f = makeFlat();
  enter64(f, cpl);
  return f;
};

describe.each(ENGINES)('%s', (engine) => {
  beforeAll(() => useEngine(engine));

  describe('delivery in 64-bit mode', () => {
    it('delivers a page fault from user mode and IRETQ goes back', () => {
      const f = fresh(3);
      gate64(f, 14, AT.handler);
      f.cpu.setGpr(4, 0x9001n);
      expect(deliverEvent(f.cpu, event(14, { code: 7, address: 0xffff_8000_dead_b000n }), 0x8000n)).toBe(
        true,
      );
      expect(f.cpu.nextRip).toBe(BigInt(AT.handler));
      expect(f.cpu.get64(S.cr2)).toBe(0xffff_8000_dead_b000n);
      expect(f.cpu.get32(S.cpl)).toBe(0);
      expect(f.cpu.get32(S.segSel + 4 * SEG.ss)).toBe(0);
      expect(f.cpu.get32(S.eflags) & 0x200).toBe(0);
      // error code, RIP, CS, RFLAGS with RF, RSP, SS
      expect(frame(f, 6)).toEqual([7n, 0x8000n, BigInt(SEL.ucode), 0x1_0202n, 0x9001n, BigInt(SEL.udata)]);
      expect(f.cpu.gpr(4)).toBe(BigInt(AT.kernelStack - 48));
      f.cpu.set64(S.rip, f.cpu.nextRip);
      f.run('48 83 c4 08 48 cf', 2);
      expect(f.cpu.rip).toBe(0x8000n);
      expect([f.cpu.get32(S.cpl), f.cpu.gpr(4), f.cpu.get32(S.mode)]).toEqual([3, 0x9001n, 64]);
      expect(f.cpu.get32(S.segAttr + 4 * SEG.ss)).toBe(0xc0f3);
      // RF is dropped where no breakpoint could ask for it
      expect(readRflags(f.cpu)).toBe(0x202);
    });

    it('aligns the stack, uses IST stacks, and leaves IF alone for trap gates', () => {
      const f = fresh();
      gate64(f, 3, AT.handler, { type: 15 });
      f.cpu.setGpr(4, 0x5ff3n);
      expect(deliverEvent(f.cpu, event(3, { type: 6, length: 1 }), 0x8001n)).toBe(true);
      expect(f.cpu.gpr(4)).toBe(0x5ff0n - 40n);
      expect(f.cpu.get32(S.eflags) & 0x200).toBe(0x200);
      expect(frame(f, 5)).toEqual([0x8001n, 8n, 0x202n, 0x5ff3n, 0x10n]);
      gate64(f, 2, AT.handler, { ist: 1 });
      expect(deliverEvent(f.cpu, event(2, { type: 2 }), 0x8001n)).toBe(true);
      expect(f.cpu.gpr(4)).toBe(BigInt(AT.istStack - 40));
      expect(f.cpu.get32(S.interruptibility)).toBe(8);
      expect(f.cpu.get32(S.segSel + 4 * SEG.ss)).toBe(SEL.kdata);
    });

    // what goes wrong at first, with which gate; the #GP or #DF handler's frame shows the error code
    it.each([
      ['INT n through a DPL 0 gate', 3, (f: Flat) => gate64(f, 0x80, AT.handler), 0x80, 13, 0x402n],
      ['an absent gate', 0, (f: Flat) => gate64(f, 0x21, AT.handler, { present: false }), 0x21, 11, 0x10an],
      ['a gate of a wrong type', 0, (f: Flat) => gate64(f, 0x21, AT.handler, { type: 5 }), 0x21, 13, 0x10an],
      [
        'a 32-bit code segment',
        0,
        (f: Flat) => gate64(f, 0x21, AT.handler, { selector: SEL.kcode32 }),
        0x21,
        13,
        BigInt(SEL.kcode32),
      ],
      ['a null code segment', 0, (f: Flat) => gate64(f, 0x21, AT.handler, { selector: 0 }), 0x21, 13, 0n],
    ] as const)('%s', (_name, cpl, set, vector, second, code) => {
      const f = fresh(cpl);
      gate64(f, second, 0xb000);
      set(f);
      f.run([0xcd, vector]);
      expect(f.cpu.rip).toBe(0xb000n);
      // the pushed RIP is that of the INT instruction; EXT is clear for software interrupts
      expect(frame(f, 2)).toEqual([code, BigInt(AT.code)]);
    });

    it('sets EXT for faults in the delivery of hardware events', () => {
      const f = fresh();
      gate64(f, 13, 0xb000);
      expect(deliverEvent(f.cpu, event(0x40, { type: 0 }), 0x8123n)).toBe(true);
      expect(frame(f, 2)).toEqual([0x40n * 8n + 3n, 0x8123n]);
    });

    it('combines contributory faults and page faults into #DF, and a fault in #DF into shutdown', () => {
      const f = fresh();
      gate64(f, 8, 0xb000);
      expect(deliverEvent(f.cpu, event(13, { code: 0 }), 0x8000n)).toBe(true);
      expect(f.cpu.nextRip).toBe(0xb000n);
      expect(frame(f, 2)).toEqual([0n, 0x8000n]);
      const g = fresh();
      expect(deliverEvent(g.cpu, event(14, { code: 0 }), 0x8000n)).toBe(false);
      expect([g.cpu.get32(S.activity), g.cpu.get32(S.leave)]).toEqual([2, LEAVE.stop]);
      expect(g.cpu.gpr(4)).toBe(BigInt(AT.kernelStack));
      // #UD is benign: the fault of its delivery is delivered by itself
      const h = fresh();
      gate64(h, 13, 0xb000);
      expect(deliverEvent(h.cpu, event(6), 0x8000n)).toBe(true);
      expect(frame(h, 1)).toEqual([6n * 8n + 3n]);
    });

    it('asks VMX first, and keeps the event in delivery for the IDT-vectoring fields', () => {
      const f = fresh();
      const seen: string[] = [];
      const guest = {
        exception: (e: PendingEvent) => {
          seen.push(`${e.vector} in ${f.cpu.delivering?.vector}`);
          if (e.vector === 14) f.cpu.leaveForExit();
          return e.vector === 14;
        },
        tripleFault: () => false,
        tscOffset: 0n,
      };
      Object.assign(f.cpu, { guest });
      f.put(AT.idt + 16 * 6, 8, 0);
      gate64(f, 6, AT.handler);
      f.cpu.setGpr(4, 0x40_0000n);
      expect(deliverEvent(f.cpu, event(6), 0x8000n)).toBe(false);
      expect(seen).toEqual(['6 in undefined', '14 in 6']);
      expect(f.cpu.delivering?.vector).toBe(6);
      expect(f.cpu.get64(S.cr2)).toBe(0n);
    });
  });

  describe('transfers in 64-bit mode', () => {
    it('SYSCALL and SYSRET', () => {
      const f = fresh(3);
      f.cpu.set64(S.star, (BigInt(SEL.ucode32) << 48n) | (BigInt(SEL.kcode) << 32n));
      f.cpu.set64(S.lstar, 0xa000n);
      f.cpu.set64(S.sfmask, 0x4_7700n);
      f.run('0f 05');
      expect([f.cpu.rip, f.cpu.gpr(1), f.cpu.gpr(11)]).toEqual([0xa000n, 0x8002n, 0x202n]);
      expect([f.cpu.get32(S.cpl), f.cpu.get32(S.eflags)]).toEqual([0, 2]);
      expect([f.cpu.get32(S.segSel + 4), f.cpu.get32(S.segSel + 8)]).toEqual([8, 0x10]);
      f.run('48 0f 07');
      expect([f.cpu.rip, f.cpu.get32(S.cpl), f.cpu.get32(S.eflags), f.cpu.get32(S.mode)]).toEqual([
        0x8002n,
        3,
        0x202,
        64,
      ]);
      expect([f.cpu.get32(S.segSel + 4), f.cpu.get32(S.segSel + 8)]).toEqual([SEL.ucode, SEL.udata]);
      expect(f.cpu.get32(S.segAttr + 4)).toBe(0xa0fb);
      enter64(f);
      f.cpu.setGpr(1, 0x8000_0000_0000n);
      f.run('48 0f 07');
      expect(f.outcome()).toBe('#13(0)');
      f.cpu.set64(S.efer, 0xd00n);
      f.run('0f 05');
      expect(f.outcome()).toBe('#6');
    });

    it('IRETQ to compatibility mode, and an interrupt from there', () => {
      const f = fresh();
      f.cpu.setGpr(4, 0x5f00n);
      f.put(0x5f00, 8, 0x8100, SEL.ucode32, 0x202, 0x9000, SEL.udata);
      f.run('48 cf');
      expect([f.cpu.get32(S.mode), f.cpu.get32(S.cpl), f.cpu.get32(S.stackSize), f.cpu.rip]).toEqual([
        32,
        3,
        32,
        0x8100n,
      ]);
      gate64(f, 0x80, AT.handler, { dpl: 3 });
      f.run('cd 80');
      expect([f.cpu.get32(S.mode), f.cpu.get32(S.cpl)]).toEqual([64, 0]);
      expect(frame(f, 5)).toEqual([0x8102n, BigInt(SEL.ucode32), 0x202n, 0x9000n, BigInt(SEL.udata)]);
    });

    it.each([
      ['CS null', [0x8100, 0, 2, 0x9000, SEL.udata], '#13(0)'],
      ['CS not code', [0x8100, SEL.udata, 2, 0x9000, SEL.udata], '#13(20)'],
      ['SS null at CPL 3', [0x8100, SEL.ucode, 2, 0x9000, 3], '#13(0)'],
      ['SS of another level', [0x8100, SEL.ucode, 2, 0x9000, SEL.kdata], '#13(10)'],
      ['RIP not canonical', [0x8000_0000_0000n, SEL.ucode, 2, 0x9000, SEL.udata], '#13(0)'],
      ['SS null at CPL 0', [0x8100, SEL.kcode, 2, 0x9000, 0], 'budget'],
    ] as const)('IRETQ with %s', (_name, values, outcome) => {
      const f = fresh();
      f.cpu.setGpr(4, 0x5f00n);
      f.put(0x5f00, 8, ...values);
      f.run('48 cf');
      expect(f.outcome()).toBe(outcome);
      if (outcome !== 'budget')
        expect([f.cpu.gpr(4), f.cpu.rip, f.cpu.get32(S.cpl)]).toEqual([0x5f00n, BigInt(AT.code), 0]);
    });

    it('far return, far jump through memory, and a call gate with a stack switch', () => {
      const f = fresh();
      f.cpu.setGpr(4, 0x5f00n);
      f.put(0x5f00, 8, 0x8200, SEL.kcode);
      f.run('48 cb');
      expect([f.cpu.rip, f.cpu.gpr(4), f.cpu.get32(S.mode)]).toEqual([0x8200n, 0x5f10n, 64]);
      f.put(0x7800, 4, 0x8300);
      f.put(0x7804, 2, SEL.kcode32);
      f.run('ff 2c 25 00 78 00 00');
      expect([f.cpu.rip, f.cpu.get32(S.mode), f.cpu.get32(S.segSel + 4)]).toEqual([0x8300n, 32, SEL.kcode32]);
      const g = fresh(3);
      g.put(AT.gdt + SEL.gate, 4, 0xa000 | (SEL.kcode << 16), 0xec00, 0, 0);
      g.put(0x7804, 2, SEL.gate | 3);
      g.run('ff 1c 25 00 78 00 00');
      expect([g.cpu.rip, g.cpu.get32(S.cpl), g.cpu.gpr(4)]).toEqual([
        0xa000n,
        0,
        BigInt(AT.kernelStack - 32),
      ]);
      expect(frame(g, 4)).toEqual([0x8007n, BigInt(SEL.ucode), 0x9000n, BigInt(SEL.udata)]);
      g.run('48 cb');
      expect([g.cpu.rip, g.cpu.get32(S.cpl), g.cpu.gpr(4)]).toEqual([0x8007n, 3, 0x9000n]);
    });
  });

  describe('segment registers in 64-bit mode', () => {
    it.each([
      ['DS null', 'd8', 0, 0, 'budget'],
      ['DS data', 'd8', SEL.udata, 3, 'budget'],
      ['DS more privileged', 'd8', SEL.kdata, 3, '#13(10)'],
      ['DS beyond the table', 'd8', 0x198, 0, '#13(198)'],
      ['DS in an unusable LDT', 'd8', 0x0c, 0, '#13(c)'],
      ['DS a TSS', 'd8', SEL.tss, 0, '#13(30)'],
      ['DS absent', 'd8', SEL.absent, 3, '#11(50)'],
      ['SS null at CPL 0', 'd0', 0, 0, 'budget'],
      ['SS null at CPL 3', 'd0', 3, 3, '#13(0)'],
      ['SS read-only', 'd0', SEL.kread, 0, '#13(58)'],
      ['CS', 'c8', SEL.kcode, 0, '#6'],
    ] as const)('MOV to %s', (_name, modrm, selector, cpl, outcome) => {
      const f = fresh(cpl);
      f.cpu.setGpr(0, BigInt(selector));
      f.run(`8e ${modrm}`);
      // MOV to SS may also leave for its shadow
      expect(f.outcome().replace('attention', 'budget')).toBe(outcome);
    });

    it('sets the accessed bit, and MOV SS blocks interrupts', () => {
      const f = fresh();
      f.cpu.setGpr(0, BigInt(SEL.kread));
      f.run('8e e0');
      expect(f.get(AT.gdt + SEL.kread + 5, 1)).toBe(0x91n);
      f.cpu.setGpr(0, BigInt(SEL.kdata));
      // somebody watches: the interpreter then leaves behind MOV SS
      f.cpu.set32(S.attention, 1);
      f.run('8e d0');
      expect(f.cpu.get32(S.interruptibility)).toBe(2);
      expect(f.cpu.get32(S.leave)).toBe(LEAVE.attention);
    });

    it('LTR makes the TSS busy and reads 16 bytes', () => {
      const f = fresh();
      f.put(AT.gdt + SEL.tss, 8, descriptor(AT.tss, 0xff, 0x89, 0), 0xffff_8880n);
      f.cpu.setGpr(0, BigInt(SEL.tss));
      f.run('0f 00 d8');
      expect(f.cpu.get64(S.segBase + 8 * SEG.tr)).toBe(0xffff_8880_0000_3000n);
      expect(f.get(AT.gdt + SEL.tss + 5, 1)).toBe(0x8bn);
      expect(f.cpu.get32(S.segAttr + 4 * SEG.tr)).toBe(0x8b);
      f.run('0f 00 d8');
      expect(f.outcome()).toBe('#13(30)');
    });

    it('LAR, LSL, VERR, VERW', () => {
      const f = fresh(3);
      f.cpu.setGpr(0, BigInt(SEL.udata));
      f.run('0f 02 c8 0f 03 d0 0f 00 e0', 3);
      expect([f.cpu.gpr(1), f.cpu.gpr(2), readRflags(f.cpu) & 0x40]).toEqual([0xcff300n, 0xffff_ffffn, 0x40]);
      f.cpu.setGpr(0, BigInt(SEL.kdata));
      f.run('0f 02 c8');
      expect([f.cpu.gpr(1), readRflags(f.cpu) & 0x40]).toEqual([0xcff300n, 0]);
      f.cpu.setGpr(0, BigInt(SEL.ucode));
      f.run('0f 00 e8');
      expect(readRflags(f.cpu) & 0x40).toBe(0);
    });

    it('FSGSBASE and SWAPGS', () => {
      const f = fresh();
      f.cpu.setGpr(0, 0x1234n);
      f.run('f3 48 0f ae d0');
      expect(f.outcome()).toBe('#6');
      f.cpu.set64(S.cr4, 0x1_0020n);
      f.cpu.set64(S.kernelGsBase, 0xffff_8000_0000_0000n);
      f.run('f3 48 0f ae d8 0f 01 f8 f3 48 0f ae c9', 3);
      expect([f.cpu.get64(S.segBase + 40), f.cpu.get64(S.kernelGsBase), f.cpu.gpr(1)]).toEqual([
        0xffff_8000_0000_0000n,
        0x1234n,
        0xffff_8000_0000_0000n,
      ]);
      f.cpu.setGpr(0, 0x8000_0000_0000n);
      f.run('f3 48 0f ae d0');
      expect(f.outcome()).toBe('#13(0)');
    });
  });
});
