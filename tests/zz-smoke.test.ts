import { Code, Decoder, DecoderOptions, Encoder, FlowControl } from 'iced-x86';
import { expect, test } from 'vitest';
import { seededRandom } from '../lib/base/random.js';
import { Cpu, type MemoryUnit } from '../lib/cpu/core.js';
import { createInterpreter } from '../lib/cpu/interpreter/interpreter.js';
import { createReference } from '../lib/cpu/reference.js';
import { readRflags } from '../lib/cpu/rflags.js';
import { S } from '../lib/isa/state.js';
import { LAYOUT, RAM_AT, Ram } from '../lib/memory/ram.js';

const make = (kind: 'i' | 'r') => {
  const ram = new Ram(1 << 20);
  const cpu = new Cpu(ram);
  let table: (hpa: number, mode: number) => number = () => 0;
  const mmu = {
    stackAccess: false,
    access: (lo: number, _hi: number) => RAM_AT + ((lo >>> 0) & 0x7ffff),
    commit: () => {},
    fetch: (lo: number, hi: number) => {
      const hpa = (lo >>> 0) & 0xff000;
      const e = (LAYOUT.tlb + ((lo >>> 8) & (1023 << 4))) >>> 2;
      ram.u32[e] = lo & ~4095;
      ram.u32[e + 1] = hi;
      ram.u32[e + 2] = table(hpa, 64);
      return hpa + (lo & 4095);
    },
    contextChanged() {},
    loadCr3() {},
    invlpg() {},
    invpcid() {},
    flushAll() {},
    flushExec() {},
    codePageAdded() {},
    set codeTable(f: (hpa: number, mode: number) => number) {
      table = f;
    },
  };
  cpu.mmu = mmu as unknown as MemoryUnit;
  for (const k of ['tlbRead', 'tlbWrite', 'tlbExec'] as const)
    cpu.set32(S[k], LAYOUT.tlb + (k === 'tlbExec' ? 0 : 0x10000));
  for (let i = 0; i < 32768; i++) ram.u64[(LAYOUT.tlb >>> 3) + i] = 1n;
  cpu.set32(S.mode, 64);
  cpu.set32(S.stackSize, 64);
  cpu.set32(S.eflags, 2);
  cpu.set32(S.cr0, 0x80000011);
  cpu.set32(S.cr4, 0x220);
  const helpers = {};
  const eng = kind === 'i' ? createInterpreter(cpu, mmu as never, helpers) : createReference(cpu, helpers);
  return { ram, cpu, eng };
};
const run = (m: ReturnType<typeof make>, budget: number) => {
  m.cpu.set32(S.budget, budget);
  m.cpu.sliceBudget = budget;
  m.eng.run();
};
test('random blocks agree', () => {
  const rnd = seededRandom(7);
  const a = make('i'),
    b = make('r');
  let bad = 0;
  for (let n = 0; n < 20000 && bad < 10; n++) {
    // random valid instructions
    const bytes: number[] = [];
    const texts: string[] = [];
    while (texts.length < 5) {
      const raw = Uint8Array.from({ length: 15 }, () => rnd.below(256));
      if (rnd.below(2)) raw[0] = [0x48, 0x66, 0x41, 0x44][rnd.below(4)];
      const d = new Decoder(64, raw, DecoderOptions.None);
      const i = d.decode();
      const ok =
        !i.isInvalid &&
        i.flowControl === FlowControl.Next &&
        !i.isPrivileged &&
        !/^(x87|SSE|f|p|v|x[gsr]|m[mo]v|cl[a-z]|rd|wr|sys|in|out|cpuid|int|str|sld|sg|si|ver|lar|lsl|xlat|iret|cvt|movnt|ud|[lm]fence|sfence|mwait|nop|end|tpause|pause)/.test(
          Code[i.code].toLowerCase(),
        ) &&
        !/Div|Idiv|Rep|Popf|Pushf|Enter|Xsave|Mxcsr|Fx|Mmx|Xmm|Movb|Crc|Rdpid|Adcx|Adox|Cld|Std|Hlt|Sahf/i.test(
          Code[i.code],
        );
      const mem = i.opCount > 0 && [0, 1, 2, 3].some((k) => k < i.opCount && i.opKind(k) === 24);
      if (ok) {
        bytes.push(...raw.subarray(0, i.length));
        texts.push(
          Code[i.code] +
            ' ' +
            [...raw.subarray(0, i.length)].map((x) => x.toString(16).padStart(2, '0')).join(' '),
        );
      }
      i.free();
      d.free();
    }
    const regs = Array.from({ length: 16 }, () => (BigInt(rnd.u32()) << 32n) | BigInt(rnd.u32()));
    if (rnd.below(3) === 0) regs[1] = BigInt(rnd.below(70));
    for (const m of [a, b]) {
      m.ram.writeBytes(0x1000, Uint8Array.from(bytes));
      m.cpu.set64(S.rip, 0x1000n);
      m.cpu.set32(S.flagKind, 0);
      m.cpu.set64(S.flagA, 0x8d5n & BigInt(n * 37));
      m.cpu.set64(S.flagR, (n * 37) & 0x40 ? 0n : 1n);
      regs.forEach((v, i) => m.cpu.setGpr(i, v));
      try {
        run(m, 5);
      } catch (e) {
        console.log(n, m.eng.name, texts.join(' | '), regs.map((r) => r.toString(16)).join(' '));
        throw e;
      }
    }
    const show = (m: typeof a) =>
      [
        m.cpu.get32(S.leave),
        m.cpu.rip.toString(16),
        readRflags(m.cpu).toString(16),
        m.cpu.get32(S.budget) | 0,
        ...regs.map((_, i) => m.cpu.gpr(i).toString(16)),
      ].join(' ');
    if (show(a) !== show(b)) {
      bad++;
      console.log(n, texts.join(' | '), '\ni', show(a), '\nr', show(b));
    }
  }
  expect(bad).toBe(0);
  console.log(a.eng.name, (a.eng as never as { handlers: { count: number } }).handlers.count);
});
