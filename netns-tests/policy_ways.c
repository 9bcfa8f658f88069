// SPDX-License-Identifier: GPL-2.0-only
/*
 * policy_ways WAY ADDRESS PORT [PROGRAM ARGUMENT...]
 *
 * Ways to reach an address, for the tests of `netctl policy`. Prints the errno of the attempt, 0 if it
 * went through. With `fd-connect` and `fd-sendto` the socket is descriptor 0.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static union {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
} to;
static socklen_t size;
static int family;

static int make(int type, int protocol)
{
	int fd = socket(family, type, protocol);

	if (fd < 0) {
		perror("socket");
		exit(2);
	}
	return fd;
}

static int result(long status)
{
	return status < 0 ? errno : 0;
}

/* What became of a connect that does not wait. */
static int finish(int fd, int status)
{
	struct pollfd wait = { .fd = fd, .events = POLLOUT };
	socklen_t length = sizeof(status);

	if (status != EINPROGRESS)
		return status;
	poll(&wait, 1, 5000);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &status, &length);
	return status;
}

static int send_message(int fd, int many)
{
	struct iovec data = { .iov_base = "x", .iov_len = 1 };
	struct mmsghdr message = {
		.msg_hdr = { .msg_name = &to, .msg_namelen = size, .msg_iov = &data, .msg_iovlen = 1 },
	};

	if (many)
		return result(sendmmsg(fd, &message, 1, 0));
	return result(sendmsg(fd, &message.msg_hdr, 0));
}

static int by_uring(int fd, int connects, unsigned flags)
{
	struct iovec data = { .iov_base = "x", .iov_len = 1 };
	struct msghdr message = {
		.msg_name = &to, .msg_namelen = size, .msg_iov = &data, .msg_iovlen = 1
	};
	struct io_uring ring;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	int status = io_uring_queue_init(4, &ring, flags);

	if (status < 0) {
		/* The kernel may be built, or set, without it. */
		printf("unavailable\n");
		exit(0);
	}
	sqe = io_uring_get_sqe(&ring);
	if (connects)
		io_uring_prep_connect(sqe, fd, &to.any, size);
	else
		io_uring_prep_sendmsg(sqe, fd, &message, 0);
	io_uring_submit(&ring);
	if (io_uring_wait_cqe(&ring, &cqe) < 0)
		exit(2);
	status = cqe->res;
	return status < 0 ? -status : 0;
}

static void *in_thread(void *status)
{
	*(int *)status = result(connect(make(SOCK_STREAM, 0), &to.any, size));
	return NULL;
}

static int attempt(const char *way)
{
	int fd, one = 1, status;
	pthread_t thread;

	if (!strcmp(way, "connect"))
		return result(connect(make(SOCK_STREAM, 0), &to.any, size));
	if (!strcmp(way, "nonblocking")) {
		fd = make(SOCK_STREAM | SOCK_NONBLOCK, 0);
		return finish(fd, result(connect(fd, &to.any, size)));
	}
	if (!strcmp(way, "fastopen-sendto")) {
		fd = make(SOCK_STREAM, 0);
		return result(sendto(fd, "x", 1, MSG_FASTOPEN, &to.any, size));
	}
	if (!strcmp(way, "fastopen-connect")) {
		fd = make(SOCK_STREAM, 0);
		if (setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof(one)))
			exit(2);
		status = result(connect(fd, &to.any, size));
		return status ?: result(send(fd, "x", 1, 0));
	}
	if (!strcmp(way, "mptcp")) {
		fd = socket(family, SOCK_STREAM, IPPROTO_MPTCP);
		if (fd < 0) {
			printf("unavailable\n");
			exit(0);
		}
		return result(connect(fd, &to.any, size));
	}
	if (!strcmp(way, "uring-connect"))
		return by_uring(make(SOCK_STREAM, 0), 1, 0);
	if (!strcmp(way, "uring-sqpoll-connect"))
		return by_uring(make(SOCK_STREAM, 0), 1, IORING_SETUP_SQPOLL);
	if (!strcmp(way, "thread")) {
		pthread_create(&thread, NULL, in_thread, &status);
		pthread_join(thread, NULL);
		return status;
	}
	if (!strcmp(way, "udp-connect")) {
		fd = make(SOCK_DGRAM, 0);
		status = result(connect(fd, &to.any, size));
		return status ?: result(send(fd, "x", 1, 0));
	}
	if (!strcmp(way, "udp-sendto"))
		return result(sendto(make(SOCK_DGRAM, 0), "x", 1, 0, &to.any, size));
	if (!strcmp(way, "udp-sendmsg"))
		return send_message(make(SOCK_DGRAM, 0), 0);
	if (!strcmp(way, "udp-sendmmsg"))
		return send_message(make(SOCK_DGRAM, 0), 1);
	if (!strcmp(way, "uring-sendmsg"))
		return by_uring(make(SOCK_DGRAM, 0), 0, 0);
	if (!strcmp(way, "udp-unspec")) {
		to.any.sa_family = AF_UNSPEC;
		return result(sendto(make(SOCK_DGRAM, 0), "x", 1, 0, &to.any, size));
	}
	/* Connected to where it may, then sent elsewhere. */
	if (!strcmp(way, "udp-elsewhere")) {
		struct sockaddr_in mine = { .sin_family = AF_INET, .sin_port = htons(9) };

		fd = make(SOCK_DGRAM, 0);
		mine.sin_addr.s_addr = htonl(0x7f000009);
		if (connect(fd, (struct sockaddr *)&mine, sizeof(mine)))
			exit(2);
		return result(sendto(fd, "x", 1, 0, &to.any, size));
	}
	/* A disconnect must always work. */
	if (!strcmp(way, "disconnect")) {
		struct sockaddr nothing = { .sa_family = AF_UNSPEC };

		return result(connect(make(SOCK_STREAM, 0), &nothing, sizeof(nothing)));
	}
	if (!strcmp(way, "fd-connect"))
		return result(connect(0, &to.any, size));
	if (!strcmp(way, "fd-sendto"))
		return result(sendto(0, "x", 1, 0, &to.any, size));
	fprintf(stderr, "no such way: %s\n", way);
	exit(2);
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	family = strchr(argv[2], ':') ? AF_INET6 : AF_INET;
	if (family == AF_INET6) {
		to.v6.sin6_family = AF_INET6;
		to.v6.sin6_port = htons(atoi(argv[3]));
		size = sizeof(to.v6);
	} else {
		to.v4.sin_family = AF_INET;
		to.v4.sin_port = htons(atoi(argv[3]));
		size = sizeof(to.v4);
	}
	if (inet_pton(family, argv[2],
		      family == AF_INET6 ? (void *)&to.v6.sin6_addr : &to.v4.sin_addr) != 1)
		return 2;
	printf("%d\n", attempt(argv[1]));
	return 0;
}
