/*
 * Runs single x87, MMX and SSE instructions on this processor. Reads cases from standard input and writes one result a
 * case to standard output, both as the structures below; the cases are made by tests/cpu/fpu/cases.ts.
 *
 *   gcc -O1 -o fpu-vectors fpu-vectors.c && ./fpu-vectors < cases > results
 *
 * The instruction is executed with RDI at 128 bytes of memory. Unmasked SSE exceptions arrive as signals and are
 * reported in `trap`; unmasked x87 exceptions stay pending.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

struct state {
  uint8_t fx[512];
  uint64_t rax, rcx, rdx, rflags;
  uint8_t memory[128];
  uint8_t code[16]; /* length first; in results, the trap */
} __attribute__((aligned(64)));

static struct state in, out;
static uint8_t *page;
static sigjmp_buf back;

void execute(struct state *in, struct state *out, uint8_t *code);
__asm__(
    ".globl execute\n"
    "execute:\n"
    "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n"
    "  mov %rdi, %r12\n  mov %rsi, %r13\n  mov %rdx, %r14\n"
    "  fxrstor64 (%r12)\n"
    "  lea 544(%r13), %rdi\n"
    "  mov 512(%r12), %rax\n  mov 520(%r12), %rcx\n  mov 528(%r12), %rdx\n"
    "  pushq 536(%r12)\n  popfq\n"
    "  call *%r14\n"
    "  pushfq\n  popq 536(%r13)\n"
    "  mov %rax, 512(%r13)\n  mov %rcx, 520(%r13)\n  mov %rdx, 528(%r13)\n"
    "  fxsave64 (%r13)\n"
    "  fninit\n"
    "  pushq $0x1f80\n  ldmxcsr (%rsp)\n  pop %rax\n"
    "  cld\n"
    "  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n"
    "  ret\n");

static void trapped(int signal, siginfo_t *info, void *context) {
  ucontext_t *u = context;
  memcpy(out.fx, u->uc_mcontext.fpregs, 512);
  out.code[0] = signal;
  (void)info;
  siglongjmp(back, 1);
}

int main(void) {
  struct sigaction a;
  memset(&a, 0, sizeof a);
  a.sa_sigaction = trapped;
  a.sa_flags = SA_SIGINFO;
  sigaction(SIGFPE, &a, 0);
  sigaction(SIGSEGV, &a, 0);
  sigaction(SIGILL, &a, 0);
  page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  while (fread(&in, sizeof in, 1, stdin) == 1) {
    memcpy(&out, &in, sizeof in);
    memset(out.code, 0, sizeof out.code);
    memcpy(page, in.code + 1, in.code[0]);
    page[in.code[0]] = 0xc3;
    if (sigsetjmp(back, 1) == 0) execute(&in, &out, page);
    fwrite(&out, sizeof out, 1, stdout);
  }
  return 0;
}
