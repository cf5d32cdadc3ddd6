import { beforeAll, describe, expect, it } from 'vitest';
import { readRflags } from '../../../lib/cpu/rflags.js';
import { deliverEvent } from '../../../lib/cpu/system/events.js';
import { segmentLinear } from '../../../lib/cpu/system/segments.js';
import { S, SEG } from '../../../lib/isa/state.js';
import {
  AT,
  descriptor,
  ENGINES,
  enter32,
  type Flat,
  gate32,
  makeFlat,
  SEL,
  selectors,
  useEngine,
} from './flat.js';

const fresh = (cpl: 0 | 3 = 0): Flat => {
  const f = makeFlat();
  enter32(f, cpl);
  return f;
};
const frame = (f: Flat, n: number, size: 2 | 4 = 4, base = 0): bigint[] =>
  Array.from({ length: n }, (_, i) => f.get(base + Number(f.cpu.gpr(4)) + size * i, size));

describe.each(ENGINES)('%s', (engine) => {
  beforeAll(() => useEngine(engine));

  describe('32-bit protected mode', () => {
    it('delivers to CPL 0 with a stack switch, and IRET returns', () => {
      const f = fresh(3);
      gate32(f, 0x80, AT.handler, { type: 15, dpl: 3 });
      f.run('cd 80');
      expect([f.cpu.rip, f.cpu.get32(S.cpl)]).toEqual([BigInt(AT.handler), 0]);
      expect(frame(f, 5)).toEqual([0x8002n, BigInt(SEL.ucode32), 0x202n, 0x9000n, BigInt(SEL.udata)]);
      expect(f.cpu.get32(S.segSel + 4 * SEG.ss)).toBe(SEL.kdata);
      // kernel data in DS is taken away on the way out
      f.cpu.setGpr(0, BigInt(SEL.kdata));
      f.run('8e d8');
      f.run('cf');
      expect([f.cpu.rip, f.cpu.get32(S.cpl), f.cpu.gpr(4)]).toEqual([0x8002n, 3, 0x9000n]);
      expect(selectors(f.cpu)).toBe(`23 1b 23 0 23 23`);
    });

    it('delivers at the same level, with an error code, and through a 16-bit gate', () => {
      const f = fresh();
      gate32(f, 13, AT.handler);
      f.cpu.setGpr(0, 0x198n);
      f.run('8e d8');
      expect(f.outcome()).toBe('#13(198)');
      expect(
        deliverEvent(
          f.cpu,
          { vector: 13, type: 3, code: 0x198, address: 0n, length: 0, injected: false },
          f.cpu.rip,
        ),
      ).toBe(true);
      expect(frame(f, 4)).toEqual([0x198n, BigInt(AT.code), BigInt(SEL.kcode32), 0x1_0202n]);
      const g = fresh();
      gate32(g, 3, AT.handler, { type: 6 });
      g.run('cc');
      expect(frame(g, 3, 2)).toEqual([0x8001n, BigInt(SEL.kcode32), 0x202n]);
      g.run('66 cf');
      expect([g.cpu.rip, g.cpu.gpr(4)]).toEqual([0x8001n, BigInt(AT.kernelStack)]);
    });

    it('a call gate copies parameters, RET n releases them on both stacks', () => {
      const f = fresh(3);
      f.put(AT.gdt + SEL.gate, 4, 0xa000 | (SEL.kcode32 << 16), 0xec02);
      f.cpu.setGpr(4, 0x8ff8n);
      f.put(0x8ff8, 4, 0x11, 0x22);
      f.run([0x9a, 0, 0, 0, 0, SEL.gate | 3, 0]);
      expect([f.cpu.rip, f.cpu.get32(S.cpl), f.cpu.gpr(4)]).toEqual([
        0xa000n,
        0,
        BigInt(AT.kernelStack - 24),
      ]);
      expect(frame(f, 6)).toEqual([0x8007n, BigInt(SEL.ucode32), 0x11n, 0x22n, 0x8ff8n, BigInt(SEL.udata)]);
      f.run('ca 08 00');
      expect([f.cpu.rip, f.cpu.get32(S.cpl), f.cpu.gpr(4)]).toEqual([0x8007n, 3, 0x9000n]);
    });

    it.each([
      ['within', 0xfffcn, 4, false, 0x1_fffcn],
      ['over the limit', 0xfffdn, 4, false, undefined],
      ['expand-down below its limit', 0xfffn, 1, true, undefined],
      ['expand-down above its limit', 0x1000n, 4, true, 0x1_1000n],
    ] as const)('segment limits: %s', (_name, offset, bytes, down, linear) => {
      const f = fresh();
      f.put(AT.gdt + SEL.kread, 8, descriptor(0x1_0000, down ? 0xfff : 0xffff, down ? 0x97 : 0x93, 4));
      f.cpu.setGpr(0, BigInt(SEL.kread));
      f.run('8e d8');
      expect(segmentLinear(f.cpu, SEG.ds, offset, bytes, true)).toBe(linear);
      if (linear === undefined) expect(f.outcome()).toBe('#13(0)');
    });

    it('checks access through CS, read-only and null segments', () => {
      const f = fresh();
      f.put(AT.gdt + SEL.absent - 3, 8, descriptor(0, 0xfffff, 0x99, 0xc));
      expect(segmentLinear(f.cpu, SEG.cs, 0x8000n, 1, false)).toBe(0x8000n);
      expect(segmentLinear(f.cpu, SEG.cs, 0x8000n, 1, true)).toBeUndefined();
      f.cpu.setGpr(0, BigInt(SEL.kread));
      f.cpu.setGpr(1, 0n);
      f.run('8e d8 8e c1', 2);
      expect(segmentLinear(f.cpu, SEG.ds, 0x8000n, 1, false)).toBe(0x8000n);
      expect(segmentLinear(f.cpu, SEG.ds, 0x8000n, 1, true)).toBeUndefined();
      expect(segmentLinear(f.cpu, SEG.es, 0x8000n, 1, false)).toBeUndefined();
      expect(f.outcome()).toBe('#13(0)');
    });

    it('LES, LSS, BOUND, ARPL, INTO', () => {
      const f = fresh();
      f.put(0x7800, 4, 0x5000, SEL.data16);
      f.run('c4 05 00 78 00 00 0f b2 25 00 78 00 00', 2);
      expect([f.cpu.gpr(0), f.cpu.gpr(4), f.cpu.get32(S.stackSize)]).toEqual([0x5000n, 0x5000n, 16]);
      f.put(0x7800, 4, -1, 5);
      f.cpu.setGpr(0, 6n);
      f.run('62 05 00 78 00 00');
      expect(f.outcome()).toBe('#5');
      f.cpu.setGpr(0, 0xffff_ffffn);
      f.run('62 05 00 78 00 00');
      expect(f.outcome()).toBe('budget');
      f.cpu.setGpr(0, 0x10n);
      f.cpu.setGpr(1, 0x3n);
      f.run('63 c8');
      expect([f.cpu.gpr(0) & 0xffffn, readRflags(f.cpu) & 0x40]).toEqual([0x13n, 0x40]);
    });

    it('SYSENTER and SYSEXIT', () => {
      const f = fresh(3);
      f.run('0f 34');
      expect(f.outcome()).toBe('#13(0)');
      f.cpu.set64(S.sysenterCs, BigInt(SEL.kcode));
      f.cpu.set64(S.sysenterEsp, 0x5000n);
      f.cpu.set64(S.sysenterEip, 0xa000n);
      f.run('0f 34');
      expect([f.cpu.rip, f.cpu.gpr(4), f.cpu.get32(S.cpl), f.cpu.get32(S.eflags)]).toEqual([
        0xa000n,
        0x5000n,
        0,
        2,
      ]);
      f.cpu.setGpr(1, 0x9000n);
      f.cpu.setGpr(2, 0x8100n);
      f.run('0f 35');
      expect([f.cpu.rip, f.cpu.gpr(4), f.cpu.get32(S.cpl), f.cpu.get32(S.mode)]).toEqual([
        0x8100n,
        0x9000n,
        3,
        32,
      ]);
      expect(f.cpu.get32(S.segSel + 4)).toBe(0x1b);
    });

    it('switches tasks by a far call and back by IRET', () => {
      const f = fresh();
      const at = 0x4000;
      f.put(AT.gdt + SEL.tss, 8, descriptor(AT.tss, 0x67, 0x8b, 0));
      f.put(AT.gdt + SEL.task, 8, descriptor(at, 0x67, 0x89, 0));
      f.put(
        at + 0x20,
        4,
        0xa000,
        2,
        1,
        2,
        3,
        4,
        0x5800,
        6,
        7,
        8,
        SEL.kdata,
        SEL.kcode32,
        SEL.kdata,
        SEL.kdata,
        0,
        0,
        0,
      );
      f.cpu.setGpr(3, 0x77n);
      f.run([0x9a, 0, 0, 0, 0, SEL.task, 0]);
      expect([f.cpu.rip, f.cpu.gpr(0), f.cpu.gpr(4), f.cpu.get32(S.segSel + 4 * SEG.tr)]).toEqual([
        0xa000n,
        1n,
        0x5800n,
        SEL.task,
      ]);
      expect([f.get(at, 2), f.get(AT.gdt + SEL.task + 5, 1), f.get(AT.gdt + SEL.tss + 5, 1)]).toEqual([
        BigInt(SEL.tss),
        0x8bn,
        0x8bn,
      ]);
      expect([f.cpu.get32(S.eflags) & 0x4000, f.cpu.get32(S.cr0) & 8, f.get(AT.tss + 0x34, 4)]).toEqual([
        0x4000,
        8,
        0x77n,
      ]);
      f.run('cf');
      expect([f.cpu.rip, f.cpu.gpr(3), f.cpu.get32(S.segSel + 4 * SEG.tr), f.cpu.get32(S.eflags)]).toEqual([
        0x8007n,
        0x77n,
        SEL.tss,
        0x202,
      ]);
      expect(f.get(AT.gdt + SEL.task + 5, 1)).toBe(0x89n);
    });
  });

  describe('real mode', () => {
    const real = (): Flat => {
      const f = makeFlat();
      const { cpu } = f;
      cpu.set64(S.segBase + 8 * SEG.cs, 0n);
      cpu.set32(S.segSel + 4 * SEG.cs, 0);
      cpu.set64(S.rip, BigInt(AT.code));
      cpu.set32(S.idtrLimit, 0x3ff);
      cpu.setGpr(4, 0xffff_7000n);
      return f;
    };
    it('resets to the reset vector', () => {
      const f = makeFlat();
      expect([f.cpu.get64(S.segBase + 8), f.cpu.rip, f.cpu.get32(S.mode), f.cpu.get64(S.cr0)]).toEqual([
        0xffff_0000n,
        0xfff0n,
        16,
        0x6000_0010n,
      ]);
    });
    it('INT and IRET use the vector table at 0 and keep the upper half of ESP', () => {
      const f = real();
      f.put(0x21 * 4, 2, 0xa000, 0x20);
      f.cpu.set32(S.eflags, 0x202);
      f.run('cd 21');
      expect([f.cpu.rip, f.cpu.get64(S.segBase + 8), f.cpu.gpr(4)]).toEqual([0xa000n, 0x200n, 0xffff_6ffan]);
      expect([f.get(0x6ffa, 2), f.get(0x6ffc, 2), f.get(0x6ffe, 2), f.cpu.get32(S.eflags)]).toEqual([
        0x8002n,
        0n,
        0x202n,
        2,
      ]);
      f.run('cf');
      expect([f.cpu.rip, f.cpu.gpr(4), f.cpu.get32(S.eflags)]).toEqual([0x8002n, 0xffff_7000n, 0x202]);
    });
    it('switches to protected mode and back, keeping limits (unreal mode)', () => {
      const f = real();
      f.cpu.set64(S.gdtrBase, BigInt(AT.gdt));
      f.cpu.set32(S.gdtrLimit, 0x8f);
      f.cpu.setGpr(0, 0x11n);
      f.run('0f 22 c0'); // mov cr0, eax
      f.cpu.setGpr(3, BigInt(SEL.kdata));
      f.run('8e db');
      f.cpu.setGpr(0, 0x10n);
      f.run('0f 22 c0');
      f.cpu.setGpr(3, 0x100n);
      f.run('8e db');
      expect([f.cpu.get64(S.segBase + 24), f.cpu.get32(S.segLimit + 12)]).toEqual([0x1000n, 0xffff_ffff]);
      f.run([0xea, 0x00, 0x01, 0x00, 0x08]);
      expect([f.cpu.rip, f.cpu.get64(S.segBase + 8)]).toEqual([0x100n, 0x8000n]);
      f.run('0f 00 c8');
      expect(f.outcome()).toBe('#6');
    });
  });

  describe('virtual-8086 mode', () => {
    const v86 = (iopl: number): Flat => {
      const f = fresh();
      f.cpu.setGpr(4, 0x5f00n);
      // EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS
      f.put(0x5f00, 4, 0x10, 0x800, 0x2_0202 | (iopl << 12), 0x9000, 0, 1, 2, 3, 4);
      f.run('cf');
      return f;
    };
    it('is entered by IRET from CPL 0', () => {
      const f = v86(0);
      expect([f.cpu.get32(S.cpl), f.cpu.get32(S.mode), f.cpu.rip, f.cpu.get64(S.segBase + 8)]).toEqual([
        3,
        16,
        0x10n,
        0x8000n,
      ]);
      expect(selectors(f.cpu)).toBe('1 800 0 2 3 4');
      expect(f.cpu.get32(S.segAttr + 4 * SEG.ds)).toBe(0xf3);
    });
    it.each(['fa', 'fb', '9c', '9d', 'cf', 'cd 20'])('%s needs IOPL 3', (code) => {
      const f = v86(0);
      f.run(code);
      expect(f.outcome()).toBe('#13(0)');
    });
    it('an interrupt saves the data segments and clears them; IRET restores', () => {
      const f = v86(3);
      gate32(f, 0x20, AT.handler, { dpl: 3 });
      f.run('cd 20');
      expect(frame(f, 9)).toEqual([0x12n, 0x800n, 0x2_3202n, 0x9000n, 0n, 1n, 2n, 3n, 4n]);
      expect([f.cpu.get32(S.cpl), f.cpu.get32(S.mode), f.cpu.get32(S.eflags)]).toEqual([0, 32, 0x3002]);
      expect(selectors(f.cpu)).toBe('0 40 10 0 0 0');
      f.run('cf');
      expect([f.cpu.rip, selectors(f.cpu), f.cpu.get32(S.eflags)]).toEqual([
        0x12n,
        '1 800 0 2 3 4',
        0x2_3202,
      ]);
    });
  });
});
