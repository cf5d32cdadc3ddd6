/**
 * The built-in guest: a 64-bit kernel that the project assembles, for a lab without Debian's packages and for
 * experiments whose exits can be foretold (`predict.ts`).
 *
 * It is started in its own address space with paging on, at the kernel's high addresses. It prints the same markers as
 * the Debian guest, reads the lab's leaves, runs the workload, reads them again and powers off.
 */
import { LabError } from '../../base/error.js';
import { longModeEntry } from '../../loaders/linux-boot.js';
import { listedSymbols } from '../../loaders/symbols.js';
import type { LeafNumbers } from '../debian/init.js';
import type { GuestImage } from '../guest.js';
import { Assembler, type Program } from './assembler.js';
import { BOOT_SOURCE } from './boot.js';
import { CONSOLE_SOURCE } from './console.js';
import {
  GDT_BYTES,
  gdt,
  IDT_BYTES,
  idt,
  pointer,
  staticTables,
  TASK_BYTES,
  taskState,
} from './descriptors.js';
import { CONSTANTS, LAYOUT, STACK_TOP, STATIC } from './layout.js';
import { MEMORY_SOURCE } from './memory.js';
import { PROCESS_SOURCE } from './process.js';
import { USER_SOURCE } from './user.js';
import { checkWorkload, peakFrames, type TinyWorkload, WORKLOAD_NAMES } from './workload.js';

export interface TinyOptions {
  /** Bytes of guest memory; 64 MiB at least, so that shadow tables are never recycled; the first GiB is used. */
  readonly memory: number;
  readonly leaves: LeafNumbers;
  readonly workload?: Readonly<Partial<TinyWorkload>>;
}

const DIRECT = LAYOUT.direct;
const LEAST_MEMORY = 64 << 20;
const KERNEL_BASE = DIRECT + BigInt(LAYOUT.kernel);

/** The user program and, in the page behind it, its parameters. */
const userProgram = (workload: TinyWorkload): Program => {
  const data = WORKLOAD_NAMES.map((name) => `${name}: .dword ${workload[name]}`).join('\n');
  return new Assembler(LAYOUT.userCode, CONSTANTS)
    .source(`${USER_SOURCE}\n.align 4096\nuser_data:\ntick_count: .dword 0\n${data}\n.align 4096`)
    .assemble();
};

const kernelProgram = (
  user: Program,
  workload: TinyWorkload,
  frameEnd: number,
  leaves: LeafNumbers,
): Program => {
  // the user's labels that the kernel needs, as offsets into the copy that the image has
  const offset = (label: string): bigint => user.address(label) - LAYOUT.userCode;
  const constants = {
    ...CONSTANTS,
    TABLE_QUADS: (LAYOUT.tablesEnd - LAYOUT.tables - LAYOUT.staticTables * 4096) / 8,
    USER_TICKS: KERNEL_BASE + offset('tick_count'),
    worker: user.address('worker'),
    user_image: KERNEL_BASE,
  };
  return (
    new Assembler(KERNEL_BASE, constants)
      // the user's pages come first, where pages begin
      .data('user_pages', user.bytes.length, () => user.bytes)
      .source(BOOT_SOURCE + MEMORY_SOURCE + PROCESS_SOURCE + CONSOLE_SOURCE)
      .source(
        `.align 8
current: .quad PROCESSES
free_tables_top: .quad 0
free_frame: .quad 0
next_frame: .quad FRAMES
frame_end: .quad ${frameEnd}
children: .dword 0
switch_budget: .dword ${workload.switches}
leaf_total: .dword ${leaves.total}
leaf_by_reason: .dword ${leaves.byReason}
.align 16`,
      )
      .data('gdt_table', GDT_BYTES, gdt)
      .data('task_state', TASK_BYTES, () => taskState(STACK_TOP))
      .source('.align 16')
      .data('idt_table', IDT_BYTES, idt)
      .data('gdt_pointer', 10, (resolve) => pointer(GDT_BYTES - 1, resolve('gdt_table')))
      .data('idt_pointer', 10, (resolve) => pointer(IDT_BYTES - 1, resolve('idt_table')))
      .assemble()
  );
};

/** Builds the guest. @throws LabError for a workload that it cannot do, or that memory is too small for */
export const tinyGuest = (options: TinyOptions): GuestImage => {
  const workload = checkWorkload(options.workload ?? {});
  const frameEnd = Math.min(options.memory, LAYOUT.directBytes);
  const frames = (frameEnd - LAYOUT.frames) / 4096;
  const needed = peakFrames(workload);
  if (needed > frames || options.memory < LEAST_MEMORY)
    throw new LabError(
      'tiny.memory',
      `the workload needs ${needed} frames, memory of ${options.memory} bytes has ${Math.max(0, frames)} for it`,
      'give the guest more memory, at least 64 MiB',
    );
  const user = userProgram(workload);
  if (user.address('user_data') !== LAYOUT.userData)
    throw new LabError('tiny.size', 'the user program is larger than a page');
  const kernel = kernelProgram(user, workload, frameEnd, options.leaves);
  if (kernel.bytes.length > LAYOUT.bss - LAYOUT.kernel)
    throw new LabError('tiny.size', 'the kernel is too large');
  return {
    name: 'tiny',
    about: [
      `tiny kernel of ${kernel.bytes.length} bytes, assembled by vmxlab`,
      `workload: ${
        WORKLOAD_NAMES.filter((n) => workload[n] > 0)
          .map((n) => `${n}=${workload[n]}`)
          .join(' ') || 'none'
      }`,
    ],
    cmdline: '',
    segments: [
      { gpa: LAYOUT.kernel, bytes: kernel.bytes },
      { gpa: LAYOUT.tables, bytes: staticTables() },
    ],
    entry: {
      ...longModeEntry(BigInt.asUintN(64, kernel.address('start')), 0n),
      cr3: BigInt(STATIC.pml4),
      gdtr: { base: BigInt.asUintN(64, kernel.address('gdt_table')), limit: GDT_BYTES - 1 },
    },
    symbols: () => listedSymbols(kernel.labels, kernel.base + BigInt(kernel.bytes.length)),
  };
};
