// SPDX-License-Identifier: GPL-2.0-only
/* Comes by its own probes as standard input says: `NAME NUMBER` a line. Tells each with the nanoseconds that it took, or
 * the semaphore's value. */
#define _SDT_HAS_SEMAPHORES 1
#include <stdio.h>
#include <string.h>
#include <sys/sdt.h>
#include <time.h>

#define SEMAPHORE(name) __extension__ unsigned short name __attribute__((unused)) __attribute__((section(".probes")))
SEMAPHORE(netctl_begin_semaphore);
SEMAPHORE(netctl_done_semaphore);
SEMAPHORE(netctl_tick_semaphore);

static void nap(long us)
{
	struct timespec span = {us / 1000000, us % 1000000 * 1000};

	nanosleep(&span, NULL);
}

int main(void)
{
	struct timespec begin, end;
	char name[32];
	long number;

	puts("ready");
	fflush(stdout);
	while (scanf("%31s %ld", name, &number) == 2) {
		volatile unsigned short *semaphore = &netctl_begin_semaphore;

		clock_gettime(CLOCK_MONOTONIC, &begin);
		if (!strcmp(name, "work")) {
			/* Nobody listens: nothing is done, as programs do that have to prepare arguments. */
			if (*semaphore)
				DTRACE_PROBE2(netctl, begin, number, name);
			nap(number);
			if (*semaphore)
				DTRACE_PROBE1(netctl, done, (int)number);
		} else if (!strcmp(name, "abandon")) {
			DTRACE_PROBE2(netctl, begin, number, name);
		} else if (!strcmp(name, "tick")) {
			for (long i = 0; i < number; i++)
				DTRACE_PROBE1(netctl, tick, i);
			DTRACE_PROBE1(netctl, tick, -1); /* in a second place */
		}
		clock_gettime(CLOCK_MONOTONIC, &end);
		printf("%s %ld\n", name,
		       strcmp(name, "semaphore") ?
			       (end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec :
			       (long)*semaphore);
		fflush(stdout);
	}
	return 0;
}
