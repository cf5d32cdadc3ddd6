import { beforeAll, describe, expect, it } from 'vitest';
import type { IoAccess } from '../../../lib/cpu/core.js';
import { hardwareCpuid, hasFeature } from '../../../lib/cpu/system/cpuid.js';
import { SYSTEM_HELPERS } from '../../../lib/cpu/system/helpers.js';
import { readMsr, writeMsr } from '../../../lib/cpu/system/msrs.js';
import { FEATURE_ALIASES, FEATURES } from '../../../lib/isa/cpuid.js';
import { ROWS } from '../../../lib/isa/insns/all.js';
import { MSR, MSR_ROWS } from '../../../lib/isa/msrs.js';
import { LEAVE, S, SEG } from '../../../lib/isa/state.js';
import { AT, ENGINES, enter32, enter64, type Flat, makeFlat, SEL, useEngine } from './flat.js';

const fresh = (cpl: 0 | 3 = 0): Flat => {
  const f = makeFlat();
  enter64(f, cpl);
  return f;
};

describe.each(ENGINES)('%s', (engine) => {
  beforeAll(() => useEngine(engine));

  describe('control registers', () => {
    it.each([
      ['CR0.PG without PE', 0, 0x8000_0010n, '#13(0)'],
      ['CR0.NW without CD', 0, 0xa001_0031n, '#13(0)'],
      ['CR0 bits above 31', 0, 0x1_8001_0031n, '#13(0)'],
      ['CR0.PG off in 64-bit mode', 0, 0x31n, '#13(0)'],
      ['CR0.TS', 0, 0x8001_0039n, 'budget'],
      ['CR3 above 40 bits', 3, 1n << 40n, '#13(0)'],
      ['CR3 bit 63 without PCIDE', 3, (1n << 63n) | 0x1000n, '#13(0)'],
      ['CR3', 3, 0xab_cdef_f000n, 'budget'],
      ['CR4.PAE off in long mode', 4, 0x80n, '#13(0)'],
      ['CR4 reserved bit', 4, 0x20n | (1n << 22n), '#13(0)'],
      ['CR4.PCIDE', 4, 0x2_0020n, 'budget'],
      ['CR4.SMEP, SMAP, FSGSBASE', 4, 0x31_0020n, 'budget'],
      ['CR8 of 15', 8, 15n, 'budget'],
      ['CR8 of 16', 8, 16n, '#13(0)'],
    ] as const)('MOV to %s', (_name, cr, value, outcome) => {
      const f = fresh();
      f.cpu.setGpr(1, value);
      f.run(cr === 8 ? '44 0f 22 c1' : `0f 22 ${(0xc1 | (cr << 3)).toString(16)}`);
      expect(f.outcome()).toBe(outcome);
      const register = { 0: S.cr0, 3: S.cr3, 4: S.cr4, 8: S.cr8 }[cr];
      if (outcome === 'budget') expect(f.cpu.get64(register)).toBe(value);
      if (outcome !== 'budget' || cr === 8)
        f.run(cr === 8 ? '44 0f 20 c2' : `0f 20 ${(0xc2 | (cr << 3)).toString(16)}`);
      if (outcome !== 'budget' || cr === 8) expect(f.cpu.gpr(2)).toBe(f.cpu.get64(register));
    });

    it('PCIDE needs PCID 0 and a kept CR3 drops bit 63', () => {
      const f = fresh();
      f.cpu.set64(S.cr3, BigInt(AT.pml4) | 1n);
      f.cpu.setGpr(1, 0x2_0020n);
      f.run('0f 22 e1');
      expect(f.outcome()).toBe('#13(0)');
      f.cpu.set64(S.cr3, BigInt(AT.pml4));
      f.run('0f 22 e1');
      f.cpu.setGpr(1, (1n << 63n) | 0x2005n);
      f.run('0f 22 d9');
      expect([f.cpu.get64(S.cr3), f.mmu.log.at(-1)]).toEqual([0x2005n, 'cr3 true']);
    });

    it('long mode is entered from 32-bit code and left again', () => {
      const f = makeFlat();
      enter32(f);
      f.cpu.set64(S.efer, 0x100n);
      f.cpu.setGpr(0, 0x8000_0031n);
      f.run('0f 22 c0');
      expect(f.outcome()).toBe('#13(0)'); // no PAE
      f.cpu.set64(S.cr4, 0x20n);
      // mov cr0, eax; jmp 8:0x8200 (64-bit code)
      f.run('0f 22 c0', 1);
      expect([f.cpu.get64(S.efer), f.cpu.get32(S.mode)]).toEqual([0x500n, 32]);
      f.run([0xea, 0x00, 0x82, 0, 0, SEL.kcode, 0]);
      expect([f.cpu.rip, f.cpu.get32(S.mode)]).toEqual([0x8200n, 64]);
      // back: far return to 32-bit code, then paging off
      f.cpu.setGpr(4, 0x5f00n);
      f.put(0x5f00, 8, 0x8300, SEL.kcode32);
      f.run('48 cb');
      f.cpu.setGpr(0, 0x31n);
      f.run('0f 22 c0');
      expect([f.cpu.get64(S.efer), f.cpu.get32(S.mode), f.cpu.rip]).toEqual([0x100n, 32, 0x8303n]);
    });

    it('non-root operation sees the read shadow, and host-owned bits keep their value', () => {
      const f = fresh();
      const mask = 0xffff_fff7n;
      const guest = {
        readCr0: (real: bigint) => (real & ~mask) | (0x6000_0011n & mask),
        writeCr0: (v: bigint) => (v & ~mask) | (f.cpu.get64(S.cr0) & mask),
        movToCr: () => false,
        clts: () => false,
        lmsw: () => false,
        tscOffset: 100n,
      };
      Object.assign(f.cpu, { guest });
      f.cpu.setGpr(1, 0x6000_0019n);
      f.run('0f 22 c1 0f 20 c2', 2);
      expect([f.cpu.get64(S.cr0), f.cpu.gpr(2)]).toEqual([0x8001_0039n, 0x6000_0019n]);
      f.run('0f 06 0f 01 e3', 2);
      expect([f.cpu.get64(S.cr0), f.cpu.gpr(3) & 0xffffn]).toEqual([0x8001_0031n, 0x11n]);
    });

    it('debug registers: DR4 is DR6, fixed bits, GD', () => {
      const f = fresh();
      f.cpu.setGpr(0, 0n);
      f.run('0f 23 f0 0f 21 e1', 2);
      expect(f.cpu.gpr(1)).toBe(0xffff_0ff0n);
      f.cpu.setGpr(0, 0x2000n);
      f.run('0f 23 f8 0f 21 c1', 2);
      expect([f.outcome(), f.cpu.get64(S.faultAddress)]).toEqual(['#1', 0x2000n]);
      f.cpu.set64(S.cr4, 0x28n);
      f.run('0f 21 e1');
      expect(f.outcome()).toBe('#6');
    });
  });

  describe('MSRs', () => {
    it('every row answers with its reset value, and refuses reserved bits', () => {
      const f = fresh();
      for (const row of MSR_ROWS) {
        expect(readMsr(f.cpu, row.number), row.name).toBeDefined();
        if (row.writable !== undefined && row.writable !== (1n << 64n) - 1n)
          expect(writeMsr(f.cpu, row.number, (1n << 64n) - 1n), row.name).toBe(false);
        if (row.canonical === true) expect(writeMsr(f.cpu, row.number, 1n << 63n), row.name).toBe(false);
      }
      expect(readMsr(f.cpu, 0x1234)).toBeUndefined();
    });

    it.each([
      ['an unknown MSR', 0x1234, 0n, 0, '#13(0)'],
      ['LSTAR not canonical', MSR.lstar, 1n << 47n, 0, '#13(0)'],
      ['EFER.LME under paging', MSR.efer, 0xc01n, 0, '#13(0)'],
      ['EFER.NXE', MSR.efer, 0x501n, 0, 'budget'],
      ['PAT with a reserved type', MSR.pat, 2n, 0, '#13(0)'],
      ['KERNEL_GS_BASE', MSR.kernelGsBase, 0xffff_8880_0000_0000n, 0, 'budget'],
      ['any MSR at CPL 3', MSR.lstar, 0n, 3, '#13(0)'],
    ] as const)('WRMSR to %s', (_name, msr, value, cpl, outcome) => {
      const f = fresh(cpl);
      f.cpu.setGpr(1, BigInt(msr));
      f.cpu.setGpr(0, value & 0xffff_ffffn);
      f.cpu.setGpr(2, value >> 32n);
      f.run('0f 30');
      expect(f.outcome()).toBe(outcome);
    });

    it('RDTSC counts instructions, with the offset of a guest, and obeys CR4.TSD', () => {
      const f = fresh(3);
      f.cpu.extraCycles = 0x1_0000_0005;
      f.run('0f 31');
      expect([f.cpu.gpr(2), f.cpu.gpr(0) < 16n]).toEqual([1n, true]);
      f.cpu.set64(S.cr4, 0x24n);
      f.run('0f 31');
      expect(f.outcome()).toBe('#13(0)');
    });
  });

  describe('CPUID', () => {
    it('knows every feature that a row names', () => {
      const known = new Set(FEATURES.map((f) => f.name));
      const inside = new Set(['xsaveopt']);
      const unknown = ROWS.filter(
        (r) =>
          r.feature !== undefined &&
          !known.has(FEATURE_ALIASES[r.feature] ?? r.feature) &&
          !inside.has(r.feature),
      );
      expect(unknown.map((r) => `${r.name}: ${r.feature}`)).toEqual([]);
    });
    it('advertises what the kernel needs, and nothing that is missing', () => {
      for (const name of [
        'tsc',
        'msr',
        'pae',
        'cx8',
        'cmov',
        'syscall',
        'lm',
        'nx',
        'fsgsbase',
        'smap',
        'rdtscp',
      ])
        expect(hasFeature(name), name).toBe(true);
      const f = fresh();
      f.cpu.setGpr(0, 1n);
      f.run('0f a2');
      expect(f.cpu.gpr(0)).toBe(0x306d4n);
      expect(f.cpu.gpr(1) & ((1n << 3n) | (1n << 28n) | (1n << 31n))).toBe(0n);
      expect(hardwareCpuid(f.cpu, 0x8000_0008, 0).eax).toBe(0x3028);
      expect(hardwareCpuid(f.cpu, 0x4000_0000, 0)).toEqual(hardwareCpuid(f.cpu, 0xd, 0));
    });
  });

  describe('other system instructions', () => {
    it('every helper that a row calls exists', () => {
      const names = [
        'jmpFar',
        'callFar',
        'retFar',
        'iret',
        'softwareInterrupt',
        'vmxInstruction',
        'inputString',
        'outputString',
        'storeSelector',
        'loadTableExit',
        'monitorWait',
      ];
      for (const name of names) expect(SYSTEM_HELPERS[name], name).toBeTypeOf('function');
    });

    it('LGDT and SGDT, and UMIP', () => {
      const f = fresh();
      f.put(0x7800, 2, 0x7f);
      f.put(0x7802, 8, 0xffff_8000_0000_1000n);
      f.run('0f 01 14 25 00 78 00 00 0f 01 04 25 20 78 00 00', 2);
      expect([f.cpu.get64(S.gdtrBase), f.get(0x7820, 2), f.get(0x7822, 8)]).toEqual([
        0xffff_8000_0000_1000n,
        0x7fn,
        0xffff_8000_0000_1000n,
      ]);
      f.put(0x7802, 8, 1n << 47n);
      f.run('0f 01 14 25 00 78 00 00');
      expect(f.outcome()).toBe('#13(0)');
      const g = fresh(3);
      g.run('0f 00 c8');
      expect([g.outcome(), g.cpu.gpr(0)]).toEqual(['budget', BigInt(SEL.tss)]);
      g.cpu.set64(S.cr4, 0x820n);
      g.run('0f 00 c8');
      expect(g.outcome()).toBe('#13(0)');
    });

    it('STI blocks for one instruction only when IF was 0; CLI and POPF obey IOPL', () => {
      const f = fresh();
      f.run('fb');
      expect(f.cpu.get32(S.interruptibility)).toBe(0);
      f.run('fa');
      // somebody watches: the interpreter then leaves behind STI
      f.cpu.set32(S.attention, 1);
      f.run('fb');
      expect([f.cpu.get32(S.interruptibility), f.cpu.get32(S.leave)]).toEqual([1, LEAVE.attention]);
      const g = fresh(3);
      g.run('fa');
      expect(g.outcome()).toBe('#13(0)');
      // push 0x203002; popf; pushf; pop rax: IF and IOPL stay, ID goes in
      g.run('68 02 30 20 00 9d 9c 58', 4);
      expect(g.cpu.gpr(0)).toBe(0x20_0202n);
    });

    it('HLT stops, and STAC and CLAC change AC at CPL 0 only', () => {
      const f = fresh();
      f.run('f4 90', 2);
      // the engine has left behind HLT
      expect([f.cpu.get32(S.activity), f.cpu.rip]).toEqual([1, BigInt(AT.code + 1)]);
      f.cpu.set32(S.activity, 0);
      f.run('0f 01 cb');
      expect(f.cpu.get32(S.eflags) & 0x4_0000).toBe(0x4_0000);
      const user = makeFlat();
      enter64(user, 3);
      user.run('0f 01 cb');
      expect(user.outcome()).toBe('#6');
    });

    it('INVLPG and INVPCID reach the MMU with checked operands', () => {
      const f = fresh();
      f.cpu.setGpr(0, 0xffff_8000_0000_5000n);
      f.run('0f 01 38');
      expect(f.mmu.log.at(-1)).toBe('invlpg 4294934528:20480');
      f.put(0x7800, 8, 5, 0x4000);
      f.cpu.setGpr(0, 0x7800n);
      f.cpu.setGpr(1, 0n);
      f.run('66 0f 38 82 08');
      expect(f.outcome()).toBe('#13(0)'); // PCID 5 without CR4.PCIDE
      f.cpu.set64(S.cr4, 0x2_0020n);
      f.run('66 0f 38 82 08');
      expect(f.mmu.log.at(-1)).toBe('invpcid 0 5 16384');
      f.cpu.setGpr(1, 4n);
      f.run('66 0f 38 82 08');
      expect(f.outcome()).toBe('#13(0)');
    });

    it('gives the instruction information of a memory operand', () => {
      const f = fresh();
      let seen: unknown[] = [];
      Object.assign(f.cpu, {
        guest: {
          tscOffset: 0n,
          instruction: (...args: unknown[]) => {
            seen = args;
            f.cpu.leaveForExit();
            return true;
          },
        },
      });
      f.run('66 0f 38 82 4c 98 10'); // invpcid rcx, [rax + rbx * 4 + 16]
      expect(f.outcome()).toBe('exit');
      // scale 4, 64-bit addresses, DS, index RBX, base RAX, register RCX
      expect(seen).toEqual([58, 16n, 2 | (2 << 7) | (SEG.ds << 15) | (3 << 18) | (1 << 28)]);
      f.run('0f 01 c1');
      expect(seen[0]).toBe(18);
    });

    it('IN and OUT: the permission map of the TSS, then VMX, then the port', () => {
      const f = fresh(3);
      f.put(AT.tss + 0x66, 2, 0x68);
      f.put(AT.tss + 0x68 + 8, 1, 0b1000);
      const writes: string[] = [];
      f.cpu.ports = { read: (p, s) => p * 16 + s, write: (p, s, v) => writes.push(`${p} ${s} ${v}`) };
      f.cpu.setGpr(0, 0xffff_ffff_ffff_ffffn);
      f.run('e4 42 e5 44', 2);
      expect(f.cpu.gpr(0)).toBe(0x444n);
      f.run('e6 43');
      expect(f.outcome()).toBe('#13(0)');
      f.run('66 e7 42');
      expect(f.outcome()).toBe('#13(0)');
      enter64(f);
      f.put(0x7800, 1, 1, 2, 3);
      f.cpu.setGpr(6, 0x7800n);
      f.cpu.setGpr(1, 3n);
      f.cpu.setGpr(2, 0x3f8n);
      f.run('f3 6e', 3);
      expect([writes, f.cpu.gpr(1), f.cpu.gpr(6)]).toEqual([
        ['1016 1 1', '1016 1 2', '1016 1 3'],
        0n,
        0x7803n,
      ]);
      const seen: IoAccess[] = [];
      Object.assign(f.cpu, {
        guest: {
          tscOffset: 0n,
          io: (a: IoAccess) => {
            seen.push(a);
            f.cpu.leaveForExit();
            return true;
          },
        },
      });
      f.cpu.setGpr(7, 0x7900n);
      f.cpu.setGpr(1, 3n);
      f.run('f3 66 6d', 3);
      expect(f.outcome()).toBe('exit');
      expect(seen).toEqual([
        {
          port: 0x3f8,
          size: 2,
          input: true,
          string: true,
          rep: true,
          immediate: false,
          linear: 0x7900n,
          segment: SEG.es,
          addressSize: 64,
        },
      ]);
      expect([f.cpu.gpr(1), f.cpu.gpr(7)]).toEqual([3n, 0x7900n]);
    });
  });
});
