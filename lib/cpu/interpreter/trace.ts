/**
 * Values and statements of a handler being built.
 *
 * Verbs append statements to the current list; a value is a `Node` that knows how to push itself. Nodes that read the
 * state or have several users get a local at the place where they were made, the others are pushed where they are
 * used. So a read keeps the value of its place in the program whatever is written later.
 */
import type { AnyWidth } from '../../isa/verbs.js';
import { type Body, I32, I64, V128, type ValueType } from '../wasm/encoder.js';

export interface Node {
  readonly w: AnyWidth;
  readonly args: readonly Node[];
  readonly push: (b: Body) => void;
  /** Reads state, or has effects: must be evaluated where it was made. */
  readonly pinned: boolean;
  /** Evaluated even when unused (loads may fault). */
  readonly effect: boolean;
  uses: number;
  local: number;
  /** Value of a constant. */
  readonly constant: bigint | undefined;
}

type Statement = (b: Body) => void;

export const typeOf = (w: AnyWidth): ValueType => (w === 128 ? V128 : w === 64 ? I64 : I32);

export class Trace {
  #list: Statement[] = [];

  node(
    w: AnyWidth,
    args: readonly Node[],
    push: (b: Body) => void,
    kind: 'pure' | 'read' | 'effect' = 'pure',
  ): Node {
    for (const a of args) a.uses++;
    const n: Node = {
      w,
      args,
      push,
      pinned: kind !== 'pure',
      effect: kind === 'effect',
      uses: 0,
      local: -1,
      constant: undefined,
    };
    this.#list.push((b) => {
      const wanted = n.effect || (n.pinned ? n.uses > 0 : n.uses > 1);
      if (!wanted) return;
      n.local = b.local(typeOf(w));
      push(b);
      b.set(n.local);
    });
    return n;
  }
  constant(value: bigint, w: AnyWidth): Node {
    const v = BigInt.asUintN(w === 1 ? 1 : w, value);
    const push = (b: Body): void => {
      if (w === 64) b.i64(v);
      else b.i32(Number(BigInt.asIntN(32, v)));
    };
    return { w, args: [], push, pinned: false, effect: false, uses: 0, local: -1, constant: v };
  }
  /** A statement with the values it uses. */
  do(args: readonly Node[], statement: Statement): void {
    for (const a of args) a.uses++;
    this.#list.push(statement);
  }
  /** Statements made by `f`, to be placed by the caller. */
  nested(f: () => void): Statement {
    const outer = this.#list;
    const inner: Statement[] = [];
    this.#list = inner;
    f();
    this.#list = outer;
    return (b) => {
      for (const s of inner) s(b);
    };
  }
  emit(b: Body): void {
    for (const s of this.#list) s(b);
  }
}

/** Pushes a value: its local, or its expression. */
export const push = (b: Body, n: Node): void => {
  if (n.local >= 0) b.get(n.local);
  else n.push(b);
};
