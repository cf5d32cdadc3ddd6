/** Checks before FPU instructions, state images, and pending exceptions. */
import { describe, expect, it } from 'vitest';
import { FPU_HELPERS } from '../../../lib/cpu/fpu/helpers.js';
import { decode } from '../../../lib/isa/decoder.js';
import { FORMS } from '../../../lib/isa/opcodes.js';
import { CR0, CR4, S } from '../../../lib/isa/state.js';
import { AT, createMachine } from './machine.js';

const engines = ['reference', 'interpreter'] as const;
const given = (code: readonly number[], memory: readonly number[] = []): Uint8Array => {
  const bytes = new Uint8Array(AT.size);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 0x37f, true);
  view.setUint32(24, 0x1f80, true);
  bytes.set([code.length, ...code], AT.code);
  bytes.set(memory, AT.memory);
  return bytes;
};
/** Vector of the fault that an instruction raised, or -1. */
const faultOf = (out: Uint8Array): number =>
  out[AT.code] === 0 ? -1 : out[AT.code] === 8 ? 19 : out[AT.code] - 128;

const FADD = [0xd8, 0xc1];
const FNSTSW = [0xdf, 0xe0];
const PADDB_MMX = [0x0f, 0xfc, 0xca];
const PADDB = [0x66, 0x0f, 0xfc, 0xca];
const MOVAPS_UNALIGNED = [0x0f, 0x28, 0x4f, 0x08];

describe.each(engines)('checks on the %s engine', (engine) => {
  const { cpu, run } = createMachine(engine);
  const cr0 = cpu.get32(S.cr0);
  const cr4 = cpu.get32(S.cr4);
  // the harness's own FXRSTOR and FXSAVE fault too under TS and EM, which leaves the state as it was
  it.each([
    ['x87, TS', FADD, CR0.ts, 0, 7],
    ['x87, EM', FADD, CR0.em, 0, 7],
    ['x87 that does not wait, TS', FNSTSW, CR0.ts, 0, 7],
    ['WAIT, TS', [0x9b], CR0.ts, 0, -1],
    ['WAIT, TS and MP', [0x9b], CR0.ts | CR0.mp, 0, 7],
    ['MMX, TS', PADDB_MMX, CR0.ts, 0, 7],
    ['MMX, EM', PADDB_MMX, CR0.em, 0, 6],
    ['SSE, TS', PADDB, CR0.ts, 0, 7],
    ['SSE, EM', PADDB, CR0.em, 0, 6],
    ['SSE without OSFXSR', PADDB, 0, CR4.osfxsr, 6],
    ['FXSAVE, TS', [0x0f, 0xae, 0x07], CR0.ts, 0, 7],
    ['FXSAVE, not aligned', [0x0f, 0xae, 0x47, 0x08], 0, 0, 13],
    ['MOVAPS, not aligned', MOVAPS_UNALIGNED, 0, 0, 13],
    ['MOVUPS, not aligned', [0x0f, 0x10, 0x4f, 0x08], 0, 0, -1],
    ['XSAVE without OSXSAVE', [0x0f, 0xae, 0x27], 0, 0, 6],
  ] as const)('%s', (_name, code, set, clear, vector) => {
    cpu.set32(S.cr0, cr0 | set);
    cpu.set32(S.cr4, cr4 & ~clear);
    expect(faultOf(run(given(code)))).toBe(vector);
    cpu.set32(S.cr0, cr0);
    cpu.set32(S.cr4, cr4);
  });

  it('raises #MF at the next waiting instruction only', () => {
    const pending = (code: readonly number[]): number => {
      const c = given(code);
      // invalid-operation flagged and unmasked
      c.set([0x7e, 0x03, 0x81, 0x80], 0);
      return faultOf(run(c));
    };
    expect(pending(FADD)).toBe(16);
    expect(pending([0x9b])).toBe(16);
    expect(pending(PADDB_MMX)).toBe(16);
    expect(pending(FNSTSW)).toBe(-1);
    expect(pending([0xdb, 0xe2])).toBe(-1);
    expect(pending(PADDB)).toBe(-1);
  });

  it('raises #UD for an unmasked SSE exception without OSXMMEXCPT, and refuses reserved MXCSR bits', () => {
    const c = given([0xf2, 0x0f, 0x5e, 0xca]);
    new DataView(c.buffer).setUint32(24, 0, true);
    expect(faultOf(run(c))).toBe(19);
    cpu.set32(S.cr4, cr4 & ~CR4.osxmmexcpt);
    expect(faultOf(run(c))).toBe(6);
    cpu.set32(S.cr4, cr4);
    expect(faultOf(run(given([0x0f, 0xae, 0x17], [0, 0, 1, 0])))).toBe(13);
    const loaded = run(given([0x0f, 0xae, 0x17], [0x80, 0x9f, 0, 0]));
    expect(new DataView(loaded.buffer).getUint32(24, true)).toBe(0x9f80);
  });

  it('keeps the x87 state through FNSAVE and FRSTOR', () => {
    const c = given([0xdd, 0x37]);
    const view = new DataView(c.buffer);
    view.setUint16(2, 0x3000, true);
    c[4] = 0x5a;
    for (let i = 0; i < 8; i++) {
      view.setBigUint64(32 + 16 * i, (BigInt(i) << 60n) | 0x8000_0000_0000_0001n, true);
      view.setUint16(40 + 16 * i, 0x4000 + i, true);
    }
    const saved = run(c);
    expect([...saved.subarray(0, 5)]).toEqual([0x7f, 0x03, 0, 0, 0]);
    // R1, R3, R4 and R6 were not empty
    expect(new DataView(saved.buffer).getUint32(AT.memory + 8, true)).toBe(0xffff_cc33 >>> 0);
    const back = run(given([0xdd, 0x27], [...saved.subarray(AT.memory, AT.memory + 108)]));
    expect(back.subarray(0, 5)).toEqual(c.subarray(0, 5));
    expect(back.subarray(32, 160)).toEqual(c.subarray(32, 160));
  });
});

describe('XSAVE', () => {
  const { cpu } = createMachine('reference');
  const { ram } = cpu;
  const AREA = 0x8000;
  const call = (helper: string, components: number): boolean => {
    cpu.set64(S.arg, BigInt(AREA));
    cpu.set64(S.arg + 8, 64n);
    cpu.set64(S.arg + 16, BigInt(components));
    cpu.set64(S.arg + 24, 0n);
    return FPU_HELPERS[helper](cpu);
  };
  cpu.set32(S.cr4, cpu.get32(S.cr4) | CR4.osxsave);

  it('saves the components that are asked for and enabled', () => {
    cpu.set32(S.mxcsr, 0x1f80);
    cpu.set64(S.xmm, 0x1122n);
    ram.u8.fill(0, ram.base + AREA, ram.base + AREA + 1024);
    expect(call('xsave', 6)).toBe(true);
    expect(ram.read64(AREA + 512)).toBe(2n);
    expect(ram.read64(AREA + 160)).toBe(0x1122n);
    expect(ram.read16(AREA)).toBe(0);
  });
  it('initialises components that the image lacks', () => {
    cpu.set32(S.fcw, 0x300);
    expect(call('xrstor', 3)).toBe(true);
    expect(cpu.get32(S.fcw)).toBe(0x37f);
    expect(cpu.get64(S.xmm)).toBe(0x1122n);
  });
  it.each([
    ['a component that XCR0 has not', 512, 4n],
    ['a compacted image', 520, 1n << 63n],
    ['a reserved header byte', 528, 1n],
    ['reserved MXCSR bits', 24, 0x1_0000n],
  ])('refuses %s', (_name, at, value) => {
    const old = ram.read64(AREA + at);
    ram.write64(AREA + at, value);
    expect(call('xrstor', 3)).toBe(false);
    expect(cpu.get32(S.faultVector)).toBe(13);
    ram.write64(AREA + at, old);
  });
});

it('approximates reciprocals within 1.5 × 2^-12', () => {
  const { run } = createMachine('reference');
  for (const [opcode, exact] of [
    [0x53, (x: number) => 1 / x],
    [0x52, (x: number) => 1 / Math.sqrt(x)],
  ] as const) {
    for (const x of [1, 3, 0.1, 1e20, 7e-20, 12345.678]) {
      const c = given([0x0f, opcode, 0xca]);
      new DataView(c.buffer).setFloat32(160 + 32, x, true);
      const r = new DataView(run(c).buffer).getFloat32(160 + 16, true);
      expect(Math.abs(r / exact(x) - 1)).toBeLessThan(1.5 * 2 ** -12);
    }
  }
});

it('has a helper for every call of its rows', () => {
  // every FPU form decodes and runs once without an unknown helper
  const { run } = createMachine('reference');
  const units = FORMS.filter((f) => f.row.unit !== undefined || f.row.feature === 'fpu');
  expect(units.length).toBeGreaterThan(300);
  for (let modrm = 0xc0; modrm < 0x100; modrm++) {
    for (let esc = 0xd8; esc <= 0xdf; esc++) {
      const insn = decode(Uint8Array.of(esc, modrm), 0, 2, 64);
      if (typeof insn !== 'string') expect(() => run(given([esc, modrm]))).not.toThrow();
    }
  }
});
