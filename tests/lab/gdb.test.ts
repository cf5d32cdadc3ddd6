/** The GDB stub: by packets, and with Debian's gdb where it is installed. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bootUnder } from '../../lib/lab/both.js';
import { PacketReader, packet } from '../../lib/lab/gdb/packets.js';
import type { BootOptions, RunResult } from '../../lib/lab/machine.js';
import { assemble, dword, exitWith, flatKernel, HEADER_BYTES, LOAD, put } from './guest-code.js';

let folder = '';
let kernel = '';
let spinner = '';
const CODE_AT = LOAD + HEADER_BYTES;
/** Counts ECX to 0 with an exit in each round, then prints and leaves. */
const LOOP = assemble(CODE_AT, [
  [0xb9, ...dword(20)], // +0 mov ecx, 20
  [0xe6, 0x80], // +5 out 80h, al
  [0x49, 0x75, 0xfb], // +7 dec ecx; +8 jnz +5
  put('x'), // +10
  exitWith(2), // +14
]);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmxlab-test-'));
  kernel = join(folder, 'k');
  spinner = join(folder, 'spin');
  writeFileSync(kernel, flatKernel(LOOP));
  writeFileSync(spinner, flatKernel(Uint8Array.of(0xeb, 0xfe)));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One request, one reply, as a debugger does. */
class Client {
  readonly #reader = new PacketReader();
  readonly #replies: string[] = [];
  #waiting: ((reply: string) => void) | undefined;
  readonly socket: Socket;
  readonly closed: Promise<void>;
  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1');
    this.closed = new Promise((resolve) => this.socket.on('close', () => resolve()));
    this.socket.on('error', () => {});
    this.socket.on('data', (bytes: Buffer) => {
      for (const item of this.#reader.push(bytes)) if (item.kind === 'packet') this.#take(item.data);
    });
  }
  #take(reply: string): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting === undefined) this.#replies.push(reply);
    else waiting(reply);
  }
  reply(): Promise<string> {
    const next = this.#replies.shift();
    if (next !== undefined) return Promise.resolve(next);
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }
  send(data: string): void {
    this.socket.write(packet(data));
  }
  ask(data: string): Promise<string> {
    this.send(data);
    return this.reply();
  }
  /** A monitor command's output. */
  async monitor(line: string): Promise<string> {
    this.send(`qRcmd,${Buffer.from(line).toString('hex')}`);
    let out = '';
    for (;;) {
      const reply = await this.reply();
      if (reply === 'OK') return out;
      out += Buffer.from(reply.slice(1), 'hex').toString();
    }
  }
}

const debug = async (
  options: BootOptions,
  drive: (client: Client, port: number) => Promise<void>,
): Promise<RunResult> => {
  let driven: Promise<void> = Promise.resolve();
  const result = await bootUnder('ept', {
    kernel,
    memory: 64 << 20,
    debugExit: 0xf4,
    acpi: false,
    maxInstructions: 50_000_000,
    ...options,
    gdb: 0,
    onGdb: (port) => {
      driven = drive(new Client(port), port);
    },
  });
  await driven;
  return result;
};
const little = (v: number, bytes = 8): string =>
  Array.from({ length: bytes }, (_, i) =>
    (Math.floor(v / 256 ** i) % 256).toString(16).padStart(2, '0'),
  ).join('');
const RIP = 'p10';
const TRAP = 'T05thread:01;';

describe('packets', () => {
  test('step, registers and memory; the machine does not notice', async () => {
    const free = await bootUnder('ept', { kernel, memory: 64 << 20, debugExit: 0xf4, acpi: false });
    const r = await debug({}, async (c) => {
      expect(await c.ask('?')).toBe(TRAP);
      expect(await c.ask(RIP)).toBe(little(CODE_AT));
      expect(await c.ask('p0')).toBe(little(0x2bad_b002));
      expect((await c.ask('g')).length).toBe(
        2 * (17 * 8 + 7 * 4 + 8 * 10 + 8 * 4 + 16 * 16 + 4 + 2 * 8 + 7 * 8),
      );
      expect(await c.ask('s')).toBe(TRAP);
      expect(await c.ask(RIP)).toBe(little(CODE_AT + 5));
      expect(await c.ask('p2')).toBe(little(20)); // rcx
      expect(await c.ask('s')).toBe(TRAP); // the output exits
      expect(await c.ask(RIP)).toBe(little(CODE_AT + 7));
      expect(await c.ask(`m${CODE_AT.toString(16)},5`)).toBe('b914000000');
      expect(await c.ask('c')).toBe('W05');
    });
    for (const what of [
      'outcome',
      'status',
      'console',
      'instructions',
      'cycles',
      'exits',
      'kvmStats',
    ] as const)
      expect(r[what]).toEqual(free[what]);
  });

  test('a write watchpoint stops behind each store that changes the bytes', async () => {
    const stores = join(folder, 'stores');
    const code = assemble(CODE_AT, [
      [0xb9, ...dword(2)], // +0 mov ecx, 2
      [0x89, 0x0d, ...dword(0x20_0000)], // +5 mov [200000h], ecx
      [0x89, 0x0d, ...dword(0x20_0000)], // +11 the same again: no change
      [0x49, 0x75, 0xf1], // +17 dec ecx; +18 jnz +5
      exitWith(2),
    ]);
    writeFileSync(stores, flatKernel(code));
    const result = await debug({ kernel: stores }, async (c) => {
      expect(await c.ask('Z2,200002,2')).toBe('OK');
      expect(await c.ask('Z2,200000,4')).toBe('OK');
      for (const value of [2, 1]) {
        expect(await c.ask('c')).toBe('T05watch:200000;thread:01;');
        expect(await c.ask(RIP)).toBe(little(CODE_AT + 11));
        expect(await c.ask('m200000,4')).toBe(little(value, 4));
      }
      // what the debugger writes is no hit
      expect(await c.ask('M200000,4:07000000')).toBe('OK');
      // the same store once more, now a change: also seen by a step
      expect(await c.ask('s')).toBe('T05watch:200000;thread:01;');
      expect(await c.ask('z2,200000,4')).toBe('OK');
      expect(await c.ask('z2,200002,2')).toBe('OK');
      expect(await c.ask('c')).toBe('W05');
    });
    expect(result.outcome).toBe('debug-exit');
  });

  test('breakpoints stop before the instruction, again and again, without a change of memory', async () => {
    const at = CODE_AT + 7;
    const r = await debug({}, async (c) => {
      await c.ask('qSupported:swbreak+;hwbreak+');
      expect(await c.ask(`Z0,${at.toString(16)},1`)).toBe('OK');
      for (let left = 20; left > 17; left--) {
        expect(await c.ask('c')).toBe('T05swbreak:;thread:01;');
        expect(await c.ask(RIP)).toBe(little(at));
        expect(await c.ask('p2')).toBe(little(left));
      }
      expect(await c.ask(`m${at.toString(16)},1`)).toBe('49');
      expect(await c.ask(`z0,${at.toString(16)},1`)).toBe('OK');
      expect(await c.ask('vCont;c')).toBe('W05');
    });
    expect(r).toMatchObject({ outcome: 'debug-exit', console: 'x' });
  });

  test('writes: registers, memory, and where to go on', async () => {
    const r = await debug({}, async (c) => {
      expect(await c.ask(`P2=${little(0x1234)}`)).toBe('OK'); // before the first instruction
      expect(await c.ask('p2')).toBe(little(0x1234));
      await c.ask('s');
      expect(await c.ask(`P2=${little(1)}`)).toBe('OK'); // one round instead of 20
      expect(await c.ask(`P10=${little(CODE_AT + 7)}`)).toBe('OK');
      expect(await c.ask(`M${(CODE_AT + 11).toString(16)},1:79`)).toBe('OK'); // 'y'
      const g = await c.ask('g');
      expect(await c.ask(`G${g}`)).toBe('OK');
      expect(await c.ask(`G${g.slice(2)}`)).toBe('E16');
      expect(await c.ask('c')).toBe('W05');
    });
    expect(r.console).toBe('y');
  });

  test('an interrupt stops a running guest, kill ends it', async () => {
    const r = await debug({ kernel: spinner, maxInstructions: Number.MAX_SAFE_INTEGER }, async (c) => {
      c.send('c');
      c.socket.write(Uint8Array.of(3));
      expect(await c.reply()).toBe('T02thread:01;');
      expect(await c.ask(RIP)).toBe(little(CODE_AT));
      c.send('k');
      await c.closed;
    });
    expect(r).toMatchObject({ outcome: 'interrupted', detail: 'ended by GDB' });
  });

  test('a second client is refused; detach and a lost connection let the machine go on', async () => {
    const r = await debug({}, async (c, port) => {
      await c.ask('?');
      await new Client(port).closed;
      await c.ask(`Z0,${(CODE_AT + 5).toString(16)},1`);
      c.socket.destroy();
    });
    expect(r.outcome).toBe('debug-exit');
    const detached = await debug({}, async (c) => {
      await c.ask(`Z0,${(CODE_AT + 5).toString(16)},1`);
      expect(await c.ask('D')).toBe('OK');
      await c.closed;
    });
    expect(detached.outcome).toBe('debug-exit');
  });

  test('after a triple fault the state can be looked at', async () => {
    const bad = join(folder, 'bad');
    writeFileSync(bad, flatKernel(Uint8Array.of(0x90, 0x0f, 0x0b)));
    const r = await debug({ kernel: bad }, async (c) => {
      expect(await c.ask('c')).toBe('T0bthread:01;');
      expect(await c.ask(RIP)).toBe(little(CODE_AT + 1));
      expect(await c.ask('c')).toBe('W00');
    });
    expect(r.outcome).toBe('triple-fault');
  });

  test('monitor commands', async () => {
    await debug({}, async (c) => {
      await c.ask('s');
      expect(await c.monitor('walk 0x100020')).toMatch(
        /no paging.*\n {2}guest-physical 0x100020, host-physical 0x/,
      );
      expect(await c.monitor('exits')).toMatch(/1 {2}EPT_VIOLATION/);
      expect(await c.monitor('vmcs')).toMatch(/guestRip/);
      expect(await c.monitor('nonsense')).toMatch(/there is no command 'nonsense'/);
      expect(await c.monitor('walk x')).toMatch(/'x' is no address/);
      c.send('k');
    });
  });

  test.each([
    ['mzz,1', 'E01'],
    ['m100020', 'E01'],
    ['m100020,fffffff', 'E01'],
    ['mfee00000,4', 'E0e'],
    ['m8000000,4', 'E0e'],
    ['M100020,2:00', 'E01'],
    ['M8000000,1:00', 'E0e'],
    ['pffff', 'E16'],
    ['p', 'E16'],
    ['P12=00000000', 'E16'],
    ['P0=00', 'E16'],
    ['Zx', ''],
    ['Z0,xyz,1', 'E01'],
    ['Z2,1000,100', 'E0c'],
    ['Z3,1000,1', ''],
    ['vMustReplyEmpty', ''],
    ['qXfer:features:read:other.xml:0,10', ''],
    ['vCont;t', 'E01'],
  ])('%s is answered with %j', async (request, reply) => {
    await debug({}, async (c) => {
      expect(await c.ask(request)).toBe(reply);
      c.send('k');
    });
  });

  test('more than a packet may hold closes the connection', async () => {
    const r = await debug({}, async (c) => {
      c.socket.write(`$${'m'.repeat(0x5000)}`);
      await c.closed;
    });
    expect(r.outcome).toBe('debug-exit');
  });
  test('a port in use is a mistake of the user', async () => {
    await debug({}, async (c, port) => {
      await expect(bootUnder('ept', { kernel, memory: 64 << 20, gdb: port })).rejects.toThrow(
        /cannot listen .*EADDRINUSE/,
      );
      c.send('k');
    });
  });
  test('an abort while it waits for a client', async () => {
    const controller = new AbortController();
    const r = await bootUnder('ept', {
      kernel,
      memory: 64 << 20,
      gdb: 0,
      signal: controller.signal,
      onGdb: () => setImmediate(() => controller.abort()),
    });
    expect(r).toMatchObject({ outcome: 'interrupted', instructions: 0 });
  });
});

test('the packet layer: checksums, escapes, pieces', () => {
  const reader = new PacketReader();
  const all = (bytes: Uint8Array): unknown[] => [...bytes].flatMap((b) => reader.push(Uint8Array.of(b)));
  expect(all(packet('a}b$c#d*'))).toEqual([{ kind: 'packet', data: 'a}b$c#d*' }]);
  expect(all(Buffer.from('+$g#00\x03'))).toEqual([{ kind: 'bad' }, { kind: 'interrupt' }]);
  expect(all(Buffer.from('$abc$g#67'))).toEqual([{ kind: 'packet', data: 'g' }]);
});

const GDB = '/usr/bin/gdb';
const missing = spawnSync(GDB, ['--version']).status !== 0;
describe.skipIf(missing)(missing ? "Debian's gdb (skipped: it is not installed)" : "Debian's gdb", () => {
  test('drives a program', async () => {
    let output = '';
    const commands = [
      'info registers rip rax cs cr0',
      `break *${CODE_AT + 7}`,
      'continue',
      'info registers rip rcx',
      'delete',
      'stepi',
      'stepi',
      'info registers rip rcx',
      `x/2i ${CODE_AT + 5}`,
      'print $mxcsr',
      'print $fs_base',
      'set $rcx = 1',
      `set *(unsigned char *)${CODE_AT + 11} = 'z'`,
      'monitor walk 0x100020',
      'continue',
    ];
    const r = await bootUnder('ept', {
      kernel,
      memory: 64 << 20,
      debugExit: 0xf4,
      acpi: false,
      maxInstructions: 1_000_000,
      gdb: 0,
      onGdb: (port) => {
        const connection = [
          'set confirm off',
          'set architecture i386:x86-64',
          `target remote 127.0.0.1:${port}`,
        ];
        const args = ['-nx', '-q', '-batch', ...[...connection, ...commands].flatMap((c) => ['-ex', c])];
        const gdb = spawn(GDB, args, { stdio: ['ignore', 'pipe', 'pipe'] });
        gdb.stdout.on('data', (d: Buffer) => {
          output += d.toString();
        });
        gdb.stderr.on('data', (d: Buffer) => {
          output += d.toString();
        });
        ended = new Promise((resolve) => gdb.on('close', () => resolve()));
      },
    });
    await ended;
    expect(r).toMatchObject({ outcome: 'debug-exit', status: 5, console: 'z' });
    const lines = output.replace(/[ \t]+/g, ' ');
    expect(lines).toMatch(/rip 0x100020 .*\nrax 0x2badb002 .*\ncs 0x8 .*\ncr0 0x11 /);
    expect(lines).toMatch(/Breakpoint 1, .*100027.*\nrip 0x100027 .*\nrcx 0x14 20\n/);
    expect(lines).toMatch(/\nrip 0x100025 .*\nrcx 0x13 19\n/);
    expect(lines).toMatch(/100025: out %al,\$0x80\n/);
    expect(lines).toMatch(/guest-physical 0x100020/);
    expect(lines).toMatch(/exited with code 05/);
  });
});
let ended: Promise<void> = Promise.resolve();
