/**
 * Two machines side by side: all that the guest can see of its processor, of its memory and of its devices, and where
 * two machines differ. Control registers and EFER are the guest's own, not those that the hypervisor made the
 * processor use; host frames may differ, guest frames must not.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { readRflags } from '../../lib/cpu/rflags.js';
import { acpiTables } from '../../lib/devices/acpi.js';
import { debianGuest } from '../../lib/guests/debian/debian.js';
import type { GuestImage } from '../../lib/guests/guest.js';
import { createMmu } from '../../lib/hypervisor/mmu/create.js';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { createVm, type VmOptions } from '../../lib/hypervisor/vm.js';
import { GPR_NAMES, S, SEG_NAMES } from '../../lib/isa/state.js';
import { leafNumbers, type Machine } from '../../lib/lab/machine.js';
import { DEBIAN } from '../../lib/lab/paths.js';
import { createHardware, type EngineName } from '../../lib/vmx/hardware.js';

export const MEMORY = 256 << 20;
const PAGE = 4096;
/** Linux's direct map without KASLR: gva = gpa + this. */
const DIRECT_MAP = 0xffff_8880_0000_0000n;
const MAX_SHOWN = 8;

export const MODES = [
  ['ept', true],
  ['shadow', false],
] as const;

/** Debian with `script` in place of /init, so that a workload comes right after the boot. */
export const debianWith = (script: string, memory = MEMORY): Promise<GuestImage> =>
  debianGuest(DEBIAN, join(DEBIAN, 'cache'), {
    memory,
    leaves: leafNumbers('F2020'),
    tables: [{ ...acpiTables(), what: 'ACPI tables' }],
    append: 'rdinit=/workload',
    workload: `#!/bin/sh\n${script}`,
  });

export interface TestMachine extends Machine {
  readonly hypervisor: Hypervisor;
  readonly console: () => string;
}

/** A machine in front of the first instruction of `guest`, in a hypervisor of its own. */
export const machineWith = (
  guest: Pick<GuestImage, 'segments' | 'entry'>,
  ept: boolean,
  options: Partial<VmOptions> = {},
  engine: EngineName = 'interpreter',
): TestMachine => {
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', { ept });
  const memory = typeof options.memory === 'number' ? options.memory : MEMORY;
  const hardware = createHardware(memory + (40 << 20), engine);
  let text = '';
  const vm = createVm(hypervisor, hardware.port, {
    memory,
    createMmu,
    board: { onConsole: (b) => (text += String.fromCharCode(b)) },
    ...options,
  });
  for (const s of guest.segments) vm.load(s.gpa, s.bytes);
  vm.loadEntry(guest.entry);
  return { hardware, vm, hypervisor, console: () => text };
};

const STATE_64 = [
  ...['gdtrBase', 'idtrBase', 'cr2', 'cr8', 'xcr0', 'xss', 'dr6', 'dr7', 'pendingDebug'],
  ...['star', 'lstar', 'cstar', 'sfmask', 'kernelGsBase', 'sysenterCs', 'sysenterEsp', 'sysenterEip'],
  ...['tscAux', 'debugctl', 'fip', 'fdp'],
] as (keyof typeof S)[];
const STATE_32 = [
  ...['gdtrLimit', 'idtrLimit', 'cpl', 'mode', 'stackSize', 'interruptibility', 'activity'],
  ...['fcw', 'fsw', 'ftw', 'fop', 'mxcsr'],
] as (keyof typeof S)[];

/** Everything in the processor that the guest can see, by name. Valid wherever a run ended at its limit. */
export const registersOf = ({ hardware: { cpu }, vm: { vcpu } }: Machine): Record<string, string> => {
  const out: Record<string, string> = {};
  const hex = (name: string, v: bigint | number): void => {
    out[name] = `0x${v.toString(16)}`;
  };
  const bytes = (at: number, n: number): string =>
    Buffer.from(cpu.ram.u8.slice(cpu.at + at, cpu.at + at + n)).toString('hex');
  for (const [i, name] of GPR_NAMES.entries()) hex(name, cpu.gpr(i));
  hex('rip', cpu.get64(S.rip));
  hex('rflags', readRflags(cpu));
  for (const [i, name] of SEG_NAMES.entries()) {
    hex(`${name} selector`, cpu.get32(S.segSel + 4 * i));
    hex(`${name} base`, cpu.get64(S.segBase + 8 * i));
    hex(`${name} limit`, cpu.get32(S.segLimit + 4 * i));
    hex(`${name} rights`, cpu.get32(S.segAttr + 4 * i));
  }
  for (const name of ['cr0', 'cr3', 'cr4', 'efer', 'pat'] as const) hex(name, vcpu[name]);
  hex('tsc', vcpu.guestTsc());
  for (const name of STATE_64) hex(name, cpu.get64(S[name]));
  for (const name of STATE_32) hex(name, cpu.get32(S[name]));
  for (let i = 0; i < 4; i++) hex(`dr${i}`, cpu.get64(S.dr + 8 * i));
  for (let i = 0; i < 16; i++) out[`xmm${i}`] = bytes(S.xmm + 16 * i, 16);
  // 80 bits each
  for (let i = 0; i < 8; i++) out[`x87 r${i}`] = bytes(S.x87 + 16 * i, 10);
  return out;
};

/** State of every device of the board, as text by name. */
export const devicesOf = ({ vm }: Machine): Record<string, string> =>
  Object.fromEntries(
    Object.entries(vm.board.save()).map(([name, state]) => [
      name,
      inspect(state, { depth: null, maxArrayLength: null, breakLength: Number.POSITIVE_INFINITY }),
    ]),
  );

/** One line a name whose values differ. */
export const differences = (
  a: Readonly<Record<string, string>>,
  b: Readonly<Record<string, string>>,
): string[] =>
  Object.keys({ ...a, ...b })
    .filter((name) => a[name] !== b[name])
    .map((name) => `${name}: ${a[name]} and ${b[name]}`);

const frameOf = ({ hardware, vm }: Machine, gfn: number): Uint8Array | undefined => {
  const hpa = vm.slots.backed(gfn);
  return hpa === undefined ? undefined : hardware.ram.view(hpa, PAGE);
};
const ZERO = new Uint8Array(PAGE);

/** Quadwords of guest memory that differ: guest-physical address, its address in Linux's direct map, both values. */
export const memoryDifferences = (a: Machine, b: Machine, memory = MEMORY): string[] => {
  const out: string[] = [];
  let more = 0;
  for (let gfn = 0; gfn < memory / PAGE; gfn++) {
    const [x, y] = [frameOf(a, gfn), frameOf(b, gfn)];
    if (x === undefined && y === undefined) continue;
    const left = Buffer.from((x ?? ZERO).buffer, (x ?? ZERO).byteOffset, PAGE);
    const right = Buffer.from((y ?? ZERO).buffer, (y ?? ZERO).byteOffset, PAGE);
    if (left.equals(right)) continue;
    for (let i = 0; i < PAGE; i += 8) {
      const [l, r] = [left.readBigUInt64LE(i), right.readBigUInt64LE(i)];
      if (l === r) continue;
      const gpa = gfn * PAGE + i;
      if (out.length < MAX_SHOWN)
        out.push(
          `gpa 0x${gpa.toString(16)} (gva 0x${(DIRECT_MAP + BigInt(gpa)).toString(16)}): 0x${l.toString(16)} and 0x${r.toString(16)}`,
        );
      else more++;
    }
  }
  return more === 0 ? out : [...out, `and ${more} quadwords more`];
};

/** What the guest sees of two machines, as far as it differs; empty when they are equal. */
export const machineDifferences = (a: Machine, b: Machine, memory = MEMORY): string[] => [
  ...differences(registersOf(a), registersOf(b)),
  ...memoryDifferences(a, b, memory),
];

/** SHA-256 of guest memory. Also valid after the VM was destroyed. */
export const memoryHash = (m: Machine, memory = MEMORY): string => {
  const hash = createHash('sha256');
  for (let gfn = 0; gfn < memory / PAGE; gfn++) hash.update(frameOf(m, gfn) ?? ZERO);
  return hash.digest('hex');
};

/** SHA-256 of all host memory: guest memory, VMCS, and the hypervisor's page tables. */
export const hostHash = ({ hardware: { ram } }: Machine): string =>
  createHash('sha256').update(ram.view(0, ram.bytes)).digest('hex');
