/**
 * The runner of the tables of system behaviour: one image and one start state, executed on the bare processor, as a guest
 * with EPT, or as a guest with shadow paging, until HLT, shutdown or a limit; then everything a program could look at.
 *
 * What a hypervisor may not show is whatever differs between the three: registers, and every byte of memory, accessed
 * and dirty bits and descriptor types included. Each row gets a processor in the state of RESET and a new VM.
 */
import { readRflags, writeRflags } from '../../lib/cpu/rflags.js';
import { loadPdptes } from '../../lib/cpu/system/control-registers.js';
import { resetState } from '../../lib/cpu/system/reset.js';
import { modeChanged, setSegment } from '../../lib/cpu/system/segments.js';
import { SEGMENT_FIELDS } from '../../lib/hypervisor/cr.js';
import type { EntrySegment, EntryState } from '../../lib/hypervisor/entry-state.js';
import { createMmu } from '../../lib/hypervisor/mmu/create.js';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { createVm } from '../../lib/hypervisor/vm.js';
import { S, SEG_NAMES } from '../../lib/isa/state.js';
import { createHardware, type EngineName, type Hardware } from '../../lib/vmx/hardware.js';
import { VMCS } from '../../lib/vmx/port.js';

export const MEMORY = 0x2_0000;
const HOST_MEMORY = 0x20_0000;
const LIMIT = 100_000;

export const PLACES = ['bare', 'ept', 'shadow'] as const;
export type Place = (typeof PLACES)[number];
export const ENGINES = ['interpreter', 'reference'] as const satisfies readonly EngineName[];

export interface Start extends EntryState {
  /** DR0-DR3, and DR7; 0 and 0x400 unless given. */
  readonly dr?: readonly bigint[];
  readonly dr7?: bigint;
}

export interface Result {
  /** `halt`: HLT with interrupts off; `shutdown`: a triple fault; `limit`: still running. Anything else is a failure of ours. */
  readonly end: string;
  readonly gprs: readonly bigint[];
  readonly rip: bigint;
  readonly rflags: number;
  readonly cr: { readonly cr0: number; readonly cr2: bigint; readonly cr3: bigint; readonly cr4: number };
  readonly efer: number;
  readonly dr6: bigint;
  readonly dr7: bigint;
  readonly segments: Readonly<Record<string, EntrySegment>>;
  readonly tables: readonly (bigint | number)[];
  readonly memory: Uint8Array;
}

const machines = new Map<EngineName, Hardware>();
const hardwareOf = (engine: EngineName): Hardware => {
  let h = machines.get(engine);
  if (h === undefined) {
    h = createHardware(HOST_MEMORY, engine);
    machines.set(engine, h);
  }
  return h;
};

const segmentOf = (selector: number, base: bigint, limit: number, attr: number): EntrySegment => ({
  selector,
  base,
  limit,
  attr,
});

const fresh = (h: Hardware): void => {
  const { cpu, mmu, ram } = h;
  cpu.guest = undefined;
  cpu.delivering = undefined;
  mmu.ept = undefined;
  mmu.vpid = 0;
  ram.writeBytes(0, new Uint8Array(HOST_MEMORY));
  resetState(cpu);
  mmu.flushEverything();
};

const runBare = (h: Hardware, image: Uint8Array, start: Start, limit: number): Result => {
  const { cpu, ram } = h;
  ram.writeBytes(0, image);
  cpu.set64(S.cr0, start.cr0);
  cpu.set64(S.cr3, start.cr3);
  cpu.set64(S.cr4, start.cr4);
  cpu.set64(S.efer, start.efer);
  writeRflags(cpu, start.rflags);
  cpu.set64(S.rip, start.rip);
  cpu.set64(S.nextRip, start.rip);
  for (const [i, v] of start.gprs.entries()) cpu.setGpr(i, v);
  for (const [i, name] of SEG_NAMES.entries()) {
    const s = start.segments[name];
    setSegment(cpu, i, s.selector, s.base, s.limit, s.attr);
  }
  cpu.set64(S.gdtrBase, start.gdtr.base);
  cpu.set32(S.gdtrLimit, start.gdtr.limit);
  cpu.set64(S.idtrBase, start.idtr.base);
  cpu.set32(S.idtrLimit, start.idtr.limit);
  for (const [i, v] of (start.dr ?? []).entries()) cpu.set64(S.dr + 8 * i, v);
  cpu.set64(S.dr7, start.dr7 ?? 0x400n);
  for (const [msr, v] of start.msrs) h.port.wrmsr(msr, v);
  modeChanged(cpu);
  if ((start.cr4 & 0x20n) !== 0n && start.efer === 0n && start.cr0 >> 31n === 1n)
    loadPdptes(cpu, Number(start.cr3));
  const end = h.processor.run(cpu.retired() + limit);
  return {
    end,
    gprs: start.gprs.map((_, i) => cpu.gpr(i)),
    rip: cpu.rip,
    rflags: readRflags(cpu),
    cr: { cr0: cpu.get32(S.cr0), cr2: cpu.get64(S.cr2), cr3: cpu.get64(S.cr3), cr4: cpu.get32(S.cr4) },
    efer: cpu.get32(S.efer),
    dr6: cpu.get64(S.dr6),
    dr7: cpu.get64(S.dr7),
    segments: Object.fromEntries(
      SEG_NAMES.map((name, i) => [
        name,
        segmentOf(
          cpu.get32(S.segSel + 4 * i),
          cpu.get64(S.segBase + 8 * i),
          cpu.get32(S.segLimit + 4 * i),
          cpu.get32(S.segAttr + 4 * i),
        ),
      ]),
    ),
    tables: [cpu.get64(S.gdtrBase), cpu.get32(S.gdtrLimit), cpu.get64(S.idtrBase), cpu.get32(S.idtrLimit)],
    memory: ram.view(0, MEMORY).slice(),
  };
};

const ENDS: Readonly<Record<string, string>> = { 'triple-fault': 'shutdown' };

const runGuest = (
  h: Hardware,
  image: Uint8Array,
  start: Start,
  limit: number,
  ept: boolean,
  params: object,
): Result => {
  const { port, cpu } = h;
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', { ept, ...params });
  const vm = createVm(hypervisor, port, {
    memory: MEMORY,
    backing: '4K',
    hostTickHz: 0,
    timeModel: 'instructions',
    createMmu,
  });
  try {
    vm.load(0, image);
    vm.loadEntry(start);
    for (const [i, v] of (start.dr ?? []).entries()) port.registers.setDr(i as 0, v);
    port.vmwrite(VMCS.guestDr7, start.dr7 ?? 0x400n);
    const outcome = vm.run({ limit: cpu.retired() + limit });
    const { vcpu } = vm;
    const end = ENDS[outcome.kind] ?? outcome.kind;
    return {
      end: ['halt', 'shutdown', 'limit'].includes(end)
        ? end
        : `${end}: ${'detail' in outcome ? outcome.detail : ''}`,
      gprs: start.gprs.map((_, i) => vcpu.gpr(i)),
      rip: vcpu.rip,
      rflags: vcpu.rflags,
      cr: { cr0: vcpu.cr0, cr2: port.registers.cr2, cr3: BigInt(vcpu.cr3), cr4: vcpu.cr4 },
      efer: vcpu.efer,
      dr6: port.registers.dr(6),
      dr7: port.vmread(VMCS.guestDr7),
      segments: Object.fromEntries(
        SEG_NAMES.map((name, i) => {
          const f = SEGMENT_FIELDS[i]!;
          return [
            name,
            segmentOf(
              port.vmread32(f.selector),
              port.vmread(f.base),
              port.vmread32(f.limit),
              port.vmread32(f.rights),
            ),
          ];
        }),
      ),
      tables: [
        port.vmread(VMCS.guestGdtrBase),
        port.vmread32(VMCS.guestGdtrLimit),
        port.vmread(VMCS.guestIdtrBase),
        port.vmread32(VMCS.guestIdtrLimit),
      ],
      memory: vm.slots.bytes(0, MEMORY).slice(),
    };
  } finally {
    vm.destroy();
  }
};

/** Executes an image from a start state. @param image the first bytes of memory; the rest is zero */
export const execute = (
  place: Place,
  engine: EngineName,
  image: Uint8Array,
  start: Start,
  options: { readonly limit?: number; readonly params?: object } = {},
): Result => {
  const h = hardwareOf(engine);
  fresh(h);
  const limit = options.limit ?? LIMIT;
  return place === 'bare'
    ? runBare(h, image, start, limit)
    : runGuest(h, image, start, limit, place === 'ept', options.params ?? {});
};

/** First few differences between two results, as text; empty when they are equal. */
export const differences = (a: Result, b: Result): string[] => {
  const found: string[] = [];
  const say = (name: string, x: unknown, y: unknown): void => {
    const text = (v: unknown): string =>
      JSON.stringify(v, (_, n) =>
        typeof n === 'bigint' || typeof n === 'number' ? `0x${n.toString(16)}` : n,
      );
    if (text(x) !== text(y)) found.push(`${name}: ${text(x)} against ${text(y)}`);
  };
  say('end', a.end, b.end);
  // a shutdown ends in the middle of a delivery: what the last attempt left in CR2 and RF is nobody's to see
  const names =
    a.end === 'shutdown'
      ? (['gprs', 'rip', 'efer', 'dr6', 'dr7', 'tables'] as const)
      : (['gprs', 'rip', 'rflags', 'cr', 'efer', 'dr6', 'dr7', 'tables'] as const);
  for (const name of names) say(name, a[name], b[name]);
  // of an unusable segment only the attributes that VM entry keeps count
  for (const name of Object.keys(a.segments)) {
    const [x, y] = [a.segments[name]!, b.segments[name]!];
    if ((x.attr & y.attr & 0x1_0000) !== 0) say(name, x.selector, y.selector);
    else say(name, x, y);
  }
  const same = Buffer.compare(a.memory, b.memory) === 0;
  for (let i = 0, n = 0; !same && i < MEMORY && n < 8; i++) {
    if (a.memory[i] === b.memory[i]) continue;
    found.push(`memory ${i.toString(16)}: ${a.memory[i]!.toString(16)} against ${b.memory[i]!.toString(16)}`);
    n++;
  }
  return found;
};
