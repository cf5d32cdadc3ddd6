import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { LiveStat, type Screen } from '../../lib/cli/live-stat.js';
import { eventList } from '../../lib/cli/trace.js';
import { TRACE_NAMES } from '../../lib/hypervisor/trace-rows.js';
import type { ObservedMachine } from '../../lib/lab/observe.js';
import { vmxlab, vmxlabHere, withFolder } from './vmxlab.js';

const TINY = ['--guest', 'tiny', '--paging', 'shadow'] as const;

test('text in the format of the kernel, JSON lines with the same events', () =>
  withFolder((folder) => {
    const events = ['--events', 'kvm_exit,kvm_entry,kvm_page_fault', '--limit', '40'];
    const file = join(folder, 'run.trace');
    const text = vmxlab('trace', ...TINY, ...events, '--output', file);
    expect(text).toMatchObject({ status: 0, stdout: '' });
    expect(text.stderr).toMatch(/^shadow: interrupted after .* 40 events\n$/);
    expect(readdirSync(folder)).toEqual(['run.trace']);
    const lines = readFileSync(file, 'utf8').split('\n');
    const body = lines.filter((l) => l !== '' && !l.startsWith('#'));
    expect(lines[0]).toBe('# tracer: nop');
    expect(body).toHaveLength(40);
    expect(body[0]).toBe(
      '          vmxlab-1       [000] d..1.     0.000000: kvm_entry: vcpu 0, rip 0xffffffff80202000',
    );
    expect(body[1]).toMatch(
      /^ +vmxlab-1 +\[000\] d\.\.1\. +0\.\d{6}: kvm_exit: vcpu 0 reason EXCEPTION_NMI rip 0x\w+ info1 0x\w{16} info2 0x\w{16} intr_info 0x\w{8} error_code 0x\w{8}$/,
    );
    const json = vmxlab('trace', ...TINY, ...events, '--format', 'json');
    expect(json.status).toBe(0);
    const data = json.stdout
      .trim()
      .split('\n')
      .map((l) => JSON.parse(l) as { name: string; guest_rip?: string });
    expect(data.map((d) => d.name)).toEqual(body.map((l) => / (kvm_\w+): /.exec(l)?.[1]));
    expect(data[1]).toMatchObject({
      name: 'kvm_exit',
      vcpu_id: 0,
      exit_reason: 0,
      guest_rip: '0xffffffff80202000',
      instructions: 0,
      cycles: expect.any(Number),
    });
    expect(data[1]).not.toHaveProperty('cpu');
  }));

test('--explain says where the guest was and what it did; --from and --to are instructions', () => {
  const { status, stdout } = vmxlab(
    'trace',
    ...TINY,
    ...['--explain', '--events', 'kvm_exit', '--format', 'json', '--from', '300_000', '--to', '302_000'],
  );
  expect(status).toBe(0);
  const data = stdout
    .trim()
    .split('\n')
    .map((l) => JSON.parse(l) as { instructions: number; symbol: string; explanation: string });
  for (const d of data) {
    expect(d.instructions).toBeGreaterThanOrEqual(300_000);
    expect(d.instructions).toBeLessThan(302_000);
    expect(d.symbol).toMatch(/^\w+(\+0x\w+\/0x\w+)?$/);
  }
  expect(data.map((d) => d.explanation).join('\n')).toMatch(
    /the guest executed CPUID leaf 0x4ffffffe, subleaf 0x0/,
  );
  const text = vmxlab('trace', ...TINY, '--explain', '--events', 'kvm_exit', '--limit', '1').stdout;
  expect(text).toMatch(
    /\n# start: a supervisor instruction fetch of 0xffffffff80202000 faulted, without an entry: /,
  );
});

test('mistakes have status 2 and leave no file', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vmxlab-test-'));
  try {
    const rows: [string[], RegExp][] = [
      [['--events', 'kvm_exits'], /no event 'kvm_exits' \(one of kvm_entry, kvm_exit, /],
      [['--events', ''], /no event ''/],
      [['--limit', '0'], /--limit: '0' is not possible/],
      [['--limit', '-3'], /--limit: '-3' is not possible/],
      [['--from', '-1'], /--from: '-1' is not possible/],
      [['--from', '10', '--to', '10'], /--to: 10 is not possible \(it must be greater than --from, 10\)/],
      [['--format', 'xml'], /--format: unknown name 'xml' \(one of text, json\)/],
      [['--output', folder], /is a folder, not a file/],
      [['--output', join(folder, 'no', 'x')], /there is no folder/],
      [['--trace', '1:2', join(folder, 'x')], /--trace writes processor states, not events/],
    ];
    for (const [args, message] of rows) {
      const { status, stderr } = await vmxlabHere('trace', '--guest', 'tiny', ...args);
      expect(stderr).toMatch(message);
      expect(status).toBe(2);
    }
    expect(readdirSync(folder)).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('a run that cannot start leaves no part of the file', () =>
  withFolder((folder) => {
    mkdirSync(join(folder, 'd'));
    const file = join(folder, 'd', 'x.trace');
    const { status } = vmxlab('trace', '--guest', 'tiny', '--memory', '1M', '--output', file);
    expect(status).toBe(2);
    expect(existsSync(file)).toBe(false);
    expect(readdirSync(join(folder, 'd'))).toEqual([]);
  }));

test('what never happens here is said when it is asked for by name', () => {
  const { status, stdout, stderr } = vmxlab('trace', ...TINY, '--events', 'kvm_pml_full');
  expect(status).toBe(0);
  expect(stdout.split('\n').filter((l) => l !== '' && !l.startsWith('#'))).toEqual([]);
  expect(stderr).toMatch(/^kvm_pml_full will not come: /);
});

test('lists of events: names, subsystems, all', () => {
  expect(eventList('kvm_exit, kvm_entry').names).toEqual(['kvm_entry', 'kvm_exit']);
  expect(eventList('all').names).toEqual(TRACE_NAMES);
  expect(eventList('kvmmmu,kvm_exit').names).toContain('kvm_mmu_get_page');
  expect(eventList('kvmmmu').names).not.toContain('kvm_exit');
  expect(eventList('kvm,kvm_cr').named).toEqual(['kvm_cr']);
});

test('stat prints the table, and as data with --json', () =>
  withFolder((folder) => {
    const file = join(folder, 's.json');
    const { status, stdout } = vmxlab('stat', ...TINY, '--json', file);
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^\nAnalyze events for all VMs, all VCPUs:\n\n +VM-EXIT +Samples +Samples% +Time% +Min Time/,
    );
    expect(stdout).toMatch(
      /\n +EXCEPTION_NMI +\d+ +\d+\.\d\d% +\d+\.\d\d% +\d+\.\d\dus +\d+\.\d\dus +\d+\.\d\dus \( \+- +\d+\.\d\d% \)\n/,
    );
    const { stat, exits } = JSON.parse(readFileSync(file, 'utf8'));
    expect(stat.rows.find((r: { name: string }) => r.name === 'INVLPG').samples).toBe(exits[14]);
    const io = vmxlab('stat', '--guest', 'tiny', '--event', 'ioport');
    expect(io.stdout).toMatch(/IO Port Access +Samples/);
    expect(io.stdout).toMatch(/0x3f8:POUT/);
  }));

test('boot --stat on a pipe: the last table in place of the console', () => {
  const { status, stdout } = vmxlab('boot', ...TINY, '--stat');
  expect(status).toBe(0);
  expect(stdout).toMatch(/^kvm statistics - summary\n\n Event +Total +%Total +CurAvg\/s\n/);
  expect(stdout).toMatch(/\n {3}kvm_exit\(EXCEPTION_NMI\) +\d+ +\d+\.\d +\d+\n/);
  expect(stdout).not.toContain('\u001b');
});

test('boot --stat in a terminal draws on the other screen, not too often, and leaves it', () => {
  let out = '';
  let now = 0;
  const screen: Screen = { isTTY: true, rows: 12, columns: 30, write: (t) => (out += t) };
  const counters = { instructions: 1, cycles: 400, exits: { 10: 5 }, kvmStats: { exits: 5 } };
  const machine = { counters: () => counters, vm: { clock: { rate: 400 } } } as unknown as ObservedMachine;
  const live = new LiveStat(screen, () => now);
  live.attach(machine);
  live.console(Buffer.from('first\nsecond \u001b[31mline that is far too long for it\n'));
  live.update();
  now = 100;
  live.update();
  now = 700;
  live.update();
  live.finish(counters);
  expect(out.split('\u001b[H\u001b[2J')).toHaveLength(3);
  expect(out.startsWith('\u001b[?1049h')).toBe(true);
  expect(out).toContain('\nsecond [31mline that is far t');
  const [, after = ''] = out.split('\u001b[?1049l');
  expect(after.startsWith('kvm statistics - summary\n')).toBe(true);
  expect(after).not.toContain('\u001b');
});
