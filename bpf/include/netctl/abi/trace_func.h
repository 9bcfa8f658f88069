/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Calls of functions: counted in the kernel by groups, or told one by one. Host byte order.
 */
#ifndef NETCTL_ABI_TRACE_FUNC_H
#define NETCTL_ABI_TRACE_FUNC_H

#include "trace.h"

/* What is attached at a function has the function's number, from 0 on, as its cookie. */
#define NC_FUNC_FUNCTIONS 1024

/* Calls within calls that a thread's stack holds; those beyond it have no time. Below 64, which is how many returns of a
 * thread the kernel watches. */
#define NC_FUNC_DEPTH 32

/* Of the constant `mode`. */
enum nc_func_mode {
	NC_FUNC_TIMES = 0, /* count calls and how long they took */
	NC_FUNC_CALLS,	   /* count calls, at their beginning */
	NC_FUNC_EACH,	   /* tell each call that took long enough */
};

/* Bits of the constant `group_by`: what keeps calls apart; of the key, all else is zero. */
#define NC_FUNC_BY_FUNCTION (1u << 0)
#define NC_FUNC_BY_PROCESS (1u << 1) /* id is the thread group */
#define NC_FUNC_BY_THREAD (1u << 2)  /* id is the thread */
#define NC_FUNC_BY_CGROUP (1u << 3)

struct nc_func_group {
	__u64 cgroup_id;
	__u32 function;
	__u32 id;
};
NC_STATIC_ASSERT(sizeof(struct nc_func_group) == 16, "nc_func_group is ABI");
#define NC_FUNC_GROUPS 4096

/* Values below 8 have a slot each, and each power of two above has 8, up to 2^40 - 1 nanoseconds (18 minutes), which
 * longer ones are counted as: a slot is at most an eighth wide. */
#define NC_FUNC_SLOTS ((40 - 3 + 1) << 3)

/* Of a hash, `groups`. Written by whoever runs, with atomic additions. */
struct nc_func_values {
	__u64 calls;
	__u64 sum_ns;
	__u32 pid;     /* of the first who called */
	char comm[16]; /* of him: by thread its own name, else that of the thread group's leader */
	__u32 reserved;
	__u32 slots[NC_FUNC_SLOTS];
};
NC_STATIC_ASSERT(sizeof(struct nc_func_values) == 40 + 4 * 304, "nc_func_values is ABI");

/* In the ring, `events`, of NC_FUNC_EACH: a call that has returned. */
struct nc_func_call {
	__u64 time_ns; /* CLOCK_MONOTONIC, of the return */
	__u64 took_ns;
	__u64 cgroup_id;
	__u64 result; /* the register that results are in, whatever the function has */
	__u32 function;
	__u32 tid;
	__u32 depth; /* how many calls that are traced it is within */
	struct nc_trace_owner owner;
};
NC_STATIC_ASSERT(sizeof(struct nc_func_call) == 64, "nc_func_call is ABI");

/* A per-CPU array of one, `func_counters`. Calls of the selected, and what they have not. */
struct nc_func_counters {
	__u64 too_deep;	 /* nested deeper than the stack: no time */
	__u64 left;	 /* never returned: longjmp, an exception, or a return that was not seen */
	__u64 no_thread; /* their thread could not be remembered */
	__u64 no_group;	 /* there is no room for more groups */
};
NC_STATIC_ASSERT(sizeof(struct nc_func_counters) == 32, "nc_func_counters is ABI");

#endif
