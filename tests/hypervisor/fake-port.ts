/** A processor for tests of the hypervisor: fields in a map, physical memory for real, and VM exits by script. */
import { Ram } from '../../lib/memory/ram.js';
import { VMX_MSRS } from '../../lib/vmx/capabilities.js';
import type {
  EntryOutcome,
  FieldEncoding,
  PhysicalMemory,
  StubRegisters,
  VmxPort,
  VmxResult,
} from '../../lib/vmx/port.js';
import { VMCS } from '../../lib/vmx/port.js';

/** One visit to the guest: changes the machine, and says how it ended. */
export type Visit = (port: FakePort) => EntryOutcome;

const LEAVES: Readonly<Record<number, readonly [number, number, number, number]>> = {
  0: [0xd, 0x756e6547, 0x6c65746e, 0x49656e69],
  1: [0x000306d4, 0x00010800, 0xffffffff | 0, 0xffffffff | 0],
  2: [0x76036301, 0x00f0b5ff, 0, 0x00c30000],
  7: [0, 0x001c25ab, 0x0000000c, 0x20000000],
  13: [7, 0x340, 0x340, 0],
  2147483648: [0x80000008 | 0, 0, 0, 0],
  2147483649: [0, 0, 0x121, 0x28100800],
  2147483655: [0, 0, 0, 0x100],
  2147483656: [0x3027, 0, 0, 0],
};

class FakeRegisters implements StubRegisters {
  readonly gprs = new BigUint64Array(16);
  readonly drs = new BigUint64Array(8);
  readonly xmms = new Uint8Array(256);
  cr2 = 0n;
  xcr0 = 1n;
  cr8 = 0;
  gpr(i: number): bigint {
    return this.gprs[i];
  }
  setGpr(i: number, v: bigint): void {
    this.gprs[i] = BigInt.asUintN(64, v);
  }
  gpr32(i: number): number {
    return Number(this.gprs[i] & 0xffffffffn);
  }
  dr(i: number): bigint {
    return this.drs[i];
  }
  setDr(i: number, v: bigint): void {
    this.drs[i] = v;
  }
  xmm(i: number): Uint8Array {
    return this.xmms.slice(16 * i, 16 * i + 16);
  }
  setXmm(i: number, bytes: Uint8Array): void {
    this.xmms.set(bytes, 16 * i);
  }
}

export class FakePort implements VmxPort {
  readonly ram = new Ram(64 << 20);
  readonly memory: PhysicalMemory = this.ram;
  readonly registers = new FakeRegisters();
  readonly fields = new Map<FieldEncoding, bigint>();
  readonly msrs = new Map<number, bigint>([...VMX_MSRS, [0xc0000080, 0xd01n]]);
  readonly walks = { walks1d: 0, references1d: 0, walks2d: 0, references2d: 0 };
  readonly entered: string[] = [];
  readonly flushes: string[] = [];
  script: Visit[] = [];
  instructions = 0;
  extra = 0;
  exitTsc = 0;
  timer: number | undefined;

  vmxon(): VmxResult {
    return 'succeed';
  }
  vmxoff(): VmxResult {
    return 'succeed';
  }
  vmclear(): VmxResult {
    return 'succeed';
  }
  vmptrld(): VmxResult {
    return 'succeed';
  }
  vmread(field: FieldEncoding): bigint {
    return this.fields.get(field) ?? 0n;
  }
  vmread32(field: FieldEncoding): number {
    return Number(this.vmread(field) & 0xffffffffn);
  }
  vmreadNumber(field: FieldEncoding): number {
    return Number(this.vmread(field));
  }
  vmwrite(field: FieldEncoding, value: bigint): void {
    this.fields.set(field, value);
  }
  vmwrite32(field: FieldEncoding, value: number): void {
    this.fields.set(field, BigInt(value >>> 0));
  }
  vmwriteNumber(field: FieldEncoding, value: number): void {
    this.fields.set(field, BigInt(value));
  }
  enter(instruction: 'vmlaunch' | 'vmresume'): EntryOutcome {
    this.entered.push(instruction);
    const visit = this.script.shift();
    this.vmwrite32(VMCS.idtVectoringInfo, 0);
    const outcome: EntryOutcome = visit === undefined ? { limit: true } : visit(this);
    // the hardware clears the valid bit
    this.vmwrite32(VMCS.entryInterruptionInfo, this.vmread32(VMCS.entryInterruptionInfo) & 0x7fffffff);
    return outcome;
  }
  invept(type: 1 | 2): VmxResult {
    this.flushes.push(`invept ${type}`);
    return 'succeed';
  }
  invvpid(type: 0 | 1 | 2 | 3, _vpid: number, linear: bigint): VmxResult {
    this.flushes.push(type === 0 ? `invvpid 0 ${linear.toString(16)}` : `invvpid ${type}`);
    return 'succeed';
  }
  rdmsr(msr: number): bigint {
    return this.msrs.get(msr) ?? 0n;
  }
  wrmsr(msr: number, value: bigint): void {
    this.msrs.set(msr, value);
  }
  cpuid(leaf: number, subleaf: number): { eax: number; ebx: number; ecx: number; edx: number } {
    if (leaf === 0xd && subleaf === 2) return { eax: 0x100, ebx: 0x240, ecx: 0, edx: 0 };
    if (leaf === 0xd && subleaf > 0) return { eax: subleaf === 1 ? 1 : 0, ebx: 0, ecx: 0, edx: 0 };
    const [eax, ebx, ecx, edx] = LEAVES[leaf] ?? [0, 0, 0, 0];
    return { eax: eax >>> 0, ebx: ebx >>> 0, ecx: ecx >>> 0, edx: edx >>> 0 };
  }
  rdtsc(): number {
    return this.instructions + this.extra;
  }
  retired(): number {
    return this.instructions;
  }
  retire(n: number): void {
    this.instructions += n;
  }
  charge(cycles: number): void {
    this.extra += cycles;
  }
  hostTimer(deadline: number | undefined): void {
    this.timer = deadline;
  }
  describeVmcs(): string {
    return 'the VMCS';
  }
}

/** A visit that executes `instructions` and exits with `reason`; the instruction is `length` bytes long. */
export const exit =
  (
    reason: number,
    fields: Readonly<Record<number, number | bigint>> = {},
    instructions = 10,
    length = 2,
  ): Visit =>
  (port) => {
    port.instructions += instructions;
    port.vmwrite32(VMCS.exitInstructionLength, length);
    for (const [field, value] of Object.entries(fields)) port.vmwrite(Number(field), BigInt(value));
    port.exitTsc = port.rdtsc();
    return { exit: reason };
  };
