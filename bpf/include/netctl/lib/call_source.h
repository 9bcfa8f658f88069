/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a caller's bytes are, while its system call is under way: in the registers. Include vmlinux.h, bpf_helpers.h
 * and bpf_tracing.h before.
 */
#ifndef NETCTL_LIB_CALL_SOURCE_H
#define NETCTL_LIB_CALL_SOURCE_H

#ifndef __bpf__
#error "netctl/lib/ is for BPF programs; userspace shares netctl/abi/ with them"
#endif

#define MSG_OOB 0x1
#define MSG_PEEK 0x2
#define MSG_TRUNC 0x20
#define MSG_ERRQUEUE 0x2000
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define PF_KTHREAD 0x00200000
#define PF_IO_WORKER 0x00000010
#define PF_USER_WORKER 0x00004000

#if defined(__TARGET_ARCH_x86)
enum {
	SYS_READ = 0,
	SYS_WRITE = 1,
	SYS_READV = 19,
	SYS_WRITEV = 20,
	SYS_SENDFILE = 40,
	SYS_SENDTO = 44,
	SYS_RECVFROM = 45,
	SYS_SENDMSG = 46,
	SYS_RECVMSG = 47,
	SYS_SPLICE = 275,
	SYS_TEE = 276,
	SYS_PREADV = 295,
	SYS_PWRITEV = 296,
	SYS_RECVMMSG = 299,
	SYS_SENDMMSG = 307,
	SYS_PREADV2 = 327,
	SYS_PWRITEV2 = 328,
	SYS_IO_URING = 426
};
/* A bit for each of those from USUAL_FIRST on that has its buffer, or its vectors, in the second argument. */
#define USUAL_FIRST 0
#define USUAL_BUFFERS                                                                              \
	(1ull << SYS_READ | 1ull << SYS_WRITE | 1ull << SYS_SENDTO | 1ull << SYS_RECVFROM)
#define USUAL_VECTORS (1ull << SYS_READV | 1ull << SYS_WRITEV)
#define REGS_NR(regs) ((__u64)(regs)->orig_ax)
#define REGS_ARG2(regs) ((regs)->si)
#define REGS_ARG3(regs) ((regs)->dx)
/* A 32-bit program numbers its system calls differently. */
#define REGS_FOREIGN(regs) (((regs)->cs & 0xffff) != 0x33)
#define REGS_STACK(regs) ((regs)->sp)
#elif defined(__TARGET_ARCH_arm64)
enum {
	SYS_READ = 63,
	SYS_WRITE = 64,
	SYS_READV = 65,
	SYS_WRITEV = 66,
	SYS_PREADV = 69,
	SYS_PWRITEV = 70,
	SYS_SENDFILE = 71,
	SYS_SPLICE = 76,
	SYS_TEE = 77,
	SYS_SENDTO = 206,
	SYS_RECVFROM = 207,
	SYS_SENDMSG = 211,
	SYS_RECVMSG = 212,
	SYS_RECVMMSG = 243,
	SYS_SENDMMSG = 269,
	SYS_PREADV2 = 286,
	SYS_PWRITEV2 = 287,
	SYS_IO_URING = 426
};
#define USUAL_FIRST SYS_READ
#define USUAL_BUFFERS (1ull | 1ull << (SYS_WRITE - USUAL_FIRST))
#define USUAL_VECTORS (1ull << (SYS_READV - USUAL_FIRST) | 1ull << (SYS_WRITEV - USUAL_FIRST))
#define REGS_NR(regs) ((__u64)(regs)->syscallno)
#define REGS_ARG2(regs) ((regs)->regs[1])
#define REGS_ARG3(regs) ((regs)->regs[2])
#define REGS_FOREIGN(regs) (((regs)->pstate & 0x10) != 0)
#define REGS_STACK(regs) ((regs)->sp)
#else
#error "the numbers and registers of this machine's system calls are not known here"
#endif

/* Where the caller's bytes are: one buffer, or an array of them. */
struct source {
	__u64 buffer;
	__u64 iov;
	__u64 iovs;
	/* Of several messages in one call: as in struct half, brought up to date. */
	__u64 messages;
	__u32 thread;
	__u32 message;
	__u32 length; /* of what passed, 0 where it is not to be compared with the message's */
	__u32 several;
};

/* The calls that most servers and clients make, without a branch for each: the verifier would follow it
 * through all that comes. False for all others. */
static __always_inline bool find_usual_source(struct source *source, struct task_struct *task)
{
	struct pt_regs *regs;
	__u64 at, third, number, buffer = 0, vectors = 0;

	if (task->flags & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER))
		return false;
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	at = REGS_ARG2(regs);
	third = REGS_ARG3(regs);
	number = REGS_NR(regs) - USUAL_FIRST;
	if (number < 64) {
		buffer = USUAL_BUFFERS >> number & 1;
		vectors = USUAL_VECTORS >> number & 1;
	}
	if (!(buffer | vectors) || REGS_FOREIGN(regs))
		return false;
	buffer = at & -buffer;
	at &= -vectors;
	third &= -vectors;
	barrier_var(buffer);
	barrier_var(at);
	barrier_var(third);
	source->buffer = buffer;
	source->iov = at;
	source->iovs = third;
	return true;
}

#endif
