/**
 * Page faults of every combination: the guest program that tries each access, and the SDM's rules as an oracle.
 *
 * SDM volume 3, "Determination of Access Rights" and "Page-Fault Exceptions" (error code), "Accessed and Dirty Flags".
 * One program a combination of CR0.WP, EFER.NXE, CR4.SMEP, CR4.SMAP and RFLAGS.AC tries, for every form of a page-table
 * entry (P, W, U, XD, a reserved bit), a read, a write and a fetch from CPL 0 and CPL 3, each on a fresh page. It notes
 * in memory what happened: 0 for no fault, else the error code + 1, and CR2.
 */
import type { Start } from './machine.js';
import { AT, type Image, makeWorld, pageEntry, putGate, sel, type World } from './worlds.js';

export interface Controls {
  readonly wp: boolean;
  readonly nxe: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
  readonly ac: boolean;
}
export interface Entry {
  readonly p: boolean;
  readonly w: boolean;
  readonly u: boolean;
  readonly xd: boolean;
  readonly reserved: boolean;
}
export const ACCESSES = ['read', 'write', 'fetch'] as const;
export type AccessKind = (typeof ACCESSES)[number];
export interface Case {
  readonly entry: Entry;
  readonly access: AccessKind;
  readonly user: boolean;
  /** Linear address, a page of its own. */
  readonly linear: number;
}

const bits = <K extends string>(names: readonly K[], n: number): Record<K, boolean> =>
  Object.fromEntries(names.map((name, i) => [name, ((n >> i) & 1) !== 0])) as Record<K, boolean>;
export const CONTROLS: readonly Controls[] = Array.from({ length: 32 }, (_, n) =>
  bits(['wp', 'nxe', 'smep', 'smap', 'ac'], n),
);
/** The linear addresses begin here; the second table of 512 pages maps all of them to one frame. */
const FIRST = 0x20_0000;
const TABLE = 0x1_0000;
const FRAME = 0x1_1000;
const LOG = 0x1_2000;
/** Where reads and writes go in their page; a fetch begins at 0. */
export const DATA = 0x40;
const USER_CODE = 0x1_f000;
export const CASES: readonly Case[] = Array.from({ length: 32 }, (_, n) =>
  bits(['p', 'w', 'u', 'xd', 'reserved'], n),
)
  .flatMap((entry) => ACCESSES.flatMap((access) => [false, true].map((user) => ({ entry, access, user }))))
  .map((c, i) => ({ ...c, linear: FIRST + i * 4096 }));

/** What the access does: undefined when it succeeds, else the error code. */
export const expected = (c: Case, k: Controls): number | undefined => {
  const { entry, access, user } = c;
  const write = access === 'write';
  const fetch = access === 'fetch';
  const reserved = entry.p && (entry.reserved || (entry.xd && !k.nxe));
  const base = (write ? 2 : 0) | (user ? 4 : 0) | (fetch && (k.nxe || k.smep) ? 16 : 0);
  if (!entry.p) return base;
  if (reserved) return base | 1 | 8;
  const denied = user
    ? !entry.u || (write && !entry.w) || (fetch && entry.xd)
    : fetch
      ? entry.xd || (entry.u && k.smep)
      : (entry.u && k.smap && !k.ac) || (write && !entry.w && k.wp);
  return denied ? base | 1 : undefined;
};

/** The entry of a case after the program: accessed and dirty bits where the access went through. */
export const entryOf = (c: Case, image: Uint8Array): number => {
  const at = TABLE + 8 * ((c.linear - FIRST) >>> 12);
  return (image[at] as number) & 0x61;
};
export const logOf = (memory: Uint8Array, i: number): { code: number; cr2: number } => {
  const v = new DataView(memory.buffer, memory.byteOffset);
  return { code: v.getInt32(LOG + 8 * i, true), cr2: v.getUint32(LOG + 8 * i + 4, true) };
};

const le = (v: number, n: number): number[] => Array.from({ length: n }, (_, i) => (v >>> (8 * i)) & 0xff);
const RESUME = 0x80;
const INT_RESUME = [0xcd, RESUME];

/**
 * The program, in 64-bit code: for each case R8 = where to go on, then straight-line code at CPL 0, or IRETQ to CPL 3.
 * A fault comes back through its handler, success through INT 0x80; both write the log entry at [RDI] and jump to R8.
 */
const program = (image: Image, k: Controls): void => {
  const code: number[] = [];
  const CODE = 0x1_6000;
  const HANDLER_PF = AT.taskCode;
  const HANDLER_OK = AT.taskCode + 0x100;
  const at = (): number => CODE + code.length;
  for (const [i, c] of CASES.entries()) {
    // mov edi, log; mov ebx, linear
    code.push(0xbf, ...le(LOG + 8 * i, 4), 0xbb, ...le(c.linear, 4));
    const body =
      c.access === 'read'
        ? [0x8a, 0x43, DATA, ...INT_RESUME]
        : c.access === 'write'
          ? [0x88, 0x43, DATA, ...INT_RESUME]
          : [0xff, 0xe3];
    if (!c.user) {
      // mov r8, next; push flags with AC as asked; popfq
      const head = 6 + 1 + 5 + 1 + body.length;
      code.push(0x41, 0xb8, ...le(at() + head, 4));
      code.push(0x68, ...le(k.ac ? 0x4_0002 : 2, 4), 0x9d, 0x90, ...body);
    } else {
      // push ss; push rsp; push rflags; push cs; push rip; iretq
      const frame = 5 * 5 + 2;
      const rip = USER_CODE + 16 * ACCESSES.indexOf(c.access);
      image.put(rip, 1, ...body);
      code.push(0x41, 0xb8, ...le(at() + 6 + frame, 4));
      for (const v of [sel('data32', 3), AT.userStack, k.ac ? 0x4_0002 : 2, sel('code64', 3), rip])
        code.push(0x68, ...le(v, 4));
      code.push(0x48, 0xcf);
    }
  }
  code.push(0xf4);
  image.put(CODE, 1, ...code);
  image.put(AT.code, 1, 0xb8, ...le(CODE, 4), 0xff, 0xe0);
  // #PF: pop rax; inc eax; mov [rdi], eax; mov rax, cr2; mov [rdi+4], eax; mov rsp, kernel stack; jmp r8
  const back = [0xbc, ...le(AT.kernelStack, 4), 0x41, 0xff, 0xe0];
  image.put(HANDLER_PF, 1, 0x58, 0xff, 0xc0, 0x89, 0x07, 0x0f, 0x20, 0xd0, 0x89, 0x47, 0x04, ...back);
  // INT 0x80: mov dword [rdi], -1; jmp r8
  image.put(HANDLER_OK, 1, 0xc7, 0x07, ...le(-1, 4), ...back);
  putGate(image, 'int64', 14, HANDLER_PF, { dpl: 0 });
  putGate(image, 'int64', RESUME, HANDLER_OK, { dpl: 3 });
  // what a fetch finds
  image.put(FRAME, 1, ...INT_RESUME);
};

export const pageFaultImage = (w: World, k: Controls): { readonly image: Image; readonly start: Start } => {
  const { image, start } = makeWorld(w);
  // the program's own pages are the supervisor's, but for those that user code needs
  for (let page = 0; page < 32; page++) {
    const { at, size } = pageEntry(w.paging, page << 12);
    const user = page << 12 === USER_CODE;
    image.put(at, size, (page << 12) | (user ? 5 : 3));
  }
  image.put(AT.tables + 0x2008, 8, TABLE | 7);
  for (const c of CASES) {
    const e = c.entry;
    const low = (e.p ? 1 : 0) | (e.w ? 2 : 0) | (e.u ? 4 : 0);
    const high = (e.xd ? 1n << 63n : 0n) | (e.reserved ? 1n << 51n : 0n);
    image.put(TABLE + 8 * ((c.linear - FIRST) >>> 12), 8, BigInt(FRAME | low) | high);
  }
  program(image, k);
  return {
    image,
    start: {
      ...start,
      rflags: 2,
      cr0: start.cr0 | (k.wp ? 0x1_0000n : 0n),
      cr4: start.cr4 | (k.smep ? 0x10_0000n : 0n) | (k.smap ? 0x20_0000n : 0n),
      efer: k.nxe ? 0xd00n : 0x500n,
    },
  };
};
