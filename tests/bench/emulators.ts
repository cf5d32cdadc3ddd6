/**
 * The emulators that vmxlab is compared with: how to start them on the same guest, and how a run of them is read.
 *
 * QEMU gets the uncompressed kernel, as vmxlab does, on its micro-VM board without ACPI (with it, this kernel is left
 * without a timer when the PIT calibration fails, as it does on a busy host). Bochs has a BIOS and boots a CD with GRUB,
 * which takes only the compressed kernel: the guest then also decompresses it (about 100 M instructions). Its virtual
 * time runs at 100 ns an instruction (`ips`): with a faster one the guest mostly waits for the 9600 baud of the console.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';
import { INIT_LINE, WORKLOAD_DONE } from '../../lib/guests/debian/init.js';
import type { Mark, MarkName, Sample } from './sample.js';

/** The guest as files. */
export interface GuestFiles {
  readonly bzImage: string;
  readonly vmlinux: string;
  readonly initramfs: string;
  readonly cmdline: string;
  /** MiB of guest memory. */
  readonly memory: number;
}

/** What to start, and where the guest's serial port comes out. */
export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly serial: 'stdout' | { readonly file: string };
  /** One line about it for the report. */
  readonly about: string;
}

/** Why an emulator cannot be measured: reported, not an error. */
export interface Absent {
  readonly absent: string;
}

const START_LINE = '[vmxlab] kernel starts';
const TIMEOUT_SECONDS = 900;
const POLL_MILLISECONDS = 10;
/** Clock ticks a second in /proc/PID/stat: USER_HZ, the same on every Linux for x86-64. */
const USER_HZ = 100;

const { PATH = '' } = process.env;
const installed = (program: string): boolean =>
  PATH.split(delimiter).some((folder) => folder !== '' && existsSync(join(folder, program)));

const missing = (programs: readonly string[], packages: string): Absent | undefined => {
  const lacking = programs.filter((p) => !installed(p));
  if (lacking.length === 0) return undefined;
  return { absent: `not installed: ${lacking.join(', ')} (Debian packages ${packages})` };
};

/** What a program says of itself; the line with its version is `versionLine`. */
const output = (program: string, args: readonly string[]): string => {
  const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', input: '' });
  return `${stdout}${stderr}`;
};
const versionLine = (text: string): string =>
  text
    .split('\n')
    .find((l) => /\d\.\d/.test(l))
    ?.trim() ?? 'unknown version';

export const qemu = (guest: GuestFiles): Command | Absent => {
  const program = 'qemu-system-x86_64';
  const absent = missing([program], 'qemu-system-x86');
  if (absent !== undefined) return absent;
  return {
    program,
    args: [
      ...[
        '-M',
        'microvm,acpi=off,pic=on,pit=on,rtc=on,auto-kernel-cmdline=off',
        '-accel',
        'tcg',
        '-smp',
        '1',
        '-m',
        `${guest.memory}M`,
      ],
      ...['-nodefaults', '-no-reboot', '-display', 'none', '-monitor', 'none', '-serial', 'stdio'],
      ...['-kernel', guest.vmlinux, '-initrd', guest.initramfs, '-append', guest.cmdline],
    ],
    serial: 'stdout',
    about: `${versionLine(output(program, ['--version']))}, -M microvm -accel tcg, uncompressed kernel`,
  };
};

/** A bootable CD image with GRUB, or why there is none. */
const makeIso = (guest: GuestFiles, folder: string): string | Absent => {
  const tree = join(folder, 'iso');
  mkdirSync(join(tree, 'boot', 'grub'), { recursive: true });
  writeFileSync(join(tree, 'boot', 'vmlinuz'), readFileSync(guest.bzImage));
  writeFileSync(join(tree, 'boot', 'initrd'), readFileSync(guest.initramfs));
  writeFileSync(
    join(tree, 'boot', 'grub', 'grub.cfg'),
    `set timeout=0
serial --unit=0 --speed=115200
terminal_output serial
linux /boot/vmlinuz ${guest.cmdline}
initrd /boot/initrd
echo '${START_LINE}'
boot
`,
  );
  const iso = join(folder, 'guest.iso');
  const made = spawnSync('grub-mkrescue', ['-d', GRUB_MODULES, '-o', iso, tree], { encoding: 'utf8' });
  if (made.status === 0) return iso;
  const why = `${made.stderr}`.trim().split('\n').at(-1) ?? '';
  return { absent: `grub-mkrescue failed with status ${made.status}: ${why}` };
};

const GRUB_MODULES = '/usr/lib/grub/i386-pc';
const BOCHS_ROMS = '/usr/share/bochs';
const BOCHS_PLUGINS = [
  '/usr/lib/x86_64-linux-gnu/bochs/plugins',
  '/usr/lib/bochs/plugins',
  '/usr/local/lib/bochs/plugins',
];

/** A display that needs neither screen nor terminal. */
const headlessDisplay = (): string => {
  const plugins = BOCHS_PLUGINS.flatMap((f) => (existsSync(f) ? readdirSync(f) : []));
  return plugins.includes('libbx_nogui_gui.so') ? 'nogui' : 'rfb, options="timeout=0"';
};

export const bochs = (guest: GuestFiles, folder: string): Command | Absent => {
  const absent = missing(
    ['bochs', 'grub-mkrescue', 'xorriso', 'mformat'],
    'bochs, bochsbios, grub-common, grub-pc-bin, xorriso, mtools',
  );
  if (absent !== undefined) return absent;
  for (const [path, name] of [
    [join(BOCHS_ROMS, 'BIOS-bochs-latest'), 'bochsbios'],
    [join(BOCHS_ROMS, 'VGABIOS-lgpl-latest'), 'bochsbios'],
    [GRUB_MODULES, 'grub-pc-bin'],
  ] as const)
    if (!existsSync(path)) return { absent: `not installed: ${path} (Debian package ${name})` };
  const iso = makeIso(guest, folder);
  if (typeof iso !== 'string') return iso;
  const serial = join(folder, 'bochs.serial');
  const settings = join(folder, 'bochsrc');
  writeFileSync(
    settings,
    `config_interface: textconfig
display_library: ${headlessDisplay()}
megs: ${guest.memory}
romimage: file=${join(BOCHS_ROMS, 'BIOS-bochs-latest')}
vgaromimage: file=${join(BOCHS_ROMS, 'VGABIOS-lgpl-latest')}
cpu: count=1, ips=10000000
clock: sync=none
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path="${iso}", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev="${serial}"
speaker: enabled=1, mode=none
sound: waveoutdrv=dummy
log: ${join(folder, 'bochs.log')}
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
`,
  );
  // Debian's has its debugger built in, which waits for a command at the first instruction
  const help = output('bochs', ['--help']);
  const debugging = /^\s*-rc\b/m.test(help);
  const commands = join(folder, 'bochs.commands');
  writeFileSync(commands, 'continue\n');
  return {
    program: 'bochs',
    args: ['-q', '-f', settings, ...(debugging ? ['-rc', commands] : [])],
    serial: { file: serial },
    about: `${versionLine(help)}, from a CD with GRUB, compressed kernel`,
  };
};

/** CPU time and peak memory of a process that runs, from /proc. */
const readProcess = (pid: number, started: number): Mark => {
  const wall = (performance.now() - started) / 1000;
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const peak = /VmHWM:\s*(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1];
  return { wall, cpu: (Number(fields[11]) + Number(fields[12])) / USER_HZ, peak: Number(peak ?? 0) * 1024 };
};

const LINES: readonly (readonly [MarkName, string])[] = [
  ['start', START_LINE],
  ['init', INIT_LINE],
  ['end', WORKLOAD_DONE],
];

/** Calls `take` with what a growing file gets; returns a function that stops it. */
const follow = (file: string, take: (text: string) => void): (() => void) => {
  const buffer = Buffer.alloc(65_536);
  let handle: number | undefined;
  const timer = setInterval(() => {
    if (handle === undefined && existsSync(file)) handle = openSync(file, 'r');
    if (handle === undefined) return;
    const n = readSync(handle, buffer, 0, buffer.length, null);
    if (n > 0) take(buffer.toString('latin1', 0, n));
  }, POLL_MILLISECONDS);
  return () => {
    clearInterval(timer);
    if (handle !== undefined) closeSync(handle);
  };
};

/** Runs an emulator up to a line of the guest's console, then ends it. `onSpawn` gets the process, to end it early. */
export const runEmulator = (
  command: Command,
  to: 'init' | 'end',
  onSpawn: (child: ChildProcess) => void,
): Promise<Sample> =>
  new Promise((resolve) => {
    if (command.serial !== 'stdout') writeFileSync(command.serial.file, '');
    const marks: Partial<Record<MarkName, Mark>> = {};
    const started = performance.now();
    const child = spawn(command.program, command.args, { stdio: ['ignore', 'pipe', 'pipe'] });
    onSpawn(child);
    let line = '';
    let noise = '';
    let problem: string | undefined;
    const take = (text: string): void => {
      const lines = (line + text).split('\n');
      line = lines.pop()!;
      for (const l of lines) {
        const mark = LINES.find(([, words]) => l.includes(words))?.[0];
        if (mark === undefined || marks[mark] !== undefined || child.pid === undefined) continue;
        marks[mark] = readProcess(child.pid, started);
        if (mark === to) child.kill('SIGKILL');
      }
    };
    const stop = command.serial === 'stdout' ? undefined : follow(command.serial.file, take);
    child.stdout.setEncoding('latin1').on('data', (text: string) => {
      if (stop === undefined) take(text);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      noise = (noise + text).slice(-2000);
    });
    const timer = setTimeout(() => {
      problem = `not at the line after ${TIMEOUT_SECONDS} s; last console text: '${line.trim()}'`;
      child.kill('SIGKILL');
    }, TIMEOUT_SECONDS * 1000);
    const done = (why: string): void => {
      clearTimeout(timer);
      stop?.();
      resolve(marks[to] === undefined ? { marks, problem: problem ?? why } : { marks });
    };
    child.on('error', (e) => done(`could not be started: ${e.message}`));
    child.on('close', (status, signal) =>
      done(`ended early (${status ?? signal}): ${noise.trim().split('\n').at(-1) ?? ''}`),
    );
  });
