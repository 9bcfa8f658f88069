/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Garbage collections, as the probes of runtimes tell them. Host byte order.
 */
#ifndef NETCTL_ABI_TRACE_GC_H
#define NETCTL_ABI_TRACE_GC_H

#include "trace.h"

enum nc_gc_probe {
	NC_GC_PYTHON_START = 0, /* arguments: generation */
	NC_GC_PYTHON_DONE,	/* how many objects were collected */
	NC_GC_JAVA_BEGIN,	/* whether it is a full one */
	NC_GC_JAVA_END,
	NC_GC_POOL_BEGIN, /* collector's name and its length, pool's name and its length, initial, used, committed, most bytes */
	NC_GC_POOL_END,
};

/* Where an argument of a probe is: in a register, or in memory at what a register has and `displacement`. */
struct nc_gc_argument {
	__s32 displacement;
	__u16 register_offset; /* in struct pt_regs */
	__u8 in_memory;
	__u8 is_signed;
	__u8 shift; /* 64 less its bits */
	__u8 reserved[3];
};
NC_STATIC_ASSERT(sizeof(struct nc_gc_argument) == 12, "nc_gc_argument is ABI");

#define NC_GC_ARGUMENTS 8
#define NC_GC_SITES 64

/* Of an array, `sites`, by the cookie of what is attached. */
struct nc_gc_site {
	__u32 probe; /* enum nc_gc_probe */
	__u32 count; /* of arguments */
	struct nc_gc_argument arguments[NC_GC_ARGUMENTS];
};
NC_STATIC_ASSERT(sizeof(struct nc_gc_site) == 104, "nc_gc_site is ABI");

#define NC_GC_NAME 64

/* In the ring, `events`: a collection that is over (of NC_GC_PYTHON_DONE, NC_GC_JAVA_END), or a pool's. */
struct nc_gc_record {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 took_ns; /* of a collection */
	__u64 cgroup_id;
	__s64 begun_with; /* the first argument of its beginning */
	__s64 ended_with; /* the first argument of its end */
	__u64 used;	  /* bytes of the pool */
	__u32 probe;
	__u32 tid;
	struct nc_trace_owner owner;
	__u32 reserved;
	char collector[NC_GC_NAME]; /* of a pool; with a zero at its end */
	char pool[NC_GC_NAME];
};
NC_STATIC_ASSERT(sizeof(struct nc_gc_record) == 208, "nc_gc_record is ABI");

#endif
