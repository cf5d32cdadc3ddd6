/**
 * Memory accesses of handlers: the inline TLB lookup and the slow path.
 *
 * The fast path is one tag compare (`memory/access.ts`); it covers permission, page crossing and writes to pages with
 * decoded code. The slow path returns a pointer, the bounce buffer, or -1 when the instruction was left.
 */
import { S } from '../../isa/state.js';
import type { AnyWidth } from '../../isa/verbs.js';
import { ACCESS, TLB_INDEX_MASK } from '../../memory/access.js';
import { type Body, I32, I64 } from '../wasm/encoder.js';
import { at } from './core-module.js';
import type { RuntimeIndex } from './runtime.js';
import { type Node, push, type Trace } from './trace.js';

/** Flag in the size word of a slow access: the address came through SS. */
export const STACK_ACCESS = 0x1_0000;
/** The address must be aligned to its size. */
export const ALIGNED_ACCESS = 0x2_0000;

const LOAD: Readonly<Record<number, 'i32.load8_u' | 'i32.load16_u' | 'i32.load' | 'i64.load'>> = {
  8: 'i32.load8_u',
  16: 'i32.load16_u',
  32: 'i32.load',
  64: 'i64.load',
};
const STORE: Readonly<Record<number, 'i32.store8' | 'i32.store16' | 'i32.store' | 'i64.store'>> = {
  8: 'i32.store8',
  16: 'i32.store16',
  32: 'i32.store',
  64: 'i64.store',
};

export const pushLoad = (b: Body, w: AnyWidth, offset = 0): void => {
  if (w === 128) b.v128Load(offset);
  else b.mem(LOAD[w], offset);
};
export const pushStore = (b: Body, w: AnyWidth, offset = 0): void => {
  if (w === 128) b.v128Store(offset);
  else b.mem(STORE[w], offset);
};

/** Notes the record so that TypeScript knows where we are. Handlers have it as parameter 0. */
export const noteRecord = (b: Body): void => {
  b.i32(0).get(0).mem('i32.store', at(S.record));
};
export const leaveHandler = (b: Body): void => {
  b.i32(0).op('return');
};

export class MemoryVerbs {
  readonly #t: Trace;
  readonly #fn: RuntimeIndex;
  constructor(t: Trace, fn: RuntimeIndex) {
    this.#t = t;
    this.#fn = fn;
  }
  /** Emits the lookup of `size` bytes at local `lin`; leaves the pointer on the stack. */
  #lookup(b: Body, lin: number, size: number, kind: number, flags: number): void {
    const entry = b.local(I32);
    const p = b.local(I32);
    b.i32(0).mem('i32.load', at(kind === ACCESS.read ? S.tlbRead : S.tlbWrite));
    b.get(lin)
      .i64(8n)
      .op('i64.shr_u')
      .op('i32.wrap_i64')
      .i32(TLB_INDEX_MASK)
      .op('i32.and')
      .op('i32.add')
      .tee(entry);
    b.mem('i64.load', 0).get(lin);
    if (size > 1) b.i64(BigInt(size - 1)).op('i64.add');
    b.i64(-4096n).op('i64.and').op('i64.eq');
    if ((flags & ALIGNED_ACCESS) !== 0)
      b.get(lin)
        .op('i32.wrap_i64')
        .i32(size - 1)
        .op('i32.and')
        .op('i32.eqz')
        .op('i32.and');
    b.if(I32);
    b.get(entry).mem('i32.load', 8).get(lin).op('i32.wrap_i64').op('i32.add');
    b.op('else');
    noteRecord(b);
    b.get(lin)
      .op('i32.wrap_i64')
      .get(lin)
      .i64(32n)
      .op('i64.shr_u')
      .op('i32.wrap_i64')
      .i32(size | (kind << 8) | flags)
      .call(this.#fn.slow);
    b.tee(p).i32(-1).op('i32.eq').if();
    leaveHandler(b);
    b.op('end').get(p).op('end');
  }
  #linear(b: Body, linear: Node): number {
    if (linear.local >= 0) return linear.local;
    const l = b.local(I64);
    push(b, linear);
    b.set(l);
    return l;
  }
  load(linear: Node, w: AnyWidth, flags = 0): Node {
    return this.#t.node(
      w,
      [linear],
      (b) => {
        this.#lookup(b, this.#linear(b, linear), w / 8, ACCESS.read, flags);
        pushLoad(b, w);
      },
      'effect',
    );
  }
  store(linear: Node, v: Node, flags = 0): void {
    this.#t.do([linear, v], (b) => {
      const p = b.local(I32);
      this.#lookup(b, this.#linear(b, linear), v.w / 8, ACCESS.write, flags);
      b.tee(p);
      push(b, v);
      pushStore(b, v.w);
      this.#commit(b, p);
    });
  }
  #commit(b: Body, p: number): void {
    b.get(p).i32(at(S.bounce)).op('i32.eq').if().call(this.#fn.commit).op('end');
  }
  /** One write access: the pointer stays valid until the returned `store` puts the new value there. */
  modify(linear: Node, w: AnyWidth, flags = 0): { readonly old: Node; readonly store: (v: Node) => void } {
    const pointer = this.#t.node(
      32,
      [linear],
      (b) => {
        this.#lookup(b, this.#linear(b, linear), w / 8, ACCESS.rmw, flags);
      },
      'effect',
    );
    const old = this.#t.node(
      w,
      [pointer],
      (b) => {
        push(b, pointer);
        pushLoad(b, w);
      },
      'read',
    );
    return {
      old,
      store: (v) => {
        this.#t.do([pointer, v], (b) => {
          push(b, pointer);
          push(b, v);
          pushStore(b, w);
          this.#commit(b, pointer.local);
        });
      },
    };
  }
}
