/*
 * Runs short pieces of user code on the processor of this machine, each from a given state, and gives the state after.
 *
 *   gcc -O2 -fno-stack-protector -fcf-protection=none -o runner runner.c && ./runner < batches > results
 *
 * A batch is a 32-bit number of cases, then that many `struct state`; the answer is as many of them. tests/hardware/
 * layout.ts states the same layout and addresses. Code runs in 64-bit mode or, by a far jump to the kernel's 32-bit code
 * segment, in compatibility mode. What it must not reach lies far from the addresses that cases use.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define DATA 0x10000000ul /* two pages, with pages that are not mapped on both sides */
#define DATA_BYTES 0x2000
#define WINDOW_A (DATA + 0xf00)
#define WINDOW_A_BYTES 512
#define WINDOW_B (DATA + 0x1d00)
#define WINDOW_B_BYTES 768
#define READ_ONLY (DATA + 0x4000)
#define CONTROL 0x60000000ul
#define CODE 0x50000000ul

struct state {
  uint8_t fx[512];
  uint64_t gpr[16], rflags;
  uint64_t rip; /* of the code; in results, where it ended */
  uint64_t fs_base, gs_base;
  int32_t vector, error; /* of the fault, or -1 */
  uint64_t cr2;
  uint8_t mode, length;
  uint16_t sel[4];  /* ES, DS, FS, GS */
  uint16_t outside; /* 1 when other bytes of the data pages changed */
  uint32_t hash;    /* of these */
  uint8_t code[64];
  uint8_t memory[WINDOW_A_BYTES + WINDOW_B_BYTES];
};
_Static_assert(sizeof(struct state) == 2048, "the layout of tests/hardware/layout.ts");

/* Offsets are used by the assembly below. */
static struct exchange {
  uint64_t in[16], in_flags, out[16], out_flags, host_rsp; /* 0, 128, 136, 264, 272 */
  uint64_t fs, gs, host_fs;                                /* 280, 288, 296 */
  uint32_t far_offset;                                     /* 304 */
  uint16_t far_selector, wide;                             /* 308, 310 */
  uint16_t sel[4], out_sel[4];                             /* 312, 320 */
  uint64_t out_fs, out_gs;                                 /* 328, 336 */
  uint8_t pad[40];
  uint8_t fx_in[512], fx_out[512]; /* 384, 896 */
} x __attribute__((aligned(64), used));

void run(void);
void back(void);
void after(void);
void entry(int, siginfo_t *, void *);
asm(".text\n"
    "run:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, x+272(%rip)\n"
    "fxrstor64 x+384(%rip)\n"
    "movzwl x+312(%rip), %eax; mov %eax, %es\n"
    "movzwl x+314(%rip), %eax; mov %eax, %ds\n"
    "movzwl x+316(%rip), %eax; mov %eax, %fs\n"
    "movzwl x+318(%rip), %eax; mov %eax, %gs\n"
    "cmpw $0, x+310(%rip); je 1f\n"
    "mov x+280(%rip), %rax; wrfsbase %rax\n"
    "mov x+288(%rip), %rax; wrgsbase %rax\n"
    "1: pushq x+128(%rip); popfq\n"
    "mov x(%rip), %rax; mov x+8(%rip), %rcx; mov x+16(%rip), %rdx; mov x+24(%rip), %rbx\n"
    "mov x+32(%rip), %rsp; mov x+40(%rip), %rbp; mov x+48(%rip), %rsi; mov x+56(%rip), %rdi\n"
    "mov x+64(%rip), %r8; mov x+72(%rip), %r9; mov x+80(%rip), %r10; mov x+88(%rip), %r11\n"
    "mov x+96(%rip), %r12; mov x+104(%rip), %r13; mov x+112(%rip), %r14; mov x+120(%rip), %r15\n"
    "ljmp *x+304(%rip)\n"
    "back:\n"
    "mov %rax, x+136(%rip); mov %rcx, x+144(%rip); mov %rdx, x+152(%rip); mov %rbx, x+160(%rip)\n"
    "mov %rsp, x+168(%rip); mov %rbp, x+176(%rip); mov %rsi, x+184(%rip); mov %rdi, x+192(%rip)\n"
    "mov %r8, x+200(%rip); mov %r9, x+208(%rip); mov %r10, x+216(%rip); mov %r11, x+224(%rip)\n"
    "mov %r12, x+232(%rip); mov %r13, x+240(%rip); mov %r14, x+248(%rip); mov %r15, x+256(%rip)\n"
    "mov x+272(%rip), %rsp\n"
    "pushfq; popq x+264(%rip)\n"
    "fxsave64 x+896(%rip)\n"
    "mov %es, %eax; mov %ax, x+320(%rip); mov %ds, %eax; mov %ax, x+322(%rip)\n"
    "mov %fs, %eax; mov %ax, x+324(%rip); mov %gs, %eax; mov %ax, x+326(%rip)\n"
    "rdfsbase %rax; mov %rax, x+328(%rip); rdgsbase %rax; mov %rax, x+336(%rip)\n"
    "after:\n"
    "pushq $0x202; popfq\n"
    "xor %eax, %eax; mov %eax, %es; mov %eax, %ds; mov %eax, %fs; mov %eax, %gs\n"
    "mov x+296(%rip), %rax; wrfsbase %rax\n"
    "fninit; pushq $0x1f80; ldmxcsr (%rsp); pop %rax\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "ret\n"
    /* a signal handler must not trust AC, nor FS, which holds thread-local data */
    "entry:\n"
    "pushfq; andl $~0x40400, (%rsp); popfq\n"
    "jmp on_signal\n");

static int fault_vector, fault_error;
static uint64_t fault_rip, fault_cr2;
static volatile int in_case;

static void copy(void *to, const void *from, uint64_t n) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
}

__attribute__((used)) static void on_signal(int signal, siginfo_t *info, void *context) {
  static const uint8_t order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  ucontext_t *u = context;
  greg_t *g = u->uc_mcontext.gregs;
  uint32_t sel;
  (void)signal;
  (void)info;
  if (!in_case) asm volatile("mov $231, %%eax; mov $3, %%edi; syscall" ::: "rax", "rdi");
  for (int i = 0; i < 16; i++) x.out[i] = g[order[i]];
  x.out_flags = g[REG_EFL];
  copy(x.fx_out, u->uc_mcontext.fpregs, 512);
  asm("mov %%es, %0" : "=r"(sel));
  x.out_sel[0] = sel;
  asm("mov %%ds, %0" : "=r"(sel));
  x.out_sel[1] = sel;
  asm("mov %%fs, %0" : "=r"(sel));
  x.out_sel[2] = sel;
  asm("mov %%gs, %0" : "=r"(sel));
  x.out_sel[3] = sel;
  asm("rdfsbase %0" : "=r"(x.out_fs));
  asm("rdgsbase %0" : "=r"(x.out_gs));
  fault_vector = g[REG_TRAPNO];
  fault_error = g[REG_ERR];
  fault_rip = g[REG_RIP];
  fault_cr2 = fault_vector == 14 ? g[REG_CR2] : 0;
  g[REG_RIP] = (uint64_t)after;
  g[REG_RSP] = x.host_rsp;
  g[REG_EFL] = 0x202;
  g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xfffful) | 0x33;
}

static void *map(unsigned long at, unsigned long bytes, int protection, int file) {
  int flags = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void *p = mmap((void *)at, bytes, protection, flags | (at != 0 ? MAP_FIXED_NOREPLACE : 0), file, 0);
  if (p == MAP_FAILED || (at != 0 && p != (void *)at)) {
    fprintf(stderr, "runner: no memory at %lx: %s\n", at, strerror(errno));
    exit(2);
  }
  return p;
}

static int all(int write_it, void *at, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    ssize_t n = write_it ? write(1, (char *)at + done, bytes - done) : read(0, (char *)at + done, bytes - done);
    if (n <= 0) return 0;
    done += n;
  }
  return 1;
}

static uint8_t *data, *code;

static void execute(struct state *s) {
  uint64_t at = s->rip;
  uint8_t *c = code + (at & 0xfff);
  int n = s->length;
  memcpy(c, s->code, n);
  /* 64-bit: JMP [RIP + x] to `back`; compatibility mode: JMP 0x33:CONTROL, where such a jump is */
  if (s->mode == 64) {
    int32_t distance = (int32_t)(CONTROL + 8 - (at + n + 6));
    c[n] = 0xff, c[n + 1] = 0x25;
    memcpy(c + n + 2, &distance, 4);
  } else {
    static const uint8_t leave[] = {0xea, CONTROL & 0xff, CONTROL >> 8 & 0xff, CONTROL >> 16 & 0xff, CONTROL >> 24, 0x33, 0};
    memcpy(c + n, leave, sizeof leave);
  }
  memcpy(x.in, s->gpr, sizeof s->gpr);
  memcpy(x.fx_in, s->fx, 512);
  memcpy(x.sel, s->sel, sizeof s->sel);
  x.in_flags = s->rflags, x.fs = s->fs_base, x.gs = s->gs_base;
  x.far_offset = at, x.far_selector = s->mode == 64 ? 0x33 : 0x23, x.wide = s->mode == 64;
  memcpy((void *)WINDOW_A, s->memory, WINDOW_A_BYTES);
  memcpy((void *)WINDOW_B, s->memory + WINDOW_A_BYTES, WINDOW_B_BYTES);
  fault_vector = -1, fault_error = -1, fault_cr2 = 0, fault_rip = at + n;
  in_case = 1;
  run();
  in_case = 0;
  memcpy(s->gpr, x.out, sizeof s->gpr);
  memcpy(s->fx, x.fx_out, 512);
  memcpy(s->sel, x.out_sel, sizeof s->sel);
  s->rflags = x.out_flags, s->fs_base = x.out_fs, s->gs_base = x.out_gs;
  s->vector = fault_vector, s->error = fault_vector < 0 ? -1 : fault_error;
  s->rip = fault_rip, s->cr2 = fault_cr2;
  memcpy(s->memory, (void *)WINDOW_A, WINDOW_A_BYTES);
  memcpy(s->memory + WINDOW_A_BYTES, (void *)WINDOW_B, WINDOW_B_BYTES);
  /* the rest of the data pages is zero; what a case left there is hashed and put back */
  memset((void *)WINDOW_A, 0, WINDOW_A_BYTES);
  memset((void *)WINDOW_B, 0, WINDOW_B_BYTES);
  s->outside = 0, s->hash = 0;
  uint64_t *words = (uint64_t *)data, any = 0;
  for (int i = 0; i < DATA_BYTES / 8; i++) any |= words[i];
  if (any != 0) {
    s->outside = 1;
    for (int i = 0; i < DATA_BYTES; i++) s->hash = s->hash * 31 + data[i];
    memset(data, 0, DATA_BYTES);
  }
}

int main(void) {
  if ((getauxval(AT_HWCAP2) & 2) == 0) {
    fprintf(stderr, "runner: this kernel does not allow WRFSBASE to user code\n");
    return 2;
  }
  asm("rdfsbase %0" : "=r"(x.host_fs));
  data = map(DATA, DATA_BYTES, PROT_READ | PROT_WRITE, -1);
  memset(data, 0, DATA_BYTES);
  uint8_t *constant = map(READ_ONLY, 4096, PROT_READ | PROT_WRITE, -1);
  for (int i = 0; i < 4096; i++) constant[i] = i * 7 + (i >> 8);
  mprotect(constant, 4096, PROT_READ);
  /* JMP [RIP + 2] to `back`, whose address follows; cases jump through it too */
  uint8_t *control = map(CONTROL, 4096, PROT_READ | PROT_WRITE, -1);
  static const uint8_t jump[] = {0xff, 0x25, 2, 0, 0, 0};
  uint64_t back_at = (uint64_t)back;
  memcpy(control, jump, sizeof jump);
  memcpy(control + 8, &back_at, 8);
  mprotect(control, 4096, PROT_READ | PROT_EXEC);
  /* the code page is written through another mapping, so that cases cannot */
  int file = memfd_create("code", 0);
  if (file < 0 || ftruncate(file, 4096) != 0) return 2;
  code = map(0, 4096, PROT_READ | PROT_WRITE, file);
  memset(code, 0xcc, 4096);
  map(CODE, 4096, PROT_READ | PROT_EXEC, file);
  (void)*(volatile uint8_t *)CODE;

  static uint8_t stack[1 << 16];
  stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alternate, NULL);
  struct sigaction action = {.sa_sigaction = entry, .sa_flags = SA_ONSTACK | SA_NODEFER | SA_SIGINFO};
  int signals[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
  for (int i = 0; i < 5; i++) sigaction(signals[i], &action, NULL);

  uint32_t count, room = 0;
  struct state *batch = NULL;
  while (all(0, &count, 4)) {
    if (count > room) batch = realloc(batch, (room = count) * sizeof *batch);
    if (batch == NULL || !all(0, batch, count * sizeof *batch)) return 2;
    for (uint32_t i = 0; i < count; i++) execute(&batch[i]);
    if (!all(1, batch, count * sizeof *batch)) return 2;
  }
  return 0;
}
