import { expect, test } from 'vitest';
import { HaltPolling } from '../../lib/hypervisor/halt-poll.js';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { newStats } from '../../lib/hypervisor/stats.js';
import { TRACEPOINTS } from '../../lib/hypervisor/trace-rows.js';
import { Tracer } from '../../lib/hypervisor/tracer.js';

const polling = (params: Record<string, unknown> = {}) => {
  const h = new Hypervisor();
  h.loadModule('kvm', params);
  h.loadModule('kvm-intel');
  const stats = newStats();
  const trace = new Tracer();
  const lines: string[] = [];
  trace.on('kvm_halt_poll_ns', (e) => lines.push(TRACEPOINTS.kvm_halt_poll_ns.text(e)));
  trace.on('kvm_vcpu_wakeup', (e) => lines.push(TRACEPOINTS.kvm_vcpu_wakeup.text(e)));
  return { stats, lines, halts: new HaltPolling(h.require().kvm, stats, trace.sinks) };
};

test('KVM-8.1: the first halt sleeps, short ones make the host poll, a long one ends that', () => {
  const { stats, lines, halts } = polling();
  for (const ns of [50_000, 8_000, 15_000, 15_000, 1_000_000, 1_000_000]) halts.woken(ns);
  expect(lines).toEqual([
    'vcpu 0: halt_poll_ns 10000 (grow 0)',
    'wait time 50000 ns, polling valid',
    'poll time 8000 ns, polling valid',
    'vcpu 0: halt_poll_ns 20000 (grow 10000)',
    'wait time 15000 ns, polling valid',
    'poll time 15000 ns, polling valid',
    'vcpu 0: halt_poll_ns 0 (shrink 20000)',
    'wait time 1000000 ns, polling valid',
    'wait time 1000000 ns, polling valid',
  ]);
  expect(stats).toMatchObject({
    halt_attempted_poll: 4,
    halt_successful_poll: 2,
    halt_poll_invalid: 0,
    halt_wakeup: 4,
    halt_poll_success_ns: 23_000,
    halt_poll_fail_ns: 30_000,
    halt_wait_ns: 50_000 + 5_000 + 980_000 + 1_000_000,
  });
  // 8000 is in 4096 to 8191, 15000 in 8192 to 16383
  expect(halts.histograms.halt_poll_success_hist.slice(12, 16)).toEqual([0, 1, 1, 0]);
  expect(halts.histograms.halt_wait_hist.reduce((s, n) => s + n, 0)).toBe(4);
});

test('halt_poll_ns=0 never polls; halt_poll_ns_grow=0 never begins', () => {
  for (const params of [{ halt_poll_ns: 0 }, { halt_poll_ns_grow: 0 }]) {
    const { stats, halts } = polling(params);
    for (const ns of [5_000, 5_000, 5_000]) halts.woken(ns);
    expect(stats).toMatchObject({ halt_attempted_poll: 0, halt_wakeup: 3, halt_wait_ns: 15_000 });
  }
});
