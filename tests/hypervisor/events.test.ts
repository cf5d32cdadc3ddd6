import { expect, test } from 'vitest';
import { EventState } from '../../lib/hypervisor/events.js';
import { PROC, VMCS } from '../../lib/vmx/port.js';
import { exit, type FakePort, type Visit } from './fake-port.js';
import { machine, type TestMachine } from './machine.js';

const DF = 0x80000b08;

test.each([
  ['#PF in #PF', 14, 14, 8],
  ['#GP in #PF', 14, 13, 8],
  ['#GP in #GP', 13, 13, 8],
  ['#PF in #GP', 13, 14, 14],
  ['#UD in #PF', 14, 6, 6],
])('%s', (_name, first, second, vector) => {
  const e = new EventState();
  e.queue(first, 0);
  e.queue(second, 0);
  expect([e.vector, e.tripleFault]).toEqual([vector, false]);
});

test('a fault in #DF is a triple fault', () => {
  const e = new EventState();
  e.queue(8, 0);
  e.queue(14, 0);
  expect(e.tripleFault).toBe(true);
});

const record =
  (log: string[]): Visit =>
  (port) => {
    const info = port.vmread32(VMCS.entryInterruptionInfo);
    const window =
      (port.vmread32(VMCS.procBasedControls) & PROC.interruptWindowExiting) !== 0 ? ' window' : '';
    log.push((info & 0x80000000) !== 0 ? info.toString(16) + window : `-${window}`);
    return { limit: true };
  };
/** Runs visits and records the event of each entry. */
const entries = (m: TestMachine, ...visits: Visit[]): string[] => {
  const log: string[] = [];
  m.run(
    ...visits.map(
      (v): Visit =>
        (port) => {
          record(log)(port);
          return v(port);
        },
    ),
    record(log),
  );
  return log;
};
/** Programs the 8259s with vectors 0x30-0x3f and unmasks the timer input. */
const pic = (m: TestMachine): void => {
  const { board } = m.vm;
  for (const [port, value] of [
    [0x20, 0x11],
    [0x21, 0x30],
    [0x21, 4],
    [0x21, 1],
    [0xa0, 0x11],
    [0xa1, 0x38],
    [0xa1, 2],
    [0xa1, 1],
    [0x21, 0],
  ] as const)
    board.writePort(port, 1, value);
};
const interrupts = (port: FakePort, on: boolean): void => port.vmwrite32(VMCS.guestRflags, on ? 0x202 : 2);

test('an interrupt waits for a window, then is injected', () => {
  const m = machine();
  pic(m);
  m.vm.board.irq(1).set(true);
  interrupts(m.port, false);
  const log = entries(m, (port) => {
    interrupts(port, true);
    return exit(7)(port);
  });
  expect(log).toEqual(['- window', '80000031']);
  expect(m.vm.stats).toMatchObject({ irq_window_exits: 1, irq_injections: 2 });
});

test('a second pending interrupt keeps the window open after an injection', () => {
  const m = machine();
  pic(m);
  // automatic end of interrupt, so that both can be pending in turn
  m.vm.board.writePort(0x20, 1, 0x11);
  for (const v of [0x30, 4, 3, 0]) m.vm.board.writePort(0x21, 1, v);
  m.vm.board.irq(1).set(true);
  m.vm.board.irq(3).set(true);
  interrupts(m.port, true);
  expect(entries(m, exit(10))).toEqual(['80000031 window', '80000033 window']);
});

test('an interrupt that meets an exception being injected: an exit right after its delivery, then its turn', () => {
  const m = machine();
  pic(m);
  interrupts(m.port, true);
  const timers: number[] = [];
  const log = entries(
    m,
    (port) => {
      m.vm.board.irq(0).set(true);
      // RDPMC: #GP
      return exit(15)(port);
    },
    (port) => {
      timers.push(port.vmread32(VMCS.vmxPreemptionTimerValue));
      return exit(52)(port);
    },
    (port) => {
      timers.push(port.vmread32(VMCS.vmxPreemptionTimerValue));
      return exit(10)(port);
    },
  );
  expect(log.slice(0, 3)).toEqual(['-', '80000b0d', '80000030']);
  expect(timers).toEqual([0, 0xffff_ffff]);
  // the 8259 asks for the events again, so the injection is done twice
  expect(m.vm.stats.irq_injections).toBe(2);
});

test('no injection in the shadow of STI', () => {
  const m = machine();
  pic(m);
  m.vm.board.irq(1).set(true);
  interrupts(m.port, true);
  m.port.vmwrite32(VMCS.guestInterruptibilityState, 1);
  expect(entries(m)).toEqual(['- window']);
});

test('an event whose delivery exits is injected again, and the page of the fault is unshadowed', () => {
  const m = machine({ ept: false });
  const visit: Visit = (port) => {
    const outcome = exit(0, {
      [VMCS.exitInterruptionInfo]: 0x80000b0e,
      [VMCS.exitInterruptionErrorCode]: 2,
      [VMCS.exitQualification]: 0x7000,
    })(port);
    port.vmwrite32(VMCS.idtVectoringInfo, 0x80000b0e);
    port.vmwrite32(VMCS.idtVectoringErrorCode, 4);
    return outcome;
  };
  expect(entries(m, visit)).toEqual(['-', '80000b0e']);
  expect(m.port.vmread32(VMCS.entryExceptionErrorCode)).toBe(4);
  expect(m.mmu.calls).toEqual(['faultDuringDelivery 7000', 'pageFault 7000 2']);
});

test('a guest fault during the delivery of a page fault is a double fault', () => {
  const m = machine({ ept: false });
  const visit: Visit = (port) => {
    const outcome = exit(0, {
      [VMCS.exitInterruptionInfo]: 0x80000b0e,
      [VMCS.exitInterruptionErrorCode]: 2,
      [VMCS.exitQualification]: 0x7000,
    })(port);
    port.vmwrite32(VMCS.idtVectoringInfo, 0x80000b0e);
    m.mmu.pageFault = () => {
      m.vm.vcpu.injectPageFault({ code: 2, address: 0x7000n });
      return 'guest';
    };
    return outcome;
  };
  expect(entries(m, visit)).toEqual(['-', DF.toString(16)]);
  expect(m.port.registers.cr2).toBe(0x7000n);
});

test('the local APIC timer is the preemption timer; the deadline is a multiple of its unit', () => {
  const m = machine();
  m.vm.setApicBase(0xfee00d00n);
  const { lapic } = m.vm.board;
  lapic.writeMsr(0x80f, 0x1ffn);
  lapic.writeMsr(0x832, 0x400ecn);
  m.port.instructions = 1000;
  lapic.setTscDeadline(2001n);
  m.run();
  // 2001 is reached in count 63 of 32 cycles; now is in count 31
  expect(m.port.vmread32(VMCS.vmxPreemptionTimerValue)).toBe(63 - 31);
  interrupts(m.port, true);
  const log = entries(m, (port) => {
    port.instructions = 2016;
    return { exit: 52 };
  });
  expect(log).toEqual(['-', '800000ec']);
  expect(m.port.vmread32(VMCS.vmxPreemptionTimerValue)).toBe(0xffffffff);
});

test('HLT skips to the next deadline, without one the run ends', () => {
  const m = machine();
  expect(m.run(exit(12)).kind).toBe('halt');
  expect(m.vm.stats.halt_exits).toBe(1);

  const n = machine({}, { timeModel: 'instructions' });
  pic(n);
  // channel 0, mode 2, 11932 counts of 1193182 Hz: 10 ms
  for (const [port, v] of [
    [0x43, 0x34],
    [0x40, 11932 & 0xff],
    [0x40, 11932 >> 8],
  ] as const)
    n.vm.board.writePort(port, 1, v);
  interrupts(n.port, true);
  expect(entries(n, exit(12))).toEqual(['-', '80000030']);
  expect(n.vm.clock.now() / n.vm.clock.rate).toBeCloseTo(0.01, 6);
});

test('PV EOI is offered with the injection and withdrawn by an exit before the EOI', () => {
  const m = machine();
  m.vm.setApicBase(0xfee00d00n);
  const { lapic } = m.vm.board;
  lapic.writeMsr(0x80f, 0x1ffn);
  m.vm.vcpu.pvEoiMsr = 0x8001n;
  const flag = (): number => m.vm.readGuest8(0x8000) & 1;
  interrupts(m.port, true);
  lapic.accept(0x41, false);
  const seen: number[] = [];
  m.run(
    (port) => {
      seen.push(flag());
      // the guest ends the interrupt itself
      m.vm.writeGuest8(0x8000, 0);
      return exit(10)(port);
    },
    (port) => {
      seen.push(lapic.highestIsr());
      lapic.accept(0x42, false);
      return exit(10)(port);
    },
    (port) => {
      seen.push(flag());
      return exit(10)(port);
    },
    () => {
      seen.push(flag(), lapic.highestIsr());
      return { limit: true };
    },
  );
  expect(seen).toEqual([1, -1, 1, 0, 0x42]);
});

test('the sum over the reasons is the total, in exits and in cycles', () => {
  const m = machine();
  m.run(exit(10), exit(30), exit(10), exit(54), exit(12));
  const lines = m.hypervisor.counts.lines();
  const sum = (f: (l: (typeof lines)[number]) => number): number => lines.reduce((n, l) => n + f(l), 0);
  expect(sum((l) => l.exits)).toBe(m.hypervisor.counts.totalExits);
  expect(sum((l) => l.cycles)).toBe(m.hypervisor.counts.totalCycles);
  expect(m.vm.stats.exits).toBe(5);
});
