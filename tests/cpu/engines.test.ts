/**
 * Both engines on the same random programs: registers, flags, memory, faults, budget and walk counts must be equal.
 *
 * Programs are random valid instructions over identity-mapped memory of which some pages are missing or read-only, with
 * branches, strings, stack operations, page-crossing accesses and code that overwrites itself. They run in slices whose
 * sizes are random too.
 */
import { Code, Decoder, DecoderOptions, FlowControl } from 'iced-x86';
import { describe, expect, test } from 'vitest';
import { type Random, seededRandom } from '../../lib/base/random.js';
import { readRflags, writeRflags } from '../../lib/cpu/rflags.js';
import { LEAVE, S, SEG } from '../../lib/isa/state.js';
import { createHardware, ENGINES, type EngineName, type Hardware } from '../../lib/vmx/hardware.js';

const MEMORY = 0x40_0000;
const TABLES = 0x10_0000;
const CODE = 0x1_0000;
/** Pages of data; the third is read-only, the sixth missing. */
const DATA = 0x2_0000;
const DATA_PAGES = 8;

const machine = (engine: EngineName): Hardware => {
  const hw = createHardware(MEMORY, engine);
  const { cpu, ram } = hw;
  ram.write64(TABLES, BigInt(TABLES + 0x1000) | 7n);
  ram.write64(TABLES + 0x1000, BigInt(TABLES + 0x2000) | 7n);
  ram.write64(TABLES + 0x2000, BigInt(TABLES + 0x3000) | 7n);
  for (let page = 0; page < 512; page++) {
    const present = page !== (DATA >> 12) + 5;
    const writable = page !== (DATA >> 12) + 2;
    ram.write64(TABLES + 0x3000 + 8 * page, BigInt(page * 4096) | (present ? 5n : 4n) | (writable ? 2n : 0n));
  }
  cpu.set64(S.cr0, 0x8001_0033n);
  cpu.set64(S.cr3, BigInt(TABLES));
  cpu.set64(S.cr4, 0x620n);
  cpu.set64(S.efer, 0xd00n);
  cpu.set32(S.mode, 64);
  cpu.set32(S.stackSize, 64);
  cpu.set32(S.cpl, 3);
  cpu.set32(S.segAttr + 4 * SEG.cs, 0xa0fb);
  for (const seg of [SEG.ss, SEG.ds, SEG.es]) cpu.set32(S.segAttr + 4 * seg, 0xc0f3);
  for (let s = 0; s < 8; s++) cpu.set64(S.segBase + 8 * s, 0n);
  cpu.mmu.contextChanged();
  cpu.mmu.flushAll();
  return hw;
};

/** Instructions that end the test machine, need a system around them, or have no defined result. */
const EXCLUDED =
  /^(fx|xsave|xrstor|sys|in|out|cpuid|int|iret|hlt|cli|sti|popf|lgdt|lidt|lldt|ltr|sgdt|sidt|sldt|str_|smsw|lmsw|clts|invl|invp|wbinvd|invd|rd|wr|swapgs|v|mov_.*(cr|dr|sreg)|mov_(cr|dr|sreg)|pop_?w?_?[defgs]s|pop[defgs]s|lss|lfs|lgs|ver|lar|lsl|mwait|monitor|ud|getsec|rsm|stac|clac|xget|xset|enc|skinit|stgi|clgi|jmp_.*(m16|ptr)|call_.*(m16|ptr)|retf|loop|j[er]?cxz|tpause|umwait|umonitor|pconfig|serialize|f(sin|cos|ptan|patan|yl2x|2xm1|ld|st|[a-z]))/;

const instruction = (rnd: Random): Uint8Array => {
  for (;;) {
    const raw = Uint8Array.from({ length: 15 }, () => rnd.below(256));
    if (rnd.below(2) === 0) raw[0] = [0x48, 0x66, 0x41, 0x44][rnd.below(4)];
    const decoder = new Decoder(64, raw, DecoderOptions.None);
    const i = decoder.decode();
    const name = Code[i.code].toLowerCase();
    const plain = i.flowControl === FlowControl.Next || i.flowControl === FlowControl.ConditionalBranch;
    const good =
      !i.isInvalid &&
      plain &&
      !i.isPrivileged &&
      !EXCLUDED.test(name) &&
      !(i.hasRepPrefix && !/[bwdq]_m/.test(name));
    const length = i.length;
    i.free();
    decoder.free();
    if (good) return raw.slice(0, length);
  }
};

/** Code bytes: a run of instructions, conditional branches made short and forward. */
const program = (rnd: Random): Uint8Array => {
  const parts: Uint8Array[] = [];
  for (let n = 0; n < 12; n++) {
    if (rnd.below(6) === 0) parts.push(Uint8Array.of(0x70 | rnd.below(16), rnd.below(12)));
    else {
      const bytes = instruction(rnd);
      // near conditional branches of random distance leave the program
      if (bytes.some((b, i) => b === 0x0f && (bytes[i + 1] & 0xf0) === 0x80) || (bytes[0] & 0xf0) === 0x70)
        continue;
      parts.push(bytes);
    }
  }
  return Uint8Array.from(parts.flatMap((p) => [...p]));
};

interface Start {
  readonly code: Uint8Array;
  readonly at: number;
  readonly gpr: readonly bigint[];
  readonly flags: number;
  readonly data: Uint8Array;
  readonly slices: readonly number[];
}

const start = (rnd: Random): Start => {
  const gpr = Array.from({ length: 16 }, () => {
    switch (rnd.below(4)) {
      case 0:
        return BigInt(rnd.below(70));
      case 1:
        return (BigInt(rnd.u32()) << 32n) | BigInt(rnd.u32());
      default:
        return BigInt(DATA + rnd.below(DATA_PAGES * 4096));
    }
  });
  return {
    code: program(rnd),
    // now and then across the end of a page
    at: rnd.below(3) === 0 ? CODE + 4096 - rnd.below(40) : CODE + rnd.below(2000),
    gpr,
    flags: rnd.u32() & 0xcd5,
    data: Uint8Array.from({ length: DATA_PAGES * 4096 }, (_, i) => (i * 37 + (i >> 8)) & 0xff),
    slices: Array.from({ length: 12 }, () => 1 + rnd.below(9)),
  };
};

const summary = (hw: Hardware, s: Start): string => {
  const { cpu, ram, mmu } = hw;
  for (let page = 0; page < 2; page++) ram.writeBytes(CODE + page * 4096, new Uint8Array(4096).fill(0x90));
  ram.writeBytes(s.at, s.code);
  ram.writeBytes(DATA, s.data);
  s.gpr.forEach((v, i) => {
    cpu.setGpr(i, v);
  });
  writeRflags(cpu, s.flags);
  cpu.set64(S.rip, BigInt(s.at));
  cpu.set32(S.activity, 0);
  for (let i = 0; i < 32; i++) cpu.set64(S.xmm + 8 * i, (s.gpr[i & 15] * 0x9e37n) & 0xffff_ffff_ffff_ffffn);
  const out: string[] = [];
  for (const budget of s.slices) {
    cpu.set32(S.budget, budget);
    cpu.sliceBudget = budget;
    cpu.set32(S.leave, LEAVE.none);
    hw.processor.engine.run();
    const leave = cpu.get32(S.leave);
    out.push(
      `${leave === LEAVE.fault ? `fault ${cpu.get32(S.faultVector)} ${cpu.get32(S.faultCode) | 0} ${cpu.get64(S.faultAddress).toString(16)}` : leave}`,
    );
    out.push(`budget ${cpu.get32(S.budget) | 0} rip ${cpu.rip.toString(16)}`);
    if (leave === LEAVE.fault) break;
  }
  for (let i = 0; i < 16; i++) out.push(cpu.gpr(i).toString(16));
  out.push(readRflags(cpu).toString(16));
  for (let i = 0; i < 32; i++) out.push(cpu.get64(S.xmm + 8 * i).toString(16));
  let sum = 0;
  const view = ram.view(CODE, 0x2_0000);
  for (let i = 0; i < view.length; i++) sum = (Math.imul(sum, 31) + view[i]) | 0;
  out.push(`memory ${sum}`, `walks ${mmu.walks1d} ${mmu.references1d}`);
  return out.join('\n');
};

describe('reference engine and interpreter agree', () => {
  const machines = ENGINES.map(machine);
  test.each([1, 2, 3, 4, 5, 6])('on 400 random programs, seed %i', (seed) => {
    const rnd = seededRandom(seed);
    for (let n = 0; n < 400; n++) {
      const s = start(rnd);
      const [a, b] = machines.map((hw) => summary(hw, s));
      expect(
        b,
        `program ${n}: ${Buffer.from(s.code).toString('hex')} at ${s.at.toString(16)}, registers ${s.gpr.map((g) => g.toString(16)).join(' ')} slices ${s.slices.join()}`,
      ).toBe(a);
    }
  });
});

describe('a loop that patches a block it is linked to', () => {
  // mov ecx, 20; top: jmp next; next: add eax, 1; cmp ecx, 10; jne on; mov byte [rip+next+2], 5; on: dec ecx; jne top;
  // nop
  const code = Buffer.from(
    `b914000000 eb00 83c001 83f90a 7507 c605f3ffffff05 ffc9 75eb 9090`.replace(/ /g, ''),
    'hex',
  );
  const instructions = 1 + 20 * 6 + 1 - 1;
  test.each(ENGINES)('%s runs the new bytes from the next time on, in slices of any size', (engine) => {
    for (const slice of [1000, 1, 2, 3, 7]) {
      const hw = machine(engine);
      const { cpu, ram } = hw;
      ram.writeBytes(CODE, code);
      // its page may be written to
      const pte = TABLES + 0x3000 + 8 * (CODE >> 12);
      ram.write64(pte, ram.read64(pte) | 2n);
      cpu.mmu.flushAll();
      cpu.set64(S.rip, BigInt(CODE));
      cpu.setGpr(0, 0n);
      let done = 0;
      while (cpu.rip < BigInt(CODE + code.length - 2)) {
        cpu.set32(S.budget, Math.min(slice, instructions + 1 - done));
        cpu.sliceBudget = cpu.get32(S.budget);
        cpu.set32(S.leave, LEAVE.none);
        const before = cpu.get32(S.budget);
        hw.processor.engine.run();
        done += before - cpu.get32(S.budget);
        expect(cpu.get32(S.leave)).toBe(LEAVE.budget);
        expect(done).toBeLessThanOrEqual(instructions + 1);
      }
      expect(cpu.gpr(0)).toBe(BigInt(11 + 5 * 9));
      expect(done).toBeGreaterThanOrEqual(instructions);
    }
  });
});
