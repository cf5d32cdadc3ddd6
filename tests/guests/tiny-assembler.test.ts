import { Decoder, DecoderOptions, Formatter, FormatterSyntax } from 'iced-x86';
import { expect, test } from 'vitest';
import { Assembler } from '../../lib/guests/tiny/assembler.js';

/** What a foreign disassembler makes of the bytes. */
const disassemble = (bytes: Uint8Array, base: bigint): string[] => {
  const decoder = new Decoder(64, bytes, DecoderOptions.None);
  decoder.ip = base;
  const formatter = new Formatter(FormatterSyntax.Intel);
  const out: string[] = [];
  while (decoder.canDecode) {
    const i = decoder.decode();
    out.push(formatter.format(i));
    i.free();
  }
  decoder.free();
  formatter.free();
  return out;
};

const BASE = 0xffff_ffff_8020_0000n;
const ROWS: readonly (readonly [source: string, text: string])[] = [
  ['mov rax, [rbx]', 'mov rax,[rbx]'],
  ['mov [rbx+8], rax', 'mov [rbx+8],rax'],
  ['mov eax, 7', 'mov eax,7'],
  ['mov rax, 0x1122334455667788', 'mov rax,1122334455667788h'],
  ['mov rax, -1', 'mov rax,0FFFFFFFFFFFFFFFFh'],
  ['mov ecx, 0xc0000080', 'mov ecx,0C0000080h'],
  ['mov qword [rdi], 0', 'mov qword ptr [rdi],0'],
  ['mov al, [rsi]', 'mov al,[rsi]'],
  ['mov rbx, [TABLE+rax*8]', 'mov rbx,[rax*8-7FE00000h]'],
  ['lea rbx, [rbx+rax*8-0x80000000]', 'lea rbx,[rbx+rax*8-80000000h]'],
  ['add rax, 4', 'add rax,4'],
  ['sub rsp, 0x1000', 'sub rsp,1000h'],
  ['and rax, -4096', 'and rax,0FFFFFFFFFFFFF000h'],
  ['shr rax, 39', 'shr rax,27h'],
  ['shr rax, cl', 'shr rax,cl'],
  ['test sil, 4', 'test sil,4'],
  ['cmp dword [rax], 0', 'cmp dword ptr [rax],0'],
  ['push r12', 'push r12'],
  ['mov cr3, rax', 'mov cr3,rax'],
  ['mov rax, cr2', 'mov rax,cr2'],
  ['invlpg [rsi]', 'invlpg [rsi]'],
  ['out 0x80, al', 'out 80h,al'],
  ['out dx, ax', 'out dx,ax'],
  ['in al, dx', 'in al,dx'],
  ['mov ds, ax', 'mov ds,ax'],
  ['ltr ax', 'ltr ax'],
  ['movzx eax, byte [rcx]', 'movzx eax,byte ptr [rcx]'],
  ['rep stosq', 'rep stosq [rdi]'],
  ['call qword [TABLE+rax*8]', 'call qword ptr [rax*8-7FE00000h]'],
  ['sysretq', 'sysretq'],
];

test.each(ROWS)('%s', (source, text) => {
  const program = new Assembler(BASE, { TABLE: BASE }).source(source).assemble();
  expect(disassemble(program.bytes, BASE)).toEqual([text]);
});

test('labels forward and back, data that knows addresses, alignment', () => {
  const program = new Assembler(BASE)
    .source('start: jmp end\n mov rax, here\n.align 16\nend: jne start\n hlt')
    .data('here', 8, (resolve) => new Uint8Array(new BigUint64Array([resolve('end')]).buffer))
    .assemble();
  expect(program.address('end')).toBe(BASE + 16n);
  expect(program.address('here')).toBe(BASE + 16n + 7n);
  expect(disassemble(program.bytes.subarray(0, 12), BASE)).toEqual([
    'jmp 0FFFFFFFF80200010h',
    'mov rax,0FFFFFFFF80200017h',
  ]);
  expect(new DataView(program.bytes.buffer).getBigUint64(23, true)).toBe(BASE + 16n);
});

test.each([
  ['mov rax, [rbx', 'assembler.operand'],
  ['mov rax, nowhere', 'assembler.label'],
  ['frobnicate rax', 'assembler.source'],
  ['x: nop\nx: nop', 'assembler.label'],
])('refuses %j', (source, id) => {
  expect(() => new Assembler(0n).source(source).assemble()).toThrow(expect.objectContaining({ id }));
});
