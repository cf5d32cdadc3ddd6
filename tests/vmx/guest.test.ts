/** Real code under the VMX unit, on both engines: the sequence of exits, their RIPs, and the time at which they come. */
import { describe, expect, test } from 'vitest';
import { REVISION_ID } from '../../lib/vmx/capabilities.js';
import type { FieldName } from '../../lib/vmx/fields.js';
import { createHardware, ENGINES, type EngineName } from '../../lib/vmx/hardware.js';
import { EXIT, PROC, VMCS } from '../../lib/vmx/port.js';
import { buildTables, HANDLER, VALID, VMCS_REGION, VMXON_REGION } from './machine.js';

const CODE = 0x1_0000;
type Fields = Partial<Record<FieldName, bigint>>;

const start = (engine: EngineName, code: readonly number[], fields: Fields = {}) => {
  const { ram, port, cpu } = createHardware(0x20_0000, engine);
  buildTables(ram);
  ram.write32(VMXON_REGION, REVISION_ID);
  ram.write32(VMCS_REGION, REVISION_ID);
  ram.writeBytes(CODE, Uint8Array.from(code));
  ram.writeBytes(Number(HANDLER), Uint8Array.from([0x0f, 0xa2, 0x48, 0xcf])); // cpuid; iretq
  port.vmxon(VMXON_REGION);
  port.vmclear(VMCS_REGION);
  port.vmptrld(VMCS_REGION);
  for (const [name, v] of Object.entries({ ...VALID, ...fields }))
    port.vmwrite(VMCS[name as FieldName], v as bigint);
  let launched = false;
  const read = (name: FieldName): number => port.vmreadNumber(VMCS[name]);
  return {
    port,
    cpu,
    read,
    /** Enters and returns the exit, after skipping the instruction that caused it if it has a length. */
    next: (limit = 1e6): string => {
      const outcome = port.enter(launched ? 'vmresume' : 'vmlaunch', limit);
      if (!('exit' in outcome)) return JSON.stringify(outcome);
      launched = true;
      const rip = read('guestRip');
      port.vmwriteNumber(VMCS.guestRip, rip + read('exitInstructionLength'));
      return `${outcome.exit} at +${rip - CODE}`;
    },
  };
};
const proc = (mask: number): bigint => (VALID.procBasedControls ?? 0n) | BigInt(mask);

describe.each(ENGINES)('%s engine', (engine) => {
  test('a sequence of exits', () => {
    const m = start(
      engine,
      [
        0x90,
        0x0f,
        0xa2, // nop; cpuid
        0xf4, // hlt
        0x0f,
        0x22,
        0xd8, // mov cr3, rax
        0xe6,
        0x80, // out 80h, al
        0x0f,
        0x0b, // ud2
      ],
      {
        procBasedControls:
          proc(PROC.hltExiting | PROC.cr3LoadExiting | PROC.unconditionalIoExiting) &
          ~BigInt(PROC.useIoBitmaps),
        exceptionBitmap: 0x40n,
      },
    );
    expect([m.next(), m.next(), m.next(), m.next(), m.next()]).toEqual([
      '10 at +1',
      '12 at +3',
      '28 at +4',
      '30 at +7',
      '0 at +9',
    ]);
    expect(m.port.retired()).toBe(1);
  });

  test('the preemption timer and the host timer stop at the exact instruction', () => {
    const loop = [...Array(62).fill(0x90), 0xeb, 0xc0]; // 62 nop; jmp back: 63 instructions a turn
    const m = start(engine, loop, { vmxPreemptionTimerValue: 10n });
    m.port.hostTimer(100, 0xec);
    expect(m.next()).toBe(`${EXIT.externalInterrupt} at +${100 - 63}`);
    expect(m.read('exitInterruptionInfo')).toBe(0x8000_00ec);
    expect(m.port.rdtsc()).toBe(100);
    m.port.vmwrite32(VMCS.vmxPreemptionTimerValue, 4);
    expect(m.next()).toBe(`${EXIT.preemptionTimer} at +${(Math.floor(100 / 32) + 4) * 32 - 3 * 63}`);
    expect(m.next(300)).toBe('{"limit":true}');
    expect(m.port.retired()).toBe(300);
  });

  test('monitor trap flag: one instruction at a time', () => {
    const m = start(engine, [0x90, 0x90, 0xeb, 0xfc], { procBasedControls: proc(PROC.monitorTrapFlag) });
    expect([m.next(), m.next(), m.next(), m.next()]).toEqual([
      '37 at +1',
      '37 at +2',
      '37 at +0',
      '37 at +1',
    ]);
  });

  test('an interrupt window opens one instruction after STI', () => {
    const m = start(engine, [0x90, 0xfb, 0x90, 0x90, 0xfa], {
      procBasedControls: proc(PROC.interruptWindowExiting),
      guestRflags: 2n,
    });
    expect(m.next()).toBe('7 at +3');
  });

  test('an injected interrupt runs its handler, IRET returns', () => {
    const m = start(engine, [0x90, 0x0f, 0xa2], { entryInterruptionInfo: 0x8000_0030n });
    expect(m.next()).toBe(`10 at +${Number(HANDLER) - CODE}`);
    expect(m.next()).toBe('10 at +1');
  });

  test('a fault without an entry in the bitmap goes to the guest', () => {
    const m = start(engine, [0x0f, 0x0b]);
    expect(m.next()).toBe(`10 at +${Number(HANDLER) - CODE}`);
  });

  test('an EPT violation repeats the instruction when it is entered again', () => {
    // mov [0x200000], eax; the guest maps it, EPT does not
    const m = start(engine, [0xa3, 0, 0, 0x20, 0, 0, 0, 0, 0, 0x0f, 0xa2]);
    m.port.memory.write64(0x1_1008, 0x20_0083n);
    expect(m.next()).toBe('48 at +0');
    expect(m.read('guestPhysicalAddress')).toBe(0x20_0000);
    m.port.memory.write64(0x1_3008, 0xb7n); // EPT: to host-physical 0
    expect(m.next()).toBe('10 at +9');
    expect(m.port.retired()).toBe(1);
  });
});
