/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Round-trip times of TCP, counted in the kernel by groups of connections. Host byte order but for addresses.
 */
#ifndef NETCTL_ABI_TRACE_RTT_H
#define NETCTL_ABI_TRACE_RTT_H

#include "trace.h"

/* Bits of the constant `group_by`: what keeps connections apart; of the key, all else is zero. */
#define NC_RTT_BY_REMOTE (1u << 0)  /* address, family */
#define NC_RTT_BY_PORT (1u << 1)    /* port: the server's */
#define NC_RTT_BY_CGROUP (1u << 2)  /* cgroup_id */
#define NC_RTT_BY_PROCESS (1u << 3) /* owner */

struct nc_rtt_group {
	__u8 address[16]; /* IPv4: the first four bytes */
	__u64 cgroup_id;
	struct nc_trace_owner owner;
	__u16 port;
	__u8 family; /* 4, 6; 0: not by address */
	__u8 reserved;
};
NC_STATIC_ASSERT(sizeof(struct nc_rtt_group) == 48, "nc_rtt_group is ABI");

/* Values below 8 have a slot each, and each power of two above has 8, up to 2^27 - 1 microseconds (134 s), which
 * longer ones are counted as: a slot is at most an eighth wide. */
#define NC_RTT_SLOT_BITS 3
#define NC_RTT_SLOTS ((27 - NC_RTT_SLOT_BITS + 1) << NC_RTT_SLOT_BITS)
#define NC_RTT_GROUPS 4096

/* Of a per-CPU hash, `groups`. Smoothed round-trip times, one for each segment that came in. */
struct nc_rtt_values {
	__u64 samples;
	__u64 sum_us;
	__u64 deviation_sum_us; /* of what TCP has for their mean deviation */
	__u32 min_us;		/* the least single round trip that TCP remembers; 0: none */
	__u32 reserved;
	__u32 slots[NC_RTT_SLOTS];
};
NC_STATIC_ASSERT(sizeof(struct nc_rtt_values) == 32 + 4 * 200, "nc_rtt_values is ABI");

#endif
