/*
 * Runs single instructions on this processor with all general, x87 and XMM registers given. Reads cases from standard
 * input and writes one result a case to standard output, both as `struct state`; tests/cpu/extensions/cases.ts makes
 * them. In a result, the first code byte is the vector that the signal stands for, or 0.
 *
 *   gcc -O1 -no-pie -o extension-vectors extension-vectors.c && ./extension-vectors < cases > results
 *
 * The memory window lies at WINDOW, at the end of a page behind which nothing is mapped.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define WINDOW 0x100c00ul
#define WINDOW_BYTES 1024
#define CODE 0x180000ul
#define EXCHANGE 0x1c0000ul

struct state {
  uint8_t fx[512];
  uint64_t gpr[16], rflags;
  uint8_t memory[WINDOW_BYTES];
  uint8_t code[16]; /* length first; in results, the vector */
  uint64_t pad;
};

struct exchange {
  uint64_t in[16], in_flags, out[16], out_flags, host_rsp, code, back;
  uint8_t pad[512 - 37 * 8];
  uint8_t fx_in[512], fx_out[512];
};

void run(void);
void back(void);
/* in 0, in_flags 0x80, out 0x88, out_flags 0x108, host_rsp 0x110, code 0x118, back 0x120, fx_in 0x200, fx_out 0x400 */
asm(".text\n.globl run\nrun:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, 0x1c0110\n"
    "fxrstor64 0x1c0200\n"
    "pushq 0x1c0080; popfq\n"
    "mov 0x1c0000, %rax; mov 0x1c0008, %rcx; mov 0x1c0010, %rdx; mov 0x1c0018, %rbx\n"
    "mov 0x1c0020, %rsp; mov 0x1c0028, %rbp; mov 0x1c0030, %rsi; mov 0x1c0038, %rdi\n"
    "mov 0x1c0040, %r8; mov 0x1c0048, %r9; mov 0x1c0050, %r10; mov 0x1c0058, %r11\n"
    "mov 0x1c0060, %r12; mov 0x1c0068, %r13; mov 0x1c0070, %r14; mov 0x1c0078, %r15\n"
    "jmp *0x1c0118\n"
    ".globl back\nback:\n"
    "mov %rax, 0x1c0088; mov %rcx, 0x1c0090; mov %rdx, 0x1c0098; mov %rbx, 0x1c00a0\n"
    "mov %rsp, 0x1c00a8; mov %rbp, 0x1c00b0; mov %rsi, 0x1c00b8; mov %rdi, 0x1c00c0\n"
    "mov %r8, 0x1c00c8; mov %r9, 0x1c00d0; mov %r10, 0x1c00d8; mov %r11, 0x1c00e0\n"
    "mov %r12, 0x1c00e8; mov %r13, 0x1c00f0; mov %r14, 0x1c00f8; mov %r15, 0x1c0100\n"
    "mov 0x1c0110, %rsp\n"
    "pushfq; popq 0x1c0108\n"
    "fxsave64 0x1c0400\n"
    "fninit\n"
    "pushq $0x1f80; ldmxcsr (%rsp); pop %rax\n"
    "cld\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "ret\n");

static struct exchange *x;
static sigjmp_buf out_of_signal;

static void on_signal(int signal, siginfo_t *info, void *context) {
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  ucontext_t *u = context;
  for (int i = 0; i < 16; i++) x->out[i] = u->uc_mcontext.gregs[order[i]];
  x->out_flags = u->uc_mcontext.gregs[REG_EFL];
  memcpy(x->fx_out, u->uc_mcontext.fpregs, 512);
  (void)info;
  siglongjmp(out_of_signal, signal);
}

static void *map(unsigned long at, int protection) {
  void *p = mmap((void *)at, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (p == MAP_FAILED) exit(1);
  return p;
}

int main(void) {
  static struct state s;
  x = map(EXCHANGE, PROT_READ | PROT_WRITE);
  uint8_t *code = map(CODE, PROT_READ | PROT_WRITE | PROT_EXEC);
  map(WINDOW & ~4095ul, PROT_READ | PROT_WRITE);
  uint8_t *window = (uint8_t *)WINDOW;
  x->code = CODE;
  x->back = (uint64_t)back;

  stack_t alternate = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
  sigaltstack(&alternate, NULL);
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER | SA_SIGINFO};
  int signals[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
  for (int i = 0; i < 5; i++) sigaction(signals[i], &action, NULL);

  while (fread(&s, sizeof s, 1, stdin) == 1) {
    int n = s.code[0];
    memcpy(code, s.code + 1, n);
    static const uint8_t leave[] = {0xff, 0x24, 0x25, 0x20, 0x01, 0x1c, 0x00};
    memcpy(code + n, leave, sizeof leave);
    memcpy(x->in, s.gpr, sizeof s.gpr);
    memcpy(x->fx_in, s.fx, 512);
    x->in_flags = s.rflags;
    memcpy(window, s.memory, WINDOW_BYTES);
    memset(s.code, 0, sizeof s.code);
    int signal = sigsetjmp(out_of_signal, 1);
    if (signal == 0) run();
    else {
      asm volatile("cld; fninit");
      s.code[0] = signal == SIGFPE ? 19 : signal == SIGILL ? 6 : signal == SIGTRAP ? 3 : 13;
    }
    memcpy(s.gpr, x->out, sizeof s.gpr);
    memcpy(s.fx, x->fx_out, 512);
    s.rflags = x->out_flags;
    memcpy(s.memory, window, WINDOW_BYTES);
    fwrite(&s, sizeof s, 1, stdout);
  }
  return 0;
}
