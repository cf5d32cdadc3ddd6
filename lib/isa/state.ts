/**
 * Where the architectural state of a virtual processor lies in linear memory.
 *
 * Every engine and every helper sees these same bytes. Offsets are relative to the state base of a processor
 * (`Layout.state`, see `memory/ram.ts`), which is below 64 KiB so that a 16-bit field of a decoded record can hold the
 * address of any register. `row` computes offsets, so no two rows can overlap.
 */

let next = 0;
const row = (bytes: number, align = bytes): number => {
  next = Math.ceil(next / align) * align;
  const at = next;
  next += bytes;
  return at;
};

export const GPR = { rax: 0, rcx: 1, rdx: 2, rbx: 3, rsp: 4, rbp: 5, rsi: 6, rdi: 7 } as const;
export const GPR_NAMES = [
  'rax',
  'rcx',
  'rdx',
  'rbx',
  'rsp',
  'rbp',
  'rsi',
  'rdi',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
] as const;
/** Segment register numbers as encoded in instructions; `ldtr` and `tr` follow. */
export const SEG = { es: 0, cs: 1, ss: 2, ds: 3, fs: 4, gs: 5, ldtr: 6, tr: 7 } as const;
export const SEG_NAMES = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const;

/** Byte offsets from the state base. `u64` unless said otherwise. */
export const S = {
  /** 16 general registers, rax first. */
  gpr: row(16 * 8, 16),
  /** Always zero: stands in for an absent base, index or segment. */
  zero: row(8),
  /** RIP of offset 0 of the code page being executed; RIP = pageRip + offset in page. Interpreter only. */
  pageRip: row(8),
  /** Segment bases, 8 × u64, in the order of `SEG`. */
  segBase: row(8 * 8),
  /** Segment limits in bytes (granularity applied), 8 × u32. */
  segLimit: row(8 * 4),
  /** Segment access rights in the VMX format (bit 16 = unusable), 8 × u32. */
  segAttr: row(8 * 4),
  /** Segment selectors, 8 × u32 (upper half zero). */
  segSel: row(8 * 4),
  gdtrBase: row(8),
  idtrBase: row(8),
  gdtrLimit: row(4),
  idtrLimit: row(4),

  /** RIP of the instruction being executed, valid whenever TypeScript runs. */
  rip: row(8),
  /** Where execution continues after it; a helper of an `ends` row may change it. */
  nextRip: row(8),

  /** Lazy arithmetic flags, see `isa/flags.ts`. */
  flagA: row(8),
  flagR: row(8),
  /** u32: kind | log2(width / 8) << 8. */
  flagKind: row(4),
  /** u32: the other bits of RFLAGS (TF IF DF IOPL NT RF VM AC VIF VIP ID), bit 1 set. */
  eflags: row(4),

  cr0: row(8),
  cr2: row(8),
  cr3: row(8),
  cr4: row(8),
  /** CR8 (task priority), 0..15. */
  cr8: row(8),
  efer: row(8),
  xcr0: row(8),
  xss: row(8),
  /** DR0-DR3, then DR6, DR7. */
  dr: row(4 * 8, 8),
  dr6: row(8),
  dr7: row(8),

  /** u32: 0..3. Equals SS.DPL; 3 in virtual-8086 mode, 0 in real mode. */
  cpl: row(4),
  /** u32: code size 16, 32 or 64. */
  mode: row(4),
  /** u32: stack address size 16, 32 or 64. */
  stackSize: row(4),
  /** u32 bit set: 0 STI blocking, 1 MOV-SS blocking, 2 SMI blocking, 3 NMI blocking (as the VMCS field). */
  interruptibility: row(4),
  /** u32: 0 active, 1 HLT, 2 shutdown, 3 wait-for-SIPI (as the VMCS field). */
  activity: row(4),
  /** u64 pending debug exceptions, as the VMCS field. */
  pendingDebug: row(8),

  // model-specific registers that instructions use directly
  star: row(8),
  lstar: row(8),
  cstar: row(8),
  sfmask: row(8),
  kernelGsBase: row(8),
  sysenterCs: row(8),
  sysenterEsp: row(8),
  sysenterEip: row(8),
  tscAux: row(8),
  pat: row(8),
  debugctl: row(8),
  miscEnable: row(8),
  apicBase: row(8),
  /** Counter of the random number generator (RDRAND, RDSEED). */
  entropy: row(8),
  /** The four PDPTEs of PAE paging outside IA-32e mode, loaded by MOV to CR3 (and to CR0, CR4). */
  pdpte: row(4 * 8, 8),

  // floating point
  /** 16 × 16 bytes. */
  xmm: row(16 * 16, 16),
  /** Eight physical x87 registers R0..R7 of 16 bytes: u64 significand, u16 sign and exponent. MMX registers are the significands. */
  x87: row(8 * 16, 16),
  /** u32 each. `ftw` is the full two-bit-per-register tag word; TOP lives in `fsw`. */
  fcw: row(4),
  fsw: row(4),
  ftw: row(4),
  fop: row(4),
  fip: row(8),
  fdp: row(8),
  mxcsr: row(4),

  // engine
  /** i32: instructions that may still run in this slice; charged by blocks, see `cpu/core.ts`. */
  budget: row(4),
  /** u32: why the engine left, `LEAVE`. */
  leave: row(4),
  /** u32: linear-memory address of the decoded record being executed. Interpreter only. */
  record: row(4),
  /** u32: non-zero makes every block-ending instruction return to TypeScript. */
  attention: row(4),
  /** u32: linear-memory addresses of the current TLB sets, by access kind. */
  tlbRead: row(4),
  tlbWrite: row(4),
  tlbExec: row(4),
  /** i32: 0, or 1 + the budget left when the interpreter went on behind STI or MOV SS with its shadow in place. */
  shadowed: row(4),
  /** u64: stands for MSRs that have no place of their own. */
  reserved: row(8),

  /** Arguments and results of helper calls, 8 × u64. */
  arg: row(8 * 8, 16),
  result: row(4 * 8, 16),
  /** 64 bytes through which page-crossing accesses go. */
  bounce: row(64, 64),

  // the pending event, valid when `leave` is `fault` or `exit`; see `cpu/core.ts`
  /** u32 vector of a fault. */
  faultVector: row(4),
  /** u32, or -1 for none. */
  faultCode: row(4),
  /** Linear address for #PF, DR6 bits for #DB. */
  faultAddress: row(8),
} as const;

/** Bytes of state of one processor. */
export const STATE_BYTES = Math.ceil(next / 256) * 256;

/** Why an engine returned to TypeScript. */
export const LEAVE = {
  none: 0,
  /** The budget ends before the next block. */
  budget: 1,
  /** The code at RIP must be looked up or decoded. */
  lookup: 2,
  /** A fault or trap is pending. */
  fault: 3,
  /** A VM exit is pending. */
  exit: 4,
  /** `attention` was set at the end of a block. */
  attention: 5,
  /** The processor is halted, or the instruction asked to stop. */
  stop: 6,
  /** The interpreter met a record of code that has been overwritten. */
  stale: 7,
} as const;

export const CR0 = {
  pe: 1,
  mp: 2,
  em: 4,
  ts: 8,
  et: 0x10,
  ne: 0x20,
  wp: 0x1_0000,
  am: 0x4_0000,
  nw: 0x2000_0000,
  cd: 0x4000_0000,
  pg: 0x8000_0000,
} as const;
export const CR4 = {
  vme: 1,
  pvi: 2,
  tsd: 4,
  de: 8,
  pse: 0x10,
  pae: 0x20,
  mce: 0x40,
  pge: 0x80,
  pce: 0x100,
  osfxsr: 0x200,
  osxmmexcpt: 0x400,
  umip: 0x800,
  la57: 0x1000,
  vmxe: 0x2000,
  smxe: 0x4000,
  fsgsbase: 0x1_0000,
  pcide: 0x2_0000,
  osxsave: 0x4_0000,
  smep: 0x10_0000,
  smap: 0x20_0000,
  pke: 0x40_0000,
} as const;
export const EFER = { sce: 1, lme: 0x100, lma: 0x400, nxe: 0x800 } as const;
export const FLAG = {
  cf: 1,
  pf: 4,
  af: 0x10,
  zf: 0x40,
  sf: 0x80,
  tf: 0x100,
  if: 0x200,
  df: 0x400,
  of: 0x800,
  iopl: 0x3000,
  nt: 0x4000,
  rf: 0x1_0000,
  vm: 0x2_0000,
  ac: 0x4_0000,
  vif: 0x8_0000,
  vip: 0x10_0000,
  id: 0x20_0000,
} as const;
/** The six flags that are kept lazily. */
export const ARITHMETIC_FLAGS = 0x8d5;
export const VECTOR = {
  de: 0,
  db: 1,
  nmi: 2,
  bp: 3,
  of: 4,
  br: 5,
  ud: 6,
  nm: 7,
  df: 8,
  ts: 10,
  np: 11,
  ss: 12,
  gp: 13,
  pf: 14,
  mf: 16,
  ac: 17,
  mc: 18,
  xm: 19,
} as const;
/** Page-fault error code bits. */
export const PF = { p: 1, w: 2, u: 4, rsvd: 8, i: 16 } as const;
