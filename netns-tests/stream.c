// SPDX-License-Identifier: GPL-2.0-only
/* stream SENDER RECEIVER SHARED: sends numbered datagrams on the connected socket SENDER, and writes down
 * which of them come to the socket RECEIVER, until standard input is at its end. Two processes of their own,
 * so that neither waits for the test, which reads the file SHARED: a __u64 with how many were sent, one with
 * how many arrived, and the numbers of those, __u32, in the order of their arrival.
 *
 * The sender keeps to one CPU, on whose queue packets keep their order, and makes a pause behind each
 * packet: a receiver that gets no CPU for a second on a busy machine still loses none.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct shared {
	_Atomic uint64_t sent, arrived;
	uint32_t numbers[];
};

static void stay_on_this_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void receive(int fd, struct shared *shared, uint64_t room)
{
	uint64_t count = 0;
	uint32_t number;

	while (count < room && recv(fd, &number, sizeof(number), 0) == sizeof(number)) {
		shared->numbers[count] = number;
		shared->arrived = ++count;
	}
	/* Full, or trouble: the test sees that no more arrive. */
}

int main(int argc, char **argv)
{
	const struct timespec pause = {.tv_nsec = 20000};
	struct pollfd input = {.fd = 0, .events = POLLIN};
	struct stat status;

	if (argc != 4 || fstat(atoi(argv[3]), &status))
		return 2;
	struct shared *shared = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[3]), 0);
	pid_t receiver;

	if (shared == MAP_FAILED)
		return 2;
	receiver = fork();
	if (receiver == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		receive(atoi(argv[2]), shared, (status.st_size - sizeof(*shared)) / sizeof(uint32_t));
		return 0;
	}
	stay_on_this_cpu();
	while (poll(&input, 1, 0) == 0) {
		const uint32_t number = shared->sent;

		/* What the filter drops on its way out is sent all the same. */
		(void)!send(atoi(argv[1]), &number, sizeof(number), 0);
		shared->sent = number + 1;
		nanosleep(&pause, NULL);
	}
	kill(receiver, SIGKILL);
	return 0;
}
