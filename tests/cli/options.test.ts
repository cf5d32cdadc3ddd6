import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { BOOTSTRAP, vmxlab, vmxlabHere } from './vmxlab.js';

const COMMANDS = ['boot', 'compare', 'lab', 'setup', 'notebook'] as const;

test.each([[], ...COMMANDS.map((c) => [c])])('%s --help and --version', async (...command) => {
  const help = await vmxlabHere(...command, '--help');
  expect(help.status).toBe(0);
  expect(help.stdout).toContain(`Usage: vmxlab${command.length > 0 ? ` ${command[0]}` : ''}`);
  const version = await vmxlabHere(...command, '--version');
  expect(version).toMatchObject({ status: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
});

test('the help of boot names every option and the statuses', async () => {
  const { stdout } = await vmxlabHere('boot', '--help');
  const options = [
    'guest',
    'kernel',
    'initrd',
    'cmdline',
    'append',
    'paging',
    'memory',
    'workload',
    'until',
    'max-instructions',
    'time-model',
    'leaves',
    'engine',
    'json',
    'shell',
    'trace',
    'param',
    'backing',
    'cpu',
    'seed',
    'hide-cpuid',
    'feature',
    'acpi',
    'pti',
    'host-tick',
    'clock-rate',
    'cost',
    'tiny',
    'module',
    'debug-exit',
    'debug-console',
    'fw-cfg',
    'gdb',
  ];
  for (const o of options) expect(stdout).toContain(`--${o} `);
  expect(stdout).toContain('-e, ');
  expect(stdout).toContain('Exit status: 0');
});

/** Command line and what the message must say. */
const MISTAKES: readonly (readonly [string, string])[] = [
  ['', 'Usage: vmxlab'],
  ['bot', "unknown command 'bot'"],
  ['boot extra', 'too many arguments'],
  ['boot --pagin ept', "unknown option '--pagin'"],
  ['boot --paging tdp', "--paging: unknown name 'tdp' (one of ept, shadow)"],
  ['boot --guest plan9', "--guest: unknown name 'plan9' (one of debian"],
  ['boot --leaves F1999', "--leaves: unknown name 'F1999' (one of F2020, F2021, F2022)"],
  ['boot --engine jit', "--engine: unknown name 'jit' (one of interpreter, reference)"],
  ['boot --time-model wall', "--time-model: unknown name 'wall' (one of cycles, instructions)"],
  ['boot --memory', 'argument missing'],
  ['boot --memory 12Q', "--memory: '12Q' is not possible"],
  ['boot --memory 1M', 'guest memory of 1048576 bytes is not possible'],
  ['boot --max-instructions 0', "--max-instructions: '0' is not possible"],
  ['boot --max-instructions 1e9', "--max-instructions: '1e9' is not possible"],
  ['boot --kernel /nonexistent', '--kernel: /nonexistent does not exist'],
  ['boot --initrd /', '--initrd: / is a folder, not a file'],
  ['boot --workload /nonexistent', '--workload: /nonexistent does not exist'],
  ['boot --workload x -e y', '--workload and -e exclude each other'],
  ['boot --json /nonexistent/x.json', '--json: there is no folder /nonexistent'],
  ['boot --trace 1:2', '--trace: 1 value given (it takes two: FROM:TO FILE)'],
  ['boot --trace 5:2 /tmp/x', "--trace: '5:2' is not possible"],
  ['boot --trace 5 /tmp/x', "--trace: '5' is not possible"],
  ['boot --shell', '--shell needs a terminal'],
  ['boot --shell -e x', '--shell runs no workload'],
  ['compare --paging ept', "unknown option '--paging'"],
  ['compare --csv /', '--csv: / is a folder'],
  ['setup now', 'too many arguments'],
  ['boot --param vpdi=N', "unknown parameter 'vpdi' (valid names: of kvm-intel ept, vpid, "],
  ['boot --param kvm.vpid=N', "'kvm.vpid': vpid is a parameter of kvm-intel"],
  ['boot --param vpid=maybe', "parameter 'vpid' takes Y or N, not 'maybe' (TLB entries"],
  ['boot --param ple_gap=x', "parameter 'ple_gap' takes a number (uint), not 'x'"],
  ['boot --param ple_gap', "parameter 'ple_gap' takes a number (uint), not 'Y'"],
  ['boot --param ple_gap=-1', "parameter 'ple_gap' must be from 0 to 4294967295, not -1"],
  ['boot --param nested=Y', "parameter 'nested' can only be N here"],
  ['boot --paging ept --param ept=N', '--paging ept and --param ept=N exclude each other'],
  ['compare --param ept=N', '--param ept has no place here'],
  ['boot --backing 1G', "--backing: unknown name '1G' (one of 4K, 2M)"],
  ['boot --cpu host', "--cpu: unknown name 'host' (one of lab, v2, full, reference)"],
  ['boot --seed -1', "--seed: '-1' is not possible"],
  ['boot --seed 4294967296', "--seed: '4294967296' is not possible (a whole number from 0 to 4294967295)"],
  ['boot --hide-cpuid pcid,', "--hide-cpuid: 'pcid,' is not possible"],
  ['boot --hide-cpuid pcdi', "'pcdi' is no CPUID feature that can be hidden (pni, "],
  ['boot --feature pv-eoi', "--feature: 'pv-eoi' is not possible (NAME[,NAME…]=on or off)"],
  ['boot --feature pv-eoi=yes', "--feature: unknown name 'yes' (one of on, off)"],
  ['boot --feature x2apic=off,pv-eoi', "--feature: 'x2apic=off,pv-eoi' is not possible"],
  ['boot --feature kvm-clock=on', "--feature: unknown name 'kvm-clock' (one of x2apic, kvmclock, "],
  ['boot --feature async-pf=on --time-model instructions', 'feature asyncPf and timeModel'],
  ['boot --acpi yes', "--acpi: unknown name 'yes' (one of on, off)"],
  ['boot --pti auto', "--pti: unknown name 'auto' (one of on, off)"],
  ['boot --host-tick 20000', "--host-tick: '20000' is not possible (a whole number from 0 to 10000)"],
  ['boot --host-tick 1000 --clock-rate 10M', "hostTickHz '1000' is not possible (at 10000000 cycles"],
  ['boot --clock-rate fast', "--clock-rate: 'fast' is not possible (a rate from 10M to 100G, like"],
  ['boot --clock-rate 1k', "--clock-rate: '1k' is not possible"],
  ['boot --cost 28', "--cost: '28' is not possible (REASON=CYCLES"],
  ['boot --cost 28=few', "--cost: 'few' is not possible"],
  ['boot --guest tiny --cost CR3=1', "unknown cost 'CR3' (an exit reason"],
  ['boot --tiny forks', "--tiny: 'forks' is not possible (NAME=COUNT"],
  ['boot --tiny spoons=1', "--tiny: unknown name 'spoons' (one of syscalls, "],
  ['boot --tiny forks=-1', "--tiny: '-1' is not possible"],
  ['boot --tiny unmaps=1', 'unmaps: 1 is more than touchPages (0)'],
  ['boot --guest debian --tiny forks=1', '--tiny belongs to the built-in guest'],
  ['boot --guest tiny --pti on', "the guest 'tiny' has no pti"],
  ['boot --module /nonexistent,x', '--module: /nonexistent does not exist'],
  ['boot --module /etc/passwd', 'modules belong to a Multiboot kernel'],
  ['boot --debug-exit exit', "--debug-exit: 'exit' is not possible (a number from 0 to 65535"],
  ['boot --guest tiny --debug-exit 0x3f8', 'debug exit at ports 0x3f8-0x3f'],
  ['boot --gdb 70000', "--gdb: '70000' is not possible"],
  ['compare --gdb 1234', "unknown option '--gdb'"],
];

test.each(MISTAKES)('%s: one message, status 2', async (line, message) => {
  const { status, stdout, stderr } = await vmxlabHere(...line.split(' ').filter((w) => w !== ''));
  expect(stderr).toContain(message);
  if (line !== '') expect(stderr).toMatch(/^vmxlab: /);
  expect(stderr).not.toMatch(/^ +at /m);
  expect(stdout).toBe('');
  expect(status).toBe(2);
});

test('a mistake ends the process with status 2', () => {
  expect(vmxlab('boot', '--memory', '12Q')).toEqual({
    status: 2,
    stdout: '',
    stderr: "vmxlab: --memory: '12Q' is not possible (a size is a number of bytes, or like 256M or 1G)\n",
  });
});

test('the entry that npm and npx use hands over to the program', () => {
  const { status, stdout } = spawnSync(process.execPath, [BOOTSTRAP, '--version'], { encoding: 'utf8' });
  expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  expect(status).toBe(0);
});

/** `--feature`, and which of them fails last: all before it were understood. */
test.each([
  ['x2apic,pv-eoi=off,async-pf=on', 'asyncPf'],
  ['async-pf,steal-time=off,pv-eoi=on', 'pvEoi'],
])('a state holds for the names before it: --feature %s', async (text, on) => {
  const { stderr } = await vmxlabHere('boot', '--feature', text, '--time-model', 'instructions');
  expect(stderr).toMatch(new RegExp(`^vmxlab: feature ${on} and timeModel`));
});
