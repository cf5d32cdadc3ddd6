/**
 * A small encoder for WebAssembly modules: types, imports, functions, exports, and a builder for function bodies.
 *
 * `Body` appends operators in stack order. Branch targets are named by absolute depth (`depth` when the label was
 * opened), so that an exit can be emitted anywhere. Only what the interpreter emits is here.
 */
export const I32 = 0x7f;
export const I64 = 0x7e;
export const V128 = 0x7b;
export type ValueType = typeof I32 | typeof I64 | typeof V128;
export interface Signature {
  readonly params: readonly ValueType[];
  readonly results: readonly ValueType[];
}

const unsigned = (out: number[], n: number): void => {
  let v = n >>> 0;
  while (v > 0x7f) {
    out.push((v & 0x7f) | 0x80);
    v >>>= 7;
  }
  out.push(v);
};

const signed32 = (out: number[], n: number): void => {
  let v = n | 0;
  for (;;) {
    const b = v & 0x7f;
    v >>= 7;
    if ((v === 0 && (b & 0x40) === 0) || (v === -1 && (b & 0x40) !== 0)) {
      out.push(b);
      return;
    }
    out.push(b | 0x80);
  }
};

const signed64 = (out: number[], n: bigint): void => {
  let v = BigInt.asIntN(64, n);
  for (;;) {
    const b = Number(v & 0x7fn);
    v >>= 7n;
    if ((v === 0n && (b & 0x40) === 0) || (v === -1n && (b & 0x40) !== 0)) {
      out.push(b);
      return;
    }
    out.push(b | 0x80);
  }
};

/** Operators with no immediate, by name. */
export const OP = {
  unreachable: 0x00,
  else: 0x05,
  end: 0x0b,
  return: 0x0f,
  drop: 0x1a,
  select: 0x1b,
  'i32.eqz': 0x45,
  'i32.eq': 0x46,
  'i32.ne': 0x47,
  'i32.lt_s': 0x48,
  'i32.lt_u': 0x49,
  'i32.gt_s': 0x4a,
  'i32.gt_u': 0x4b,
  'i32.le_s': 0x4c,
  'i32.le_u': 0x4d,
  'i32.ge_s': 0x4e,
  'i32.ge_u': 0x4f,
  'i64.eqz': 0x50,
  'i64.eq': 0x51,
  'i64.ne': 0x52,
  'i64.lt_s': 0x53,
  'i64.lt_u': 0x54,
  'i64.gt_s': 0x55,
  'i64.gt_u': 0x56,
  'i64.le_s': 0x57,
  'i64.le_u': 0x58,
  'i64.ge_s': 0x59,
  'i64.ge_u': 0x5a,
  'i32.clz': 0x67,
  'i32.ctz': 0x68,
  'i32.popcnt': 0x69,
  'i32.add': 0x6a,
  'i32.sub': 0x6b,
  'i32.mul': 0x6c,
  'i32.div_s': 0x6d,
  'i32.div_u': 0x6e,
  'i32.rem_s': 0x6f,
  'i32.rem_u': 0x70,
  'i32.and': 0x71,
  'i32.or': 0x72,
  'i32.xor': 0x73,
  'i32.shl': 0x74,
  'i32.shr_s': 0x75,
  'i32.shr_u': 0x76,
  'i32.rotl': 0x77,
  'i32.rotr': 0x78,
  'i64.clz': 0x79,
  'i64.ctz': 0x7a,
  'i64.popcnt': 0x7b,
  'i64.add': 0x7c,
  'i64.sub': 0x7d,
  'i64.mul': 0x7e,
  'i64.div_s': 0x7f,
  'i64.div_u': 0x80,
  'i64.rem_s': 0x81,
  'i64.rem_u': 0x82,
  'i64.and': 0x83,
  'i64.or': 0x84,
  'i64.xor': 0x85,
  'i64.shl': 0x86,
  'i64.shr_s': 0x87,
  'i64.shr_u': 0x88,
  'i64.rotl': 0x89,
  'i64.rotr': 0x8a,
  'i32.wrap_i64': 0xa7,
  'i64.extend_i32_s': 0xac,
  'i64.extend_i32_u': 0xad,
  'i32.extend8_s': 0xc0,
  'i32.extend16_s': 0xc1,
  'i64.extend8_s': 0xc2,
  'i64.extend16_s': 0xc3,
  'i64.extend32_s': 0xc4,
} as const;
export type OpName = keyof typeof OP;

/** Loads and stores, with their opcode; the alignment hint is always 0. */
export const MEM = {
  'i32.load': 0x28,
  'i64.load': 0x29,
  'i32.load8_u': 0x2d,
  'i32.load16_u': 0x2f,
  'i64.load32_s': 0x34,
  'i64.load32_u': 0x35,
  'i64.load8_u': 0x31,
  'i64.load16_u': 0x33,
  'i32.load16_s': 0x2e,
  'i32.store': 0x36,
  'i64.store': 0x37,
  'i32.store8': 0x3a,
  'i32.store16': 0x3b,
  'i64.store32': 0x3e,
} as const;
export type MemName = keyof typeof MEM;

export class Body {
  readonly bytes: number[] = [];
  readonly #params: number;
  readonly #locals: ValueType[] = [];
  depth = 0;
  /** Replaces `return`, while a body is built into another one. */
  onReturn: (() => void) | undefined;
  /** Locals that `local` may hand out again. */
  #free: number[] = [];
  constructor(params: number) {
    this.#params = params;
  }
  local(type: ValueType): number {
    const i = this.#free.findIndex((l) => this.#locals[l] === type);
    if (i >= 0) return this.#params + this.#free.splice(i, 1)[0];
    this.#locals.push(type);
    return this.#params + this.#locals.length - 1;
  }
  /** All locals so far may be used again: what they hold is not needed any more. */
  reuseLocals(): void {
    this.#free = this.#locals.map((_, i) => i);
  }
  op(name: OpName): this {
    if (name === 'return' && this.onReturn !== undefined) {
      this.onReturn();
      return this;
    }
    this.bytes.push(OP[name]);
    if (name === 'end') this.depth--;
    return this;
  }
  i32(n: number): this {
    this.bytes.push(0x41);
    signed32(this.bytes, n);
    return this;
  }
  i64(n: bigint): this {
    this.bytes.push(0x42);
    signed64(this.bytes, n);
    return this;
  }
  get(local: number): this {
    this.bytes.push(0x20);
    unsigned(this.bytes, local);
    return this;
  }
  set(local: number): this {
    this.bytes.push(0x21);
    unsigned(this.bytes, local);
    return this;
  }
  tee(local: number): this {
    this.bytes.push(0x22);
    unsigned(this.bytes, local);
    return this;
  }
  mem(name: MemName, offset: number): this {
    this.bytes.push(MEM[name], 0);
    unsigned(this.bytes, offset);
    return this;
  }
  /** A SIMD operator by its number behind the 0xfd prefix. */
  simd(code: number): this {
    this.bytes.push(0xfd);
    unsigned(this.bytes, code);
    return this;
  }
  byte(b: number): this {
    this.bytes.push(b);
    return this;
  }
  v128Load(offset: number): this {
    this.bytes.push(0xfd, 0x00, 0);
    unsigned(this.bytes, offset);
    return this;
  }
  v128Store(offset: number): this {
    this.bytes.push(0xfd, 0x0b, 0);
    unsigned(this.bytes, offset);
    return this;
  }
  call(fn: number): this {
    this.bytes.push(0x10);
    unsigned(this.bytes, fn);
    return this;
  }
  callIndirect(type: number): this {
    this.bytes.push(0x11);
    unsigned(this.bytes, type);
    this.bytes.push(0);
    return this;
  }
  if(result?: ValueType): this {
    this.bytes.push(0x04, result ?? 0x40);
    this.depth++;
    return this;
  }
  block(result?: ValueType): this {
    this.bytes.push(0x02, result ?? 0x40);
    this.depth++;
    return this;
  }
  loop(): this {
    this.bytes.push(0x03, 0x40);
    this.depth++;
    return this;
  }
  /** Branches to the label that was opened as number `label` (the `depth` right after it was opened). */
  br(label: number): this {
    this.bytes.push(0x0c);
    unsigned(this.bytes, this.depth - label);
    return this;
  }
  brIf(label: number): this {
    this.bytes.push(0x0d);
    unsigned(this.bytes, this.depth - label);
    return this;
  }
  /** Jumps to the label numbered by the value on the stack, or to the last one. */
  brTable(labels: readonly number[]): this {
    this.bytes.push(0x0e);
    unsigned(this.bytes, labels.length - 1);
    for (const l of labels) unsigned(this.bytes, this.depth - l);
    return this;
  }
  encode(): number[] {
    const out: number[] = [];
    unsigned(out, this.#locals.length);
    for (const t of this.#locals) out.push(1, t);
    for (const b of this.bytes) out.push(b);
    out.push(0x0b);
    return out;
  }
}

/** Collects imports and functions, and encodes the module. Function indexes count imports first. */
export class ModuleBuilder {
  readonly #types: string[] = [];
  readonly #typeBytes: number[][] = [];
  readonly #imports: number[][] = [];
  #importedFunctions = 0;
  readonly #functions: { type: number; body: Body; name: string | undefined }[] = [];

  type(s: Signature): number {
    const key = `${s.params.join()}>${s.results.join()}`;
    const known = this.#types.indexOf(key);
    if (known >= 0) return known;
    this.#types.push(key);
    this.#typeBytes.push([0x60, s.params.length, ...s.params, s.results.length, ...s.results]);
    return this.#types.length - 1;
  }
  importMemory(pages: number): void {
    const b: number[] = [...name('env'), ...name('memory'), 0x02, 0x01];
    unsigned(b, pages);
    unsigned(b, pages);
    this.#imports.push(b);
  }
  importTable(entries: number): void {
    const b: number[] = [...name('env'), ...name('table'), 0x01, 0x70, 0x01];
    unsigned(b, entries);
    unsigned(b, entries);
    this.#imports.push(b);
  }
  importFunction(field: string, s: Signature): number {
    const b: number[] = [...name('env'), ...name(field), 0x00];
    unsigned(b, this.type(s));
    this.#imports.push(b);
    return this.#importedFunctions++;
  }
  /** All imports must have been named before the first function. */
  function(s: Signature, body: Body, exportName?: string): number {
    this.#functions.push({ type: this.type(s), body, name: exportName });
    return this.#importedFunctions + this.#functions.length - 1;
  }
  encode(): Uint8Array<ArrayBuffer> {
    const out: number[] = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
    const section = (id: number, items: readonly (readonly number[])[]): void => {
      if (items.length === 0) return;
      const head: number[] = [];
      unsigned(head, items.length);
      let length = head.length;
      for (const i of items) length += i.length;
      out.push(id);
      unsigned(out, length);
      for (const b of head) out.push(b);
      for (const i of items) for (const b of i) out.push(b);
    };
    section(1, this.#typeBytes);
    section(2, this.#imports);
    section(
      3,
      this.#functions.map((f) => {
        const b: number[] = [];
        unsigned(b, f.type);
        return b;
      }),
    );
    const exports: number[][] = [];
    this.#functions.forEach((f, i) => {
      if (f.name === undefined) return;
      const b = [...name(f.name), 0x00];
      unsigned(b, this.#importedFunctions + i);
      exports.push(b);
    });
    section(7, exports);
    section(
      10,
      this.#functions.map((f) => {
        const code = f.body.encode();
        const b: number[] = [];
        unsigned(b, code.length);
        for (const c of code) b.push(c);
        return b;
      }),
    );
    return new Uint8Array(out);
  }
}

const name = (s: string): number[] => [s.length, ...[...s].map((c) => c.charCodeAt(0))];
