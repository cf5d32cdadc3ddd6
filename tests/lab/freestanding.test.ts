/** Freestanding guests on both engines: protected mode without paging, 32-bit and PAE paging, real mode; and how they end. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Hypervisor } from '../../lib/hypervisor/modules.js';
import { bootUnder } from '../../lib/lab/both.js';
import { type BootOptions, boot, type Paging } from '../../lib/lab/machine.js';
import {
  assemble,
  dword,
  elfKernel,
  exitWith,
  flatKernel,
  HEADER_BYTES,
  header,
  LOAD,
  PRINT,
  put,
  rom,
  text,
  word,
} from './guest-code.js';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vmxlab-test-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const file = (name: string, bytes: Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};

const CODE_AT = LOAD + HEADER_BYTES;
const run = (kernel: string, options: BootOptions = {}, paging: Paging = 'ept') =>
  bootUnder(paging, { kernel, memory: 64 << 20, debugExit: 0xf4, maxInstructions: 1_000_000, ...options });

/** Prints its command line and the first module, and a letter on the serial line. */
const greeting = assemble(CODE_AT, [
  [0x3d, ...dword(0x2bad_b002), 0x75, 0xfe], // cmp eax, magic; jne $
  [0xbc, ...dword(0x8000)], // mov esp
  [0x8b, 0x73, 0x10, ...PRINT], // mov esi, [ebx+16]
  [0x8b, 0x43, 0x18, 0x8b, 0x30, 0x8b, 0x48, 0x04, 0x29, 0xf1], // mov eax, [ebx+24]; mov esi, [eax]; mov ecx, [eax+4]; sub ecx, esi
  [0x66, 0xba, 0xe9, 0x00, 0xf3, 0x6e], // mov dx, 0e9h; rep outsb
  [0x66, 0xba, 0xf8, 0x03, 0xb0, 0x53, 0xee], // mov dx, 3f8h; mov al, 'S'; out dx, al
  exitWith(0x10),
]);

/** Maps 3 GiB to 0, turns paging on, prints through it, takes a page fault there, prints CR2, and exits with 1. */
const paged = (pae: boolean): Uint8Array => {
  const high = 0xc000_0000;
  const [root, directory] = [0x20_0000, 0x20_1000];
  const store = (at: number, v: number) => [0xc7, 0x05, ...dword(at), ...dword(v)];
  const tables = pae
    ? [
        store(root, directory | 1), // PDPTEs 0 and 3
        store(root + 24, directory | 1),
        store(directory, 0x83),
        store(directory + 8, 0x20_0083),
      ]
    : [store(root, 0x83), store(root + 4 * 0x300, 0x83)];
  return assemble(CODE_AT, [
    [0xbc, ...dword(0x8000)],
    ...tables,
    [0xb8, ...dword(root), 0x0f, 0x22, 0xd8], // mov cr3
    [0xb8, ...dword(pae ? 0x20 : 0x10), 0x0f, 0x22, 0xe0], // mov cr4, PAE or PSE
    [0x0f, 0x20, 0xc0, 0x0d, ...dword(0x8001_0000), 0x0f, 0x22, 0xc0], // CR0.PG, CR0.WP
    [0x0f, 0x01, 0x15], // lgdt
    '@gdtr',
    [0x0f, 0x01, 0x1d], // lidt
    '@idtr',
    0xb8, // mov eax, handler: into the gate of vector 14, by halves
    '@handler',
    [0x66, 0xa3],
    '@gate',
    [0xc1, 0xe8, 0x10, 0x66, 0xa3],
    '@gate2',
    [0xbe],
    '@high',
    [0x81, 0xc6, ...dword(high), ...PRINT], // esi = high + message, printed through the mapping
    [0xbe],
    '@high',
    [0x81, 0xc6, ...dword(high), 0xb9, ...dword(3), 0x66, 0xba, 0xe9, 0x00, 0xf3, 0x6e], // again by rep outsb: the hypervisor walks
    [0xc7, 0x05, ...dword(0xc040_0008), ...dword(0)], // not mapped
    'handler:',
    [0x58, 0x04, 0x30, 0xe6, 0xe9], // pop eax: the error code, as a digit
    [0x0f, 0x20, 0xd0, 0x3d, ...dword(0xc040_0008), 0x75, 0xfe], // CR2
    exitWith(1),
    'high:',
    text('high'),
    0,
    'gdtr:',
    [...word(23), ...dword(0x20_3000)],
    'idtr:',
    word(15 * 8 - 1),
    '@idt',
    'idt:',
    new Array<number>(14 * 8).fill(0),
    'gate:',
    [0, 0, 8, 0, 0, 0x8e],
    'gate2:',
    [0, 0],
  ]);
};
/** The flat GDT that `paged` loads at 0x203000, as a segment of its own. */
const GDT = [0, 0, 0xffff, 0x00cf_9b00, 0xffff, 0x00cf_9300].flatMap(dword);
const pagedKernel = (pae: boolean): Uint8Array =>
  elfKernel(32, CODE_AT, [
    { paddr: LOAD, bytes: [...header(0), ...paged(pae)] },
    { paddr: 0x20_0000, bytes: [], memory: 0x3000 },
    { paddr: 0x20_3000, bytes: GDT },
  ]);

/** Real mode: prints, takes INT 40h through the vector table, goes to protected mode and exits with 3. */
const realMode = (): Uint8Array => {
  const base = 0xf_0000;
  const code = (isr: number, gdtr: number, prot: number, message: number) =>
    assemble(base, [
      [0xfa, 0x31, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x70], // cli; xor ax, ax; mov ss, ax; mov sp, 7000h
      [0x8c, 0xc8, 0x8e, 0xd8, 0xbe, ...word(message), ...PRINT], // mov ax, cs; mov ds, ax; mov si, message
      [0x31, 0xc0, 0x8e, 0xd8], // ds = 0
      [0xc7, 0x06, 0x00, 0x01, ...word(isr), 0x8c, 0x0e, 0x02, 0x01], // vector 40h: isr, cs
      [0xcd, 0x40], // int 40h
      [0x2e, 0x66, 0x0f, 0x01, 0x16, ...word(gdtr)], // lgdt cs:[gdtr]
      [0x0f, 0x20, 0xc0, 0x66, 0x83, 0xc8, 0x01, 0x0f, 0x22, 0xc0], // CR0.PE
      [0x66, 0xea, ...dword(base + prot), ...word(8)], // jmp 8:prot
      'isr:',
      [...put('I'), 0xcf], // iret
      'prot:',
      [0x66, 0xb8, ...word(0x10), 0x8e, 0xd8, ...put('P'), ...exitWith(3)],
      'message:',
      text('real'),
      0,
      'gdtr:',
      word(23),
      '@gdt',
      'gdt:',
      GDT,
    ]);
  // 16-bit offsets of labels are found by assembling twice
  const find = (bytes: Uint8Array, what: number[]): number =>
    bytes.findIndex((_, i) => what.every((b, j) => bytes[i + j] === b));
  const draft = code(0, 0, 0, 0);
  const gdt = find(draft, GDT);
  return code(
    find(draft, [...put('I'), 0xcf]),
    gdt - 6,
    find(draft, [0x66, 0xb8, ...word(0x10)]),
    find(draft, [...text('real'), 0]),
  );
};

describe.each([
  ['interpreter', 'ept'],
  ['interpreter', 'shadow'],
  ['reference', 'ept'],
  ['reference', 'shadow'],
] as const)('%s engine, %s', (engine, paging) => {
  test('protected mode without paging: command line, module, serial line, debug exit', async () => {
    const kernel = file('k', flatKernel(greeting));
    const module = file('m', Uint8Array.from(text('<module>')));
    const r = await run(kernel, { engine, append: 'a=1', modules: [`${module} x`] }, paging);
    expect(r).toMatchObject({
      outcome: 'debug-exit',
      status: 33,
      console: 'k a=1<module>S',
      cmdline: 'k a=1',
    });
    expect(r.about.map((l) => l.split(' (')[0])).toEqual(['multiboot image k', 'module m x']);
  });

  test.each([
    ['32-bit', false],
    ['PAE', true],
  ])('%s paging', async (name, pae) => {
    const r = await run(file(`paged-${name}`, pagedKernel(pae)), { engine, acpi: false }, paging);
    // error code 2: a write to a page that is not present
    expect(r).toMatchObject({ outcome: 'debug-exit', status: 3, console: 'highhig2' });
    // the fault is the guest's; without EPT loads of CR3 exit, those of the other control registers in both modes
    expect([r.kvmStats['pf_guest'], r.exits[28]]).toEqual(paging === 'ept' ? [0, 2] : [1, 3]);
  });

  test('a ROM goes from real to protected mode', async () => {
    const r = await run(file('rom', rom(realMode())), { engine }, paging);
    expect(r).toMatchObject({ outcome: 'debug-exit', status: 7, console: 'realIP' });
  });

  test('a guest that executes garbage ends in a triple fault', async () => {
    const r = await run(file('bad', flatKernel(Uint8Array.of(0x0f, 0x0b))), { engine }, paging);
    expect(r).toMatchObject({ outcome: 'triple-fault', console: '' });
    expect(r.log.join('\n')).toMatch(/rip=0*100020 .*\n.*rax=0*2badb002 /);
  });

  test('a jump into device memory ends the run with a word about it', async () => {
    const code = Uint8Array.from([0xb8, ...dword(0xfee0_0000), 0xff, 0xe0]); // jmp eax
    const r = await run(file('mmio', flatKernel(code)), { engine }, paging);
    expect(r.outcome).toBe('emulation-failure');
    expect(r.detail).toMatch(/rip 0xfee00000/);
  });
});

test('fw_cfg: the signature by rep insb, the size of memory', async () => {
  const code = assemble(CODE_AT, [
    [0xbf, ...dword(0x20_0000), 0xb9, ...dword(4)], // edi, ecx
    [0x66, 0xba, 0x10, 0x05, 0x31, 0xc0, 0x66, 0xef], // mov dx, 510h; xor eax, eax; out dx, ax
    [0x66, 0xba, 0x11, 0x05, 0xf3, 0x6c], // mov dx, 511h; rep insb
    [0xbe, ...dword(0x20_0000), ...PRINT],
    exitWith(0),
  ]);
  const kernel = file('fw', flatKernel(code, { bssEnd: LOAD + 0x20_0000 }));
  expect(await run(kernel, { fwCfg: true })).toMatchObject({
    outcome: 'debug-exit',
    status: 1,
    console: 'QEMU',
  });
  // without it, all ones
  expect((await run(kernel)).console).toBe('\u00ff\u00ff\u00ff\u00ff');
});

test('memory that a ROM gets at 4 GiB is its own', async () => {
  let seen: unknown;
  await run(file('rom2', rom(realMode())), {
    onMachine: ({ vm }) => {
      seen = [vm.slots.bytes(0xffff_fff0, 5), vm.slots.bytes(0xf_fff0, 5)].map((b) => [...b]);
    },
  });
  expect(seen).toEqual([
    [0xea, 0, 0, 0, 0xf0],
    [0xea, 0, 0, 0, 0xf0],
  ]);
});

test.each<[string, BootOptions, RegExp]>([
  [
    'debug exit on a port of the board',
    { debugExit: 0x3f6 },
    /debug exit at ports 0x3f6-0x3f9 meets uart.* at 0x3f8/,
  ],
  ['debug exit on no port', { debugExit: 0xffff }, /65535 is no port/],
  ['a workload', { workload: 'true' }, /is a multiboot image: it has no workload/],
  ['a module that is not there', { modules: ['/nowhere x'] }, /module \/nowhere does not exist/],
  ['GDB and a trace', { gdb: 0, trace: { first: 0, last: 1, write() {} } }, /exclude each other/],
])('is refused: %s', async (_what, options, message) => {
  await expect(run(file('k', flatKernel(greeting)), options)).rejects.toThrow(message);
});
test('modules for Linux are refused', async () => {
  await expect(run('', { kernel: undefined as never, modules: ['x'] })).rejects.toThrow(
    /modules belong to a Multiboot kernel/,
  );
});
test('an image of no known kind is refused with file, offset and rule', async () => {
  const path = file('what', new Uint8Array(100));
  await expect(run(path)).rejects.toThrow(`${path}: at offset 0x0: no known magic`);
});
test.each([
  ['without paging', flatKernel(greeting)],
  ['32-bit paging', pagedKernel(false)],
  ['PAE paging', pagedKernel(true)],
])('EPT without unrestricted guest: %s starts on the identity map and ends alike', async (name, bytes) => {
  const kernel = file(`restricted ${name}`, bytes);
  const free = await run(kernel);
  const hypervisor = new Hypervisor();
  hypervisor.loadModule('kvm-intel', { unrestricted_guest: false });
  const restricted = await boot(hypervisor, {
    kernel,
    memory: 64 << 20,
    debugExit: 0xf4,
    maxInstructions: 1_000_000,
  });
  expect([restricted.outcome, restricted.detail, restricted.console]).toEqual([
    free.outcome,
    free.detail,
    free.console,
  ]);
  // the load of CR3 before paging is on, and one violation for the identity map
  const [more, most] = [28, 48].map((r) => (restricted.exits[r] ?? 0) - (free.exits[r] ?? 0));
  expect([more, most]).toEqual([name === 'without paging' ? 0 : 1, 1]);
});
