/**
 * The processor's tables in the built-in guest's image: GDT, task state, interrupt gates, and the page tables it starts
 * with (SDM volume 3, "Segment Descriptors", "64-Bit Mode Task Management", "64-Bit Mode IDT", "4-Level Paging").
 */
import { LAYOUT, SELECTOR, SPURIOUS_VECTOR, STATIC, TIMER_VECTOR } from './layout.js';

type Resolve = (label: string) => bigint;
const quads = (values: readonly bigint[]): Uint8Array =>
  new Uint8Array(BigUint64Array.from(values.map((v) => BigInt.asUintN(64, v))).buffer);

const TASK_BYTES = 104;
export const GDT_BYTES = 7 * 8;
/** Null, kernel code and data, user data and code (in the order that SYSRET wants), task state. */
export const gdt = (resolve: Resolve): Uint8Array => {
  const task = BigInt.asUintN(64, resolve('task_state'));
  const low =
    BigInt(TASK_BYTES - 1) | ((task & 0xff_ffffn) << 16n) | (0x89n << 40n) | (((task >> 24n) & 0xffn) << 56n);
  return quads([
    0n,
    0x00af_9b00_0000_ffffn,
    0x00cf_9300_0000_ffffn,
    0x00cf_f300_0000_ffffn,
    0x00af_fb00_0000_ffffn,
    low,
    task >> 32n,
  ]);
};

export { TASK_BYTES };
/** Only the stack of ring 0 and an I/O bitmap beyond the limit. */
export const taskState = (stackTop: bigint): Uint8Array => {
  const bytes = new Uint8Array(TASK_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(4, stackTop, true);
  view.setUint16(102, TASK_BYTES, true);
  return bytes;
};

export const IDT_BYTES = 256 * 16;
/** Exceptions whose frame has an error code. */
export const WITH_CODE: ReadonlySet<number> = new Set([8, 10, 11, 12, 13, 14, 17, 21]);
/** Interrupt gates: `vector_N` of each exception, the timer and the spurious interrupt. */
export const idt = (resolve: Resolve): Uint8Array => {
  const gates = new Array<bigint>(512).fill(0n);
  const set = (vector: number, label: string): void => {
    const target = BigInt.asUintN(64, resolve(label));
    gates[2 * vector] =
      (target & 0xffffn) |
      (BigInt(SELECTOR.code) << 16n) |
      (0x8en << 40n) |
      (((target >> 16n) & 0xffffn) << 48n);
    gates[2 * vector + 1] = target >> 32n;
  };
  for (let vector = 0; vector < 32; vector++) set(vector, `vector_${vector}`);
  set(TIMER_VECTOR, 'timer_interrupt');
  set(SPURIOUS_VECTOR, 'spurious_interrupt');
  return quads(gates);
};

/** Limit and linear address, as LGDT and LIDT read them. */
export const pointer = (limit: number, base: bigint): Uint8Array => {
  const bytes = new Uint8Array(10);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, limit, true);
  view.setBigUint64(2, BigInt.asUintN(64, base), true);
  return bytes;
};

const TABLE = 0x63n; // present, writable, accessed, dirty
const LARGE = 0xe3n;
const UNCACHED = 0x18n;
const DEVICES = 0xc000_0000n;

/** The four tables at `LAYOUT.tables`. */
export const staticTables = (): Uint8Array => {
  const entries = new Array<bigint>(4 * 512).fill(0n);
  entries[511] = BigInt(STATIC.pdpt) | TABLE;
  entries[512 + 510] = BigInt(STATIC.direct) | TABLE;
  entries[512 + 511] = BigInt(STATIC.devices) | TABLE;
  for (let i = 0; i < LAYOUT.directBytes / 0x20_0000; i++) entries[1024 + i] = (BigInt(i) << 21n) | LARGE;
  for (let i = 0; i < 512; i++) entries[1536 + i] = (DEVICES + (BigInt(i) << 21n)) | LARGE | UNCACHED;
  return quads(entries);
};
