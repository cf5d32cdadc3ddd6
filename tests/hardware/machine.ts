/**
 * Runs a case on an engine: a processor in 64-bit or compatibility mode at CPL 3, set up as Linux sets up a process,
 * with the memory of `layout.ts`. The result has the layout of the case.
 *
 * The case's code is followed by UD2, which our machine stops at where native code jumps back to its runner.
 */
import { readRflags, writeRflags } from '../../lib/cpu/rflags.js';
import { modeChanged, setSegment } from '../../lib/cpu/system/segments.js';
import { CR0, CR4, EFER, LEAVE, S, SEG, VECTOR } from '../../lib/isa/state.js';
import { createHardware, type EngineName, type Hardware } from '../../lib/vmx/hardware.js';
import { AT, CODE, CODE_BYTES, DATA, DATA_BYTES, READ_ONLY, SELECTOR, WINDOW_A, WINDOW_B } from './layout.js';

/** Host-physical addresses. */
const FRAME = {
  tables: 0x1000,
  data: 0x2_0000,
  readOnly: 0x3_0000,
  code: 0x4_0000,
  system: 0x5_0000,
} as const;
/** Linear address of the GDT and the TSS, for the supervisor. */
const SYSTEM = 0x6000_0000_0000;
/** Where a case that loops is given up. */
const BUDGET = 200_000;

const P = 1n;
const W = 2n;
const U = 4n;
const NX = 1n << 63n;

/** Linux's GDT: kernel code 32 and 64, kernel data, user code 32, data, user code 64; then the TSS. */
const GDT: readonly bigint[] = [
  0n,
  0x00cf_9b00_0000_ffffn,
  0x00af_9b00_0000_ffffn,
  0x00cf_9300_0000_ffffn,
  0x00cf_fb00_0000_ffffn,
  0x00cf_f300_0000_ffffn,
  0x00af_fb00_0000_ffffn,
  0n,
  0x2000_8b00_0800_0067n,
  0n,
];
const ATTR = { code32: 0xc0fb, code64: 0xa0fb, data: 0xc0f3, null: 0x1_0000 } as const;

const setUp = (hw: Hardware): void => {
  const { cpu, ram, mmu } = hw;
  let next: number = FRAME.tables + 0x1000;
  const map = (linear: number, frame: number, flags: bigint): void => {
    let table: number = FRAME.tables;
    for (const shift of [39, 30, 21]) {
      const at = table + 8 * (Math.floor(linear / 2 ** shift) & 511);
      if (ram.read64(at) === 0n) {
        ram.write64(at, BigInt(next) | P | W | U);
        next += 0x1000;
      }
      table = Number(ram.read64(at) & ~0xfffn);
    }
    ram.write64(table + 8 * (Math.floor(linear / 4096) & 511), BigInt(frame) | flags);
  };
  for (let page = 0; page < DATA_BYTES; page += 0x1000) map(DATA + page, FRAME.data + page, P | W | U | NX);
  map(READ_ONLY, FRAME.readOnly, P | U | NX);
  map(CODE, FRAME.code, P | U);
  map(SYSTEM, FRAME.system, P | W);
  for (let i = 0; i < 4096; i++) ram.write8(FRAME.readOnly + i, (i * 7 + (i >> 8)) & 0xff);
  GDT.forEach((d, i) => {
    ram.write64(FRAME.system + 8 * i, d);
  });
  // the TSS has no I/O permission map
  ram.write16(FRAME.system + 0x866, 0x8000);
  cpu.set64(S.cr0, BigInt(CR0.pe | CR0.mp | CR0.et | CR0.ne | CR0.wp | CR0.am) | BigInt(CR0.pg >>> 0));
  cpu.set64(S.cr4, BigInt(CR4.pae | CR4.osfxsr | CR4.osxmmexcpt | CR4.fsgsbase | CR4.osxsave));
  cpu.set64(S.efer, BigInt(EFER.sce | EFER.lme | EFER.lma | EFER.nxe));
  cpu.set64(S.xcr0, 3n);
  cpu.set64(S.cr3, BigInt(FRAME.tables));
  cpu.set64(S.gdtrBase, BigInt(SYSTEM));
  cpu.set32(S.gdtrLimit, 0x7f);
  cpu.set32(S.idtrLimit, 0);
  setSegment(cpu, SEG.tr, 0x40, BigInt(SYSTEM + 0x800), 0x67, 0x8b);
  setSegment(cpu, SEG.ldtr, 0, 0n, 0, ATTR.null);
  mmu.flushAll();
};

export interface Machine {
  readonly name: EngineName;
  /** @param given is left as it is @param out becomes the state after */
  run(given: Uint8Array, out: Uint8Array): void;
}

const MARKER = 2;

export const createMachine = (name: EngineName): Machine => {
  const hw = createHardware(1 << 20, name);
  setUp(hw);
  const { cpu, ram } = hw;
  const { engine } = hw.processor;
  const { u8, u32 } = ram;
  const state = cpu.at;
  const data = ram.base + FRAME.data;
  const words = new Uint32Array(u8.buffer, data, DATA_BYTES / 4);
  const windows = [WINDOW_A, WINDOW_B].map((w) => ({
    at: data + w.at - DATA,
    place: w.place,
    bytes: w.bytes,
  }));
  const code = new Uint8Array(CODE_BYTES + MARKER);

  const enter = (mode: number): void => {
    const long = mode === 64;
    setSegment(
      cpu,
      SEG.cs,
      long ? SELECTOR.code64 : SELECTOR.code32,
      0n,
      0xffff_ffff,
      long ? ATTR.code64 : ATTR.code32,
    );
    setSegment(cpu, SEG.ss, SELECTOR.data, 0n, 0xffff_ffff, ATTR.data);
    for (const seg of [SEG.es, SEG.ds, SEG.fs, SEG.gs]) {
      if (long) setSegment(cpu, seg, 0, 0n, 0, ATTR.null);
      else setSegment(cpu, seg, SELECTOR.data, 0n, 0xffff_ffff, ATTR.data);
    }
    cpu.set32(S.interruptibility, 0);
    cpu.set32(S.attention, 0);
    cpu.set32(S.shadowed, 0);
    cpu.set64(S.pendingDebug, 0n);
    modeChanged(cpu);
  };
  const loadFx = (given: Uint8Array, view: DataView): void => {
    const fsw = view.getUint16(2, true);
    const full = given[4];
    let ftw = 0;
    for (let reg = 0; reg < 8; reg++) if ((full & (1 << reg)) === 0) ftw |= 3 << (2 * reg);
    cpu.set32(S.fcw, view.getUint16(0, true));
    cpu.set32(S.fsw, fsw);
    cpu.set32(S.ftw, ftw);
    cpu.set32(S.fop, 0);
    cpu.set64(S.fip, 0n);
    cpu.set64(S.fdp, 0n);
    cpu.set32(S.mxcsr, view.getUint32(24, true));
    for (let i = 0; i < 8; i++) {
      const reg = ((fsw >>> 11) + i) & 7;
      u8.set(given.subarray(32 + 16 * i, 48 + 16 * i), state + S.x87 + 16 * reg);
    }
    u8.set(given.subarray(160, 416), state + S.xmm);
  };
  const storeFx = (out: Uint8Array, view: DataView): void => {
    const fsw = cpu.get32(S.fsw);
    const ftw = cpu.get32(S.ftw);
    let full = 0;
    for (let reg = 0; reg < 8; reg++) if (((ftw >>> (2 * reg)) & 3) !== 3) full |= 1 << reg;
    view.setUint16(0, cpu.get32(S.fcw), true);
    view.setUint16(2, fsw, true);
    out[4] = full;
    view.setUint32(24, cpu.get32(S.mxcsr), true);
    for (let i = 0; i < 8; i++) {
      const at = state + S.x87 + 16 * (((fsw >>> 11) + i) & 7);
      out.set(u8.subarray(at, at + 16), 32 + 16 * i);
    }
    out.set(u8.subarray(state + S.xmm, state + S.xmm + 256), 160);
  };

  const run = (given: Uint8Array, out: Uint8Array): void => {
    const view = new DataView(given.buffer, given.byteOffset, AT.size);
    const result = new DataView(out.buffer, out.byteOffset, AT.size);
    const mode = given[AT.mode];
    enter(mode);
    loadFx(given, view);
    u8.set(given.subarray(AT.gpr, AT.gpr + 128), state + S.gpr);
    cpu.set64(S.segBase + 8 * SEG.fs, view.getBigUint64(AT.fsBase, true));
    cpu.set64(S.segBase + 8 * SEG.gs, view.getBigUint64(AT.gsBase, true));
    writeRflags(cpu, view.getUint32(AT.rflags, true) | 0x202);
    for (const w of windows) u8.set(given.subarray(w.place, w.place + w.bytes), w.at);
    const length = given[AT.length];
    const rip = view.getUint32(AT.rip, true);
    code.set(given.subarray(AT.code, AT.code + length));
    code[length] = 0x0f;
    code[length + 1] = 0x0b;
    ram.writeBytes(FRAME.code + (rip & 0xfff), code.subarray(0, length + MARKER));
    cpu.set64(S.rip, BigInt(rip));
    cpu.set32(S.budget, BUDGET);
    cpu.sliceBudget = BUDGET;
    do {
      cpu.set32(S.interruptibility, 0);
      engine.run();
    } while (cpu.get32(S.leave) === LEAVE.attention);

    let vector = cpu.get32(S.leave) === LEAVE.fault ? cpu.get32(S.faultVector) : 255;
    const end = cpu.rip;
    if (vector === VECTOR.ud && end === BigInt(rip + length)) vector = -1;
    storeFx(out, result);
    out.set(u8.subarray(state + S.gpr, state + S.gpr + 128), AT.gpr);
    result.setBigUint64(AT.rflags, BigInt(readRflags(cpu)), true);
    result.setBigUint64(AT.rip, end, true);
    result.setBigUint64(AT.fsBase, cpu.get64(S.segBase + 8 * SEG.fs), true);
    result.setBigUint64(AT.gsBase, cpu.get64(S.segBase + 8 * SEG.gs), true);
    result.setInt32(AT.vector, vector, true);
    result.setInt32(AT.error, vector === -1 ? -1 : Math.max(0, cpu.get32(S.faultCode) | 0), true);
    result.setBigUint64(AT.cr2, vector === VECTOR.pf ? cpu.get64(S.faultAddress) : 0n, true);
    out[AT.mode] = mode;
    out[AT.length] = length;
    [SEG.es, SEG.ds, SEG.fs, SEG.gs].forEach((seg, i) => {
      result.setUint16(AT.selectors + 2 * i, cpu.get32(S.segSel + 4 * seg), true);
    });
    for (const w of windows) {
      out.set(u8.subarray(w.at, w.at + w.bytes), w.place);
      u32.fill(0, w.at >>> 2, (w.at + w.bytes) >>> 2);
    }
    let any = 0;
    for (let i = 0; i < words.length; i++) any |= words[i];
    let hash = 0;
    if (any !== 0) {
      for (let i = 0; i < DATA_BYTES; i++) hash = (Math.imul(hash, 31) + u8[data + i]) | 0;
      words.fill(0);
    }
    result.setUint16(AT.outside, any !== 0 ? 1 : 0, true);
    result.setUint32(AT.hash, hash >>> 0, true);
    out.set(given.subarray(AT.code, AT.memory), AT.code);
  };
  return { name, run };
};
