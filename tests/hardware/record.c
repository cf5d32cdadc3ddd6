/*
 * Runs single instructions on the processor of this machine and prints what they did.
 *
 * Reads lines 'code|16 general registers|flags|memory' (all hexadecimal, registers separated by blanks) and prints
 * lines 'fault|registers|flags|memory', fault being -1 or the vector guessed from the signal. The memory window lies at
 * WINDOW. Build and run under Linux on x86-64: gcc -O1 -no-pie -o record record.c && ./record < cases > results
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WINDOW 0x10000f80ul
#define WINDOW_BYTES 128
#define CODE 0x20000000ul
#define EXCHANGE 0x30000000ul

struct exchange {
  uint64_t in[16], in_flags, out[16], out_flags, host_rsp, code, back;
};

void run(void);
void back(void);
/* Offsets in struct exchange: in 0, in_flags 128, out 136, out_flags 264, host_rsp 272, code 280, back 288. */
asm(".text\n.globl run\nrun:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, 0x30000110\n"
    "pushq 0x30000080; popfq\n"
    "mov 0x30000000, %rax; mov 0x30000008, %rcx; mov 0x30000010, %rdx; mov 0x30000018, %rbx\n"
    "mov 0x30000020, %rsp; mov 0x30000028, %rbp; mov 0x30000030, %rsi; mov 0x30000038, %rdi\n"
    "mov 0x30000040, %r8; mov 0x30000048, %r9; mov 0x30000050, %r10; mov 0x30000058, %r11\n"
    "mov 0x30000060, %r12; mov 0x30000068, %r13; mov 0x30000070, %r14; mov 0x30000078, %r15\n"
    "jmp *0x30000118\n"
    ".globl back\nback:\n"
    "mov %rax, 0x30000088; mov %rcx, 0x30000090; mov %rdx, 0x30000098; mov %rbx, 0x300000a0\n"
    "mov %rsp, 0x300000a8; mov %rbp, 0x300000b0; mov %rsi, 0x300000b8; mov %rdi, 0x300000c0\n"
    "mov %r8, 0x300000c8; mov %r9, 0x300000d0; mov %r10, 0x300000d8; mov %r11, 0x300000e0\n"
    "mov %r12, 0x300000e8; mov %r13, 0x300000f0; mov %r14, 0x300000f8; mov %r15, 0x30000100\n"
    "mov 0x30000110, %rsp\n"
    "pushfq; popq 0x30000108\n"
    "cld\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "ret\n");

static sigjmp_buf out_of_signal;
static void on_signal(int signal) {
  siglongjmp(out_of_signal, signal);
}

static void *map(unsigned long at, int protection) {
  void *p = mmap((void *)at, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (p == MAP_FAILED) exit(1);
  return p;
}

int main(void) {
  struct exchange *x = map(EXCHANGE, PROT_READ | PROT_WRITE);
  uint8_t *code = map(CODE, PROT_READ | PROT_WRITE | PROT_EXEC);
  map(WINDOW & ~4095ul, PROT_READ | PROT_WRITE);
  uint8_t *window = (uint8_t *)WINDOW;
  x->code = CODE;
  x->back = (uint64_t)back;

  stack_t alternate = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
  sigaltstack(&alternate, NULL);
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER};
  int signals[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
  for (int i = 0; i < 5; i++) sigaction(signals[i], &action, NULL);

  char line[4096];
  while (fgets(line, sizeof line, stdin) != NULL) {
    char *p = line;
    int n = 0;
    unsigned byte;
    while (*p != '|') {
      sscanf(p, "%2x", &byte);
      code[n++] = byte;
      p += 2;
    }
    static const uint8_t leave[] = {0xff, 0x24, 0x25, 0x20, 0x01, 0x00, 0x30};
    memcpy(code + n, leave, sizeof leave);
    p++;
    for (int i = 0; i < 16; i++) x->in[i] = strtoull(p, &p, 16);
    x->in_flags = strtoull(p + 1, &p, 16) | 2;
    p++;
    for (int i = 0; i < WINDOW_BYTES; i++, p += 2) {
      sscanf(p, "%2x", &byte);
      window[i] = byte;
    }
    int fault = -1;
    int signal = sigsetjmp(out_of_signal, 1);
    if (signal == 0) run();
    else {
      asm volatile("cld");
      fault = signal == SIGFPE ? 0 : signal == SIGILL ? 6 : signal == SIGTRAP ? 3 : 13;
    }
    printf("%d|", fault);
    for (int i = 0; i < 16; i++) printf("%s%lx", i > 0 ? " " : "", x->out[i]);
    printf("|%lx|", x->out_flags);
    for (int i = 0; i < WINDOW_BYTES; i++) printf("%02x", window[i]);
    printf("\n");
  }
  return 0;
}
