/** What the hardware vectors cannot reach: privileged state images, random numbers, RDPID, cache lines, VEX by mode. */
import { beforeAll, describe, expect, it } from 'vitest';
import type { NonRoot } from '../../../lib/cpu/core.js';
import { readMsr, writeMsr } from '../../../lib/cpu/system/msrs.js';
import { MSR } from '../../../lib/isa/msrs.js';
import { CR4, S } from '../../../lib/isa/state.js';
import { ENGINES, enter32, enter64, type Flat, makeFlat, useEngine } from '../system/flat.js';

/** Where RBX points. */
const AREA = 0xc000;
const FPU_BITS = CR4.pae | CR4.osfxsr | CR4.osxmmexcpt;

const fresh = (options: { cpl?: 0 | 3; cr4?: number } = {}): Flat => {
  const f = makeFlat();
  enter64(f, options.cpl ?? 0);
  f.cpu.set64(S.cr4, BigInt(options.cr4 ?? FPU_BITS | CR4.osxsave));
  f.cpu.set64(S.xcr0, 3n);
  f.cpu.set32(S.mxcsr, 0x1f80);
  f.cpu.setGpr(3, BigInt(AREA));
  f.cpu.setGpr(0, 3n);
  return f;
};
const XSAVES = '0f c7 2b';
const XSAVEC = '0f c7 23';
const XRSTORS = '0f c7 1b';
const XRSTOR = '0f ae 2b';
const COMPACTED = 1n << 63n;

describe.each(ENGINES)('%s', (engine) => {
  beforeAll(() => useEngine(engine));

  describe('XSAVES and XRSTORS', () => {
    it.each([
      ['XSAVES at CPL 3', XSAVES, { cpl: 3 }, '#13(0)'],
      ['XRSTORS at CPL 3', XRSTORS, { cpl: 3 }, '#13(0)'],
      ['XSAVES without OSXSAVE', XSAVES, { cr4: FPU_BITS }, '#6'],
      ['XSAVEC without OSXSAVE', XSAVEC, { cr4: FPU_BITS }, '#6'],
      ['XSAVEC at CPL 3', XSAVEC, { cpl: 3 }, 'budget'],
      ['XRSTORS of the standard format', XRSTORS, {}, '#13(0)'],
      ['XRSTOR of the standard format', XRSTOR, {}, 'budget'],
    ] as const)('%s', (_name, code, options, outcome) => {
      const f = fresh(options);
      f.run(code);
      expect(f.outcome()).toBe(outcome);
    });

    it('keep the state in the compacted format', () => {
      const f = fresh();
      f.cpu.set64(S.xmm + 16, 0x1234n);
      f.cpu.set32(S.mxcsr, 0x1fa0);
      f.cpu.set32(S.fcw, 0x27f);
      f.run(XSAVES);
      expect([f.get(AREA + 512, 8), f.get(AREA + 520, 8)]).toEqual([3n, COMPACTED | 3n]);
      f.cpu.set64(S.xmm + 16, 0n);
      f.cpu.set32(S.mxcsr, 0x1f80);
      f.cpu.set32(S.fcw, 0x37f);
      f.run(XRSTORS);
      expect([f.outcome(), f.cpu.get64(S.xmm + 16), f.cpu.get32(S.mxcsr), f.cpu.get32(S.fcw)]).toEqual([
        'budget',
        0x1234n,
        0x1fa0,
        0x27f,
      ]);
    });
    it('initialise what the image has not, with MXCSR', () => {
      const f = fresh();
      f.cpu.set64(S.xmm + 16, 0x1234n);
      f.cpu.set32(S.mxcsr, 0x1fa0);
      f.put(AREA + 520, 8, COMPACTED | 3n);
      f.run(XRSTORS);
      expect([f.cpu.get64(S.xmm + 16), f.cpu.get32(S.mxcsr)]).toEqual([0n, 0x1f80]);
    });
    it.each([
      ['a component that is not enabled', 520, COMPACTED | 4n],
      ['a component that the format has not', 512, 4n],
      ['a reserved byte', 560, 1n],
    ])('refuse %s', (_name, at, value) => {
      const f = fresh();
      f.put(AREA + 520, 8, COMPACTED | 3n);
      f.put(AREA + at, 8, value);
      f.run(XRSTORS);
      expect(f.outcome()).toBe('#13(0)');
    });
    it('leave to the hypervisor: exits 63 and 64', () => {
      for (const [code, reason] of [
        [XSAVES, 63],
        [XRSTORS, 64],
      ] as const) {
        const f = fresh();
        const asked: number[] = [];
        f.cpu.guest = {
          instruction: (n: number) => {
            asked.push(n);
            f.cpu.leaveForExit();
            return true;
          },
        } as unknown as NonRoot;
        f.run(code);
        expect([asked, f.outcome()]).toEqual([[reason], 'exit']);
      }
    });
    it('XGETBV gives the components in use with ECX 1', () => {
      const f = fresh();
      f.cpu.setGpr(1, 1n);
      f.run('0f 01 d0');
      expect([f.cpu.gpr(0), f.cpu.gpr(2)]).toEqual([3n, 0n]);
      f.cpu.setGpr(1, 2n);
      f.run('0f 01 d0');
      expect(f.outcome()).toBe('#13(0)');
    });
    it('IA32_XSS has no components', () => {
      const { cpu } = fresh();
      expect([readMsr(cpu, MSR.xss), writeMsr(cpu, MSR.xss, 0n), writeMsr(cpu, MSR.xss, 1n << 8n)]).toEqual([
        0n,
        true,
        false,
      ]);
    });
  });

  describe('random numbers', () => {
    const numbers = (): bigint[] => {
      const f = fresh();
      // RDRAND RAX, RDSEED RDX, RDRAND ECX, RDRAND SI
      f.cpu.setGpr(6, 0xffff_ffff_ffff_ffffn);
      f.cpu.setGpr(1, 0xffff_ffff_ffff_ffffn);
      f.run('48 0f c7 f0 48 0f c7 fa 0f c7 f1 66 0f c7 f6', 4);
      return [f.cpu.gpr(0), f.cpu.gpr(2), f.cpu.gpr(1), f.cpu.gpr(6)];
    };
    it('come from the seed, in the width of the register', () => {
      const [a, b, c, d] = numbers();
      expect(numbers()).toEqual([a, b, c, d]);
      expect(new Set([a, b]).size).toBe(2);
      expect([c >> 32n, d >> 16n]).toEqual([0n, 0xffff_ffff_ffffn]);
      expect([a, b]).toEqual([0xe220_a839_7b1d_cdafn, 0x6e78_9e6a_a1b9_65f4n]);
    });
    it('set CF and clear the other flags', () => {
      const f = fresh();
      f.run('48 39 c0 48 0f c7 f0 9c', 3);
      expect(f.get(Number(f.cpu.gpr(4)), 8) & 0x8d5n).toBe(1n);
    });
    it('have no memory form', () => {
      const f = fresh();
      f.run('0f c7 33');
      expect(f.outcome()).toBe('#6');
    });
  });

  it('RDPID reads IA32_TSC_AUX, and is there under VMX only with RDTSCP', () => {
    const f = fresh();
    f.cpu.set64(S.tscAux, 0x1_0000n);
    f.cpu.setGpr(0, 0xffff_ffff_ffff_ffffn);
    f.run('f3 0f c7 f8');
    expect(f.cpu.gpr(0)).toBe(0x1_0000n);
    f.cpu.guest = { allowsRdpid: () => false } as unknown as NonRoot;
    f.run('f3 0f c7 f8');
    expect(f.outcome()).toBe('#6');
  });

  it('CLFLUSHOPT and CLWB translate their address', () => {
    for (const code of ['66 0f ae 3b', '66 0f ae 33']) {
      const f = fresh();
      f.run(code);
      expect(f.outcome()).toBe('budget');
      f.cpu.setGpr(3, 0x4000_0000n);
      f.run(code);
      expect(f.outcome()).toBe('#14(0)');
    }
  });

  describe('VEX', () => {
    // ANDN EAX, ECX, EDX; with VEX.W
    const ANDN = 'c4 e2 70 f2 c2';
    const ANDN_W = 'c4 e2 f0 f2 c2';
    const values = (f: Flat): Flat => {
      f.cpu.setGpr(1, 0xff00_ff00_0000_00ffn);
      f.cpu.setGpr(2, 0xffff_ffff_ffff_ffffn);
      return f;
    };
    it('W chooses the operand size in 64-bit mode', () => {
      const f = values(fresh());
      f.run(ANDN);
      expect(f.cpu.gpr(0)).toBe(0xffff_ff00n);
      f.run(ANDN_W);
      expect(f.cpu.gpr(0)).toBe(0x00ff_00ff_ffff_ff00n);
    });
    it('W is ignored in 32-bit mode', () => {
      const f = makeFlat();
      enter32(f);
      values(f).run(ANDN_W);
      expect(f.cpu.gpr(0)).toBe(0xffff_ff00n);
    });
    it('does not exist in real mode', () => {
      const f = makeFlat();
      f.cpu.set64(S.segBase + 8, 0n);
      f.cpu.set64(S.rip, 0x500n);
      f.run(ANDN);
      expect(f.outcome()).toBe('#6');
    });
  });
});
