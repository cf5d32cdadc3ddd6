import { expect, test } from 'vitest';
import type { TraceEvent } from '../../lib/hypervisor/trace-events.js';
import { TRACE_NAMES, TRACEPOINTS } from '../../lib/hypervisor/trace-rows.js';
import { bootUnder } from '../../lib/lab/both.js';
import type { RunResult } from '../../lib/lab/machine.js';
import type { MachineListeners, ObservedMachine } from '../../lib/lab/observe.js';
import { catchExit } from '../../lib/lab/trace-catch.js';
import { explainExit } from '../../lib/lab/trace-explain.js';

const SMALL = { guest: 'tiny', tiny: { processes: 2, switches: 4, touchPages: 8, forks: 1 } } as const;
const without = (r: RunResult): Omit<RunResult, 'wallSeconds'> => {
  const { wallSeconds: _, ...rest } = r;
  return rest;
};

test.each(['ept', 'shadow'] as const)('listeners change nothing of a run: %s', async (paging) => {
  const alone = await bootUnder(paging, SMALL);
  const seen = new Map<string, number>();
  const wrong: string[] = [];
  let created = 0;
  let strings = 0;
  const on = Object.fromEntries(
    TRACE_NAMES.map((name) => [
      name,
      (e: TraceEvent, m: ObservedMachine) => {
        seen.set(name, (seen.get(name) ?? 0) + 1);
        const texts = [(TRACEPOINTS[name].text as (e: TraceEvent) => string)(e)];
        if (e.name === 'kvm_mmu_get_page' && e.created) created++;
        if (e.name === 'kvm_exit') {
          if (e.exit_reason === 30 && (e.info1 & 0x10n) !== 0n) strings++;
          texts.push(explainExit(e).text);
          if (seen.get(name) === 5) expect(m.vmcs().guestRip).toBe(e.guest_rip);
        }
        wrong.push(...texts.filter((t) => /undefined|NaN/.test(t)));
      },
    ]),
  ) as MachineListeners;
  const watched = await bootUnder(paging, { ...SMALL, on });
  expect(without(watched)).toEqual(without(alone));
  expect(wrong).toEqual([]);
  const exits = Object.values(alone.exits).reduce((s, n) => s + n, 0);
  expect(seen.get('kvm_exit')).toBe(exits);
  expect(seen.get('kvm_exit')).toBe(alone.kvmStats['exits']);
  expect(seen.get('kvm_cpuid')).toBe(alone.exits[10]);
  expect(seen.get('kvm_msr')).toBe((alone.exits[31] ?? 0) + (alone.exits[32] ?? 0));
  expect(seen.get('kvm_cr') ?? 0).toBe(alone.exits[28] ?? 0);
  expect(seen.get('kvm_page_fault')).toBe((alone.exits[0] ?? 0) + (alone.exits[48] ?? 0));
  expect(seen.get('kvm_inj_virq') ?? 0).toBe(alone.kvmStats['irq_injections']);
  expect(seen.get('kvm_inj_exception') ?? 0).toBe(alone.kvmStats['pf_guest']);
  expect(seen.get('kvm_hypercall') ?? 0).toBe(alone.kvmStats['hypercalls']);
  expect(seen.get('mark_mmio_spte') ?? 0).toBe(alone.kvmStats['pf_mmio_spte_created']);
  expect(seen.get('kvm_emulate_insn') ?? 0).toBe((alone.kvmStats['insn_emulation'] ?? 0) - strings);
  if (paging === 'shadow') expect(created).toBe(alone.kvmStats['mmu_cache_miss']);
  else expect(created).toBeGreaterThanOrEqual(3);
  // what is never said to happen does not
  for (const name of TRACE_NAMES)
    if (TRACEPOINTS[name].never !== undefined) expect(seen.get(name)).toBe(undefined);
});

test('one CR3 write, one page fault, one EPT violation, with the VMCS before and after', async () => {
  let cr3: ReturnType<typeof catchExit> | undefined;
  let fault: ReturnType<typeof catchExit> | undefined;
  await bootUnder('shadow', {
    ...SMALL,
    onMachine: (m) => {
      cr3 = catchExit(m, (e) => e.exit_reason === 28 && (e.info1 & 0x3fn) === 3n);
      fault = catchExit(m, (e) => e.exit_reason === 0 && e.error_code === 6);
    },
  });
  const written = cr3?.take();
  expect(written?.explanation.text).toMatch(
    /^the guest wrote CR3 to switch from 0x\w+ to 0x\w+: shadow paging/,
  );
  expect(written?.steps.map((s) => s.name)).toContain('kvm_cr');
  expect(written?.vmcsAtEntry.guestRip).toBe(
    (written?.vmcs.guestRip ?? 0n) + (written?.vmcs.exitInstructionLength ?? 0n),
  );
  // the processor's CR3 has a shadow root, not what the guest wrote
  expect(written?.guestAtEntry.cr3).not.toBe(Number(written?.vmcsAtEntry.guestCr3));
  const user = fault?.take();
  expect(user?.explanation.what).toMatch(/^a user write of 0x\w+ faulted, without an entry$/);
  expect(user?.vmcs.exitQualification).toBe(user?.exit.info1);

  let violation: ReturnType<typeof catchExit> | undefined;
  const run = await bootUnder('ept', {
    ...SMALL,
    onMachine: (m) => {
      violation = catchExit(m, (e) => e.exit_reason === 48, { nth: 2, stop: true });
    },
  });
  expect(run.outcome).toBe('interrupted');
  expect(violation?.take().explanation.what).toMatch(
    /of guest-physical 0x\w+ \(linear 0x\w+\), which EPT does not map/,
  );
});

test('what was not caught is said', async () => {
  let none: ReturnType<typeof catchExit> | undefined;
  await bootUnder('ept', {
    ...SMALL,
    onMachine: (m) => {
      none = catchExit(m, (e) => e.exit_reason === 28);
      expect(() => catchExit(m, () => true, { nth: 0 })).toThrow('nth: 0 is not possible');
    },
  });
  expect(() => none?.take()).toThrow('the run had 0 of the exits');
});

test('an unknown event among the options is refused with the list', async () => {
  await expect(bootUnder('ept', { ...SMALL, on: { kvm_exits: () => {} } as never })).rejects.toThrow(
    /no event 'kvm_exits'.*kvm_exit,/,
  );
  await expect(bootUnder('ept', { ...SMALL, on: { kvm_exit: 1 } as never })).rejects.toThrow(
    'the listener of kvm_exit is not a function',
  );
});
