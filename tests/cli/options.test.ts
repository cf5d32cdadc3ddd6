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
