/**
 * The built-in guest's start: segments, interrupts, MSRs, local APIC, its own memory, then the first process; and the
 * end, which reads the lab's leaves again and powers off. Exceptions that the kernel does not expect stop the machine
 * with a line on the console.
 */
import { WITH_CODE } from './descriptors.js';

export const BOOT_SOURCE = `
start:
  cli
  cld
  mov rdi, BSS
  mov ecx, BSS_QUADS
  xor eax, eax
  rep stosq
  mov rsp, STACK_TOP
  lgdt [gdt_pointer]
  push 0x08
  mov rax, start_segments
  push rax
  retfq
start_segments:
  mov eax, 0x10
  mov ds, ax
  mov es, ax
  mov ss, ax
  lidt [idt_pointer]
  mov eax, 0x28
  ltr ax

  ; system calls and no-execute pages
  mov ecx, 0xc0000080
  rdmsr
  or eax, 0x801
  wrmsr
  mov ecx, 0xc0000081
  xor eax, eax
  mov edx, 0x00100008
  wrmsr
  mov ecx, 0xc0000082
  mov eax, syscall_entry
  mov edx, 0xffffffff
  wrmsr
  mov ecx, 0xc0000084
  mov eax, 0x47700
  xor edx, edx
  wrmsr

  ; no 8259 interrupts; x2APIC with a TSC-deadline timer
  mov al, 0xff
  out 0x21, al
  out 0xa1, al
  mov ecx, 0x1b
  rdmsr
  or eax, 0xc00
  wrmsr
  xor edx, edx
  mov ecx, 0x80f
  mov eax, 0x100+SPURIOUS_VECTOR
  wrmsr
  mov ecx, 0x832
  mov eax, 0x40000+TIMER_VECTOR
  wrmsr

  ; all page tables are zero and known to the host before anything is counted
  mov rdi, DIRECT+TABLES_FREE
  mov ecx, TABLE_QUADS
  xor eax, eax
  rep stosq
  mov rdi, FREE_TABLES
  mov eax, TABLES_END-4096
start_tables:
  mov [rdi], eax
  add rdi, 4
  sub eax, 4096
  cmp eax, TABLES_FREE
  jae start_tables
  mov [free_tables_top], rdi

  ; and so is every page of the kernel and of its own tables
  mov rdi, DIRECT+KERNEL
start_touch:
  mov al, [rdi]
  add rdi, 4096
  cmp rdi, DIRECT+TABLES_FREE
  jb start_touch

  call serial_start
  mov rsi, text_init
  call print
  mov rsi, text_leaves_boot
  call print_leaves
  mov rsi, text_workload
  call print

  mov rdi, USER_CODE
  call sys_spawn
  mov dword [children], 0
  mov rdi, PROCESSES
  jmp switch_to

finish:
  mov rsi, text_done
  call print
  mov rsi, text_leaves_workload
  call print_leaves
power_off:
  mov edx, 0x604
  mov eax, 0x2000
  out dx, ax
  cli
  hlt
  jmp power_off

${Array.from({ length: 32 }, (_, vector) =>
  vector === 14
    ? ''
    : `vector_${vector}:\n${WITH_CODE.has(vector) ? '' : '  push 0\n'}  push ${vector}\n  jmp exception\n`,
).join('')}
; vector, error code and the processor's frame are on the stack
exception:
  mov rdi, TEXT
  mov rsi, text_exception
  call put_text
  mov rax, [rsp]
  mov ecx, 8
  call put_hex
  mov rsi, text_code
  call put_text
  mov rax, [rsp+8]
  mov ecx, 8
  call put_hex
  mov rsi, text_rip
  call put_text
  mov rax, [rsp+16]
  shr rax, 32
  mov ecx, 8
  call put_hex
  mov rax, [rsp+16]
  mov ecx, 8
  call put_hex
  mov rsi, text_cr2
  call put_text
  mov rax, cr2
  shr rax, 32
  mov ecx, 8
  call put_hex
  mov rax, cr2
  mov ecx, 8
  call put_hex
  mov rsi, text_newline
  call put_text
  call put_line
  jmp power_off

out_of_memory:
  mov rsi, text_memory
  call print
  jmp power_off
deadlock:
  mov rsi, text_deadlock
  call print
  jmp power_off

timer_interrupt:
  push rax
  push rcx
  push rdx
  inc dword [USER_TICKS]
  mov ecx, 0x80b
  xor eax, eax
  xor edx, edx
  wrmsr
  pop rdx
  pop rcx
  pop rax
spurious_interrupt:
  iretq
`;
