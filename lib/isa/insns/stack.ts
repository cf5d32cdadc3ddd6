/**
 * Stack instructions on general registers, memory and immediates.
 *
 * SDM volume 1, section "Procedure Stack" and "Data Transfer Instructions". Pushes and pops of segment registers and of
 * the flags are system rows. PUSHA, POPA, ENTER and LEAVE make all their accesses before they change a register.
 */
import type { InsnRow, Sem } from '../rows.js';
import { S, SEG } from '../state.js';
import type { Ops, Width } from '../verbs.js';

/** The stack with the address size of the stack segment, which legacy modes learn at run time. */
interface Stack<V> {
  /** Width of `V` offsets: 64 in 64-bit mode, else 32 (masked to 16 where the segment says so). */
  readonly w: 32 | 64;
  offset(base: V, delta: number): V;
  read(base: V, delta: number, w: Width): V;
  write(base: V, delta: number, v: V, w: Width): void;
  /** Makes `offset` the stack pointer. */
  setPointer(offset: V): void;
}

const stackOf = <V>(o: Ops<V>): Stack<V> => {
  const w = o.mode === 64 ? 64 : 32;
  const narrow = w === 64 ? undefined : o.eq(o.state(S.stackSize, 32), o.imm(16, 32));
  const wrap = (v: V): V => (narrow === undefined ? v : o.select(narrow, o.and(v, o.imm(0xffff, 32)), v));
  const offset = (base: V, delta: number): V =>
    wrap(delta < 0 ? o.sub(base, o.imm(-delta, w)) : o.add(base, o.imm(delta, w)));
  const linear = (base: V, delta: number, bits: Width, access: 'read' | 'write'): V =>
    o.linear(SEG.ss, offset(base, delta), bits / 8, access);
  return {
    w,
    offset,
    read: (base, delta, bits) => o.load(linear(base, delta, bits, 'read'), bits),
    write: (base, delta, v, bits) => o.store(linear(base, delta, bits, 'write'), v),
    setPointer: (at) => {
      if (narrow === undefined) o.setReg(4, at);
      else {
        const high = o.and(o.reg(4, 32), o.imm(0xffff0000, 32));
        o.setReg(4, o.select(narrow, o.or(high, o.and(at, o.imm(0xffff, 32))), at));
      }
    },
  };
};

const push: Sem = (o, s) => o.push(s.read());

const popRegister: Sem = (o, d) => {
  const popped = o.pop(o.w);
  popped.commit();
  d.write(popped.value);
};

/** An address based on rSP is that after the increment: the difference is found before anything can fault. */
const popMemory: Sem = (o, d) => {
  const { value, commit } = o.pop(o.w);
  const stack = stackOf(o);
  const pointer = o.reg(4, stack.w);
  const before = d.ea();
  stack.setPointer(stack.offset(pointer, o.w / 8));
  // a new operand, since an engine may compute the address of one only once
  const after = d.at(o.imm(0, o.aw)).ea();
  o.setReg(4, pointer);
  d.at(o.sub(after, before)).write(value);
  commit();
};

const pusha: Sem = (o) => {
  const bytes = o.w / 8;
  const stack = stackOf(o);
  const pointer = o.reg(4, stack.w);
  for (let r = 0; r < 8; r++) stack.write(pointer, -(r + 1) * bytes, o.reg(r, o.w), o.w);
  stack.setPointer(stack.offset(pointer, -8 * bytes));
};

const popa: Sem = (o) => {
  const bytes = o.w / 8;
  const stack = stackOf(o);
  const pointer = o.reg(4, stack.w);
  const values = [7, 6, 5, 3, 2, 1, 0].map((r) => [r, stack.read(pointer, (7 - r) * bytes, o.w)] as const);
  stack.setPointer(stack.offset(pointer, 8 * bytes));
  for (const [r, v] of values) o.setReg(r, v);
};

/** Most frame pointers that ENTER copies, and one. */
const MAX_LEVEL = 31;

const enter: Sem = (o, size, level) => {
  const bytes = o.w / 8;
  const stack = stackOf(o);
  const sw = stack.w;
  const pointer = o.reg(4, sw);
  const frame = o.reg(5, sw);
  const n = o.and(o.zext(level.read(), 32), o.imm(MAX_LEVEL, 32));
  const newFrame = stack.offset(pointer, -bytes);
  stack.write(pointer, -bytes, o.reg(5, o.w), o.w);
  const asOperand = (v: typeof pointer): typeof pointer => (sw === o.w ? v : o.trunc(v, o.w));
  for (let i = 1; i < MAX_LEVEL; i++) {
    o.when(o.ltu(o.imm(i, 32), n), () => {
      stack.write(pointer, -(i + 1) * bytes, stack.read(frame, -i * bytes, o.w), o.w);
    });
  }
  const display = o.mul(o.zext(n, sw), o.imm(bytes, sw));
  const copied = stack.offset(o.sub(newFrame, display), 0);
  o.when(o.nez(n), () => stack.write(copied, 0, asOperand(newFrame), o.w));
  const final = stack.offset(o.sub(copied, o.zext(size.read(), sw)), 0);
  // the new top of the stack must be writable
  o.call('probeStack', [o.linear(SEG.ss, final, bytes, 'write'), o.imm(bytes, 32)]);
  stack.setPointer(final);
  o.setReg(5, asOperand(newFrame));
};

const leave: Sem = (o) => {
  const stack = stackOf(o);
  const frame = o.reg(5, stack.w);
  const saved = stack.read(frame, 0, o.w);
  stack.setPointer(stack.offset(frame, o.w / 8));
  o.setReg(5, saved);
};

export const STACK_ROWS: readonly InsnRow[] = [
  {
    name: 'push',
    forms: ['50+r Zv', 'ff /6 Ev', '68 iz Iz', '6a ib Ibs'],
    sdm: 'PUSH—Push Word, Doubleword, or Quadword Onto the Stack',
    size: 'd64',
    sem: push,
  },
  {
    name: 'pop',
    forms: ['58+r Zv', '8f /0:reg Rv'],
    sdm: 'POP—Pop a Value From the Stack',
    size: 'd64',
    sem: popRegister,
  },
  {
    name: 'pop',
    forms: ['8f /0:mem Mv'],
    sdm: 'POP—Pop a Value From the Stack',
    size: 'd64',
    sem: popMemory,
  },
  {
    name: 'pusha',
    forms: ['60'],
    sdm: 'PUSHA/PUSHAD—Push All General-Purpose Registers',
    modes: 'no64',
    sem: pusha,
  },
  {
    name: 'popa',
    forms: ['61'],
    sdm: 'POPA/POPAD—Pop All General-Purpose Registers',
    modes: 'no64',
    sem: popa,
  },
  {
    name: 'enter',
    forms: ['c8 iw ib Iw,Ib'],
    sdm: 'ENTER—Make Stack Frame for Procedure Parameters',
    size: 'd64',
    sem: enter,
  },
  { name: 'leave', forms: ['c9'], sdm: 'LEAVE—High Level Procedure Exit', size: 'd64', sem: leave },
];
