/**
 * The built-in guest's user program, at 0x400000 in every process: the first process does the workload, `worker` is
 * what `processes` run. The parameters are in the page behind it, which the kernel shares with all processes.
 * A system call takes its number in EAX and arguments in RDI, RSI, RDX; RBX, RBP, R12 to R15 survive it.
 */
import { HARDWARE } from './layout.js';
import type { WorkloadName } from './workload.js';

/** Runs `body` as often as the parameter says, with R12 counting down. */
const times = (name: WorkloadName, body: string): string => `
  mov r12d, [${name}]
  jmp ${name}_test
${name}_loop:
  ${body}
  dec r12d
${name}_test:
  test r12d, r12d
  jnz ${name}_loop
`;

/** Writes one quadword to each of the first RBP pages. */
const touch = (label: string): string => `
  mov rbx, HEAP
  jmp ${label}_test
${label}_loop:
  mov [rbx], rbp
  add rbx, 4096
  dec rbp
${label}_test:
  test rbp, rbp
  jnz ${label}_loop
`;

const syscall = (name: string): string => `mov eax, SYS_${name}\n  syscall\n`;

export const USER_SOURCE = `
user_init:
  ${times('syscalls', syscall('NULL'))}
  ${times('cpuids', 'xor eax, eax\n  xor ecx, ecx\n  cpuid\n')}
  ${HARDWARE.map((name) => `mov edi, DO_${name.toUpperCase()}\n  mov esi, [${name}]\n  ${syscall('HARDWARE')}`).join('\n  ')}

  ; demand paging
  mov edi, [touchPages]
  ${syscall('MMAP')}
  mov ebp, [touchPages]
  ${touch('first')}
  ${syscall('FLUSH')}

  ; mprotect
  ${times(
    'protects',
    `mov edi, [touchPages]
  xor esi, esi
  ${syscall('MPROTECT')}
  mov edi, [touchPages]
  mov esi, 1
  ${syscall('MPROTECT')}
  mov ebp, [touchPages]
  ${touch('again')}`,
  )}
  ${syscall('FLUSH')}

  ; munmap of the last pages
  mov edi, [touchPages]
  mov esi, [unmaps]
  sub edi, esi
  ${syscall('MUNMAP')}
  ${syscall('FLUSH')}

  ${times(
    'passes',
    `mov rbx, HEAP
  mov ebp, [touchPages]
  sub ebp, [unmaps]
  jmp pass_test
pass_loop:
  mov rax, [rbx]
  add rbx, 4096
  dec ebp
pass_test:
  test ebp, ebp
  jnz pass_loop`,
  )}
  ${times('kernelPasses', `mov edi, [touchPages]\n  ${syscall('SCAN')}`)}

  ${times(
    'forks',
    `${syscall('FORK')}
  test eax, eax
  jnz parent
  mov ebp, [forkWrites]
  ${touch('child')}
  ${syscall('EXIT')}
parent:
  ${syscall('WAIT')}
  mov ebp, [parentWrites]
  ${touch('own')}`,
  )}

  ; processes that give way to each other
  ${times('processes', `mov rdi, worker\n  ${syscall('SPAWN')}`)}
  ${syscall('WAIT')}

  ; the host charges page walks at the exit that follows them: one exit here, so that they do not eat the timer's period
  xor eax, eax
  cpuid
  ; timer interrupts, seen in the page that the kernel shares
  ${times(
    'ticks',
    `mov ebx, [tick_count]
  ${syscall('ARM')}
tick_wait:
  cmp ebx, [tick_count]
  je tick_wait`,
  )}
  mov edi, [idles]
  ${syscall('IDLE')}
  ${syscall('EXIT')}

worker:
  mov edi, [workerPages]
  inc edi
  ${syscall('MMAP')}
worker_next:
  mov ebp, [workerPages]
  inc ebp
  ${touch('work')}
  ${syscall('YIELD')}
  test eax, eax
  jnz worker_next
  ${syscall('EXIT')}
`;
