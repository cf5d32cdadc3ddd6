/**
 * Handlers: one WebAssembly function for every combination of form, sizes and operand kinds that decoded code needs.
 *
 * Instructions that share a handler differ only in what their records hold. Handlers are built in batches: `of` names
 * a handler and queues it when it is new, `flush` builds all queued ones as one module and puts them into the table.
 */
import { InvariantError } from '../../base/error.js';
import type { Insn } from '../../isa/rows.js';
import { CR0, CR4, FLAG, LEAVE, S, SEG } from '../../isa/state.js';
import type { Operand } from '../../isa/verbs.js';
import { Body, ModuleBuilder } from '../wasm/encoder.js';
import { type Arm, addRuntime } from './core-module.js';
import {
  ImmediateOperand,
  MemoryOperandVerbs,
  NumberOperand,
  REGISTER_FIELDS,
  RegisterOperand,
} from './operands.js';
import type { RuntimeIndex } from './runtime.js';
import type { Node } from './trace.js';
import { HANDLER_SIGNATURE, Tracer } from './tracer.js';

export interface Handler {
  readonly index: number;
  /** The block ends with this instruction. */
  readonly ends: boolean;
}

/** Handlers that are not instructions. */
export const PSEUDO = {
  none: 0,
  next: 1,
  stop: 2,
  stale: 3,
  crossing: 4,
  undefined: 5,
  tooLong: 6,
  entry: 7,
} as const;
const FIRST_FREE = 8;

const REP = { none: 0, rep: 1, repne: 2 } as const;
const BY_WIDTH: Readonly<Record<number, number>> = { 8: 0, 16: 1, 32: 2, 64: 3, 128: 4 };

/**
 * What distinguishes the handlers of a form (which fixes the codes of its operands), as one signed 32-bit number: sizes,
 * prefixes, whether operands are memory and which address form they have.
 */
export const handlerKey = (i: Insn): number => {
  const m = i.mem;
  // in 64-bit mode only FS and GS have bases; SS decides the fault of a bad address
  const seg =
    m === undefined
      ? 7
      : i.mode !== 64 || m.seg === SEG.fs || m.seg === SEG.gs || m.seg === SEG.ss
        ? m.seg
        : 6;
  const address = m === undefined ? 0 : m.moffs !== undefined ? 1 : m.index >= 0 ? 2 : 3;
  let memory = 0;
  for (let k = 0; k < i.operands.length; k++) if (i.operands[k].kind === 'mem') memory |= 1 << k;
  let low = BY_WIDTH[i.w];
  low = low * 3 + (i.aw >> 5);
  low = low * 3 + (i.mode >> 5);
  low = (low << 4) | i.cc;
  low = (low << 1) | (i.lock ? 1 : 0);
  low = (low << 2) | REP[i.rep];
  low = (low << 3) | (i.row.string === undefined ? 0 : i.dataSegment);
  low = (low << 3) | seg;
  low = (low << 2) | address;
  low = (low << 4) | memory;
  return low | 0;
};

const operandsOf = (o: Tracer, insn: Insn): Operand<Node>[] => {
  let registers = 0;
  let immediates = 0;
  return insn.operands.map((op) => {
    const fixed = 'fixed' in op && op.fixed === true;
    switch (op.kind) {
      case 'reg':
      case 'xmm':
      case 'mmx':
        return new RegisterOperand(o.t, op, fixed ? undefined : REGISTER_FIELDS[registers++]);
      case 'seg':
      case 'cr':
      case 'dr':
      case 'st':
        return new NumberOperand(o.t, op, fixed ? undefined : REGISTER_FIELDS[registers++]);
      case 'mem':
        return new MemoryOperandVerbs(o.t, o, o.memory, insn, op);
      default:
        return new ImmediateOperand(o.t, op, !fixed && immediates++ > 0);
    }
  });
};

/** Privilege and unit checks that precede the semantics. */
const prologue = (o: Tracer, insn: Insn): void => {
  const { row } = insn;
  if (row.modes === 'protected' && insn.mode !== 64) {
    const real = o.eqz(o.and(o.state(S.cr0, 32), o.imm(CR0.pe, 32)));
    o.when(o.or(real, o.nez(o.and(o.state(S.eflags, 32), o.imm(FLAG.vm, 32)))), () => o.fault(6));
  }
  if (row.cpl === 0) o.when(o.nez(o.state(S.cpl, 32)), () => o.fault(13, 0));
  if (row.unit === undefined) return;
  const cr0 = o.and(o.state(S.cr0, 32), o.imm(row.unit === 'wait' ? CR0.ts : CR0.em | CR0.ts, 32));
  if (row.unit === 'sse') {
    const off = o.eqz(o.and(o.state(S.cr4, 32), o.imm(CR4.osfxsr, 32)));
    o.when(o.or(o.nez(cr0), off), () => o.call('checkSse'));
    return;
  }
  const pending = o.and(o.state(S.fsw, 32), o.imm(0x80, 32));
  const check = row.unit === 'x87' ? 'checkX87' : row.unit === 'mmx' ? 'checkMmx' : 'checkWait';
  o.when(o.nez(o.or(cr0, pending)), () => o.call(check));
};

export class Handlers {
  /** By form, then by `handlerKey`. */
  readonly #byForm: Map<number, Handler>[] = [];
  #count = 0;
  #queue: { readonly index: number; readonly body: Body }[] = [];
  #next = FIRST_FREE;
  /** Handlers below this index are never forgotten. */
  #kept = FIRST_FREE;
  readonly #table: WebAssembly.Table;
  readonly #imports: WebAssembly.Imports;
  readonly #pages: number;
  readonly #helper: (name: string) => number;
  readonly #fn: RuntimeIndex;
  /** Modules built, and handlers in them: for the bench. */
  modules = 0;

  constructor(
    table: WebAssembly.Table,
    imports: WebAssembly.Imports,
    pages: number,
    helper: (name: string) => number,
  ) {
    this.#table = table;
    this.#imports = imports;
    this.#pages = pages;
    this.#helper = helper;
    this.#fn = addRuntime(new ModuleBuilder());
    this.#pseudo();
    this.flush();
  }
  get count(): number {
    return this.#count;
  }
  /** The statements of a handler, for the run loop: numbered like the handler, which `of` has made before. */
  arm(insn: Insn): Arm {
    const { index } = this.of(insn);
    return { index, emit: this.#trace(insn).emit };
  }
  of(insn: Insn): Handler {
    const key = handlerKey(insn);
    this.#byForm[insn.form] ??= new Map();
    const known = this.#byForm[insn.form].get(key);
    if (known !== undefined) return known;
    const { ends, emit } = this.#trace(insn);
    const body = new Body(1);
    emit(body);
    const handler = { index: this.#allocate(), ends };
    this.#queue.push({ index: handler.index, body });
    this.#byForm[insn.form].set(key, handler);
    this.#count++;
    return handler;
  }
  #trace(insn: Insn): { readonly ends: boolean; readonly emit: (b: Body) => void } {
    const o = new Tracer(insn, this.#fn, this.#helper);
    const { row } = insn;
    prologue(o, insn);
    if (row.ends === true) o.noteRip();
    const sem = row.semCc === undefined ? row.sem : row.semCc(insn.cc);
    sem<Node>(o, ...operandsOf(o, insn));
    const repeated = row.string !== undefined && insn.rep !== 'none';
    const ends = row.ends === true || o.jumps || repeated;
    if (row.ends !== true && ends) o.fallThrough();
    return {
      ends,
      emit: (body) => {
        o.t.emit(body);
        if (row.ends === true) o.endDispatch(body);
        else if (ends) body.op('unreachable');
        else o.endSequential(body);
      },
    };
  }
  #allocate(): number {
    if (this.#next >= this.#table.length)
      throw new InvariantError(`more than ${this.#table.length} handlers: room was not asked for`);
    return this.#next++;
  }
  /** Handlers that fit into the table besides those that are there. */
  get room(): number {
    return this.#table.length - this.#next;
  }
  /** What is built so far stays when room is made. */
  keep(): void {
    this.flush();
    this.#kept = this.#next;
  }
  /** Makes room: forgets all but the kept handlers. No record that names another one may be run after that. */
  forget(): void {
    this.#queue = [];
    for (const handlers of this.#byForm) {
      // forms that were never met leave holes
      for (const [key, { index }] of handlers ?? []) {
        if (index < this.#kept) continue;
        handlers.delete(key);
        this.#count--;
      }
    }
    for (let i = this.#kept; i < this.#next; i++) this.#table.set(i, null);
    this.#next = this.#kept;
  }
  /** Builds what is queued. Must be called before records that name new handlers run. */
  flush(): void {
    if (this.#queue.length === 0) return;
    const m = new ModuleBuilder();
    m.importMemory(this.#pages);
    addRuntime(m);
    for (const { index, body } of this.#queue) m.function(HANDLER_SIGNATURE, body, `h${index}`);
    const instance = new WebAssembly.Instance(new WebAssembly.Module(m.encode()), this.#imports);
    for (const { index } of this.#queue)
      this.#table.set(index, instance.exports[`h${index}`] as () => number);
    this.#queue = [];
    this.modules++;
  }
  #pseudo(): void {
    const plain = {
      row: { name: '', forms: [], sdm: '', sem: () => {} },
      form: 0,
      cc: 0,
      length: 0,
      w: 64,
      aw: 64,
      mode: 64,
      lock: false,
      rep: 'none',
      rex: 0,
      operands: [],
      mem: undefined,
      dataSegment: 3,
    } as const;
    const add = (index: number, build: (o: Tracer) => void, end: (o: Tracer, b: Body) => void): void => {
      const o = new Tracer(plain, this.#fn, this.#helper);
      build(o);
      const body = new Body(1);
      o.t.emit(body);
      end(o, body);
      this.#queue.push({ index, body });
    };
    const never = (_: Tracer, b: Body): void => {
      b.op('unreachable');
    };
    add(PSEUDO.next, (o) => o.fallThrough(), never);
    add(PSEUDO.stop, (o) => o.stop(LEAVE.budget), never);
    add(PSEUDO.stale, (o) => o.stop(LEAVE.stale), never);
    add(
      PSEUDO.crossing,
      (o) => o.call('crossing'),
      (o, b) => o.endSequential(b),
    );
    add(PSEUDO.entry, (o) => o.enterAgain(), never);
    add(PSEUDO.undefined, (o) => o.fault(6), never);
    add(PSEUDO.tooLong, (o) => o.fault(13, 0), never);
  }
}
