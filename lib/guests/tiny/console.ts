/**
 * The built-in guest's serial console (one REP OUTSB of up to 16 bytes, the
 * FIFO's size, for each look at the line status) and its reading of the lab's CPUID leaves,
 * in the format of Debian's `cpuid` tool.
 */
import { INIT_LINE, LAST_REASON, WORKLOAD_DONE } from '../debian/init.js';

/** A text of the image, ended by a zero byte. */
const text = (label: string, value: string): string =>
  `${label}: .text ${JSON.stringify(value)}\n  .byte 0\n`;

export const CONSOLE_SOURCE = `
serial_start:
  xor eax, eax
  mov edx, 0x3f9
  out dx, al
  mov al, 7
  mov edx, 0x3fa
  out dx, al
  mov al, 3
  mov edx, 0x3fb
  out dx, al
  mov edx, 0x3fc
  out dx, al
  ret

; RSI: text
print:
  mov rdi, TEXT
  call put_text
; what lies between TEXT and RDI
put_line:
  mov rsi, TEXT
  mov rbx, rdi
put_fifo:
  mov edx, 0x3fd
  in al, dx
  test al, 0x20
  jz put_fifo
  mov edx, 0x3f8
  mov rcx, rbx
  sub rcx, rsi
  cmp rcx, 16
  jbe put_bytes
  mov ecx, 16
put_bytes:
  rep outsb
  cmp rsi, rbx
  jb put_fifo
put_done:
  ret

; appends the text at RSI to RDI
put_text:
  mov al, [rsi]
  test al, al
  jz put_done
  mov [rdi], al
  inc rsi
  inc rdi
  jmp put_text

; appends ECX digits of EAX, from the most significant of eight, to RDI
put_hex:
  rol eax, 4
  mov edx, eax
  and edx, 15
  movzx edx, byte [hex_digits+rdx]
  mov [rdi], dl
  inc rdi
  dec ecx
  jnz put_hex
  ret

; RSI: heading
print_leaves:
  call print
  mov r12d, [leaf_total]
  xor r13d, r13d
  call print_leaf
  mov r12d, [leaf_by_reason]
print_reason:
  call print_leaf
  inc r13d
  cmp r13d, ${LAST_REASON}
  jbe print_reason
  mov rsi, text_leaves_end
  jmp print

; R12D: leaf, R13D: subleaf
print_leaf:
  mov eax, r12d
  mov ecx, r13d
  cpuid
  mov r9d, eax
  mov r10d, ebx
  mov r11d, ecx
  mov r14d, edx
  mov rdi, TEXT
  mov rsi, text_leaf
  call put_text
  mov eax, r12d
  mov ecx, 8
  call put_hex
  mov rsi, text_subleaf
  call put_text
  mov eax, r13d
  shl eax, 24
  mov ecx, 2
  call put_hex
${(
  [
    ['text_eax', 'r9d'],
    ['text_ebx', 'r10d'],
    ['text_ecx', 'r11d'],
    ['text_edx', 'r14d'],
  ] as const
)
  .map(
    ([label, register]) =>
      `  mov rsi, ${label}\n  call put_text\n  mov eax, ${register}\n  mov ecx, 8\n  call put_hex\n`,
  )
  .join('')}
  mov rsi, text_newline
  call put_text
  jmp put_line

hex_digits: .text "0123456789abcdef"
${text('text_init', `${INIT_LINE}\r\n`)}
${text('text_workload', '[vmxlab] workload\r\n')}
${text('text_done', `${WORKLOAD_DONE}\r\n`)}
${text('text_leaves_boot', '[vmxlab] leaves boot\r\n')}
${text('text_leaves_workload', '[vmxlab] leaves workload\r\n')}
${text('text_leaves_end', '[vmxlab] leaves end\r\n')}
${text('text_leaf', '   0x')}
${text('text_subleaf', ' 0x')}
${text('text_eax', ': eax=0x')}
${text('text_ebx', ' ebx=0x')}
${text('text_ecx', ' ecx=0x')}
${text('text_edx', ' edx=0x')}
${text('text_newline', '\r\n')}
${text('text_exception', '[tiny] exception 0x')}
${text('text_code', ' code 0x')}
${text('text_rip', ' rip 0x')}
${text('text_cr2', ' cr2 0x')}
${text('text_memory', '[tiny] out of memory\r\n')}
${text('text_deadlock', '[tiny] no process can run\r\n')}
`;
