/**
 * The registers of the guest as GDB numbers them, and the target description that says so (GDB manual, "Standard Target
 * Features", "i386 Features"; the features core, sse and segments have GDB's own names and order).
 *
 * The guest is always shown as i386:x86-64, as QEMU shows it; in 16- and 32-bit code the upper halves are 0. Values come
 * through the VMCS and the hypervisor's registers, so that they are those of the guest at any stop. RIP, the general
 * registers, RFLAGS, XMM registers and FS and GS bases can be written; others refuse.
 */

import { writeRflags } from '../../cpu/rflags.js';
import type { Vcpu } from '../../hypervisor/vcpu.js';
import { S } from '../../isa/state.js';
import { VMCS } from '../../vmx/port.js';
import type { Machine } from '../machine.js';

/** Live guest state: after the first entry the guest's registers are the processor's. */
interface View {
  readonly machine: Machine;
  readonly vcpu: Vcpu;
  /** The guest is in the processor, paused between two instructions. */
  readonly paused: boolean;
}

interface RegisterRow {
  readonly name: string;
  readonly bits: 32 | 64 | 80 | 128;
  /** Type in the target description. */
  readonly type: string;
  readonly read: (view: View) => bigint;
  readonly write?: (view: View, value: bigint) => void;
  readonly group?: string;
}

interface Feature {
  readonly name: string;
  /** Type definitions. */
  readonly types: string;
  readonly rows: readonly RegisterRow[];
}

/** GDB's order of the general registers, by their encoding. */
const GENERAL = [
  ['rax', 0], ['rbx', 3], ['rcx', 1], ['rdx', 2], ['rsi', 6], ['rdi', 7], ['rbp', 5], ['rsp', 4],
  ['r8', 8], ['r9', 9], ['r10', 10], ['r11', 11], ['r12', 12], ['r13', 13], ['r14', 14], ['r15', 15],
] as const; // biome-ignore format: two rows of eight

const general = (name: string, index: number): RegisterRow => ({
  name,
  bits: 64,
  type: name === 'rbp' || name === 'rsp' ? 'data_ptr' : 'int64',
  read: ({ vcpu }) => vcpu.gpr(index),
  write: ({ machine, vcpu, paused }, value) => {
    if (paused) machine.hardware.cpu.setGpr(index, value);
    else vcpu.setGpr(index, value);
  },
});

const rip: RegisterRow = {
  name: 'rip',
  bits: 64,
  type: 'code_ptr',
  read: ({ vcpu }) => vcpu.rip,
  write: ({ machine, vcpu, paused }, value) => {
    if (paused) machine.hardware.cpu.set64(S.rip, value);
    else vcpu.port.vmwrite(VMCS.guestRip, value);
  },
};

/** Arithmetic flags, TF, DF and AC: what changes neither the mode nor which interrupts are let in. */
const FLAGS_WRITABLE = 0x4_0dd5;
const eflags: RegisterRow = {
  name: 'eflags',
  bits: 32,
  type: 'i386_eflags',
  read: ({ vcpu }) => BigInt(vcpu.rflags >>> 0),
  write: ({ machine, vcpu, paused }, value) => {
    const bits = Number(value & 0xffff_ffffn);
    if (paused) {
      const { cpu } = machine.hardware;
      writeRflags(cpu, bits, FLAGS_WRITABLE);
      cpu.mmu.contextChanged();
    } else vcpu.port.vmwrite32(VMCS.guestRflags, (vcpu.rflags & ~FLAGS_WRITABLE) | (bits & FLAGS_WRITABLE));
  },
};

const selector = (name: string, field: 'Cs' | 'Ss' | 'Ds' | 'Es' | 'Fs' | 'Gs'): RegisterRow => ({
  name,
  bits: 32,
  type: 'int32',
  read: ({ vcpu }) => BigInt(vcpu.port.vmread32(VMCS[`guest${field}Selector`])),
});

const TOP_SHIFT = 11;
const x87 = (i: number): RegisterRow => ({
  name: `st${i}`,
  bits: 80,
  type: 'i387_ext',
  read: ({
    machine: {
      hardware: { cpu },
    },
  }) => {
    const at = S.x87 + 16 * ((((cpu.get32(S.fsw) >> TOP_SHIFT) & 7) + i) & 7);
    return cpu.get64(at) | (BigInt(cpu.get32(at + 8) & 0xffff) << 64n);
  },
});
const stateWord = (name: string, offset: number, group: string, type = 'int'): RegisterRow => ({
  name,
  bits: 32,
  type,
  group,
  read: ({ machine }) => BigInt(machine.hardware.cpu.get32(offset)),
});
const zero = (name: string): RegisterRow => ({ name, bits: 32, type: 'int', group: 'float', read: () => 0n });

const xmm = (i: number): RegisterRow => ({
  name: `xmm${i}`,
  bits: 128,
  type: 'vec128',
  read: ({
    machine: {
      hardware: { cpu },
    },
  }) => cpu.get64(S.xmm + 16 * i) | (cpu.get64(S.xmm + 16 * i + 8) << 64n),
  write: (
    {
      machine: {
        hardware: { cpu },
      },
    },
    value,
  ) => {
    cpu.set64(S.xmm + 16 * i, BigInt.asUintN(64, value));
    cpu.set64(S.xmm + 16 * i + 8, value >> 64n);
  },
});

const base = (name: string, field: 'guestFsBase' | 'guestGsBase', offset: number): RegisterRow => ({
  name,
  bits: 64,
  type: 'int',
  read: ({ vcpu }) => vcpu.port.vmread(VMCS[field]),
  write: ({ machine, vcpu, paused }, value) => {
    if (paused) machine.hardware.cpu.set64(offset, value);
    else vcpu.port.vmwrite(VMCS[field], value);
  },
});

const control = (name: string, read: (vcpu: Vcpu) => number | bigint): RegisterRow => ({
  name,
  bits: 64,
  type: 'int64',
  group: 'system',
  read: ({ vcpu }) => BigInt(read(vcpu)),
});

const FLAG_NAMES: readonly (readonly [name: string, bit: number])[] = [
  ['CF', 0], ['PF', 2], ['AF', 4], ['ZF', 6], ['SF', 7], ['TF', 8], ['IF', 9], ['DF', 10], ['OF', 11],
  ['NT', 14], ['RF', 16], ['VM', 17], ['AC', 18], ['VIF', 19], ['VIP', 20], ['ID', 21],
]; // biome-ignore format: by tens
const MXCSR_NAMES = ['IE', 'DE', 'ZE', 'OE', 'UE', 'PE', 'DAZ', 'IM', 'DM', 'ZM', 'OM', 'UM', 'PM'];

const flagsType = (id: string, fields: readonly (readonly [string, number])[]): string =>
  `<flags id="${id}" size="4">${fields
    .map(([name, bit]) => `<field name="${name}" start="${bit}" end="${bit}"/>`)
    .join('')}</flags>`;

const VECTOR_TYPES = `<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/><union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>`;
const SEVEN = [0, 1, 2, 3, 4, 5, 6, 7];

const FEATURES: readonly Feature[] = [
  {
    name: 'org.gnu.gdb.i386.core',
    types: flagsType('i386_eflags', FLAG_NAMES),
    rows: [
      ...GENERAL.map(([name, index]) => general(name, index)),
      rip,
      eflags,
      selector('cs', 'Cs'),
      selector('ss', 'Ss'),
      selector('ds', 'Ds'),
      selector('es', 'Es'),
      selector('fs', 'Fs'),
      selector('gs', 'Gs'),
      ...SEVEN.map(x87),
      stateWord('fctrl', S.fcw, 'float'),
      stateWord('fstat', S.fsw, 'float'),
      stateWord('ftag', S.ftw, 'float'),
      zero('fiseg'),
      stateWord('fioff', S.fip, 'float'),
      zero('foseg'),
      stateWord('fooff', S.fdp, 'float'),
      stateWord('fop', S.fop, 'float'),
    ],
  },
  {
    name: 'org.gnu.gdb.i386.sse',
    types:
      VECTOR_TYPES +
      flagsType(
        'i386_mxcsr',
        MXCSR_NAMES.map((name, bit) => [name, bit] as const),
      ),
    rows: [
      ...Array.from({ length: 16 }, (_, i) => xmm(i)),
      stateWord('mxcsr', S.mxcsr, 'vector', 'i386_mxcsr'),
    ],
  },
  {
    name: 'org.gnu.gdb.i386.segments',
    types: '',
    rows: [base('fs_base', 'guestFsBase', S.segBase + 32), base('gs_base', 'guestGsBase', S.segBase + 40)],
  },
  {
    name: 'vmxlab.system',
    types: '',
    rows: [
      control('cr0', (v) => v.cr0),
      control('cr2', (v) => v.registers.cr2),
      control('cr3', (v) => v.cr3),
      control('cr4', (v) => v.cr4),
      control('cr8', (v) => v.vm.board.lapic.cr8()),
      control('efer', (v) => v.efer),
      control('cs_base', (v) => v.port.vmread(VMCS.guestCsBase)),
    ],
  },
];
const ROWS = FEATURES.flatMap((f) => f.rows);

const xmlRow = (row: RegisterRow, number: number): string =>
  `<reg name="${row.name}" bitsize="${row.bits}" type="${row.type}" regnum="${number}"${
    row.group === undefined ? '' : ` group="${row.group}"`
  }/>`;

/** The target description. */
export const TARGET_XML = ((): string => {
  let number = 0;
  const features = FEATURES.map(
    (f) => `<feature name="${f.name}">${f.types}${f.rows.map((r) => xmlRow(r, number++)).join('')}</feature>`,
  );
  return `<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0"><architecture>i386:x86-64</architecture>${features.join('')}</target>`;
})();

const viewOf = (machine: Machine): View => ({
  machine,
  vcpu: machine.vm.vcpu,
  paused: machine.hardware.cpu.guest !== undefined,
});

const littleEndian = (value: bigint, bits: number): string => {
  let text = '';
  for (let i = 0; i < bits; i += 8)
    text += Number((value >> BigInt(i)) & 0xffn)
      .toString(16)
      .padStart(2, '0');
  return text;
};
const fromLittleEndian = (digits: string): bigint => {
  let value = 0n;
  for (let i = digits.length - 2; i >= 0; i -= 2)
    value = (value << 8n) | BigInt(Number.parseInt(digits.slice(i, i + 2), 16));
  return value;
};

/** `g`: all registers in order. */
export const readAll = (machine: Machine): string => {
  const view = viewOf(machine);
  return ROWS.map((row) => littleEndian(row.read(view), row.bits)).join('');
};
/** `p`: one register, or undefined when there is none of that number. */
export const readOne = (machine: Machine, number: number): string | undefined => {
  const row = ROWS[number];
  return row === undefined ? undefined : littleEndian(row.read(viewOf(machine)), row.bits);
};

/** `P`: false when the register does not exist, cannot be written, or the value has the wrong size. */
export const writeOne = (machine: Machine, number: number, digits: string): boolean => {
  const row = ROWS[number];
  if (row?.write === undefined || digits.length !== row.bits / 4 || !/^[0-9a-fA-F]*$/.test(digits))
    return false;
  row.write(viewOf(machine), fromLittleEndian(digits));
  return true;
};

/** `G`: what cannot be written must keep its value. */
export const writeAll = (machine: Machine, digits: string): boolean => {
  const total = ROWS.reduce((n, row) => n + row.bits / 4, 0);
  if (digits.length !== total || !/^[0-9a-fA-F]*$/.test(digits)) return false;
  const view = viewOf(machine);
  let at = 0;
  const changes = ROWS.map((row) => {
    const value = fromLittleEndian(digits.slice(at, at + row.bits / 4));
    at += row.bits / 4;
    return { row, value, changed: value !== row.read(view) };
  }).filter((c) => c.changed);
  if (changes.some((c) => c.row.write === undefined)) return false;
  for (const c of changes) c.row.write?.(view, c.value);
  return true;
};

/** RFLAGS.VM, CS base and mode decide which linear address RIP is. */
export const linearRip = (machine: Machine): bigint => {
  const { vcpu } = machine.vm;
  if (vcpu.longCode) return vcpu.rip;
  return BigInt.asUintN(32, vcpu.rip + vcpu.port.vmread(VMCS.guestCsBase));
};
