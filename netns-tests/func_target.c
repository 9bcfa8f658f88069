// SPDX-License-Identifier: GPL-2.0-only
/* Calls its own functions as standard input says: `NAME NUMBER` a line. Tells each with the nanoseconds that it took. */
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KEPT __attribute__((noinline, noclone, externally_visible, used))

static jmp_buf back;
volatile long sum;

KEPT long nap(long us)
{
	struct timespec span = {us / 1000000, us % 1000000 * 1000};

	nanosleep(&span, NULL);
	return us;
}

KEPT long nested(long us)
{
	long slept = nap(us);

	return slept + nap(us);
}

KEPT long recurse(long levels)
{
	nap(100);
	if (levels > 0)
		sum += recurse(levels - 1);
	return sum;
}

KEPT long jump(long us)
{
	sum += nap(us);
	longjmp(back, 1);
}

/* Ends with a jump to nap(). */
KEPT long tail(long us)
{
	sum++;
	return nap(us);
}

KEPT long wide(long number)
{
	sum += number;
#if defined(__x86_64__)
	asm volatile(".globl wide_nop\nwide_nop: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n.globl behind_nop\nbehind_nop:");
#endif
	return sum;
}

static void *work(void *us)
{
	nap((long)us);
	nap((long)us);
	flockfile(stdout);
	printf("thread %ld\n", syscall(SYS_gettid));
	funlockfile(stdout);
	return NULL;
}

KEPT long threads(long us)
{
	pthread_t all[3];

	for (int i = 0; i < 3; i++)
		pthread_create(&all[i], NULL, work, (void *)us);
	for (int i = 0; i < 3; i++)
		pthread_join(all[i], NULL);
	return us;
}

int main(void)
{
	static const struct {
		const char *name;
		long (*function)(long);
	} functions[] = {{"nap", nap},	 {"nested", nested}, {"recurse", recurse}, {"jump", jump},
			 {"tail", tail}, {"wide", wide},     {"threads", threads}};
	struct timespec begin, end;
	char name[32];
	long number;

	puts("ready");
	fflush(stdout);
	while (scanf("%31s %ld", name, &number) == 2) {
		for (unsigned i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
			if (strcmp(name, functions[i].name))
				continue;
			clock_gettime(CLOCK_MONOTONIC, &begin);
			if (!setjmp(back))
				sum += functions[i].function(number);
			clock_gettime(CLOCK_MONOTONIC, &end);
			printf("%s %ld\n", name,
			       (end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec);
			fflush(stdout);
		}
	}
	return 0;
}
