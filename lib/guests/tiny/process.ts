/**
 * The built-in guest's processes and system calls: SYSCALL entry, context switches, fork with copy on write, exit, and
 * the loops of single instructions that `hardware` does.
 *
 * The kernel never sleeps, so one stack is enough: a switch leaves through SYSRET with the next process's registers.
 */
import { HARDWARE, SYSCALLS } from './layout.js';

/** What one unit of each kind of `hardware` is; R12D counts. */
const BODIES: Readonly<Record<(typeof HARDWARE)[number], string>> = {
  ioWrites: 'out 0x80, al',
  msrReads: 'mov ecx, 0x1a0\n  rdmsr',
  msrWrites: 'mov ecx, 0x1a0\n  mov eax, 1\n  xor edx, edx\n  wrmsr',
  mmioReads: 'mov eax, [IO_APIC]',
  cr3Loads: 'mov cr3, rbx',
  invlpgs: 'invlpg [HEAP]',
};

const SAVED = ['rbx', 'rbp', 'r12', 'r13', 'r14', 'r15'] as const;

export const PROCESS_SOURCE = `
syscall_entry:
  mov r8, [current]
  mov [r8+P_RIP], rcx
  mov [r8+P_RFLAGS], r11
  mov [r8+P_RSP], rsp
${SAVED.map((r) => `  mov [r8+P_${r.toUpperCase()}], ${r}\n`).join('')}
  mov rsp, STACK_TOP
  cmp eax, SYSCALL_COUNT
  jae deadlock
  call qword [syscall_table+rax*8]
  mov r8, [current]
  mov [r8+P_RAX], rax
resume:
  mov r8, [current]
${SAVED.map((r) => `  mov ${r}, [r8+P_${r.toUpperCase()}]\n`).join('')}
  mov rax, [r8+P_RAX]
  mov rcx, [r8+P_RIP]
  mov r11, [r8+P_RFLAGS]
  mov rsp, [r8+P_RSP]
  sysretq

; RDI: process
switch_to:
  mov [current], rdi
  mov rax, [rdi+P_CR3]
  mov cr3, rax
  jmp resume

; RAX: the next process that can run, after the current one
next_ready:
  mov rax, [current]
next_slot:
  add rax, PROCESS_BYTES
  cmp rax, PROCESSES_END
  jb next_test
  mov rax, PROCESSES
next_test:
  cmp qword [rax+P_STATE], READY
  je next_done
  cmp rax, [current]
  jne next_slot
  jmp deadlock
next_done:
  ret

; RAX: a free process
alloc_process:
  mov rax, PROCESSES
alloc_process_test:
  cmp qword [rax+P_STATE], 0
  je next_done
  add rax, PROCESS_BYTES
  cmp rax, PROCESSES_END
  jb alloc_process_test
  jmp out_of_memory

; RAX: PML4 of a new address space, with the kernel in it
new_space:
  call alloc_table
  mov rcx, [DIRECT+TABLES+KERNEL_SLOT]
  mov [rax+DIRECT+KERNEL_SLOT], rcx
  ret

; RDI: where the new process starts
sys_spawn:
  mov r13, rdi
  call alloc_process
  mov r12, rax
  call new_space
  mov [r12+P_CR3], rax
  mov rdi, rax
  mov rsi, USER_CODE
  call walk
  mov rcx, user_image-DIRECT+USER_READ_ONLY
  mov [rax], rcx
  mov rsi, USER_DATA
  call walk
  mov rcx, user_image-DIRECT+4096+USER_READ_ONLY
  mov rdx, NO_EXECUTE
  or rcx, rdx
  mov [rax], rcx
  mov [r12+P_RIP], r13
  mov qword [r12+P_RFLAGS], 0x202
  mov qword [r12+P_HEAP_END], HEAP
  mov qword [r12+P_STATE], READY
  inc dword [children]
  xor eax, eax
  ret

sys_fork:
  call alloc_process
  mov r12, rax
  call new_space
  mov r13, rax
  mov rbx, [current]
  mov rax, [rbx+P_CR3]
  mov rax, [rax+DIRECT]
  and rax, PAGE_MASK
  mov r14, [rax+DIRECT]
  and r14, PAGE_MASK
  xor ebp, ebp
fork_directory:
  mov eax, ebp
  shr eax, 9
  mov rbx, [r14+rax*8+DIRECT]
  test bl, PRESENT
  jz fork_no_table
  and rbx, PAGE_MASK
  xor r15d, r15d
fork_page:
  mov r9d, ebp
  and r9d, 511
  mov r10, [rbx+r9*8+DIRECT]
  test r10b, PRESENT
  jz fork_next
  mov rdx, FRAME_MASK
  and rdx, r10
  cmp rdx, FRAMES
  jb fork_share
  shr rdx, 12
  inc byte [FRAME_USES+rdx]
  test r10b, WRITABLE
  jz fork_share
  and r10, NOT_WRITABLE
  or r10, COW
  mov [rbx+r9*8+DIRECT], r10
fork_share:
  test r15, r15
  jnz fork_copy
  mov rdi, r13
  mov rsi, rbp
  shl rsi, 12
  call walk
  mov r15, rax
  and r15, PAGE_MASK
fork_copy:
  mov [r15+r9*8], r10
fork_next:
  inc ebp
  test ebp, 511
  jnz fork_page
  jmp fork_test
fork_no_table:
  add ebp, 512
fork_test:
  cmp ebp, 0x40000
  jb fork_directory
  call sys_flush
  mov rsi, [current]
  mov rdi, r12
  mov ecx, 16
  rep movsq
  mov [r12+P_CR3], r13
  mov qword [r12+P_RAX], 0
  inc dword [children]
  mov eax, 1
  ret

; until there are no children
sys_wait:
  xor eax, eax
  cmp dword [children], 0
  je next_done
  mov rdi, [current]
  mov qword [rdi+P_RAX], 0
  mov qword [rdi+P_STATE], BLOCKED
  call next_ready
  mov rdi, rax
  jmp switch_to

sys_exit:
  mov rbx, [current]
  cmp rbx, PROCESSES
  je finish
  mov r12, [rbx+P_CR3]
  mov qword [rbx+P_STATE], 0
  dec dword [children]
  jnz exit_switch
  mov qword [PROCESSES+P_STATE], READY
exit_switch:
  call next_ready
  mov [current], rax
  mov rax, [rax+P_CR3]
  mov cr3, rax
  ; the address space that was left: frames, then tables from the leaves up
  mov r13, [r12+DIRECT]
  and r13, PAGE_MASK
  mov r14, [r13+DIRECT]
  and r14, PAGE_MASK
  xor ebp, ebp
exit_directory:
  mov rbx, [r14+rbp*8+DIRECT]
  test bl, PRESENT
  jz exit_no_table
  and rbx, PAGE_MASK
  xor r15d, r15d
exit_page:
  mov rdi, FRAME_MASK
  mov rax, [rbx+r15*8+DIRECT]
  test al, PRESENT
  jz exit_next
  and rdi, rax
  cmp rdi, FRAMES
  jb exit_next
  call put_frame
exit_next:
  inc r15d
  cmp r15d, 512
  jb exit_page
  mov rdi, rbx
  call free_table
exit_no_table:
  inc ebp
  cmp ebp, 512
  jb exit_directory
  mov rdi, r14
  call free_table
  mov rdi, r13
  call free_table
  mov rdi, r12
  call free_table
  jmp resume

; RAX: 0 when nobody gives way any more
sys_yield:
  xor eax, eax
  cmp dword [switch_budget], 0
  je next_done
  dec dword [switch_budget]
  mov rcx, [current]
  mov qword [rcx+P_RAX], 1
  call next_ready
  mov rdi, rax
  jmp switch_to

sys_null:
  xor eax, eax
  ret

sys_arm:
  rdtsc
  shl rdx, 32
  or rax, rdx
  add rax, PERIOD
  mov rdx, rax
  shr rdx, 32
  mov ecx, 0x6e0
  wrmsr
  xor eax, eax
  ret

; RDI: times
sys_idle:
  mov r12d, edi
  jmp idle_test
idle_loop:
  call sys_arm
  sti
  hlt
  cli
  dec r12d
idle_test:
  test r12d, r12d
  jnz idle_loop
  xor eax, eax
  ret

; RDI: which, RSI: times
sys_hardware:
  mov r12d, esi
  mov rax, [current]
  mov rbx, [rax+P_CR3]
  jmp qword [hardware_table+rdi*8]
${HARDWARE.map(
  (name) => `
hardware_${name}:
  jmp hardware_${name}_test
hardware_${name}_loop:
  ${BODIES[name]}
  dec r12d
hardware_${name}_test:
  test r12d, r12d
  jnz hardware_${name}_loop
  ret
`,
).join('')}
.align 8
syscall_table: .quad ${SYSCALLS.map((name) => `sys_${name}`).join(', ')}
hardware_table: .quad ${HARDWARE.map((name) => `hardware_${name}`).join(', ')}
`;
