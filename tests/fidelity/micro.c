/*
 * micro - the guest program of the micro tests: every test is bracketed by a dword written to port 0x510, where the
 * host takes its counters: 100 * test + 2 * round before, one more after. Three rounds each.
 *
 * The operations, their order and their sizes are those of the program of the recorded runs (data/reference), because
 * what a process has touched before decides what it costs later. Build: gcc -static -O2 -s.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MARKER_PORT = 0x510, ROUNDS = 3, PAGE = 4096, PAGES = 256, MIB = 1 << 20 };

/* Of tests 15 and 17. Their sizes move the C library's variables: which pages a child writes depends on that. */
static sigjmp_buf after_fault;
static char buffer[65536];

static void on_fault(int signal)
{
	(void)signal;
	siglongjmp(after_fault, 1);
}

static void mark(int n) { outl(n, MARKER_PORT); }

#define TEST(number, ...)                         \
	do {                                          \
		for (int round = 0; round < ROUNDS; round++) { \
			mark((number) * 100 + 2 * round);     \
			__VA_ARGS__;                          \
			mark((number) * 100 + 2 * round + 1); \
		}                                         \
	} while (0)

static char *fresh(size_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

static void touch(volatile char *p, int value)
{
	for (int i = 0; i < PAGES; i++)
		p[i * PAGE] = value;
}

/* Ten children, each running a program, or only ending when there is none. */
static void children(const char *path, const char *name, const char *argument)
{
	for (int i = 0; i < 10; i++) {
		pid_t child = fork();
		if (child == 0) {
			if (path != NULL)
				execl(path, name, argument, NULL);
			_exit(path != NULL);
		}
		waitpid(child, NULL, 0);
	}
}

int main(void)
{
	if (ioperm(MARKER_PORT, 4, 1) || ioperm(0x80, 1, 1)) {
		perror("ioperm");
		return 1;
	}
	volatile char *warm = fresh(4 * MIB);
	int to[2], from[2];
	for (int i = 0; i < 16; i++)
		warm[i * PAGE] = 1;
	if (pipe(to) || pipe(from))
		return 1;

	TEST(1, );
	TEST(2, for (int i = 0; i < 1000; i++) syscall(SYS_getppid));
	for (int round = 0; round < ROUNDS; round++) {
		mark(300 + 2 * round);
		volatile char *p = fresh(MIB);
		touch(p, 1);
		mark(301 + 2 * round);
		mark(400 + 2 * round);
		munmap((void *)p, MIB);
		mark(401 + 2 * round);
	}
	volatile char *area = fresh(MIB);
	touch(area, 1);
	TEST(5, for (int i = 0; i < 8; i++) {
		mprotect((void *)area, MIB, PROT_READ);
		mprotect((void *)area, MIB, PROT_READ | PROT_WRITE);
		for (int j = 0; j < PAGES; j++)
			area[j * PAGE]++;
	});
	TEST(6, madvise((void *)area, MIB, MADV_DONTNEED); touch(area, 1));
	TEST(7, {
		pid_t child = fork();
		if (child == 0) {
			touch(area, 2);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	});
	munmap((void *)area, MIB);
	TEST(8, children(NULL, NULL, NULL));
	TEST(9, children("/nop", "nop", NULL));
	TEST(10, children("/bin/busybox", "busybox", "true"));

	/* 200 switches between two processes */
	char c = 0;
	pid_t echo = fork();
	if (echo == 0) {
		while (read(to[0], &c, 1) == 1 && c != 'q')
			if (write(from[1], &c, 1) != 1)
				break;
		_exit(0);
	}
	TEST(11, for (int i = 0; i < 100; i++) {
		if (write(to[1], "x", 1) != 1 || read(from[0], &c, 1) != 1)
			return 1;
	});
	if (write(to[1], "q", 1) != 1)
		return 1;
	waitpid(echo, NULL, 0);
	TEST(12, for (int i = 0; i < 100; i++) {
		unsigned a = 0, b, x = 0, d;
		__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(x), "=d"(d));
	});
	TEST(13, for (int i = 0; i < 100; i++) outb(0, 0x80));
	char *forbidden = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
	sigaction(SIGSEGV, &action, NULL);
	TEST(15, for (volatile int i = 0; i < 100; i++) {
		if (sigsetjmp(after_fault, 0) == 0)
			*(volatile char *)forbidden = 1;
	});
	int file = open("/bin/busybox", O_RDONLY);
	TEST(17, for (int i = 0; i < 16; i++) {
		if (pread(file, buffer, sizeof buffer, i * sizeof buffer) < 0)
			return 1;
	});
	return 0;
}
