/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stacks of threads: sampled while they run, or taken when they begin to wait. Host byte order.
 */
#ifndef NETCTL_ABI_TRACE_PROFILE_H
#define NETCTL_ABI_TRACE_PROFILE_H

#include "trace.h"

/* Frames of either side that a stack has; what lies farther out is cut. The kernel itself gives 127, unless
 * kernel.perf_event_max_stack says otherwise. */
#define NC_PROFILE_FRAMES 128

/* Threads that wait at a time and are remembered. */
#define NC_PROFILE_WAITING 8192

/* In the ring, `events`, with its frames behind it: addresses, first those of the kernel, each side with the innermost
 * first. */
struct nc_profile_sample {
	__u64 amount; /* 1; of a wait, its nanoseconds; of one that is not over, when it began (CLOCK_MONOTONIC) */
	__u64 cgroup_id;
	__u64 started; /* when the process was, and how often it has become another program: which of those */
	__u32 program; /* that had this number it is */
	__u32 tid;
	struct nc_trace_owner owner;
	__u16 kernel_bytes; /* of frames */
	__u16 user_bytes;
	__u32 kernel_thread; /* 1: it has no frames of its own */
	__u32 reserved;
};
NC_STATIC_ASSERT(sizeof(struct nc_profile_sample) == 64, "nc_profile_sample is ABI");

/* Values of a hash, `waiting`, by thread. */
struct nc_profile_stack {
	struct nc_profile_sample sample;
	__u64 frames[2 * NC_PROFILE_FRAMES];
};
NC_STATIC_ASSERT(sizeof(struct nc_profile_stack) == 64 + 16 * NC_PROFILE_FRAMES,
		 "nc_profile_stack is ABI");

#endif
