/**
 * System instructions: system registers, MSRs, segment registers, translations, and instructions that wait or identify.
 *
 * SDM volume 2. The work is done by the helpers of `cpu/system/`; what is simple and hot is written in verbs.
 * MONITOR, MWAIT and RSM raise #UD: the processor offers neither MONITOR nor system-management mode.
 */
import type { InsnRow, Sem } from '../rows.js';
import { CR0, CR4, FLAG, S, SEG, VECTOR } from '../state.js';
import type { Ops } from '../verbs.js';

const call =
  (helper: string, ...args: readonly number[]): Sem =>
  (o) => {
    o.call(
      helper,
      args.map((a) => o.imm(a, 32)),
    );
  };
const undefinedInstruction: Sem = (o) => o.fault(VECTOR.ud);

/** Number of a bit from its mask. */
const position = (mask: number): number => 31 - Math.clz32(mask);
/** #UD unless a bit of CR4 is set. */
const needsCr4 = <V>(o: Ops<V>, mask: number): void =>
  o.when(o.eqz(o.bit(o.state(S.cr4, 32), position(mask))), () => o.fault(VECTOR.ud));

/** Stores a helper's 64-bit result into a register or memory operand of any width. */
const storeResult =
  (helper: string, ...args: readonly number[]): Sem =>
  (o, d) => {
    const [v] = o.call(
      helper,
      args.map((a) => o.imm(a, 32)),
      1,
    );
    d.write(o.trunc(v!, d.w));
  };

const loadTable =
  (idt: 0 | 1): Sem =>
  (o, m) => {
    o.call('loadTableExit', [o.imm(idt, 32)]);
    const long = o.mode === 64;
    const at = m.linear(long ? 10 : 6, 'read');
    const limit = o.load(at, 16);
    const base = o.load(o.add(at, o.imm(2, 64)), long ? 64 : 32);
    o.call('loadTable', [o.imm(idt, 32), limit, base, o.imm(long ? 64 : o.w, 32)]);
  };
const storeTable =
  (idt: 0 | 1): Sem =>
  (o, m) => {
    const [limit, base] = o.call('storeTable', [o.imm(idt, 32)], 2);
    const long = o.mode === 64;
    const at = m.linear(long ? 10 : 6, 'write');
    o.store(at, o.trunc(limit!, 16));
    o.store(o.add(at, o.imm(2, 64)), o.trunc(base!, long ? 64 : 32));
  };

const segmentBase = { fs: S.segBase + 8 * SEG.fs, gs: S.segBase + 8 * SEG.gs } as const;
const readBase =
  (seg: 'fs' | 'gs'): Sem =>
  (o, d) => {
    needsCr4(o, CR4.fsgsbase);
    d.write(o.trunc(o.state(segmentBase[seg], 64), d.w));
  };
const writeBase =
  (seg: 'fs' | 'gs'): Sem =>
  (o, s) => {
    needsCr4(o, CR4.fsgsbase);
    const v = o.zext(s.read(), 64);
    if (s.w === 64) {
      const sixteen = o.imm(16, 32);
      o.when(o.ne(o.sar(o.shl(v, sixteen), sixteen), v), () => o.fault(VECTOR.gp, 0));
    }
    o.setState(segmentBase[seg], v);
  };

/** LAR and LSL. */
const visible =
  (helper: string): Sem =>
  (o, d, s) => {
    const [ok, v] = o.call(helper, [s.read(16)], 2);
    const found = o.nez(ok!);
    const value = o.trunc(v!, d.w);
    o.when(found, () => d.write(value));
    o.flags.set({ zf: found });
  };
const verify =
  (write: 0 | 1): Sem =>
  (o, s) => {
    const [ok] = o.call('verify', [s.read(16), o.imm(write, 32)], 1);
    o.flags.set({ zf: o.nez(ok!) });
  };

const arpl: Sem = (o, d, s) => {
  const real = o.eqz(o.bit(o.state(S.cr0, 32), position(CR0.pe)));
  const virtual = o.bit(o.state(S.eflags, 32), position(FLAG.vm));
  o.when(o.or(real, virtual), () => o.fault(VECTOR.ud));
  const rpl = o.and(s.read(), o.imm(3, 16));
  // only a selector that changes is written
  const old = d.read();
  const raised = o.ltu(o.and(old, o.imm(3, 16)), rpl);
  o.when(raised, () => d.write(o.or(o.and(old, o.imm(0xfffc, 16)), rpl)));
  o.flags.set({ zf: raised });
};

const pushSegment: Sem = (o, seg) => o.push(o.zext(seg.read(16), o.w));
const popSegment: Sem = (o, seg) => {
  const popped = o.pop(o.w);
  o.call('loadSegment', [seg.index(), o.trunc(popped.value, 16), o.imm(1, 32)]);
  popped.commit();
};
/** LDS, LES, LSS, LFS, LGS. */
const loadFarPointer =
  (seg: number): Sem =>
  (o, d, m) => {
    const at = m.linear(2 + o.w / 8, 'read');
    const offset = o.load(at, o.w);
    const selector = o.load(o.add(at, o.imm(o.w / 8, 64)), 16);
    o.call('loadSegment', [o.imm(seg, 32), selector, o.imm(0, 32)]);
    d.write(o.trunc(offset, d.w));
  };

const lmsw: Sem = (o, s) => {
  if (s.kind === 'mem') {
    const at = s.linear(2, 'read');
    o.call('lmsw', [o.load(at, 16), o.imm(1, 32), at]);
  } else o.call('lmsw', [s.read(16), o.imm(0, 32), o.imm(0, 64)]);
};

const fence: Sem = () => {};

/** RDRAND and RDSEED always succeed: CF is 1, the other flags 0. @param reason of the VM exit */
const randomNumber =
  (reason: number): Sem =>
  (o, d) => {
    const [v] = o.call('randomNumber', [o.imm(reason, 32), d.index(), o.imm(d.w, 32)], 1);
    d.write(o.trunc(v!, d.w));
    o.flags.setAll(o.imm(FLAG.cf, 32));
  };

/** CLI and STI need CPL <= IOPL in every mode (CPL is 0 in real and 3 in virtual-8086 mode). Returns the flags word. */
const interruptFlagAllowed = <V>(o: Ops<V>): V => {
  const flags = o.state(S.eflags, 32);
  const iopl = o.and(o.shr(flags, o.imm(12, 32)), o.imm(3, 32));
  o.when(o.ltu(iopl, o.state(S.cpl, 32)), () => o.fault(VECTOR.gp, 0));
  return flags;
};
const cli: Sem = (o) => {
  const flags = interruptFlagAllowed(o);
  o.setState(S.eflags, o.and(flags, o.imm(~FLAG.if >>> 0, 32)));
};
/** Blocks interrupts for one more instruction when IF was 0. */
const sti: Sem = (o) => {
  const flags = interruptFlagAllowed(o);
  const blocking = o.state(S.interruptibility, 32);
  const shadow = o.zext(o.eqz(o.bit(flags, position(FLAG.if))), 32);
  o.setState(S.eflags, o.or(flags, o.imm(FLAG.if, 32)));
  o.setState(S.interruptibility, o.or(blocking, shadow));
  o.setState(S.shadowed, o.imm(0, 32));
};

const POP = 'POP—Pop a Value From the Stack';
const PUSH = 'PUSH—Push Word, Doubleword, or Quadword Onto the Stack';
const FAR_POINTER = 'LDS/LES/LFS/LGS/LSS—Load Far Pointer';
const MOV = 'MOV—Move';
const MOV_CR = 'MOV—Move to/from Control Registers';
const MOV_DR = 'MOV—Move to/from Debug Registers';

const movToCr: Sem = (o, cr, s) => {
  o.call('movToCr', [cr.index(), s.index(), s.read()]);
};
const movFromCr: Sem = (o, d, cr) => {
  const [v] = o.call('movFromCr', [cr.index(), d.index()], 1);
  d.write(o.trunc(v!, d.w));
};
const movToDr: Sem = (o, dr, s) => {
  o.call('movToDr', [dr.index(), s.index(), s.read()]);
};
const movFromDr: Sem = (o, d, dr) => {
  const [v] = o.call('movFromDr', [dr.index(), d.index()], 1);
  d.write(o.trunc(v!, d.w));
};

// biome-ignore format: one row per line
export const SYSTEM_ROWS: readonly InsnRow[] = [
  // control, debug and task registers
  { name: 'mov', forms: ['0f 22 /r Cy,Ry'], sdm: MOV_CR, cpl: 0, size: 'f64', ends: true, sem: movToCr },
  { name: 'mov', forms: ['0f 20 /r Ry,Cy'], sdm: MOV_CR, cpl: 0, size: 'f64', sem: movFromCr },
  { name: 'mov', forms: ['0f 23 /r Dy,Ry'], sdm: MOV_DR, cpl: 0, size: 'f64', ends: true, sem: movToDr },
  { name: 'mov', forms: ['0f 21 /r Ry,Dy'], sdm: MOV_DR, cpl: 0, size: 'f64', sem: movFromDr },
  { name: 'clts', forms: ['0f 06'], sdm: 'CLTS—Clear Task-Switched Flag in CR0', cpl: 0, ends: true, sem: call('clts') },
  { name: 'lmsw', forms: ['0f 01 /6 Ew'], sdm: 'LMSW—Load Machine Status Word', cpl: 0, ends: true, sem: lmsw },
  { name: 'smsw', forms: ['0f 01 /4 Rv/Mw'], sdm: 'SMSW—Store Machine Status Word', sem: storeResult('smsw') },
  { name: 'lgdt', forms: ['0f 01 /2:mem Ms'], sdm: 'LGDT/LIDT—Load Global/Interrupt Descriptor Table Register', cpl: 0, ends: true, sem: loadTable(0) },
  { name: 'lidt', forms: ['0f 01 /3:mem Ms'], sdm: 'LGDT/LIDT—Load Global/Interrupt Descriptor Table Register', cpl: 0, ends: true, sem: loadTable(1) },
  { name: 'sgdt', forms: ['0f 01 /0:mem Ms'], sdm: 'SGDT—Store Global Descriptor Table Register', sem: storeTable(0) },
  { name: 'sidt', forms: ['0f 01 /1:mem Ms'], sdm: 'SIDT—Store Interrupt Descriptor Table Register', sem: storeTable(1) },
  { name: 'lldt', forms: ['0f 00 /2 Ew'], sdm: 'LLDT—Load Local Descriptor Table Register', modes: 'protected', cpl: 0, ends: true, sem: (o, s) => { o.call('lldt', [s.read(16)]); } },
  { name: 'ltr', forms: ['0f 00 /3 Ew'], sdm: 'LTR—Load Task Register', modes: 'protected', cpl: 0, ends: true, sem: (o, s) => { o.call('ltr', [s.read(16)]); } },
  { name: 'sldt', forms: ['0f 00 /0 Rv/Mw'], sdm: 'SLDT—Store Local Descriptor Table Register', modes: 'protected', sem: storeResult('storeSelector', 0) },
  { name: 'str', forms: ['0f 00 /1 Rv/Mw'], sdm: 'STR—Store Task Register', modes: 'protected', sem: storeResult('storeSelector', 1) },

  // segment registers
  { name: 'mov', forms: ['8c /r Rv/Mw,Sw'], sdm: MOV, sem: (o, d, seg) => d.write(o.zext(seg.read(16), d.w)) },
  { name: 'mov', forms: ['8e /r Sw,Ew'], sdm: MOV, ends: true, sem: (o, seg, s) => { o.call('loadSegment', [seg.index(), s.read(16), o.imm(1, 32)]); } },
  { name: 'push', forms: ['06 ES', '0e CS', '16 SS', '1e DS'], sdm: PUSH, modes: 'no64', size: 'd64', sem: pushSegment },
  { name: 'push', forms: ['0f a0 FS', '0f a8 GS'], sdm: PUSH, size: 'd64', sem: pushSegment },
  { name: 'pop', forms: ['07 ES', '17 SS', '1f DS'], sdm: POP, modes: 'no64', size: 'd64', ends: true, sem: popSegment },
  { name: 'pop', forms: ['0f a1 FS', '0f a9 GS'], sdm: POP, size: 'd64', ends: true, sem: popSegment },
  { name: 'les', forms: ['c4 /r Gv,Mp'], sdm: FAR_POINTER, modes: 'no64', ends: true, sem: loadFarPointer(SEG.es) },
  { name: 'lds', forms: ['c5 /r Gv,Mp'], sdm: FAR_POINTER, modes: 'no64', ends: true, sem: loadFarPointer(SEG.ds) },
  { name: 'lss', forms: ['0f b2 /r Gv,Mp'], sdm: FAR_POINTER, ends: true, sem: loadFarPointer(SEG.ss) },
  { name: 'lfs', forms: ['0f b4 /r Gv,Mp'], sdm: FAR_POINTER, ends: true, sem: loadFarPointer(SEG.fs) },
  { name: 'lgs', forms: ['0f b5 /r Gv,Mp'], sdm: FAR_POINTER, ends: true, sem: loadFarPointer(SEG.gs) },
  { name: 'lar', forms: ['0f 02 /r Gv,Ew'], sdm: 'LAR—Load Access Rights Byte', modes: 'protected', flags: { w: 'z' }, sem: visible('lar') },
  { name: 'lsl', forms: ['0f 03 /r Gv,Ew'], sdm: 'LSL—Load Segment Limit', modes: 'protected', flags: { w: 'z' }, sem: visible('lsl') },
  { name: 'verr', forms: ['0f 00 /4 Ew'], sdm: 'VERR/VERW—Verify a Segment for Reading or Writing', modes: 'protected', flags: { w: 'z' }, sem: verify(0) },
  { name: 'verw', forms: ['0f 00 /5 Ew'], sdm: 'VERR/VERW—Verify a Segment for Reading or Writing', modes: 'protected', flags: { w: 'z' }, sem: verify(1) },
  { name: 'arpl', forms: ['63 /r Ew,Gw'], sdm: 'ARPL—Adjust RPL Field of Segment Selector', modes: 'no64', flags: { w: 'z' }, sem: arpl },
  { name: 'rdfsbase', forms: ['f3 0f ae /0:reg Ry'], sdm: 'RDFSBASE/RDGSBASE—Read FS/GS Segment Base', modes: 'only64', feature: 'fsgsbase', sem: readBase('fs') },
  { name: 'rdgsbase', forms: ['f3 0f ae /1:reg Ry'], sdm: 'RDFSBASE/RDGSBASE—Read FS/GS Segment Base', modes: 'only64', feature: 'fsgsbase', sem: readBase('gs') },
  { name: 'wrfsbase', forms: ['f3 0f ae /2:reg Ry'], sdm: 'WRFSBASE/WRGSBASE—Write FS/GS Segment Base', modes: 'only64', feature: 'fsgsbase', sem: writeBase('fs') },
  { name: 'wrgsbase', forms: ['f3 0f ae /3:reg Ry'], sdm: 'WRFSBASE/WRGSBASE—Write FS/GS Segment Base', modes: 'only64', feature: 'fsgsbase', sem: writeBase('gs') },
  {
    name: 'swapgs', forms: ['0f 01 /7:f8'], sdm: 'SWAPGS—Swap GS Base Register', modes: 'only64', cpl: 0,
    sem: (o) => {
      const gs = o.state(segmentBase.gs, 64);
      const kernel = o.state(S.kernelGsBase, 64);
      o.setState(segmentBase.gs, kernel);
      o.setState(S.kernelGsBase, gs);
    },
  },

  // translations and caches
  { name: 'invlpg', forms: ['0f 01 /7:mem Mb'], sdm: 'INVLPG—Invalidate TLB Entries', cpl: 0, ends: true, sem: (o, m) => { o.call('invlpg', [m.linear(1, 'read')]); } },
  { name: 'invpcid', forms: ['66 0f 38 82 /r Gy,Mdq'], sdm: 'INVPCID—Invalidate Process-Context Identifier', cpl: 0, size: 'f64', ends: true, feature: 'invpcid', sem: (o, type, m) => { o.call('invpcid', [type.read(), m.linear(16, 'read')]); } },
  { name: 'invd', forms: ['0f 08'], sdm: 'INVD—Invalidate Internal Caches', cpl: 0, sem: call('invd') },
  { name: 'wbinvd', forms: ['0f 09'], sdm: 'WBINVD—Write Back and Invalidate Cache', cpl: 0, sem: call('wbinvd') },
  { name: 'clflush', forms: ['np 0f ae /7:mem Mb'], sdm: 'CLFLUSH—Flush Cache Line', feature: 'clflush', sem: (_o, m) => { m.read(); } },
  { name: 'clflushopt', forms: ['66 0f ae /7:mem Mb'], sdm: 'CLFLUSHOPT—Flush Cache Line Optimized', feature: 'clflushopt', sem: (_o, m) => { m.read(); } },
  { name: 'clwb', forms: ['66 0f ae /6:mem Mb'], sdm: 'CLWB—Cache Line Write Back', feature: 'clwb', sem: (_o, m) => { m.read(); } },
  { name: 'lfence', forms: ['np 0f ae /5:reg'], sdm: 'LFENCE—Load Fence', feature: 'sse2', sem: fence },
  { name: 'mfence', forms: ['np 0f ae /6:reg'], sdm: 'MFENCE—Memory Fence', feature: 'sse2', sem: fence },
  { name: 'sfence', forms: ['np 0f ae /7:reg'], sdm: 'SFENCE—Store Fence', feature: 'sse', sem: fence },

  // identification, counters and model-specific registers
  { name: 'cpuid', forms: ['0f a2'], sdm: 'CPUID—CPU Identification', sem: call('cpuid') },
  { name: 'rdtsc', forms: ['0f 31'], sdm: 'RDTSC—Read Time-Stamp Counter', feature: 'tsc', sem: call('rdtsc') },
  { name: 'rdtscp', forms: ['0f 01 /7:f9'], sdm: 'RDTSCP—Read Time-Stamp Counter and Processor ID', feature: 'rdtscp', sem: call('rdtscp') },
  { name: 'rdpid', forms: ['f3 0f c7 /7:reg Ry'], sdm: 'RDPID—Read Processor ID', size: 'f64', feature: 'rdpid', sem: (o, d) => { const [v] = o.call('rdpid', [], 1); d.write(o.trunc(v!, d.w)); } },
  { name: 'rdrand', forms: ['nfx 0f c7 /6:reg Rv'], sdm: 'RDRAND—Read Random Number', feature: 'rdrand', flags: { w: 'oszapc' }, sem: randomNumber(57) },
  { name: 'rdseed', forms: ['nfx 0f c7 /7:reg Rv'], sdm: 'RDSEED—Read Random SEED', feature: 'rdseed', flags: { w: 'oszapc' }, sem: randomNumber(61) },
  { name: 'rdpmc', forms: ['0f 33'], sdm: 'RDPMC—Read Performance-Monitoring Counters', sem: call('rdpmc') },
  { name: 'rdmsr', forms: ['0f 32'], sdm: 'RDMSR—Read From Model Specific Register', cpl: 0, feature: 'msr', sem: call('rdmsr') },
  { name: 'wrmsr', forms: ['0f 30'], sdm: 'WRMSR—Write to Model Specific Register', cpl: 0, ends: true, feature: 'msr', sem: call('wrmsr') },
  { name: 'xsetbv', forms: ['np 0f 01 /2:d1'], sdm: 'XSETBV—Set Extended Control Register', ends: true, feature: 'xsave', sem: call('xsetbv') },

  // interrupt flag, waiting, and instructions that are never defined
  { name: 'cli', forms: ['fa'], sdm: 'CLI—Clear Interrupt Flag', sem: cli },
  { name: 'sti', forms: ['fb'], sdm: 'STI—Set Interrupt Flag', ends: true, sem: sti },
  { name: 'clac', forms: ['np 0f 01 /1:ca'], sdm: 'CLAC—Clear AC Flag in EFLAGS Register', ends: true, feature: 'smap', sem: call('setAc', 0) },
  { name: 'stac', forms: ['np 0f 01 /1:cb'], sdm: 'STAC—Set AC Flag in EFLAGS Register', ends: true, feature: 'smap', sem: call('setAc', 1) },
  { name: 'hlt', forms: ['f4'], sdm: 'HLT—Halt', cpl: 0, ends: true, sem: call('hlt') },
  { name: 'pause', forms: ['f3 90'], sdm: 'PAUSE—Spin Loop Hint', sem: call('pause') },
  { name: 'monitor', forms: ['np 0f 01 /1:c8'], sdm: 'MONITOR—Set Up Monitor Address', sem: call('monitorWait', 39) },
  { name: 'mwait', forms: ['np 0f 01 /1:c9'], sdm: 'MWAIT—Monitor Wait', sem: call('monitorWait', 36) },
  { name: 'rsm', forms: ['0f aa'], sdm: 'RSM—Resume From System Management Mode', ends: true, sem: undefinedInstruction },
  { name: 'ud2', forms: ['0f 0b'], sdm: 'UD—Undefined Instruction', ends: true, sem: undefinedInstruction },
  { name: 'ud1', forms: ['0f b9 /r Gv,Ev'], sdm: 'UD—Undefined Instruction', ends: true, sem: undefinedInstruction },
  { name: 'ud0', forms: ['0f ff /r Gv,Ev'], sdm: 'UD—Undefined Instruction', ends: true, sem: undefinedInstruction },
];
