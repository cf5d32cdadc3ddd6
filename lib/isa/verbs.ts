/**
 * The verbs an instruction's meaning is written in.
 *
 * A row's `sem` is called once per engine and form: the reference engine executes each verb at once over numbers, the
 * interpreter records the verbs and emits WebAssembly. So `sem` cannot look into a `V`; a decision on a value is
 * `select` or `when`. Facts of the form (operand width, mode, whether an operand is a register) are plain JavaScript
 * values and may be branched on.
 *
 * Rules
 * - Every V has a width (1, 8, 16, 32, 64 or 128 bits) and is zero-extended in its container. Binary verbs need equal
 *   widths, except shift counts, which are 32 bits wide (8 is accepted). Results are truncated to the width.
 * - Booleans are V of width 1.
 * - Commit last: every load, check and divide precedes the first register, flag or memory write. `rmw` and `push` are
 *   safe to write after: once they have looked up their address for writing they cannot fault.
 * - Reads see the state before any write of the same instruction that comes later in program order of the verbs.
 */
export type Width = 8 | 16 | 32 | 64;
export type AnyWidth = 1 | 8 | 16 | 32 | 64 | 128;

/** Condition codes as encoded in Jcc/SETcc/CMOVcc: o no b ae e ne be a s ns p np l ge le g. */
export type Condition = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15;

/** What an instruction form sees of one of its operands. */
export interface Operand<V> {
  readonly kind: 'reg' | 'mem' | 'imm' | 'rel' | 'seg' | 'cr' | 'dr' | 'xmm' | 'mmx' | 'st' | 'far';
  /** Width of the operand in bits as the form states it (of the access, for memory). */
  readonly w: AnyWidth;
  /** Value of a register, memory or immediate operand; of `w` bits, or of a narrower width `w` given (low part). */
  read(w?: AnyWidth): V;
  /** Writes a register or memory operand. A 32-bit general register write clears the upper half in 64-bit mode. */
  write(v: V): void;
  /** Reads, computes and writes back through one write access: nothing after it can fault. Returns what was read. */
  rmw(f: (old: V) => V): V;
  /** Memory: effective address (offset in the segment), of the address size. LEA uses it. */
  ea(): V;
  /** Memory: linear address (64 bits wide) after segmentation; legacy modes check `bytes` bytes against the segment. */
  linear(bytes: number, access: 'read' | 'write'): V;
  /** Memory: the same operand displaced by `offset` bytes (of the address size, added to `ea` modulo that size). Bit strings use it. */
  at(offset: V): Operand<V>;
  /** Number of a register operand (reg, seg, cr, dr, xmm, mmx, st), 32 bits wide. */
  index(): V;
  /** `far` immediates: the selector (16 bits) — `read()` gives the offset. */
  selector(): V;
}

/** Values of the six arithmetic flags after an operation; kept lazily by every engine (`isa/flags.ts`). */
export interface FlagVerbs<V> {
  /** After r = a + b (carry in 0). */
  add(a: V, r: V): void;
  /** After r = a + b + cin; cin is 1 bit wide. */
  adc(a: V, r: V, cin: V): void;
  /** After r = a - b. */
  sub(a: V, r: V): void;
  sbb(a: V, r: V, cin: V): void;
  /** CF = OF = AF = 0, the rest from r. */
  logic(r: V): void;
  /** CF is kept. */
  inc(r: V): void;
  dec(r: V): void;
  /** Shifts: `out` is the last bit shifted out (1 bit). To be called under `when(count != 0)`. */
  shl(r: V, out: V): void;
  shr(r: V, out: V): void;
  sar(r: V, out: V): void;
  /** Sets the given flags (1 bit each) and leaves the others as they are. */
  set(flags: {
    readonly cf?: V;
    readonly pf?: V;
    readonly af?: V;
    readonly zf?: V;
    readonly sf?: V;
    readonly of?: V;
  }): void;
  /** Replaces all six from a 32-bit value at RFLAGS positions. */
  setAll(v: V): void;
  /** All six at their RFLAGS positions, 32 bits wide. */
  all(): V;
  /** The carry flag, 1 bit. */
  cf(): V;
  /** A condition code, 1 bit. */
  cond(c: Condition): V;
}

export interface Ops<V> {
  /** Operand size of this form. */
  readonly w: Width;
  /** Address size: 16, 32 or 64. */
  readonly aw: 16 | 32 | 64;
  /** Code size of the running mode: 16, 32 or 64. */
  readonly mode: 16 | 32 | 64;
  /** Prefixes that the form keeps. */
  readonly lock: boolean;
  readonly rep: 'none' | 'rep' | 'repne';

  // ---- values
  imm(value: number | bigint, w?: AnyWidth): V;
  add(a: V, b: V): V;
  sub(a: V, b: V): V;
  mul(a: V, b: V): V;
  and(a: V, b: V): V;
  or(a: V, b: V): V;
  xor(a: V, b: V): V;
  not(a: V): V;
  neg(a: V): V;
  /** The count must be below the container size: 32 for widths up to 32, else 64; larger counts give no defined value. */
  shl(a: V, count: V): V;
  shr(a: V, count: V): V;
  /** Arithmetic: the sign is that of the width of `a`. */
  sar(a: V, count: V): V;
  /** Rotates of the width of `a`; any count. */
  rol(a: V, count: V): V;
  ror(a: V, count: V): V;
  eq(a: V, b: V): V;
  ne(a: V, b: V): V;
  ltu(a: V, b: V): V;
  leu(a: V, b: V): V;
  lts(a: V, b: V): V;
  les(a: V, b: V): V;
  eqz(a: V): V;
  nez(a: V): V;
  zext(a: V, w: AnyWidth): V;
  sext(a: V, w: AnyWidth): V;
  /** The low `w` bits. */
  trunc(a: V, w: AnyWidth): V;
  /** One bit of `a` as a boolean; the position is a constant. */
  bit(a: V, position: number): V;
  select(c: V, ifTrue: V, ifFalse: V): V;
  clz(a: V): V;
  ctz(a: V): V;
  popcnt(a: V): V;
  bswap(a: V): V;
  /** Full product of two values of `w` bits: [low, high]. */
  mulWide(a: V, b: V, signed: boolean): readonly [V, V];
  /** hi:lo / d of `w`-bit values: [quotient, remainder]; raises #DE as DIV or IDIV do. */
  divide(hi: V, lo: V, d: V, signed: boolean): readonly [V, V];

  // ---- registers
  /** General register `r` (0..15), of `w` bits or a narrower part (8: the low byte). */
  reg(r: number, w?: Width): V;
  setReg(r: number, v: V): void;
  /** A field of the state (`S`), of 32 or 64 bits; for system instructions. */
  state(offset: number, w: 32 | 64): V;
  setState(offset: number, v: V): void;
  readonly flags: FlagVerbs<V>;

  // ---- memory
  /** Loads `w` bits at a linear address. */
  load(linear: V, w: AnyWidth): V;
  store(linear: V, v: V): void;
  /** Linear address of offset `ea` in segment `seg` (`SEG`), with the checks of `Operand.linear`. */
  linear(seg: number, ea: V, bytes: number, access: 'read' | 'write'): V;
  /** Segment of the string source: DS or its override. */
  readonly dataSegment: number;
  /** Pushes a value of 16, 32 or 64 bits (stack address size as the mode says). */
  push(v: V): void;
  /**
   * Pops a value of `w` bits. The stack pointer changes when `commit` is called, so that a later access of the same
   * instruction may still fault.
   */
  pop(w: Width): { readonly value: V; commit(extra?: V): void };

  // ---- vectors (128 bits); `op` is a WebAssembly SIMD operator such as 'i8x16.eq' or 'v128.xor'
  simd(op: SimdOp, a: V, b?: V): V;
  /** Shift of all lanes by a 32-bit count below the lane width. */
  simdShift(op: SimdShift, a: V, count: V): V;
  /** 16 lane numbers, 0..15 from `a`, 16..31 from `b`. */
  shuffle(a: V, b: V, lanes: readonly number[]): V;
  /** A lane as an integer of `w` bits, zero-extended. */
  lane(a: V, w: Width, index: number): V;
  withLane(a: V, w: Width, index: number, v: V): V;
  /** Integer `v` in the low lane, zeros above. */
  fromLow(v: V): V;

  // ---- control
  /** Linear block: `f` runs when `c` (1 bit) is true. Values made inside are not visible outside. */
  when(c: V, f: () => void): void;
  /** Jumps to a near target within the code segment (checked, truncated to the operand size). */
  jump(target: V): void;
  /** Jumps to the `rel` operand when `c`; without `c`, always. */
  branch(rel: Operand<V>, c?: V): void;
  /** RIP of the next instruction, of operand-size width rules applied by the row (64 bits wide). */
  nextRip(): V;
  /** Raises a fault (fault semantics: RIP stays at this instruction). */
  fault(vector: number, code?: number): void;
  /**
   * Calls a helper written in TypeScript (`cpu/helpers.ts`) with up to 8 arguments (zero-extended to 64 bits).
   * Leaves the instruction when the helper raised a fault or a VM exit. Returns up to 4 results, 64 bits wide.
   * In rows with `ends: true` the helper may also set where execution continues.
   */
  call(helper: string, args?: readonly V[], results?: 0 | 1 | 2 | 3 | 4): readonly V[];
  /**
   * The body of a string instruction, executed once per iteration: counts RCX down under REP/REPE/REPNE, charges one
   * instruction an iteration, stops at the end of the budget with RIP at the instruction. `again` (1 bit, optional
   * result of `body`) is the extra condition of REPE/REPNE. `bulk` names a helper that may do many iterations at once.
   */
  repeat(body: () => V | undefined, bulk?: string): void;
}

export type SimdOp =
  | 'v128.and'
  | 'v128.andnot'
  | 'v128.or'
  | 'v128.xor'
  | 'v128.not'
  | `i8x16.${'add' | 'sub' | 'eq' | 'gt_s' | 'min_s' | 'min_u' | 'max_s' | 'max_u' | 'avgr_u' | 'add_sat_s' | 'add_sat_u' | 'sub_sat_s' | 'sub_sat_u' | 'narrow_i16x8_s' | 'narrow_i16x8_u' | 'abs' | 'neg' | 'swizzle' | 'bitmask'}`
  | `i16x8.${'add' | 'sub' | 'mul' | 'eq' | 'gt_s' | 'min_s' | 'min_u' | 'max_s' | 'max_u' | 'avgr_u' | 'add_sat_s' | 'add_sat_u' | 'sub_sat_s' | 'sub_sat_u' | 'narrow_i32x4_s' | 'narrow_i32x4_u' | 'abs' | 'neg' | 'bitmask' | 'extmul_low_i8x16_u' | 'extend_low_i8x16_s' | 'extend_low_i8x16_u' | 'q15mulr_sat_s'}`
  | `i32x4.${'add' | 'sub' | 'mul' | 'eq' | 'gt_s' | 'min_s' | 'min_u' | 'max_s' | 'max_u' | 'dot_i16x8_s' | 'extmul_low_i16x8_s' | 'extmul_high_i16x8_s' | 'extmul_low_i16x8_u' | 'extmul_high_i16x8_u' | 'extend_low_i16x8_s' | 'extend_low_i16x8_u' | 'abs' | 'neg' | 'bitmask'}`
  | `i64x2.${'add' | 'sub' | 'mul' | 'eq' | 'gt_s' | 'abs' | 'neg' | 'bitmask' | 'extmul_low_i32x4_u' | 'extmul_low_i32x4_s' | 'extend_low_i32x4_s' | 'extend_low_i32x4_u'}`;
export type SimdShift = `${'i16x8' | 'i32x4' | 'i64x2'}.${'shl' | 'shr_s' | 'shr_u'}`;
