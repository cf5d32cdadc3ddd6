/**
 * The built-in guest's memory management: frames with a count of their uses, page tables, demand paging and copy on
 * write in the page-fault handler, mmap, munmap, mprotect.
 *
 * Page tables are zeroed when they are freed, not when they are taken. Entries are replaced as Linux does: cleared,
 * INVLPG, set. Functions take RDI, RSI, RDX and return RAX; `walk`, `alloc_table`, `alloc_frame` and `put_frame` leave
 * RBX, RSI, RBP and R9 to R15 alone.
 */
export const MEMORY_SOURCE = `
; RAX: physical address of a zeroed table
alloc_table:
  mov r8, [free_tables_top]
  cmp r8, FREE_TABLES
  je out_of_memory
  sub r8, 4
  mov [free_tables_top], r8
  mov eax, [r8]
  ret

; zeroes and frees the table at RDI
free_table:
  mov rdx, rdi
  lea rdi, [rdx+DIRECT]
  mov ecx, 512
  xor eax, eax
  rep stosq
  mov rax, [free_tables_top]
  mov [rax], edx
  add rax, 4
  mov [free_tables_top], rax
  ret

; RAX: physical address of a frame, used once, with any contents
alloc_frame:
  mov rax, [free_frame]
  test rax, rax
  jz alloc_fresh
  mov rcx, [rax+DIRECT]
  mov [free_frame], rcx
  jmp alloc_count
alloc_fresh:
  mov rax, [next_frame]
  lea rcx, [rax+4096]
  cmp rcx, [frame_end]
  ja out_of_memory
  mov [next_frame], rcx
alloc_count:
  mov rcx, rax
  shr rcx, 12
  mov byte [FRAME_USES+rcx], 1
  ret

; one use less of the frame at RDI
put_frame:
  mov rcx, rdi
  shr rcx, 12
  dec byte [FRAME_USES+rcx]
  jnz put_frame_done
  mov rax, [free_frame]
  mov [rdi+DIRECT], rax
  mov [free_frame], rdi
put_frame_done:
  ret

; RDI: PML4, RSI: address; RAX: where its page-table entry is. Tables on the way are made
walk:
  mov rdx, rdi
  mov ecx, 39
walk_level:
  mov rax, rsi
  shr rax, cl
  and eax, 511
  lea rdx, [rdx+rax*8+DIRECT]
  cmp ecx, 12
  je walk_done
  mov rax, [rdx]
  test al, PRESENT
  jnz walk_down
  call alloc_table
  or rax, TABLE
  mov [rdx], rax
walk_down:
  and rax, PAGE_MASK
  mov rdx, rax
  sub ecx, 9
  jmp walk_level
walk_done:
  mov rax, rdx
  ret

vector_14:
  push rax
  push rcx
  push rdx
  push rbx
  push rbp
  push rsi
  push rdi
  push r8
  push r9
  push r10
  push r11
  push r12
  push r13
  push r14
  push r15
  mov rsi, cr2
  mov rdx, [rsp+120]
  test dl, USER
  jz fault_bad
  call user_fault
  test eax, eax
  jz fault_bad
  pop r15
  pop r14
  pop r13
  pop r12
  pop r11
  pop r10
  pop r9
  pop r8
  pop rdi
  pop rsi
  pop rbp
  pop rbx
  pop rdx
  pop rcx
  pop rax
  add rsp, 8
  iretq
fault_bad:
  add rsp, 120
  push 14
  jmp exception

; RSI: address, RDX: error code; RAX: 1 when the access can be tried again
user_fault:
  mov r12, rsi
  mov r13, rdx
  mov rbx, [current]
  cmp rsi, HEAP
  jb user_fault_bad
  cmp rsi, [rbx+P_HEAP_END]
  jae user_fault_bad
  mov rdi, [rbx+P_CR3]
  call walk
  mov r14, rax
  test r13b, PRESENT
  jnz user_fault_protected
  ; demand paging: a zeroed frame
  call alloc_frame
  mov rbx, rax
  lea rdi, [rbx+DIRECT]
  mov ecx, 512
  xor eax, eax
  rep stosq
  jmp user_fault_map
user_fault_protected:
  test r13b, WRITABLE
  jz user_fault_bad
  mov rbx, [r14]
  test ebx, COW
  jz user_fault_bad
  mov r15, FRAME_MASK
  and r15, rbx
  mov rax, r15
  shr rax, 12
  cmp byte [FRAME_USES+rax], 1
  je user_fault_reuse
  ; copy on write
  dec byte [FRAME_USES+rax]
  call alloc_frame
  mov rbx, rax
  lea rsi, [r15+DIRECT]
  lea rdi, [rbx+DIRECT]
  mov ecx, 512
  rep movsq
  mov qword [r14], 0
  invlpg [r12]
user_fault_map:
  or rbx, USER_PAGE
  mov rax, NO_EXECUTE
  or rbx, rax
  mov [r14], rbx
  mov eax, 1
  ret
user_fault_reuse:
  ; the last user of a shared frame: only the right changes, and more rights need no INVLPG
  and rbx, NOT_COW
  or rbx, WRITABLE
  mov [r14], rbx
  mov eax, 1
  ret
user_fault_bad:
  xor eax, eax
  ret

; RDI: pages of the heap
sys_mmap:
  shl rdi, 12
  lea rax, [rdi+HEAP]
  mov rcx, [current]
  mov [rcx+P_HEAP_END], rax
  xor eax, eax
  ret

; RDI: pages that stay
sys_munmap:
  mov r12, [current]
  shl rdi, 12
  lea rsi, [rdi+HEAP]
  mov r13, [r12+P_HEAP_END]
  mov [r12+P_HEAP_END], rsi
  jmp munmap_test
munmap_page:
  mov rdi, [r12+P_CR3]
  call walk
  mov rbx, rax
  mov rdi, FRAME_MASK
  and rdi, [rbx]
  mov qword [rbx], 0
  invlpg [rsi]
  call put_frame
  add rsi, 4096
munmap_test:
  cmp rsi, r13
  jb munmap_page
  xor eax, eax
  ret

; RDI: pages, RSI: 1 for writable
sys_mprotect:
  mov r12, [current]
  mov r13, rdi
  lea r14, [rsi+rsi]
  mov esi, HEAP
  jmp mprotect_test
mprotect_page:
  mov rdi, [r12+P_CR3]
  call walk
  mov rcx, [rax]
  and rcx, NOT_WRITABLE
  or rcx, r14
  mov [rax], rcx
  add rsi, 4096
  dec r13
mprotect_test:
  test r13, r13
  jnz mprotect_page
; a flush of the address space, as Linux does it
sys_flush:
  mov rax, cr3
  mov cr3, rax
  xor eax, eax
  ret

; RDI: frames to read
sys_scan:
  call sys_flush
  mov ecx, FRAMES
  jmp scan_test
scan_frame:
  mov rdx, [rcx+DIRECT]
  add rcx, 4096
  dec rdi
scan_test:
  test rdi, rdi
  jnz scan_frame
  ret
`;
